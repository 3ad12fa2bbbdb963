"""Raw features made worse on purpose, in steps of severity, for asking what a trained model makes of it.

What happens to a clip depends on its id, the corruption, the modality and a seed, and on nothing else: neither on the
batch it is in nor on the order. A higher severity only adds to a lower one: the same steps and clips stay hit, the
same noise grows. A swap needs a second clip, so it depends on the ``donors`` too.

``random_missing`` and ``modality_missing`` are the field's protocols, at the field's rates. MMSA, TFR-Net and LNLN
(https://arxiv.org/abs/2409.20012) write zeros over a dropped step, and 100, the code of an unknown word, over a word.
Here a dropped step is not there: our batches hold real steps only, and a model is never shown a step that nobody
recorded. MMIN, GCNet and IMDer (NeurIPS 2023) drop whole modalities of a clip; one always stays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from moodal.batch import Batch, Ragged
from moodal.training.loop import random_seed
from moodal.types import InputError, Task, unknown


@dataclass(frozen=True)
class Setting:
    """What a corruption needs besides the clip it hits.

    deviation: (D,) per modality, of every feature over the real steps of the training split; donors: raw clips with
    ids and labels that a swap takes from, the clips to be corrupted among them.
    """

    deviation: Mapping[str, Tensor]
    donors: Batch
    task: Task
    seed: int = 0

    @cached_property
    def place(self) -> dict[str, int]:
        """Where each donor stands."""
        return {name: i for i, name in enumerate(self.donors.ids)}

    @cached_property
    def sides(self) -> list[int]:
        """(N,) the class of each donor; of scores, which side of the middle of the interval, 0 on it."""
        assert self.donors.labels is not None
        if self.task.classes:
            return [int(c) for c in self.donors.labels]
        middle = (self.task.low + self.task.high) / 2
        return [int(np.sign(float(score) - middle)) for score in self.donors.labels]


Make = Callable[[Batch, str, float, Setting], Ragged]


@dataclass(frozen=True)
class Corruption:
    """One way to make a modality worse.

    levels: how much at each severity, the first is 0; unit: what a level counts; make: (batch, modality, level,
    setting) -> that modality, corrupted; jointly: a protocol of the field that is always applied to all modalities.
    """

    title: str
    unit: str
    levels: tuple[float, ...]
    make: Make
    jointly: bool = False


def corrupt(batch: Batch, name: str, modalities: Sequence[str], severity: int, setting: Setting) -> Batch:
    """``batch`` (raw features) with some modalities corrupted, each by itself; severity 0 is ``batch`` as it was."""
    found = CORRUPTIONS.get(name)
    if found is None:
        raise unknown("corruption", name, CORRUPTIONS)
    if not 0 <= severity < len(found.levels):
        raise InputError(f"{name} has severities 0 to {len(found.levels) - 1}, got {severity}")
    if batch.stage != "raw" or not batch.ids:
        raise ValueError("only raw features with ids can be corrupted")
    if severity == 0:
        return batch
    made = {m: found.make(batch, m, found.levels[severity], setting) for m in modalities}
    return replace(batch, inputs={**batch.inputs, **made})


def deviation_of(x: Ragged) -> Tensor:
    """(D,) standard deviation of each feature over all steps, in float64 a slice at a time; zeros without a step."""
    steps = max(1, len(x.values))
    parts = torch.split(x.values, 4096)
    mean = sum((p.double().sum(0) for p in parts), torch.zeros(x.dim, dtype=torch.float64)) / steps
    square = sum(((p.double() - mean).square().sum(0) for p in parts), torch.zeros(x.dim, dtype=torch.float64))
    return (square / steps).sqrt().float()


# Chance that belongs to a clip.


def _uniform(batch: Batch, setting: Setting, *what: str) -> Tensor:
    """(B,) numbers in [0, 1), float64, one per clip."""
    return torch.tensor([random_seed(setting.seed, *what, i) / 2**48 for i in batch.ids], dtype=torch.float64)


def _generator(setting: Setting, *what: str) -> np.random.Generator:
    return np.random.default_rng(random_seed(setting.seed, *what))


def _position(x: Ragged) -> Tensor:
    """(S,) the number of each step in its utterance."""
    return torch.arange(len(x.values)) - x.starts[x.owner]


def _kept(x: Ragged, keep: Tensor) -> Ragged:
    """The steps where ``keep`` (S,) is True; an utterance that loses all of them is missing."""
    return Ragged(x.values[keep], torch.bincount(x.owner[keep], minlength=len(x)))


# Corruptions of steps.


def _gaussian(batch: Batch, modality: str, level: float, setting: Setting) -> Ragged:
    """x + level * sigma * noise, sigma of the training split, feature by feature."""
    x = batch.inputs[modality]
    noise = np.empty((len(x.values), x.dim), np.float32)
    for name, start, length in zip(batch.ids, x.starts.tolist(), x.lengths.tolist(), strict=True):
        if length:
            chance = _generator(setting, "gaussian", modality, name)
            chance.standard_normal(dtype=np.float32, out=noise[start : start + length])
    values = torch.from_numpy(noise).mul_(level * setting.deviation[modality]).add_(x.values)
    return Ragged(values, x.lengths)


def _step_dropping(kind: str) -> Make:
    """Every step is dropped by itself, with probability ``level``."""

    def make(batch: Batch, modality: str, level: float, setting: Setting) -> Ragged:
        x = batch.inputs[modality]
        draws = [
            _generator(setting, kind, modality, name).random(length)
            for name, length in zip(batch.ids, x.lengths.tolist(), strict=True)
        ]
        return _kept(x, torch.from_numpy(np.concatenate([np.zeros(0), *draws])) >= level)

    return make


def _drop_span(batch: Batch, modality: str, level: float, setting: Setting) -> Ragged:
    """One stretch of ``level`` of the steps is dropped; where it lies is random, and longer ones hold the shorter."""
    x = batch.inputs[modality]
    size = _part(x, level, _uniform(batch, setting, "drop_span", "size", modality))
    place = _uniform(batch, setting, "drop_span", "place", modality)
    first = (place * (x.lengths - size + 1)).long()
    position = _position(x)
    return _kept(x, (position < first[x.owner]) | (position >= (first + size)[x.owner]))


def _shift(batch: Batch, modality: str, level: float, setting: Setting) -> Ragged:
    """Moved against the other modalities by ``level`` of its steps: what leaves the clip at its start, or at its end,
    is lost, and nothing comes in at the other side."""
    x = batch.inputs[modality]
    size = _part(x, level, _uniform(batch, setting, "shift", "size", modality))
    early = _uniform(batch, setting, "shift", "side", modality) < 0.5
    first, last = torch.where(early, size, 0), torch.where(early, x.lengths, x.lengths - size)
    position = _position(x)
    return _kept(x, (position >= first[x.owner]) & (position < last[x.owner]))


def _part(x: Ragged, level: float, chance: Tensor) -> Tensor:
    """(B,) ``level`` of each utterance's steps, rounded up or down so that it is right on average."""
    return (level * x.lengths + chance).long().clamp(max=x.lengths)


