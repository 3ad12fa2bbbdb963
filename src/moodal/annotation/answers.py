"""What may be answered, and the words for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from moodal.annotation.schema import AnswerRow
from moodal.annotation.settings import AnnotationSettings
from moodal.types import InputError, unknown

LONGEST_TEXT = 2000
LONGEST_S = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person says of a clip: an emotion with an intensity, "compound", or "invalid" with a reason.

    ``seconds``: how long it took.
    """

    label: str
    intensity: str | None = None
    reason: str | None = None
    comment: str | None = None
    seconds: float | None = None

    def says_the_same(self, other: Answer) -> bool:
        """Whether the two differ in the time they took at most."""
        mine, others = ((a.label, a.intensity or None, a.reason or None, a.comment or None) for a in (self, other))
        return mine == others


def check_answer(answer: Answer, settings: AnnotationSettings, *, complete: bool = True) -> None:
    """Refuse what this project does not ask for. ``complete``: an emotion needs its intensity, "invalid" its reason."""
    if answer.label not in settings.labels:
        raise unknown("label", answer.label, settings.labels)
    is_emotion = answer.label in settings.emotions
    if answer.intensity and (not is_emotion or answer.intensity not in settings.intensities):
        if not is_emotion:
            raise InputError(f"{answer.label!r} has no intensity")
        raise unknown("intensity", answer.intensity, settings.intensities or ("none",))
    if complete and is_emotion and answer.label != "neutral" and settings.intensities and not answer.intensity:
        raise InputError(f"say how {answer.label} it is: {' or '.join(settings.intensities)}")
    if complete and answer.label == "invalid" and not (answer.reason or "").strip():
        raise InputError("say why the clip is invalid")
    for name, text in (("reason", answer.reason), ("comment", answer.comment)):
        _check_text(name, text)
    if answer.seconds is not None and not (math.isfinite(answer.seconds) and 0 <= answer.seconds <= LONGEST_S):
        raise InputError(f"the time an answer took is between 0 and {LONGEST_S:.0f} seconds, got {answer.seconds}")


def answer_of(row: AnswerRow) -> Answer:
    return Answer(row.label, row.intensity, row.reason, row.comment, row.seconds)


def _check_text(name: str, text: str | None) -> None:
    if text is None:
        return
    if len(text) > LONGEST_TEXT:
        raise InputError(f"the {name} has {len(text)} characters; {LONGEST_TEXT} is the most")
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise InputError(f"the {name} holds characters that are no text")
