"""Seats that somebody has and has not answered: found, given back when their time is up, and taken up again."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, exists, select, union_all
from sqlalchemy.orm import Session

from moodal.annotation.database import Database
from moodal.annotation.following import following_board
from moodal.annotation.project import settings_of
from moodal.annotation.qualification import is_open
from moodal.annotation.schema import AssignmentRow, Returned
from moodal.annotation.settings import AnnotationSettings
from moodal.types import InputError

PENDING = select(AssignmentRow).where(  # two small indexes hold these, whatever a person has done
    AssignmentRow.id.in_(
        union_all(
            select(AssignmentRow.id).where(
                AssignmentRow.person_id == bindparam("person"),
                AssignmentRow.answer_id.is_(None),
                AssignmentRow.claimed_at_s >= 0,  # always so; it makes SQLite see that ix_assignment_held fits
            ),
            select(AssignmentRow.id).where(
                AssignmentRow.person_id == bindparam("person"), AssignmentRow.reopened_at_s.is_not(None)
            ),
        )
    )
)


def pending_of(session: Session, person_id: int) -> list[AssignmentRow]:
    """What a person went back to (the earliest first), then what he holds."""
    rows = session.scalars(PENDING, {"person": person_id})
    return sorted(rows, key=lambda row: (row.reopened_at_s is None, row.id))


def free_seat(session: Session, settings: AnnotationSettings, clip: int, condition: str) -> int | None:
    """The lowest free seat; None where all are taken."""
    a = AssignmentRow
    taken = set(session.scalars(select(a.seat).where(a.clip == clip, a.condition == condition, a.round == "main")))
    return next((seat for seat in range(settings.labels_per_clip) if seat not in taken), None)


def singles_are_held(session: Session) -> bool:
    """Whether anybody has a clip in a single modality and has not answered."""
    a = AssignmentRow
    held = exists().where(a.answer_id.is_(None), a.round == "main", a.condition != "full")
    return bool(session.scalar(select(held)))


def give_back_late(session: Session, settings: AnnotationSettings, now: float) -> bool:
    """Free what anybody has held for too long; whether there was any. It must be a write of its own: the board follows
    what is committed."""
    a = AssignmentRow
    too_old = now - settings.hold_minutes * 60
    late = session.scalars(select(a).where(a.answer_id.is_(None), a.claimed_at_s <= too_old)).all()
    give_back(session, late, now)
    return bool(late)


def give_back(session: Session, rows: Sequence[AssignmentRow], now: float) -> None:
    """Their seats are free again; that their people have met the clips is kept."""
    for row in rows:
        session.add(
            Returned(
                assignment_id=row.id,
                clip=row.clip,
                condition=row.condition,
                round=row.round,
                attempt=row.attempt,
                person_id=row.person_id,
                claimed_at_s=row.claimed_at_s,
                returned_at_s=now,
            )
        )
    if rows:
        session.execute(delete(AssignmentRow).where(AssignmentRow.id.in_([row.id for row in rows])))


def revive(db: Database, session: Session, person_id: int, assignment_id: int) -> AssignmentRow | None:
    """The assignment of somebody who answers after his time was up, where nobody else has taken the seat."""
    returned = session.scalar(
        select(Returned).where(Returned.assignment_id == assignment_id, Returned.person_id == person_id)
    )
    if returned is None:
        return None
    if returned.revived_id is not None:
        return session.get(AssignmentRow, returned.revived_id)
    settings = settings_of(session)
    seat = None
    if returned.round == "main":
        with following_board(db, session) as board:
            row = board.people[person_id]
            after = board.singles_are_taken and not singles_are_held(session)
            mine = board.eligible(row, returned.condition, after_singles=after, now=db.clock())
        seat = free_seat(session, settings, returned.clip, returned.condition) if mine[returned.clip] else None
        if seat is None:
            raise InputError("you had this clip for too long and it is not yours any more; go on with the next one")
    elif not is_open(session, person_id, returned.condition, returned.attempt):
        raise InputError("this qualification is over; go on with the next clip")
    revived = AssignmentRow(
        clip=returned.clip,
        condition=returned.condition,
        round=returned.round,
        attempt=returned.attempt,
        seat=seat,
        person_id=person_id,
        claimed_at_s=db.clock(),
    )
    session.add(revived)
    session.flush()
    returned.revived_id = revived.id
    return revived
