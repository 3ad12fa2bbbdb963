"""Pictures and sound of a video file, with the times at which they are shown and heard.

**Times** are in seconds and count from the file's own zero: the earliest moment of any of its streams, as players show
it. Files often start elsewhere (a broadcast at 58 s, a phone with its sound 20 ms before the picture); taking the same
zero from both keeps the face and the voice together. Every time is a presentation timestamp, never a frame number over
a rate: phones and screen recorders change their rate as they go.

**Broken files** are normal. What cannot be decoded is left out, counted, and logged when the reading ends; only a file
of which nothing could be decoded is an error. Memory does not grow with the length of the file, but in ``read_audio``.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from moodal.media import MediaError
from moodal.types import InputError, Segment

try:
    import av
    from av.sidedata.sidedata import Type as SideData
    from av.stream import Discard, Disposition
    from av.video.reformatter import VideoReformatter
except ModuleNotFoundError as e:
    raise InputError("reading video needs PyAV; install it: pip install 'moodal[video]'") from e

if TYPE_CHECKING:
    import av.container

log = logging.getLogger(__name__)

# What a hostile file may ask for, at most.
MAX_PIXELS = 2**25  # in one picture: 8K film (7680 x 4320) passes
MAX_DURATION_S = 24 * 3600.0
MAX_GAP_S = 3600.0  # between two neighbouring timestamps; a larger jump is damage
MAX_READ_S = 4 * 3600.0  # of sound in one array
MAX_STALL_S = 60.0  # of waiting for the disk
SOURCE_RATES_HZ = (1_000, 768_000)
MAX_AMPLITUDE = 1_000.0  # of 1; what is louder is no sound

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

NO_INDEX = {"mpeg", "avi"}  # after a seek the same picture may have another time; they are read from the beginning

SYNC_S = 0.04  # how far sound may drift from its timestamps before it is set right: one picture of a film
PREROLL_S = 1.0  # decoders need a run-up, and containers store sound and pictures of one moment some way apart
EDGE_S = 1e-6  # timestamps are fractions, the borders of a segment are floats
BLOCK_S = 1.0  # of sound in one ``AudioBlock``
MAX_HELD_BYTES = 2**27  # of pictures that wait for the sound of the same time

FrameArray = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.float32]


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
class Subtitle:
    """One caption as the decoder gives it: ``text`` has the markup of SubStation Alpha, whatever it was before."""

    start_s: float
    end_s: float
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Probe:
    """What a file holds, by its header: of several streams of a kind the default one. Cover art is not video."""

    duration_s: float | None
    video: VideoStream | None
    audio: AudioStream | None
    subtitles: tuple[SubtitleStream, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture, upright and with square pixels: ``rgb`` is (H, W, 3)."""

    time_s: float
    rgb: FrameArray


@dataclass(frozen=True, slots=True, eq=False)
class AudioBlock:
    """Mono sound: ``samples[i]`` is heard at ``time_s + i / rate_hz``."""

    time_s: float
    samples: Samples
    rate_hz: int

    @property
    def end_s(self) -> float:
        return self.time_s + len(self.samples) / self.rate_hz


