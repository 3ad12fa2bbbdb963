"""What trained models say of utterances: probabilities, how much each modality weighs, what each alone would say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial

import torch
from torch import Tensor

from moodal.batch import Batch, Ragged
from moodal.models import FusionModel
from moodal.types import WorkError

UNFAMILIAR = 4.0  # root mean square of the standardised features; the training split has 1


@dataclass(frozen=True)
class Member:
    """A model and what its logits are divided by; None where nobody has calibrated it."""

    model: FusionModel
    temperature: float | None = None


@dataclass(frozen=True)
class Judgement:
    """Of B utterances, by M modalities in the models' order and C classes.

    answer: (B, C) probabilities, or (B, 1) scores; relevance: (B, M), rows sum to 1, to 0 where nothing is there;
    alone: (B, C) or (B, 1) by modality, the answer had only this one been there; unfamiliar: (B,) bool by modality, its
    features are far from those trained on; is_own: the relevance is the models' own, not ``shapley_shares``.
    """

    answer: Tensor
    relevance: Tensor
    is_own: bool
    alone: dict[str, Tensor]
    unfamiliar: dict[str, Tensor]


def judge(members: Sequence[Member], batch: Batch) -> Judgement:
    """The members' mean answer. ``batch`` holds raw features of just the modalities that they read."""
    with torch.inference_mode():
        answer, own = _answer(members, batch)
        present = torch.stack(list(batch.present.values()), dim=1)  # (B, M)
        relevance = shapley_shares(members, batch, answer) if own is None else own
        alone = {m: _answer(members, _only(batch, {m}))[0] for m in batch.inputs}
        return Judgement(answer, _normalised(relevance, present), own is not None, alone, _unfamiliar(members, batch))


def together(parts: Sequence[Judgement]) -> Judgement:
    """Judgements of utterances that follow each other, as one."""
    first = parts[0]
    return Judgement(
        torch.cat([p.answer for p in parts]),
        torch.cat([p.relevance for p in parts]),
        first.is_own,
        {m: torch.cat([p.alone[m] for p in parts]) for m in first.alone},
        {m: torch.cat([p.unfamiliar[m] for p in parts]) for m in first.unfamiliar},
    )


def _normalised(relevance: Tensor, present: Tensor) -> Tensor:
    """(B, M) with rows that sum to 1 over what is present, alike where none stands out."""
    kept = relevance.double() * present
    kept = torch.where(kept.sum(1, keepdim=True) > 0, kept, present.double())
    return kept / kept.sum(1, keepdim=True).clamp(min=1e-12)


def _answer(members: Sequence[Member], batch: Batch) -> tuple[Tensor, Tensor | None]:
    """(B, C) mean of the calibrated probabilities, or (B, 1) of the scores within the task's interval; and (B, M) the
    mean of the members' own relevance, None where they have none."""
    answers, own = [], []
    for member in members:
        output, task = member.model(batch), member.model.task
        if not output.logits.isfinite().all():
            raise WorkError("the model's answer is not finite; look at the features of this video, or train it again")
        if task.classes:
            heat = 1.0 if member.temperature is None else member.temperature
            answers.append((output.logits.double() / heat).softmax(-1))
        else:
            answers.append(output.logits.double().clamp(task.low, task.high))
        if output.relevance is not None:
            own.append(output.relevance)
    return torch.stack(answers).mean(0), torch.stack(own).mean(0) if own else None


def shapley_shares(members: Sequence[Member], batch: Batch, answer: Tensor) -> Tensor:
    """(B, M) each modality's share in the answer, for models that have no relevance of their own.

    Shapley values (1953) of the game whose players are the modalities and whose value is the log-probability of the
    class that all together name; what speaks against it counts 0. For a score: the distance it was moved, up or down.
    """
    names = list(batch.inputs)
    values: dict[frozenset[str], Tensor] = {}
    for size in range(len(names) + 1):
        for chosen in combinations(names, size):
            said = answer if size == len(names) else _answer(members, _only(batch, set(chosen)))[0]
            values[frozenset(chosen)] = _value(said, answer)
    shares = torch.stack([_shapley_value(m, names, values) for m in names], dim=1)
    return shares.clamp(min=0) if answer.shape[1] > 1 else shares.abs()


def _value(said: Tensor, answer: Tensor) -> Tensor:
    if answer.shape[1] == 1:
        return said[:, 0]
    return said.gather(1, answer.argmax(1, keepdim=True))[:, 0].clamp(min=1e-12).log()


def _shapley_value(modality: str, names: Sequence[str], values: dict[frozenset[str], Tensor]) -> Tensor:
    others = [m for m in names if m != modality]
    total = torch.zeros_like(values[frozenset()])
    for size in range(len(others) + 1):
        weight = factorial(size) * factorial(len(others) - size) / factorial(len(names))
        for chosen in combinations(others, size):
            total += weight * (values[frozenset({*chosen, modality})] - values[frozenset(chosen)])
    return total


def _only(batch: Batch, kept: set[str]) -> Batch:
    for m in batch.inputs:
        if m not in kept:
            batch = batch.without(m)
    return batch


def _unfamiliar(members: Sequence[Member], batch: Batch) -> dict[str, Tensor]:
    """By most of the members."""
    votes = [_far_out(member.model, batch) for member in members]
    return {m: torch.stack([v[m] for v in votes]).double().mean(0) > 0.5 for m in batch.inputs}


def _far_out(model: FusionModel, batch: Batch) -> dict[str, Tensor]:
    if not any(model.get_buffer(f"mean_{m}").any() for m in batch.inputs):  # nothing was fitted: it was never trained
        return {m: torch.zeros(len(batch), dtype=torch.bool) for m in batch.inputs}
    prepared = model.prepare(batch)
    return {m: _root_mean_square(x) > UNFAMILIAR for m, x in prepared.inputs.items()}


def _root_mean_square(x: Ragged) -> Tensor:
    return Ragged(x.values.square().mean(1, keepdim=True), x.lengths).mean()[:, 0].sqrt()
