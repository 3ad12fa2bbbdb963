"""Clips as small files that every browser plays: what is seen and heard in a segment, exact in time, and no more.

Cutting at key frames without decoding would be faster, and up to seconds wrong: a label would be given to what lies
outside the clip. So pictures and sound are decoded by the project's own readers and encoded again, once each; a
file with both holds the very same pictures and sound as the files with one of them. Where nothing of a kind was asked
for there is no such stream: what is not in the file cannot be heard or seen by whoever gets it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from moodal.files import disk_errors
from moodal.media import MediaError
from moodal.media.container import opened, reason
from moodal.media.decode import AudioReader, Frame, FrameReader, Samples
from moodal.types import InputError, Segment, WorkError

MAX_HEIGHT_PX = 480
WIDEST = 16 / 9  # of width to height, at which a picture still has the full height
CLOCK_HZ = 90_000  # of pictures: every usual rate is a whole number of its ticks
SOUND_HZ = 48_000
SOUND_BITS_PER_S = 96_000  # one channel: more than speech needs
LATE_S = 0.1  # a first picture that comes later than this is preceded by black
KEY_EVERY = 25  # pictures: what a player has to decode at most to go back somewhere
# without B-pictures no stream needs an edit list, which some players pass over, to begin at zero
H264 = {"preset": "superfast", "crf": "22", "threads": "1", "bf": "0", "x264-params": "log-level=none"}
# the index first, so that a player can begin before it has all; no trace of who made it, or when
MP4 = {"movflags": "+faststart", "fflags": "+bitexact"}
BT601, NARROW = 6, 1  # how colours are stored in what we write, by the numbers of the H.264 standard


@dataclass(frozen=True, slots=True)
class Piece:
    """A file to be made of a segment: an .mp4, or an .m4a where there are no pictures."""

    target: Path
    pictures: bool
    sound: bool


def cut(
    video: Path, segment: Segment, target: Path, *, pictures: bool, sound: bool, max_height_px: int = MAX_HEIGHT_PX
) -> None:
    """Write ``segment`` of ``video`` to ``target``. Its zero is the segment's start, and it lasts as long."""
    (problems,) = cut_segments(video, [(segment, [Piece(target, pictures, sound)])], max_height_px=max_height_px)
    if problems[0]:
        raise MediaError(problems[0])


def cut_segments(
    video: Path, orders: Sequence[tuple[Segment, Sequence[Piece]]], *, max_height_px: int = MAX_HEIGHT_PX
) -> Iterator[list[str]]:
    """``cut`` for several segments and several files of each; every picture is decoded and encoded once.

    For each segment in turn, one entry a piece: "" when it was written, or a sentence that says why not. In order of
    their beginnings it costs one pass over the file.
    """
    for piece in chain.from_iterable(pieces for _, pieces in orders):
        if not (piece.pictures or piece.sound):
            raise InputError(f"{piece.target}: neither pictures nor sound were asked for")
    if max_height_px < 2:
        raise InputError(f"max_height_px must be 2 or more, got {max_height_px}")
    segments: list[Segment | None] = [segment for segment, _ in orders]
    with ExitStack() as stack:
        frames = FrameReader(video, segments, max_side_px=math.ceil(max_height_px * WIDEST))
        stack.enter_context(frames)
        sounds = stack.enter_context(AudioReader(video, segments, rate_hz=SOUND_HZ))
        for number, (segment, pieces) in enumerate(orders):
            yield _Clip(video, segment, pieces, max_height_px).write(frames, sounds, number)


