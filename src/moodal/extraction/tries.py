"""Jobs in processes, tried again where that may help; a try that failed is on the disk before anything else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from moodal.extraction.ledger import TRIES, Failures
from moodal.extraction.pool import RAISED, Outcome
from moodal.types import InputError

J = TypeVar("J")
log = logging.getLogger(__name__)


class Run(Protocol[J]):
    """``run_jobs``, or a cluster's, with everything but the jobs given."""

    def __call__(self, jobs: Sequence[J], /, *, on_start: Callable[[J], None]) -> Iterator[Outcome[J]]: ...


def run_tries(
    run: Run[J],
    todo: Sequence[J],
    failures: Failures,
    named: Callable[[J], tuple[str, str]],
    show: Callable[[int, str], None],
) -> Iterator[Outcome[J]]:
    """The last outcome of every job. One whose process hung or died is tried again, after all others.

    named: the job's key among the failures, and its video. show: is told how many jobs are over, and which videos are
    under way. A value that a job returns is a sentence about our own disk, and ends it all.
    """
    done, under_way = 0, set[str]()

    def begin(job: J) -> None:
        under_way.add(named(job)[1])
        show(done, "  ".join(sorted(under_way)))

    while todo:
        again = []
        for outcome in run(todo, on_start=begin):
            key, video = named(outcome.job)
            under_way.discard(video)
            if outcome.value:
                raise InputError(outcome.value)
            if outcome.problem:
                failures.record(key, video, outcome.problem)
                log.warning("%s: %s", video, outcome.problem)
                # what says why it cannot be read will say so again; a process may have died for other reasons
                if outcome.kind != RAISED and failures.tries(key) < TRIES:
                    again.append(outcome.job)
                    continue
            yield outcome
            done += 1
            show(done, "  ".join(sorted(under_way)))
        todo = again
