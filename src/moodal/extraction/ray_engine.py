"""Jobs on a Ray cluster: one actor per processor, which gives one file after the other to a process of its own.

What passes between machines is what to do and how it went, never media or features: a worker reads its file and writes
its part. So media and parts must lie, under the same path, on a file system that every node sees, and every node needs
the same moodal. ``RAY_ADDRESS`` names a running cluster; without it one starts on this machine and ends with the work.

A file that hangs or crashes costs its process and not the actor, so a time limit needs no network. An actor that dies
with its node costs one of the tries of the file it was at, which another node does again: what kills nodes ends too.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar

import moodal
from moodal.extraction.pool import DIED, LATE, START_LIMIT_S, OneWorker, Outcome
from moodal.types import InputError, WorkError

J = TypeVar("J")
GRACE_S = (
    START_LIMIT_S + 60.0
)  # an actor stops what is late itself; one that has not done so by then has lost its machine or its disk
WAIT_S = 60.0
CONNECT_S = 10.0
SETTINGS = ("MOODAL_", "OMP_", "MKL_", "OPENBLAS_")  # beginnings of variables that change what is computed, or where
STORE_BYTES = 100 * 2**20  # of the shared memory that Ray wants: nothing large passes through it
MAX_LOST_STARTS = 10  # actors in a row that died before they did anything
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Site:
    """What every node must be like: where the command runs, what it was told, and files that it sees too."""

    folder: str
    settings: Mapping[str, str]
    files: tuple[Path, ...]
    version: str = moodal.__version__


class Actor:
    """A processor of some node. It never works on a file itself, so it outlives every file."""

    _worker: OneWorker[Any]

    def settle(self, work: Callable[[Any], Any], site: Site) -> str:
        """Be as the command is, for the process to come; why this node cannot, or ""."""
        where = f"the Ray node {socket.gethostname()}"
        if site.version != moodal.__version__:
            return f"{where} has moodal {moodal.__version__}, the command is {site.version}; install the same on both"
        for name in [n for n in os.environ if n.startswith(SETTINGS)]:  # Ray sets some of its own
            del os.environ[name]
        os.environ.update(site.settings)
        with suppress(OSError):  # paths may be absolute; if they are not, they are missed below
            os.chdir(site.folder)
        for file in site.files:
            if not file.is_file():
                return f"{where} does not see {file}; media and results must lie on a disk that all nodes share"
        self._worker = OneWorker(work)
        return ""

    def run(self, job: Any, limit_s: float) -> tuple[Any, str, str]:
        """What the outcome says beside the job, which the command has."""
        outcome = self._worker.run(job, limit_s)
        return outcome.value, outcome.problem, outcome.kind


@dataclass
class _Place(Generic[J]):
    """An actor and what it was asked for: to settle (``job`` None), or a job. ``answer`` None: it is free."""

    actor: Any
    answer: Any
    job: J | None = None
    deadline: float = field(default=float("inf"))


class Cluster:
    """``run_jobs`` like the pool's. ``num_cpus``: how many processors the nodes have that are there now."""

    def __init__(self, site: Site) -> None:
        import ray

        self.num_cpus = int(ray.cluster_resources().get("CPU", 0))
        self._ray, self._site = ray, site
        self._crew: list[_Place[Any]] = []
        self._lost_starts = 0
        if not self.num_cpus:
            raise InputError("the Ray cluster has no CPU to work on; start a node with ray start --num-cpus")

    def run_jobs(
        self,
        work: Callable[[J], Any],
        jobs: Sequence[J],
        *,
        workers: int,
        limit_s: Callable[[J], float],
        on_start: Callable[[J], None] = lambda job: None,
    ) -> Iterator[Outcome[J]]:
        """Every job has one outcome, in the order in which they are ready. With a dead actor its job has died.

        Actors that find no free processor wait for one, so that nodes which come later have work too.
        """
        waiting = deque(jobs)
        crew: list[_Place[J]]
        crew = self._crew = []
        try:
            while waiting or any(p.job is not None for p in crew):
                while len(crew) < min(workers, len(waiting) + sum(p.job is not None for p in crew)):
                    crew.append(self._hire(work))
                for place in (p for p in crew if p.answer is None):
                    if waiting:
                        self._hand_out(place, waiting.popleft(), limit_s, on_start)
                for place in self._ready(crew):
                    is_alive, outcome = self._settled(place) if place.job is None else self._outcome(place)
                    if not is_alive:
                        self._dismiss(place)
                    if outcome:
                        yield outcome
        finally:
            self.close()

    def close(self) -> None:
        """End what is still at work, even where the outcomes were abandoned and nobody has told their iterator."""
        while self._crew:
            self._dismiss(self._crew[0])

    def _hire(self, work: Callable[[J], Any]) -> _Place[J]:
        actor = self._ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(Actor).remote()
        return _Place(actor, actor.settle.remote(work, self._site))

    def _dismiss(self, place: _Place[J]) -> None:
        self._crew.remove(place)
        with suppress(self._ray.exceptions.RayError):  # it is dead
            self._ray.kill(place.actor)

    def _hand_out(self, place: _Place[J], job: J, limit_s: Callable[[J], float], on_start: Callable[[J], None]) -> None:
        on_start(job)
        limit = limit_s(job)
        place.job, place.deadline = job, time.monotonic() + limit + GRACE_S
        place.answer = place.actor.run.remote(job, limit)

    def _ready(self, crew: Sequence[_Place[J]]) -> list[_Place[J]]:
        """Places with an answer, dead ones, and late ones; waits until there is one, or for ``WAIT_S``."""
        asked = [p for p in crew if p.answer is not None]
        patience = min(WAIT_S, max(0.0, min(p.deadline for p in asked) - time.monotonic()))
        answers = [p.answer for p in asked]
        found, _ = self._ray.wait(answers, num_returns=1, timeout=patience)
        if found:
            found, _ = self._ray.wait(answers, num_returns=len(answers), timeout=0)  # it gave one, there may be more
        elif all(p.job is None for p in asked):
            log.warning("no processor of the Ray cluster is free; waiting for one")
        ready = set(found)
        return [p for p in asked if p.answer in ready or p.deadline <= time.monotonic()]

    def _settled(self, place: _Place[J]) -> tuple[bool, None]:
        try:
            problem = self._ray.get(place.answer)
        except self._ray.exceptions.RayError as e:
            if isinstance(e, self._ray.exceptions.RayTaskError) or getattr(e, "actor_init_failed", False):
                raise InputError(f"a Ray node cannot run moodal: {_last_line(e)}; install the same everywhere") from e
            self._lost_starts += 1
            log.warning("a Ray actor died before its first file: %s", _last_line(e))
            if self._lost_starts >= MAX_LOST_STARTS:
                raise WorkError(f"{MAX_LOST_STARTS} Ray actors in a row died at once: {_last_line(e)}") from e
            return False, None
        if problem:
            raise InputError(problem)
        self._lost_starts, place.answer = 0, None
        return True, None

    def _outcome(self, place: _Place[J]) -> tuple[bool, Outcome[J]]:
        job, answer = place.job, place.answer
        place.job = place.answer = None
        late, place.deadline = place.deadline <= time.monotonic(), float("inf")
        assert job is not None
        try:
            value, problem, kind = self._ray.get(answer, timeout=0)
        except self._ray.exceptions.GetTimeoutError:
            assert late
            return False, Outcome(job, problem="took longer than its time limit, and its actor was stopped", kind=LATE)
        except self._ray.exceptions.RayError as e:
            return False, Outcome(job, problem=f"its Ray node or actor died ({type(e).__name__})", kind=DIED)
        return True, Outcome(job, value, problem, kind)


