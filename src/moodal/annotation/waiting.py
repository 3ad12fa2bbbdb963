"""Why there is nothing to label, in a sentence that says what would help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from moodal.annotation.board import BIT, DAY_S, Board
from moodal.annotation.schema import AssignmentRow

AWAITED = 5  # names in a sentence


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing for now. ``reason``: "others", "people", "gap" or "qualification"; ``sentence`` says what would help."""

    reason: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Every label of the project is given."""

    sentence: str = "Everything is labelled. Thank you!"


def why_nothing(
    session: Session, board: Board, person_id: int, *, after_singles: bool, now: float
) -> Waiting | Finished:
    """What to tell somebody for whom ``Board.choose`` found nothing."""
    person = board.people[person_id]
    held = bool(
        session.scalar(select(exists().where(AssignmentRow.answer_id.is_(None), AssignmentRow.round == "main")))
    )
    if not board.num_clips:
        return Waiting("others", "There are no clips yet; your lead has to add some.")
    if board.is_full:
        return Waiting("others", "The last clips are with other people; come back in a while.") if held else Finished()
    if failed := [c for c in board.settings.conditions if board.barred.get(person, 0) & BIT[c]]:
        return Waiting(
            "qualification",
            f"Too few of your answers to the known clips ({' and '.join(failed)}) were right; talk to your lead, who "
            "can let you through or let you try again.",
        )
    if (sentence := _gap_sentence(board, person, now)) is not None:
        return Waiting("gap", sentence)
    if not held and not board.anybody_can_go_on(after_singles=after_singles, now=now):
        return Waiting("people", shortage(board) or "Nobody may label what is left; talk to your lead.")
    return Waiting("others", "Nothing for you just now: what is left is for other people first. Come back in a while.")


def shortage(board: Board) -> str | None:
    """Why the project cannot end with the people it has, and the way out; None: it can."""
    missing = board.missing_people_anywhere()
    if not missing:
        return None
    s = board.settings
    needed = s.labels_per_clip * (1 if s.has_gap else max(len(s.single), 1))
    gap = "" if s.has_gap else ", or set a gap after which people may meet a clip again in another condition"
    people = "1 more person" if missing == 1 else f"{missing} more people"
    return (
        f"Not every clip can get its {s.labels_per_clip} labels in each condition from different people: that takes "
        f"{needed} people, and some clips have too few left; invite {people}{gap}."
    )


def awaited(board: Board, names: Mapping[int, str], *, after_singles: bool, now: float) -> str | None:
    """For the lead: for whom all that is left now waits, where more than half have nothing to do; None: they have."""
    ids = {row: person_id for person_id, row in board.people.items()}
    able = [
        names[ids[row]]
        for row in board.crew
        if any(board.eligible(row, c, after_singles=after_singles, now=now).any() for c in board.settings.conditions)
    ]
    if not able or 2 * len(able) > len(board.crew):
        return None
    who = f"{', '.join(able[:AWAITED])} and {len(able) - AWAITED} others" if len(able) > AWAITED else ", ".join(able)
    return (
        f"What is left now is only for {who}; the others wait. If somebody does not come back, close that account: "
        "then this page says how many people to invite."
    )


def _gap_sentence(board: Board, person: int, now: float) -> str | None:
    """When a person may go on who only waits for a gap to pass."""
    s = board.settings
    if not s.has_gap:
        return None
    soon = np.zeros(board.num_clips, bool)
    for c in s.conditions:
        if not board.barred.get(person, 0) & BIT[c]:
            soon |= board.open(c) & ((board.has[person] & BIT[c]) == 0)
    if not soon.any():
        return None
    others = board.turns[person] - board.met_turn[person][soon]
    ready = others >= (s.gap_clips or 0)
    if not ready.any():
        return (
            f"What is left you met less than {s.gap_clips} clips ago, and there is nothing else; "
            "your lead can set a smaller gap_clips or invite another person."
        )
    first = float(board.met_at[person][soon][ready].min()) + (s.gap_days or 0.0) * DAY_S
    when = datetime.fromtimestamp(max(first, now), UTC).strftime("%Y-%m-%d %H:%M")
    return f"You met what is left not long ago; come back after {when} UTC, when your memory of it has faded."