# Corruptions of whole clips.


def _drop_modality(batch: Batch, modality: str, level: float, setting: Setting) -> Ragged:
    """Missing in ``level`` of the clips."""
    hit = _uniform(batch, setting, "drop_modality", modality) < level
    return batch.without(modality, hit).inputs[modality]


def _modality_missing(batch: Batch, modality: str, level: float, setting: Setting) -> Ragged:
    """``level`` of all modalities of all clips are missing, but never the last one of a clip."""
    order = {m: _uniform(batch, setting, "modality_missing", m) for m in batch.inputs}
    present = batch.present
    num = sum((p.long() for p in present.values()), torch.zeros(len(batch), dtype=torch.int64))
    chance = _uniform(batch, setting, "modality_missing", "number")
    lost = torch.minimum((level * num + chance).long(), (num - 1).clamp(min=0))
    before = sum((present[m] & (order[m] < order[modality])).long() for m in batch.inputs)
    return batch.without(modality, present[modality] & (before < lost)).inputs[modality]


def _swap(batch: Batch, modality: str, level: float, setting: Setting) -> Ragged:
    """Clips change this modality with one another, two by two (three of an odd number): none is lost or doubled."""
    donor, leader = _partners(modality, setting)
    chance = [random_seed(setting.seed, "swap", "hit", modality, leader.get(i, i)) / 2**48 for i in batch.ids]
    hit = [i in donor and u < level for i, u in zip(batch.ids, chance, strict=True)]
    return _given(batch, modality, hit, donor, setting)


