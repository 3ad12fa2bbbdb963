"""Pictures and sound of a video file, with the times at which they are shown and heard.

**Times** are in seconds and count from the file's own zero: the earliest moment of any of its streams, as players show
it. Files often start elsewhere (a broadcast at 58 s, a phone with its sound 20 ms before the picture); taking the same
zero from both keeps the face and the voice together. Every time is a presentation timestamp, never a frame number over
a rate: phones and screen recorders change their rate as they go.

**Broken files** are normal. What cannot be decoded is left out, counted, and logged when the reading ends; only a file
of which nothing could be decoded is an error. Memory does not grow with the length of the file, but in ``read_audio``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from moodal.media.captions import Subtitle, read_subtitles
from moodal.media.container import MAX_DURATION_S, MAX_PIXELS
from moodal.media.packets import Damage
from moodal.media.pictures import Frame, FrameArray, Look, PictureClock, Pictures
from moodal.media.segments import Medium, SegmentReader, T
from moodal.media.sound import SOURCE_RATES_HZ, AudioBlock, Samples, Sound, SoundClock
from moodal.media.streams import AudioStream, Probe, SubtitleStream, VideoStream, probe
from moodal.types import InputError, Segment

__all__ = [
    "MAX_DURATION_S",
    "MAX_PIXELS",
    "AudioReader",
    "AudioStream",
    "Frame",
    "FrameArray",
    "FrameReader",
    "Probe",
    "Samples",
    "Subtitle",
    "SubtitleStream",
    "VideoStream",
    "probe",
    "read_audio",
    "read_frames",
    "read_subtitles",
    "stream_audio",
]

MAX_READ_S = 4 * 3600.0  # of sound in one array
JOINED_BLOCK_S = 60.0  # of sound read at a time for an array


def read_frames(
    path: Path,
    *,
    rate_hz: float | None = None,
    segment: Segment | None = None,
    max_side_px: int | None = None,
    num_threads: int = 1,
) -> Iterator[Frame]:
    """The pictures of ``path`` in order; none where there is no video stream.

    ``rate_hz``: of the pictures in each interval of ``1 / rate_hz``, counted from the file's zero, the first. Where the
    file has fewer, there are fewer: none is repeated. ``max_side_px`` makes the longer side smaller, never larger.
    """
    return _read(SegmentReader(path, [segment], _pictures(rate_hz, max_side_px, num_threads)))


def stream_audio(path: Path, *, rate_hz: int = 22_050, block_s: float = 10.0) -> Iterator[tuple[float, Samples]]:
    """``read_audio`` in blocks of ``block_s`` (the last is shorter), each with the time of its first sample."""
    blocks = _read(SegmentReader(path, [None], _sound(rate_hz, block_s)))
    return ((block.time_s, block.samples) for block in blocks)


def read_audio(path: Path, *, rate_hz: int = 22_050, segment: Segment | None = None) -> Samples:
    """Mono waveform of ``path``, (samples,): sample ``i`` is heard at ``segment.start_s + i / rate_hz``.

    Channels are averaged, as librosa does. Where the file has no sound for a time (a late start, a lost packet) there
    is silence; after its last sample the array ends. Empty where there is no audio stream.
    """
    with AudioReader(path, [segment], rate_hz=rate_hz) as reader:
        return reader.read(0)


class FrameReader:
    """``read_frames`` for several segments of one file (None: all of it), in as few passes over it as can be.

    Memory is that of one segment and of what overlaps with it. Ask in order of the segments' beginnings.
    """

    def __init__(
        self,
        path: Path,
        segments: Sequence[Segment | None],
        *,
        rate_hz: float | None = None,
        max_side_px: int | None = None,
        num_threads: int = 1,
    ) -> None:
        self._reader = SegmentReader(path, segments, _pictures(rate_hz, max_side_px, num_threads))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def read(self, number: int) -> Iterator[Frame]:
        """The pictures of segment ``number``, to be taken before another segment is asked for."""
        return self._reader.read(number)


class AudioReader:
    """``read_audio`` for several segments of one file, as ``FrameReader`` does it for pictures."""

    def __init__(self, path: Path, segments: Sequence[Segment | None], *, rate_hz: int = 22_050) -> None:
        self._path = path
        self._starts_s = [s.start_s if s else 0.0 for s in segments]
        self._reader = SegmentReader(path, segments, _sound(rate_hz, JOINED_BLOCK_S))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def read(self, number: int) -> Samples:
        blocks = []
        for block in self._reader.read(number):
            if block.time_s - self._starts_s[number] > MAX_READ_S:
                raise InputError(
                    f"{self._path} has more than {MAX_READ_S / 3600:g} h of sound, too much for one array; "
                    "give a segment, or read it with stream_audio"
                )
            blocks.append(block.samples)
        return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _read(reader: SegmentReader[T]) -> Iterator[T]:
    with reader:
        yield from reader.read(0)


def _pictures(rate_hz: float | None, max_side_px: int | None, num_threads: int) -> Medium[Frame]:
    if max_side_px is not None and max_side_px < 1:
        raise InputError(f"max_side_px must be 1 or more, got {max_side_px}")
    if num_threads < 1:
        raise InputError(f"num_threads must be 1 or more, got {num_threads}")
    look = Look(None if rate_hz is None else _above_zero(rate_hz), max_side_px)

    def maker(stream: Any, segment: Segment, damage: Damage) -> Pictures:
        return Pictures(stream, segment, look, damage)

    return Medium("video", True, PictureClock, maker, num_threads)


def _sound(rate_hz: int, block_s: float) -> Medium[AudioBlock]:
    low, high = SOURCE_RATES_HZ
    if not (isinstance(rate_hz, int) and low <= rate_hz <= high):
        raise InputError(f"the audio rate must be a whole number of {low} to {high} Hz, got {rate_hz}")
    _above_zero(block_s)

    def maker(stream: Any, segment: Segment, damage: Damage) -> Sound:
        return Sound(segment, rate_hz, block_s, damage)

    return Medium("audio", False, SoundClock, maker)


def _above_zero(value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"a rate or a length must be a number above 0, got {value}")
    return value