def probe(path: Path) -> Probe:
    """What ``path`` holds. Decodes at most the first pictures: only they tell how they are rotated."""
    with _opened(path) as container:
        zero = _zero(container)
        video, audio = _default(container.streams.video), _default(container.streams.audio)
        subtitles = tuple(
            SubtitleStream(
                s.index,
                _codec(s),
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
    settings = _Settings(segment, frame_rate_hz=_rate(rate_hz), max_side_px=max_side_px, num_threads=num_threads)
    return (item for item in _read(_existing(path), settings, audio=False) if isinstance(item, Frame))


def stream_audio(path: Path, *, rate_hz: int = 22_050, block_s: float = 10.0) -> Iterator[tuple[float, Samples]]:
    """``read_audio`` in blocks of ``block_s`` (the last is shorter), each with the time of its first sample."""
    settings = _Settings(None, audio_rate_hz=_audio_rate(rate_hz), block_s=_rate(block_s) or BLOCK_S)
    return _timed_blocks(_read(_existing(path), settings, video=False))


def read_audio(path: Path, *, rate_hz: int = 22_050, segment: Segment | None = None) -> Samples:
    """Mono waveform of ``path``, (samples,): sample ``i`` is heard at ``segment.start_s + i / rate_hz``.

    Channels are averaged, as librosa does. Where the file has no sound for a time (a late start, a lost packet) there
    is silence; after its last sample the array ends. Empty where there is no audio stream.
    """
    settings = _Settings(segment, audio_rate_hz=_audio_rate(rate_hz), block_s=60.0)
    blocks: list[Samples] = []
    for start_s, samples in _timed_blocks(_read(_existing(path), settings, video=False)):
        if start_s - settings.start_s > MAX_READ_S:
            raise InputError(
                f"{path} has more than {MAX_READ_S / 3600:g} h of sound, too much for one array; "
                "give a segment, or read it with stream_audio"
            )
        blocks.append(samples)
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def decode(
    path: Path,
    *,
    frame_rate_hz: float | None = None,
    audio_rate_hz: int = 22_050,
    segment: Segment | None = None,
    max_side_px: int | None = None,
    num_threads: int = 1,
) -> Iterator[Frame | AudioBlock]:
    """``read_frames`` and ``read_audio`` in one pass over the file, in order of time.

    A block comes when all of it has been heard: before the pictures that are later than its end. Frames among
    themselves and blocks among themselves are always in order; a file that stores sound and pictures of one moment far
    apart (more than ``MAX_HELD_BYTES`` of pictures) has them come as they are stored.
    """
    settings = _Settings(
        segment,
        frame_rate_hz=_rate(frame_rate_hz),
        max_side_px=max_side_px,
        audio_rate_hz=_audio_rate(audio_rate_hz),
        num_threads=num_threads,
    )
    return _read(_existing(path), settings)


def read_subtitles(path: Path, index: int) -> Iterator[Subtitle]:
    """The captions in stream ``index`` of ``path``, in the order of the file. Pictures of text are left out."""
    damage = _Damage(path)
    try:
        with _opened(path) as container:
            stream: Any = next((s for s in container.streams.subtitles if s.index == index), None)
            if stream is None:
                raise MediaError(f"{path}: there is no subtitle stream {index}")
            _refuse(path, stream)
            zero = _zero(container)
            _prepare(container, [stream], 1)
            for _, packet in _packets(container, [stream], damage):
                if packet and packet.size and packet.pts is not None:
                    yield from _captions(packet, zero, damage)
    finally:
        damage.log()


def _captions(packet: Any, zero: Fraction, damage: _Damage) -> Iterator[Subtitle]:
    start_s = float(packet.pts * packet.time_base - zero)
    end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base - zero)
    for part in _decoded(packet.stream, packet, damage):
        # ReadOrder, Layer, Style, Name, three margins, Effect, Text
        fields = getattr(part, "ass", b"").decode("utf-8", "replace").split(",", 8)
        if len(fields) == 9 and start_s < end_s:
            yield Subtitle(max(0.0, start_s), end_s, fields[3], fields[8])
        else:
            damage.add("a caption that cannot be read")


@dataclass(frozen=True, slots=True)
class _Settings:
    segment: Segment | None
    frame_rate_hz: float | None = None
    max_side_px: int | None = None
    audio_rate_hz: int = 22_050
    block_s: float = BLOCK_S
    num_threads: int = 1

    def __post_init__(self) -> None:
        if self.max_side_px is not None and self.max_side_px < 1:
            raise InputError(f"max_side_px must be 1 or more, got {self.max_side_px}")
        if self.num_threads < 1:
            raise InputError(f"num_threads must be 1 or more, got {self.num_threads}")

    @property
    def start_s(self) -> float:
        return self.segment.start_s if self.segment else 0.0

    @property
    def end_s(self) -> float:
        return min(self.segment.end_s, MAX_DURATION_S) if self.segment else MAX_DURATION_S


def _rate(value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise InputError(f"a rate or a length must be a number above 0, got {value}")
    return value


def _audio_rate(rate_hz: int) -> int:
    low, high = SOURCE_RATES_HZ
    if not (isinstance(rate_hz, int) and low <= rate_hz <= high):
        raise InputError(f"the audio rate must be a whole number of {low} to {high} Hz, got {rate_hz}")
    return rate_hz


def _existing(path: Path) -> Path:
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist, or is no file")
    return Path(path)


def _timed_blocks(items: Iterable[Frame | AudioBlock]) -> Iterator[tuple[float, Samples]]:
    return ((item.time_s, item.samples) for item in items if isinstance(item, AudioBlock))


# Opening


@contextmanager
def _opened(path: Path) -> Iterator[av.container.InputContainer]:
    """The open file; closed when the block ends, also when a generator that is in it is thrown away."""
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": _formats(),
        "max_pixels": str(MAX_PIXELS),
        "threads": "1",
        "fflags": "-genpts",  # made-up timestamps: in AVI they put the pictures in the wrong order
    }
    # "file:" and an absolute path: a name may hold ":" and "%", or begin with "-"
    url = f"file:{_existing(path).absolute()}"
    try:
        container = av.open(
            url, mode="r", options=options, metadata_errors="replace", timeout=(MAX_STALL_S, MAX_STALL_S)
        )
    except (av.FFmpegError, UnicodeError) as e:
        raise MediaError(f"{path} could not be opened as a video or a sound file: {_reason(e)}") from e
    try:
        yield container
    finally:
        container.close()


@cache
def _formats() -> str:
    return ",".join(sorted(av.formats_available - NOT_MEDIA))


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)


