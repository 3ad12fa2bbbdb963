"""Encoders: one modality of a batch in, one vector (B, H) per utterance out; zeros where the modality is missing."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from moodal.batch import Ragged
from moodal.models.dropout import Dropout
from moodal.models.recurrent import LSTM
from moodal.types import InputError


class LSTMEncoder(nn.Module):
    """State of an LSTM at the last real step, then dropout."""

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.lstm = LSTM(dim, hidden)
        self.dropout = Dropout(dropout)

    def forward(self, x: Ragged) -> Tensor:
        out: Tensor = self.dropout(self.lstm(x))
        return out


class DNNEncoder(nn.Module):
    """Mean over real steps, then ``layers`` linear layers with ReLU between and dropout before each (eq. 4's DNN)."""

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0, layers: int = 3) -> None:
        super().__init__()
        if layers < 1:
            raise InputError(f"layers must be at least 1, got {layers}")
        widths = [dim] + [hidden] * layers
        parts: list[nn.Module] = []
        for i in range(layers):
            parts += [nn.ReLU()] * (i > 0) + [Dropout(dropout), nn.Linear(widths[i], widths[i + 1])]
        self.layers = nn.Sequential(*parts)

    def forward(self, x: Ragged) -> Tensor:
        out: Tensor = self.layers(x.mean())
        return out * (x.lengths > 0)[:, None]


def encoder(pooling: str, dim: int, hidden: int, dropout: float, layers: int) -> nn.Module:
    """An LSTM for a modality that keeps its steps, a DNN for one that was pooled."""
    return LSTMEncoder(dim, hidden, dropout) if pooling == "none" else DNNEncoder(dim, hidden, dropout, layers)


def encoders(
    pooling: Mapping[str, str], dims: Mapping[str, int], hidden: int, dropout: float, layers: int
) -> nn.ModuleDict:
    """One ``encoder`` per modality, in the order of ``pooling``."""
    return nn.ModuleDict({m: encoder(how, dims[m], hidden, dropout, layers) for m, how in pooling.items()})
