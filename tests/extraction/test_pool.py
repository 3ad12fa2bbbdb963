"""Whatever a job does to its process, every job has exactly one outcome and nothing is left running."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from moodal.extraction.pool import DIED, LATE, RAISED, run_jobs
from moodal.types import InputError


def misbehave(job: str) -> str:
    if job == "hang":
        time.sleep(600)
    if job == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job == "exit":
        os._exit(7)
    if job == "raise":
        raise ValueError("two\nlines")
    if job == "refuse":
        raise InputError("a sentence of ours")
    return job.upper()


@pytest.mark.parametrize("workers", [1, 3])
def test_every_job_has_one_outcome_whatever_the_others_do(workers: int) -> None:
    jobs = ["a", "hang", "b", "crash", "exit", "raise", "refuse", "c"]
    started: list[str] = []
    limit = {"hang": 3.0}
    found = {
        o.job: (o.value, o.kind, o.problem)
        for o in run_jobs(
            misbehave, jobs, workers=workers, limit_s=lambda j: limit.get(j, 120.0), on_start=started.append
        )
    }
    assert started == jobs
    assert {j: found[j][:2] for j in jobs} == {
        "a": ("A", ""),
        "b": ("B", ""),
        "c": ("C", ""),
        "hang": (None, LATE),
        "crash": (None, DIED),
        "exit": (None, DIED),
        "raise": (None, RAISED),
        "refuse": (None, RAISED),
    }
    assert found["raise"][2] == "ValueError: two lines"
    assert found["refuse"][2] == "a sentence of ours"
    assert "SIGSEGV" in found["crash"][2]
    assert "exit code 7" in found["exit"][2]
    assert not multiprocessing.active_children()


def test_abandoning_the_outcomes_ends_all_processes() -> None:
    outcomes = run_jobs(misbehave, ["a", "hang", "hang"], workers=2, limit_s=lambda j: 600.0)
    assert next(outcomes).value == "A"
    outcomes.close()
    assert not multiprocessing.active_children()


def test_a_limit_of_years_is_waited_for_in_pieces() -> None:
    assert [o.value for o in run_jobs(misbehave, ["a"], workers=1, limit_s=lambda j: 1e12)] == ["A"]


def test_the_start_of_a_process_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a second is little for a process that imports much, and much for this job."""
    (tmp_path / "slow_start.py").write_text(
        "import multiprocessing, time\n"
        "if multiprocessing.parent_process():\n    time.sleep(1.5)\n"
        "def wait(job):\n    time.sleep(job)\n    return job\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    wait = importlib.import_module("slow_start").wait
    found = {o.job: o.kind for o in run_jobs(wait, [0, 30, 0.1], workers=1, limit_s=lambda j: 1.0)}
    assert found == {0: "", 30: LATE, 0.1: ""}
