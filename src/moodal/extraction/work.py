"""One media file at a time: decoded once, every extractor run on each of its utterances, the result one file."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moodal.extraction.items import Item, Source
from moodal.features.extractor import Features, create_extractor
from moodal.files import write_atomic
from moodal.media import MediaError
from moodal.media.decode import MAX_DURATION_S, AudioBlock, Frame, Probe, decode, probe, read_audio, read_frames
from moodal.media.transcripts import Line, read_transcript
from moodal.types import InputError, Segment, WorkError

DONE, MISSING, FAILED, SKIPPED = "done", "missing", "failed", "skipped"
WHOLE_S = 60.0  # a file without segments that is longer is cut, so that memory does not grow with its length
SPAN_S = 30.0
MAX_SIDE_PX = 640  # faces in larger pictures are found as well in smaller ones, at a fraction of the time
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Job:
    """``extractors``: what reads each modality, as ``create_extractor`` takes it; ``part``: where the result goes."""

    source: Source
    extractors: Mapping[str, str]
    part: Path
    cut: str = "auto"


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
    lines, problem = _lines(job.source.file)
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
    return [_extract(_Media(file, item, extractors, found), item, speaker, problem) for item, speaker in items]


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


def _lines(file: Path) -> tuple[tuple[Line, ...], str]:
    """The transcript, or what is wrong with it: that costs the words, not the picture and the sound."""
    try:
        return read_transcript(file), ""
    except (InputError, MediaError) as e:
        return (), str(e)


def _extract(media: _Media, item: Item, speaker: str | None, problem: str) -> Extracted:
    out, extractors = Extracted(item, speaker), media.extractors
    if "text" in extractors:
        _stage(out, "text", lambda: _read(extractors["text"], item, problem))
    if "vision" in extractors:
        _stage(out, "vision", lambda: media.seen_by(extractors["vision"]))
    if "audio" in extractors:
        _stage(out, "audio", lambda: media.heard_by(extractors["audio"]))
    return out


def _read(reader: Any, item: Item, problem: str) -> Features | str:
    if item.text is None and problem:
        raise InputError(problem)
    return reader(item.text) if item.text else "no transcript"


class _Media:
    """Pictures and sound of one item: in one pass over the file where both are wanted, else one after the other."""

    def __init__(self, file: Path, item: Item, extractors: Mapping[str, Any], found: Probe) -> None:
        self.extractors = extractors
        self._file, self._segment, self._found = file, item.segment, found
        self._audio_hz = extractors["audio"].rate_hz if "audio" in extractors and found.audio else None
        self._blocks: list[Array] = []
        self._heard_all = False
        self._frames: Iterator[Frame] = iter(())

    def seen_by(self, watcher: Any) -> Features | str:
        if not self._found.video:
            return "no picture"
        self._frames = self._pictures(watcher.rate_hz)
        features: Features = watcher(self._frames)
        return features

    def heard_by(self, listener: Any) -> Features | str:
        if not self._found.audio:
            return "no sound"
        with suppress(MediaError):  # what is wrong with the sound is said when that is read alone
            for _ in self._frames:  # what vision left
                pass
        if self._heard_all and (self._blocks or self._segment):
            samples = np.concatenate(self._blocks) if self._blocks else np.zeros(0, np.float32)
        else:
            samples = read_audio(self._file, rate_hz=listener.rate_hz, segment=self._segment)
        if not len(samples):
            return "no sound in this stretch" if self._segment else "no sound"
        features: Features = listener(samples, listener.rate_hz)
        return features

    def _pictures(self, rate_hz: float) -> Iterator[Frame]:
        """The frames; the sound is kept on the way. Where there is no way for both, the pictures come alone."""
        num = 0
        if self._audio_hz is not None:
            try:
                for frame in self._both(rate_hz, self._audio_hz):
                    num += 1
                    yield frame
            except MediaError:
                if num:
                    raise
        if not num and not (self._heard_all and self._segment):
            yield from read_frames(self._file, rate_hz=rate_hz, segment=self._segment, max_side_px=MAX_SIDE_PX)

    def _both(self, frame_hz: float, audio_hz: int) -> Iterator[Frame]:
        for part in decode(
            self._file, frame_rate_hz=frame_hz, audio_rate_hz=audio_hz, segment=self._segment, max_side_px=MAX_SIDE_PX
        ):
            if isinstance(part, AudioBlock):
                self._blocks.append(part.samples)
            else:
                yield part
        self._heard_all = True


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
