"""Stages of the screening on all videos, in processes: what is measured is kept, what fails is written down."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from moodal.extraction.ledger import TRIES, Entry, Failures
from moodal.extraction.pool import run_jobs
from moodal.extraction.tries import run_tries
from moodal.screening.measures import VERSIONS, measure
from moodal.screening.parts import Job, Parts, Record, Span
from moodal.types import Segment

OnChange = Callable[[int, int, str], None]  # how many videos are done, of how many, which are under way
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """Spans of one video that a stage must have measured."""

    video: str
    spans: tuple[Span, ...]
    speech: tuple[Segment, ...] = ()


@dataclass
class Workshop:
    """Where the videos and the parts are, and who works. ``problems``: by video, why it cannot be screened;
    ``entries``: what became of each video in each stage."""

    videos: Path
    parts: Parts
    failures: Failures
    workers: int | None = None
    retry: bool = False
    on_change: OnChange | None = None
    problems: dict[str, str] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)

    def measure(self, stage: str, wanted: Sequence[Wanted], *, rate_hz: float = 0.0) -> dict[str, str]:
        """Everything wanted that is not there yet, measured; the key of each video's parts."""
        keys, jobs = {}, []
        for want in wanted:
            file = self.videos / want.video
            keys[want.video] = key = self.parts.key(stage, file, want.video, [VERSIONS[stage], rate_hz])
            there = self.parts.read(key)
            missing = tuple(s for s in want.spans if s not in there)
            if missing:
                job = Job(stage, file, want.video, missing, self.parts.path(key, missing), rate_hz, want.speech)
                jobs.append(job)
            else:
                self._note(stage, want.video, "done", "", key)
        self._work(stage, jobs, keys, len(wanted))
        return keys

    def _work(self, stage: str, jobs: Sequence[Job], keys: dict[str, str], total: int) -> None:
        if self.retry:
            self.failures.forget([keys[j.video] for j in jobs])
        todo = [j for j in jobs if self.failures.tries(keys[j.video]) < TRIES]
        for job in jobs:
            if job not in todo:
                self._fail(stage, job, keys[job.video], "skipped")
        before = total - len(todo)

        def show(done: int, under_way: str) -> None:
            if self.on_change:
                self.on_change(before + done, total, f"{stage}: {under_way}" if under_way else "")

        workers = max(1, min(self.workers or os.cpu_count() or 1, len(todo)))
        run = partial(run_jobs, measure, workers=workers, limit_s=limit_s)
        for outcome in run_tries(run, todo, self.failures, lambda j: (keys[j.video], j.video), show):
            job, key = outcome.job, keys[outcome.job.video]
            if outcome.problem:
                self._fail(stage, job, key, "failed")
            else:
                self.parts.add(job.part)
                self._note(stage, job.video, "done", "", key)

    def refuse(self, video: str, problem: str) -> None:
        """It is not looked at at all."""
        log.warning("%s: %s", video, problem)
        self.problems[video] = problem
        self.entries.append(Entry(video, "", "video", "failed", problem, 0, 0))

    def _fail(self, stage: str, job: Job, key: str, status: str) -> None:
        self.problems.setdefault(job.video, self.failures.last(key))
        self._note(stage, job.video, status, self.failures.last(key), key)

    def _note(self, stage: str, video: str, status: str, note: str, key: str) -> None:
        tries = self.failures.tries(key)
        self.entries.append(Entry(video, "", stage, status, note, 0, tries + (status == "done")))

    def read(self, key: str) -> dict[Span, Record]:
        return self.parts.read(key)


def limit_s(job: Job) -> float:
    """Ample at a third of real time of what is looked at, and for reading the file to get there."""
    try:
        size = job.file.stat().st_size
    except OSError:
        size = 0
    return 300.0 + 3 * sum(end - start for start, end in job.spans) + size / 30_000
