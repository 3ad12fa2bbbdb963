"""Multimodal Relevance Estimation network (MRE).

Zhang et al., "Bridging the Emotional Semantic Gap via Multimodal Relevance Estimation", 2023,
https://arxiv.org/abs/2302.01555, sections 3 and 4, equations 1 to 8.

The paper leaves some things open; each is an option of ``MRE`` with our choice as its default:
learned projections in the attention (``attention_projections``, none), how H is normalised (``relevance``, softmax),
whether eq. 5 teaches H (``detach_relevance``, it does), the scale of the weighted bag (``rescale``, times M, so that
equal relevance changes nothing), temperature, rank, width and the two loss weights.
Differs from the paper: losses are means over the batch, not sums, so that they do not depend on its size; a missing
modality is left out of the attention, has relevance 0 and enters the fusion as the appended 1 alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moodal.batch import Batch
from moodal.models.base import FusionModel, Output
from moodal.models.dropout import Dropout
from moodal.models.encoders import encoders
from moodal.models.fusion import LowRankFusion
from moodal.types import InputError, Task


class MRE(FusionModel):
    """Attention over the bag of modalities, relevance M1, class estimate M2, weighted low-rank fusion."""

    def __init__(
        self,
        dims: Mapping[str, int],
        task: Task,
        *,
        hidden: int = 64,
        layers: int = 3,
        rank: int = 4,
        dropout: float = 0.3,
        w_rs: float = 0.3,
        w_cnce: float = 0.1,
        temperature: float = 0.5,
        attention_projections: bool = False,
        relevance: str = "softmax",
        detach_relevance: bool = False,
        rescale: bool = True,
        **inputs: Any,
    ) -> None:
        super().__init__(dims, task, **inputs)
        if relevance not in ("softmax", "sigmoid"):
            raise InputError(f"relevance must be softmax or sigmoid, got {relevance!r}")
        if temperature <= 0:
            raise InputError(f"temperature must be above 0, got {temperature}")
        self.w_rs, self.w_cnce, self.temperature = w_rs, w_cnce, temperature
        self.relevance, self.detach_relevance, self.rescale = relevance, detach_relevance, rescale
        self.encoders = encoders(self.pooling, self.dims, hidden, dropout, layers)
        self.projections = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(3 * attention_projections))
        self.m1 = _mlp(hidden, 1, dropout)
        self.m2 = _mlp(hidden, task.num_outputs, dropout)
        self.fusion = LowRankFusion(len(self.modalities), hidden, task.num_outputs, rank, additive_start=True)

    def fuse(self, batch: Batch) -> Output:
        bag = torch.stack([self.encoders[m](batch.inputs[m]) for m in self.modalities], dim=1)  # S (B, M, H)
        present = torch.stack([batch.present[m] for m in self.modalities], dim=1)  # (B, M)
        query, key, value = (p(bag) for p in self.projections) if self.projections else (bag, bag, bag)
        attended = bag_attention(query, key, value, present)  # A (B, M, H), eq. 3
        r = self._relevance(self.m1(attended).squeeze(-1), present)  # (B, M)
        scale = present.sum(1, keepdim=True) if self.rescale and self.relevance == "softmax" else 1
        weighted = (r * scale)[:, :, None] * bag  # S_hat (B, M, H), eq. 4
        mixture = (r[:, :, None] * attended).sum(1, keepdim=True)  # (B, 1, H)
        estimates = self.m2(torch.cat([attended, mixture], dim=1))  # (B, M + 1, C)
        unimodal, pooled = estimates[:, :-1], estimates[:, -1]
        return Output(
            self.fusion(weighted),
            {"bag": bag, "weighted_bag": weighted, "pooled_logits": pooled},
            {m: unimodal[:, i] for i, m in enumerate(self.modalities)},
            r,
        )

    def _relevance(self, scores: Tensor, present: Tensor) -> Tensor:
        """M1's scores (B, M) -> H; a missing modality gets 0."""
        if self.relevance == "sigmoid":
            return torch.sigmoid(scores) * present
        return masked_softmax(scores, present)

    def extra_losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The two losses of eq. 8, weighted; one whose weight is 0 is not computed."""
        assert batch.labels is not None
        assert output.relevance is not None
        present = torch.stack([batch.present[m] for m in self.modalities], dim=1)
        losses = {}
        if self.w_rs:
            unimodal = torch.stack([output.unimodal_logits[m] for m in self.modalities], dim=1)
            r = output.relevance.detach() if self.detach_relevance else output.relevance
            losses["relevant_semantic"] = self.w_rs * relevant_semantic_loss(
                unimodal, output.embeddings["pooled_logits"], r, batch.labels, present
            )
        if self.w_cnce:
            classes = batch.labels if self.task.classes else _sign_classes(batch.labels, self.task)
            losses["contrastive_semantic"] = self.w_cnce * contrastive_semantic_loss(
                output.embeddings["weighted_bag"], classes, present, self.temperature
            )
        return losses


def bag_attention(query: Tensor, key: Tensor, value: Tensor, present: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(H)) V over the present modalities of each utterance (eq. 3). (B, M, H) -> (B, M, H)."""
    scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5  # (B, M, M)
    return masked_softmax(scores, present[:, None, :]) @ value * present[:, :, None]


