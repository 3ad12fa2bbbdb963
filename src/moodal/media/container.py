"""Opening a file that may be hostile: what it may ask for, its streams, and where its clock begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moodal.media import MediaError
from moodal.types import InputError

try:
    import av
    from av.stream import Discard, Disposition
except ModuleNotFoundError as e:
    raise InputError("reading video needs PyAV; install it: pip install 'moodal[video]'") from e

if TYPE_CHECKING:
    import av.container

# What a hostile file may ask for, at most.
MAX_PIXELS = 2**25  # in one picture: 8K film (7680 x 4320) passes
MAX_DURATION_S = 24 * 3600.0
MAX_GAP_S = 3600.0  # between two neighbouring timestamps; a larger jump is damage
MAX_STALL_S = 60.0  # of waiting for the disk
EDGE_S = 1e-6  # timestamps are fractions, the borders of a segment are floats

# Files that send the reader to other files or to the network, or that turn plain text into pictures.
NOT_MEDIA = {
    "hls",
    "concat",
    "dash",
    "imf",
    "sdp",
    "rtp",
    "rtsp",
    "lavfi",
    "image2",
    "tty",
    "bin",
    "xbin",
    "adf",
    "idf",
}


def existing(path: Path) -> Path:
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist, or is no file")
    return Path(path)


@contextmanager
def opened(path: Path) -> Iterator[av.container.InputContainer]:
    """The open file; closed when the block ends, also when a generator that is in it is thrown away."""
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": _formats(),
        "max_pixels": str(MAX_PIXELS),
        "threads": "1",
        "fflags": "-genpts",  # made-up timestamps: in AVI they put the pictures in the wrong order
    }
    # "file:" and an absolute path: a name may hold ":" and "%", or begin with "-"
    url = f"file:{existing(path).absolute()}"
    try:
        container = av.open(
            url, mode="r", options=options, metadata_errors="replace", timeout=(MAX_STALL_S, MAX_STALL_S)
        )
    except (av.FFmpegError, UnicodeError) as e:
        raise MediaError(f"{path} could not be opened as a video or a sound file: {reason(e)}") from e
    try:
        yield container
    finally:
        container.close()


@cache
def _formats() -> str:
    return ",".join(sorted(av.formats_available - NOT_MEDIA))


def reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)


def default_stream(streams: Sequence[Any]) -> Any:
    """The stream that a player would choose, or None. A picture attached to a song is not video."""
    real = [s for s in streams if not s.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)]
    return next((s for s in real if s.disposition & Disposition.default), real[0] if real else None)


def codec_name(stream: Any) -> str:
    return stream.codec_context.name if stream.codec_context else "unknown"


def zero_of(container: Any) -> Fraction:
    """Where the file's own clock stands when it begins, in seconds. The container rounds it to a microsecond; the
    stream that begins there knows it exactly."""
    if container.start_time is None:
        return Fraction(0)
    rounded = Fraction(container.start_time, av.time_base)
    starts = [s.start_time * s.time_base for s in container.streams if s.start_time is not None and s.time_base]
    nearest = min(starts, key=lambda start: abs(start - rounded), default=rounded)
    return nearest if abs(nearest - rounded) <= Fraction(1, av.time_base) else rounded


def start_s_of(stream: Any, zero: Fraction) -> float:
    if stream.start_time is None or not stream.time_base:
        return 0.0
    return float(stream.start_time * stream.time_base - zero)


def seconds_of(stamp: int | None, raw: av.VideoFrame | av.AudioFrame, zero: Fraction) -> float | None:
    return float(stamp * raw.time_base - zero) if stamp is not None and raw.time_base else None


def prepare(container: av.container.InputContainer, stream: Any, num_threads: int) -> None:
    """Only this stream is read. One thread unless asked: a process decodes one file, and no frame depends on timing."""
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    stream.codec_context.thread_type = "NONE" if num_threads == 1 else "AUTO"
    stream.codec_context.thread_count = num_threads
    if stream.type == "video":
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}


def refuse(path: Path, stream: Any) -> None:
    if stream.codec_context is None:
        raise MediaError(f"{path}: there is no decoder for its {stream.type}")
    if is_too_large(stream):
        raise MediaError(f"{path}: its pictures are {stream.width} x {stream.height}, more than {MAX_PIXELS} pixels")


def is_too_large(stream: Any) -> bool:
    return bool(stream.type == "video" and stream.width * stream.height > MAX_PIXELS)
