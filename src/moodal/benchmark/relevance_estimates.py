"""From what models say of test utterances, and what is known of them, to the rows of a report. Nothing is read here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from moodal.benchmark.comparison import main_metric
from moodal.benchmark.relevance_probes import NOISE, SILENCE, STRENGTHS, Condition, Said, conditions
from moodal.benchmark.relevance_report import (
    ALWAYS,
    EXACT,
    HIGHEST,
    LOWEST,
    RANDOM,
    Agreement,
    Deletion,
    Exchange,
    Monotone,
    Response,
    Row,
)
from moodal.benchmark.relevance_statistics import Array, Resamples, auroc_of, mean_of, rank_correlation_of
from moodal.benchmark.results import ModelResult, Results
from moodal.data.simulate import Truth
from moodal.types import MODALITIES

NOTICEABLE = 1e-6  # a relevance that moves by less has not moved
CLEAN = Condition("", "none")


@dataclass(frozen=True)
class Answers:
    """One model on all N test utterances, by condition: (R, N, C) logits, (R, N, M) relevance, which utterances the
    condition concerns, (N,) bool, and (R, N, M, C) logits of each modality alone, of the clips as they are."""

    logits: dict[Condition, Array]
    relevance: dict[Condition, Array]
    concerned: dict[Condition, npt.NDArray[np.bool_]]
    alone: dict[Condition, Array]

    def keep(
        self, c: Condition, shape: tuple[int, int], run: int, rows: list[int], said: Said, who: npt.NDArray[np.bool_]
    ) -> None:
        """Put what one run says of ``rows`` in its place among ``shape`` (R, N)."""
        pairs = [(self.logits, said.logits), (self.relevance, said.relevance)]
        if c == CLEAN and said.alone is not None:
            pairs.append((self.alone, said.alone))
        for kept, found in pairs:
            if c not in kept:
                kept[c] = np.full((*shape, *found.shape[1:]), np.nan)
            kept[c][run, rows] = found
        self.concerned.setdefault(c, np.zeros(shape[1], dtype=bool))[rows] = who


@dataclass(frozen=True)
class Facts:
    """What is known of the N test utterances without the models that are judged. Modalities are those of the data set.

    present: (N,) bool; agrees: (N,) 1, 0 or NaN where nobody said; own: (N,) the modality's class, -1 where nobody
    said; loss: (N,) of an independent model of this modality alone, NaN where it is missing, ``alone`` its prediction
    and ``judge`` its name: each by modality.
    """

    present: Mapping[str, npt.NDArray[np.bool_]]
    agrees: Mapping[str, Array]
    own: Mapping[str, npt.NDArray[np.int64]]
    loss: Mapping[str, Array]
    alone: Mapping[str, npt.NDArray[np.int64]]
    judge: Mapping[str, str]
    truth: Truth | None


def rows_of(m: ModelResult, facts: Facts, draws: Resamples) -> list[Row]:
    found = []
    for i, name in enumerate(m.modalities):
        r, present = _relevance_of(m, i), facts.present[name]
        agrees, loss = facts.agrees.get(name), facts.loss.get(name)
        exact = None if facts.truth is None else facts.truth.relevance[None, :, MODALITIES.index(name)]
        found.append(
            Row(
                m.name,
                name,
                None if agrees is None else draws.estimate(auroc_of(r, agrees)),
                None if agrees is None or exact is None else draws.estimate(auroc_of(exact, agrees)),
                draws.estimate(mean_of(np.where(present, r, np.nan))),
                None if loss is None else draws.estimate(rank_correlation_of(r, loss)),
                facts.judge.get(name),
                int(present.sum()),
                len(m.seeds),
            )
        )
    return found


def _relevance_of(m: ModelResult, modality: int) -> Array:
    assert m.relevance is not None
    return m.relevance[:, :, modality]


def responses_of(m: ModelResult, said: Answers, facts: Facts, draws: Resamples) -> list[Response]:
    found = []
    for i, name in enumerate(m.modalities):
        before = said.relevance[CLEAN][:, :, i]
        for condition in (Condition(name, CLEAN.kind), *conditions([name])):
            if condition.kind == CLEAN.kind:
                after, who = before, facts.present[name]
            elif condition in said.relevance:
                after, who = said.relevance[condition][:, :, i], said.concerned[condition]
            else:
                continue  # no clip has this modality
            change = np.where(who, after - before, np.nan)
            falls = np.where(who, change < -NOTICEABLE, np.nan)
            clean = condition.kind == CLEAN.kind
            found.append(
                Response(
                    m.name,
                    name,
                    condition.kind,
                    condition.strength,
                    draws.estimate(mean_of(np.where(who, after, np.nan))),
                    None if clean else draws.estimate(mean_of(change)),
                    None if clean else draws.estimate(mean_of(falls)),
                    int(who.sum()),
                    len(m.seeds),
                )
            )
    return found


def monotone_of(m: ModelResult, said: Answers, facts: Facts, draws: Resamples) -> list[Monotone]:
    found = []
    for i, name in enumerate(m.modalities):
        steps = [Condition(name, NOISE, s) for s in STRENGTHS]
        if steps[0] not in said.relevance:
            continue
        path = np.stack([said.relevance[c][:, :, i] for c in (CLEAN, *steps)], axis=-1)  # (R, N, 1 + strengths)
        present = facts.present[name]
        never_up = (np.diff(path) <= NOTICEABLE).all(-1)
        found.append(
            Monotone(
                m.name,
                name,
                draws.estimate(mean_of(np.where(present, trend(path), np.nan))),
                draws.estimate(mean_of(np.where(present, never_up, np.nan))),
                len(m.seeds),
            )
        )
    return found


def trend(path: Array) -> Array:
    """(..., K) -> (...) Spearman's correlation of the values with 0 .. K - 1; 0 where they are all alike."""
    from scipy.stats import rankdata

    ranks = rankdata(np.round(path / NOTICEABLE), axis=-1)
    ranks = ranks - ranks.mean(-1, keepdims=True)
    steps = np.arange(path.shape[-1]) - (path.shape[-1] - 1) / 2
    size = np.sqrt(np.square(ranks).sum(-1) * np.square(steps).sum())
    return np.asarray(np.where(size > 0, (ranks * steps).sum(-1) / np.where(size > 0, size, 1), 0.0))


