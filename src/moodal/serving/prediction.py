"""What a model says of a video: one answer per segment, with what it rests on. Light: made and read by everything here.

Probabilities, relevance and times are fractions and seconds, never rounded; tables and pictures round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moodal.types import MODALITIES, Segment


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
    """The answers for one video, in order of time. ``classes``: () for regression. ``notes``: what holds for all."""

    video: str
    model: str
    duration_s: float
    classes: tuple[str, ...]
    segments: tuple[SegmentPrediction, ...]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """What ``moodal predict --json`` prints; keys are added, never renamed."""
        return {
            "video": self.video,
            "model": self.model,
            "duration_s": self.duration_s,
            "classes": list(self.classes),
            "notes": list(self.notes),
            "segments": [s.as_dict() for s in self.segments],
        }
