"""What a shot must be to become a clip to label: thresholds, each of a number that stays in the table."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from moodal.types import InputError, unknown

CUTS = ("shot", "speech")


@dataclass(frozen=True)
class ScreenSettings:
    """The paper's three constraints (one voice; one face, from the front; seen for more than a third of the clip), and
    what spares the annotators the rest.

    cut: "shot", every shot is a clip; "speech", a shot longer than ``max_s`` becomes a clip per stretch of speech,
    where ``pause_s`` ends a stretch. min_loudness_db: of the loudest tenth of a second, full scale is 0.
    min_speech_share, min_face_share, max_faces_share: of a clip's time; the second is for the time in which just one
    face is seen (and again for that in which it also looks ahead: yaw and pitch within ``max_yaw_deg`` and
    ``max_pitch_deg``), the third for the time in which there are more. min_face_height: of the picture's; a smaller
    face is not counted at all. max_voice_distance: see ``features.voices``. looks_per_s: pictures in which faces are
    looked for. duplicates, voices: False leaves that filter out.
    """

    cut: str = "shot"
    pause_s: float = 0.5
    min_s: float = 1.0
    max_s: float = 15.0
    min_loudness_db: float = -45.0
    duplicates: bool = True
    min_speech_share: float = 0.3
    min_face_share: float = 1 / 3
    max_faces_share: float = 0.1
    max_yaw_deg: float = 35.0
    max_pitch_deg: float = 30.0
    min_face_height: float = 0.1
    looks_per_s: float = 4.0
    voices: bool = True
    max_voice_distance: float = 0.36  # chosen on RAVDESS, actors 1 to 12: benchmarks/screening.py

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{f.name} must be a finite number, got {value}")
        if self.cut not in CUTS:
            raise unknown("way to cut", self.cut, CUTS)
        if not 0 <= self.min_s < self.max_s:
            raise InputError(f"need 0 <= min_s < max_s, got {self.min_s} and {self.max_s}")
        for name in ("min_speech_share", "min_face_share", "max_faces_share", "min_face_height"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is a share, from 0 to 1, got {getattr(self, name)}")
        for name in ("max_yaw_deg", "max_pitch_deg"):
            if not 0 < getattr(self, name) <= 180:
                raise InputError(f"{name} must be above 0 and at most 180, got {getattr(self, name)}")
        if not 0 <= self.max_voice_distance <= 2:
            raise InputError(f"max_voice_distance must be from 0 to 2, got {self.max_voice_distance}")
        if not 0 < self.looks_per_s <= 30:
            raise InputError(f"looks_per_s must be above 0 and at most 30, got {self.looks_per_s}")
        if not 0.2 <= self.pause_s <= 10:  # shorter pauses are not noted
            raise InputError(f"pause_s must be from 0.2 to 10, got {self.pause_s}")
