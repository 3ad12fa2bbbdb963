"""Encoders: one modality of a batch in, one vector (B, H) per utterance out; zeros where the modality is missing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
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


class SubNet(nn.Module):
    """Mean over real steps, batch norm over the utterances that have any, dropout, three linear layers with ReLU.

    What TFN and LMF read audio and vision with (Zadeh et al. 2017, section 4.1).
    """

    def __init__(self, dim: int, hidden: int, out: int, dropout: float) -> None:
        super().__init__()
        self.out = out
        self.norm = nn.BatchNorm1d(dim)
        widths = (dim, hidden, hidden, out)
        self.layers = nn.Sequential(
            Dropout(dropout),
            *(part for i in range(3) for part in (nn.Linear(widths[i], widths[i + 1]), nn.ReLU())),
        )

    def forward(self, x: Ragged) -> Tensor:
        there = x.lengths > 0
        out = x.values.new_zeros(len(x), self.out)
        if int(there.sum()) > int(self.training):  # one row has no variance to train batch norm on
            out[there] = self.layers(self.norm(x.mean()[there]))
        return out


class TextSubNet(nn.Module):
    """LSTM's last real state, dropout, a linear layer: what TFN and LMF read the text with."""

    def __init__(self, dim: int, hidden: int, out: int, dropout: float) -> None:
        super().__init__()
        self.lstm = LSTMEncoder(dim, hidden, dropout)
        self.linear = nn.Linear(hidden, out)

    def forward(self, x: Ragged) -> Tensor:
        out: Tensor = self.linear(self.lstm(x))
        return torch.where((x.lengths > 0)[:, None], out, 0.0)


def subnet(pooling: str, dim: int, hidden: int, out: int, dropout: float) -> nn.Module:
    """A ``TextSubNet`` for a modality that keeps its steps, a ``SubNet`` for one that was pooled."""
    return (TextSubNet if pooling == "none" else SubNet)(dim, hidden, out, dropout)