def _default(streams: Sequence[Any]) -> Any:
    """The stream that a player would choose, or None. A picture attached to a song is not video."""
    real = [s for s in streams if not s.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)]
    return next((s for s in real if s.disposition & Disposition.default), real[0] if real else None)


def _codec(stream: Any) -> str:
    return stream.codec_context.name if stream.codec_context else "unknown"


def _zero(container: Any) -> Fraction:
    """Where the file's own clock stands when it begins, in seconds. The container rounds it to a microsecond; the
    stream that begins there knows it exactly."""
    if container.start_time is None:
        return Fraction(0)
    rounded = Fraction(container.start_time, av.time_base)
    starts = [s.start_time * s.time_base for s in container.streams if s.start_time is not None and s.time_base]
    nearest = min(starts, key=lambda start: abs(start - rounded), default=rounded)
    return nearest if abs(nearest - rounded) <= Fraction(1, av.time_base) else rounded


def _start_s(stream: Any, zero: Fraction) -> float:
    if stream.start_time is None or not stream.time_base:
        return 0.0
    return float(stream.start_time * stream.time_base - zero)


def _video_stream(container: av.container.InputContainer, stream: Any, zero: Fraction) -> VideoStream:
    rate = stream.average_rate or stream.guessed_rate
    known = stream.codec_context  # None where there is no decoder
    turn = _Turn.of(_first_picture(container, stream)) if known else _Turn()
    return VideoStream(
        known.width if known else 0,
        known.height if known else 0,
        float(rate) if rate else None,
        turn.degrees,
        _codec(stream),
        _start_s(stream, zero),
    )


def _audio_stream(stream: Any, zero: Fraction) -> AudioStream:
    known = stream.codec_context
    rate_hz, channels = (known.sample_rate or 0, known.channels or 0) if known else (0, 0)
    return AudioStream(rate_hz, channels, _codec(stream), _start_s(stream, zero))


def _first_picture(container: av.container.InputContainer, stream: Any) -> av.VideoFrame | None:
    if stream.width * stream.height > MAX_PIXELS:
        return None
    _prepare(container, [stream], 1)
    try:
        return next((raw for packet in _demuxed(container, [stream]) for raw in packet.decode()), None)
    except av.FFmpegError:
        return None  # what is wrong with it is said when it is read


def _prepare(container: av.container.InputContainer, streams: Sequence[Any], num_threads: int) -> None:
    """One thread unless asked: a process decodes one file, and the frames cannot depend on timing."""
    for stream in container.streams:
        if stream not in streams:
            stream.discard = Discard.all
    for stream in streams:
        stream.codec_context.thread_type = "NONE" if num_threads == 1 else "AUTO"
        stream.codec_context.thread_count = num_threads
        if stream.type == "video":
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}


# Reading


