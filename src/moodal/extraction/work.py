"""One media file at a time: every extractor run on each of its utterances, the result one file."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from moodal.extraction.items import Item, Source
from moodal.features.extractor import Features, create_extractor
from moodal.files import write_atomic
from moodal.media import MediaError
from moodal.media.decode import MAX_DURATION_S, AudioReader, FrameReader, Probe, probe, stream_audio
from moodal.media.transcripts import FasterWhisper, Line, read_transcript
from moodal.types import InputError, Segment, WorkError

DONE, MISSING, FAILED, SKIPPED = "done", "missing", "failed", "skipped"
WHOLE_S = 60.0  # a file without segments that is longer is cut, so that memory does not grow with its length
SPAN_S = 30.0
ASR_BLOCK_S = 600.0  # of speech written down at a time: a word at its edge may be lost
MAX_SIDE_PX = 640  # faces in larger pictures are found as well in smaller ones, at a fraction of the time
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Job:
    """``extractors``: what reads each modality, as ``create_extractor`` takes it; ``part``: where the result goes."""

    source: Source
    extractors: Mapping[str, str]
    part: Path
    cut: str = "auto"
    asr: str = ""


@dataclass(frozen=True)
class Stage:
    """What became of one modality of one utterance. ``note``: why it is missing or failed, or what to know."""

    status: str
    steps: int = 0
    seconds: float = 0.0
    note: str = ""


@dataclass
class Extracted:
    """One utterance: what was read from it, and how that went. ``values``: (T, D) float32 by modality."""

    item: Item
    speaker: str | None = None
    values: dict[str, Array] = field(default_factory=dict)
    times_s: dict[str, Array] = field(default_factory=dict)
    stages: dict[str, Stage] = field(default_factory=dict)


def extract_source(job: Job) -> str:
    """Write ``job.part``; a file that cannot be opened at all raises, anything less is a stage that failed.

    Returns why the part could not be written, or "": that is no fault of the file, and the next one would fare alike.
    """
    found = probe(job.source.file)
    lines, problem = lines_of(job.source.file, job.asr)
    items = cut_items(job.source.items, found, lines, job.cut)
    extractors = {m: extractor(spec) for m, spec in job.extractors.items()}
    extracted = extract_items(job.source.file, items, extractors, found=found, problem=problem)
    try:
        write_part(job.part, extracted)
    except OSError as e:
        return f"{job.part} could not be written: {e.strerror or e}"
    except InputError as e:  # the disk is full
        return str(e)
    return ""


def extract_items(
    file: Path,
    items: Sequence[tuple[Item, str | None]],
    extractors: Mapping[str, Any],
    *,
    found: Probe | None = None,
    problem: str = "",
) -> list[Extracted]:
    """What each extractor reads from each of these stretches of ``file``, in their order; nothing is written.

    ``items``: utterances with their speakers, as ``cut_items`` gives them. ``extractors``: by modality, the objects.
    ``found``: what ``probe`` said, if it was asked already. ``problem``: what is wrong with the file's transcript, said
    for an item without words. What one stage stumbles on is in its ``Stage`` and raises nothing; a file that cannot be
    opened at all does.
    """
    found = found or probe(file)
    if found.video is None and found.audio is None:
        raise MediaError(f"{file} has neither a picture nor a sound that can be read")
    with _Media(file, [item.segment for item, _ in items], extractors, found) as media:
        extracted = {k: _extract(media, k, *items[k], problem) for k in media.order}
    return [extracted[k] for k in range(len(items))]


def cut_items(items: Iterable[Item], found: Probe, lines: tuple[Line, ...], cut: str) -> list[tuple[Item, str | None]]:
    """The utterances of a file, with the words and the speaker that the transcript gives them.

    An item with a segment stays. A whole file is one utterance with ``cut`` "whole", one per line of the transcript
    with "transcript"; "auto" keeps files up to ``WHOLE_S`` whole, and cuts longer ones by the transcript or, without
    one, into equal spans of at most ``SPAN_S``. With words of its own it stays whole: no part of it has its words.
    """
    out: list[tuple[Item, str | None]] = []
    for item in items:
        whole = item.segment is None
        long = whole and item.text is None and (found.duration_s or 0.0) > WHOLE_S
        if whole and lines and (cut == "transcript" or (cut == "auto" and long)):
            for k, line in enumerate(line for line in lines if line.end_s > line.start_s):
                part = Item(f"{item.id}_{k:03d}", Segment(max(0.0, line.start_s), line.end_s), line.text)
                out.append((part, line.speaker))
        elif long and cut != "whole":
            out += [(part, None) for part in _spans(item, min(found.duration_s or 0.0, MAX_DURATION_S))]
        else:
            out.append(_with_words(item, lines))
    return out


def _spans(item: Item, duration_s: float) -> list[Item]:
    count = int(np.ceil(duration_s / SPAN_S))
    edges = np.linspace(0.0, duration_s, count + 1)
    return [Item(f"{item.id}_{k:03d}", Segment(float(edges[k]), float(edges[k + 1])), None) for k in range(count)]


def _with_words(item: Item, lines: tuple[Line, ...]) -> tuple[Item, str | None]:
    """Lines whose middle lies in the item, in order; the manifest's own words go before."""
    if item.text is not None:
        return item, None
    s = item.segment
    mine = [x for x in lines if s is None or s.start_s <= (x.start_s + x.end_s) / 2 < s.end_s]
    speakers = {x.speaker for x in mine}
    text = " ".join(x.text for x in mine) or None
    return Item(item.id, s, text), speakers.pop() if len(speakers) == 1 else None


