"""The filters: each looks at one number of a clip and says, where it falls, why, with the number and the threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moodal.data.clips import Clip
from moodal.screening.parts import Array, Record
from moodal.screening.settings import ScreenSettings

LONGEST_LOOK_S = 1.0  # a picture that stands longer says nothing about what follows
UNREADABLE = "unreadable"  # the reason of clips whose video could not be read


@dataclass(frozen=True)
class Filter:
    """``name``: the reason of what it stops. ``measure``: the number of a clip it judges; ``low``, ``high``: the
    settings that bound it; ``too_low``, ``too_high``: why a clip falls, with ``{value}`` and
    ``{limit}``; ``form``, ``scale``: how people write the number."""

    name: str
    title: str
    measure: str
    low: str = ""
    high: str = ""
    too_low: str = ""
    too_high: str = ""
    form: str = "{:.2f}"
    scale: float = 1.0

    def verdict(self, clip: Clip, settings: ScreenSettings) -> str:
        """Why the clip falls, or "": it passes, or there is nothing to judge."""
        value = getattr(clip, self.measure)
        if value is None:
            return ""
        for bound, says, falls in ((self.low, self.too_low, _below), (self.high, self.too_high, _above)):
            if bound and falls(value, limit := getattr(settings, bound)):
                shown = self.show(value)
                if shown == self.show(limit):  # nobody would believe it
                    shown = f"{value * self.scale:.6g}{self.unit}"
                return says.format(value=shown, limit=self.show(limit))
        return ""

    @property
    def unit(self) -> str:
        return self.form.rpartition("}")[2]

    def show(self, value: float) -> str:
        return self.form.format(value * self.scale)


def _below(value: float, limit: float) -> bool:
    return value < limit


def _above(value: float, limit: float) -> bool:
    return value > limit


# in the order in which a clip meets them: the cheapest first
LENGTH = Filter(
    "length",
    "length",
    "duration_s",
    "min_s",
    "max_s",
    "{value} long, less than {limit}",
    "{value} long, more than {limit}",
    "{:.2f} s",
)
SILENCE = Filter(
    "silence",
    "loudest tenth of a second",
    "loudness_db",
    low="min_loudness_db",
    too_low="nowhere louder than {value}, less than {limit}",
    form="{:.0f} dB",
)
SPEECH = Filter(
    "speech",
    "share of speech",
    "speech_share",
    low="min_speech_share",
    too_low="speech for {value} of its time, less than {limit}",
    form="{:.0f} %",
    scale=100.0,
)
FACE = Filter(
    "face",
    "time with just one face",
    "face_share",
    low="min_face_share",
    too_low="just one face for {value} of its time, less than {limit}",
    form="{:.0f} %",
    scale=100.0,
)
FACES = Filter(
    "faces",
    "time with more than one face",
    "faces_share",
    high="max_faces_share",
    too_high="more than one face for {value} of its time, more than {limit}",
    form="{:.0f} %",
    scale=100.0,
)
FRONTAL = Filter(
    "frontal",
    "time in which it looks ahead",
    "frontal_share",
    low="min_face_share",
    too_low="one face that looks ahead for {value} of its time, less than {limit}",
    form="{:.0f} %",
    scale=100.0,
)
VOICE = Filter(
    "voice",
    "distance of the voices",
    "voice_distance",
    high="max_voice_distance",
    too_high="two of its voices are {value} apart, more than {limit}",
)
DUPLICATE = "duplicate"
FILTERS = (LENGTH, SILENCE, SPEECH, FACES, FACE, FRONTAL, VOICE)
REASONS = (UNREADABLE, "length", "silence", DUPLICATE, "speech", "faces", "face", "frontal", "voice")  # as they come


def judge(clip: Clip, filters: Sequence[Filter], settings: ScreenSettings) -> Clip:
    """The clip with the first reason why it falls, if there is one and it has none yet."""
    for f in filters if clip.reason is None else ():
        if detail := f.verdict(clip, settings):
            return fallen(clip, f.name, detail)
    return clip


def fallen(clip: Clip, reason: str, detail: str) -> Clip:
    return replace(clip, reason=reason, detail=detail)


def with_faces(clip: Clip, record: Record, settings: ScreenSettings) -> Clip:
    """What was seen of faces, by the thresholds on one picture; shares are of the clip's time."""
    times, faces = record["times_s"], record["faces"]
    if not len(times):
        return replace(clip, face_share=0.0, frontal_share=0.0, faces_share=0.0, faces=0.0)
    large = faces[faces[:, 1] >= settings.min_face_height]
    counts = np.bincount(large[:, 0].astype(int), minlength=len(times))
    alone = large[counts[large[:, 0].astype(int)] == 1]
    ahead = alone[(np.abs(alone[:, 2]) <= settings.max_yaw_deg) & (np.abs(alone[:, 3]) <= settings.max_pitch_deg)]
    lasts = _lasts(times, clip, settings)
    is_ahead = np.isin(np.arange(len(times)), ahead[:, 0].astype(int))

    def share(seen: Array) -> float:
        return min(1.0, float(lasts[seen].sum()) / clip.duration_s)

    def median(column: Array) -> float | None:
        return float(np.median(np.abs(column))) if len(column) else None

    return replace(
        clip,
        faces=float(counts @ lasts / max(lasts.sum(), 1e-9)),
        face_share=share(counts == 1),
        faces_share=share(counts > 1),
        frontal_share=share(is_ahead),
        face_height=median(alone[:, 1]),
        yaw_deg=median(alone[:, 2]),
        pitch_deg=median(alone[:, 3]),
    )


def _lasts(times: Array, clip: Clip, settings: ScreenSettings) -> Array:
    """How long each picture that was looked at stands for what is to be seen, in seconds."""
    begins = np.array(times, float)
    if begins[0] - clip.start_s <= 1 / settings.looks_per_s:
        begins[0] = clip.start_s
    found: Array = np.minimum(np.diff(np.append(begins, clip.end_s)), LONGEST_LOOK_S)
    return np.maximum(found, 0.0)
