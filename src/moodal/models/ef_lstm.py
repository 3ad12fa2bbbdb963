"""Early Fusion LSTM: one recurrent network over the features of all modalities, word by word.

The recurrent unit is that of Hochreiter & Schmidhuber, "Long Short-Term Memory", Neural Computation 1997,
https://doi.org/10.1162/neco.1997.9.8.1735; as a yardstick of multimodal sentiment it comes from Williams et al.,
"Recognizing Emotions in Video Using Multimodal DNN Feature Fusion", Challenge-HML at ACL 2018,
https://aclanthology.org/W18-3302, section 3 (early fusion).
Differs from the paper: one direction, as in the field's reference package. Differs from both in how the joined features
are normalised: by our standardisation, that is each feature by its own mean and deviation over the training words. The
paper has a batch norm per feature there; the package normalises each word position over all features together, so that
features in large units drown the text. Only real words are read; the package's LSTM runs on through the padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from moodal.batch import Batch, Ragged
from moodal.models.base import FusionModel, Output
from moodal.models.dropout import Dropout
from moodal.models.recurrent import LSTM
from moodal.types import Task


class EFLSTM(FusionModel):
    """The modalities' features joined at every word, a stack of LSTMs, two linear layers on the last state."""

    is_control = True
    word_aligned: ClassVar[bool] = True

    def __init__(
        self,
        dims: Mapping[str, int],
        task: Task,
        *,
        hidden: int = 32,
        layers: int = 3,
        dropout: float = 0.5,
        audio_pooling: str = "none",
        vision_pooling: str = "none",
        **inputs: Any,
    ) -> None:
        super().__init__(dims, task, audio_pooling=audio_pooling, vision_pooling=vision_pooling, **inputs)
        widths = [sum(self.dims.values())] + [hidden] * layers
        self.lstms = nn.ModuleList(LSTM(widths[i], hidden) for i in range(layers))
        self.dropout = Dropout(dropout)
        self.head = nn.Sequential(
            Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(hidden, task.num_outputs),
        )

    def fuse(self, batch: Batch) -> Output:
        x = joined(batch)
        for lstm in self.lstms[:-1]:
            assert isinstance(lstm, LSTM)
            x = Ragged(self.dropout(lstm.states(x).hidden), x.lengths)  # (S, H)
        h = self.lstms[-1](x)  # (B, H)
        return Output(self.head(h), {"fusion": h})


def joined(batch: Batch) -> Ragged:
    """The features of all modalities side by side, (S, D_t + D_a + D_v) and (B,); zeros, which is the mean, where a
    modality is missing. All that are there have as many steps (``Batch.aligned``)."""
    lengths = torch.stack([x.lengths for x in batch.inputs.values()]).max(0).values
    owner = torch.repeat_interleave(lengths)
    return Ragged(torch.cat([_spread(x, lengths, owner) for x in batch.inputs.values()], dim=1), lengths)


def _spread(x: Ragged, lengths: Tensor, owner: Tensor) -> Tensor:
    """(S, D) with zero rows for utterances that lack this modality."""
    if torch.equal(x.lengths, lengths):
        return x.values
    out = x.values.new_zeros(len(owner), x.dim)
    out[(x.lengths > 0)[owner]] = x.values
    return out
