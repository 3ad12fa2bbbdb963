"""What the lead sees and decides: progress, agreement, disagreements, gold, people who are let through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from moodal.annotation.accounts import Person
from moodal.annotation.answers import Answer, answer_of, check_answer
from moodal.annotation.ballots import Ballots, following_ballots
from moodal.annotation.database import Database
from moodal.annotation.overview import Overview, overview
from moodal.annotation.project import clip_numbers, settings_of
from moodal.annotation.protocol import keep_answer
from moodal.annotation.schema import AnswerRow, AssignmentRow, ClipRow, Gold, Project, Qualification
from moodal.annotation.schema import Person as PersonRow
from moodal.annotation.settings import CONDITIONS, SPECIAL
from moodal.types import InputError, unknown

__all__ = [
    "Disagreement",
    "Given",
    "GoldLabel",
    "Overview",
    "adjudicate",
    "decide_qualification",
    "disagreements",
    "gold_from_decisions",
    "num_disagreements",
    "overview",
    "said_of",
    "set_gold",
]


@dataclass(frozen=True, slots=True)
class Given:
    """One label of a clip, by whom."""

    annotator: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A clip whose labels in a condition differ. ``decision``: what the lead said, once he has."""

    clip_id: str
    condition: str
    answers: tuple[Given, ...]
    decision: Answer | None = None


@dataclass(frozen=True, slots=True)
class GoldLabel:
    """A clip whose label in a condition is known."""

    clip_id: str
    condition: str
    label: str


def disagreements(
    db: Database,
    condition: str | None = None,
    *,
    intensity: bool = False,
    decided: bool = False,
    first: int = 0,
    most: int | None = None,
) -> list[Disagreement]:
    """Clips whose labels are complete and differ (in label, or in intensity too). ``decided``: also where the lead has
    spoken. ``first`` and ``most``: a part of them, which costs as much as it holds."""
    with db.read() as session:
        names = dict(session.execute(select(PersonRow.id, PersonRow.name)).all())
        with following_ballots(db, session) as ballots:
            places = _differing(ballots, condition, intensity=intensity, decided=decided)
            found = [
                (clip, i, _given(ballots, names, i, clip), ballots.decided.get((i, clip)))
                for i, clip in places[first : None if most is None else first + most]
            ]
        clips = _names(session, [row[0] for row in found])
    return [Disagreement(clips[clip], CONDITIONS[i], given, decision) for clip, i, given, decision in found]


def num_disagreements(
    db: Database, condition: str | None = None, *, intensity: bool = False, decided: bool = False
) -> int:
    """How many ``disagreements`` there are."""
    with db.read() as session, following_ballots(db, session) as ballots:
        return len(_differing(ballots, condition, intensity=intensity, decided=decided))


def said_of(db: Database, clip_id: str, condition: str) -> Disagreement | None:
    """What people said of one clip, whether they differ or not; None: nobody has said anything."""
    with db.read() as session:
        clip = session.scalar(select(ClipRow.number).where(ClipRow.id == clip_id))
        if clip is None:
            return None
        names = dict(session.execute(select(PersonRow.id, PersonRow.name)).all())
        with following_ballots(db, session) as ballots:
            i = CONDITIONS.index(condition)
            given, decision = _given(ballots, names, i, clip), ballots.decided.get((i, clip))
    return Disagreement(clip_id, condition, given, decision) if given or decision else None


def _differing(ballots: Ballots, condition: str | None, *, intensity: bool, decided: bool) -> list[tuple[int, int]]:
    """(condition, clip) of each, in their order."""
    conditions = ballots.settings.conditions
    if condition is not None and condition not in conditions:
        raise unknown("condition", condition, conditions)
    places = (
        (CONDITIONS.index(c), clip)
        for c in ([condition] if condition else conditions)
        for clip in ballots.differing(c, intensity=intensity).tolist()
    )
    return [place for place in places if decided or place not in ballots.decided]


def _given(ballots: Ballots, names: dict[int, str], i: int, clip: int) -> tuple[Given, ...]:
    return tuple(
        Given(names[int(ballots.person[i, clip, seat])], ballots.answer((i, clip, seat)))
        for seat in range(ballots.settings.labels_per_clip)
        if ballots.label[i, clip, seat] >= 0
    )


