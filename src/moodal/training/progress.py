"""What, how far, how long still: on a terminal only, on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from moodal.experiment import Run


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[int, Sequence[Run]], None] | None]:
    """A function (runs done, runs under way) that moves a bar; None where nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("runs"), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)

        def move(done: int, under_way: Sequence[Run]) -> None:
            bar.update(task, completed=done, description="  ".join(_line(run) for run in under_way))

        yield move


def _line(run: Run) -> str:
    try:
        at = json.loads(run.progress_file.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):  # it is being written, or the run has just ended
        return ""
    e = run.experiment
    fold = "" if e.fold is None else f" fold {e.fold}"
    return f"{e.name} seed {e.seed}{fold}: epoch {at['epoch']} of {at['epochs']} at most"
