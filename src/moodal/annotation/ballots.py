"""What people said so far, as arrays that follow the database: answers are only ever added, so each is read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import select
from sqlalchemy.orm import Session

from moodal.annotation.answers import Answer
from moodal.annotation.database import Database
from moodal.annotation.following import following_board
from moodal.annotation.schema import AnswerRow, AssignmentRow
from moodal.annotation.settings import CONDITIONS, AnnotationSettings

Array = npt.NDArray[Any]
ROWS_AT_ONCE = 20_000


class Ballots:
    """The labels of the main round that count, (4 conditions, n clips, k seats): -1 where nothing is said.

    ``person`` holds their ids, ``at_s`` when a label was last given, ``seconds`` how long it took (NaN: not known).
    """

    def __init__(self, settings: AnnotationSettings, num_clips: int, revision: int) -> None:
        shape = (len(CONDITIONS), num_clips, settings.labels_per_clip)
        self.settings, self.revision, self.last = settings, revision, 0
        self.label, self.intensity = np.full(shape, -1, np.int8), np.full(shape, -1, np.int8)
        self.person, self.at_s = np.full(shape, -1, np.int32), np.zeros(shape)
        self.seconds = np.full(shape, np.nan, np.float32)
        self.decided: dict[tuple[int, int], Answer] = {}  # (condition, clip) -> the lead's word
        self.corrected: dict[int, int] = {}  # by person, how many labels were changed afterwards
        self.words: dict[tuple[int, int, int], tuple[str | None, str | None]] = {}  # reason and comment of a label

    def refresh(self, session: Session) -> None:
        """Take in the answers since the last time."""
        a, said = AssignmentRow, AnswerRow
        rows = (
            select(said.id, a.clip, a.condition, a.seat, a.person_id, a.round, said.label, said.intensity,
                   said.seconds, said.at_s, said.reason, said.comment)
            .join(a, a.id == said.assignment_id)
            .where(said.id > self.last, a.round != "qualification")
            .order_by(said.id)
        )  # fmt: skip
        for part in session.execute(rows, execution_options={"yield_per": ROWS_AT_ONCE}).partitions():
            self._take([row for row in part if row.round == "main"])
            for row in part:
                if row.round == "adjudication":
                    answer = Answer(row.label, row.intensity, row.reason, row.comment, row.seconds)
                    self.decided[CONDITIONS.index(row.condition), row.clip] = answer
            self.last = part[-1].id

    def _take(self, rows: Sequence[Any]) -> None:
        labels = {name: i for i, name in enumerate(self.settings.labels)}
        strengths = {name: i for i, name in enumerate(self.settings.intensities)}
        for row in rows:
            place = (CONDITIONS.index(row.condition), row.clip, row.seat)
            if self.label[place] >= 0:
                self.corrected[row.person_id] = self.corrected.get(row.person_id, 0) + 1
            self.label[place] = labels[row.label]
            self.intensity[place] = strengths.get(row.intensity, -1)
            self.person[place], self.at_s[place] = row.person_id, row.at_s
            self.seconds[place] = np.nan if row.seconds is None else row.seconds
            if row.reason or row.comment:
                self.words[place] = (row.reason, row.comment)
            else:
                self.words.pop(place, None)

    def snapshot(self) -> Ballots:
        """A copy that stands still."""
        still = copy(self)
        for name in ("label", "intensity", "person", "at_s", "seconds", "decided", "corrected", "words"):
            setattr(still, name, getattr(self, name).copy())
        return still

    def answer(self, place: tuple[int, int, int]) -> Answer:
        """What was said at (condition, clip, seat)."""
        seconds, strength = float(self.seconds[place]), int(self.intensity[place])
        return Answer(
            self.settings.labels[self.label[place]],
            self.settings.intensities[strength] if strength >= 0 else None,
            *self.words.get(place, (None, None)),
            None if np.isnan(seconds) else seconds,
        )

    def counts(self, condition: str) -> Array:
        """(n, L) how many votes each clip has for each label."""
        said = self.label[CONDITIONS.index(condition)]
        return np.stack([(said == i).sum(axis=1) for i in range(len(self.settings.labels))], axis=1)

    def differing(self, condition: str, *, intensity: bool) -> Array:
        """The clips that have all labels in a condition, and not all the same."""
        i = CONDITIONS.index(condition)
        said = self.label[i].astype(np.int64)
        if intensity:
            said = said * 100 + self.intensity[i]
        complete = (self.label[i] >= 0).all(axis=1)
        return np.flatnonzero(complete & (said != said[:, :1]).any(axis=1))

    def consensus(self, condition: str) -> Array:
        """(n,) the lead's word, else the label with most votes; -1 where two have as many, or there is none."""
        counts = self.counts(condition)
        most = counts.max(axis=1, keepdims=True, initial=0)
        clear = (most[:, 0] > 0) & ((counts == most).sum(axis=1) == 1)
        found = np.where(clear, counts.argmax(axis=1), -1)
        for (i, clip), answer in self.decided.items():
            if CONDITIONS[i] == condition:
                found[clip] = self.settings.labels.index(answer.label)
        return found


@contextmanager
def following_ballots(db: Database, session: Session) -> Iterator[Ballots]:
    """The ballots of a database, brought up to what ``session`` sees, for this thread alone; before it writes."""
    with following_board(db, session) as board:
        ballots = db.memory.get("ballots")
        if not isinstance(ballots, Ballots) or ballots.revision != board.revision:
            ballots = db.memory["ballots"] = Ballots(board.settings, board.num_clips, board.revision)
        ballots.refresh(session)
        yield ballots
