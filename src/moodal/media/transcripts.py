"""The words of a video and when they are said.

They come from a file beside the video with the same name (``.srt``, ``.vtt``, ``.ass``, ``.csv``, in this order), else
from a text subtitle stream inside it. A file that is there and broken is an error that names the line: text is what a
prediction rests on, and a line that is skipped in silence is missed by nobody.

The three caption formats are read here, not by pysubs2 1.8: that gives no line numbers, forgets who speaks in WebVTT,
and adds a comment (``NOTE``) or the name of a cue to the words said before it.
"""

from __future__ import annotations

import codecs
import csv
import html
import io
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from moodal.types import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from moodal.media.decode import SubtitleStream

log = logging.getLogger(__name__)

MAX_BYTES = 2**24  # a day of speech is less than 2 MB

_CLOCK = r"(?:(\d{1,4}):)?([0-5]?\d):([0-5]?\d)[.,](\d{1,3})"
_TIMING = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}(?:\s.*)?$")
_MEANT_AS_TIMING = re.compile(r"-->|^\s*\d+:\d\d(?::\d\d)?[.,]\d+\s*[-=]+>")
_ASS_CLOCK = re.compile(r"\s*(\d{1,4}):([0-5]?\d):([0-5]?\d)[.:](\d{1,3})\s*$")

_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^<>]+)>")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}")
_ASS_DRAWING = re.compile(r"\{[^{}]*\\p[1-9][^{}]*\}.*?(?:\{[^{}]*\\p0[^{}]*\}|$)")
_ASS_TAG = re.compile(r"\{[^{}]*\}")
_ASS_BREAK = re.compile(r"\\[Nnh]")

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """What is said from ``start_s`` to ``end_s`` of the video, without markup or line breaks."""

    start_s: float
    end_s: float
    text: str
    speaker: str | None = None


class Transcriber(Protocol):
    """Words from sound. ``rate_hz`` is the rate it wants."""

    name: str
    rate_hz: int

    def __call__(self, samples: npt.NDArray[np.float32], rate_hz: int) -> tuple[Line, ...]: ...


def read_transcript(video: Path) -> tuple[Line, ...]:
    """The lines of ``video`` by time; none where there is no transcript. Lines may overlap, as people do."""
    side_car = _side_car(video)
    if side_car:
        return _sorted(_READERS[side_car.suffix.lower()](side_car, _text_of(side_car)))
    stream = _text_stream(video)
    if stream is None:
        return ()
    from moodal.media.decode import read_subtitles

    captions = read_subtitles(video, stream.index)
    return _sorted(_line(c.start_s, c.end_s, _plain_ass(c.text), c.name) for c in captions)


def transcript_source(video: Path) -> str | None:
    """Where ``read_transcript`` finds its lines, for people to read; None where it finds none."""
    side_car = _side_car(video)
    if side_car:
        return str(side_car)
    stream = _text_stream(video)
    return f"subtitle stream {stream.index} ({stream.codec}) of {video}" if stream else None


def _side_car(video: Path) -> Path | None:
    if not video.is_file():
        raise InputError(f"{video} does not exist, or is no file")
    found = [p for suffix in _READERS for p in _with_suffix(video, suffix) if suffix != ".csv" or _is_transcript(p)]
    if len(found) > 1:
        log.info("%s is read; %s is left", found[0], ", ".join(str(p) for p in found[1:]))
    return found[0] if found else None


def _with_suffix(video: Path, suffix: str) -> list[Path]:
    return [p for s in (suffix, suffix.upper()) if (p := video.with_suffix(s)).is_file() and p != video][:1]


def _is_transcript(table: Path) -> bool:
    """Whether a CSV has at least one of our columns: face trackers write theirs under the same name."""
    with table.open("rb") as f:
        raw = f.read(4096)
    header = raw.decode(_encoding(raw), "replace").splitlines()[:1] or [""]
    return bool({"start_s", "end_s"} & {name.strip().strip('"') for name in header[0].split(",")})


def _text_stream(video: Path) -> SubtitleStream | None:
    from moodal.media.decode import probe

    streams = [s for s in probe(video).subtitles if s.is_text]
    return next((s for s in streams if s.is_default), streams[0] if streams else None)


