"""What is to be extracted: a folder of media, or a table with a column ``video``, as utterances of files."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moodal.data.folds import GROUP_COLUMNS
from moodal.data.store import FIELDS
from moodal.data.table import read_columns
from moodal.extraction.items import Item, Source
from moodal.types import InputError, Segment, unknown

VIDEO = (
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mts",
    ".wmv",
    ".flv",
    ".ogv",
    ".3gp",
)
ITEM = ("start_s", "end_s", "text")  # columns that say what is extracted
SOUND = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus", ".wma", ".aif", ".aiff")


@dataclass(frozen=True)
class Manifest:
    """All sources in the order of the manifest, and its other columns by utterance id."""

    root: Path
    sources: tuple[Source, ...]
    columns: Mapping[str, Mapping[str, Any]]  # column -> utterance id -> value
    notes: tuple[str, ...] = ()


def read_manifest(
    source: Path,
    labels: Path | None = None,
    fields: Mapping[str, str] | None = None,
    divide_by: Sequence[str] = (),
    root: Path | None = None,
) -> Manifest:
    """``source``: a folder, or a .csv, .tsv or .parquet table with a column ``video``: files, relative to ``root`` or
    else to the table.

    A table may also give id, start_s, end_s, text and the columns of a data set. ``labels``: such a table for a folder,
    whose rows are found by ``id`` or by ``video``. ``fields``: how the table calls our columns ({"label": "emotion"}).
    ``divide_by``: columns of names that must be there.
    """
    for ours in fields or {}:
        if ours not in FIELDS:
            raise unknown("field of an utterance", ours, FIELDS)
    table = source if labels is None else labels
    if source.is_dir():
        columns = {} if labels is None else _renamed(labels, fields or {}, divide_by)
        found = _of_folder(source, labels, columns)
    elif labels is not None:
        raise InputError(f"{source} is a table, so its labels belong into it; --labels goes with a folder of media")
    else:
        found = _of_table(source, _renamed(source, fields or {}, divide_by), root or source.parent)
    for column in divide_by:
        if column not in found.columns and column not in GROUP_COLUMNS:
            raise unknown(f"column in {table.name}", column, {*found.columns, *GROUP_COLUMNS})
    for s in found.sources:
        for name in (s.video, *(i.id for i in s.items)):
            _refuse_name(name)
    _refuse_twins(found.sources)
    return found


def _refuse_name(name: str) -> None:
    """What a data set could not hold; said now and not after hours."""
    if name != name.strip():
        raise InputError(f"{name!r} begins or ends with a space; rename it")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"the file name {name!a} is not UTF-8; rename it") from None


def _refuse_twins(sources: Sequence[Source]) -> None:
    """An utterance that is called like a part of another one would be called, were that cut."""
    whole = {i.id: s.video for s in sources for i in s.items if i.segment is None and i.text is None}
    for s in sources:
        for item in s.items:
            other = _part_of(item.id)
            if other in whole:
                raise InputError(
                    f"the utterance {item.id!r} ({s.video}) is called as a part of {other!r} ({whole[other]}) would be "
                    "if that file is cut; give one of them another id"
                )


def _part_of(name: str) -> str:
    """Of what ``name`` would be a part by its number (``cut_items`` gives them), or ""."""
    other, _, number = name.rpartition("_")
    return other if len(number) >= 3 and number.isdecimal() and number.isascii() else ""


def media_files(folder: Path) -> list[Path]:
    """Every media file below ``folder`` by its name's ending, sorted; hidden ones and links that lead out are not."""
    inside = folder.resolve()
    found = [
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in (*VIDEO, *SOUND)
        and not any(part.startswith(".") for part in p.relative_to(folder).parts)
        and p.is_file()
        and p.resolve().is_relative_to(inside)
    ]
    return sorted(found, key=lambda p: p.relative_to(folder).as_posix())


def _of_folder(folder: Path, labels: Path | None, table: Mapping[str, Any]) -> Manifest:
    files = media_files(folder)
    if not files:
        raise InputError(f"{folder} holds no media file (endings {', '.join((*VIDEO[:4], *SOUND[:3]))}, ...)")
    names = [p.relative_to(folder).as_posix() for p in files]
    ids = _ids(names)
    sources = tuple(Source(file, name, (Item(i),)) for file, name, i in zip(files, names, ids, strict=True))
    if labels is None:
        return Manifest(folder, sources, {})
    return _labelled(Manifest(folder, sources, {}), labels, table)


def _ids(names: Sequence[str]) -> list[str]:
    """File names without their endings, where these are still different, no other file's name, and not what a part of
    another file would be called."""
    short = [name.rsplit(".", 1)[0] for name in names]
    count, taken = Counter(short), set(names)
    return [
        s if count[s] == 1 and s not in taken and _part_of(s) not in count else n
        for s, n in zip(short, names, strict=True)
    ]