def _read(path: Path, settings: _Settings, *, video: bool = True, audio: bool = True) -> Iterator[Frame | AudioBlock]:
    """The one pass behind all readers."""
    damage = _Damage(path)
    try:
        with _opened_at(path, settings, video=video, audio=audio) as (container, streams, zero):
            makers: dict[int, _Pictures | _Sound] = {
                s.index: (_Pictures if s.type == "video" else _Sound)(s, zero, settings, damage) for s in streams
            }
            yield from _in_order(_made(container, streams, makers, damage), {m.makes for m in makers.values()})
            if makers and not any(m.num_decoded for m in makers.values()):
                _complain(path, streams, settings, damage)
    finally:
        damage.log()


def _made(
    container: av.container.InputContainer,
    streams: Sequence[Any],
    makers: dict[int, _Pictures | _Sound],
    damage: _Damage,
) -> Iterator[Frame | AudioBlock]:
    """Frames and blocks in the order in which the file stores them."""
    for stream, packet in _packets(container, streams, damage):
        maker = makers[stream.index]
        if not maker.is_done:
            for raw in _decoded(stream, packet, damage):
                yield from maker.add(raw)
        if all(m.is_done for m in makers.values()):
            break
    for maker in makers.values():
        yield from maker.finish()


def _packets(
    container: av.container.InputContainer, streams: Sequence[Any], damage: _Damage
) -> Iterator[tuple[Any, Any]]:
    """Stream and packet; an empty packet at the end makes the decoder give up what it holds back."""
    try:
        for packet in _demuxed(container, streams):
            if packet.is_corrupt:
                damage.add("a packet that is not whole")
            else:
                yield packet.stream, packet
    except av.FFmpegError as e:
        damage.add(_reason(e))
        yield from ((stream, None) for stream in streams)


def _demuxed(container: av.container.InputContainer, streams: Sequence[Any]) -> Iterator[Any]:
    while streams:
        try:
            yield from container.demux(*streams)
            return
        except IndexError:  # a packet of a stream that began after the opening: PyAV stumbles, and has passed it
            continue


def _decoded(stream: Any, packet: Any, damage: _Damage) -> list[Any]:
    try:
        raws: list[Any] = stream.decode(packet)
    except av.FFmpegError as e:
        if not isinstance(e, av.EOFError):
            damage.add(_reason(e))
        return []
    whole = [raw for raw in raws if not getattr(raw, "is_corrupt", False)]  # subtitles do not say
    if len(whole) < len(raws):
        damage.add("a picture or sound that is not whole", len(raws) - len(whole))
    return whole


def _complain(path: Path, streams: Sequence[Any], settings: _Settings, damage: _Damage) -> None:
    """Nothing came. That is an error unless the streams are empty by their own account, or the segment is elsewhere."""
    kinds = " and ".join(str(s.type) for s in streams)
    if damage.count:
        raise MediaError(f"{path}: nothing of its {kinds} could be decoded: {damage.first}")
    if not settings.segment and any(s.frames or s.duration for s in streams):
        raise MediaError(f"{path}: nothing of its {kinds} is there; the file ends after its header")