def adjudicate(db: Database, lead: Person, clip_id: str, condition: str, answer: Answer) -> None:
    """The lead's word on a clip in a condition; a later one corrects it."""
    _check_lead(lead)
    a = AssignmentRow
    with db.write() as session:
        settings = settings_of(session)
        check_answer(answer, settings)
        if condition not in settings.conditions:
            raise unknown("condition", condition, settings.conditions)
        clip = session.scalar(select(ClipRow.number).where(ClipRow.id == clip_id))
        if clip is None:
            raise InputError(f"there is no clip called {clip_id!r}")
        if not session.scalar(
            select(a.id).where(
                a.clip == clip, a.condition == condition, a.round == "main", a.answer_id.is_not(None)
            ).limit(1)
        ):  # fmt: skip
            raise InputError(f"nobody has labelled {clip_id!r} in {condition} yet; there is nothing to decide")
        row = session.scalar(
            select(a).where(a.clip == clip, a.condition == condition, a.round == "adjudication", a.seat == 0)
        )
        if row is None:
            row = AssignmentRow(
                clip=clip,
                condition=condition,
                round="adjudication",
                seat=0,
                person_id=lead.id,
                claimed_at_s=db.clock(),
            )
            session.add(row)
            session.flush()
        before = session.get(AnswerRow, row.answer_id) if row.answer_id is not None else None
        if before is None or before.person_id != lead.id or not answer_of(before).says_the_same(answer):
            keep_answer(session, row, lead.id, answer, db.clock())


def set_gold(db: Database, lead: Person, gold: Iterable[GoldLabel]) -> int:
    """Add gold labels (all or none); how many are new. A gold clip takes no part in the main round any more."""
    _check_lead(lead)
    with db.write() as session:
        return _set_gold(session, list(gold))


def gold_from_decisions(db: Database, lead: Person) -> int:
    """Make gold of every clip that the lead decided to be one emotion; how many are new."""
    _check_lead(lead)
    with db.write() as session:
        emotions = settings_of(session).emotions
        a = AssignmentRow
        rows = session.execute(
            select(ClipRow.id, a.condition, AnswerRow.label)
            .join(AnswerRow, AnswerRow.id == a.answer_id)
            .join(ClipRow, ClipRow.number == a.clip)
            .where(a.round == "adjudication")
            .order_by(a.id)
        ).all()
        return _set_gold(session, [GoldLabel(*row) for row in rows if row[2] in emotions])


def decide_qualification(db: Database, lead: Person, person_id: int, condition: str, *, passed: bool) -> None:
    """Let a person through, or (not passed) let him try again from the beginning, with the clips in another order."""
    _check_lead(lead)
    with db.write() as session:
        settings = settings_of(session)
        if condition not in settings.conditions:
            raise unknown("condition", condition, settings.conditions)
        if session.get(PersonRow, person_id) is None:
            raise InputError(f"there is no person number {person_id}")
        row = session.get(Qualification, (person_id, condition))
        if row is None:
            row = Qualification(person_id=person_id, condition=condition, attempt=0, state="open")
            session.add(row)
        elif not passed:
            row.attempt += 1
        row.state, row.lead_id = ("passed" if passed else "open"), lead.id


def _set_gold(session: Session, gold: list[GoldLabel]) -> int:
    settings, numbers = settings_of(session), clip_numbers(session)
    there = {(g.clip, g.condition): g for g in session.scalars(select(Gold))}
    new = 0
    for i, said in enumerate(gold, start=1):
        if said.clip_id not in numbers:
            raise InputError(f"gold label {i}: there is no clip called {said.clip_id!r}")
        if said.condition not in settings.conditions:
            raise InputError(f"gold label {i}: {unknown('condition', said.condition, settings.conditions)}")
        if said.label not in settings.labels or said.label in SPECIAL:
            raise InputError(f"gold label {i}: {unknown('emotion', said.label, settings.emotions)}")
        place = (numbers[said.clip_id], said.condition)
        known = there.get(place)
        if known is not None and known.label != said.label:
            raise InputError(f"gold label {i}: {said.clip_id!r} is already {known.label!r} in {said.condition}")
        if known is None:
            there[place] = Gold(clip=place[0], condition=place[1], label=said.label)
            session.add(there[place])
            new += 1
    if new:
        session.get_one(Project, 1).revision += 1
    return new


def _check_lead(person: Person) -> None:
    if not person.is_lead:
        raise InputError("only a lead may decide this")


def _names(session: Session, clips: list[int]) -> dict[int, str]:
    """The names of some clips by their numbers."""
    found: dict[int, str] = {}
    for first in range(0, len(clips), 500):  # as many values as every database takes in one question
        part = clips[first : first + 500]
        found |= dict(session.execute(select(ClipRow.number, ClipRow.id).where(ClipRow.number.in_(part))).all())
    return found
