"""Action units as OpenFace 2 writes them: reading its tables, and running it where it is installed.

OpenFace (Baltrusaitis et al., 2018, https://doi.org/10.1109/FG.2018.00019) is licensed for academic, non-commercial use
only. It is never part of this package: it is found as ``FeatureExtraction`` on the PATH, or named by ``OPENFACE_BIN``.
"""

from __future__ import annotations

import csv
import math
import os
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moodal.features.extractor import Features
from moodal.features.leashed import NOT_STARTED, leashed
from moodal.files import sha256
from moodal.types import InputError, WorkError

if TYPE_CHECKING:
    from moodal.media.decode import Frame

INTENSITIES = tuple(f"AU{n:02d}_r" for n in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45))
PRESENCES = tuple(f"AU{n:02d}_c" for n in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 28, 45))
AU_COLUMNS = INTENSITIES + PRESENCES  # 35, in the order of its tables

PROGRAM, PROGRAM_VARIABLE = "FeatureExtraction", "OPENFACE_BIN"
LICENCE = "OpenFace 2: academic, non-commercial"
MIN_CONFIDENCE = 0.7
START_LIMIT_S, FRAME_LIMIT_S = 120.0, 2.0  # it loads 300 MB of models, then manages a few frames a second or more
JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the table. ``frame`` counts from 1; ``face`` is 0 where the table does not tell faces apart."""

    frame: int
    face: int
    time_s: float
    usable: bool
    units: tuple[float, ...]


def read_openface(path: Path, *, face_id: int | None = None, min_confidence: float = MIN_CONFIDENCE) -> Features:
    """The 35 action units of one face, in ``AU_COLUMNS``' order, at the table's timestamps.

    Columns are found by name: versions differ in which they write, in what order, and in a space after each comma.
    Rows without success, with less confidence or with a value that is no number are left out. Of several faces the one
    with the most usable rows is taken, unless ``face_id`` names one.
    """
    rows = list(_rows(path, min_confidence))
    return _features(rows, [r.time_s for r in rows], face_id, str(path))


class OpenFace:
    """The extractor ``openface``: the frames of a clip through the installed OpenFace 2, 35 action units per frame.

    Frames without a face, or with a doubtful one, are left out. OpenFace adapts to the person over a clip, so a clip
    should hold one person and last some seconds.
    """

    name = "openface"
    version = "1"
    modality = "vision"
    licence = LICENCE
    commercial = False
    columns = AU_COLUMNS
    dim = len(AU_COLUMNS)  # 35

    def __init__(
        self, *, rate_hz: float = 25.0, min_confidence: float = MIN_CONFIDENCE, time_limit_s: float | None = None
    ) -> None:
        if not 0 < rate_hz <= 120:
            raise InputError(f"openface takes more than 0 and at most 120 frames per second, got {rate_hz}")
        self._program = find_openface()
        self._time_limit_s = time_limit_s
        self._min_confidence = min_confidence
        self.rate_hz = float(rate_hz)
        self.hop_s = 1 / self.rate_hz
        self.settings: dict[str, Any] = {
            "rate_hz": self.rate_hz,
            "min_confidence": min_confidence,
            "jpeg_quality": JPEG_QUALITY,
            "program_sha256": sha256(self._program),
        }

    def identity(self) -> dict[str, Any]:
        """The fields of a data set's ``FeatureSpec``."""
        names = ("name", "version", "modality", "dim", "hop_s", "licence", "columns")
        return {**{n: getattr(self, n) for n in names}, "settings": dict(self.settings)}

    def __call__(self, frames: Iterable[Frame]) -> Features:
        """frames: one clip, in order of time."""
        with tempfile.TemporaryDirectory(prefix="moodal-openface-") as temporary:
            pictures, out = Path(temporary) / "pictures", Path(temporary) / "out"
            pictures.mkdir()
            out.mkdir()
            times_s = _write_pictures(frames, pictures)
            if not times_s:
                return Features.missing(self.dim, "no frames")
            limit_s = self._time_limit_s or START_LIMIT_S + FRAME_LIMIT_S * len(times_s)
            table = _run(self._program, pictures, out, limit_s)
            rows = [r for r in _rows(table, self._min_confidence) if 1 <= r.frame <= len(times_s)]
            # its own timestamps suppose 30 pictures per second
            return _features(rows, [times_s[r.frame - 1] for r in rows], None, "OpenFace's table")


def find_openface() -> Path:
    """The installed program; where there is none, an error that says what to do and under which licence."""
    named = os.environ.get(PROGRAM_VARIABLE)
    found = shutil.which(named or PROGRAM)
    if found is None:
        where = f"{PROGRAM_VARIABLE} is {named!r}, which is no program" if named else f"there is no {PROGRAM} on PATH"
        raise InputError(
            f"OpenFace was not found: {where}; install OpenFace 2 (academic, non-commercial use only) and set "
            f"{PROGRAM_VARIABLE} to its {PROGRAM}, or use the extractor au_proxy"
        )
    return Path(found).resolve()  # it looks for its models beside itself


