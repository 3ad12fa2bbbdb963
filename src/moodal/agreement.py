"""How far people agree who label the same things: percentage, Krippendorff's alpha, Fleiss' and Cohen's kappa.

``counts`` is (N, L): how many votes each of N units got for each of L labels; who gave which vote is not needed. A unit
with fewer than two votes says nothing about agreement and counts nowhere. What is not defined (no unit with two votes;
only one label was ever used, so that chance would agree as well) is NaN.

Every statistic here is a function of sums over units, which is how a thousand resamples cost one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from moodal.types import InputError, unknown

Array = npt.NDArray[Any]
DISTANCES = ("nominal", "ordinal", "interval")
WEIGHTS = ("linear", "quadratic")
MAX_CELLS = 2_000_000  # of the (resamples, kinds of units) matrix that is in memory at one time


@dataclass(frozen=True)
class Statistic:
    """``of_sums(per_unit(data).sum(0))``. per_unit: (N, ...) -> (N, K); of_sums: (..., K) -> (...), or NaN."""

    per_unit: Callable[[Array], Array]
    of_sums: Callable[[Array], Array]

    def __call__(self, data: ArrayLike) -> float:
        kinds, sizes = kinds_of(data)
        return float(self.of_sums(sizes @ self.per_unit(kinds)))


def krippendorff_alpha(counts: ArrayLike, distance: str = "nominal") -> float:
    """Krippendorff's alpha, ``1 - D_o / D_e``, for any number of people and with votes missing.

    With n_uc votes of unit u for label c, n_u = sum_c n_uc, and over the units with n_u >= 2: n_c = sum_u n_uc,
    n = sum_c n_c,

        D_o = 1/n sum_u sum_ck n_uc n_uk d_ck / (n_u - 1)        D_e = 1/(n (n - 1)) sum_ck n_c n_k d_ck

    and d_ck, the squared distance of two labels: "nominal" 1 if they differ; "ordinal", for labels in order,
    (sum_{g=c..k} n_g - (n_c + n_k) / 2)^2; "interval" (c - k)^2, for labels that are the numbers 0, 1, 2, ...
    Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011, https://repository.upenn.edu/asc_papers/43.
    """
    return alpha_statistic(distance)(counts)


def percent_agreement(counts: ArrayLike) -> float:
    """The chance that two people who labelled the same unit gave it one label, the mean over units:

        P = mean_u sum_c n_uc (n_uc - 1) / (n_u (n_u - 1))

    Fleiss, Psychological Bulletin 76, 1971, eq. 2 and 3. Chance alone makes it large where one label is common.
    """
    return PERCENT_AGREEMENT(counts)


def fleiss_kappa(counts: ArrayLike) -> float:
    """Fleiss' kappa, ``(P - P_e) / (1 - P_e)`` with P of ``percent_agreement`` and P_e = sum_c p_c^2.

    Fleiss, Psychological Bulletin 76, 1971: every unit has equally many votes, and p_c is the share of label c in all.
    Where the numbers differ this is Gwet's generalisation (Handbook of Inter-Rater Reliability, 4th edition, 2014,
    on missing ratings), p_c = mean_u n_uc / n_u, which is the same where they do not; but units with one vote, which
    Gwet lets count in p_c, count nowhere here. ``has_equal_votes`` tells which of the two it is.
    """
    return FLEISS_KAPPA(counts)


def cohen_kappa(a: ArrayLike, b: ArrayLike, *, num_labels: int | None = None, weights: str | None = None) -> float:
    """Cohen's kappa of two people. a, b: (N,) labels 0, 1, ... of the same units; below 0 is no label.

    ``1 - sum_ck w_ck o_ck / sum_ck w_ck e_ck``, o the share of units that a gave c and b gave k, e the product of their
    shares, w_ck = [c != k] (Cohen, Educational and Psychological Measurement 20, 1960), or |c - k| with "linear" and
    (c - k)^2 with "quadratic" ``weights``, for labels in order (Cohen, Psychological Bulletin 70, 1968).
    """
    pairs = np.stack([np.asarray(a), np.asarray(b)], axis=1)
    size = int(pairs.max(initial=0)) + 1 if num_labels is None else num_labels
    return cohen_statistic(size, weights)(pairs)


def others_kappa(own: ArrayLike, others: ArrayLike) -> float:
    """How far one person agrees with the others beyond chance. own: (N,) labels; others: (N, L) votes of the others.

    Cohen's kappa with, on the side of the others, the shares of their votes instead of one label: the mean share that
    agrees against the mean product of the person's and the others' shares of each label (Vanbelle and Albert,
    Statistica Neerlandica 63, 2009, without their division by what the others allow). Units without others do not.
    """
    counts = np.asarray(others)
    return others_statistic(counts.shape[1])(np.concatenate([np.asarray(own)[:, None], counts], axis=1))


def has_equal_votes(counts: ArrayLike) -> bool:
    """Whether every unit with two or more votes has as many: Fleiss' own requirement."""
    votes = _pairable(_checked(np.asarray(counts))).sum(1)
    return bool(len(votes) and (votes == votes[0]).all())