def lines_of(file: Path, asr: str = "") -> tuple[tuple[Line, ...], str]:
    """The transcript, or what is wrong with it: that costs the words, not the picture and the sound.

    Where there is none, the Whisper model ``asr`` (as ``FasterWhisper`` takes it; "" for none) writes down the speech.
    """
    try:
        return read_transcript(file) or _written_down(file, asr), ""
    except (InputError, MediaError) as e:
        return (), str(e)


def _written_down(file: Path, asr: str) -> tuple[Line, ...]:
    if not asr:
        return ()
    listener = transcriber(asr)
    said = []
    for start_s, samples in stream_audio(file, rate_hz=listener.rate_hz, block_s=ASR_BLOCK_S):
        for line in listener(samples, listener.rate_hz):
            said.append(replace(line, start_s=start_s + line.start_s, end_s=start_s + line.end_s))
    return tuple(said)


@lru_cache(maxsize=1)
def transcriber(model: str) -> FasterWhisper:
    """One per process: it is large."""
    return FasterWhisper(model)


def _extract(media: _Media, number: int, item: Item, speaker: str | None, problem: str) -> Extracted:
    out, extractors = Extracted(item, speaker), media.extractors
    if "text" in extractors:
        _stage(out, "text", lambda: _read(extractors["text"], item, problem))
    if "vision" in extractors:
        _stage(out, "vision", lambda: media.seen(number))
    if "audio" in extractors:
        _stage(out, "audio", lambda: media.heard(number))
    return out


def _read(reader: Any, item: Item, problem: str) -> Features | str:
    if item.text is None and problem:
        raise InputError(problem)
    return reader(item.text) if item.text else "no transcript"


