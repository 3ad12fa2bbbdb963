"""Opening a file shortly before a moment, where that gives what reading from its beginning gives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av

from moodal.media.container import default_stream, opened, prepare, refuse, start_s_of, zero_of
from moodal.media.packets import demuxed

if TYPE_CHECKING:
    import av.container

NO_INDEX = {"mpeg", "avi"}  # after a seek the same picture may have another time; they are read from the beginning
PREROLL_S = 1.0  # decoders need a run-up, and containers store sound and pictures of one moment some way apart


@contextmanager
def opened_at(
    path: Path, kind: str, start_s: float, num_threads: int
) -> Iterator[tuple[av.container.InputContainer, Any, bool]]:
    """The open file, its stream of that ``kind`` ("video" or "audio"; None where it has none), and whether its index
    lies. It stands shortly before ``start_s`` or, where it has no index that can be trusted, at its beginning."""
    index_lies = False
    while True:
        with opened(path) as container:
            stream = default_stream(container.streams.video if kind == "video" else container.streams.audio)
            if stream:
                refuse(path, stream)
                prepare(container, stream, num_threads)
            has_index = container.format.name not in NO_INDEX and not index_lies
            if stream and has_index and start_s > PREROLL_S and not _sought(container, stream, start_s):
                index_lies = True
                continue
            yield container, stream, index_lies
            return


def _sought(container: av.container.InputContainer, stream: Any, start_s: float) -> bool:
    """Whether a seek lands where the stream still has something to decode at or before ``start_s``.

    Indices lie, and some formats land between key frames; then the first packets are too late, and nobody would notice
    that the beginning of the segment is missing. Packets are looked at, not decoded; then the seek is made again.
    """
    zero = zero_of(container)
    target = int((Fraction(start_s - PREROLL_S) + zero) / stream.time_base)
    try:
        container.seek(target, stream=stream)
        if not _lands(container, stream, zero, start_s):
            return False
        container.seek(target, stream=stream)
    except av.FFmpegError:
        return False
    return True


def _lands(container: av.container.InputContainer, stream: Any, zero: Fraction, start_s: float) -> bool:
    if not _has_something_at(stream, zero, start_s):
        return True
    for packet in demuxed(container, stream):
        if packet.pts is None or not packet.size:  # times are counted from the beginning; or the file ends here
            return False
        time_s = float(packet.pts * packet.time_base - zero)
        if packet.is_keyframe:
            return time_s <= start_s
        if time_s > start_s + PREROLL_S:
            return False
    return False


def _has_something_at(stream: Any, zero: Fraction, time_s: float) -> bool:
    """By its header; a stream that starts later or has ended is not waited for."""
    start_s = start_s_of(stream, zero)
    end_s = start_s + float(stream.duration * stream.time_base) if stream.duration else math.inf
    return start_s <= time_s < end_s
