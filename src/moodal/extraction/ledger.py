"""What became of every utterance and stage, and what failed how often: beside the parts while the work goes on."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from moodal.files import disk_errors, write_atomic

TRIES = 3
SCHEMA = pa.schema(
    [
        ("video", pa.string()),
        ("id", pa.string()),
        ("stage", pa.string()),
        ("status", pa.string()),
        ("note", pa.string()),
        ("steps", pa.int64()),
        ("tries", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Entry:
    """One utterance and stage. ``status``: done, missing (``note``: why), failed (the error), skipped (quarantined)."""

    video: str
    id: str
    stage: str
    status: str
    note: str = ""
    steps: int = 0
    tries: int = 1


class Failures:
    """Files that could not be worked on at all, each try a line that is on the disk before anything else happens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: dict[str, list[str]] = {}
        for line in path.read_bytes().split(b"\n") if path.exists() else ():
            try:
                said = json.loads(line)
                key, problem = said["key"], said["problem"]
            except (ValueError, KeyError, TypeError):
                continue  # half a line: the power failed while it was written
            if problem is None:
                self.problems.pop(key, None)
            else:
                self.problems.setdefault(key, []).append(problem)

    def record(self, key: str, video: str, problem: str) -> None:
        self.problems.setdefault(key, []).append(problem)
        self._write({"key": key, "video": video, "problem": problem})

    def _write(self, said: dict[str, str | None]) -> None:
        line = "\n" + json.dumps(said)  # a line that was cut off ends here
        with disk_errors(self.path), self.path.open("a", encoding="ascii") as f:
            f.write(line)
            f.flush()
            os.fsync(f.fileno())

    def tries(self, key: str) -> int:
        return len(self.problems.get(key, ()))

    def last(self, key: str) -> str:
        return self.problems[key][-1]

    def forget(self, keys: Iterable[str]) -> None:
        """Another chance for what was given up."""
        for key in keys:
            if self.problems.pop(key, None):
                self._write({"key": key, "problem": None})


def write_ledger(entries: Sequence[Entry], path: Path) -> None:
    rows = [asdict(e) for e in entries]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    write_atomic(path, lambda p: pq.write_table(table, p, compression="zstd"))


def counts(entries: Iterable[Entry]) -> dict[str, int]:
    return dict(Counter(e.status for e in entries))