def deletions_of(m: ModelResult, said: Answers, facts: Facts, results: Results, draws: Resamples) -> list[Deletion]:
    r = said.relevance[CLEAN]  # (R, N, M)
    present = np.stack([facts.present[k] for k in m.modalities], axis=1)  # (N, M)
    before = _points(said.logits[CLEAN], results)
    gone = [Condition(k, SILENCE) for k in m.modalities]
    after = np.stack([_points(said.logits[c], results) if c in said.logits else before for c in gone], axis=-1)
    points = {"none": before} | {k: (after * share).sum(-1) for k, share in removals(r, present).items()}
    some = present.sum(1) > 1  # where there is one modality, nothing would be left
    sign = -1 if results.task.classes else 1  # accuracy falls, an error grows
    cost = {k: np.where(some, sign * (p - before), np.nan) for k, p in points.items()}
    return [
        Deletion(
            m.name,
            k,
            main_metric(results.task),
            draws.estimate(mean_of(np.where(some, p, np.nan))),
            None if k == "none" else draws.estimate(mean_of(cost[k])),
            None if k in ("none", LOWEST) else draws.estimate(mean_of(cost[k] - cost[LOWEST])),
            int(some.sum()),
            len(m.seeds),
        )
        for k, p in points.items()
    ]


def removals(relevance: Array, present: npt.NDArray[np.bool_]) -> dict[str, Array]:
    """Which modality of each utterance is removed, as shares (R, N, M) that sum to 1; only present ones are.

    relevance: (R, N, M); present: (N, M).
    """
    there = np.broadcast_to(present, relevance.shape)
    average = np.where(there, relevance, np.nan)
    average = np.nanmean(np.where(there.any(1, keepdims=True), average, 0.0), axis=1, keepdims=True)  # (R, 1, M)
    size = relevance.shape[-1]
    return {
        LOWEST: np.eye(size)[np.where(there, relevance, np.inf).argmin(-1)],
        RANDOM: there / np.maximum(1, there.sum(-1, keepdims=True)),
        HIGHEST: np.eye(size)[np.where(there, relevance, -np.inf).argmax(-1)],
        ALWAYS: np.eye(size)[np.where(there, average, np.inf).argmin(-1)],
    }


