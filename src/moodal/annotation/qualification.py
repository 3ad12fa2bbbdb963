"""Before a person's labels count in a condition, he answers gold clips in it, whose labels are known."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from moodal.annotation.board import Board, gold_order
from moodal.annotation.schema import AnswerRow, AssignmentRow, Gold, Qualification
from moodal.annotation.settings import AnnotationSettings
from moodal.annotation.waiting import Waiting


def is_passed(session: Session, settings: AnnotationSettings, person_id: int, condition: str) -> bool:
    """Whether a person may label in a condition."""
    if not settings.qualification:
        return True
    row = session.get(Qualification, (person_id, condition))
    return row is not None and row.state == "passed"


def is_open(session: Session, person_id: int, condition: str, attempt: int) -> bool:
    """Whether this attempt still goes on."""
    row = session.get(Qualification, (person_id, condition))
    return row is not None and row.state == "open" and row.attempt == attempt


def deal_gold(session: Session, board: Board, person_id: int, condition: str, now: float) -> AssignmentRow | Waiting:
    """The next gold clip of a person who is not through yet."""
    asked = board.settings.qualification
    if len(board.gold.get(condition, ())) < asked:
        return Waiting(
            "qualification",
            f"You first answer {asked} clips whose labels are known, and there are too few of them for {condition}; "
            "ask your lead to add gold clips, or to let you through.",
        )
    row = session.get(Qualification, (person_id, condition))
    if row is None:
        row = Qualification(person_id=person_id, condition=condition, attempt=0, state="open")
        session.add(row)
    had = {a.clip for a in session.scalars(_of_attempt(person_id, condition, row.attempt))}
    clip = next(c for c in gold_order(board, person_id, condition, row.attempt) if c not in had)
    assignment = AssignmentRow(
        clip=clip,
        condition=condition,
        round="qualification",
        attempt=row.attempt,
        seat=None,
        person_id=person_id,
        claimed_at_s=now,
    )
    session.add(assignment)
    session.flush()
    return assignment


def evaluate(session: Session, settings: AnnotationSettings, last: AssignmentRow) -> None:
    """Decide an attempt once all its gold clips are answered."""
    row = session.get_one(Qualification, (last.person_id, last.condition))
    if row.state != "open" or row.attempt != last.attempt:
        return
    session.flush()
    said = session.execute(
        select(AnswerRow.label, Gold.label)
        .join(AssignmentRow, AssignmentRow.answer_id == AnswerRow.id)
        .outerjoin(Gold, (Gold.clip == AssignmentRow.clip) & (Gold.condition == AssignmentRow.condition))
        .where(
            AssignmentRow.person_id == last.person_id,
            AssignmentRow.condition == last.condition,
            AssignmentRow.round == "qualification",
            AssignmentRow.attempt == last.attempt,
        )
    ).all()
    if len(said) < settings.qualification:
        return
    right = sum(answer == gold for answer, gold in said)
    row.state = "passed" if right >= settings.qualification_share * len(said) - 1e-9 else "failed"


def _of_attempt(person_id: int, condition: str, attempt: int):  # type: ignore[no-untyped-def]
    a = AssignmentRow
    return select(a).where(
        a.person_id == person_id, a.condition == condition, a.round == "qualification", a.attempt == attempt
    )
