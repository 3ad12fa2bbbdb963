"""Self-supervised Multi-task Multimodal sentiment analysis (Self-MM).

Yu, Xu, Yuan, Wu, "Learning Modality-Specific Representations with Self-Supervised Multi-Task Learning for Multimodal
Sentiment Analysis", AAAI 2021, https://arxiv.org/abs/2102.04830, section 3 (label generation, momentum, objective).

The paper has scores only. For classes we take its formulas class by class, each a score in [-1, 1]: the utterance's
own class is 1, the others are -1, and every class has its centres, relative distances, generated label and momentum. A
modality's scores y become the distribution (1 + y) / sum (1 + y) for cross-entropy (the utterance's own class where all
are -1), and an utterance's weight is the mean over classes of tanh |y_s - y_M|.
An interval that is not symmetric is moved, so that its middle is the formula's 0.

Differs from the paper: text comes as extracted features, averaged over real tokens (the paper fine-tunes BERT and takes
its first token). As in the field's reference package, scores of exactly 0 belong to neither centre, labels are kept
within the interval, and in a step the labels come first, from the centres of the step before, then the features.
Differs from that package: a label stays as it was where a class has no centre yet (there not a number); any number of
training utterances; one learning rate for all but audio's and vision's LSTMs, and one weight decay.
A missing modality is 0 in the fusion, has no label, is in no centre and in no loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moodal.batch import Batch, Ragged
from moodal.models.base import FusionModel, Output
from moodal.models.dropout import Dropout
from moodal.models.recurrent import LSTM
from moodal.types import Task

EPS = 1e-8


class SelfMM(FusionModel):
    """A head for the fusion and one per modality, which learns labels that its distances to class centres suggest."""

    is_control = True

    def __init__(
        self,
        dims: Mapping[str, int],
        task: Task,
        *,
        audio_hidden: int = 16,
        vision_hidden: int = 64,
        fusion_features: int = 128,
        text_features: int = 64,
        audio_features: int = 16,
        vision_features: int = 32,
        fusion_dropout: float = 0.0,
        text_dropout: float = 0.1,
        audio_dropout: float = 0.1,
        vision_dropout: float = 0.0,
        audio_lr_factor: float = 5.0,
        vision_lr_factor: float = 5.0,
        text_pooling: str = "mean",
        audio_pooling: str = "none",
        vision_pooling: str = "none",
        **inputs: Any,
    ) -> None:
        inputs |= {"text_pooling": text_pooling, "audio_pooling": audio_pooling, "vision_pooling": vision_pooling}
        super().__init__(dims, task, **inputs)
        self.lr_factors = {"audio": audio_lr_factor, "vision": vision_lr_factor}
        states = {"audio": audio_hidden, "vision": vision_hidden}
        features = {"text": text_features, "audio": audio_features, "vision": vision_features}
        dropouts = {"text": text_dropout, "audio": audio_dropout, "vision": vision_dropout}
        widths = {m: d if m == "text" else features[m] for m, d in self.dims.items()}
        self.encoders = nn.ModuleDict(
            {m: LastState(self.dims[m], states[m], widths[m]) for m in self.modalities if m != "text"}
        )
        self.widths = {"fusion": fusion_features, **{m: features[m] for m in self.modalities}}
        self.fusion = Head(sum(widths.values()), fusion_features, task.num_outputs, fusion_dropout)
        self.heads = nn.ModuleDict(
            {m: Head(widths[m], features[m], task.num_outputs, dropouts[m]) for m in self.modalities}
        )

    def fuse(self, batch: Batch) -> Output:
        encoded = {m: self._utterance(m, batch.inputs[m]) for m in self.modalities}  # (B, D) each
        fused, logits = self.fusion(torch.cat(list(encoded.values()), dim=1))
        heads = {m: self.heads[m](encoded[m]) for m in self.modalities}
        features = {"fusion": fused, **{m: feature for m, (feature, _) in heads.items()}}
        return Output(logits, features, {m: own for m, (_, own) in heads.items()})

    def _utterance(self, modality: str, x: Ragged) -> Tensor:
        if modality not in self.encoders:
            return x.mean()
        out: Tensor = self.encoders[modality](x)
        return out * (x.lengths > 0)[:, None]

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, object]]:
        """The audio and vision networks have learning rates of their own, as multiples of ``lr``."""
        rest = [p for n, p in self.named_parameters() if not n.startswith("encoders.")]
        groups: list[dict[str, object]] = [{"params": rest, "lr": lr, "weight_decay": weight_decay}]
        for m, encoder in self.encoders.items():
            params = list(encoder.parameters())
            groups.append({"params": params, "lr": self.lr_factors[m] * lr, "weight_decay": weight_decay})
        return groups

    def extra_losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Each modality's loss on its generated labels, weighted by how far those are from the utterance's own.

        In the first epoch they are the same, and these losses 0; outside training there are none.
        """
        if batch.rows is None or not self.memory:
            return {}
        true = self.memory["labels/fusion"][batch.rows]
        losses = {}
        for m in self.modalities:
            own = self.memory[f"labels/{m}"][batch.rows]
            weight = torch.tanh((own - true).abs()).mean(1) * batch.present[m]  # (B,)
            error = self._error(output.unimodal_logits[m], own, true)
            losses[m] = (weight * error).sum() / batch.present[m].sum().clamp(min=1)
        return losses

    def _error(self, logits: Tensor, labels: Tensor, true: Tensor) -> Tensor:
        """(B,) of logits, generated and true label scores, (B, C) each."""
        if not self.task.classes:
            return (logits - labels - self._middle).abs()[:, 0]
        targets = class_distribution(labels, true)
        return F.cross_entropy(logits, targets, reduction="none", label_smoothing=self.label_smoothing)

    @property
    def _middle(self) -> float:
        return (self.task.low + self.task.high) / 2

    def _scores(self, labels: Tensor) -> Tensor:
        """(B, C) of 1 and -1 for classes, (B, 1) around the middle of the interval for scores."""
        if self.task.classes:
            return 2 * F.one_hot(labels, self.task.num_outputs).float() - 1
        return (labels - self._middle)[:, None]

    def begin(self, train: Batch) -> None:
        """Every utterance starts with its own label for all modalities, 0 for those it does not have."""
        assert train.labels is not None
        true = self._scores(train.labels)
        labels = {"fusion": true, **{m: true * train.present[m][:, None] for m in self.modalities}}
        self.memory = {f"labels/{s}": y for s, y in labels.items()}
        self.memory |= {f"features/{s}": torch.zeros(len(train), width) for s, width in self.widths.items()}

    @torch.no_grad()
    def after_step(self, output: Output, batch: Batch, epoch: int) -> None:
        """From the second epoch on (``epoch`` counts from 0) this batch's labels are renewed; then its features."""
        assert batch.rows is not None
        features = {s: f.detach() for s, f in output.embeddings.items()}
        if epoch > 0:
            self._renew(features, batch, epoch + 1)
        for s, f in features.items():
            self.memory[f"features/{s}"][batch.rows] = f

    def _renew(self, features: Mapping[str, Tensor], batch: Batch, n: int) -> None:
        """y_s <- (n - 1) / (n + 1) y_s + 2 / (n + 1) new, in epoch ``n``, from 1."""
        distances = {
            s: relative_distance(f, *centres(self.memory[f"features/{s}"], self.memory[f"labels/{s}"]))
            for s, f in features.items()
        }
        true = self.memory["labels/fusion"][batch.rows]
        limit = 1.0 if self.task.classes else (self.task.high - self.task.low) / 2
        for m in self.modalities:
            new = generated_labels(distances[m], distances["fusion"], true, limit)
            old = self.memory[f"labels/{m}"][batch.rows]
            known = new.isfinite() & batch.present[m][:, None]
            self.memory[f"labels/{m}"][batch.rows] = torch.where(known, ((n - 1) * old + 2 * new) / (n + 1), old)