def exchanges_of(m: ModelResult, said: Answers, facts: Facts, results: Results, draws: Resamples) -> list[Exchange]:
    """Classes only, and models that say something of each modality alone."""
    if CLEAN not in said.alone or not results.task.classes:
        return []
    present = np.stack([facts.present[k] for k in m.modalities], axis=1)  # (N, M)
    r = np.where(present, said.relevance[CLEAN], 0.0)  # (R, N, M)
    right = softmax(said.alone[CLEAN], axis=-1)[:, np.arange(len(results.y)), :, results.y].transpose(1, 0, 2)
    some = present.sum(1) > 1  # of one modality there is nothing to exchange
    loss = {
        name: np.where(some, -np.log(np.clip((w * right).sum(-1) / np.maximum(w.sum(-1), 1e-12), 1e-12, None)), np.nan)
        for name, w in (("own", r), ("exchanged", exchanged(r, present)), ("equal", present * np.ones_like(r)))
    }
    return [
        Exchange(
            m.name,
            draws.estimate(mean_of(loss["own"])),
            draws.estimate(mean_of(loss["exchanged"] - loss["own"])),
            draws.estimate(mean_of(loss["equal"] - loss["own"])),
            int(some.sum()),
            len(m.seeds),
        )
    ]


def exchanged(relevance: Array, present: npt.NDArray[np.bool_]) -> Array:
    """The highest and the lowest relevance of each utterance's present modalities in each other's place: (R, N, M)."""
    there = np.broadcast_to(present, relevance.shape)
    low = np.where(there, relevance, np.inf).argmin(-1)[..., None]
    high = np.where(there, relevance, -np.inf).argmax(-1)[..., None]
    other = relevance.copy()
    np.put_along_axis(other, low, np.take_along_axis(relevance, high, -1), -1)
    np.put_along_axis(other, high, np.take_along_axis(relevance, low, -1), -1)
    return other


def _points(logits: Array, results: Results) -> Array:
    """(R, N) whether the answer is right, or how far a score is off."""
    if results.task.classes:
        return np.asarray(logits.argmax(-1) == results.y, np.float64)
    return np.asarray(np.abs(logits[..., 0] - results.y))


def agreements_of(
    models: Sequence[ModelResult], facts: Facts, results: Results, draws: Resamples
) -> tuple[tuple[Agreement, ...], str]:
    """Where modalities agree and where not, by their own labels if there are any, else by models of one modality."""
    if not results.task.classes:
        return (), ""
    by, said = ("labels", facts.own) if len(facts.own) > 1 else ("unimodal", facts.alone)
    subsets = split_by_agreement(said, facts.present)
    outputs = {m.name: m.outputs for m in models}
    if facts.truth is not None:
        outputs[EXACT] = facts.truth.posterior[None]
    return tuple(
        Agreement(
            name,
            subset,
            by,
            draws.estimate(mean_of(np.where(who, _points(logits, results), np.nan))),
            int(who.sum()),
            len(logits),
        )
        for name, logits in outputs.items()
        for subset, who in subsets.items()
        if who.any()
    ), by


def split_by_agreement(
    said: Mapping[str, npt.NDArray[np.int64]], present: Mapping[str, npt.NDArray[np.bool_]]
) -> dict[str, npt.NDArray[np.bool_]]:
    """(N,) bool: all that is said (a class by modality, -1 for nothing) of what is present is one class, or is not.

    An utterance of which fewer than two modalities say anything is in neither.
    """
    stacked = np.stack([np.where(present[m], k, -1) for m, k in said.items()])  # (M, N)
    some = (stacked >= 0).sum(0) > 1
    low = np.where(stacked >= 0, stacked, np.iinfo(np.int64).max).min(0)
    same = stacked.max(0) == low
    return {"agree": some & same, "conflict": some & ~same}
