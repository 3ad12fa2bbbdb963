"""People one by one and two by two: how far each agrees with the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from moodal.agreement import Statistic, cohen_statistic, kinds_of, others_statistic, percentiles, resampling
from moodal.labels.estimates import AgreementOptions, Estimate, estimates_of
from moodal.labels.votes import Array, Votes

MIN_SHARED = 10  # clips that two people both labelled, before the kappa of the two is looked at
MAX_PEOPLE = 60  # with more, pairs and single people are listed without intervals


@dataclass(frozen=True, slots=True)
class PersonAgreement:
    """One person against the others who labelled the same clips: the share that agrees, and kappa."""

    annotator: str
    condition: str
    votes: int
    shared: int
    percent: Estimate
    kappa: Estimate


def _label_matrix(votes: Votes, rows: Array) -> Array:
    """(clips, people) labels of those who voted in these rows, -1 where they did not; only clips with a vote.

    People stand in the order of their names, so that the order of the votes decides nothing.
    """
    people, person = np.unique(votes.annotator[rows], return_inverse=True)
    clips, clip = np.unique(votes.clip[rows], return_inverse=True)
    matrix = np.full((len(clips), len(people)), -1)
    matrix[clip, person] = votes.label[rows]
    return np.asarray(matrix[:, sorted(range(len(people)), key=lambda k: votes.annotators[people[k]])])


def mean_cohen(votes: Votes, rows: Array, o: AgreementOptions) -> tuple[Estimate | None, int]:
    """The mean of Cohen's kappa over pairs of people with ``MIN_SHARED`` clips or more in common, clips resampled."""
    if not votes.annotators or len(np.unique(votes.annotator[rows])) > MAX_PEOPLE:
        return None, 0
    labels = _label_matrix(votes, rows)
    there = labels >= 0
    pairs = [
        (a, b) for a, b in combinations(range(labels.shape[1]), 2) if (there[:, a] & there[:, b]).sum() >= MIN_SHARED
    ]
    kappa = cohen_statistic(len(votes.labels))
    values = [kappa(labels[:, pair]) for pair in pairs]
    known = [pair for pair, value in zip(pairs, values, strict=True) if not math.isnan(value)]
    if not known:
        return None, 0
    kinds, sizes = kinds_of(labels)
    shared = [np.flatnonzero((kinds[:, pair] >= 0).all(1)) for pair in known]
    crossed = [_sorted_cells(kinds[rows][:, pair], len(votes.labels)) for rows, pair in zip(shared, known, strict=True)]
    weights = resampling(sizes, seed=o.seed, samples=o.samples)
    drawn = np.concatenate(
        [_mean([kappa.of_sums(c(w[:, rows])) for rows, c in zip(shared, crossed, strict=True)]) for w in weights]
    )
    return Estimate(float(np.nanmean(values)), *percentiles(drawn, o.confidence)), len(known)


def _sorted_cells(pairs: Array, size: int) -> Callable[[Array], Array]:
    """From weights of n units (S, n) to their confusion matrices (S, L * L). pairs: (n, 2) labels of the units."""
    cell = pairs[:, 0] * size + pairs[:, 1]
    order = np.argsort(cell, kind="stable")
    cells, first = np.unique(cell[order], return_index=True)

    def confusion(weights: Array) -> Array:
        sums = np.zeros((len(weights), size * size))
        sums[:, cells] = np.add.reduceat(weights[:, order], first, axis=1)
        return sums

    return confusion


def _mean(values: list[Array]) -> Array:
    """The mean of those that are defined in each resample."""
    x = np.stack(values)
    known = np.isfinite(x)
    num = known.sum(0)
    return np.asarray(np.where(num > 0, np.where(known, x, 0.0).sum(0) / np.maximum(num, 1), np.nan))


def people_of(votes: Votes, condition: str, o: AgreementOptions) -> Iterator[PersonAgreement]:
    """Everybody against the others."""
    if not votes.annotators:
        return
    counts, rows = votes.counts(condition), votes.where(condition)
    size = len(votes.labels)
    statistics = [_agreeing_share(size), others_statistic(size)]
    order = rows[np.argsort(votes.annotator[rows], kind="stable")]
    people, first = np.unique(votes.annotator[order], return_index=True)
    for person, own in zip(people.tolist(), np.split(order, first[1:]), strict=True):
        labels = votes.label[own]
        others = counts[votes.clip[own]] - np.eye(size, dtype=np.int64)[labels]
        data = np.concatenate([labels[:, None], others], axis=1)
        if len(people) <= MAX_PEOPLE:
            percent, kappa = estimates_of(statistics, data, o)
        else:
            percent, kappa = (Estimate(s(data), math.nan, math.nan) for s in statistics)
        shared = int((others.sum(1) > 0).sum())
        yield PersonAgreement(votes.annotators[person], condition, len(own), shared, percent, kappa)


def _agreeing_share(num_labels: int) -> Statistic:
    """Of the data of ``others_statistic``: the mean share of the others' votes that equal the own."""
    crossed = others_statistic(num_labels).per_unit

    def share(sums: Array) -> Array:
        cells = sums.reshape(*sums.shape[:-1], num_labels, num_labels)
        total = cells.sum((-2, -1))
        hits = np.trace(cells, axis1=-2, axis2=-1)
        return np.asarray(np.where(total > 0, hits / np.where(total > 0, total, 1.0), np.nan))

    return Statistic(crossed, share)
