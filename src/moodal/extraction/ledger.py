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
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                said = json.loads(line)
                self.problems.setdefault(said["key"], []).append(said["problem"])
            except (json.JSONDecodeError, KeyError, TypeError):
                continue  # half a line: the power failed while it was written

    def record(self, key: str, video: str, problem: str) -> None:
        self.problems.setdefault(key, []).append(problem)
        line = json.dumps({"key": key, "video": video, "problem": problem}, ensure_ascii=False) + "\n"
        with self.path.open("a", encoding="utf-8") as f:
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
            self.problems.pop(key, None)


def write_ledger(entries: Sequence[Entry], path: Path) -> None:
    rows = [asdict(e) for e in entries]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, compression="zstd")


def counts(entries: Iterable[Entry]) -> dict[str, int]:
    return dict(Counter(e.status for e in entries))
