"""What a file holds, by its header."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
from av.stream import Disposition

from moodal.media.container import codec_name, default_stream, is_too_large, opened, prepare, start_s_of, zero_of
from moodal.media.packets import demuxed
from moodal.media.pictures import Turn

if TYPE_CHECKING:
    import av.container


@dataclass(frozen=True, slots=True)
class VideoStream:
    """The pictures of a file; of no size, with codec "unknown", where there is no decoder.

    ``width_px`` and ``height_px`` are as stored: ``rotation_deg`` (0, 90, 180 or 270, clockwise) is still to be
    applied. ``rate_hz`` is an average; None where the file does not say.
    """

    width_px: int
    height_px: int
    rate_hz: float | None
    rotation_deg: int
    codec: str
    start_s: float


@dataclass(frozen=True, slots=True)
class AudioStream:
    """The sound of a file, before it is mixed to one channel."""

    sample_rate_hz: int
    channels: int
    codec: str
    start_s: float


@dataclass(frozen=True, slots=True)
class SubtitleStream:
    """Subtitles inside a file. ``index`` counts all streams of the file from 0; those that are no text are pictures."""

    index: int
    codec: str
    language: str | None
    is_text: bool
    is_default: bool


@dataclass(frozen=True, slots=True)
class Probe:
    """What a file holds, by its header: of several streams of a kind the default one. Cover art is not video."""

    duration_s: float | None
    video: VideoStream | None
    audio: AudioStream | None
    subtitles: tuple[SubtitleStream, ...] = ()


def probe(path: Path) -> Probe:
    """What ``path`` holds. Decodes at most the first pictures: only they tell how they are rotated."""
    with opened(path) as container:
        zero = zero_of(container)
        video, audio = default_stream(container.streams.video), default_stream(container.streams.audio)
        subtitles = tuple(
            SubtitleStream(
                s.index,
                codec_name(s),
                s.language if s.language != "und" else None,
                bool(s.codec_context and s.codec_context.codec.text_sub),
                bool(s.disposition & Disposition.default),
            )
            for s in container.streams.subtitles
        )
        duration_s = container.duration / av.time_base if container.duration and container.duration > 0 else None
        return Probe(
            duration_s,
            _video_stream(container, video, zero) if video else None,
            _audio_stream(audio, zero) if audio else None,
            subtitles,
        )


def _video_stream(container: av.container.InputContainer, stream: Any, zero: Fraction) -> VideoStream:
    rate = stream.average_rate or stream.guessed_rate
    known = stream.codec_context  # None where there is no decoder
    turn = Turn.of(_first_picture(container, stream)) if known else Turn()
    return VideoStream(
        known.width if known else 0,
        known.height if known else 0,
        float(rate) if rate else None,
        turn.degrees,
        codec_name(stream),
        start_s_of(stream, zero),
    )


def _audio_stream(stream: Any, zero: Fraction) -> AudioStream:
    known = stream.codec_context
    rate_hz, channels = (known.sample_rate or 0, known.channels or 0) if known else (0, 0)
    return AudioStream(rate_hz, channels, codec_name(stream), start_s_of(stream, zero))


def _first_picture(container: av.container.InputContainer, stream: Any) -> av.VideoFrame | None:
    if is_too_large(stream):
        return None
    prepare(container, stream, 1)
    try:
        return next((raw for packet in demuxed(container, stream) for raw in packet.decode()), None)
    except av.FFmpegError:
        return None  # what is wrong with it is said when it is read
