"""Labels out and in: our table of votes, and the JSON of Label Studio (``label_studio.py``)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moodal.annotation.answers import Answer
from moodal.annotation.database import Database
from moodal.annotation.label_studio import export_label_studio, import_label_studio
from moodal.annotation.votes import ROWS_AT_ONCE, Vote, iso, keep_votes, read_votes_of, seconds_of, time_of
from moodal.files import write_atomic
from moodal.types import InputError

__all__ = ["export_label_studio", "export_votes", "import_label_studio", "import_votes"]
COLUMNS = ("clip", "condition", "annotator", "label", "intensity", "reason", "comment", "seconds", "at", "round")
NEEDED = ("clip", "condition", "annotator", "label")
SCHEMA = pa.schema([(name, pa.float64() if name == "seconds" else pa.string()) for name in COLUMNS])
DANGEROUS = re.compile(r"'*[=+\-@\t\r]")  # a spreadsheet would take such a cell for a formula
ESCAPED = re.compile(r"'+[=+\-@\t\r]")


def export_votes(db: Database, file: Path) -> int:
    """Every answer that counts as a table of votes (.csv or .parquet); how many there are.

    In CSV, cells that a spreadsheet would run as a formula begin with an apostrophe; ``import_votes`` takes it off.
    """
    if file.suffix not in (".csv", ".parquet"):
        raise InputError(f"{file}: votes are written as .csv or .parquet")
    num = 0

    def counted() -> Iterator[list[dict[str, Any]]]:
        nonlocal num
        with db.read() as session:
            votes = read_votes_of(session)
            while rows := [_row(vote) for vote in islice(votes, ROWS_AT_ONCE)]:
                num += len(rows)
                yield rows

    write = _write_csv if file.suffix == ".csv" else _write_parquet
    write_atomic(file, lambda partial: write(partial, counted()))
    return num


def import_votes(db: Database, file: Path) -> int:
    """Take the votes of a table into the project, all or none; how many there are."""
    if file.suffix not in (".csv", ".parquet"):
        raise InputError(f"{file}: votes are read from .csv or .parquet")
    rows = _read_csv(file) if file.suffix == ".csv" else _read_parquet(file)
    return keep_votes(db, (_vote(row, f"{file.name}: row {i}") for i, row in enumerate(rows, start=1)))


def _row(vote: Vote) -> dict[str, Any]:
    a = vote.answer
    return {
        "clip": vote.clip,
        "condition": vote.condition,
        "annotator": vote.annotator,
        "label": a.label,
        "intensity": a.intensity,
        "reason": a.reason,
        "comment": a.comment,
        "seconds": a.seconds,
        "at": None if vote.at_s is None else iso(vote.at_s),
        "round": vote.round,
    }


def _vote(row: dict[str, Any], where: str) -> Vote:
    for name in NEEDED:
        if not row.get(name):
            raise InputError(f"{where} has no {name}; nothing was imported")
    try:
        if str(row.get("count") or "1") not in ("1", "1.0"):
            raise InputError("it stands for several votes; only votes of named people can be imported")
        answer = Answer(
            str(row["label"]),
            row.get("intensity") or None,
            row.get("reason") or None,
            row.get("comment") or None,
            seconds_of(row.get("seconds")),
        )
        at = time_of(str(row["at"])) if row.get("at") else None
    except InputError as e:
        raise InputError(f"{where}: {e}; nothing was imported") from e
    return Vote(
        str(row["clip"]), str(row["condition"]), str(row["annotator"]), answer, at, row.get("round") or "main", where
    )


def _write_csv(path: Path, parts: Iterator[list[dict[str, Any]]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, COLUMNS)
        writer.writeheader()
        for rows in parts:
            writer.writerows({k: written_cell(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows)


def _write_parquet(path: Path, parts: Iterator[list[dict[str, Any]]]) -> None:
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for rows in parts:
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))


def written_cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula; ``read_cell`` takes it back."""
    return f"'{text}" if DANGEROUS.match(text) else text


def read_cell(text: str) -> str:
    """What ``written_cell`` was given."""
    return text[1:] if ESCAPED.match(text) else text


def _read_csv(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as f:
            reader = csv.DictReader(f, strict=True)
            _check_columns(file, reader.fieldnames or [])
            for number, row in enumerate(reader, start=1):
                if None in row or None in row.values():
                    raise InputError(f"{file.name}: row {number} has another number of cells than the first line")
                yield {k: read_cell(v) for k, v in row.items()}
    except FileNotFoundError:
        raise InputError(f"{file} does not exist") from None
    except (csv.Error, UnicodeDecodeError) as e:
        raise InputError(f"{file} cannot be read as CSV in UTF-8 ({e})") from e


def _read_parquet(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(file) as table:
            _check_columns(file, table.schema_arrow.names)
            for batch in table.iter_batches(ROWS_AT_ONCE):
                yield from batch.to_pylist()
    except FileNotFoundError:
        raise InputError(f"{file} does not exist") from None
    except (pa.ArrowException, OSError) as e:
        raise InputError(f"{file} cannot be read as a Parquet table ({e})") from e


def _check_columns(file: Path, names: Iterable[str]) -> None:
    names = list(names)
    if missing := [name for name in NEEDED if name not in names]:
        raise InputError(f"{file} has no column {missing[0]!r}; a table of votes has {', '.join(NEEDED)}")
    if len(set(names)) < len(names):
        raise InputError(f"{file} has two columns of one name")