class _Damage:
    """What could not be decoded: how much, and what was said the first time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.first = ""

    def add(self, what: str, count: int = 1) -> None:
        self.count += count
        self.first = self.first or what

    def log(self) -> None:
        if self.count:
            log.warning("%s: %d damaged pieces were left out; the first: %s", self.path, self.count, self.first)


# Seeking


@contextmanager
def _opened_at(
    path: Path, settings: _Settings, *, video: bool, audio: bool
) -> Iterator[tuple[av.container.InputContainer, list[Any], Fraction]]:
    """The open file, shortly before the segment where its index can be trusted, else at its beginning."""
    may_seek = settings.start_s > PREROLL_S
    while True:
        with _opened(path) as container:
            wanted = [container.streams.video] * video + [container.streams.audio] * audio
            streams = [s for s in map(_default, wanted) if s]
            for stream in streams:
                _refuse(path, stream)
            zero = _zero(container)
            _prepare(container, streams, settings.num_threads)
            may_seek = may_seek and container.format.name not in NO_INDEX
            if streams and may_seek and not _sought(container, streams, zero, settings.start_s):
                may_seek = False
                continue
            yield container, streams, zero
            return


def _refuse(path: Path, stream: Any) -> None:
    if stream.codec_context is None:
        raise MediaError(f"{path}: there is no decoder for its {stream.type}")
    if stream.type == "video" and stream.width * stream.height > MAX_PIXELS:
        raise MediaError(f"{path}: its pictures are {stream.width} x {stream.height}, more than {MAX_PIXELS} pixels")


def _sought(container: av.container.InputContainer, streams: Sequence[Any], zero: Fraction, start_s: float) -> bool:
    """Whether a seek lands where every stream still has something to decode at or before ``start_s``.

    Indices lie, and some formats land between key frames; then the first packets are too late, and nobody would notice
    that the beginning of the segment is missing. Packets are looked at, not decoded; then the seek is made again.
    """
    leader = streams[0]
    target = int((Fraction(start_s - PREROLL_S) + zero) / leader.time_base)
    try:
        container.seek(target, stream=leader)
        if not _lands(container, streams, zero, start_s):
            return False
        container.seek(target, stream=leader)
    except av.FFmpegError:
        return False
    return True


def _lands(container: av.container.InputContainer, streams: Sequence[Any], zero: Fraction, start_s: float) -> bool:
    waiting = {s.index for s in streams if _has_something_at(s, zero, start_s)}
    for packet in _demuxed(container, streams):
        if not waiting:
            break
        if packet.pts is None or not packet.size:  # times are counted from the beginning; or the file ends here
            return False
        time_s = float(packet.pts * packet.time_base - zero)
        if packet.stream_index in waiting and packet.is_keyframe:
            if time_s > start_s:
                return False
            waiting.discard(packet.stream_index)
        elif time_s > start_s + PREROLL_S:
            return False
    return not waiting


def _has_something_at(stream: Any, zero: Fraction, time_s: float) -> bool:
    """By its header; a stream that starts later or has ended is not waited for."""
    start_s = _start_s(stream, zero)
    end_s = start_s + float(stream.duration * stream.time_base) if stream.duration else math.inf
    return start_s <= time_s < end_s


def _seconds(stamp: int | None, raw: av.VideoFrame | av.AudioFrame, zero: Fraction) -> float | None:
    return float(stamp * raw.time_base - zero) if stamp is not None and raw.time_base else None


# Pictures


class _Pictures:
    """Makes ``Frame``s of decoded pictures: those in the segment, one per interval, upright, at their size."""

    makes: type = Frame

    def __init__(self, stream: Any, zero: Fraction, settings: _Settings, damage: _Damage) -> None:
        self.num_decoded = 0
        self.is_done = False
        self._zero = zero
        self._settings = settings
        self._damage = damage
        self._reformatter = VideoReformatter()
        self._rotation: int | None = None
        self._turn = _Turn()
        self._start = stream.start_time
        self._step_s = float(1 / (stream.average_rate or stream.guessed_rate or 25))
        self._lag: int | None = None  # in ticks
        self._aspect = _aspect(stream)
        self._last_s: float | None = None
        self._interval = -1
        # timestamps are rounded to the stream's tick: an interval begins half a tick early
        self._slack_s = max(float(stream.time_base) / 2, EDGE_S) if stream.time_base else EDGE_S

    def add(self, raw: av.VideoFrame) -> Iterator[Frame]:
        self.num_decoded += 1
        time_s = self._time(raw)
        if time_s is None or time_s + EDGE_S < self._settings.start_s:
            return
        if time_s + EDGE_S >= self._settings.end_s:
            self.is_done = True
        elif self._is_first_of_interval(time_s):
            try:
                rgb = self._rgb(raw)
            except (av.FFmpegError, ValueError) as e:
                self._damage.add(_reason(e))
                return
            yield Frame(time_s, rgb)

    def finish(self) -> Iterator[Frame]:
        return iter(())

    def _time(self, raw: av.VideoFrame) -> float | None:
        """None: before the file's zero, or at a time that cannot be."""
        last_s = self._last_s
        time_s = self._stamp(raw)
        if time_s is None:  # a bare stream without a container
            time_s = 0.0 if last_s is None else last_s + self._step_s
        after = max(self._settings.start_s, last_s or 0.0)
        if (last_s is not None and time_s <= last_s) or time_s > min(after + MAX_GAP_S, MAX_DURATION_S):
            self._damage.add(f"a picture at {time_s:.3f} s after one at {last_s or 0.0:.3f} s")
            return None
        if time_s < 0:
            return None
        self._last_s = time_s
        return time_s

    def _stamp(self, raw: av.VideoFrame) -> float | None:
        """AVI stores only when pictures are decoded. Those times, in order, are when they are shown, less the time by
        which the decoder holds the first one back."""
        if self.num_decoded == 1 and raw.pts is None and raw.dts is not None:
            self._lag = raw.dts - (self._start or 0)
        if raw.dts is not None and (self._lag is not None or raw.pts is None):
            return _seconds(raw.dts - (self._lag or 0), raw, self._zero)
        return _seconds(raw.pts, raw, self._zero)

    def _is_first_of_interval(self, time_s: float) -> bool:
        if self._settings.frame_rate_hz is None:
            return True
        interval = math.floor((time_s + self._slack_s) * self._settings.frame_rate_hz)
        if interval == self._interval:
            return False
        self._interval = interval
        return True

    def _rgb(self, raw: av.VideoFrame) -> FrameArray:
        width, height = _size(raw.width, raw.height, self._aspect, self._settings.max_side_px)
        scaled = self._reformatter.reformat(raw, width, height, "rgb24", interpolation="AREA", threads=1)
        if raw.rotation != self._rotation:
            self._rotation, self._turn = raw.rotation, _Turn.of(raw)
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
class _Turn:
    """What a display matrix asks for, to the nearest quarter: swap the axes, then mirror them."""

    swap: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @classmethod
    def of(cls, raw: av.VideoFrame | None) -> _Turn:
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