class LastState(nn.Module):
    """(S, D) steps -> (B, out): the LSTM's state at the last real step, through a linear layer."""

    def __init__(self, dim: int, hidden: int, out: int) -> None:
        super().__init__()
        self.lstm, self.linear = LSTM(dim, hidden), nn.Linear(hidden, out)

    def forward(self, x: Ragged) -> Tensor:
        out: Tensor = self.linear(self.lstm(x))
        return out


class Head(nn.Module):
    """(B, D) -> features (B, width), whose distances make the labels, and logits (B, C)."""

    def __init__(self, dim: int, width: int, out: int, dropout: float) -> None:
        super().__init__()
        self.features = nn.Sequential(Dropout(dropout), nn.Linear(dim, width), nn.ReLU())
        self.classes = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        return features, self.classes(features)


def centres(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean features (C, P) of the utterances whose score is above 0, and below; not a number where there are none.

    features: (N, P); labels: (N, C). Made anew from the whole training set, so that nothing adds up over the steps.
    """
    above, below = (labels > 0).float(), (labels < 0).float()
    return above.t() @ features / above.sum(0)[:, None], below.t() @ features / below.sum(0)[:, None]


def relative_distance(features: Tensor, above: Tensor, below: Tensor) -> Tensor:
    """(B, C): (D_n - D_p) / D_p, with D_p and D_n the distances to the centres above and below 0."""
    exact = "donot_use_mm_for_euclid_dist"  # the fast way loses what is left when two near points are subtracted
    to_above, to_below = (torch.cdist(features, c, compute_mode=exact) for c in (above, below))
    return (to_below - to_above) / (to_above + EPS)


def generated_labels(own: Tensor, fused: Tensor, true: Tensor, limit: float) -> Tensor:
    """The mean of y_M a_s / a_M and y_M + a_s - a_M, within the interval. own, fused: a_s and a_M; all (B, C)."""
    ratio = own / (fused + EPS)
    return (0.5 * ratio * true + 0.5 * (true + own - fused)).clamp(-limit, limit)


def class_distribution(labels: Tensor, true: Tensor) -> Tensor:
    """Scores in [-1, 1] as shares of the classes (B, C); the true ones where every score is -1."""
    shares = (1 + labels) / 2
    total = shares.sum(1, keepdim=True)
    return torch.where(total > 0, shares / total.clamp(min=EPS), (1 + true) / 2)
