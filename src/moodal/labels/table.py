"""labels.parquet of a recipe folder: every clip, its labels, whether it is in the balanced set, and if not, why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moodal.files import write_atomic
from moodal.types import InputError

FILE = "labels.parquet"
MADE_BY = b"moodal.balance"  # the key of its metadata: settings and the hash of the votes
KINDS = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}


@dataclass(frozen=True, slots=True)
class LabelRow:
    """``label``: of the full clip; None where people came to none. ``confidence``: the share of votes that it got.

    ``kept``: it is in the balanced set; else ``stage`` is where it was left out and ``why`` a sentence.
    """

    clip: str
    label: str | None
    label_text: str | None
    label_audio: str | None
    label_vision: str | None
    intensity: str | None
    confidence: float | None
    votes: int
    adjudicated: bool
    group: str | None
    kept: bool
    stage: str | None
    why: str | None


SCHEMA = pa.schema([(f.name, KINDS[str(f.type).split(" | ")[0]]) for f in fields(LabelRow)])


def write_labels(path: Path, rows: Sequence[LabelRow], made_by: Mapping[str, Any]) -> None:
    """The same rows give the same bytes."""
    said = json.dumps(made_by, sort_keys=True)
    table = pa.Table.from_pylist([asdict(r) for r in rows], schema=SCHEMA.with_metadata({MADE_BY: said}))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda partial: pq.write_table(table, partial, compression="zstd"))


def read_labels(path: Path) -> list[LabelRow]:
    """The rows of a labels.parquet, or of the one in a recipe folder."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{file} is not there yet; run: moodal balance {path if path.is_dir() else path.parent}")
    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as e:
        raise InputError(f"{file} cannot be read as a Parquet table ({e}); run moodal balance again") from e
    if table.schema.names != SCHEMA.names:
        raise InputError(f"{file} has other columns than this version of moodal writes; run moodal balance again")
    return [LabelRow(**row) for row in table.to_pylist()]


def labels_settings(path: Path) -> dict[str, Any]:
    """With which settings, and from which votes, a labels.parquet was made; empty where it does not say."""
    metadata = pq.read_schema(path / FILE if path.is_dir() else path).metadata or {}
    said: dict[str, Any] = json.loads(metadata.get(MADE_BY, b"{}"))
    return said
