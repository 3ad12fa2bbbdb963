"""Who labels what, when: the dealing of clips to people, and what they answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moodal.annotation.accounts import Person
from moodal.annotation.database import Database
from moodal.annotation.settings import AnnotationSettings
from moodal.data.clips import Clip


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person says of a clip: an emotion with an intensity, "compound", or "invalid" with a reason."""

    label: str
    intensity: str | None = None
    reason: str | None = None
    comment: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """A clip that a person is to label in a condition.

    ``clip`` and ``text`` hold words only where the condition shows them. ``round``: "qualification" or "main".
    ``done`` of ``total`` clips of this pass are answered; ``previous`` is what the person said before going back.
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
class Waiting:
    """Nothing for now. ``reason``: "others", "people", "gap" or "qualification"; ``sentence`` says what would help."""

    reason: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Every label of the project is given."""

    sentence: str = "Everything is labelled. Thank you!"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a person is: labels given by condition, and in all."""

    given: dict[str, int]
    total: int


def prepare(db: Database, clips: Sequence[Clip], settings: AnnotationSettings) -> int:
    """Bring the project to these settings and these clips; how many were new. Clips that are there stay."""
    raise NotImplementedError


def project_settings(db: Database) -> AnnotationSettings:
    """The settings of the project; InputError before it is prepared."""
    raise NotImplementedError


def next_assignment(db: Database, person: Person) -> Assignment | Waiting | Finished:
    """What ``person`` labels next: what he went back to or holds already, else a clip that is now his."""
    raise NotImplementedError


def save_answer(db: Database, person: Person, assignment_id: int, answer: Answer) -> None:
    """Keep an answer; when this returns, it is on the disk. The same answer twice is one, another one corrects it."""
    raise NotImplementedError


def undo(db: Database, person: Person) -> Assignment:
    """Go back to the last answered clip of this pass; its answer counts until another is given."""
    raise NotImplementedError


def release(db: Database, person: Person) -> None:
    """Give back what ``person`` holds unanswered."""
    raise NotImplementedError


def progress(db: Database, person: Person) -> Progress:
    """How many labels ``person`` has given in the main round."""
    raise NotImplementedError
