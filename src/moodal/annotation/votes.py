"""The votes of a project, one by one: read as they stand, and taken in from outside, all or none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session

from moodal.annotation.accounts import checked_name, key_of
from moodal.annotation.answers import Answer, answer_of, check_answer
from moodal.annotation.database import Database
from moodal.annotation.project import clip_numbers, settings_of
from moodal.annotation.schema import AnswerRow, AssignmentRow, ClipRow, Person, Project
from moodal.annotation.settings import AnnotationSettings
from moodal.labels.votes import ROUNDS
from moodal.types import InputError, unknown

ROWS_AT_ONCE = 5000


@dataclass(frozen=True, slots=True)
class Vote:
    """One row of the table of votes. ``where`` names it in a sentence; ``at_s``: None where it is not known."""

    clip: str
    condition: str
    annotator: str
    answer: Answer
    at_s: float | None
    round: str
    where: str = ""


def read_votes_of(session: Session) -> Iterator[Vote]:
    """Every answer that counts, in the order in which clips were dealt."""
    a = AssignmentRow
    rows = (
        select(ClipRow.id, a.condition, Person.name, AnswerRow, a.round)
        .join(AnswerRow, AnswerRow.id == a.answer_id)
        .join(ClipRow, ClipRow.number == a.clip)
        .join(Person, Person.id == AnswerRow.person_id)
        .order_by(a.id)
        .execution_options(yield_per=ROWS_AT_ONCE)
    )
    for clip, condition, annotator, said, round_ in session.execute(rows):
        yield Vote(clip, condition, annotator, answer_of(said), said.at_s, round_)


def keep_votes(db: Database, votes: Iterable[Vote]) -> int:
    """Add votes from outside, all or none. People who are not there yet are added, with their accounts closed."""
    with db.write() as session:
        keeper = _Keeper(session, settings_of(session), db.clock())
        votes = iter(votes)
        while part := list(islice(votes, ROWS_AT_ONCE)):
            keeper.keep(part)
        session.get_one(Project, 1).revision += 1
        return keeper.num


class _Keeper:
    """Checks votes against the project and each other, and writes them."""

    def __init__(self, session: Session, settings: AnnotationSettings, now: float) -> None:
        a = AssignmentRow
        self.session, self.settings, self.now, self.num = session, settings, now, 0
        self.clips = clip_numbers(session)
        self.people = dict(session.execute(select(Person.key, Person.id)).all())
        self.seats: dict[tuple[int, str, str], set[int]] = {}
        self.attempts: dict[tuple[int, str, str, int], int] = {}
        for row in session.execute(select(a.clip, a.condition, a.round, a.person_id, a.seat, a.attempt)):
            self._note(*row)

    def keep(self, votes: list[Vote]) -> None:
        rows = [self._assignment(vote) for vote in votes]
        ids = self._insert(AssignmentRow, rows)
        said = self._insert(AnswerRow, [self._answer(v, r, i) for v, r, i in zip(votes, rows, ids, strict=True)])
        self.session.execute(
            update(AssignmentRow.__table__)  # type: ignore[arg-type]
            .where(AssignmentRow.__table__.c.id == bindparam("row"))
            .values(answer_id=bindparam("said")),
            [{"row": i, "said": s} for i, s in zip(ids, said, strict=True)],
        )
        self.num += len(votes)

    def _insert(self, kind: Any, rows: list[dict[str, Any]]) -> list[int]:
        made = self.session.scalars(insert(kind).returning(kind.id, sort_by_parameter_order=True), rows)
        return list(made)

    def _assignment(self, vote: Vote) -> dict[str, Any]:
        try:
            return self._checked(vote)
        except InputError as e:
            raise InputError(f"{vote.where}: {e}; nothing was imported") from e

    def _checked(self, vote: Vote) -> dict[str, Any]:
        if vote.clip not in self.clips:
            raise InputError(f"there is no clip called {vote.clip!r} here")
        for what, name, known in (
            ("condition", vote.condition, self.settings.conditions),
            ("round", vote.round, ROUNDS),
        ):
            if name not in known:
                raise unknown(what, name, known)
        check_answer(vote.answer, self.settings, complete=False)
        clip, person = self.clips[vote.clip], self._person(vote)
        place = (clip, vote.condition, vote.round)
        attempt = self.attempts.get((*place, person), -1) + 1
        if attempt and vote.round != "qualification":
            raise InputError(f"{vote.annotator} has already labelled {vote.clip} in {vote.condition}")
        seat = None
        if vote.round != "qualification":
            most = self.settings.labels_per_clip if vote.round == "main" else 1
            seat = next((s for s in range(most) if s not in self.seats.get(place, ())), None)
            if seat is None:
                raise InputError(f"{vote.clip} has all its {most} labels in {vote.condition} ({vote.round}) already")
        self._note(*place, person, seat, attempt)
        return {
            "clip": clip,
            "condition": vote.condition,
            "round": vote.round,
            "attempt": attempt,
            "seat": seat,
            "person_id": person,
            "claimed_at_s": self.now if vote.at_s is None else vote.at_s,
        }

    def _note(self, clip: int, condition: str, round_: str, person: int, seat: int | None, attempt: int) -> None:
        if seat is not None:
            self.seats.setdefault((clip, condition, round_), set()).add(seat)
        key = (clip, condition, round_, person)
        self.attempts[key] = max(self.attempts.get(key, -1), attempt)

    def _person(self, vote: Vote) -> int:
        name = checked_name(vote.annotator)
        key = key_of(name)
        if key not in self.people:
            role = "lead" if vote.round == "adjudication" else "annotator"
            row = Person(name=name, key=key, role=role, active=False, created_at_s=self.now)
            self.session.add(row)
            self.session.flush()
            self.people[key] = row.id
        return self.people[key]

    def _answer(self, vote: Vote, row: dict[str, Any], assignment_id: int) -> dict[str, Any]:
        a = vote.answer
        return {
            "assignment_id": assignment_id,
            "person_id": row["person_id"],
            "label": a.label,
            "intensity": a.intensity or None,
            "reason": a.reason or None,
            "comment": a.comment or None,
            "seconds": a.seconds,
            "at_s": row["claimed_at_s"],
        }


def iso(at_s: float) -> str:
    """A time as ISO 8601 in UTC, to the microsecond."""
    return datetime.fromtimestamp(at_s, UTC).isoformat()


def time_of(text: str) -> float:
    """The time that ``iso`` or another ISO 8601 writer wrote; without a zone it is taken for UTC."""
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InputError(f"{text!r} is no time in ISO 8601") from None


def seconds_of(value: Any) -> float | None:
    """A number of seconds; None where the cell is empty."""
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except (ValueError, TypeError, OverflowError):
        raise InputError(f"{value!r} is no number of seconds") from None
    return None if math.isnan(seconds) else seconds
