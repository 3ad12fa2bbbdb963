"""What models say of utterances when one modality is exchanged, noisy or missing.

Every perturbation belongs to the utterance: it is drawn from a seed made of its id, so that it does not depend on the
model, on its seed, or on which other utterances there are (but for a donor, who must be one of them).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moodal.batch import Batch, Ragged
from moodal.models import FusionModel
from moodal.training.loop import predict, random_seed

Array = npt.NDArray[np.float64]
STRENGTHS = (0.5, 1.0, 2.0, 4.0)  # of noise, in standard deviations of the training split's features
OTHER, NOISE, SILENCE = "other_class", "noise", "silence"


@dataclass(frozen=True)
class Condition:
    """What was done to which modality; strength: of noise, else None."""

    modality: str
    kind: str
    strength: float | None = None


def conditions(modalities: Sequence[str]) -> list[Condition]:
    """Everything that is tried, modality by modality."""
    kinds = [(OTHER, None), *((NOISE, s) for s in STRENGTHS), (SILENCE, None)]
    return [Condition(m, kind, strength) for m in modalities for kind, strength in kinds]


@dataclass(frozen=True)
class Said:
    """Of one model on B utterances. logits: (B, C); relevance: (B, M); alone: (B, M, C) what it says of each modality
    alone, as logits, or None where it does not; float64."""

    logits: Array
    relevance: Array
    alone: Array | None = None


def perturbed(
    batch: Batch, spread: Mapping[str, Tensor], classes: Tensor, own: Mapping[str, Tensor]
) -> Iterator[tuple[Condition, Batch, Tensor]]:
    """Every condition, its batch, and which utterances it concerns, (B,) bool: those that have the modality.

    ``batch``: raw features; spread: (D,) by modality, the training split's; classes: (B,) of the utterances; own: (B,)
    by modality where modalities are labelled, -1 for what is not. Where they are, features of another class are given
    to those utterances only whose own features mean the utterance's class: elsewhere there is nothing to spoil.
    """
    for m, x in batch.inputs.items():
        there = batch.present[m]
        if not bool(there.any()):
            continue
        noise = draw_noise(x, m, batch.ids)
        for condition in conditions([m]):
            concerned = there
            if condition.kind == OTHER:
                donors = draw_donors(m, batch, classes, own.get(m))
                changed = x.select(donors)
                agrees = own[m] == classes if m in own else there
                concerned = there & agrees & (donors != torch.arange(len(batch)))
            elif condition.strength is not None:
                changed = with_noise(x, noise, spread[m], condition.strength)
            else:
                changed = Ragged(x.values[:0], torch.zeros_like(x.lengths))
            yield condition, replace(batch, inputs={**batch.inputs, m: changed}), concerned


def ask(models: Sequence[FusionModel], batch: Batch) -> list[Said]:
    """What each model says of ``batch``, raw features; all have relevance. What some reduce alike is reduced once."""
    pooled: dict[object, Batch] = {}
    found = []
    for model in models:
        how = (tuple((m, model.pooling[m]) for m in model.modalities), model.max_steps, type(model).word_aligned)
        if how not in pooled:
            pooled[how] = model.pool(batch)
        output = predict(model, pooled[how])
        assert output.relevance is not None
        each = [output.unimodal_logits[m] for m in model.modalities if m in output.unimodal_logits]
        alone = torch.stack(each, dim=1).double().numpy() if len(each) == len(model.modalities) else None
        found.append(Said(output.logits.double().numpy(), output.relevance.double().numpy(), alone))
    return found


def draw_noise(x: Ragged, modality: str, ids: Sequence[str]) -> Tensor:
    """(S, D) standard normal. Half of its variance is shared by all steps of a clip: noise that is new in every step
    is gone from the mean over a hundred of them, and would be no noise to a model that reads the mean."""
    parts = [torch.empty(0, x.dim)]
    for name, steps in zip(ids, x.lengths.tolist(), strict=True):
        drawn = np.random.default_rng(random_seed(name, modality, NOISE)).standard_normal((1 + steps, x.dim))
        parts.append(torch.from_numpy((drawn[:1] + drawn[1:]) / np.sqrt(2)).float())
    return torch.cat(parts)


def with_noise(x: Ragged, noise: Tensor, spread: Tensor, strength: float) -> Ragged:
    """noise: (S, D) of unit variance; spread: (D,)."""
    return Ragged(x.values + strength * spread * noise, x.lengths)


def spread_of(x: Ragged) -> Tensor:
    """(D,) standard deviation of the features over all real steps; 0 where there are none."""
    if not len(x.values):
        return torch.zeros(x.dim)
    return x.values.std(0, correction=0)


def draw_donors(modality: str, batch: Batch, classes: Tensor, own: Tensor | None) -> Tensor:
    """(B,) whose features each utterance gets: some utterance of another class that has this modality.

    Where modalities have labels of their own, the donor's must be another one too. Without any donor an utterance
    keeps its own features.
    """
    there = batch.present[modality]
    donors = torch.arange(len(batch))
    for c in torch.unique(classes):
        fits = there & (classes != c)
        if own is not None:
            fits &= own != c
        candidates = torch.nonzero(fits)[:, 0]
        if not len(candidates):
            continue
        for i in torch.nonzero(classes == c)[:, 0].tolist():
            rng = np.random.default_rng(random_seed(batch.ids[i], modality, OTHER))
            donors[i] = candidates[int(rng.integers(len(candidates)))]
    return donors
