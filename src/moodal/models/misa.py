"""Modality-Invariant and -Specific representations (MISA).

Hazarika, Zimmermann, Poria, "MISA: Modality-Invariant and -Specific Representations for Multimodal Sentiment Analysis",
ACM MM 2020, https://arxiv.org/abs/2005.03545, section 3 (its losses: section 3.5).

Differs from the paper: text comes as extracted features, averaged over real tokens (the paper fine-tunes BERT and
averages its last layer); recurrent weights start uniform, as in ``torch.nn.LSTM``, not orthogonal.
Differs from the field's reference package: audio and vision are read to their own ends (there only as many frames as
the text has tokens, under a second of sound); the gradient of a distance that is exactly 0 is 0 (there not a number);
a discriminator and a norm of the text that no loss ever reaches are left out.
A missing modality has no tokens in the transformer, is 0 in the fusion, and is left out of every loss: those on one
modality read the utterances that have it, those on a pair the utterances that have both.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moodal.batch import Batch, Ragged
from moodal.models.base import FusionModel, Output
from moodal.models.dropout import Dropout
from moodal.models.recurrent import LSTM
from moodal.types import InputError, Task

HEADS = 2
FEED_FORWARD = 2048
MOMENTS = 5


class MISA(FusionModel):
    """Each modality as what it shares with the others and what is its own, fused by self-attention."""

    is_control = True

    def __init__(
        self,
        dims: Mapping[str, int],
        task: Task,
        *,
        hidden: int = 128,
        dropout: float = 0.0,
        attention_dropout: float = 0.1,
        w_diff: float = 0.3,
        w_sim: float = 1.0,
        w_recon: float = 0.8,
        text_pooling: str = "mean",
        audio_pooling: str = "none",
        vision_pooling: str = "none",
        **inputs: Any,
    ) -> None:
        inputs |= {"text_pooling": text_pooling, "audio_pooling": audio_pooling, "vision_pooling": vision_pooling}
        super().__init__(dims, task, **inputs)
        if hidden % HEADS:
            raise InputError(f"hidden must be even, for MISA's {HEADS} attention heads, got {hidden}")
        self.w_diff, self.w_sim, self.w_recon = w_diff, w_sim, w_recon
        count = len(self.modalities)
        self.encoders = nn.ModuleDict({m: StackedBiLSTM(self.dims[m]) for m in self.modalities if m != "text"})
        widths = {m: d if m == "text" else 4 * d for m, d in self.dims.items()}
        self.project = nn.ModuleDict({m: _projection(widths[m], hidden) for m in self.modalities})
        self.private = nn.ModuleDict({m: _code(hidden) for m in self.modalities})
        self.shared = _code(hidden)
        self.decoders = nn.ModuleDict({m: nn.Linear(hidden, hidden) for m in self.modalities})
        self.transformer = TransformerLayer(hidden, attention_dropout)
        self.head = nn.Sequential(
            nn.Linear(2 * count * hidden, count * hidden),
            Dropout(dropout),
            nn.ReLU(),
            nn.Linear(count * hidden, task.num_outputs),
        )

    def fuse(self, batch: Batch) -> Output:
        u = {m: self.project[m](self._utterance(m, batch.inputs[m])) for m in self.modalities}  # (B, H) each
        private = torch.stack([self.private[m](u[m]) for m in self.modalities], dim=1)  # (B, M, H)
        shared = self.shared(torch.stack(list(u.values()), dim=1))  # (B, M, H)
        decoded = torch.stack(
            [self.decoders[m](private[:, i] + shared[:, i]) for i, m in enumerate(self.modalities)], dim=1
        )
        tokens = torch.cat([private, shared], dim=1)  # (B, 2M, H)
        fused = self.transformer(tokens, self._present(batch).repeat(1, 2))
        embeddings = {
            "private": private,
            "shared": shared,
            "decoded": decoded,
            "encoded": torch.stack([*u.values()], 1),
        }
        return Output(self.head(fused.flatten(1)), embeddings)

    def _utterance(self, modality: str, x: Ragged) -> Tensor:
        """(B, D) mean of the tokens, or (B, 4 D) from the two BiLSTMs."""
        out: Tensor = self.encoders[modality](x) if modality in self.encoders else x.mean()
        return out

    def _present(self, batch: Batch) -> Tensor:
        return torch.stack([batch.present[m] for m in self.modalities], dim=1)  # (B, M)

    def task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, or the mean squared error of a score."""
        return super().task_loss(logits, labels) if self.task.classes else F.mse_loss(logits[:, 0], labels)

    def extra_losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The three losses of section 3.5 with their weights; one whose weight is 0 is not computed."""
        e, present = output.embeddings, self._present(batch)
        losses = {}
        if self.w_diff:
            losses["difference"] = self.w_diff * difference_loss(e["private"], e["shared"], present)
        if self.w_sim:
            losses["similarity"] = self.w_sim * similarity_loss(e["shared"], present)
        if self.w_recon:
            losses["reconstruction"] = self.w_recon * reconstruction_loss(e["decoded"], e["encoded"], present)
        return losses


def _projection(dim: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.LayerNorm(hidden))


def _code(hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(hidden, hidden), nn.Sigmoid())


class StackedBiLSTM(nn.Module):
    """(S, D) steps -> (B, 4 D): final states of two BiLSTMs, forward ones first, with a layer norm between the two."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.ahead, self.back = LSTM(dim, dim), LSTM(dim, dim)
        self.norm = nn.LayerNorm(2 * dim)
        self.ahead2, self.back2 = LSTM(2 * dim, dim), LSTM(2 * dim, dim)

    def forward(self, x: Ragged) -> Tensor:
        ahead, back = self.ahead.states(x), self.back.states(x, reverse=True)
        y = Ragged(self.norm(torch.cat([ahead.hidden, back.hidden], dim=1)), x.lengths)
        ahead2, back2 = self.ahead2.states(y), self.back2.states(y, reverse=True)
        return torch.cat([ahead.last, ahead2.last, back.last, back2.last], dim=1)