def _sorted(lines: Iterable[Line | None]) -> tuple[Line, ...]:
    return tuple(sorted((x for x in lines if x), key=lambda x: (x.start_s, x.end_s)))


def _line(start_s: float, end_s: float, text: str, speaker: str | None) -> Line | None:
    """None where nothing is said, or for no time."""
    words, name = " ".join(text.split()), " ".join((speaker or "").split())
    return Line(start_s, end_s, words, name or None) if words and start_s < end_s else None


# Files


def _encoding(raw: bytes) -> str:
    return next((name for bom, name in _BOMS if raw.startswith(bom)), "utf-8")


def _text_of(path: Path) -> str:
    """UTF-8, or what its byte order mark says. Any other encoding would be a guess, and a wrong guess is no error
    later, only words that nobody said."""
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path} has more than {MAX_BYTES // 2**20} MB; that is no transcript")
    raw = path.read_bytes()
    try:
        text = raw.decode(_encoding(raw))
    except UnicodeDecodeError as e:
        line = raw[: e.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line}: not UTF-8 (byte {raw[e.start]:#04x}); save it as UTF-8, "
            "for example: iconv -f WINDOWS-1252 -t UTF-8"
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{path}, line {line}: a zero byte; if it is UTF-16, save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    whole = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)
    return (whole * 1000 + int(fraction.ljust(3, "0"))) / 1000


def _in_order(path: Path, number: int, start_s: float, end_s: float) -> tuple[float, float]:
    if end_s < start_s:
        raise InputError(f"{path}, line {number}: ends at {end_s:g} s, before its start at {start_s:g} s")
    return start_s, end_s


# SubRip and WebVTT


@dataclass(frozen=True, slots=True)
class _Cue:
    start_s: float
    end_s: float
    rows: list[str]  # all up to the next timing


def _cues(path: Path, rows: list[str]) -> list[_Cue]:
    cues: list[_Cue] = []
    for number, row in enumerate(rows, 1):
        match = _TIMING.match(row)
        if match:
            groups = match.groups()
            times = _in_order(path, number, _seconds(*groups[:4]), _seconds(*groups[4:]))
            if cues and cues[-1].rows and cues[-1].rows[-1].strip().isdigit():
                cues[-1].rows.pop()  # the number of this cue
            cues.append(_Cue(*times, []))
        elif _MEANT_AS_TIMING.search(row):
            raise InputError(f"{path}, line {number}: expected 00:00:01,000 --> 00:00:02,500, got {row.strip()[:80]!r}")
        elif cues:
            cues[-1].rows.append(row)
    return cues


def _read_srt(path: Path, text: str) -> Iterator[Line | None]:
    cues = _cues(path, text.split("\n"))
    if not cues and text.strip():
        raise InputError(f"{path}, line 1: no line like 00:00:01,000 --> 00:00:02,500 in it; that is no SubRip file")
    for cue in cues:
        yield _line(cue.start_s, cue.end_s, _TAG.sub("", "\n".join(cue.rows)), None)


def _read_vtt(path: Path, text: str) -> Iterator[Line | None]:
    if not text.startswith("WEBVTT"):
        raise InputError(f"{path}, line 1: a WebVTT file begins with WEBVTT")
    for cue in _cues(path, text.split("\n")):
        # a cue ends with an empty line; what follows is a comment or the name of the next cue
        last = next((i for i, row in enumerate(cue.rows) if not row.strip()), len(cue.rows))
        said = "\n".join(cue.rows[:last])
        voices = {html.unescape(name).strip() for name in _VOICE.findall(said)}
        speaker = voices.pop() if len(voices) == 1 else None
        yield _line(cue.start_s, cue.end_s, html.unescape(_TAG.sub("", said)), speaker)


# SubStation Alpha


def _read_ass(path: Path, text: str) -> Iterator[Line | None]:
    fields: list[str] = []
    section = ""
    for number, row in enumerate(text.split("\n"), 1):
        kind, _, rest = row.strip().partition(":")
        if row.strip().startswith("["):
            section = row.strip().lower()
        elif section == "[events]" and kind == "Format":
            fields = [name.strip().lower() for name in rest.split(",")]
        elif section == "[events]" and kind == "Dialogue":
            yield _dialogue(path, number, fields, rest)
    if not fields and text.strip():
        raise InputError(f"{path}, line 1: no [Events] with a Format line in it; that is no SubStation Alpha file")


def _dialogue(path: Path, number: int, fields: list[str], rest: str) -> Line | None:
    values = dict(zip(fields, rest.split(",", max(0, len(fields) - 1)), strict=False))
    start, end = (_ASS_CLOCK.match(values.get(name, "")) for name in ("start", "end"))
    if not (start and end and "text" in values):
        raise InputError(f"{path}, line {number}: expected the fields {', '.join(fields)}, got {rest.strip()[:80]!r}")
    times = _in_order(path, number, _seconds(*start.groups()), _seconds(*end.groups()))
    return _line(*times, _plain_ass(values["text"]), values.get("name"))


def _plain_ass(text: str) -> str:
    return _ASS_BREAK.sub(" ", _ASS_TAG.sub("", _ASS_DRAWING.sub("", text)))


# Tables


def _read_csv(path: Path, text: str) -> Iterator[Line | None]:
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        missing = [name for name in ("start_s", "end_s", "text") if name not in names]
        if missing:
            raise InputError(f"{path}, line 1: no column {' or '.join(missing)}; there are {', '.join(names)}")
        reader.fieldnames = names
        for row in reader:
            yield _row(path, reader.line_num, row)
    except csv.Error as e:
        raise InputError(f"{path}, line {reader.line_num + 1}: {e}") from e


def _row(path: Path, number: int, row: dict[str, Any]) -> Line | None:
    try:
        start_s, end_s = float(row["start_s"]), float(row["end_s"])
    except (TypeError, ValueError):
        start_s = end_s = math.nan
    if not (math.isfinite(start_s) and math.isfinite(end_s) and start_s >= 0):
        raise InputError(
            f"{path}, line {number}: start_s and end_s must be seconds from 0, "
            f"got {row['start_s']!r} and {row['end_s']!r}"
        )
    if None in row or row["text"] is None:
        raise InputError(f"{path}, line {number}: another number of values than columns; quote texts that have commas")
    return _line(*_in_order(path, number, start_s, end_s), row["text"], row.get("speaker"))


_READERS: dict[str, Callable[[Path, str], Iterator[Line | None]]] = {
    ".srt": _read_srt,
    ".vtt": _read_vtt,
    ".ass": _read_ass,
    ".csv": _read_csv,
}
SIDE_CARS = tuple(_READERS)  # where words beside a video may be


# Words from sound


class FasterWhisper:
    """A Whisper model on faster-whisper. ``model`` is a folder with a model, or the name of one in its local cache:
    nothing is downloaded."""

    rate_hz = 16_000

    def __init__(self, model: str, *, language: str | None = None, num_threads: int = 1) -> None:
        try:
            import faster_whisper  # type: ignore[import-not-found, unused-ignore]
        except ModuleNotFoundError as e:
            raise InputError(
                "writing down speech needs faster-whisper; install it: pip install faster-whisper. "
                "Or put the words beside the video as .srt, .vtt, .ass or .csv"
            ) from e
        self.name = f"faster-whisper:{model}"
        self._language = language
        try:
            self._model = faster_whisper.WhisperModel(
                model, device="cpu", compute_type="int8", cpu_threads=num_threads, local_files_only=True
            )
        except (OSError, RuntimeError, ValueError) as e:  # the hub's errors are OSErrors and ValueErrors
            raise InputError(f"there is no Whisper model {model!r} on this machine; give a folder with one: {e}") from e

    def __call__(self, samples: npt.NDArray[np.float32], rate_hz: int) -> tuple[Line, ...]:
        if rate_hz != self.rate_hz:
            raise InputError(f"{self.name} needs sound at {self.rate_hz} Hz, got {rate_hz}")
        if not len(samples):
            return ()
        segments, _ = self._model.transcribe(samples, language=self._language)
        return _sorted(_line(s.start, s.end, s.text, None) for s in segments)
