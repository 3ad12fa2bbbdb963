"""Who has met which clip, and which clip is whose next: the rules of blind labelling, on arrays.

Nobody meets a clip in two conditions while single modalities are being labelled, so a clip needs k different people in
each of its S single conditions, k S in all. For each clip the people stand in a random order of its own, and the one at
place r < k S is meant for its condition r mod S: everybody gets about as much of every condition, and when the people
suffice, each seat has somebody who may take it. Who is through with his own helps out, but takes no seat without which
the rest could not be filled any more (Hall, Journal of the London Mathematical Society 10, 1935).

The arrays follow the database: they are read once and then from the last row seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import String, and_, bindparam, cast, func, select
from sqlalchemy.orm import Session

from moodal.annotation.chance import hashes, key
from moodal.annotation.schema import AssignmentRow, Person, Project, Qualification, Returned
from moodal.annotation.settings import CONDITIONS, AnnotationSettings

Array = npt.NDArray[Any]
BIT = {c: 1 << i for i, c in enumerate(CONDITIONS)}
ROWS_AT_ONCE = 20_000
MAX_ORDERS = 128  # of 0.4 MB each for 100,000 clips
DAY_S = 86_400.0
LATEST = 2**32 - 1  # seconds since 1970: the year 2106

_CREW = (Person.active, Person.role == "annotator")
STATE = select(  # all that tells whether there is anything new, in one question
    select(Project.revision).scalar_subquery().label("revision"),
    select(func.max(AssignmentRow.id)).scalar_subquery().label("assignment"),
    select(func.max(Returned.id)).scalar_subquery().label("returned"),
    select(func.count(Person.id)).scalar_subquery().label("people"),
    select(func.aggregate_strings(cast(Person.id, String), ",")).where(*_CREW).scalar_subquery().label("crew"),
)
CLAIMED = (
    select(
        AssignmentRow.id,
        AssignmentRow.clip,
        AssignmentRow.condition,
        AssignmentRow.person_id,
        AssignmentRow.round,
        AssignmentRow.claimed_at_s,
    )
    .where(AssignmentRow.id > bindparam("last"))
    .order_by(AssignmentRow.id)
)
BACK = (
    select(
        Returned.id,
        Returned.clip,
        Returned.condition,
        Returned.person_id,
        Returned.round,
        Returned.claimed_at_s,
        Returned.assignment_id,
    )
    .where(Returned.id > bindparam("last"))
    .order_by(Returned.id)
)
PEOPLE = select(Person.id, and_(*_CREW)).order_by(Person.id)
FAILED = select(Qualification.person_id, Qualification.condition).where(Qualification.state == "failed")


@dataclass
class Board:
    """n clips, P people. Taken and needed seats (4, n); what each person met and has (P, n), one bit per condition."""

    settings: AnnotationSettings
    revision: int
    needed: Array
    gold: dict[str, Array]
    people: dict[int, int] = field(default_factory=dict)  # id -> row
    crew: tuple[int, ...] = ()  # rows of those who may label
    barred: dict[int, int] = field(default_factory=dict)  # row -> bits of conditions in which he did not qualify
    last_assignment: int = 0
    last_returned: int = 0
    seen_people: tuple[int, str | None] = (-1, None)

    def __post_init__(self) -> None:
        self.taken = np.zeros_like(self.needed)
        n = self.needed.shape[1]
        self.met, self.has = np.zeros((0, n), np.uint8), np.zeros((0, n), np.uint8)
        self.turns, self.last_condition = np.zeros(0, np.int64), np.full(0, -1, np.int8)
        self.met_turn, self.met_at = np.zeros((0, n), np.int32), np.zeros((0, n), np.uint32)
        self.orders: dict[tuple[int, str], Array] = {}
        self.shares: dict[tuple[int, str], Array] = {}
        self.ranks: Array | None = None

    # --- following the database ---

    def refresh(self, session: Session, state: Any) -> None:
        """Take in what was written since the last time. ``state``: what ``STATE`` says now."""
        self._refresh_people(session, state)
        seen = self.last_assignment
        newest_back = state.returned
        if state.assignment is not None and state.assignment > seen:
            rows = session.execute(CLAIMED, {"last": seen}, execution_options={"yield_per": ROWS_AT_ONCE})
            for part in rows.partitions():
                self._claimed(part)
                self.last_assignment = part[-1][0]
        if newest_back is not None and newest_back > self.last_returned:
            back = session.execute(BACK, {"last": self.last_returned}, execution_options={"yield_per": ROWS_AT_ONCE})
            for gone in back.partitions():
                self._given_back(gone, seen)
                self.last_returned = gone[-1][0]

    def _refresh_people(self, session: Session, state: Any) -> None:
        if self.seen_people != (state.people, state.crew):
            rows = session.execute(PEOPLE).all()
            for person_id, _ in rows:
                self._row_of(person_id)
            crew = tuple(self.people[i] for i, is_crew in rows if is_crew)
            if crew != self.crew:
                self.crew, self.ranks = crew, None
                self.shares.clear()
            self.seen_people = (state.people, state.crew)
        self.barred = {}
        if not self.settings.qualification:
            return
        for person_id, condition in session.execute(FAILED):
            row = self.people[person_id]
            self.barred[row] = self.barred.get(row, 0) | BIT[condition]

    def _row_of(self, person_id: int) -> int:
        if person_id not in self.people:
            self.people[person_id] = len(self.people)
            if len(self.people) > len(self.met):
                self._grow()
        return self.people[person_id]

    def _grow(self) -> None:
        more = max(4, len(self.met))
        n = self.needed.shape[1]
        self.met = np.concatenate([self.met, np.zeros((more, n), np.uint8)])
        self.has = np.concatenate([self.has, np.zeros((more, n), np.uint8)])
        self.turns = np.concatenate([self.turns, np.zeros(more, np.int64)])
        self.last_condition = np.concatenate([self.last_condition, np.full(more, -1, np.int8)])
        if self.settings.has_gap:
            self.met_turn = np.concatenate([self.met_turn, np.zeros((more, n), np.int32)])
            self.met_at = np.concatenate([self.met_at, np.zeros((more, n), np.uint32)])

    def _claimed(self, rows: Sequence[Any]) -> None:
        clip, condition, person, main = self._columns(rows)
        np.add.at(self.taken, (condition[main], clip[main]), 1)
        bits = (1 << condition).astype(np.uint8)
        np.bitwise_or.at(self.has, (person[main], clip[main]), bits[main])
        self.last_condition[person] = condition
        self._meet(rows, clip, bits, person)

    def _given_back(self, rows: Sequence[Any], seen: int) -> None:
        """Seats free again; of those taken and given back since we last looked, only the meeting is new."""
        clip, condition, person, main = self._columns(rows)
        bits = (1 << condition).astype(np.uint8)
        known = main & (np.array([row[6] for row in rows]) <= seen)
        np.subtract.at(self.taken, (condition[known], clip[known]), 1)
        np.bitwise_and.at(self.has, (person[known], clip[known]), ~bits[known])
        self._meet(rows, clip, bits, person)

    def _columns(self, rows: Sequence[Any]) -> tuple[Array, Array, Array, Array]:
        clip = np.array([row[1] for row in rows], np.int64)
        condition = np.array([CONDITIONS.index(row[2]) for row in rows], np.int64)
        person = np.array([self._row_of(row[3]) for row in rows], np.int64)
        main = np.array([row[4] == "main" for row in rows], bool)
        return clip, condition, person, main

    def _meet(self, rows: Sequence[Any], clip: Array, bits: Array, person: Array) -> None:
        # the lead's decisions are no meetings of labellers, and harm nothing: a lead labels nothing
        np.bitwise_or.at(self.met, (person, clip), bits)
        if not self.settings.has_gap:
            return
        for row, c, p in zip(rows, clip, person, strict=True):
            self.turns[p] += 1
            self.met_turn[p, c] = self.turns[p]
            self.met_at[p, c] = min(max(0, int(row[5])), LATEST)  # an imported time may be any

    # --- who may take what ---

    @property
    def num_clips(self) -> int:
        return int(self.needed.shape[1])

    @property
    def seats(self) -> int:
        """All labels that the project asks for."""
        return int(self.needed.sum())

    def open(self, condition: str) -> Array:
        """(n,) bool: a seat is free."""
        i = CONDITIONS.index(condition)
        return np.asarray(self.taken[i] < self.needed[i])

    @property
    def is_full(self) -> bool:
        return bool((self.taken >= self.needed).all())

    @property
    def singles_are_taken(self) -> bool:
        return not any(self.open(c).any() for c in self.settings.single)

    def eligible(self, person: int, condition: str, *, after_singles: bool, now: float) -> Array:
        """(n,) bool: the seats that a person may take in a condition."""
        if self.barred.get(person, 0) & BIT[condition]:
            return np.zeros(self.num_clips, bool)
        free = self.open(condition) & ((self.has[person] & BIT[condition]) == 0)
        if after_singles or not free.any():
            return np.asarray(free)
        if condition == "full" and not self.settings.has_gap:
            return np.zeros(self.num_clips, bool)
        return np.asarray(free & (self._unmet(person, condition) | self._long_ago(person, now)))

    def _unmet(self, person: int, condition: str) -> Array:
        return np.asarray((self.met[person] & (0xFF ^ BIT[condition])) == 0)

    def _long_ago(self, person: int, now: float) -> Array | bool:
        s = self.settings
        if not s.has_gap:
            return False
        others = self.turns[person] - self.met_turn[person]
        days = (now - self.met_at[person]) / DAY_S
        return np.asarray((others >= (s.gap_clips or 0)) & (days >= (s.gap_days or 0.0)))

    def passes(self, person_id: int) -> tuple[str, ...]:
        """The single conditions in the order in which a person takes them."""
        return tuple(sorted(self.settings.single, key=lambda c: key(self.settings.seed, "pass", person_id, c)))

    def order(self, person_id: int, condition: str) -> Array:
        """All clips in a person's random order, (n,) int32; a new clip falls anywhere and moves no other."""
        place = (person_id, condition)
        if place not in self.orders:
            if len(self.orders) >= MAX_ORDERS:
                self.orders.pop(next(iter(self.orders)))
            values = hashes(self.num_clips, key(self.settings.seed, "order", person_id, condition))
            self.orders[place] = np.argsort(values, kind="stable").astype(np.int32)
        return self.orders[place]

    def share(self, person: int, condition: str) -> Array:
        """(n,) bool: the clips at which a person is meant to sit in a single condition."""
        place_of = (person, condition)
        if place_of not in self.shares:
            if self.ranks is None:
                self.ranks = self._ranks()
            mine = np.zeros(self.num_clips, bool)
            if person in self.crew:
                rank = self.ranks[self.crew.index(person)].astype(np.int64)
                there = [self.needed[CONDITIONS.index(c)] > 0 for c in self.settings.single]
                num = np.sum(there, axis=0)  # single conditions that this clip has
                place = np.sum(there[: self.settings.single.index(condition)], axis=0, dtype=np.int64)
                mine = (rank < self.settings.labels_per_clip * num) & (rank % np.maximum(num, 1) == place)
                mine &= there[self.settings.single.index(condition)]
            self.shares[place_of] = np.asarray(mine)
        return self.shares[place_of]

    def _ranks(self) -> Array:
        """(people of the crew, n): at which place of a clip's own order of people each stands."""
        ids = {row: person_id for person_id, row in self.people.items()}
        keys = [key(self.settings.seed, "person", ids[row]) for row in self.crew]
        values = np.stack([hashes(self.num_clips, k) for k in keys]) if keys else np.zeros((0, self.num_clips))
        return np.asarray(values.argsort(axis=0).argsort(axis=0).astype(np.uint16))

    def has_and_left(self, person_id: int, condition: str, now: float) -> tuple[int, int]:
        """How many clips of a condition a person has, and about how many there still are for him."""
        person = self.people[person_id]
        has = int(np.count_nonzero(self.has[person] & BIT[condition]))
        free = self.eligible(person, condition, after_singles=condition == "full", now=now)
        if condition != "full" and (own := int(np.count_nonzero(free & self.share(person, condition)))):
            return has, own
        seats = int(self._free_seats(condition, np.flatnonzero(free)).sum())
        return has, -(-seats // max(len(self.crew), 1))

    # --- whether the rest can be filled ---

    def missing_people(self, clips: Array, *, after: tuple[int, str] | None = None) -> Array:
        """(m,) how many of the free single seats of each clip nobody is left for; ``after`` a person took a seat.

        Without a gap a person takes one seat at a clip, so by Hall's theorem the best filling leaves
        max over sets T of conditions of (free seats in T - people who may take one of them).
        """
        free = {c: self._free_seats(c, clips) for c in self.settings.single}
        able = np.zeros((len(self.crew), len(clips)), np.uint8)
        rows = np.array(self.crew, np.int64)
        met, has = self.met[np.ix_(rows, clips)], self.has[np.ix_(rows, clips)]
        for c in self.settings.single:
            unmet = np.ones_like(met, bool) if self.settings.has_gap else (met & (0xFF ^ BIT[c])) == 0
            may = unmet & ((has & BIT[c]) == 0) & ~self._barred(c)[:, None]
            able |= np.where(may, BIT[c], 0).astype(np.uint8)
        if after is not None:
            person, condition = after
            free[condition] = free[condition] - 1
            able[self.crew.index(person)] = 0
        worst = np.zeros(len(clips), np.int64)
        for group in self._groups():
            bits = sum(BIT[c] for c in group)
            worst = np.maximum(worst, sum(free[c] for c in group) - ((able & bits) != 0).sum(axis=0))
        return np.asarray(worst)

    def _groups(self) -> Iterable[tuple[str, ...]]:
        """The sets of conditions that share people; with a gap none do, everybody may take one seat in each."""
        single = self.settings.single
        sizes = range(1, 2 if self.settings.has_gap else len(single) + 1)
        return [group for size in sizes for group in combinations(single, size)]

    def _barred(self, condition: str) -> Array:
        return np.array([bool(self.barred.get(row, 0) & BIT[condition]) for row in self.crew], bool)

    def _free_seats(self, condition: str, clips: Array) -> Array:
        i = CONDITIONS.index(condition)
        return np.asarray(np.maximum(self.needed[i, clips].astype(np.int64) - self.taken[i, clips], 0))

    def missing_people_anywhere(self) -> int:
        """How many more people the worst clip needs, 0 when the project can end with those who are there."""
        worst = 0
        unfilled = np.zeros(self.num_clips, bool)
        for c in self.settings.single:
            unfilled |= self.open(c)
        clips = np.flatnonzero(unfilled)
        for first in range(0, len(clips), ROWS_AT_ONCE):
            worst = max(worst, int(self.missing_people(clips[first : first + ROWS_AT_ONCE]).max(initial=0)))
        if "full" in self.settings.conditions and self.crew:
            rows = np.array(self.crew, np.int64)[~self._barred("full")]
            able = np.zeros(self.num_clips, np.int64)
            for row in rows:
                able += (self.has[row] & BIT["full"]) == 0
            worst = max(worst, int((self._free_seats("full", np.arange(self.num_clips)) - able).max(initial=0)))
        return worst

    def choose(self, person_id: int, *, after_singles: bool, now: float) -> tuple[str, int] | None:
        """The condition and clip that a person labels next: the pass he is in, his other passes, then what others have
        left, then full clips. ``after_singles``: all single labels are given.
        """
        person = self.people[person_id]
        passes = sorted(self.passes(person_id), key=lambda c: CONDITIONS.index(c) != self.last_condition[person])
        masks = {c: self.eligible(person, c, after_singles=after_singles, now=now) for c in passes}
        for own in (True, False):
            for c in passes:
                mine = masks[c] & (self.share(person, c) == own)
                if (clip := self._first(person_id, c, mine)) is not None:
                    return c, clip
        if "full" in self.settings.conditions:
            full = self.eligible(person, "full", after_singles=after_singles, now=now)
            if (clip := self._first(person_id, "full", full)) is not None:
                return "full", clip
        return None

    def anybody_can_go_on(self, *, after_singles: bool, now: float) -> bool:
        """Whether there is a seat that somebody may take, now or when a gap has passed."""
        for row in self.crew:
            for c in self.settings.conditions:
                free = self.open(c) & ((self.has[row] & BIT[c]) == 0)
                if self.settings.has_gap and not self.barred.get(row, 0) & BIT[c] and free.any():
                    return True
                if self.eligible(row, c, after_singles=after_singles, now=now).any():
                    return True
        return False

    def _first(self, person_id: int, condition: str, mask: Array) -> int | None:
        if not mask.any():
            return None
        order = self.order(person_id, condition)
        return self.harmless(self.people[person_id], condition, order[mask[order]])

    def harmless(self, person: int, condition: str, candidates: Array) -> int | None:
        """The first of these clips at which a person takes nobody's indispensable seat."""
        if condition == "full" or self.settings.has_gap or person not in self.crew:
            return int(candidates[0]) if len(candidates) else None
        first, size = 0, 1
        while first < len(candidates):
            part = candidates[first : first + size]
            fine = self.missing_people(part, after=(person, condition)) <= self.missing_people(part)
            if fine.any():
                return int(part[np.argmax(fine)])
            first, size = first + size, min(size * 8, ROWS_AT_ONCE)
        return None


def gold_order(board: Board, person_id: int, condition: str, attempt: int) -> list[int]:
    """The gold clips of a condition in a person's random order, those he has not met first."""
    clips = board.gold.get(condition, np.zeros(0, np.int64))
    values = hashes(board.num_clips, key(board.settings.seed, "gold", person_id, condition, attempt))[clips]
    met = board.met[board.people[person_id], clips] != 0
    return [int(c) for c in clips[np.lexsort((values, met))]]