class _Media:
    """Pictures and sound of stretches of one file, read in order of time, whatever the order in which they came.

    Pictures and sound are read one after the other, not at once: what is wrong with the one costs nothing of the other,
    and neither waits in memory for the other.
    """

    def __init__(
        self, file: Path, segments: Sequence[Segment | None], extractors: Mapping[str, Any], found: Probe
    ) -> None:
        self.extractors = extractors
        self.order = sorted(range(len(segments)), key=lambda k: (s.start_s if (s := segments[k]) else 0.0, k))
        self._segments = segments
        self._readers = ExitStack()
        self._frames = self._sound = None
        if "vision" in extractors and found.video:
            rate_hz = extractors["vision"].rate_hz
            frames = FrameReader(file, segments, rate_hz=rate_hz, max_side_px=MAX_SIDE_PX)
            self._frames = self._readers.enter_context(frames)
        if "audio" in extractors and found.audio:
            sound = AudioReader(file, segments, rate_hz=extractors["audio"].rate_hz)
            self._sound = self._readers.enter_context(sound)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._readers.close()

    def seen(self, number: int) -> Features | str:
        if not self._frames:
            return "no picture"
        features: Features = self.extractors["vision"](self._frames.read(number))
        return features

    def heard(self, number: int) -> Features | str:
        if not self._sound:
            return "no sound"
        samples, rate_hz = self._sound.read(number), self.extractors["audio"].rate_hz
        if not len(samples):
            return "no sound in this stretch" if self._segments[number] else "no sound"
        features: Features = self.extractors["audio"](samples, rate_hz)
        return features


def _stage(out: Extracted, modality: str, read: Callable[[], Features | str]) -> None:
    """Run one stage: features, a sentence why there are none, or what went wrong."""
    began = time.perf_counter()
    try:
        found = read()
    except Exception as e:  # noqa: BLE001 (what one reader stumbles on may be no trouble for the others)
        said = " ".join(str(e).split())
        note = said if isinstance(e, InputError | WorkError) else f"{type(e).__name__}: {said}"
        out.stages[modality] = Stage(FAILED, 0, time.perf_counter() - began, note)
        return
    seconds = time.perf_counter() - began
    if isinstance(found, str):
        out.stages[modality] = Stage(MISSING, 0, seconds, found)
    elif not len(found.values):
        out.stages[modality] = Stage(MISSING, 0, seconds, found.note)
    elif not np.isfinite(found.values).all():
        out.stages[modality] = Stage(FAILED, 0, seconds, "the features are not finite")
    else:
        out.values[modality], out.times_s[modality] = found.values, found.times_s
        out.stages[modality] = Stage(DONE, len(found.values), seconds, found.note)


@lru_cache(maxsize=8)
def extractor(spec: str) -> Any:
    """One extractor per process: it may hold a network."""
    return create_extractor(spec)


def write_part(path: Path, extracted: list[Extracted]) -> None:
    """All utterances of one source in one .npz, which is there whole or not at all."""
    arrays: dict[str, Array] = {}
    meta = []
    for k, e in enumerate(extracted):
        for m, values in e.values.items():
            arrays[f"{k}.{m}"], arrays[f"{k}.{m}.times_s"] = values, e.times_s[m]
        s = e.item.segment
        meta.append(
            {
                "id": e.item.id,
                "start_s": s and s.start_s,
                "end_s": s and s.end_s,
                "text": e.item.text,
                "speaker": e.speaker,
                "stages": {m: vars(stage) for m, stage in e.stages.items()},
            }
        )
    said = np.frombuffer(json.dumps(meta, allow_nan=False).encode(), np.uint8)

    def write(partial: Path) -> None:
        with partial.open("wb") as f:
            np.savez(f, meta=said, **arrays)  # type: ignore[arg-type]

    write_atomic(path, write)


def read_part(path: Path) -> list[dict[str, Any]] | None:
    """What ``write_part`` noted of each utterance; None where there is no whole part. Arrays: ``read_values``."""
    if not zipfile.is_zipfile(path):  # numpy would leave it open
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            found: list[dict[str, Any]] = json.loads(file["meta"].tobytes())
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    return found


def read_values(places: Sequence[tuple[Path, int]], modality: str) -> Iterator[Array | None]:
    """(T, D) of each utterance, None where it is missing. ``places``: its part and its number there.

    Utterances of one part that follow each other are read with one opening: a long film has thousands.
    """
    for path, group in groupby(places, key=lambda place: place[0]):
        with np.load(path, allow_pickle=False) as file:
            for _, number in group:
                yield file.get(f"{number}.{modality}")
