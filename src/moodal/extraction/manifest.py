"""What is to be extracted: a folder of media, or a table with a column ``video``, as utterances of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moodal.data.table import read_columns
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
SOUND = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus", ".wma", ".aif", ".aiff")


@dataclass(frozen=True)
class Item:
    """One utterance to be: ``segment`` None is the whole file, ``text`` None is not known yet."""

    id: str
    segment: Segment | None = None
    text: str | None = None


@dataclass(frozen=True)
class Source:
    """One media file and the utterances that lie in it, in order of time."""

    file: Path
    video: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Manifest:
    """All sources in the order of the manifest, and its other columns by utterance id."""

    root: Path
    sources: tuple[Source, ...]
    columns: Mapping[str, Mapping[str, Any]]  # column -> utterance id -> value
    notes: tuple[str, ...] = ()


def read_manifest(source: Path, labels: Path | None = None, fields: Mapping[str, str] | None = None) -> Manifest:
    """``source``: a folder, or a .csv, .tsv or .parquet table with a column ``video`` (a file, relative to the table).

    A table may also give id, start_s, end_s, text and the columns of a data set. ``labels``: such a table for a folder,
    whose rows are found by ``id`` or by ``video``. ``fields``: how the table calls our columns ({"label": "emotion"}).
    """
    fields = fields or {}
    if source.is_dir():
        return _of_folder(source, labels, fields)
    if labels is not None:
        raise InputError(f"{source} is a table, so its labels belong into it; --labels goes with a folder of media")
    return _of_table(source, fields)


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


def _of_folder(folder: Path, labels: Path | None, fields: Mapping[str, str]) -> Manifest:
    files = media_files(folder)
    if not files:
        raise InputError(f"{folder} holds no media file (endings {', '.join((*VIDEO[:4], *SOUND[:3]))}, ...)")
    names = [p.relative_to(folder).as_posix() for p in files]
    ids = _ids(names)
    sources = tuple(Source(file, name, (Item(i),)) for file, name, i in zip(files, names, ids, strict=True))
    if labels is None:
        return Manifest(folder, sources, {})
    return _labelled(Manifest(folder, sources, {}), labels, fields)


def _ids(names: Sequence[str]) -> list[str]:
    """File names without their endings, where these are still different."""
    short = [name.rsplit(".", 1)[0] for name in names]
    return (
        [s if short.count(s) == 1 else n for s, n in zip(short, names, strict=True)]
        if len(set(short)) < len(short)
        else short
    )


def _labelled(manifest: Manifest, labels: Path, fields: Mapping[str, str]) -> Manifest:
    table = _renamed(labels, fields)
    key = next((k for k in ("id", "video") if k in table), None)
    if key is None:
        raise InputError(
            f"{labels} has neither a column 'id' nor 'video' to find a file's row by; it has {_named(table)}"
        )
    rows: dict[str, int] = {}
    for row, name in enumerate(table[key]):
        if name in rows:
            raise InputError(f"{labels}: {key} {name!r} stands in two rows")
        rows[str(name)] = row
    found: dict[str, int] = {}
    for s in manifest.sources:
        stem = s.video.rsplit("/", 1)[-1]
        for name in (s.items[0].id, s.video, stem, stem.rsplit(".", 1)[0]):
            if name in rows:
                found[s.items[0].id] = rows[name]
                break
    if not found:
        raise InputError(f"no {key} of {labels} is a file of {manifest.root}; the first is {table[key][0]!r}")
    columns = {
        c: {i: values[row] for i, row in found.items()} for c, values in table.items() if c not in ("id", "video")
    }
    sources = manifest.sources
    if "text" in columns:
        sources = tuple(
            Source(s.file, s.video, tuple(Item(i.id, i.segment, columns["text"].get(i.id)) for i in s.items))
            for s in sources
        )
    lonely = len(set(rows.values())) - len(set(found.values()))
    notes = [f"{lonely} rows of {labels.name} belong to no file"] if lonely else []
    without = len(manifest.sources) - len(found)
    notes += [f"{without} files have no row in {labels.name}"] if without else []
    return Manifest(manifest.root, sources, columns, tuple(notes))


def _of_table(source: Path, fields: Mapping[str, str]) -> Manifest:
    table = _renamed(source, fields)
    if "video" not in table:
        raise InputError(f"{source} has no column 'video' with the media files; it has {_named(table)}")
    by_video: dict[str, list[int]] = {}
    for row, name in enumerate(table["video"]):
        if not name:
            raise InputError(f"{source}: row {row + 1} names no video")
        by_video.setdefault(str(name), []).append(row)
    segments = _segments(source, table)
    ids = _row_ids(source, table, by_video)
    texts = table.get("text", [None] * len(ids))
    sources = []
    for name, rows in by_video.items():
        rows = sorted(rows, key=lambda r: (segments[r].start_s if segments[r] else 0.0, r))  # type: ignore[union-attr]
        sources.append(Source(source.parent / name, name, tuple(Item(ids[r], segments[r], texts[r]) for r in rows)))
    other = [c for c in table if c not in ("id", "video", "start_s", "end_s", "text")]
    columns = {c: {ids[r]: table[c][r] for r in range(len(ids))} for c in other}
    return Manifest(source.parent, tuple(sources), columns)


def _renamed(source: Path, fields: Mapping[str, str]) -> dict[str, Any]:
    """The table's columns by our names."""
    table = read_columns(source, fields)
    for ours, theirs in fields.items():
        if theirs not in table:
            raise unknown(f"column in {source.name}", theirs, table)
        table[ours] = table.pop(theirs)
    return table


def _segments(source: Path, table: Mapping[str, Sequence[Any]]) -> list[Segment | None]:
    if ("start_s" in table) != ("end_s" in table):
        raise InputError(f"{source} has one of start_s and end_s; a segment needs both")
    if "start_s" not in table:
        return [None] * len(table["video"])
    found: list[Segment | None] = []
    for row, (start, end) in enumerate(zip(table["start_s"], table["end_s"], strict=True)):
        if start is None and end is None:
            found.append(None)
            continue
        try:
            found.append(Segment(float(start), float(end)))
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
