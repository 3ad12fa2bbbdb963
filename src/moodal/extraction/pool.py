"""Processes for work on hostile files: one that hangs is killed, one that dies is replaced, and the rest goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from moodal.types import InputError, WorkError

J = TypeVar("J")
CONTEXT = multiprocessing.get_context("spawn")  # a forked child would inherit torch's thread pools
RAISED, DIED, LATE = "raised", "died", "late"
START_LIMIT_S = 300.0  # for a process to begin: a disk may be slow, and a machine full
LONGEST_WAIT_S = 3600.0  # the system counts it in milliseconds, of which 25 days are too many; then we wait again


@dataclass(frozen=True)
class Outcome(Generic[J]):
    """What came of a job. ``problem``: "" or what went wrong, in one line; ``kind``: how it was noticed."""

    job: J
    value: Any = None
    problem: str = ""
    kind: str = ""


@dataclass
class _Worker(Generic[J]):
    process: BaseProcess
    pipe: Connection
    job: J | None = None
    limit_s: float = 0.0
    has_begun: bool = False
    deadline: float = field(default=float("inf"))


def run_jobs(
    work: Callable[[J], Any],
    jobs: Sequence[J],
    *,
    workers: int,
    limit_s: Callable[[J], float],
    on_start: Callable[[J], None] = lambda job: None,
) -> Iterator[Outcome[J]]:
    """``work`` applied to every job in one of ``workers`` processes; outcomes in the order in which they are ready.

    A job that takes longer than ``limit_s`` of it (counted from when a process begins with it, not from when that
    process is started) has its process killed, and so has one whose process dies; both are outcomes, and another
    process takes the dead one's place. ``on_start`` is called before a job is handed out. ``work`` must be importable
    by name, because processes are started afresh.
    """
    waiting = deque(jobs)
    crew: list[_Worker[J]] = []
    try:
        while waiting or any(w.job is not None for w in crew):
            while waiting and len(crew) < workers:
                crew.append(_hire(work))
            for worker in (w for w in crew if w.job is None):
                if waiting:
                    _hand_out(worker, waiting.popleft(), limit_s, on_start)
            for worker in _ready(crew):
                outcome = _outcome(worker)
                if outcome.kind in (DIED, LATE):
                    crew.remove(worker)
                    _dismiss(worker)
                yield outcome
    finally:
        for worker in crew:
            _dismiss(worker)


class OneWorker(Generic[J]):
    """A process for one job after the other, for whoever hands them out himself; what ``run_jobs`` promises holds."""

    def __init__(self, work: Callable[[J], Any]) -> None:
        self._work = work
        self._worker: _Worker[J] | None = None

    def run(self, job: J, limit_s: float) -> Outcome[J]:
        worker = self._worker = self._worker or _hire(self._work)
        _hand_out(worker, job, lambda job: limit_s, lambda job: None)
        while not _ready([worker]):
            pass  # it waited as long as one can
        outcome = _outcome(worker)
        if outcome.kind in (DIED, LATE):
            self.close()
        return outcome

    def close(self) -> None:
        if self._worker:
            _dismiss(self._worker)
        self._worker = None


def _hire(work: Callable[[J], Any]) -> _Worker[J]:
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_serve, args=(theirs, work), daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for the command, which ends them
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return _Worker(process, ours)


def _hand_out(worker: _Worker[J], job: J, limit_s: Callable[[J], float], on_start: Callable[[J], None]) -> None:
    on_start(job)
    worker.job, worker.limit_s, worker.has_begun = job, limit_s(job), False
    worker.deadline = time.monotonic() + worker.limit_s + START_LIMIT_S
    with suppress(BrokenPipeError):  # it is dead: seen when its outcome is asked for
        worker.pipe.send(job)


def _ready(crew: Sequence[_Worker[J]]) -> list[_Worker[J]]:
    """Workers with an answer, dead ones, and late ones; waits until one of them may be."""
    busy = [w for w in crew if w.job is not None]
    patience = max(0.0, min(min(w.deadline for w in busy) - time.monotonic(), LONGEST_WAIT_S))
    found = connection.wait([w.pipe for w in busy], timeout=patience)
    answers = [w for w in busy if w.pipe in found and not _begins(w)]
    return answers or [w for w in busy if w.deadline <= time.monotonic()]


def _begins(worker: _Worker[Any]) -> bool:
    """Whether all that it has to say is that it begins with its job: its time counts from now."""
    if worker.has_begun:
        return False
    try:
        worker.pipe.recv()
    except (EOFError, ConnectionResetError):  # it died
        return False
    worker.has_begun, worker.deadline = True, time.monotonic() + worker.limit_s
    return True


def _outcome(worker: _Worker[J]) -> Outcome[J]:
    job, worker.job = worker.job, None
    assert job is not None
    if not worker.pipe.poll() or _begins(worker):
        return Outcome(job, problem="took longer than its time limit, and was stopped", kind=LATE)
    try:
        value, problem = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        return Outcome(job, problem=f"its process died ({_cause(worker.process.exitcode)})", kind=DIED)
    return Outcome(job, value, problem, RAISED if problem else "")


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


def _dismiss(worker: _Worker[Any]) -> None:
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


def _serve(pipe: Connection, work: Callable[[Any], Any]) -> None:
    """The life of a worker: it ends when the command is gone, whatever it is at."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            job = pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        with suppress(BrokenPipeError):
            pipe.send(None)  # it begins
        try:
            answer = work(job), ""
        except Exception as e:  # noqa: BLE001 (a foreign file may raise anything; it is the job's outcome)
            said = " ".join(str(e).split())
            answer = None, said if isinstance(e, InputError | WorkError) else f"{type(e).__name__}: {said}"
        with suppress(BrokenPipeError):  # the command is gone
            pipe.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
