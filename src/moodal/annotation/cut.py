"""The media that people label from: each clip as sound alone, as silent pictures, and whole, cut once and kept.

They lie in DIR/media/<condition>/ under names that tell nothing of the clip. A clip of which a file cannot be made is
left out, and DIR/media/ledger.parquet says why. Cutting again makes only what is not there yet.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from moodal.data.clips import Clip
from moodal.extraction.ledger import TRIES, Entry, Failures, write_ledger
from moodal.extraction.pool import RAISED, run_jobs
from moodal.files import disk_errors, only_one
from moodal.media.cutting import Piece, cut_segments
from moodal.types import InputError, Segment

SHOWS = {"audio": (False, True), "vision": (True, False), "full": (True, True)}  # pictures, sound
ENDINGS = {"audio": ".m4a", "vision": ".mp4", "full": ".mp4"}
BATCH = 16  # clips of one video, which share a reading of it
SLOWEST = 40.0  # times the length of the clips, that one batch may take beside reading its file
log = logging.getLogger(__name__)

OnChange = Callable[[int, int, str], None]  # how many clips are done, of how many, which videos are under way


@dataclass(frozen=True)
class CutJob:
    """Some clips of one video, and what is still to be made of each."""

    video: Path
    clips: tuple[Clip, ...]
    pieces: tuple[tuple[Piece, ...], ...]


@dataclass(frozen=True)
class Cuts:
    """``clips``: those of which everything is there, in their order; ``entries``: the ledger, in ``ledger``."""

    clips: tuple[Clip, ...]
    entries: tuple[Entry, ...]
    ledger: Path

    @property
    def failed(self) -> tuple[Entry, ...]:
        return tuple(e for e in self.entries if e.status != "done")


def media_path(media: Path, clip: Clip, condition: str) -> Path:
    """Where a clip's file lies; its name is the same whenever the clip is cut, and tells nothing."""
    said = json.dumps([clip.id, clip.video, clip.start_s, clip.end_s])
    return media / condition / f"{hashlib.sha256(said.encode()).hexdigest()[:32]}{ENDINGS[condition]}"


def cut_clips(
    videos: Path,
    clips: Sequence[Clip],
    conditions: Iterable[str],
    media: Path,
    *,
    workers: int | None = None,
    retry: bool = False,
    on_change: OnChange | None = None,
) -> Cuts:
    """Cut ``clips`` of the files in ``videos`` for each of ``conditions``. ``retry``: what was given up, too."""
    wanted = [c for c in conditions if c in SHOWS]  # text needs no file
    for condition in wanted:
        (media / condition).mkdir(parents=True, exist_ok=True)
    media.mkdir(exist_ok=True)
    with only_one(media):
        for left in (left for condition in wanted for left in (media / condition).glob(".cut-*")):
            shutil.rmtree(left, ignore_errors=True)  # by a process that was killed
        failures = Failures(media / "failures.jsonl")
        if retry:
            failures.forget([_key(c) for c in clips])
        _work(list(_jobs(videos, clips, wanted, media, failures)), len(clips), failures, workers, on_change)
        entries = [_entry(clip, condition, media, failures) for clip in clips for condition in wanted]
        write_ledger(entries, media / "ledger.parquet")
    lost = {e.id for e in entries if e.status != "done"}
    return Cuts(tuple(c for c in clips if c.id not in lost), tuple(entries), media / "ledger.parquet")


def _jobs(
    videos: Path, clips: Sequence[Clip], conditions: Sequence[str], media: Path, failures: Failures
) -> Iterator[CutJob]:
    todo = [
        (clip, pieces)
        for clip in clips
        if failures.tries(_key(clip)) < TRIES and (pieces := _missing(videos, clip, conditions, media))
    ]
    todo.sort(key=lambda entry: (entry[0].video, entry[0].start_s))
    for video, group in groupby(todo, key=lambda entry: entry[0].video):
        entries = list(group)
        for first in range(0, len(entries), BATCH):
            some = entries[first : first + BATCH]
            yield CutJob(videos / video, tuple(c for c, _ in some), tuple(p for _, p in some))


def _missing(videos: Path, clip: Clip, conditions: Sequence[str], media: Path) -> tuple[Piece, ...]:
    pieces = [Piece(media_path(media, clip, c), *SHOWS[c]) for c in conditions]
    return tuple(p for p in pieces if not _is_fresh(p.target, videos / clip.video))


def _is_fresh(target: Path, video: Path) -> bool:
    """It was made after the video was last changed. What is cut stays of use when its video is gone."""
    try:
        made = target.stat().st_mtime
    except OSError:
        return False
    try:
        return made >= video.stat().st_mtime
    except OSError:
        return True


def _work(jobs: list[CutJob], total: int, failures: Failures, workers: int | None, on_change: OnChange | None) -> None:
    """A batch whose process hung or died is cut clip by clip, so that only the clip that did it is lost."""
    done, under_way = total - sum(len(j.clips) for j in jobs), set[str]()

    def show() -> None:
        if on_change:
            on_change(done, total, "  ".join(sorted(under_way)))

    def begin(job: CutJob) -> None:
        under_way.add(job.video.name)
        show()

    show()
    while jobs:
        again: list[CutJob] = []
        num = max(1, min(workers or os.cpu_count() or 1, len(jobs)))
        for outcome in run_jobs(cut_job, jobs, workers=num, limit_s=_limit_s, on_start=begin):
            job = outcome.job
            under_way.discard(job.video.name)
            if outcome.kind and outcome.kind != RAISED and len(job.clips) > 1:
                again += [CutJob(job.video, (c,), (p,)) for c, p in zip(job.clips, job.pieces, strict=True)]
                continue
            problems = [outcome.problem] * len(job.clips) if outcome.problem else outcome.value
            for clip, problem in zip(job.clips, problems, strict=True):
                if problem:
                    failures.record(_key(clip), clip.video, problem)
                    log.warning("%s: %s", clip.id, problem)
            done += len(job.clips)
            show()
        jobs = again


def cut_job(job: CutJob) -> list[str]:
    """For each clip "" or the first thing that went wrong. Runs in a process of its own."""
    orders = [(Segment(clip.start_s, clip.end_s), pieces) for clip, pieces in zip(job.clips, job.pieces, strict=True)]
    with disk_errors(job.pieces[0][0].target):
        return [next((p for p in problems if p), "") for problems in cut_segments(job.video, orders)]


def _limit_s(job: CutJob) -> float:
    """Ample; a file without an index is read from its beginning."""
    length = sum(c.duration_s for c in job.clips)
    try:
        size = job.video.stat().st_size
    except OSError:
        size = 0
    return 300.0 + SLOWEST * length + size / 100_000


def _entry(clip: Clip, condition: str, media: Path, failures: Failures) -> Entry:
    tries = failures.tries(_key(clip))
    if media_path(media, clip, condition).is_file():
        return Entry(clip.video, clip.id, condition, "done", tries=tries + 1)
    note = failures.last(_key(clip)) if tries else "its file was made and is gone; cut again"
    return Entry(clip.video, clip.id, condition, "skipped" if tries >= TRIES else "failed", note, tries=tries)


def _key(clip: Clip) -> str:
    return hashlib.sha256(json.dumps([clip.id, clip.video, clip.start_s, clip.end_s]).encode()).hexdigest()[:32]


def refuse_without_clips(clips: Sequence[Clip], folder: Path) -> list[Clip]:
    """Those that passed; a folder in which none did has nothing to label."""
    passed = [c for c in clips if c.passed]
    if not passed:
        raise InputError(f"none of the {len(clips)} clips in {folder} passed the screening, so none can be labelled")
    return passed
