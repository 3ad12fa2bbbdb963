"""Low-rank Multimodal Fusion.

Liu et al., "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors", ACL 2018,
https://arxiv.org/abs/1806.00064, section 3 (sub-networks as in TFN, Zadeh et al. 2017, section 4.1).
Differs from the field's reference package: fusion weights and bias are trained (there they are in no parameter group),
audio and vision are averaged over real steps only, and the text dropout is active.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from moodal.batch import Batch, Ragged
from moodal.models.base import FusionModel, Output
from moodal.models.dropout import Dropout
from moodal.models.encoders import LSTMEncoder
from moodal.models.fusion import LowRankFusion
from moodal.types import Task


class LMF(FusionModel):
    """Unimodal sub-networks and low-rank fusion of their outputs straight into the classes."""

    is_control = True

    def __init__(
        self,
        dims: Mapping[str, int],
        task: Task,
        *,
        text_hidden: int = 64,
        audio_hidden: int = 16,
        vision_hidden: int = 64,
        rank: int = 4,
        dropout: float = 0.2,
        **inputs: Any,
    ) -> None:
        super().__init__(dims, task, **inputs)
        widths = {"text": text_hidden, "audio": audio_hidden, "vision": vision_hidden}
        self.subnets = nn.ModuleDict(
            {
                m: TextSubNet(self.dims[m], widths[m], dropout)
                if self.pooling[m] == "none"
                else SubNet(self.dims[m], widths[m], dropout)
                for m in self.modalities
            }
        )
        outs = [widths[m] // 2 if self.pooling[m] == "none" else widths[m] for m in self.modalities]
        self.fusion = LowRankFusion(len(outs), outs, task.num_outputs, rank)

    def fuse(self, batch: Batch) -> Output:
        h = {m: self.subnets[m](batch.inputs[m]) for m in self.modalities}
        return Output(self.fusion([h[m] for m in self.modalities]), h)


class SubNet(nn.Module):
    """Mean over real steps, batch norm over those that are there, dropout, three linear layers with ReLU."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.hidden = hidden
        self.norm = nn.BatchNorm1d(dim)
        self.layers = nn.Sequential(
            Dropout(dropout),
            *(part for i in range(3) for part in (nn.Linear(hidden if i else dim, hidden), nn.ReLU())),
        )

    def forward(self, x: Ragged) -> Tensor:
        there = x.lengths > 0
        out = x.values.new_zeros(len(x), self.hidden)
        if int(there.sum()) > int(self.training):  # one row has no variance to train batch norm on
            out[there] = self.layers(self.norm(x.mean()[there]))
        return out


class TextSubNet(nn.Module):
    """LSTM's last real state, dropout, a linear layer to half its width."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.lstm = LSTMEncoder(dim, hidden, dropout)
        self.linear = nn.Linear(hidden, hidden // 2)

    def forward(self, x: Ragged) -> Tensor:
        out: Tensor = self.linear(self.lstm(x))
        return torch.where((x.lengths > 0)[:, None], out, 0.0)
