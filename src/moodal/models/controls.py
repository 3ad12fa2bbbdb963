"""Networks that every fusion model has to beat: one modality alone, the average of all, and early concatenation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from moodal.batch import Batch
from moodal.models.base import FusionModel, Output
from moodal.models.dropout import Dropout
from moodal.models.encoders import encoder, encoders
from moodal.types import InputError, Task


class Unimodal(FusionModel):
    """One modality alone: encoder and linear head. The others are not even read."""

    is_control = True

    def __init__(
        self,
        dims: Mapping[str, int],
        task: Task,
        *,
        modality: str,
        hidden: int = 64,
        layers: int = 3,
        dropout: float = 0.3,
        **inputs: Any,
    ) -> None:
        if modality not in dims:
            raise InputError(f"this data set has no {modality}; it has {', '.join(dims)}")
        super().__init__({modality: dims[modality]}, task, **inputs)
        self.encoder = encoder(self.pooling[modality], self.dims[modality], hidden, dropout, layers)
        self.head = nn.Linear(hidden, task.num_outputs)

    def fuse(self, batch: Batch) -> Output:
        (modality,) = self.modalities
        h = self.encoder(batch.inputs[modality])  # (B, H)
        return Output(self.head(torch.relu(h)), {modality: h})


class LateAverage(FusionModel):
    """Unimodal models trained each for itself; the mean of the probabilities of those that are present.

    For regression the mean of their scores.
    """

    is_control = True

    def __init__(
        self,
        dims: Mapping[str, int],
        task: Task,
        *,
        hidden: int = 64,
        layers: int = 3,
        dropout: float = 0.3,
        **inputs: Any,
    ) -> None:
        super().__init__(dims, task, **inputs)
        self.encoders = encoders(self.pooling, self.dims, hidden, dropout, layers)
        self.heads = nn.ModuleDict({m: nn.Linear(hidden, task.num_outputs) for m in self.modalities})

    def fuse(self, batch: Batch) -> Output:
        h = {m: self.encoders[m](batch.inputs[m]) for m in self.modalities}
        logits = {m: self.heads[m](torch.relu(h[m])) for m in self.modalities}
        present = torch.stack([batch.present[m] for m in self.modalities], dim=1).float()  # (B, M)
        share = present / present.sum(1, keepdim=True).clamp(min=1)
        stacked = torch.stack([logits[m] for m in self.modalities], dim=1)  # (B, M, C)
        return Output(self._average(stacked, share), h, logits)

    def _average(self, logits: Tensor, share: Tensor) -> Tensor:
        if not self.task.classes:
            return (logits * share[:, :, None]).sum(1)
        uniform = (share.sum(1, keepdim=True) == 0) / logits.shape[-1]  # nothing present: every class alike
        mean = (logits.softmax(-1) * share[:, :, None]).sum(1) + uniform
        return mean.clamp(min=1e-12).log()

    def task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Zero while training: the average is never trained, its parts are (``extra_losses``)."""
        return super().task_loss(logits.detach() if self.training else logits, labels)

    def extra_losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        assert batch.labels is not None
        losses = {}
        for m, logits in output.unimodal_logits.items():
            there = batch.present[m]
            if bool(there.any()):
                losses[m] = FusionModel.task_loss(self, logits[there], batch.labels[there])
        return losses or {"nothing_present": 0.0 * output.logits.sum()}  # a step needs something to derive


class LFDNN(FusionModel):
    """Concatenation of the encodings, then an MLP (LF-DNN: Cambria et al., CICLing 2017)."""

    is_control = True

    def __init__(
        self,
        dims: Mapping[str, int],
        task: Task,
        *,
        hidden: int = 64,
        layers: int = 3,
        dropout: float = 0.3,
        **inputs: Any,
    ) -> None:
        super().__init__(dims, task, **inputs)
        self.encoders = encoders(self.pooling, self.dims, hidden, dropout, layers)
        self.head = nn.Sequential(
            Dropout(dropout),
            nn.Linear(hidden * len(self.modalities), hidden),
            nn.ReLU(),
            nn.Linear(hidden, task.num_outputs),
        )

    def fuse(self, batch: Batch) -> Output:
        h = {m: self.encoders[m](batch.inputs[m]) for m in self.modalities}
        fused = torch.relu(torch.cat([h[m] for m in self.modalities], dim=1))  # (B, M H)
        return Output(self.head(fused), h)
