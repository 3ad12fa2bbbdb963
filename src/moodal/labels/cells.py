"""Tables of votes as columns of codes and numbers, read piece by piece; what is wrong is said with its row."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from moodal.types import InputError, unknown

ENDINGS = (".csv", ".csv.gz", ".tsv", ".parquet")
ESCAPED = r"^'('*[=+\-@\t\r])"  # in a .csv of ours, a cell that begins like a formula
MAX_ROWS = 50_000_000  # a table with more, packed small, is no table of votes

Array = npt.NDArray[Any]


def read_table(path: Path, words: Sequence[str], numbers: Sequence[str]) -> pa.Table:
    """The columns ``words``, as text, and ``numbers``, those of them that there are."""
    try:
        if path.name.lower().endswith(".parquet"):
            table = _parquet(path, (*words, *numbers))
        elif path.name.lower().endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz")):
            table = _text(path, words, numbers)
        else:
            raise InputError(f"{path}: a table of votes ends in {', '.join(ENDINGS)}")
    except (pa.ArrowException, OSError) as e:
        said = str(e).splitlines()[0]
        if "invalid UTF8" in said or _begins_as_utf16(path):
            raise InputError(f"{path} is not UTF-8; save it with that encoding (as: CSV UTF-8)") from e
        raise InputError(f"{path} cannot be read as a table: {said}") from e
    return table


def _begins_as_utf16(path: Path) -> bool:
    with path.open("rb") as f:
        return f.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def _parquet(path: Path, wanted: Sequence[str]) -> pa.Table:
    with pq.ParquetFile(path) as file:
        _refuse_size(path, file.metadata.num_rows)
        known = [c for c in file.schema_arrow.names if c in wanted]
        return file.read(columns=known)


def _text(path: Path, words: Sequence[str], numbers: Sequence[str]) -> pa.Table:
    """Read piece by piece: a small packed file may be a very large one. Other columns may hold anything."""
    types = dict.fromkeys(words, pa.string()) | dict.fromkeys(numbers, pa.float64())
    parse = pa.csv.ParseOptions(delimiter="\t" if ".tsv" in path.name.lower() else ",", newlines_in_values=True)
    with pa.csv.open_csv(path, parse_options=parse) as header:
        names = header.schema.names
    known = [c for c in names if c in types]
    if len(set(known)) < len(known):
        raise InputError(f"{path} has two columns of one name among {', '.join(known)}")
    convert = pa.csv.ConvertOptions(
        column_types=types, include_columns=known, null_values=[""], strings_can_be_null=True
    )
    pieces, rows = [], 0
    with pa.csv.open_csv(path, parse_options=parse, convert_options=convert) as reader:
        for piece in reader:
            rows += piece.num_rows
            _refuse_size(path, rows)
            pieces.append(piece)
        return _unescaped(pa.Table.from_batches(pieces, schema=reader.schema))


def _unescaped(table: pa.Table) -> pa.Table:
    """Without the apostrophe that keeps a spreadsheet from running a cell as a formula, as our own tables have it."""
    columns = {name: table[name] for name in table.column_names}
    for name, values in columns.items():
        if pa.types.is_string(values.type):
            columns[name] = pc.replace_substring_regex(values, ESCAPED, r"\1")
    return pa.table(columns)


def _refuse_size(path: Path, rows: int) -> None:
    if rows > MAX_ROWS:
        raise InputError(f"{path} has more than {MAX_ROWS:,} rows; that is no table of votes")


def codes(source: Path, table: pa.Table, column: str, *, free: bool = False) -> tuple[Array, tuple[str, ...]]:
    """(V,) a number per row, -1 where the cell is empty, and the name of each number, in order of appearance.

    ``free``: it may say anything; else a name must be one that can be shown, without spaces at its ends.
    """
    values = table[column]
    if not pa.types.is_string(values.type):
        values = pc.cast(values, pa.string())
    values = pc.if_else(pc.equal(values, ""), None, values)  # as some programs write what is not known
    try:
        coded = values.combine_chunks().dictionary_encode()
        coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
        names = coded.dictionary.to_pylist()
    except UnicodeDecodeError:
        raise InputError(f"{source}: column {column} is not UTF-8; save the file with that encoding") from None
    numbers = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    for number, name in enumerate(() if free else names):
        if not name.isprintable():
            refuse_where(source, numbers == number, f"has the {column} {name!r}, which cannot be shown; rename it")
        if name != name.strip():
            refuse_where(source, numbers == number, f"has the {column} {name!r}, with a space at an end; remove it")
    return numbers, tuple(names)


def known(source: Path, what: str, coded: tuple[Array, Sequence[str]], allowed: Sequence[str]) -> Array:
    """The codes, into ``allowed``."""
    numbers, names = coded
    place = {name: i for i, name in enumerate(allowed)}
    for number, name in enumerate(names):
        if name not in place:
            row = int(np.flatnonzero(numbers == number)[0])
            raise InputError(f"{source}: row {row + 1}: {unknown(what, name, allowed)}")
    into = np.array([*(place[name] for name in names), -1], dtype=np.int64)  # the last one is what -1 points at
    return np.asarray(into[numbers])


def floats(table: pa.Table, column: str) -> Array:
    if column not in table.column_names:
        return np.full(table.num_rows, np.nan)
    try:
        return np.asarray(pc.cast(table[column], pa.float64()).to_numpy(), dtype=float)
    except pa.ArrowException as e:
        raise InputError(f"the column {column} holds what is no number: {str(e).splitlines()[0]}") from e


def refuse_where(source: Path, wrong: npt.ArrayLike, said: str) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        raise InputError(f"{source}: row {int(rows[0]) + 1} {said}")
