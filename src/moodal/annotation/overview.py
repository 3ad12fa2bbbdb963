"""The state of a project for its lead: how far it is, how well people agree, and whether anybody changed on the way."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from moodal.agreement import (
    FLEISS_KAPPA,
    PERCENT_AGREEMENT,
    Statistic,
    alpha_statistic,
    cohen_statistic,
    intervals,
)
from moodal.annotation.ballots import Ballots, following_ballots
from moodal.annotation.database import Database
from moodal.annotation.drift import drift_rows
from moodal.annotation.following import following_board
from moodal.annotation.held import singles_are_held
from moodal.annotation.schema import Person, Qualification
from moodal.annotation.settings import CONDITIONS
from moodal.annotation.waiting import awaited, shortage

Array = npt.NDArray[Any]
FRESH_S = 60.0
MANY_CLIPS = 5000  # beyond it an interval moves by less than its third digit between 200 resamples and 1000
PAIRS_WITH_INTERVALS = 60  # of those who share most; fifty people are 1225 pairs
SEED = 0


@dataclass(frozen=True)
class Overview:
    """Tables of a project; each is rows of plain values with the same keys, ready to be shown. None: not known.

    low and high beside a number are its 95 % bootstrap interval over clips. Agreement counts every answer as a label,
    "compound" and "invalid" too, and the answers of the main round alone.
    """

    at: str  # ISO 8601, when it was computed
    sentence: str | None  # what stands in the way of finishing, and the way out
    conditions: list[dict[str, Any]] = field(default_factory=list)
    people: list[dict[str, Any]] = field(default_factory=list)
    agreement: list[dict[str, Any]] = field(default_factory=list)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    against_others: list[dict[str, Any]] = field(default_factory=list)
    confusion: list[dict[str, Any]] = field(default_factory=list)
    drift: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def overview(db: Database) -> Overview:
    """Progress, times, agreement and drift, at most a minute old; while one thread computes, others get the last."""
    last = _kept(db)
    if last is not None and time.monotonic() - last[0] < FRESH_S:
        return last[1]
    if not db.overview_lock.acquire(blocking=last is None) and last is not None:
        return last[1]
    try:
        newer = _kept(db)
        if newer is None or newer is last:
            newer = db.memory["overview"] = (time.monotonic(), compute_overview(db))
        return newer[1]
    finally:
        db.overview_lock.release()


def _kept(db: Database) -> tuple[float, Overview] | None:
    """When the last overview was computed, and it."""
    kept: tuple[float, Overview] | None = db.memory.get("overview")
    return kept


def compute_overview(db: Database) -> Overview:
    """The same, now."""
    with db.read() as session:
        people = list(session.scalars(select(Person).order_by(Person.id)))
        states = session.execute(select(Qualification.person_id, Qualification.condition, Qualification.state)).all()
        with following_board(db, session) as board:
            after = board.singles_are_taken and not singles_are_held(session)
            sentence = shortage(board) or awaited(
                board, {p.id: p.name for p in people}, after_singles=after, now=db.clock()
            )
            needed = board.needed.copy()
            settings = board.settings
        with following_ballots(db, session) as live:
            ballots = live.snapshot()
    names = {p.id: p.name for p in people}
    qualified: dict[int, list[str]] = {}
    for person_id, condition, state in states:
        qualified.setdefault(person_id, []).append(f"{condition}: {state}")
    used = list(settings.conditions)
    return Overview(
        at=datetime.fromtimestamp(db.clock(), UTC).isoformat(timespec="seconds"),
        sentence=sentence,
        conditions=[_condition_row(ballots, needed, c) for c in used],
        people=[_person_row(ballots, p, qualified.get(p.id, [])) for p in people if p.role == "annotator"],
        agreement=[_agreement_row(ballots, c) for c in used],
        pairs=_pair_rows(ballots, used, names),
        against_others=[row for c in used for row in _against_rows(ballots, c, names)],
        confusion=[row for a, b in combinations(reversed(used), 2) for row in _confusion_rows(ballots, a, b)],
        drift=drift_rows(ballots, used, names),
    )


def _condition_row(ballots: Ballots, needed: Array, condition: str) -> dict[str, Any]:
    i = CONDITIONS.index(condition)
    said = ballots.label[i]
    labels = ballots.settings.labels
    asked, given = int(needed[i].sum()), int((said >= 0).sum())
    decided = {clip for c, clip in ballots.decided if c == i}
    differing = ballots.differing(condition, intensity=False).tolist()
    return {
        "condition": condition,
        "clips": int((needed[i] > 0).sum()),
        "asked": asked,
        "given": given,
        "share": given / asked if asked else None,
        "median_s": _median(ballots.seconds[i]),
        "compound": int((said == labels.index("compound")).sum()),
        "invalid": int((said == labels.index("invalid")).sum()),
        "differing": len(differing),
        "undecided": len(set(differing) - decided),
    }


def _person_row(ballots: Ballots, person: Person, qualified: list[str]) -> dict[str, Any]:
    mine = ballots.person == person.id
    last = float(ballots.at_s[mine].max(initial=0.0))
    return {
        "annotator": person.name,
        "active": person.active,
        "accepted": person.password_hash is not None,
        "given": int(mine.sum()),
        **{c: int(mine[CONDITIONS.index(c)].sum()) for c in ballots.settings.conditions},
        "corrected": ballots.corrected.get(person.id, 0),
        "median_s": _median(ballots.seconds[mine]),
        "last_at": datetime.fromtimestamp(last, UTC).isoformat(timespec="seconds") if last else None,
        "qualification": ", ".join(sorted(qualified)) or None,
    }


def _agreement_row(ballots: Ballots, condition: str) -> dict[str, Any]:
    counts = ballots.counts(condition)
    counts = counts[counts.sum(axis=1) >= 2]
    statistics = {"percent": PERCENT_AGREEMENT, "alpha": alpha_statistic("nominal"), "fleiss": FLEISS_KAPPA}
    row: dict[str, Any] = {"condition": condition, "clips": len(counts)}
    found = intervals(list(statistics.values()), counts, seed=SEED, samples=_samples(len(counts)))
    for (name, statistic), (low, high) in zip(statistics.items(), found, strict=True):
        row |= {name: _known(statistic(counts)), f"{name}_low": _known(low), f"{name}_high": _known(high)}
    return row


def _pair_rows(ballots: Ballots, conditions: list[str], names: dict[int, str]) -> list[dict[str, Any]]:
    """Cohen's kappa of every two people with clips in common, those with most clips first."""
    pairs = [(c, a, b, both) for c in conditions for a, b, both in _pairs(ballots, c)]
    pairs.sort(key=lambda p: (-len(p[3]), p[0], p[1], p[2]))
    statistic = cohen_statistic(len(ballots.settings.labels))
    rows = []
    for place, (c, a, b, both) in enumerate(pairs):
        low = high = math.nan
        if place < PAIRS_WITH_INTERVALS:
            low, high = intervals([statistic], both, seed=SEED, samples=_samples(len(both)))[0]
        rows.append({
            "condition": c,
            "first": names[a],
            "second": names[b],
            "clips": len(both),
            "percent": float((both[:, 0] == both[:, 1]).mean()),
            "kappa": _known(statistic(both)),
            "low": _known(low),
            "high": _known(high),
        })  # fmt: skip
    return rows