def _labelled(manifest: Manifest, labels: Path, table: Mapping[str, Any]) -> Manifest:
    keys = [k for k in ("id", "video") if k in table]
    if not keys:
        raise InputError(
            f"{labels} has neither a column 'id' nor 'video' to find a file's row by; it has {_named(table)}"
        )
    for key in keys:
        found = _rows_of_files(manifest.sources, labels, key, table[key])
        if found:
            break
    else:
        tried = " and no ".join(keys)
        raise InputError(f"no {tried} of {labels} is a file of {manifest.root}; the first is {table[keys[0]][0]!r}")
    columns = {
        c: {i: values[row] for i, row in found.items()}
        for c, values in table.items()
        if c not in ("id", "video", *ITEM)
    }
    segments, texts = _segments(labels, table), _texts(table)
    items = {i: Item(i, segments[row], texts[row]) for i, row in found.items()}
    sources = tuple(Source(s.file, s.video, tuple(items.get(i.id, i) for i in s.items)) for s in manifest.sources)
    lonely = len(table[key]) - len(set(found.values()))
    notes = [f"{lonely} rows of {labels.name} belong to no file"] if lonely else []
    without = len(manifest.sources) - len(found)
    notes += [f"{without} files have no row in {labels.name}"] if without else []
    return Manifest(manifest.root, sources, columns, tuple(notes))


def _rows_of_files(sources: Sequence[Source], labels: Path, key: str, names: Sequence[Any]) -> dict[str, int]:
    """The row of each file that has one, by its id: found by all of its name, else by what is left of it without
    folders and without the ending, if that is one file only."""
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        if name is not None and rows.setdefault(str(name), row) != row:
            raise InputError(f"{labels}: {key} {name!r} stands in two rows")
    found = {s.items[0].id: rows[n] for s in sources for n in (s.video, s.items[0].id) if n in rows}
    exact, taken = set(found.values()), dict[str, str]()
    for s in (s for s in sources if s.items[0].id not in found):
        last = s.video.rsplit("/", 1)[-1]
        short = next((n for n in (last, last.rsplit(".", 1)[0]) if n in rows and rows[n] not in exact), None)
        if short is None:
            continue
        first = taken.setdefault(short, s.video)
        if first != s.video:
            raise InputError(f"{labels}: {key} {short!r} may be {first} or {s.video}; write it with folder and ending")
        found[s.items[0].id] = rows[short]
    return found


def _of_table(source: Path, table: Mapping[str, Any], root: Path) -> Manifest:
    if "video" not in table:
        raise InputError(f"{source} has no column 'video' with the media files; it has {_named(table)}")
    by_video: dict[str, list[int]] = {}
    for row, name in enumerate(table["video"]):
        if not name:
            raise InputError(f"{source}: row {row + 1} names no video")
        by_video.setdefault(str(name), []).append(row)
    segments = _segments(source, table)
    ids = _row_ids(source, table, by_video)
    texts = _texts(table)
    sources = []
    for name, rows in by_video.items():
        rows = sorted(rows, key=lambda r: (segments[r].start_s if segments[r] else 0.0, r))  # type: ignore[union-attr]
        sources.append(Source(root / name, name, tuple(Item(ids[r], segments[r], texts[r]) for r in rows)))
    other = [c for c in table if c not in ("id", "video", *ITEM)]
    columns = {c: {ids[r]: table[c][r] for r in range(len(ids))} for c in other}
    return Manifest(root, tuple(sources), columns)


def _renamed(source: Path, fields: Mapping[str, str], divide_by: Sequence[str]) -> dict[str, Any]:
    """The table's columns by our names."""
    table = read_columns(source, fields, divide_by)
    for theirs in fields.values():
        if theirs not in table:
            raise unknown(f"column in {source.name}", theirs, table)
    kept = {c: values for c, values in table.items() if c not in fields and c not in fields.values()}
    return kept | {ours: table[theirs] for ours, theirs in fields.items()}


def _num_rows(table: Mapping[str, Sequence[Any]]) -> int:
    return max((len(values) for values in table.values()), default=0)


def _texts(table: Mapping[str, Sequence[Any]]) -> list[str | None]:
    """A Parquet file may hold words that are numbers."""
    return [None if t is None else str(t) for t in table.get("text", [None] * _num_rows(table))]


def _segments(source: Path, table: Mapping[str, Sequence[Any]]) -> list[Segment | None]:
    if ("start_s" in table) != ("end_s" in table):
        raise InputError(f"{source} has one of start_s and end_s; a segment needs both")
    if "start_s" not in table:
        return [None] * _num_rows(table)
    found: list[Segment | None] = []
    for row, (start, end) in enumerate(zip(table["start_s"], table["end_s"], strict=True)):
        if start is None and end is None:
            found.append(None)
            continue
        try:
            found.append(Segment(float(start), float(end)))
            if not math.isfinite(float(end)):
                raise ValueError("the end is not finite")
        except (TypeError, ValueError) as e:
            raise InputError(
                f"{source}: row {row + 1}: start_s {start!r} and end_s {end!r} are no segment ({e})"
            ) from e
    return found


def _row_ids(source: Path, table: Mapping[str, Sequence[Any]], by_video: Mapping[str, Sequence[int]]) -> list[str]:
    """The table's ids, or the video's name, numbered where it has several utterances."""
    if "id" in table:
        ids = [str(i) if i is not None else "" for i in table["id"]]
    else:
        short = dict(zip(by_video, _ids(list(by_video)), strict=True))
        ids = [""] * len(table["video"])
        for name, rows in by_video.items():
            for number, row in enumerate(rows):
                ids[row] = short[name] if len(rows) == 1 else f"{short[name]}_{number:03d}"
    first: dict[str, int] = {}
    for row, i in enumerate(ids):
        if not i:
            raise InputError(f"{source}: row {row + 1} has no id")
        if first.setdefault(i, row) != row:
            raise InputError(f"{source}: rows {first[i] + 1} and {row + 1} are both called {i!r}")
    return ids


def _named(table: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, table))