# Sound


class _Sound:
    """Lays decoded sound on an even grid of samples that begins with the segment, and cuts it into blocks.

    Sound that follows on is resampled as one run. Where its timestamps leave the grid by more than ``SYNC_S`` a new
    run begins where they say: a gap becomes silence, what would come twice is dropped. Within a run the place of a
    sample is right to half a sample.
    """

    makes: type = AudioBlock

    def __init__(self, stream: Any, zero: Fraction, settings: _Settings, damage: _Damage) -> None:
        self.num_decoded = 0
        self._zero = zero
        self._damage = damage
        self._start_s = settings.start_s
        self._rate_hz = settings.audio_rate_hz
        self._end = round((settings.end_s - settings.start_s) * self._rate_hz)  # in samples, as all below
        self._block = np.zeros(max(1, round(settings.block_s * self._rate_hz)), np.float32)
        self._filled = 0
        self._written = 0  # all that was given out or stands in the block
        self._run: _Run | None = None

    @property
    def is_done(self) -> bool:
        return self._written >= self._end

    def add(self, raw: av.AudioFrame) -> Iterator[AudioBlock]:
        self.num_decoded += 1
        mono = self._mono(raw)
        if mono is None or not len(mono):
            return
        time_s = _seconds(raw.pts, raw, self._zero)
        expected_s = self._run.end_s if self._run else None
        if time_s is None:  # it follows on, or it is the first
            time_s = expected_s if expected_s is not None else 0.0
        if time_s > min(max(self._start_s, expected_s or 0.0) + MAX_GAP_S, MAX_DURATION_S):
            self._damage.add(f"sound at {time_s:.3f} s after sound at {expected_s or 0.0:.3f} s")
            return
        if self._run is None or self._run.source_hz != raw.sample_rate or abs(time_s - self._run.end_s) > SYNC_S:
            yield from self._end_run()
            self._run = _Run(time_s, raw.sample_rate, self._rate_hz, self._start_s)
        yield from self._place(*self._run.add(mono))

    def finish(self) -> Iterator[AudioBlock]:
        yield from self._end_run()
        if self._filled:
            yield self._give(self._block[: self._filled])

    def _end_run(self) -> Iterator[AudioBlock]:
        if self._run:
            yield from self._place(*self._run.finish())
            self._run = None

    def _place(self, first: int, samples: Samples) -> Iterator[AudioBlock]:
        """Sample ``first`` of the grid is ``samples[0]``: silence up to it, nothing twice, nothing after the end."""
        yield from self._write(None, min(first, self._end) - self._written)
        samples = samples[max(0, self._written - first) :]
        yield from self._write(samples, min(len(samples), self._end - self._written))

    def _write(self, samples: Samples | None, count: int) -> Iterator[AudioBlock]:
        """``count`` samples into the block, and full blocks out; None is silence."""
        done = 0
        while done < count:
            step = min(count - done, len(self._block) - self._filled)
            here = self._block[self._filled : self._filled + step]
            here[:] = 0.0 if samples is None else samples[done : done + step]
            done += step
            self._filled += step
            self._written += step
            if self._filled == len(self._block):
                yield self._give(self._block)

    def _give(self, samples: Samples) -> AudioBlock:
        first = self._written - self._filled
        self._filled = 0
        return AudioBlock(self._start_s + first / self._rate_hz, samples.copy(), self._rate_hz)

    def _mono(self, raw: av.AudioFrame) -> Samples | None:
        low, high = SOURCE_RATES_HZ
        if not low <= raw.sample_rate <= high:
            self._damage.add(f"sound at {raw.sample_rate} Hz")
            return None
        try:
            mono = _mono(raw)
        except ValueError as e:
            self._damage.add(_reason(e))
            return None
        loud = ~(np.abs(mono) <= MAX_AMPLITUDE)  # or not a number
        if loud.any():
            self._damage.add("samples that are no sound")
            mono[loud] = 0.0
        return mono


