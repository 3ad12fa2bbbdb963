"""Acoustic Visual Mixup Consistent framework (AV-MC), its supervised part.

Liu et al., "Make Acoustic and Visual Cues Matter: CH-SIMS v2.0 Dataset and AV-Mixup Consistent Module", ICMI 2022,
https://arxiv.org/abs/2209.02604. Sizes, loss weights and the order of things are those of the authors' code
(https://github.com/thuiar/ch-sims-v2, the model called V1). Three passes over each batch: as it is, with the audio of
utterances mixed with that of others, with their vision mixed. In every pass the fusion is asked for the utterance's
label and each modality for its own; a modality that was mixed, and then the fusion, for labels mixed likewise.

What we chose:
- A modality's own label is what people said of that modality alone, where they did; else the utterance's. With scores
  it is always the utterance's.
- One share lambda per pass, from Beta(alpha, alpha) with alpha 1, as in the authors' code. It mixes the standardised
  means of the steps, among the utterances that have the modality. Two classes are mixed as cross-entropies, two scores
  as scores (the code: as absolute errors, whose minimum is the score with the larger share).
- A pass that leaves a modality as it is would only ask it the same again: its loss counts once more instead.
Differs from the authors' code: no batch norm, our standardisation does that, and mixed rows do not shift its
statistics; ReLU within the fusion, which is three linear maps in a row there; the last layer is linear, there it is
squashed into the label interval; text is the mean of its steps, or an LSTM's last state, in place of BERT's [CLS]; one
learning rate for all. Left out: the part that learns from unlabelled videos.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from moodal.batch import Batch, Ragged
from moodal.models.base import FusionModel, Output
from moodal.models.dropout import Dropout
from moodal.models.encoders import encoder
from moodal.types import Task

MIXED = ("audio", "vision")


class AVMC(FusionModel):
    """Networks and heads for each modality, an MLP on their features; audio and vision are mixed while training."""

    is_control = True

    def __init__(
        self,
        dims: Mapping[str, int],
        task: Task,
        *,
        text_hidden: int = 64,
        audio_hidden: int = 16,
        vision_hidden: int = 16,
        text_features: int = 32,
        audio_features: int = 32,
        vision_features: int = 64,
        fusion_features: int = 16,
        input_dropout: float = 0.1,
        dropout: float = 0.3,
        w_text: float = 0.2,
        w_audio: float = 0.8,
        w_vision: float = 0.4,
        mixup_alpha: float = 1.0,
        text_pooling: str = "mean",
        **inputs: Any,
    ) -> None:
        super().__init__(dims, task, text_pooling=text_pooling, **inputs)
        self.mixup_alpha = mixup_alpha
        self.weights = {"text": w_text, "audio": w_audio, "vision": w_vision}
        hidden = {"text": text_hidden, "audio": audio_hidden, "vision": vision_hidden}
        features = {"text": text_features, "audio": audio_features, "vision": vision_features}
        self.encoders = nn.ModuleDict(
            {
                m: encoder(self.pooling[m], dim, hidden[m], 0.0, 1)
                if m not in MIXED
                else _layers([dim] + [hidden[m]] * 3, input_dropout)
                for m, dim in self.dims.items()
            }
        )
        self.towers = nn.ModuleDict(
            {m: _layers([hidden[m], features[m], features[m]], dropout) for m in self.modalities}
        )
        self.heads = nn.ModuleDict({m: nn.Linear(features[m], task.num_outputs) for m in self.modalities})
        joined = sum(features[m] for m in self.modalities)
        self.fusion = _layers([joined, fusion_features, fusion_features], dropout)
        self.head = nn.Linear(fusion_features, task.num_outputs)

    def fuse(self, batch: Batch) -> Output:
        features = {m: self._features(m, batch.inputs[m]) for m in self.modalities}
        return Output(self._fused(features), features, {m: self.heads[m](f) for m, f in features.items()})

    def _features(self, modality: str, x: Ragged) -> Tensor:
        """(B, F) what a modality brings into the fusion; zeros where it is missing."""
        h = self.encoders[modality](x.mean() if modality in MIXED else x)  # (B, H)
        out: Tensor = self.towers[modality](h)
        return out * (x.lengths > 0)[:, None]

    def _fused(self, features: Mapping[str, Tensor]) -> Tensor:
        """(B, F) each -> (B, C)."""
        out: Tensor = self.head(self.fusion(torch.cat([features[m] for m in self.modalities], dim=1)))
        return out

    def extra_losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Each modality's loss over all passes that leave it as it is; while training, those of the mixed passes."""
        passes = [m for m in MIXED if m in self.modalities and self.training and self.mixup_alpha > 0]
        losses = {}
        for m, logits in output.unimodal_logits.items():
            there = batch.present[m]
            if bool(there.any()):
                count = 1 + len(passes) - (m in passes)
                losses[m] = count * self.weights[m] * self.task_loss(logits[there], self._own_labels(m, batch)[there])
        for m in passes:
            if bool(batch.present[m].any()):
                losses[f"{m}_mixed"] = self._mixed_pass(m, output, batch)
        return losses

    def _mixed_pass(self, modality: str, output: Output, batch: Batch) -> Tensor:
        """``modality`` mixed among the utterances that have it, next to what the others said as they were."""
        assert batch.labels is not None
        rows = torch.nonzero(batch.present[modality])[:, 0]
        order, share = torch.randperm(len(rows)), mixing_share(self.mixup_alpha)
        x = batch.inputs[modality].mean()[rows]
        features = {m: f[rows] for m, f in output.embeddings.items()}
        features[modality] = self._features(modality, Ragged.from_rows(share * x + (1 - share) * x[order]))
        own = self._own_labels(modality, batch)[rows]
        return self.weights[modality] * self._mixed_loss(
            self.heads[modality](features[modality]), own, order, share
        ) + self._mixed_loss(self._fused(features), batch.labels[rows], order, share)

    def _mixed_loss(self, logits: Tensor, labels: Tensor, order: Tensor, share: float) -> Tensor:
        """Row i holds ``share`` of utterance i and the rest of utterance ``order[i]``."""
        if not self.task.classes:
            return self.task_loss(logits, share * labels + (1 - share) * labels[order])
        return share * self.task_loss(logits, labels) + (1 - share) * self.task_loss(logits, labels[order])

    def _own_labels(self, modality: str, batch: Batch) -> Tensor:
        """(B,) people's label of this modality where there is one, else the utterance's."""
        assert batch.labels is not None
        own = batch.modality_labels.get(modality)
        return batch.labels if own is None or not self.task.classes else torch.where(own >= 0, own, batch.labels)


def mixing_share(alpha: float) -> float:
    """lambda of Beta(alpha, alpha), from torch's generator: from all of one or the other (small alpha) to halves."""
    return float(torch.distributions.Beta(alpha, alpha).sample())


def _layers(widths: list[int], dropout: float) -> nn.Sequential:
    """Dropout, then a linear layer and ReLU from each width to the next."""
    pairs = pairwise(widths)
    return nn.Sequential(Dropout(dropout), *(part for a, b in pairs for part in (nn.Linear(a, b), nn.ReLU())))
