"""What a labelling project asks of its people, and which of it may still change once labels are there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

from moodal.labels.votes import CONDITIONS, EMOTIONS, INTENSITIES, SPECIAL
from moodal.types import InputError

__all__ = [
    "CONDITIONS",
    "EMOTIONS",
    "INTENSITIES",
    "SPECIAL",
    "AnnotationSettings",
    "check_change",
    "settings_from_json",
]
FIXED = ("emotions", "intensities")  # labels given under another choice cannot be compared


@dataclass(frozen=True, slots=True)
class AnnotationSettings:
    """How a project is labelled.

    ``labels_per_clip``: how many different people label each clip in each condition.

    ``gap_days`` and ``gap_clips``: how long ago, and how many other clips ago, a person must last have met a clip to be
    given it in another condition while single modalities are still being labelled; None: not before these are done.

    ``qualification``: how many gold clips a person answers before each condition, 0 for none, and
    ``qualification_share`` how many of them must be right. ``hold_minutes``: after that, an unanswered clip goes to
    whoever is next.
    """

    conditions: tuple[str, ...] = ("audio", "vision", "full")
    labels_per_clip: int = 2
    emotions: tuple[str, ...] = EMOTIONS
    intensities: tuple[str, ...] = INTENSITIES
    seed: int = 0
    gap_days: float | None = None
    gap_clips: int | None = None
    qualification: int = 0
    qualification_share: float = 0.8
    hold_minutes: float = 30.0

    def __post_init__(self) -> None:
        for name in ("conditions", "emotions", "intensities"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_names("condition", self.conditions, least=1)
        _check_names("emotion", self.emotions, least=2)
        _check_names("intensity", self.intensities, least=0)
        if strange := set(self.conditions) - set(CONDITIONS):
            raise InputError(f"no condition called {sorted(strange)[0]!r}; there are: {', '.join(CONDITIONS)}")
        object.__setattr__(self, "conditions", tuple(c for c in CONDITIONS if c in self.conditions))
        if taken := set(self.emotions) & set(SPECIAL):
            raise InputError(f"{sorted(taken)[0]!r} is a special answer and cannot be an emotion")
        _check_range("labels_per_clip", self.labels_per_clip, 1, 20)
        _check_range("qualification", self.qualification, 0, 10_000)
        _check_range("qualification_share", self.qualification_share, 0.0, 1.0)
        _check_range("hold_minutes", self.hold_minutes, 0.01, 10_080)
        _check_range("seed", self.seed, 0, 2**63 - 1)
        if self.gap_days is not None:
            _check_range("gap_days", self.gap_days, 0.0, 3650.0)
        if self.gap_clips is not None:
            _check_range("gap_clips", self.gap_clips, 0, 10**9)

    @property
    def single(self) -> tuple[str, ...]:
        """The conditions that show less than the full clip."""
        return tuple(c for c in self.conditions if c != "full")

    @property
    def labels(self) -> tuple[str, ...]:
        """Everything that may be answered."""
        return self.emotions + SPECIAL

    @property
    def has_gap(self) -> bool:
        return self.gap_days is not None or self.gap_clips is not None

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)


@lru_cache(maxsize=8)  # every request asks
def settings_from_json(text: str) -> AnnotationSettings:
    """The settings that ``to_json`` wrote."""
    try:
        said: Any = json.loads(text)
        known = {f.name for f in fields(AnnotationSettings)}
        if not isinstance(said, dict) or set(said) - known:
            raise InputError("the settings of this project are not of this version of moodal; update moodal")
        return AnnotationSettings(**said)
    except (json.JSONDecodeError, TypeError) as e:
        raise InputError(f"the settings of this project cannot be read ({e})") from e


def check_change(old: AnnotationSettings, new: AnnotationSettings, given: dict[str, int], most: int) -> None:
    """Refuse what would break labels that are there.

    given: how many labels each condition has; most: the most labels that any clip has in one condition.
    """
    if not sum(given.values()):
        return
    for name in FIXED:
        if getattr(old, name) != getattr(new, name):
            raise InputError(f"{name} cannot change once labels are given; begin a new project, in another folder")
    if old.seed != new.seed:
        raise InputError("the seed cannot change once labels are given: it decides who labels what")
    for name in old.conditions:
        if given.get(name) and name not in new.conditions:
            raise InputError(f"the condition {name!r} cannot go: {given[name]} labels are given in it")
    if given.get("full") and (added := [c for c in new.single if c not in old.single]):
        raise InputError(f"{added[0]!r} cannot be added: people have already seen full clips")
    if new.labels_per_clip < most:
        raise InputError(f"labels_per_clip cannot be {new.labels_per_clip}: some clips have {most} labels already")


def _check_names(what: str, names: tuple[str, ...], *, least: int) -> None:
    if len(names) < least or len(set(names)) < len(names) or not all(isinstance(n, str) and n.strip() for n in names):
        raise InputError(f"need {least} or more different names for what is an {what}, got {list(names)}")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # false for NaN too
        raise InputError(f"{name} must be between {low} and {high}, got {value}")
