"""Who labels what, when: the dealing of clips to people, and what they answer. The rules are in ``board.py``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import bindparam, delete, exists, func, select, union_all, update
from sqlalchemy.orm import Session

from moodal.annotation.accounts import Person
from moodal.annotation.answers import Answer, answer_of, check_answer
from moodal.annotation.board import Board
from moodal.annotation.database import Database
from moodal.annotation.following import following_board
from moodal.annotation.project import prepare, project_settings, settings_of
from moodal.annotation.qualification import deal_gold, evaluate, is_open, is_passed
from moodal.annotation.schema import AnswerRow, AssignmentRow, ClipRow, Returned
from moodal.annotation.settings import AnnotationSettings
from moodal.annotation.waiting import Finished, Waiting, why_nothing
from moodal.data.clips import Clip
from moodal.types import InputError

__all__ = [
    "Answer",
    "Assignment",
    "Finished",
    "Progress",
    "Waiting",
    "next_assignment",
    "prepare",
    "progress",
    "project_settings",
    "release",
    "save_answer",
    "undo",
]
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
SHOWS_WORDS = ("text", "full")


@dataclass(frozen=True, slots=True)
class Assignment:
    """A clip that a person is to label in a condition.

    ``clip`` and ``text`` hold words only where the condition shows them. ``round``: "qualification" or "main".
    ``done`` of ``total`` clips of this pass are answered; in the main round the total is an estimate, as long as others
    may take some of them. ``previous`` is what the person said before going back.
    """

    id: int
    clip_id: str
    clip: Clip
    condition: str
    round: str
    done: int
    total: int
    text: str | None
    duration_s: float
    previous: Answer | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How many labels a person has given in the main round, by condition, and how many the project asks for in all."""

    given: dict[str, int]
    total: int
    seats: int


def next_assignment(db: Database, person: Person) -> Assignment | Waiting | Finished:
    """What ``person`` labels next: what he went back to or holds already, else a clip that is now his."""
    if person.role != "annotator":
        raise InputError("a lead decides and does not label; invite an annotator")
    if (held := _shown(db, person)) is not None:
        return held
    while True:
        with db.write() as session:
            row = _current(session, person.id)
            if row is None and not _give_back_late(db, session):
                return _claim(db, session, person.id)
            if row is not None and row.answer_id is None:
                row.claimed_at_s = db.clock()  # he is here, and may go on with what he held for too long
        if (held := _shown(db, person)) is not None:
            return held


def _shown(db: Database, person: Person) -> Assignment | None:
    """What a person went back to, or holds and not for too long."""
    with db.read() as session:
        row = _current(session, person.id)
        if row is None:
            return None
        with following_board(db, session) as board:
            now = db.clock()
            if row.answer_id is None and row.claimed_at_s <= now - board.settings.hold_minutes * 60:
                return None
            return _assignment(board, session, row, now)


def save_answer(db: Database, person: Person, assignment_id: int, answer: Answer) -> None:
    """Keep an answer; when this returns, it is on the disk. The same answer twice is one, another one corrects it."""
    with db.write() as session:
        settings = settings_of(session)
        check_answer(answer, settings)
        row = session.get(AssignmentRow, assignment_id) or _revive(db, session, person.id, assignment_id)
        if row is None or row.person_id != person.id or row.round == "adjudication":
            raise InputError("this clip is not yours to label; go on with the next one")
        before = session.get(AnswerRow, row.answer_id) if row.answer_id is not None else None
        row.reopened_at_s = None
        if before is not None:
            if answer_of(before).says_the_same(answer):
                return
            _check_correction(session, row)
        keep_answer(session, row, person.id, answer, db.clock())
        if row.round == "qualification":
            evaluate(session, settings, row)


def undo(db: Database, person: Person) -> Assignment:
    """Go back to the last answered clip of this pass; its answer counts until another is given."""
    a = AssignmentRow
    with db.write() as session:
        current = _current(session, person.id)
        last = select(a).where(a.person_id == person.id, a.answer_id.is_not(None), a.reopened_at_s.is_(None))
        if current is not None:
            last = last.where(a.id < current.id)
        row = session.scalar(last.order_by(a.id.desc()).limit(1))
        if row is None or (current is not None and (row.condition, row.round) != (current.condition, current.round)):
            raise InputError("there is nothing to go back to in this pass")
        _check_correction(session, row)
        row.reopened_at_s = db.clock()
    with db.read() as session, following_board(db, session) as board:
        return _assignment(board, session, row, db.clock())


def release(db: Database, person: Person) -> None:
    """Give back what ``person`` holds unanswered, and leave what he went back to as it was."""
    a = AssignmentRow
    with db.write() as session:
        held = session.scalars(select(a).where(a.person_id == person.id, a.answer_id.is_(None))).all()
        _give_back(session, list(held), db.clock())
        session.execute(
            update(a).where(a.person_id == person.id, a.reopened_at_s.is_not(None)).values(reopened_at_s=None)
        )


def progress(db: Database, person: Person) -> Progress:
    """How far ``person`` is."""
    a = AssignmentRow
    with db.read() as session:
        rows = session.execute(
            select(a.condition, func.count())
            .where(a.person_id == person.id, a.round == "main", a.answer_id.is_not(None))
            .group_by(a.condition)
        ).all()
        given = dict(rows)
        with following_board(db, session) as board:
            conditions, seats = board.settings.conditions, board.seats
    return Progress({c: given.get(c, 0) for c in conditions}, sum(given.values()), seats)