class _Clip:
    """The files of one segment, by way of one file of its pictures and one of its sound."""

    def __init__(self, video: Path, segment: Segment, pieces: Sequence[Piece], max_height_px: int) -> None:
        self._video, self._segment, self._pieces = video, segment, pieces
        self._max_height_px = max_height_px
        self._problems: dict[str, str] = {}  # by kind

    def write(self, frames: FrameReader, sounds: AudioReader, number: int) -> list[str]:
        folder = self._pieces[0].target.parent
        with disk_errors(folder), TemporaryDirectory(dir=folder, prefix=".cut-") as name:
            made = Path(name)
            if any(p.pictures for p in self._pieces):
                self._try("pictures", lambda path: self._write_pictures(frames.read(number), path), made)
            if any(p.sound for p in self._pieces):
                self._try("sound", lambda path: self._write_sound(sounds.read(number), path), made)
            return [self._finish(piece, made) for piece in self._pieces]

    def _try(self, kind: str, write: Any, folder: Path) -> None:
        try:
            write(folder / f"{kind}.mp4")
        except WorkError as e:
            self._problems[kind] = str(e)
        except av.FFmpegError as e:
            if isinstance(e, OSError) and e.errno in (28, 122):
                raise
            self._problems[kind] = f"{self._where()}: its {kind} could not be encoded: {reason(e)}"

    def _finish(self, piece: Piece, made: Path) -> str:
        kinds = [kind for kind, wanted in (("pictures", piece.pictures), ("sound", piece.sound)) if wanted]
        problem = next((self._problems[kind] for kind in kinds if kind in self._problems), "")
        if not problem:
            whole = made / f"whole{piece.target.suffix}"
            _mux([made / f"{kind}.mp4" for kind in kinds], whole)
            _move(whole, piece.target)
        return problem

    def _write_pictures(self, frames: Iterator[Frame], path: Path) -> None:
        first = next(frames, None)
        if first is None:
            raise MediaError(f"{self._where()}: no picture is shown there")
        size = _even_size(first.rgb.shape[1], first.rgb.shape[0], self._max_height_px)
        with av.open(f"file:{path}", "w", format="mp4", options=MP4) as out:
            stream, scaler = _picture_stream(out, size), VideoReformatter()
            ticks = _ticks(chain([first], frames), self._segment)
            lasts: dict[int, int] = {}  # ticks, by when a picture begins: the encoder would guess them
            for (pts, rgb), (next_pts, _) in pairwise(chain(ticks, [(self._num_ticks, None)])):
                picture = scaler.reformat(
                    av.VideoFrame.from_ndarray(rgb, "rgb24"),
                    *size,
                    "yuv420p",
                    dst_colorspace=Colorspace.ITU601,
                    dst_color_range=ColorRange.MPEG,
                    interpolation="BILINEAR",
                    threads=1,
                )
                picture.pts, picture.time_base = pts, Fraction(1, CLOCK_HZ)
                lasts[pts] = max(1, next_pts - pts)
                _write_packets(out, stream.encode(picture), lasts)
            _write_packets(out, stream.encode(None), lasts)

    def _write_sound(self, samples: Samples, path: Path) -> None:
        if not len(samples):
            raise MediaError(f"{self._where()}: there is no sound")
        length = round((self._segment.end_s - self._segment.start_s) * SOUND_HZ)
        padded = np.zeros(max(length, 1), np.float32)  # where the sound ends before the pictures
        padded[: len(samples)] = np.clip(samples, -1.0, 1.0)
        with av.open(f"file:{path}", "w", format="mp4", options=MP4) as out:
            stream: Any = out.add_stream("aac", rate=SOUND_HZ, layout="mono")
            stream.bit_rate = SOUND_BITS_PER_S
            out.start_encoding()
            for first in range(0, len(padded), 1024):
                sound = av.AudioFrame.from_ndarray(padded[None, first : first + 1024], "fltp", "mono")
                sound.rate, sound.time_base, sound.pts = SOUND_HZ, Fraction(1, SOUND_HZ), first
                out.mux(stream.encode(sound))
            out.mux(stream.encode(None))

    @property
    def _num_ticks(self) -> int:
        return max(1, round((self._segment.end_s - self._segment.start_s) * CLOCK_HZ))

    def _where(self) -> str:
        return f"{self._video} from {self._segment.start_s:.3f} to {self._segment.end_s:.3f} s"


def _even_size(width: int, height: int, max_height_px: int) -> tuple[int, int]:
    """H.264 halves the resolution of colour, so both sides are even: larger than the picture by at most one pixel."""
    scale = min(1.0, max_height_px / height)
    return tuple(max(2, 2 * round(side * scale / 2)) for side in (width, height))  # type: ignore[return-value]


def _picture_stream(out: Any, size: tuple[int, int]) -> Any:
    stream = out.add_stream("libx264", rate=25, options=H264)
    stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
    codec = stream.codec_context
    codec.time_base = stream.time_base = Fraction(1, CLOCK_HZ)
    codec.gop_size = KEY_EVERY
    codec.colorspace = codec.color_primaries = codec.color_trc = BT601
    codec.color_range = NARROW
    out.start_encoding()
    return stream


def _write_packets(out: Any, packets: Sequence[Any], lasts: dict[int, int]) -> None:
    for packet in packets:
        packet.duration = lasts.pop(packet.pts)
        out.mux(packet)


def _ticks(frames: Iterator[Frame], segment: Segment) -> Iterator[tuple[int, Any]]:
    """Pictures and when they are shown, counted from the segment's start. The first stands from the start on: before
    it the file shows what belongs to another segment, or nothing."""
    last = -1
    for frame in frames:
        pts = round((frame.time_s - segment.start_s) * CLOCK_HZ)
        if last < 0 and pts > LATE_S * CLOCK_HZ:
            yield 0, np.zeros_like(frame.rgb)
            last = 0
        elif last < 0:
            pts = 0
        if pts > last:
            yield pts, frame.rgb
            last = pts


def _mux(parts: Sequence[Path], target: Path) -> None:
    """One file with the streams of ``parts``, as they are."""
    with ExitStack() as stack:
        sources = [stack.enter_context(opened(part)) for part in parts]
        out = stack.enter_context(av.open(f"file:{target}", "w", format="mp4", options=MP4))
        streams = [out.add_stream_from_template(source.streams[0]) for source in sources]
        found = [
            (packet.dts * packet.time_base, stream, packet)
            for source, stream in zip(sources, streams, strict=True)
            for packet in source.demux()
            if packet.dts is not None
        ]
        for _, stream, packet in sorted(found, key=lambda entry: entry[0]):
            packet.stream = stream
            out.mux(packet)


def _move(made: Path, target: Path) -> None:
    """Into place, after it is on the disk."""
    with made.open("rb+") as f:
        os.fsync(f.fileno())
    made.replace(target)
