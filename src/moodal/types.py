"""The words of the project as types: modalities, segments, utterances, tasks, and the two kinds of failure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

MODALITIES = ("text", "audio", "vision")
SPLITS = ("train", "valid", "test")


class InputError(ValueError):
    """What the user gave cannot be used: one sentence that says what to do. Commands exit with 2."""


class WorkError(RuntimeError):
    """The work itself failed (a loss that is not finite, a worker that died). Commands exit with 1."""


def unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that does not exist; it names the nearest one and all that do."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return InputError(f"no {what} called {name!r}{hint} There are: {', '.join(names)}")


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of one video, ``start_s <= t < end_s``, in seconds."""

    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.start_s < self.end_s:
            raise InputError(f"need 0 <= start_s < end_s, got {self.start_s} and {self.end_s}")


@dataclass(frozen=True, slots=True)
class Task:
    """What is predicted: one of ``classes``, or (no classes) a score in ``[low, high]``."""

    classes: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0

    def __post_init__(self) -> None:
        if self.classes and (len(self.classes) < 2 or len(set(self.classes)) < len(self.classes)):
            raise InputError(f"a classification task needs two or more different classes, got {list(self.classes)}")
        if not self.classes and not self.low < self.high:
            raise InputError(f"a regression task needs low < high, got {self.low} and {self.high}")

    @property
    def kind(self) -> str:
        return "classification" if self.classes else "regression"

    @property
    def num_outputs(self) -> int:
        return len(self.classes) or 1


@dataclass(frozen=True, slots=True)
class Utterance:
    """A segment with one speaker and words: what is labelled, split and predicted.

    ``label`` and the values of ``modality_labels`` are class names; ``score`` and ``modality_scores`` are
    numbers on the task's interval. Where a data set has both, scores serve regression. ``group`` is what
    may not sit in two splits (a speaker, a video); ``fold`` numbers the cross-validation folds from 0.
    ``intensity``: how strong people found the emotion.
    """

    id: str
    video: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    speaker: str | None = None
    text: str | None = None
    label: str | None = None
    score: float | None = None
    modality_labels: dict[str, str] = field(default_factory=dict)
    modality_scores: dict[str, float] = field(default_factory=dict)
    split: str | None = None
    fold: int | None = None
    group: str | None = None
    intensity: str | None = None