def interval(
    statistic: Statistic, data: ArrayLike, *, seed: int, samples: int = 1000, confidence: float = 0.95
) -> tuple[float, float]:
    """Between which values ``statistic`` lies for other units of the same kind; see ``intervals``."""
    return intervals([statistic], data, seed=seed, samples=samples, confidence=confidence)[0]


def intervals(
    statistics: Sequence[Statistic], data: ArrayLike, *, seed: int, samples: int = 1000, confidence: float = 0.95
) -> list[tuple[float, float]]:
    """Percentiles of a bootstrap over units (Efron and Tibshirani, 1993, chapter 13), the same draws for all of them.

    The units are drawn, the votes of a drawn unit stay together; for alpha and kappa such intervals hold what they
    promise (Zapf et al., BMC Medical Research Methodology 16:93, 2016). Resamples in which a statistic is not defined
    are left out. Fewer than two units that count, or a statistic that is undefined in half of the resamples: NaN.
    """
    found = estimates(statistics, data, seed=seed, samples=samples, confidence=confidence)
    return [(low, high) for _, low, high in found]


def estimates(
    statistics: Sequence[Statistic], data: ArrayLike, *, seed: int, samples: int = 1000, confidence: float = 0.95
) -> list[tuple[float, float, float]]:
    """Each statistic and its interval."""
    if not 0 < confidence < 1:
        raise InputError(f"the confidence of an interval lies between 0 and 1, got {confidence}")
    kinds, sizes = kinds_of(data)
    parts = [s.per_unit(kinds) for s in statistics]
    values = [float(s.of_sums(sizes @ p)) for s, p in zip(statistics, parts, strict=True)]
    counted = np.any([(p != 0).any(1) for p in parts], axis=0)
    if sizes[counted].sum() < 2:
        return [(value, math.nan, math.nan) for value in values]
    edges = np.cumsum([0, *(p.shape[1] for p in parts)])
    terms = np.concatenate(parts, axis=1)[counted]
    sums = np.concatenate([w @ terms for w in resampling(sizes[counted], seed=seed, samples=samples)])
    drawn = [s.of_sums(sums[:, i:j]) for s, i, j in zip(statistics, edges, edges[1:], strict=False)]
    return [(value, *percentiles(x, confidence)) for value, x in zip(values, drawn, strict=True)]


def kinds_of(data: ArrayLike) -> tuple[Array, Array]:
    """The different rows of ``data`` (U, ...), sorted, and how many there are of each (U,).

    Units that are alike need not be told apart: with two votes a unit there are few kinds, however many units.
    """
    x = np.asarray(data)
    if x.ndim != 2 or not x.size:
        return x, np.ones(len(x), dtype=np.int64)
    rows = x[np.lexsort(x.T[::-1])]  # much faster than numpy's unique, which compares whole rows
    first = np.flatnonzero(np.concatenate([[True], (rows[1:] != rows[:-1]).any(1)]))
    return rows[first], np.diff([*first, len(rows)])


