"""What was measured, on disk: per video and stage, files that are there whole or not at all, and are only ever added.

A part holds spans of one video and arrays for each. Thresholds are no part of it: what is measured stays, whichever
clips they let through; clips that come to be measured later go into another part of the same name.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moodal.files import write_atomic
from moodal.media.transcripts import SIDE_CARS
from moodal.types import Segment

Array = npt.NDArray[Any]
Span = tuple[float, float]  # a segment as a key
Record = Mapping[str, Array]  # what was measured of one span


@dataclass(frozen=True)
class Job:
    """Measure ``spans`` of ``file`` and write ``part``. ``speech``: when somebody speaks in the file, where known."""

    stage: str
    file: Path
    video: str
    spans: tuple[Span, ...]
    part: Path
    rate_hz: float = 0.0
    speech: tuple[Segment, ...] = ()


class Parts:
    """The folder of the parts. ``settings``: what changes the numbers of a stage, for its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[str, list[str]] = {}
        for path in sorted(folder.glob("*.npz")):
            self._names.setdefault(path.name.split(".")[0], []).append(path.name)

    def key(self, stage: str, file: Path, video: str, settings: object) -> str:
        """Names all that decides what a stage measures of a video."""
        beside = [file.name, *(file.stem + s for suffix in SIDE_CARS for s in (suffix, suffix.upper()))]
        state = [[name, *_size_and_time(file.parent / name)] for name in (beside if stage == "sound" else beside[:1])]
        said = json.dumps([stage, video, state, settings], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:24]

    def path(self, key: str, spans: Sequence[Span]) -> Path:
        return self.folder / f"{key}.{hashlib.sha256(json.dumps(spans).encode()).hexdigest()[:12]}.npz"

    def add(self, path: Path) -> None:
        self._names.setdefault(path.name.split(".")[0], []).append(path.name)

    def read(self, key: str) -> dict[Span, Record]:
        """All that was measured under ``key``; a part that cannot be read is as good as none."""
        found: dict[Span, Record] = {}
        for name in self._names.get(key, ()):
            found |= read_part(self.folder / name)
        return found


def write_part(path: Path, spans: Sequence[Span], records: Sequence[Record]) -> None:
    """Arrays of one name are laid one after the other along their first axis: a film has a thousand spans."""
    arrays: dict[str, Array] = {"spans": np.array(spans, np.float64).reshape(-1, 2)}
    for name in records[0] if records else ():
        values = [np.asarray(r[name]) for r in records]
        arrays[f"{name}.values"] = np.concatenate(values)
        arrays[f"{name}.lengths"] = np.array([len(v) for v in values], np.int64)

    def write(partial: Path) -> None:
        with partial.open("wb") as f:
            np.savez_compressed(f, **arrays)  # type: ignore[arg-type]

    write_atomic(path, write)


def read_part(path: Path) -> dict[Span, Record]:
    """By span, what ``write_part`` was given; nothing where there is no whole part."""
    if not zipfile.is_zipfile(path):  # numpy would leave it open
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        spans = [(float(a), float(b)) for a, b in arrays["spans"]]
        names = sorted(n.removesuffix(".values") for n in arrays if n.endswith(".values"))
        columns = [np.split(arrays[f"{n}.values"], np.cumsum(arrays[f"{n}.lengths"])[:-1]) for n in names]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return {}
    return {span: dict(zip(names, values, strict=True)) for span, *values in zip(spans, *columns, strict=True)}


def spans_of(items: Iterable[Any]) -> tuple[Span, ...]:
    return tuple((i.start_s, i.end_s) for i in items)


def _size_and_time(file: Path) -> list[int]:
    try:
        stat = file.stat()
    except (OSError, ValueError):  # it does not exist, or cannot
        return []
    return [stat.st_size, stat.st_mtime_ns]
