"""Processes that train: started afresh, deaf to Ctrl-C, gone when the command is; and how each of them computes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from moodal.types import WorkError

POLL_S = 0.5  # how often a command that waits for its workers looks around
Submit = Callable[..., Future[Any]]


@contextmanager
def worker_pool(workers: int) -> Iterator[Submit]:
    """What hands a function and its arguments to one of ``workers`` processes. An error in the block, or Ctrl-C, stops
    what they are at: it continues, or is done again, the next time."""
    # "spawn": a forked child would inherit torch's thread pools in an undefined state
    context = multiprocessing.get_context("spawn")
    listening, alive = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent, initargs=(listening,))

    def submit(*job: Any) -> Future[Any]:
        with _deaf_to_interrupts():
            return pool.submit(*job)

    try:
        yield submit
    except BrokenProcessPool as e:
        alive.close()
        raise WorkError("a training process died (out of memory?); run it again to continue, or use --workers 1") from e
    except BaseException:
        alive.close()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        alive.close()
        listening.close()


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started in this block never hear Ctrl-C: the command does, and ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent(listening: Connection) -> None:
    """A command that was killed must not leave workers behind that write into the folders it will continue."""

    def watch() -> None:
        connection.wait([listening])  # nobody ever writes: it ends when the other end closes, or its process does
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def training_numerics(threads: int) -> Iterator[None]:
    """How every run computes, in a report as in a search: so many threads, and numbers too small for full precision
    count as 0. Gradients over hundreds of steps, and moments of weights that hardly move, fade to such numbers, with
    which a CPU is slow."""
    before = torch.get_num_threads(), not bool(torch.full((), torch.finfo(torch.float32).tiny) / 2)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        with threadpool_limits(threads):  # numpy's and scikit-learn's threads
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_flush_denormal(before[1])
