"""What the lead sees and decides: progress, agreement, disagreements, gold, people who are let through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from moodal.annotation.accounts import Person
from moodal.annotation.database import Database
from moodal.annotation.answers import Answer


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


@dataclass(frozen=True)
class Overview:
    """The state of a project; every table is rows of plain values with the same keys, ready to be shown.

    ``intervals`` are 95 % bootstrap intervals over clips, written as low and high beside each number; None where there is
    too little to say.
    """

    at: str  # ISO 8601, when it was computed
    sentence: str | None  # what stands in the way of finishing, and the way out
    conditions: list[dict[str, Any]] = field(default_factory=list)
    people: list[dict[str, Any]] = field(default_factory=list)
    agreement: list[dict[str, Any]] = field(default_factory=list)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    against_others: list[dict[str, Any]] = field(default_factory=list)
    confusion: list[dict[str, Any]] = field(default_factory=list)
    drift: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        from dataclasses import asdict

        return asdict(self)


def overview(db: Database) -> Overview:
    """Progress, times, agreement and drift; at most a minute old."""
    raise NotImplementedError


def disagreements(
    db: Database, condition: str | None = None, *, intensity: bool = False, decided: bool = False
) -> list[Disagreement]:
    """Clips whose labels are complete and differ (in label, or intensity too); with ``decided``, the decided ones too."""
    raise NotImplementedError


def adjudicate(db: Database, lead: Person, clip_id: str, condition: str, answer: Answer) -> None:
    """The lead's word on a clip in a condition; a later one corrects it."""
    raise NotImplementedError


def set_gold(db: Database, lead: Person, gold: Iterable[GoldLabel]) -> int:
    """Add gold labels (all or none); how many are new. A gold clip takes no part in the main round any more."""
    raise NotImplementedError


def gold_from_decisions(db: Database, lead: Person) -> int:
    """Make gold of every clip that was adjudicated; how many are new."""
    raise NotImplementedError


def decide_qualification(db: Database, lead: Person, person_id: int, condition: str, *, passed: bool) -> None:
    """Let a person through, or (not passed) let him try again from the beginning."""
    raise NotImplementedError
