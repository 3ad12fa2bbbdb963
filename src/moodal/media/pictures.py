"""Decoded pictures as frames: when each is shown, and which of them are kept, upright and with square pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import VideoReformatter

from moodal.media.container import EDGE_S, MAX_DURATION_S, MAX_GAP_S, reason, seconds_of
from moodal.media.packets import Damage
from moodal.types import Segment

FrameArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture, upright and with square pixels: ``rgb`` is (H, W, 3)."""

    time_s: float
    rgb: FrameArray

    @property
    def num_bytes(self) -> int:
        return self.rgb.nbytes


class PictureClock:
    """When each decoded picture is shown and, because it counts them where nobody says so, how many there were."""

    def __init__(self, stream: Any, zero: Fraction) -> None:
        self._zero = zero
        self._start = stream.start_time
        self._step_s = float(1 / (stream.average_rate or stream.guessed_rate or 25))
        self._num = 0
        self._lag: int | None = None  # in ticks
        self._last_s: float | None = None

    def interval(self, raw: av.VideoFrame) -> tuple[float, float]:
        """When it begins and, as far as can be told yet, ends: a picture lasts until the next."""
        self._num += 1
        time_s = self._stamp(raw)
        if time_s is None:  # a bare stream without a container
            time_s = 0.0 if self._last_s is None else self._last_s + self._step_s
        self._last_s = time_s
        return time_s, time_s

    def _stamp(self, raw: av.VideoFrame) -> float | None:
        """AVI stores only when pictures are decoded. Those times, in order, are when they are shown, less the time by
        which the decoder holds the first one back."""
        if self._num == 1 and raw.pts is None and raw.dts is not None:
            self._lag = raw.dts - (self._start or 0)
        if raw.dts is not None and (self._lag is not None or raw.pts is None):
            return seconds_of(raw.dts - (self._lag or 0), raw, self._zero)
        return seconds_of(raw.pts, raw, self._zero)


@dataclass(frozen=True, slots=True)
class Look:
    """Which pictures are wanted, and how large: see ``read_frames``."""

    rate_hz: float | None = None
    max_side_px: int | None = None


class Pictures:
    """The frames of one segment, of the decoded pictures that are shown to it: those in it, one per interval."""

    def __init__(self, stream: Any, segment: Segment, look: Look, damage: Damage) -> None:
        self.is_done = False
        self._segment = segment
        self._look = look
        self._damage = damage
        self._reformatter = VideoReformatter()
        self._rotation: int | None = None
        self._turn = Turn()
        self._aspect = _aspect(stream)
        self._last_s: float | None = None
        self._interval = -1
        # timestamps are rounded to the stream's tick: an interval begins half a tick early
        self._slack_s = max(float(stream.time_base) / 2, EDGE_S) if stream.time_base else EDGE_S

    def add(self, time_s: float, raw: av.VideoFrame) -> Iterator[Frame]:
        if not self._is_next(time_s) or time_s + EDGE_S < self._segment.start_s:
            return
        if time_s + EDGE_S >= self._segment.end_s:
            self.is_done = True
        elif self._is_first_of_interval(time_s):
            try:
                rgb = self._rgb(raw)
            except (av.FFmpegError, ValueError) as e:
                self._damage.add(reason(e))
                return
            yield Frame(time_s, rgb)

    def finish(self) -> Iterator[Frame]:
        return iter(())

    def _is_next(self, time_s: float) -> bool:
        """False before the file's zero, or at a time that cannot be."""
        last_s = self._last_s
        after = max(self._segment.start_s, last_s or 0.0)
        if (last_s is not None and time_s <= last_s) or time_s > min(after + MAX_GAP_S, MAX_DURATION_S):
            self._damage.add(f"a picture at {time_s:.3f} s after one at {last_s or 0.0:.3f} s")
            return False
        if time_s < 0:
            return False
        self._last_s = time_s
        return True

    def _is_first_of_interval(self, time_s: float) -> bool:
        if self._look.rate_hz is None:
            return True
        interval = math.floor((time_s + self._slack_s) * self._look.rate_hz)
        if interval == self._interval:
            return False
        self._interval = interval
        return True

    def _rgb(self, raw: av.VideoFrame) -> FrameArray:
        width, height = _size(raw.width, raw.height, self._aspect, self._look.max_side_px)
        scaled = self._reformatter.reformat(raw, width, height, "rgb24", interpolation="AREA", threads=1)
        if raw.rotation != self._rotation:
            self._rotation, self._turn = raw.rotation, Turn.of(raw)
        return self._turn.apply(np.asarray(scaled.to_ndarray(), np.uint8))


def _aspect(stream: Any) -> float:
    """Width over height of a stored pixel. Old camcorders store narrow ones, and a face would be squeezed."""
    ratio = float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
    return ratio if 0.25 <= ratio <= 4 else 1.0


def _size(width: int, height: int, aspect: float, max_side_px: int | None) -> tuple[int, int]:
    shown = width * aspect
    scale = min(1.0, max_side_px / max(shown, height)) if max_side_px else 1.0
    return max(1, round(shown * scale)), max(1, round(height * scale))


@dataclass(frozen=True, slots=True)
class Turn:
    """What a display matrix asks for, to the nearest quarter: swap the axes, then mirror them."""

    swap: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @classmethod
    def of(cls, raw: av.VideoFrame | None) -> Turn:
        """x' = a x + c y, y' = b x + d y, with y downwards.

        A picture whose side data was read lives until the garbage collector runs (they refer to each other), and those
        of a large video fill the memory before it does: read one, not each.
        """
        sides: Any = raw.side_data if raw else ()
        data = next((bytes(side) for side in sides if side.type == SideData.DISPLAYMATRIX), b"")
        if len(data) < 36:
            return cls()
        a, b, _, c, d = (int(v) for v in np.frombuffer(data, np.int32)[:5])
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, a < 0, d < 0)
        return cls(True, c < 0, b < 0)

    @property
    def degrees(self) -> int:
        """Clockwise; a mirror alone is no rotation."""
        if self.swap:
            return 270 if self.mirror_y else 90
        return 180 if self.mirror_x and self.mirror_y else 0

    def apply(self, rgb: FrameArray) -> FrameArray:
        turned = rgb.transpose(1, 0, 2) if self.swap else rgb
        turned = turned[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]
        return np.ascontiguousarray(turned)