def masked_softmax(scores: Tensor, keep: Tensor) -> Tensor:
    """Softmax over the last axis among those kept; the others, and rows where none is kept, are 0."""
    kept = torch.where(keep, scores, torch.finfo(scores.dtype).min)
    return torch.softmax(kept, dim=-1) * keep


def relevant_semantic_loss(
    unimodal: Tensor, pooled: Tensor, relevance: Tensor, labels: Tensor, present: Tensor
) -> Tensor:
    """Eq. 5: every modality is asked for the utterance's label, the more the more relevant it is; so is the mixture.

    unimodal: (B, M, C) = M2(A); pooled: (B, C) = M2(sum_m r A); relevance, present: (B, M); labels: (B,).
    With a single output column the mean absolute error takes the place of cross-entropy.
    """
    rows = torch.cat([unimodal, pooled[:, None]], dim=1)  # (B, M + 1, C)
    each = _errors(rows.flatten(0, 1), labels.repeat_interleave(rows.shape[1])).view(rows.shape[:2])
    return ((1 + relevance) * each[:, :-1] * present).sum(1).mean() + each[:, -1].mean()


def contrastive_semantic_loss(bag: Tensor, classes: Tensor, present: Tensor, temperature: float) -> Tensor:
    """Eq. 6-7: for each ordered pair of modalities, utterances of one class attract and those of others repel.

    bag: (B, M, H) relevance-weighted encodings; classes: (B,); present: (B, M). The mean over positive pairs of
    -log P plus the mean over negative pairs of -log(1 - P); a side without pairs is 0. Pairs with a missing modality
    are left out, of the softmax too. With a single modality there is nothing to contrast: 0.
    """
    if bag.shape[1] < 2:
        return bag.new_zeros(())
    unit = F.normalize(bag, dim=-1, eps=1e-6)  # a zero vector has no direction: without eps its gradient is NaN
    ordered = list(permutations(range(bag.shape[1]), 2))
    first, second = (torch.tensor(side) for side in zip(*ordered, strict=True))
    rows, there = unit.transpose(0, 1), present.t().to(bag.dtype)  # (M, B, H), (M, B)
    row, column = there[first], there[second]  # (pairs, B)
    absent = (1 - column)[:, None] * torch.finfo(bag.dtype).min
    of_first, of_second = (rows / temperature).index_select(0, first), rows.index_select(0, second)
    p = torch.softmax(torch.baddbmm(absent, of_first, of_second.transpose(1, 2)), dim=-1)  # (pairs, B, B)
    same = (classes[:, None] == classes[None, :]).to(bag.dtype)  # (B, B)
    likelihood = torch.addcmul(1 - same, p, 2 * same - 1)  # P where it is positive, 1 - P where it is negative
    with torch.no_grad():  # (pairs, B, B) one over how many pairs there are of a kind; 0 where one is missing
        positives = ((row @ same) * column).sum(1)
        negatives = row.sum(1) * column.sum(1) - positives
        one, other = (1 / n.clamp(min=1)[:, None, None] for n in (positives, negatives))
        weight = torch.addcmul(other, same, one - other) * row[:, :, None] * column[:, None]
    return -torch.dot(likelihood.clamp(min=1e-6).log().flatten(), weight.flatten())  # the clamp keeps it finite


def _errors(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) cross-entropy, or absolute error of a score."""
    if logits.shape[1] == 1:
        return (logits[:, 0] - labels).abs()
    return F.cross_entropy(logits, labels, reduction="none")


def _sign_classes(scores: Tensor, task: Task) -> Tensor:
    """Scores as classes for the contrastive loss: below, at and above the middle of the interval."""
    return torch.sign(scores - (task.low + task.high) / 2)


def _mlp(dim: int, out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), Dropout(dropout), nn.Linear(dim, out))