def _last_line(error: Exception) -> str:
    """Where Ray says why, after many lines of where."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)


@contextmanager
def ray_cluster(folder: Path, media: Sequence[Path], workers: int | None) -> Iterator[Cluster]:
    """The cluster that is connected already, that of ``RAY_ADDRESS``, or one on this machine with ``workers`` CPUs.

    ``folder``: where the results go; ``media``: some files that every node must see as well. Only what was begun here
    is ended: a connection, or a cluster.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nobody is told about it
    import ray

    mark = folder / f".ray-{socket.gethostname()}.partial-{os.getpid()}"  # a name that the next command cleans up
    with ExitStack() as to_end:
        to_end.callback(mark.unlink, missing_ok=True)
        mark.touch()
        if not ray.is_initialized():
            to_end.enter_context(
                redirect_stdout(sys.stderr)
            )  # Ray prints what it hears of its nodes: no result of ours
            to_end.callback(ray.shutdown)
            _connect(workers)
        settings = {n: v for n, v in os.environ.items() if n.startswith(SETTINGS)}
        cluster = Cluster(Site(str(Path.cwd()), settings, (mark, *media)))
        to_end.callback(cluster.close)
        yield cluster


def _connect(workers: int | None) -> None:
    import ray

    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            _refuse_silence(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                address="local",
                num_cpus=workers or os.cpu_count(),
                object_store_memory=STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address="127.0.0.1",  # nobody else's business
            )
    except (OSError, RuntimeError, ValueError) as e:
        what = f"the Ray cluster at RAY_ADDRESS={address}" if address else "a Ray cluster on this machine"
        raise InputError(f"no connection to {what}: {_last_line(e)}") from e


def _refuse_silence(address: str) -> None:
    """Ray itself would try for more than six minutes."""
    host, _, port = address.rpartition(":")
    if "/" not in address and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()


def needs_ray() -> None:
    """Said before any work, and without the second that importing it takes."""
    if find_spec("ray") is None:
        raise InputError("the engine ray needs the ray extra; run: pip install 'moodal[ray]'")
