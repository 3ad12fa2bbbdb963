"""Clips that are there more than once, such as the opening titles of every episode.

Two are the same where both their sound and their pictures are. Sound is compared by its outline: how loud each of 16
bands is over the course of the clip, each band less its mean, so that neither the encoder nor the volume matters. Only
clips of about the same length can be the same: shots end at the same cuts in each copy. Of those that sound alike a
few small grey pictures are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from moodal.data.clips import Clip
from moodal.screening.parts import Array

STEPS = 16  # of the outline in time, however long the clip
EDGE_S = 0.1  # left out on both sides: it sounds of what stands beside the copy
LENGTH_S = 0.15  # by which the lengths of copies may differ: cuts fall on pictures
FLOOR_DB = 40.0  # below the loudest; what is softer is lost by encoders
MIN_ALIKE = 0.8  # correlation of two outlines
MOST_PAIRS = 8
BLOCK = 512  # clips that are compared at a time with all of about their length
MAX_GREY = 12.0  # of 255: mean difference of the pictures of copies


def sound_outline(bands: Array, start_s: float, end_s: float, step_s: float) -> Array:
    """(STEPS * bands,) of length 1. bands: (T, bands) half decibels below full scale, every ``step_s``."""
    edge_s = min(EDGE_S, (end_s - start_s) / 4)
    edges = np.linspace(start_s + edge_s, end_s - edge_s, STEPS + 1) / step_s
    level = -bands.astype(np.float32) / 2
    whole = np.concatenate([np.zeros((1, bands.shape[1])), np.cumsum(level, 0, dtype=np.float64)])
    at = np.clip(edges, 0, len(level))
    below = np.minimum(at.astype(int), max(len(level) - 1, 0))
    sums = whole[below] + (at - below)[:, None] * (level[below] if len(level) else 0.0)
    mean = np.diff(sums, axis=0) / np.maximum(np.diff(at), 1e-6)[:, None]
    mean = np.maximum(mean, mean.max(initial=-200.0) - FLOOR_DB)
    mean -= mean.mean(0)
    length = float(np.linalg.norm(mean))
    outline: Array = (mean / length if length > 1e-6 else np.zeros_like(mean)).astype(np.float16).ravel()
    return outline


def sound_pairs(clips: Sequence[Clip], outlines: Array) -> list[tuple[int, int]]:
    """Pairs (earlier, later) of positions in ``clips`` that sound alike; of one later clip with the first
    ``MOST_PAIRS`` at most. outlines: (N, D), see ``sound_outline``."""
    lengths = np.array([c.duration_s for c in clips])
    order = np.argsort(lengths, kind="stable")
    in_order = lengths[order]
    found = np.zeros((0, 2), np.int64)
    for first in range(0, len(order), BLOCK):
        rows = order[first : first + BLOCK]
        last = int(np.searchsorted(in_order, lengths[rows[-1]] + LENGTH_S, "right"))
        columns = order[first:last]
        alike = outlines[rows].astype(np.float32) @ outlines[columns].astype(np.float32).T
        near = np.abs(lengths[rows][:, None] - lengths[columns][None]) <= LENGTH_S
        i, j = np.nonzero(np.triu((alike >= MIN_ALIKE) & near, 1))
        found = _first_ones(np.concatenate([found, np.sort(np.stack([rows[i], columns[j]], 1), 1)]))
    return [(int(a), int(b)) for a, b in sorted(found.tolist())]


def _first_ones(pairs: Array) -> Array:
    """pairs: (n, 2); of those with the same later clip the first ``MOST_PAIRS``: a thousand times the same clip makes
    half a million pairs."""
    pairs = pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]
    _, begins, counts = np.unique(pairs[:, 1], return_index=True, return_counts=True)
    number = np.arange(len(pairs)) - np.repeat(begins, counts)
    few: Array = pairs[number < MOST_PAIRS]
    return few


def copies(pairs: Sequence[tuple[int, int]], grey: Mapping[int, Array]) -> dict[int, int]:
    """Which clip each copy is a copy of: the first. grey: (K, H, W) by position, absent where there is no picture."""
    first: dict[int, int] = {}
    for a, b in pairs:  # in order: the first of a pair has been judged before
        if b not in first and _same_pictures(grey.get(a), grey.get(b)):
            first[b] = first.get(a, a)
    return first


def _same_pictures(a: Array | None, b: Array | None) -> bool:
    if a is None or b is None or a.shape != b.shape or not len(a):
        return False
    return float(np.abs(a.astype(float) - b.astype(float)).mean()) <= MAX_GREY
