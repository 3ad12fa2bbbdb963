"""What a model says of a video: one answer per segment, with what it rests on. Light: made and read by everything here.

Probabilities, relevance and times are fractions and seconds, never rounded; tables and pictures round.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moodal.types import MODALITIES, Segment

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
BREAKS = "\t\n\v\f\r\x85\u2028\u2029"
JOINERS = "\u200c\u200d"  # Persian, Indic scripts and emoji need them


@dataclass(frozen=True)
class SegmentPrediction:
    """The answer for one segment.

    ``emotion``: the most probable class; None where the model abstained, and for regression, which has ``score``.
    ``probabilities``: by class, calibrated, sum 1; empty for regression and where there was nothing to judge.
    ``relevance``: by modality, 0 for what is missing; sum 1 unless everything is.
    ``unimodal``: by modality what it alone would say, class -> probability (regression: {"score": x}).
    ``notes``: by modality why it is missing, or what to know of it ("a face in 12 of 50 frames").
    ``because``: one sentence why it abstained, or "".
    """

    start_s: float
    end_s: float
    text: str | None = None
    speaker: str | None = None
    emotion: str | None = None
    score: float | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    relevance: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(MODALITIES, 0.0))
    unimodal: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    abstained: bool = False
    because: str = ""

    @property
    def segment(self) -> Segment:
        return Segment(self.start_s, self.end_s)

    @property
    def likeliest(self) -> tuple[str, float] | None:
        """The most probable class and its probability, abstained or not; None where there are no probabilities."""
        return max(self.probabilities.items(), key=lambda item: item[1]) if self.probabilities else None

    def alone(self, modality: str) -> tuple[str, float] | None:
        """What one modality alone would say, and how probable it finds that; None where it was not there.

        For regression the name is "score" and the number is the score.
        """
        said = self.unimodal.get(modality)
        return max(said.items(), key=lambda item: item[1]) if said else None

    def answer(self, *, unsure: str = "unsure") -> str:
        """What is shown of it: "happy 72%", a score ("+0.83"), or ``unsure``."""
        if self.abstained:
            return unsure
        if self.score is not None:
            return f"{self.score:+.2f}"
        if self.emotion is None:
            return unsure
        known = self.probabilities.get(self.emotion)
        return self.emotion if known is None else f"{self.emotion} {percent(known)}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "start_s": self.start_s,
            "end_s": self.end_s,
            "text": self.text,
            "speaker": self.speaker,
            "emotion": self.emotion,
            "score": self.score,
            "probabilities": dict(self.probabilities),
            "relevance": dict(self.relevance),
            "unimodal": {m: dict(said) for m, said in self.unimodal.items()},
            "missing": list(self.missing),
            "notes": dict(self.notes),
            "abstained": self.abstained,
            "because": self.because,
        }


@dataclass(frozen=True)
class VideoPrediction:
    """The answers for one video, in order of time.

    ``classes``: () for regression. ``notes``: what holds for all. ``cuts_s``: where the camera cuts, if that was asked.
    """

    video: str
    model: str
    duration_s: float
    classes: tuple[str, ...]
    segments: tuple[SegmentPrediction, ...]
    notes: tuple[str, ...] = ()
    cuts_s: tuple[float, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """What ``moodal predict --json`` prints; keys are added, never renamed."""
        return {
            "video": self.video,
            "model": self.model,
            "duration_s": self.duration_s,
            "classes": list(self.classes),
            "notes": list(self.notes),
            "cuts_s": list(self.cuts_s),
            "segments": [s.as_dict() for s in self.segments],
        }


def percent(share: float) -> str:
    """As a person reads it. What is not certain is never 100 %."""
    if math.isnan(share):
        return "?"
    return f"{max(1, min(99, round(100 * share))) if 0 < share < 1 else round(100 * share)}%"


def plain(text: str | None) -> str:
    """One line of what can be seen: a transcript may hold line breaks, orders to a terminal, and reversed writing."""
    seen = (
        c if unicodedata.category(c) not in HIDDEN or c in JOINERS else " " if c in BREAKS else "" for c in text or ""
    )
    return " ".join("".join(seen).split())