def resampling(sizes: Array, *, seed: int, samples: int) -> Iterator[Array]:
    """How often each kind of unit comes up when as many units as there are get drawn with replacement: (S, U) floats,
    block by block, ``samples`` rows in all. sizes: (U,) units of each kind."""
    if samples < 1:
        raise InputError(f"a bootstrap needs at least one resample, got {samples}")
    if seed < 0:
        raise InputError(f"seed must be 0 or more, got {seed}")
    rng, num = np.random.default_rng(seed), int(sizes.sum())
    block = max(1, MAX_CELLS // len(sizes))
    for first in range(0, samples, block):
        yield rng.multinomial(num, sizes / num, size=min(block, samples - first)).astype(float)


def percentiles(values: Array, confidence: float) -> tuple[float, float]:
    """The middle ``confidence`` of the values that are numbers; NaN when fewer than half of them are."""
    known = values[np.isfinite(values)]
    if 2 * len(known) <= len(values):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def wilson(hits: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a share (Wilson, JASA 22, 1927): where the true one may lie, none of them below 0 or above 1."""
    if not 0 <= hits <= total:
        raise InputError(f"{hits} of {total} is no share")
    if not total:
        return math.nan, math.nan
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, room = hits / total, z * z / total
    middle = (share + room / 2) / (1 + room)
    half = z / (1 + room) * math.sqrt(share * (1 - share) / total + room / (4 * total))
    return (middle - half if hits else 0.0), (middle + half if hits < total else 1.0)


def alpha_statistic(distance: str = "nominal") -> Statistic:
    """``krippendorff_alpha`` as sums."""
    if distance not in DISTANCES:
        raise unknown("distance of labels", distance, DISTANCES)
    return Statistic(
        partial(_coincidences, distance=distance), _ordinal_alpha if distance == "ordinal" else _fixed_alpha(distance)
    )


def cohen_statistic(num_labels: int, weights: str | None = None) -> Statistic:
    """``cohen_kappa`` as sums: its data is (N, 2), the labels of both."""
    if weights is not None and weights not in WEIGHTS:
        raise unknown("weighting of labels", weights, WEIGHTS)
    return Statistic(partial(_crossed, num_labels=num_labels), partial(_cohen, num_labels=num_labels, weights=weights))


def others_statistic(num_labels: int) -> Statistic:
    """``others_kappa`` as sums: its data is (N, 1 + L), the own label and the others' votes."""
    return Statistic(_against_others, partial(_cohen, num_labels=num_labels, weights=None))


def _checked(counts: Array) -> Array:
    if counts.ndim != 2:
        raise InputError(f"vote counts are a table of units and labels, got {counts.ndim} dimension(s)")
    x = counts.astype(float)
    if not (np.isfinite(x).all() and (x >= 0).all() and (x == np.floor(x)).all()):
        raise InputError("vote counts must be whole numbers, 0 or more")
    return x


def _pairable(counts: Array) -> Array:
    return np.asarray(counts[counts.sum(1) >= 2])


def _votes(counts: Array) -> tuple[Array, Array]:
    """counts (N, L) with the units that have no pair set to 0, and their votes (N, 1), at least 2."""
    x = _checked(counts)
    votes = x.sum(1, keepdims=True)
    return np.where(votes >= 2, x, 0.0), np.maximum(votes, 2.0)


def _divided(numerator: Array, denominator: Array) -> Array:
    """NaN where the denominator is 0."""
    there = denominator > 0
    return np.where(there, numerator / np.where(there, denominator, 1.0), np.nan)


def _squared_distances(num_labels: int, distance: str) -> Array:
    labels = np.arange(num_labels)
    apart = np.abs(labels[:, None] - labels)
    return np.asarray(apart > 0 if distance == "nominal" else apart**2, dtype=float)


def _coincidences(counts: Array, *, distance: str) -> Array:
    """What alpha sums. (N, 1 + L): disagreement and votes of each unit; ordinal, whose distances depend on the sums of
    all units: (N, L * L), the coincidences themselves."""
    x, votes = _votes(counts)
    if distance == "ordinal":
        pairs = x[:, :, None] * x[:, None, :] - x[:, :, None] * np.eye(x.shape[1])
        return np.asarray((pairs / (votes - 1)[:, :, None]).reshape(len(x), x.shape[1] ** 2))
    d = _squared_distances(x.shape[1], distance)
    return np.concatenate([((x @ d) * x).sum(1, keepdims=True) / (votes - 1), x], axis=1)


def _fixed_alpha(distance: str) -> Callable[[Array], Array]:
    def alpha(sums: Array) -> Array:
        observed, n_c = sums[..., 0], sums[..., 1:]
        d = _squared_distances(n_c.shape[-1], distance)
        return np.asarray(1 - _divided(observed * (n_c.sum(-1) - 1), ((n_c @ d) * n_c).sum(-1)))

    return alpha


def _ordinal_alpha(sums: Array) -> Array:
    size = math.isqrt(sums.shape[-1])
    o = sums.reshape(*sums.shape[:-1], size, size)
    n_c = o.sum(-1)
    middle = np.cumsum(n_c, axis=-1) - n_c / 2  # the ordinal distance of c and k is that of their middles
    d = (middle[..., :, None] - middle[..., None, :]) ** 2
    expected = (n_c[..., :, None] * n_c[..., None, :] * d).sum((-2, -1))
    return np.asarray(1 - _divided((o * d).sum((-2, -1)) * (n_c.sum(-1) - 1), expected))


def _agreeing(counts: Array) -> Array:
    """(N, 2 + L): whether the unit counts, its share of agreeing pairs, its share of each label."""
    x, votes = _votes(counts)
    counts_here = (x.sum(1, keepdims=True) > 0).astype(float)
    agreeing = (x * (x - 1)).sum(1, keepdims=True) / (votes * (votes - 1))
    return np.concatenate([counts_here, agreeing, x / votes], axis=1)


def _percent(sums: Array) -> Array:
    return _divided(sums[..., 1], sums[..., 0])


def _fleiss(sums: Array) -> Array:
    by_chance = (_divided(sums[..., 2:], sums[..., :1]) ** 2).sum(-1)
    room = 1 - by_chance
    return _divided(_percent(sums) - by_chance, np.where(room > 1e-12, room, 0.0))


PERCENT_AGREEMENT = Statistic(_agreeing, _percent)
FLEISS_KAPPA = Statistic(_agreeing, _fleiss)


def _crossed(pairs: Array, *, num_labels: int) -> Array:
    """(N, L * L): 1 where the two labels of a unit meet, all 0 where one of them is missing."""
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.max(initial=-1) >= num_labels:
        raise InputError(f"two people's labels are (N, 2) numbers below {num_labels}, got shape {pairs.shape}")
    both = (pairs >= 0).all(1)
    crossed = np.zeros((len(pairs), num_labels**2))
    crossed[np.flatnonzero(both), (pairs[both, 0] * num_labels + pairs[both, 1]).astype(np.int64)] = 1.0
    return crossed


def _against_others(data: Array) -> Array:
    """(N, L * L): row own label, the others' shares in it."""
    own, others = data[:, 0].astype(np.int64), _checked(data[:, 1:])
    num, size = others.shape
    shares = others / np.maximum(others.sum(1, keepdims=True), 1.0)
    crossed = np.zeros((num, size, size))
    crossed[np.arange(num), own] = shares
    return crossed.reshape(num, size**2)


def _cohen(sums: Array, *, num_labels: int, weights: str | None) -> Array:
    o = sums.reshape(*sums.shape[:-1], num_labels, num_labels)
    w = _squared_distances(num_labels, "nominal" if weights is None else "interval")
    if weights == "linear":
        w = np.sqrt(w)
    expected = (o.sum(-1)[..., :, None] * o.sum(-2)[..., None, :] * w).sum((-2, -1))
    return 1 - _divided((o * w).sum((-2, -1)) * o.sum((-2, -1)), expected)