def keep_answer(session: Session, row: AssignmentRow, person_id: int, answer: Answer, now: float) -> None:
    """Add an answer, which counts from now on."""
    said = AnswerRow(
        assignment_id=row.id,
        person_id=person_id,
        label=answer.label,
        intensity=answer.intensity or None,
        reason=answer.reason or None,
        comment=answer.comment or None,
        seconds=answer.seconds,
        at_s=round(now, 6),  # what a written time can say
    )
    session.add(said)
    session.flush()
    row.answer_id = said.id


def _current(session: Session, person_id: int) -> AssignmentRow | None:
    """What a person went back to (the earliest first), else what he holds."""
    rows = session.scalars(PENDING, {"person": person_id}).all()
    return min(rows, key=lambda row: (row.reopened_at_s is None, row.id), default=None)


def _claim(db: Database, session: Session, person_id: int) -> Assignment | Waiting | Finished:
    with following_board(db, session) as board:
        after = board.singles_are_taken and not _singles_are_held(session)
        now = db.clock()
        chosen = board.choose(person_id, after_singles=after, now=now)
        if chosen is None:
            return why_nothing(session, board, person_id, after_singles=after, now=now)
        condition, clip = chosen
        if not is_passed(session, board.settings, person_id, condition):
            row = deal_gold(session, board, person_id, condition, now)
            return row if isinstance(row, Waiting) else _assignment(board, session, row, now)
        row = AssignmentRow(
            clip=clip,
            condition=condition,
            round="main",
            attempt=0,
            seat=_free_seat(session, board.settings, clip, condition),
            person_id=person_id,
            claimed_at_s=now,
        )
        session.add(row)
        session.flush()
        return _assignment(board, session, row, now)


def _free_seat(session: Session, settings: AnnotationSettings, clip: int, condition: str) -> int | None:
    """The lowest free seat; None where all are taken."""
    a = AssignmentRow
    taken = set(session.scalars(select(a.seat).where(a.clip == clip, a.condition == condition, a.round == "main")))
    return next((seat for seat in range(settings.labels_per_clip) if seat not in taken), None)


def _singles_are_held(session: Session) -> bool:
    a = AssignmentRow
    held = exists().where(a.answer_id.is_(None), a.round == "main", a.condition != "full")
    return bool(session.scalar(select(held)))


def _give_back_late(db: Database, session: Session) -> bool:
    """Free what anybody has held for too long; whether there was any. It must be a write of its own: the board follows
    what is committed."""
    a, now = AssignmentRow, db.clock()
    too_old = now - settings_of(session).hold_minutes * 60
    late = session.scalars(select(a).where(a.answer_id.is_(None), a.claimed_at_s <= too_old)).all()
    _give_back(session, list(late), now)
    return bool(late)


def _give_back(session: Session, rows: list[AssignmentRow], now: float) -> None:
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


def _revive(db: Database, session: Session, person_id: int, assignment_id: int) -> AssignmentRow | None:
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
            after = board.singles_are_taken and not _singles_are_held(session)
            mine = board.eligible(row, returned.condition, after_singles=after, now=db.clock())
        seat = _free_seat(session, settings, returned.clip, returned.condition) if mine[returned.clip] else None
        if seat is None:
            raise InputError("you had this clip for too long and it went to somebody else; go on with the next one")
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


def _check_correction(session: Session, row: AssignmentRow) -> None:
    """Nobody corrects an answer with what he learned since, or after it was judged."""
    a = AssignmentRow
    of_clip = (a.clip == row.clip, a.condition == row.condition, a.round == "adjudication")
    if row.round == "main" and session.scalar(select(exists().where(*of_clip))):
        raise InputError("the lead has decided this clip; its labels stay as they are")
    if session.scalar(select(exists().where(a.clip == row.clip, a.person_id == row.person_id, a.id > row.id))):
        raise InputError("you have met this clip in another form since; its label stays as it is")
    if row.round == "qualification" and not is_open(session, row.person_id, row.condition, row.attempt):
        raise InputError("this qualification is over; its answers stay as they are")


def _assignment(board: Board, session: Session, row: AssignmentRow, now: float) -> Assignment:
    clip = session.get_one(ClipRow, row.clip)
    text = (clip.text or None) if row.condition in SHOWS_WORDS else None
    shown = replace(_clip(clip), text=text)
    said = session.get(AnswerRow, row.answer_id) if row.answer_id is not None else None
    done, total = _done_and_total(board, session, row, now)
    return Assignment(
        id=row.id,
        clip_id=clip.id,
        clip=shown,
        condition=row.condition,
        round=row.round,
        done=done,
        total=total,
        text=text,
        duration_s=shown.duration_s,
        previous=answer_of(said) if said else None,
    )


def _clip(row: ClipRow) -> Clip:
    return Clip(
        id=row.id,
        video=row.video,
        episode=row.episode,
        start_s=row.start_s,
        end_s=row.end_s,
        text=row.text,
        speaker=row.speaker,
        passed=True,
    )


def _done_and_total(board: Board, session: Session, row: AssignmentRow, now: float) -> tuple[int, int]:
    """Answered clips of this pass (not those he went back to), and how many it will have for this person."""
    a = AssignmentRow
    if row.round == "qualification":
        answered = select(func.count()).where(
            a.person_id == row.person_id,
            a.round == row.round,
            a.condition == row.condition,
            a.attempt == row.attempt,
            a.answer_id.is_not(None),
            a.reopened_at_s.is_(None),
        )
        return session.scalar(answered) or 0, board.settings.qualification
    has, left = board.has_and_left(row.person_id, row.condition, now)
    seen = [p for p in session.scalars(PENDING, {"person": row.person_id}) if p.id <= board.last_assignment]
    return has - sum((p.round, p.condition) == (row.round, row.condition) for p in seen), has + left
