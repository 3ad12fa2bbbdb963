"""Means, AUROC and rank correlations with intervals that know of seeds and of groups.

The bootstrap is that of ``statistics``: whole groups and runs are drawn at the same time, G - 1 of G and R - 1 of R.
Here the draws are made once and serve everything that is measured, so that any two numbers of a report can be compared,
and a statistic need not be a function of sums: it is told how often each utterance was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Statistic = Callable[[Array], Array]  # how often each utterance counts, (b, N) -> (b, R): its value for every run

MAX_CELLS = 2_000_000  # of the (resamples, utterances) matrix that is in memory at one time
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over runs and the interval in which it lies for other runs and groups of the same kind."""

    value: float
    low: float
    high: float


class Resamples:
    """Which groups and which runs were drawn. groups: (N,) names; of one group alone, utterances stand in for it."""

    def __init__(self, groups: npt.NDArray[np.str_], *, resamples: int = 1000, seed: int = 0) -> None:
        found, owner = np.unique(groups, return_inverse=True)
        self.alone = len(found) < 2
        self.owner = np.arange(len(groups)) if self.alone else owner
        self.num_groups = int(self.owner.max()) + 1
        self.resamples, self.seed = resamples, seed
        self._groups = _drawn(np.random.default_rng((seed, 0)), resamples, self.num_groups)

    def runs(self, num: int) -> Array:
        """(resamples, num) the weight of each run; rows sum to 1."""
        drawn = _drawn(np.random.default_rng((self.seed, 1)), self.resamples, num)
        return np.asarray(drawn / drawn.sum(1, keepdims=True))

    def chunks(self) -> Iterator[Array]:
        """(b, N) at a time, how often each utterance was drawn."""
        size = max(1, MAX_CELLS // len(self.owner))
        for start in range(0, self.resamples, size):
            yield self._groups[start : start + size][:, self.owner].astype(np.float64)

    def estimate(self, statistic: Statistic) -> Estimate | None:
        """None where the statistic is not defined on these utterances."""
        values = statistic(np.ones((1, len(self.owner))))[0]  # (R,)
        if not np.isfinite(values).all():
            return None
        drawn = np.concatenate([statistic(w) for w in self.chunks()])  # (resamples, R)
        means = (drawn * self.runs(len(values))).sum(1)
        tail = (1 - LEVEL) / 2
        low, high = np.nanquantile(means, [tail, 1 - tail])  # a draw on which it is undefined does not count
        return Estimate(float(values.mean()), float(low), float(high))


def _drawn(rng: np.random.Generator, resamples: int, n: int) -> npt.NDArray[np.int32]:
    """(resamples, n) how often each of n was drawn, with replacement, in n - 1 draws (one, if n is 1)."""
    return rng.multinomial(max(1, n - 1), np.full(n, 1 / n), size=resamples).astype(np.int32)


def mean_of(values: Array) -> Statistic:
    """Mean over utterances. values: (R, N); NaN where an utterance does not count."""
    there = np.isfinite(values)
    filled = np.where(there, values, 0.0)
    return lambda w: _ratio(w @ filled.T, w @ there.astype(np.float64).T)


def auroc_of(scores: Array, positive: Array) -> Statistic:
    """How often a positive utterance has a higher score than a negative one; ties count one half.

    scores: (R, N); positive: (N,) 1 or 0, NaN where an utterance does not count.
    """
    known = np.isfinite(positive)
    yes = positive[known] == 1
    sorts = [_Sorted(run[known]) for run in scores]

    def statistic(w: Array) -> Array:
        counts = w[:, known]
        return np.stack([_auroc(s, counts, yes) for s in sorts], axis=1)

    return statistic


def rank_correlation_of(x: Array, y: Array) -> Statistic:
    """Spearman's. x: (R, N); y: (N,), NaN where an utterance does not count."""
    known = np.isfinite(y)
    sorts, other = [_Sorted(run[known]) for run in x], _Sorted(y[known])

    def statistic(w: Array) -> Array:
        counts = w[:, known]
        ranks = other.ranks(counts)
        return np.stack([_correlation(s.ranks(counts), ranks, counts) for s in sorts], axis=1)

    return statistic


class _Sorted:
    """Values in order, and where each stretch of equal ones begins."""

    def __init__(self, values: Array) -> None:
        self.order = np.argsort(values, kind="stable")
        steps = np.diff(values[self.order], prepend=-np.inf) > 0
        self.starts = np.flatnonzero(steps)
        self.place = np.empty(len(values), dtype=np.int64)
        self.place[self.order] = np.cumsum(steps) - 1  # which stretch each value belongs to

    def sums(self, w: Array) -> Array:
        """(b, n) -> (b, stretches)."""
        if not len(self.order):
            return np.zeros((len(w), 0))
        return np.asarray(np.add.reduceat(w[:, self.order], self.starts, axis=1))

    def ranks(self, w: Array) -> Array:
        """(b, n) middle ranks among utterances that count ``w`` times."""
        sums = self.sums(w)
        return np.asarray((np.cumsum(sums, axis=1) - sums / 2)[:, self.place])


def _auroc(s: _Sorted, w: Array, yes: npt.NDArray[np.bool_]) -> Array:
    ups, downs = s.sums(w * yes), s.sums(w * ~yes)
    below = np.cumsum(downs, axis=1) - downs / 2
    return _ratio((ups * below).sum(1), ups.sum(1) * downs.sum(1))


def _correlation(x: Array, y: Array, w: Array) -> Array:
    """Weighted Pearson by row; 0 where one side is constant, as in ``metrics``."""
    total = w.sum(1, keepdims=True)
    x, y = (v - _ratio((w * v).sum(1, keepdims=True), total) for v in (x, y))
    cross, xx, yy = ((w * a * b).sum(1) for a, b in ((x, y), (x, x), (y, y)))
    product = xx * yy
    varies = product > 1e-12 * total[:, 0] ** 2
    return np.where(total[:, 0] > 0, np.where(varies, cross / np.sqrt(np.where(varies, product, 1.0)), 0.0), np.nan)


def _ratio(a: Array, b: Array) -> Array:
    """a / b, NaN where b is 0."""
    return np.asarray(np.divide(a, b, out=np.full(np.shape(a), np.nan), where=np.broadcast_to(b != 0, np.shape(a))))
