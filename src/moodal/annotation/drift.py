"""Whether somebody labels otherwise at the end than at the beginning: tired, bored, or with another idea of the task.

Clips come in random order, so the first and the second half of what a person labelled are alike, and so should be his
labels. Three tests compare them, all exact or by ranks: agreement with others (Fisher), time per label (Mann and
Whitney), and how often each label was used (chi squared); Holm's correction holds for all rows of the table together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from moodal.annotation.ballots import Ballots
from moodal.annotation.settings import CONDITIONS

Array = npt.NDArray[Any]
BLOCKS = 5
LEAST = 40  # labels of one person in one condition; with fewer, nothing could be seen
LEVEL = 0.05


def drift_rows(ballots: Ballots, conditions: Sequence[str], names: dict[int, str]) -> list[dict[str, Any]]:
    """A row per person, condition and measure: its value in consecutive fifths, and whether the halves differ.

    ``measure``: "agreement" (share of others who said the same), "seconds" (median), or "labels" (the share of the
    label that is given most, as its blocks; all labels are tested). ``p``: Holm's, ``flagged``: below 0.05.
    """
    rows = [row for c in conditions for row in _rows(ballots, c, names)]
    known = [row for row in rows if row["p"] is not None]
    for row, p in zip(known, holm([row["p"] for row in known]), strict=True):
        row |= {"p": p, "flagged": p < LEVEL}
    return rows


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (Scandinavian Journal of Statistics 6, 1979): the i-th smallest of m times m - i."""
    order = np.argsort(values, kind="stable")
    steps = np.asarray(values)[order] * np.arange(len(values), 0, -1) if len(values) else np.zeros(0)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(values) else steps
    return [float(p) for p in adjusted]


def _rows(ballots: Ballots, condition: str, names: dict[int, str]) -> list[dict[str, Any]]:
    from scipy import stats

    i = CONDITIONS.index(condition)
    said = ballots.label[i] >= 0
    rows = []
    for person_id in np.unique(ballots.person[i][said]).tolist():
        clip, seat = np.nonzero(said & (ballots.person[i] == person_id))
        if len(clip) < LEAST:
            continue
        order = np.argsort(ballots.at_s[i, clip, seat], kind="stable")
        clip, seat = clip[order], seat[order]
        late = np.arange(len(clip)) >= len(clip) // 2
        label, seconds = ballots.label[i, clip, seat], ballots.seconds[i, clip, seat].astype(float)
        share = _share_of_others(ballots.label[i], clip, seat)
        shared, timed = np.isfinite(share), np.isfinite(seconds)
        table = np.array([[(share[shared & half] >= 0.5).sum(), (share[shared & half] < 0.5).sum()]
                          for half in (~late, late)])  # fmt: skip
        most = int(np.bincount(label).argmax())
        used = np.unique(label)
        uses = np.array([[(label[half] == u).sum() for u in used] for half in (~late, late)])
        who = {"annotator": names[person_id], "condition": condition}
        rows.append(
            {**who, "measure": "agreement", **_blocks(share, np.nanmean),
             "p": float(stats.fisher_exact(table)[1]) if shared.sum() >= LEAST else None, "flagged": False}
        )  # fmt: skip
        rows.append(
            {**who, "measure": "seconds", **_blocks(seconds, np.nanmedian),
             "p": _ranks(seconds[timed & ~late], seconds[timed & late]), "flagged": False}
        )  # fmt: skip
        rows.append(
            {**who, "measure": f"labels ({ballots.settings.labels[most]})", **_blocks(label == most, np.mean),
             "p": _same_uses(uses), "flagged": False}
        )  # fmt: skip
    return rows


def _share_of_others(label: Array, clip: Array, seat: Array) -> Array:
    """(m,) the share of others who said the same; NaN where there is no other."""
    mine = label[clip, seat]
    others = (label[clip] >= 0).sum(axis=1) - 1
    same = (label[clip] == mine[:, None]).sum(axis=1) - 1
    return np.where(others > 0, same / np.maximum(others, 1), np.nan)


def _blocks(values: Array, middle: Any) -> dict[str, float | None]:
    """The middle of consecutive fifths."""
    found: dict[str, float | None] = {}
    for number, part in enumerate(np.array_split(np.asarray(values, float), BLOCKS), start=1):
        known = part[np.isfinite(part)]
        found[f"block_{number}"] = float(middle(known)) if len(known) else None
    return found


def _ranks(first: Array, second: Array) -> float | None:
    from scipy import stats

    if min(len(first), len(second)) < LEAST // 2:
        return None
    return float(stats.mannwhitneyu(first, second, method="asymptotic").pvalue)


def _same_uses(uses: Array) -> float | None:
    """p of chi squared; labels that are expected less than five times in a half are counted together."""
    from scipy import stats

    rare = uses.sum(axis=0) < 10
    table = np.concatenate([uses[:, ~rare], uses[:, rare].sum(axis=1, keepdims=True)], axis=1)
    table = table[:, table.sum(axis=0) > 0]
    return float(stats.chi2_contingency(table, correction=False).pvalue) if table.shape[1] > 1 else None
