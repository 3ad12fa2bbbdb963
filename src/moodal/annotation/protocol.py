"""Who labels what, when: the dealing of clips to people, and what they answer. The rules are in ``board.py``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session

from moodal.annotation.accounts import Person
from moodal.annotation.answers import Answer, answer_of, check_answer
from moodal.annotation.board import Board
from moodal.annotation.database import Database
from moodal.annotation.following import following_board
from moodal.annotation.held import free_seat, give_back, give_back_late, pending_of, revive, singles_are_held
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
    "save_and_deal",
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
    if (held := _shown(db, person)) is not None:
        return held
    while True:
        with db.write() as session:
            pending = pending_of(session, person.id)
            if not pending and not give_back_late(session, settings_of(session), db.clock()):
                return _claim(db, session, person.id)
            if pending and pending[0].answer_id is None:
                pending[0].claimed_at_s = db.clock()  # he is here, and may go on with what he held for too long
        if (held := _shown(db, person)) is not None:
            return held


def _shown(db: Database, person: Person) -> Assignment | None:
    """What a person went back to, or holds and not for too long."""
    with db.read() as session:
        pending = pending_of(session, person.id)
        if not pending:
            return None
        with following_board(db, session) as board:
            now = db.clock()
            if pending[0].answer_id is None and pending[0].claimed_at_s <= now - board.settings.hold_minutes * 60:
                return None
            return _assignment(board, session, pending, now)


def save_answer(db: Database, person: Person, assignment_id: int, answer: Answer) -> None:
    """Keep an answer; when this returns, it is on the disk. The same answer twice is one, another one corrects it."""
    with db.write() as session:
        _save(db, session, person, assignment_id, answer)


def save_and_deal(db: Database, person: Person, assignment_id: int, answer: Answer) -> None:
    """``save_answer``, and the clip that is next is his: for who asks for it at once. One wait for the disk, not two.

    The board may follow in a session that has saved an answer, as it follows only who took which seat, and when.
    """
    with db.write() as session:
        row = _save(db, session, person, assignment_id, answer)
        if row.id != assignment_id or pending_of(session, person.id):  # took a seat again just now, or has one
            return
        if not give_back_late(session, settings_of(session), db.clock()):
            with following_board(db, session) as board:
                _deal(db, session, board, person.id)


def _save(db: Database, session: Session, person: Person, assignment_id: int, answer: Answer) -> AssignmentRow:
    settings = settings_of(session)
    check_answer(answer, settings)
    row = session.get(AssignmentRow, assignment_id) or revive(db, session, person.id, assignment_id)
    if row is None or row.person_id != person.id or row.round == "adjudication":
        raise InputError("this clip is not yours to label; go on with the next one")
    before = session.get(AnswerRow, row.answer_id) if row.answer_id is not None else None
    row.reopened_at_s = None
    if before is not None:
        if answer_of(before).says_the_same(answer):
            return row
        _check_correction(session, settings, row)
    keep_answer(session, row, person.id, answer, db.clock())
    if row.round == "qualification":
        evaluate(session, settings, row)
    return row


def undo(db: Database, person: Person) -> Assignment:
    """Go back to the answer before; it counts until another is given. From the first clip of a pass it goes back to the
    last of the pass before, but not from whole clips to single modalities."""
    a = AssignmentRow
    with db.write() as session:
        pending = pending_of(session, person.id)
        last = select(a).where(a.person_id == person.id, a.answer_id.is_not(None), a.reopened_at_s.is_(None))
        if pending:
            last = last.where(a.id < pending[0].id)
        row = session.scalar(last.order_by(a.id.desc()).limit(1))
        if row is None:
            raise InputError("there is nothing to go back to")
        _check_correction(session, settings_of(session), row)
        row.reopened_at_s = db.clock()
    shown = _shown(db, person)
    assert shown is not None
    return shown


def release(db: Database, person: Person) -> None:
    """Give back what ``person`` holds unanswered, and leave what he went back to as it was."""
    a = AssignmentRow
    with db.write() as session:
        held = session.scalars(select(a).where(a.person_id == person.id, a.answer_id.is_(None))).all()
        give_back(session, held, db.clock())
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


def _claim(db: Database, session: Session, person_id: int) -> Assignment | Waiting | Finished:
    with following_board(db, session) as board:
        dealt = _deal(db, session, board, person_id)
        if isinstance(dealt, AssignmentRow):
            return _assignment(board, session, [dealt], db.clock())
        return dealt or why_nothing(
            session, board, person_id, after_singles=_after_singles(session, board), now=db.clock()
        )


def _deal(db: Database, session: Session, board: Board, person_id: int) -> AssignmentRow | Waiting | None:
    """A clip that is now this person's; None: there is none for him."""
    now = db.clock()
    chosen = board.choose(person_id, after_singles=_after_singles(session, board), now=now)
    if chosen is None:
        return None
    condition, clip = chosen
    if not is_passed(session, board.settings, person_id, condition):
        return deal_gold(session, board, person_id, condition, now)
    seat = free_seat(session, board.settings, clip, condition)
    assert seat is not None, "the board has a seat that the database has not"
    row = AssignmentRow(
        clip=clip, condition=condition, round="main", attempt=0, seat=seat, person_id=person_id, claimed_at_s=now
    )
    session.add(row)
    session.flush()
    return row


def _after_singles(session: Session, board: Board) -> bool:
    """Whether every label of a single modality is given."""
    return board.singles_are_taken and not singles_are_held(session)


def _check_correction(session: Session, settings: AnnotationSettings, row: AssignmentRow) -> None:
    """Nobody corrects an answer with what he learned since, or after it was judged."""
    a, back = AssignmentRow, Returned
    of_clip = (a.clip == row.clip, a.condition == row.condition, a.round == "adjudication")
    if row.round == "main" and session.scalar(select(exists().where(*of_clip))):
        raise InputError("the lead has decided this clip; its labels stay as they are")
    since = (a.person_id == row.person_id, a.id > row.id)
    back_since = (back.person_id == row.person_id, back.assignment_id > row.id)  # seen, though not answered
    met = exists().where(*since, a.clip == row.clip) | exists().where(*back_since, back.clip == row.clip)
    if session.scalar(select(met)):
        raise InputError("you have met this clip in another form since; its label stays as it is")
    whole = exists().where(*since, a.condition == "full") | exists().where(*back_since, back.condition == "full")
    if row.condition != "full" and not settings.has_gap and session.scalar(select(whole)):
        raise InputError("you have seen whole clips since; what you said of sound, picture or words stays as it is")
    if row.round == "qualification" and not is_open(session, row.person_id, row.condition, row.attempt):
        raise InputError("this qualification is over; its answers stay as they are")


def _assignment(board: Board, session: Session, pending: list[AssignmentRow], now: float) -> Assignment:
    """The first of what is pending, as it is shown."""
    row = pending[0]
    clip = session.get_one(ClipRow, row.clip)
    text = (clip.text or None) if row.condition in SHOWS_WORDS else None
    shown = replace(_clip(clip), text=text)
    said = session.get(AnswerRow, row.answer_id) if row.answer_id is not None else None
    done, total = _done_and_total(board, session, pending, now)
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


def _done_and_total(board: Board, session: Session, pending: list[AssignmentRow], now: float) -> tuple[int, int]:
    """Answered clips of this pass (not those he went back to), and how many it will have for this person."""
    a, row = AssignmentRow, pending[0]
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
    seen = [p for p in pending if p.id <= board.last_assignment]
    return has - sum((p.round, p.condition) == (row.round, row.condition) for p in seen), has + left