def _partners(modality: str, setting: Setting) -> tuple[dict[str, str], dict[str, str]]:
    """Who gives to whom, and a name that partners share. Only clips that have the modality take part."""
    there = setting.donors.present[modality].tolist()
    names = [i for i, present in zip(setting.donors.ids, there, strict=True) if present]
    names.sort(key=lambda i: (random_seed(setting.seed, "swap", modality, i), i))
    donor: dict[str, str] = {}
    leader: dict[str, str] = {}
    for start in range(0, len(names) - 1, 2):
        circle = names[start : start + 3] if start + 3 == len(names) else names[start : start + 2]
        donor |= dict(zip(circle, circle[1:] + circle[:1], strict=True))
        leader |= dict.fromkeys(circle, circle[0])
    return donor, leader


def _opposite(batch: Batch, modality: str, level: float, setting: Setting) -> Ragged:
    """``level`` of the clips get this modality of a clip of another class; of scores, from another side."""
    there = setting.donors.present[modality].tolist()
    others: dict[int, list[str]] = defaultdict(list)  # side -> donors that are not on it
    for side in set(setting.sides):
        others[side] = sorted(
            i for i, s, p in zip(setting.donors.ids, setting.sides, there, strict=True) if p and s != side
        )
    hit = (_uniform(batch, setting, "opposite", "hit", modality) < level) & batch.present[modality]
    donor = {}
    for name in (i for i, h in zip(batch.ids, hit.tolist(), strict=True) if h):
        choice = others[setting.sides[setting.place[name]]]
        if not choice:
            raise InputError(f"{name}: no test clip of another class has {modality}; leave the corruption opposite out")
        donor[name] = choice[random_seed(setting.seed, "opposite", modality, name) % len(choice)]
    return _given(batch, modality, hit.tolist(), donor, setting)


def _given(batch: Batch, modality: str, hit: Sequence[bool], donor: Mapping[str, str], setting: Setting) -> Ragged:
    """The modality of ``batch``, and where ``hit``, that of the clip's donor."""
    own = batch.inputs[modality]
    who = [setting.place[donor[i]] for i, h in zip(batch.ids, hit, strict=True) if h]
    given = setting.donors.inputs[modality].select(torch.tensor(who, dtype=torch.int64))
    both = Ragged(torch.cat([own.values, given.values]), torch.cat([own.lengths, given.lengths]))
    index = torch.arange(len(batch))
    index[torch.tensor(hit, dtype=torch.bool)] = len(batch) + torch.arange(len(who))
    return both.select(index)


RATES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

CORRUPTIONS: dict[str, Corruption] = {
    "gaussian": Corruption(
        "Gaussian noise", "deviation of the noise, in that of train", (0.0, 0.25, 0.5, 1.0, 2.0, 4.0), _gaussian
    ),
    "drop_steps": Corruption("Dropped steps", "share of steps", RATES, _step_dropping("drop_steps")),
    "drop_span": Corruption("Dropped span", "share of steps, in one stretch", RATES, _drop_span),
    "drop_modality": Corruption("Dropped modality", "share of clips", SHARES, _drop_modality),
    "swap": Corruption("Swap with another clip", "share of clips", SHARES, _swap),
    "opposite": Corruption("Swap with another class", "share of clips", SHARES, _opposite),
    "shift": Corruption("Time shift", "share of steps that leave the clip", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5), _shift),
    "random_missing": Corruption(
        "Random missing (MMSA, LNLN)",
        "share of steps, in every modality",
        tuple(i / 10 for i in range(10)),
        _step_dropping("random_missing"),
        jointly=True,
    ),
    "modality_missing": Corruption(
        "Modality missing (MMIN, IMDer)",
        "share of modalities, one stays",
        tuple(i / 10 for i in range(8)),
        _modality_missing,
        jointly=True,
    ),
}