class TransformerLayer(nn.Module):
    """One layer of a transformer's encoder, norms last (Vaswani et al. 2017); absent tokens are not read and are 0."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)
        self.widen, self.narrow = nn.Linear(dim, FEED_FORWARD), nn.Linear(FEED_FORWARD, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """x: (B, T, H); present: (B, T) bool -> (B, T, H)."""
        x = self.norms[0](x + self.dropout(self.out(self._attention(x, present))))
        wide = self.dropout(torch.relu(self.widen(x)))
        x = self.norms[1](x + self.dropout(self.narrow(wide)))
        return x * present[:, :, None]

    def _attention(self, x: Tensor, present: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, T, H / heads) each
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(~present[:, None, None, :], torch.finfo(x.dtype).min)
        mixed: Tensor = self.dropout(torch.softmax(scores, dim=-1)) @ v
        return mixed.transpose(1, 2).flatten(2)


def difference_loss(private: Tensor, shared: Tensor, present: Tensor) -> Tensor:
    """L_diff: what is private is orthogonal to what is shared, and to what is private elsewhere. (B, M, H) each."""
    modalities = range(private.shape[1])
    codes = [(private[:, m], shared[:, m], present[:, m]) for m in modalities]
    codes += [(private[:, a], private[:, b], present[:, a] & present[:, b]) for a, b in combinations(modalities, 2)]
    return torch.stack([_orthogonality(x[both], y[both]) for x, y, both in codes]).sum()


def similarity_loss(shared: Tensor, present: Tensor) -> Tensor:
    """L_sim: the mean over pairs of modalities of the distance between their shared codes. (B, M, H)."""
    pairs = list(combinations(range(shared.shape[1]), 2))
    if not pairs:
        return shared.new_zeros(())
    both = [present[:, a] & present[:, b] for a, b in pairs]
    return torch.stack(
        [central_moment_discrepancy(shared[rows, a], shared[rows, b]) for (a, b), rows in zip(pairs, both, strict=True)]
    ).mean()


def reconstruction_loss(decoded: Tensor, encoded: Tensor, present: Tensor) -> Tensor:
    """L_recon: mean over modalities of the mean squared error of what private and shared codes say together."""
    error = (decoded - encoded).square().mean(2) * present  # (B, M)
    return (error.sum(0) / present.sum(0).clamp(min=1)).mean()


def _orthogonality(x: Tensor, y: Tensor) -> Tensor:
    """Mean over the (H, H) entries of (X^T Y)^2: columns centred over the utterances, then rows of length 1, where the
    length is a constant to the gradient."""
    x, y = (z - z.mean(0) for z in (x, y))
    x, y = (z / (z.detach().norm(dim=1, keepdim=True) + 1e-6) for z in (x, y))
    out: Tensor = (x.t() @ y).square().mean()
    return out


def central_moment_discrepancy(x: Tensor, y: Tensor, moments: int = MOMENTS) -> Tensor:
    """CMD (Zellinger et al. 2017): distances of the means and of the 2nd to 5th central moments. (n, H) each."""
    if not len(x):
        return x.new_zeros(())
    means = x.mean(0), y.mean(0)
    x, y = x - means[0], y - means[1]
    distance: Tensor = torch.linalg.vector_norm(means[0] - means[1])
    for k in range(2, moments + 1):
        distance = distance + torch.linalg.vector_norm((x**k).mean(0) - (y**k).mean(0))
    return distance
