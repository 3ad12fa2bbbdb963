"""What is being trained, how far, how long still: on a terminal only, on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from moodal import terminal
from moodal.experiment import Run


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[int, Sequence[Run]], None] | None]:
    """A function (runs done, runs under way) that moves a bar; None where nobody would see it."""
    with terminal.progress_bar("runs") as move:
        yield (lambda done, under_way: move(done, total, "  ".join(map(_line, under_way)))) if move else None


def _line(run: Run) -> str:
    try:
        at = json.loads(run.progress_file.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):  # it is being written, or the run has just ended
        return ""
    e = run.experiment
    fold = "" if e.fold is None else f" fold {e.fold}"
    return f"{e.name} seed {e.seed}{fold}: epoch {at['epoch']} of {at['epochs']} at most"