def _pairs(ballots: Ballots, condition: str) -> list[tuple[int, int, Array]]:
    """(a, b, (m, 2) their labels) of every two people who labelled m > 0 clips both, a < b."""
    i = CONDITIONS.index(condition)
    person, label = ballots.person[i].astype(np.int64), ballots.label[i]
    found: dict[tuple[int, int], list[Array]] = {}
    for x, y in combinations(range(person.shape[1]), 2):
        there = (label[:, x] >= 0) & (label[:, y] >= 0)
        two = np.stack([person[there, x], person[there, y]], axis=1)
        said = np.stack([label[there, x], label[there, y]], axis=1)
        turned = two[:, 0] > two[:, 1]
        two[turned], said[turned] = two[turned, ::-1], said[turned, ::-1]
        who, which = np.unique(two, axis=0, return_inverse=True)
        order = np.argsort(which.ravel(), kind="stable")
        parts = np.split(said[order], np.cumsum(np.bincount(which.ravel(), minlength=len(who)))[:-1])
        for (a, b), part in zip(who.tolist(), parts if len(who) else [], strict=True):
            found.setdefault((a, b), []).append(part)
    return [(a, b, np.concatenate(parts)) for (a, b), parts in sorted(found.items())]


def _against_rows(ballots: Ballots, condition: str, names: dict[int, str]) -> list[dict[str, Any]]:
    """How often each annotator says what another said of the same clip."""
    rows = []
    for person_id, (_, share) in agreement_with_others(ballots, condition).items():
        low, high = intervals([MEAN], share[:, None], seed=SEED, samples=_samples(len(share)))[0]
        rows.append({
            "condition": condition,
            "annotator": names[person_id],
            "clips": len(share),
            "percent": float(share.mean()),
            "low": _known(low),
            "high": _known(high),
        })  # fmt: skip
    return rows


def agreement_with_others(ballots: Ballots, condition: str) -> dict[int, tuple[Array, Array]]:
    """By person: (m,) the clips that others labelled too, and (m,) the share of these others who said the same."""
    i = CONDITIONS.index(condition)
    person, label = ballots.person[i], ballots.label[i]
    said = label >= 0
    same = ((label[:, :, None] == label[:, None, :]) & said[:, None, :]).sum(axis=2) - 1  # without himself
    others = said.sum(axis=1, keepdims=True) - 1
    found = {}
    for person_id in np.unique(person[said & (others > 0)]).tolist():
        clip, seat = np.nonzero((person == person_id) & said & (others > 0))
        found[person_id] = (clip, same[clip, seat] / others[clip, 0])
    return found


def _confusion_rows(ballots: Ballots, first: str, second: str) -> list[dict[str, Any]]:
    """How the labels that were found for a clip in two conditions go together; a row for each label of the first."""
    a, b = ballots.consensus(first), ballots.consensus(second)
    both = (a >= 0) & (b >= 0)
    labels = ballots.settings.labels
    table = np.bincount(a[both] * len(labels) + b[both], minlength=len(labels) ** 2).reshape(len(labels), -1)
    return [
        {"first": first, "second": second, "label": name, **dict(zip(labels, row, strict=True))}
        for name, row in zip(labels, table.tolist(), strict=True)
        if sum(row)
    ]


def _samples(num: int) -> int:
    return 1000 if num <= MANY_CLIPS else 200


def _median(values: Array) -> float | None:
    known = values[np.isfinite(values)]
    return round(float(np.median(known)), 3) if len(known) else None


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _ones_and_values(x: Array) -> Array:
    return np.concatenate([np.ones((len(x), 1)), x], axis=1)


def _mean(sums: Array) -> Array:
    return np.asarray(sums[..., 1] / np.maximum(sums[..., 0], 1))


MEAN = Statistic(_ones_and_values, _mean)