class _Run:
    """Sound without a gap: resampled as it comes. Counted on the grid of the output from ``start_s``."""

    def __init__(self, time_s: float, source_hz: int, rate_hz: int, start_s: float) -> None:
        import soxr

        self.source_hz = source_hz
        self._time_s = time_s
        self._num_in = 0
        self._next = round((time_s - start_s) * rate_hz)
        self._soxr = soxr.ResampleStream(source_hz, rate_hz, 1, dtype="float32", quality="HQ")  # as librosa's loader

    @property
    def end_s(self) -> float:
        return self._time_s + self._num_in / self.source_hz

    def add(self, mono: Samples) -> tuple[int, Samples]:
        self._num_in += len(mono)
        return self._placed(self._soxr.resample_chunk(mono))

    def finish(self) -> tuple[int, Samples]:
        return self._placed(self._soxr.resample_chunk(np.zeros(0, np.float32), last=True))

    def _placed(self, samples: Samples) -> tuple[int, Samples]:
        first = self._next
        self._next += len(samples)
        return first, samples


def _mono(raw: av.AudioFrame) -> Samples:
    """Mean of the channels, full scale at 1."""
    values: npt.NDArray[Any] = raw.to_ndarray()  # (C, n), or interleaved (1, n * C)
    if not raw.format.is_planar:
        values = values.reshape(-1, raw.layout.nb_channels).T
    mono: Samples = values.astype(np.float32, copy=False).mean(0, dtype=np.float32)
    if values.dtype.kind == "f":
        return mono
    middle = 128 if values.dtype == np.uint8 else 0
    return (mono - np.float32(middle)) / np.float32(2.0 ** (8 * values.dtype.itemsize - 1))


# Order


def _in_order(items: Iterable[Frame | AudioBlock], kinds: set[type]) -> Iterator[Frame | AudioBlock]:
    """Two streams merged by time: the earlier of the two that wait goes first."""
    if len(kinds) < 2:
        yield from items
        return
    waiting: dict[type, deque[Frame | AudioBlock]] = {kind: deque() for kind in kinds}
    held = 0
    for item in items:
        waiting[type(item)].append(item)
        held += _size_in_bytes(item)
        while all(waiting.values()) or held > MAX_HELD_BYTES:
            first = _earliest(waiting)
            held -= _size_in_bytes(first)
            yield first
    while any(waiting.values()):
        yield _earliest(waiting)


def _earliest(waiting: dict[type, deque[Frame | AudioBlock]]) -> Frame | AudioBlock:
    return min((queue for queue in waiting.values() if queue), key=lambda queue: _order(queue[0])).popleft()


def _order(item: Frame | AudioBlock) -> float:
    return item.time_s if isinstance(item, Frame) else item.end_s


def _size_in_bytes(item: Frame | AudioBlock) -> int:
    return item.rgb.nbytes if isinstance(item, Frame) else item.samples.nbytes
