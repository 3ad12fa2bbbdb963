"""What ``inspect`` measures of one modality's features: lengths, absence, sick columns, and what it predicts alone."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from moodal.batch import Ragged
from moodal.types import Task, Utterance

Array = npt.NDArray[Any]

EXTREME = 20.0  # times the half-width of a column's central 98 %: no emotion goes there, whatever the distribution
PROBE_ROWS = 4000
PROBE_FOLDS = 3


def fingerprints(x: Ragged) -> list[str | None]:
    """Per utterance a hash of its values; None where it is missing or all zeros, which may well coincide."""
    prints: list[str | None] = []
    for clip in torch.split(x.values, x.lengths.tolist()):
        values = clip.numpy()
        prints.append(hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest() if values.any() else None)
    return prints


def lengths(x: Ragged) -> dict[str, Any]:
    """Steps of the utterances that have this modality, with a histogram for the picture."""
    steps = x.lengths[x.lengths > 0].numpy()
    width = 1 + int(steps.max() - steps.min()) // 40  # whole steps, or some bins would hold fewer step counts
    edges = steps.min() + width * np.arange((steps.max() - steps.min()) // width + 2)
    counts, _ = np.histogram(steps, bins=edges)
    return {
        "min": int(steps.min()),
        "median": float(np.median(steps)),
        "max": int(steps.max()),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def health(x: Ragged, columns: Sequence[str]) -> dict[str, Any]:
    """Columns and clips that look like a failed extraction.

    scale_ratio: widest over narrowest column that varies; extremes: the columns with a value more than ``EXTREME``
    half-widths of their central 98 % away, and how many (a standard deviation would grow with the value);
    zero_tail: clips that end in all-zero steps, as stored padding does; zero_clips: nothing but zeros; frozen:
    several steps, all the same.
    """
    mean, std, low, high, zeros = _moments(x)
    constant = std <= 1e-6 * np.maximum(1e-6, np.abs(mean))
    alive = std[~constant]
    middle, half = _central(x, std)
    reach = np.maximum(high - middle, middle - low) / np.where(constant, np.inf, half)
    zero_step = (x.values == 0).all(1).numpy()
    last = (x.starts + x.lengths - 1).numpy()
    present = (x.lengths > 0).numpy()
    zero_count = np.add.reduceat(np.append(zero_step, 0), x.starts.numpy()) * present
    names = list(columns) or [str(i) for i in range(x.dim)]
    ends_in_zero = np.append(zero_step, False)[last] & present
    all_zero = (zero_count == x.lengths.numpy()) & present
    return {
        "constant": [names[i] for i in np.flatnonzero(constant)],
        "scale_ratio": float(alive.max() / alive.min()) if len(alive) else None,
        "zeros": zeros,
        "zero_steps": float(zero_step.mean()),
        "extremes": {names[i]: round(float(reach[i]), 1) for i in np.flatnonzero(reach > EXTREME)},
        "largest": float(max(abs(low.min()), abs(high.max()))),
        "zero_tail": int((ends_in_zero & ~all_zero).sum()),
        "zero_clips": int(all_zero.sum()),
        "frozen": _frozen(x),
    }


def _moments(x: Ragged) -> tuple[Array, Array, Array, Array, float]:
    """Mean, standard deviation, smallest and largest of each column, and the share of zeros, a slice at a time."""
    slices = torch.split(x.values, 8192)
    mean = sum(c.double().sum(0) for c in slices) / len(x.values)
    var = sum((c.double() - mean).square().sum(0) for c in slices) / len(x.values)
    low = torch.stack([c.amin(0) for c in slices]).amin(0).double()
    high = torch.stack([c.amax(0) for c in slices]).amax(0).double()
    zeros = sum(int((c == 0).sum()) for c in slices) / x.values.numel()
    mean, std = torch.as_tensor(mean), torch.as_tensor(var).sqrt()
    return mean.numpy(), std.numpy(), low.numpy(), high.numpy(), zeros


def _central(x: Ragged, std: Array) -> tuple[Array, Array]:
    """(D,) middle and half-width of the central 98 % of some steps; 2.33 ``std`` where that is one value."""
    rows = x.values[:: 1 + len(x.values) // 20_000].numpy()
    low, high = np.quantile(rows, (0.01, 0.99), axis=0).astype(np.float64)
    return (low + high) / 2, np.where(high > low, (high - low) / 2, 2.33 * std)


def _frozen(x: Ragged) -> int:
    """Clips of several steps that never change (and are not all zeros)."""
    if not len(x.values):
        return 0
    moved = torch.zeros(len(x.values), dtype=torch.bool)
    moved[1:] = (x.values[1:] != x.values[:-1]).any(1)
    moved[x.starts[x.lengths > 0]] = False
    changes = torch.zeros(len(x), dtype=torch.int64).index_add_(0, x.owner, moved.long())
    something = torch.zeros(len(x), dtype=torch.int64).index_add_(0, x.owner, (x.values != 0).any(1).long())
    return int(((x.lengths > 1) & (changes == 0) & (something > 0)).sum())


def alone(x: Ragged, utterances: Sequence[Utterance], task: Task) -> dict[str, float] | None:
    """Accuracy of shrinkage LDA on this modality's clip means: by cross-validation within train, and on valid and test.

    A probe of the data, not a model: features that were fitted to the training labels show as a high "train" and
    a low rest. Scores count as positive or not. Without splits: "folds", each fold predicted from the others.
    """
    labels = np.array([_probe_label(u, task) for u in utterances], dtype=object)
    usable = (x.lengths > 0).numpy() & (labels != None)  # noqa: E711 (elementwise)
    rows = x.mean().numpy().astype(np.float64)
    split = np.array([u.split or "none" for u in utterances])
    if not (split == "train").any():
        return _alone_by_fold(rows, labels, usable, np.array([-1 if u.fold is None else u.fold for u in utterances]))
    train = _sample(np.flatnonzero(usable & (split == "train")))
    counts = Counter(labels[train])
    if len(counts) < 2 or min(counts.values()) < PROBE_FOLDS:
        return None
    folds = _probe_folds(labels[train].astype(str), [utterances[i].group for i in train.tolist()])
    found = {"train": float(np.concatenate([_probe(rows, labels, train[a], train[b]) for a, b in folds]).mean())}
    for s in ("valid", "test"):
        if len(rest := np.flatnonzero(usable & (split == s))):
            found[s] = float(_probe(rows, labels, train, rest).mean())
    return found


def _alone_by_fold(rows: Array, labels: Array, usable: Array, fold: Array) -> dict[str, float] | None:
    right = []
    for k in sorted(set(fold[usable & (fold >= 0)].tolist())):
        train = _sample(np.flatnonzero(usable & (fold >= 0) & (fold != k)))
        if len(train):
            right.append(_probe(rows, labels, train, np.flatnonzero(usable & (fold == k))))
    return {"folds": float(np.concatenate(right).mean())} if right else None


def _sample(train: Array) -> Array:
    if len(train) <= PROBE_ROWS:
        return train
    return np.sort(np.random.default_rng(0).choice(train, PROBE_ROWS, replace=False))


def _probe_label(u: Utterance, task: Task) -> str | None:
    if task.classes:
        return u.label
    return None if u.score is None else ("positive" if u.score > 0 else "not positive")


def _probe_folds(labels: Array, groups: Sequence[Hashable]) -> list[tuple[Array, Array]]:
    """By group where there are enough of them, else by class."""
    from sklearn.model_selection import GroupKFold, StratifiedKFold

    if None not in groups and len(set(groups)) >= PROBE_FOLDS:
        return list(GroupKFold(PROBE_FOLDS).split(labels, labels, np.array(groups, dtype=str)))
    return list(StratifiedKFold(PROBE_FOLDS, shuffle=True, random_state=0).split(labels, labels))


def _probe(rows: Array, labels: Array, train: Array, rest: Array) -> Array:
    """(n,) whether each of ``rest`` is classified rightly."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    mean, std = rows[train].mean(0), rows[train].std(0)
    scale = np.where(std > 1e-6 * np.maximum(1.0, np.abs(mean)), std, np.inf)  # constant columns become 0
    x = np.clip((rows - mean) / scale, -10, 10)
    seen = sorted(set(labels[train].tolist()))
    code = np.array([seen.index(v) if v in seen else -1 for v in labels])
    if len(seen) < 2:
        return np.asarray(code[rest] == code[train][0])
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x[train], code[train])
    return np.asarray(lda.predict(x[rest]) == code[rest])
