"""Who labels what, when: the dealing of clips to people, and what they answer. The rules are in ``board.py``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import Exists, delete, exists, func, select, update
from sqlalchemy.orm import Session

from moodal.annotation.accounts import Person
from moodal.annotation.answers import Answer, answer_of, check_answer
from moodal.annotation.board import following_board
from moodal.annotation.database import Database
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
    with db.read() as session:
        settings, now = settings_of(session), db.clock()
        row = _current(session, person.id)
        if row is not None and row.claimed_at_s > now - settings.hold_minutes * 60:
            return _assignment(db, session, row)
        late = session.scalar(select(_is_late(settings, now, person.id)))
    if late:
        _give_back_late(db, person.id)
    with db.write() as session:
        dealt = _current(session, person.id) or _claim(db, session, person.id)
        if isinstance(dealt, Waiting | Finished):
            return dealt
        if dealt.answer_id is None:
            dealt.claimed_at_s = db.clock()  # he is here, and may go on with what he held for too long
    with db.read() as session:
        return _assignment(db, session, dealt)


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
    with db.read() as session:
        return _assignment(db, session, row)


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
        ).tuples()
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
        at_s=now,
    )
    session.add(said)
    session.flush()
    row.answer_id = said.id


def _current(session: Session, person_id: int) -> AssignmentRow | None:
    """What a person went back to (the earliest first), else what he holds."""
    a = AssignmentRow
    mine = select(a).where(a.person_id == person_id, a.round != "adjudication").order_by(a.id).limit(1)
    reopened = session.scalar(mine.where(a.reopened_at_s.is_not(None)))
    return reopened or session.scalar(mine.where(a.answer_id.is_(None)))


def _claim(db: Database, session: Session, person_id: int) -> AssignmentRow | Waiting | Finished:
    with following_board(db, session) as board:
        after = board.singles_are_taken and not _singles_are_held(session)
        now = db.clock()
        last = session.scalar(
            select(AssignmentRow.condition)
            .where(AssignmentRow.person_id == person_id)
            .order_by(AssignmentRow.id.desc())
            .limit(1)
        )
        chosen = board.choose(person_id, last=last, after_singles=after, now=now)
        if chosen is None:
            return why_nothing(session, board, person_id, after_singles=after, now=now)
        condition, clip = chosen
        if not is_passed(session, board.settings, person_id, condition):
            return deal_gold(session, board, person_id, condition, now)
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
    return row


def _free_seat(session: Session, settings: AnnotationSettings, clip: int, condition: str) -> int | None:
    """The lowest free seat; None where all are taken."""
    a = AssignmentRow
    taken = set(session.scalars(select(a.seat).where(a.clip == clip, a.condition == condition, a.round == "main")))
    return next((seat for seat in range(settings.labels_per_clip) if seat not in taken), None)


def _singles_are_held(session: Session) -> bool:
    a = AssignmentRow
    held = exists().where(a.answer_id.is_(None), a.round == "main", a.condition != "full")
    return bool(session.scalar(select(held)))


def _is_late(settings: AnnotationSettings, now: float, person_id: int) -> Exists:
    a = AssignmentRow
    too_old = now - settings.hold_minutes * 60
    return exists().where(a.answer_id.is_(None), a.claimed_at_s <= too_old, a.person_id != person_id)


def _give_back_late(db: Database, person_id: int) -> None:
    """Free what others have held for too long; a write of its own, so that the board sees it done."""
    a = AssignmentRow
    with db.write() as session:
        now = db.clock()
        too_old = now - settings_of(session).hold_minutes * 60
        late = select(a).where(a.answer_id.is_(None), a.claimed_at_s <= too_old, a.person_id != person_id)
        _give_back(session, list(session.scalars(late)), now)


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


def _assignment(db: Database, session: Session, row: AssignmentRow) -> Assignment:
    clip = session.get_one(ClipRow, row.clip)
    text = (clip.text or None) if row.condition in SHOWS_WORDS else None
    shown = replace(_clip(clip), text=text)
    said = session.get(AnswerRow, row.answer_id) if row.answer_id is not None else None
    done, total = _done_and_total(db, session, row)
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


def _done_and_total(db: Database, session: Session, row: AssignmentRow) -> tuple[int, int]:
    """Answered clips of this pass (not those he went back to), and how many it will have for this person."""
    a = AssignmentRow
    of_pass = (a.person_id == row.person_id, a.round == row.round, a.condition == row.condition)
    with following_board(db, session) as board:
        if row.round == "qualification":
            answered = (*of_pass, a.attempt == row.attempt, a.answer_id.is_not(None), a.reopened_at_s.is_(None))
            return session.scalar(select(func.count()).where(*answered)) or 0, board.settings.qualification
        has, left = board.has_and_left(row.person_id, row.condition, db.clock())
    held = session.scalar(select(func.count()).where(*of_pass, a.answer_id.is_(None))) or 0
    reopened = session.scalar(select(func.count()).where(*of_pass, a.reopened_at_s.is_not(None))) or 0
    return has - held - reopened, has + left