def _rows(path: Path, min_confidence: float) -> Iterator[_Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as f:
            lines = csv.reader(f)
            header = [name.strip() for name in next(lines, [])]
            column = _columns(header, path)
            for line in lines:
                if line:
                    yield _row(line, column, min_confidence, f"{path}, line {lines.line_num}")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (csv.Error, UnicodeDecodeError) as e:
        raise InputError(f"{path} is no table of OpenFace's: {e}") from e


def _columns(header: Sequence[str], path: Path) -> dict[str, int]:
    """Where each column is; all that are needed are there."""
    column = {name: i for i, name in reversed(list(enumerate(header)))}
    needed = ("frame", "timestamp", "confidence", "success", *AU_COLUMNS)
    absent = [name for name in needed if name not in column]
    if absent:
        raise InputError(
            f"{path} lacks {len(absent)} of OpenFace's columns, e.g. {absent[0]!r}; run FeatureExtraction with -aus"
        )
    return column


def _row(line: Sequence[str], column: dict[str, int], min_confidence: float, where: str) -> _Row:
    def value(name: str) -> float:
        try:
            text = line[column[name]].strip()
            return math.nan if "nan" in text.lower() else float(text)  # Windows builds write -nan(ind)
        except (IndexError, ValueError):
            raise InputError(f"{where}: {name} is no number; the table is damaged or cut off") from None

    def whole(name: str) -> int:
        number = value(name)
        if not (math.isfinite(number) and number == int(number)):
            raise InputError(f"{where}: {name} is no whole number; the table is damaged")
        return int(number)

    units = tuple(value(name) for name in AU_COLUMNS)
    time_s, confidence = value("timestamp"), value("confidence")
    numbers = all(map(math.isfinite, (*units, time_s, confidence)))
    usable = numbers and value("success") == 1 and confidence >= min_confidence
    return _Row(whole("frame"), whole("face_id") if "face_id" in column else 0, time_s, usable, units)


def _features(rows: Sequence[_Row], times_s: Sequence[float], face_id: int | None, where: str) -> Features:
    faces = {r.face for r in rows}
    if face_id is not None and face_id not in faces:
        raise InputError(f"{where} has no face {face_id}; there are: {', '.join(map(str, sorted(faces))) or 'none'}")
    chosen = _steadiest(rows) if face_id is None else face_id
    kept = [i for i, r in enumerate(rows) if r.usable and r.face == chosen]
    if not kept:
        return Features.missing(len(AU_COLUMNS), f"no face that OpenFace was sure of in {len(rows)} rows")
    values = np.array([rows[i].units for i in kept], np.float32)
    times = np.array([times_s[i] for i in kept], np.float64)
    return Features(values, times, _note(rows, chosen, len(kept), len(faces)))


def _steadiest(rows: Sequence[_Row]) -> int:
    """The face with the most usable rows; of equal ones the first in number."""
    usable = Counter(r.face for r in rows if r.usable)
    return min(usable, key=lambda face: (-usable[face], face), default=0)


def _note(rows: Sequence[_Row], chosen: int, num_kept: int, num_faces: int) -> str:
    num_rows = sum(r.face == chosen for r in rows)
    parts = [f"{num_rows - num_kept} of {num_rows} rows left out"] if num_kept < num_rows else []
    if num_faces > 1:
        parts.append(f"face {chosen} of {num_faces}")
    return "; ".join(parts)


def _write_pictures(frames: Iterable[Frame], folder: Path) -> list[float]:
    """Each frame as a picture whose name sorts by time; the frames' times."""
    try:
        import cv2
    except ImportError as e:
        raise InputError("OpenFace on video needs the video extra; run: pip install 'moodal[video]'") from e
    times_s = []
    for number, frame in enumerate(frames, start=1):
        path = folder / f"{number:08d}.jpg"
        bgr = np.ascontiguousarray(frame.rgb[..., ::-1])
        if not cv2.imwrite(str(path), bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
            raise WorkError(f"{path} could not be written; is there room in the folder for temporary files?")
        times_s.append(frame.time_s)
    return times_s


def _run(program: Path, pictures: Path, out: Path, limit_s: float) -> Path:
    """The table that OpenFace wrote. Its exit code says nothing: it is 0 after some failures."""
    command = [str(program), "-fdir", str(pictures), "-out_dir", str(out), "-of", "clip", "-aus", "-q"]
    said = out / "said.txt"
    code = _ended(command, out, said, limit_s)
    table = out / "clip.csv"
    if not table.is_file() or not _has_rows(table):
        raise WorkError(f"OpenFace ({program}) wrote no table; it ended with {code} and said: {_last_line(said)}")
    return table


def _ended(command: Sequence[str], folder: Path, said: Path, limit_s: float) -> int:
    """Runs the command in ``folder``, its words into the file ``said``; its exit code."""
    with said.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - an argument list, no shell
            leashed(command),
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired as e:
            raise WorkError(f"OpenFace ({command[0]}) was not done after {limit_s:.0f} s and was stopped") from e
        finally:
            _stop(process)
    if code == NOT_STARTED:
        raise InputError(f"{command[0]} could not be started as OpenFace: {_last_line(said)}")
    return code


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Also what it started: ``FeatureExtraction`` is often a script around the program."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin:
        process.stdin.close()


def _has_rows(table: Path) -> bool:
    with table.open("rb") as f:
        return sum(bool(line.strip()) for _, line in zip(range(2), f, strict=False)) == 2


def _last_line(said: Path) -> str:
    with said.open("rb") as f:
        f.seek(max(said.stat().st_size - 2000, 0))
        lines = f.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "nothing"
