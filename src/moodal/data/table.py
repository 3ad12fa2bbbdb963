"""Imports a table of utterances (CSV or Parquet) with one file of arrays per modality."""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from moodal.data.folds import split_warnings, with_splits
from moodal.data.store import FIELDS, FeatureSpec, check_utterances, new_dataset
from moodal.files import sha256
from moodal.types import MODALITIES, InputError, Task, Utterance, unknown

WORDS = ("id", "video", "speaker", "text", "split", "group", "intensity")  # columns of names: 007 is not 7
LABELS = ("label", *(f"label_{m}" for m in MODALITIES))
SCORES = ("score", *(f"score_{m}" for m in MODALITIES))

Array = npt.NDArray[Any]
Column = list[Any]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clips:
    """The features of one modality on their way into a data set: (T, D) per utterance, None where it is missing.

    ``spec``: who made them, where that is known.
    """

    dim: int
    rows: Iterable[Array | None]
    notes: Sequence[str] = field(default_factory=list)
    spec: FeatureSpec | None = None


def import_table(
    source: Path,
    target: Path,
    *,
    features: Mapping[str, Path],
    fields: Mapping[str, str] | None = None,
    class_names: Sequence[str] | None = None,
    interval: tuple[float, float] | None = None,
    name: str | None = None,
    licence: str = "unknown",
    overwrite: bool = False,
    folds_by: str | None = None,
    num_folds: int = 5,
    split_by: str | None = None,
) -> list[str]:
    """Make the data set folder ``target`` from a table and its features; returns what its user should know about it.

    The table's columns are those of ``utterances.parquet``, or are called otherwise and named in ``fields``
    (``{"label": "emotion"}``); it needs an id, and a label or a score. Labels are class names, or integers that count
    ``class_names``; labels with decimals are scores. ``interval``: where scores may lie, else their own range.
    ``features``: by modality, a .npy file (N, D) or (N, T, D) in the order of the table, a .npz file with an array
    (T, D) or (D,) per utterance id, or a .npz file with ``values`` and ``lengths``.
    """
    for m in features:
        if m not in MODALITIES:
            raise unknown("modality", m, MODALITIES)
    if not features:
        raise InputError("no features given; name a file for text, audio or vision")
    table = read_columns(source, fields or {}, [c for c in (folds_by, split_by) if c])
    columns, unused = _ours(source, table, fields or {})
    idle = sorted(unused - {c for c in (folds_by, split_by) if c})
    return assemble(
        source,
        target,
        columns,
        {m: _opener(path, m) for m, path in features.items()},
        others={c: table[c] for c in unused},
        notes=[f"columns that were not used: {', '.join(idle)}"] if idle else [],
        class_names=class_names,
        interval=interval,
        name=name,
        licence=licence,
        overwrite=overwrite,
        folds_by=folds_by,
        num_folds=num_folds,
        split_by=split_by,
    )


def assemble(
    source: Path,
    target: Path,
    columns: Mapping[str, Column],
    open_clips: Mapping[str, Callable[[Sequence[str]], Clips]],
    *,
    others: Mapping[str, Column],
    notes: Sequence[str],
    class_names: Sequence[str] | None,
    interval: tuple[float, float] | None,
    name: str | None,
    licence: str,
    overwrite: bool,
    folds_by: str | None,
    num_folds: int,
    split_by: str | None,
    extra: Mapping[str, Any] | None = None,
) -> list[str]:
    """A data set from columns of ours (``others``: further ones, to divide by), and a way to open each modality.

    ``extra`` goes into dataset.json as it is.
    """
    utterances, task = utterances_from_columns(columns, class_names=class_names, interval=interval)
    check_utterances(utterances, task)
    strings = {c: [_name(v) for v in values] for c, values in others.items()}
    utterances = with_splits(utterances, folds_by=folds_by, num_folds=num_folds, split_by=split_by, columns=strings)
    _refuse_leaks(utterances)
    utterances = [u if u.group else replace(u, group=u.speaker or u.video) for u in utterances]
    said = [*notes, *split_warnings(utterances, task)]
    ids = [u.id for u in utterances]
    with new_dataset(target, overwrite=overwrite) as out:
        for m in (m for m in MODALITIES if m in open_clips):
            clips = open_clips[m](ids)
            imported = FeatureSpec(f"{name or source.stem}-{m}", "imported", m, clips.dim, licence=licence)
            spec = clips.spec or imported
            out.write_features(spec, ids, clips.rows)
            said += clips.notes
        out.finish(
            utterances,
            task,
            name=name or source.stem,
            licence=licence,
            source=source.name,
            notes=said,
            extra={**({"source_sha256": sha256(source)} if source.is_file() else {}), **(extra or {})},
        )
    for note in said:
        log.warning("%s: %s", source, note)
    return said


def utterances_from_columns(
    columns: Mapping[str, Column], *, class_names: Sequence[str] | None, interval: tuple[float, float] | None
) -> tuple[list[Utterance], Task]:
    """Utterances and their task from columns named as in ``FIELDS``; None stands where nothing is known."""
    ids = [_name(v) or "" for v in columns["id"]]
    for column, values in columns.items():
        if len(values) != len(ids):
            raise InputError(f"{column} has {len(values)} values for {len(ids)} utterances; they must be as many")
    if not ids:
        raise InputError("the table has no rows")
    given = dict(columns)
    if class_names is None and "label" in given and _has_decimals(given["label"]):
        if any(c in given for c in SCORES):
            raise InputError("the labels have decimals, so they are scores, but there is a column of scores too")
        given = {c.replace("label", "score"): values for c, values in given.items()}
    labels = {c: _class_labels(ids, given[c], class_names) for c in LABELS if c in given}
    scores = {c: [_float(ids, c, i, v) for i, v in enumerate(given[c])] for c in SCORES if c in given}
    if "label" not in labels and "score" not in scores:
        raise InputError("utterances need a label or a score")
    known: dict[str, Column] = {c: [_name(v) for v in given[c]] for c in WORDS if c in given}
    for column, names in {**{c: v for c, v in known.items() if c != "text"}, **labels}.items():
        _refuse_stray_names(ids, column, names)
    known |= {c: [_float(ids, c, i, v) for i, v in enumerate(given[c])] for c in ("start_s", "end_s") if c in given}
    if "fold" in given:
        known["fold"] = [_fold(ids, i, v) for i, v in enumerate(given["fold"])]
    known |= {c: values for c, values in (labels | scores).items() if c in ("label", "score")}
    utterances = [
        Utterance(
            **{**{c: values[i] for c, values in known.items()}, "id": name},
            modality_labels=_per_modality(labels, "label", i),
            modality_scores=_per_modality(scores, "score", i),
        )
        for i, name in enumerate(ids)
    ]
    return utterances, _task(labels, scores, class_names, interval)


def padded_clips(x: Array, lengths: Array | None, m: str, num: int) -> Clips:
    """Clips of an array in the order of the utterances. x: (N, D), one step each, or (N, T, D); lengths: (N,).

    With lengths, x may also be (S, D): the real steps of all utterances, one after the other.
    """
    if x.ndim not in (2, 3) or x.dtype.kind not in "fiub":
        raise InputError(f"{m} has shape {x.shape} of {x.dtype}, expected numbers (utterances, [steps,] features)")
    if lengths is not None and (lengths.ndim != 1 or len(lengths) != num or lengths.dtype.kind not in "iu"):
        raise InputError(f"{m}: the lengths have shape {lengths.shape} of {lengths.dtype}, expected ({num},) integers")
    joined = x.ndim == 2 and lengths is not None and len(x) == int(lengths.sum())
    if lengths is not None and x.ndim == 2 and not joined and (len(x) != num or lengths.max(initial=0) > 1):
        raise InputError(f"{m} has {len(x)} rows, but its lengths add up to {int(lengths.sum())}")
    if not joined and len(x) != num:
        raise InputError(f"{m} has {len(x)} rows for {num} utterances; they must be as many")
    steps = x.shape[1] if x.ndim == 3 else 1
    if lengths is None:
        notes = [f"{m} came without lengths: all {steps} steps count as real"] if x.ndim == 3 else []
        return Clips(x.shape[-1], _rows(x, np.full(num, steps)), notes)
    if (lengths < 0).any() or (not joined and (lengths > steps).any()):
        raise InputError(f"{m}: lengths go from {lengths.min()} to {lengths.max()}, but there are {steps} steps")
    if joined:
        starts = np.cumsum(lengths) - lengths
        return Clips(x.shape[1], (_float32(x[s : s + n]) for s, n in zip(starts, lengths, strict=True)))
    return Clips(x.shape[-1], _rows(x, lengths))


def load_arrays(path: Path) -> Any:
    """The array in a .npy file (mapped, not read), or the arrays of a .npz file by name. No pickle is read."""
    with array_errors(path):
        with path.open("rb") as f:
            is_archive = f.read(4) == b"PK\x03\x04"
        if is_archive and not zipfile.is_zipfile(path):  # numpy would leave it open
            raise zipfile.BadZipFile
        return np.load(path, mmap_mode="r", allow_pickle=False)


@contextmanager
def array_errors(path: Path) -> Iterator[None]:
    """What numpy says about a file it cannot read, in one sentence."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as e:
        raise InputError(f"{path} is damaged, or is no NumPy file") from e
    except InputError:
        raise
    except ValueError as e:
        if "Object arrays" in str(e) or "Python objects" in str(e):
            raise InputError(
                f"{path} holds an array of Python objects, which is not read; save numbers padded to one shape, with"
                " their lengths, and strings as a plain array of text"
            ) from e
        raise InputError(f"{path} is damaged, or is no NumPy file") from e


def read_columns(
    source: Path, fields: Mapping[str, str] | None = None, divide_by: Sequence[str] = ()
) -> dict[str, Column]:
    """The columns of a .csv, .tsv or .parquet table by name; those of names (``fields`` says how they are called here,
    ``divide_by`` names further ones) are text, whatever they look like."""
    fields = fields or {}
    if not source.is_file():
        raise InputError(f"{source} does not exist")
    words = [*(fields.get(c, c) for c in WORDS), *divide_by]
    try:
        suffix = source.suffix.lower()
        if suffix == ".parquet":
            table = pq.read_table(source)
        elif suffix in (".csv", ".tsv"):
            table = pa.csv.read_csv(
                source,
                parse_options=pa.csv.ParseOptions(delimiter="\t" if suffix == ".tsv" else ",", newlines_in_values=True),
                convert_options=pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(words, pa.string()), null_values=[""], strings_can_be_null=True
                ),
            )
        else:
            raise InputError(f"{source}: a table ends in .csv, .tsv or .parquet")
    except pa.ArrowException as e:
        raise InputError(f"{source} cannot be read as a table: {str(e).splitlines()[0]}") from e
    if len(set(table.column_names)) < table.num_columns:
        raise InputError(f"{source} has two columns of one name among {', '.join(table.column_names)}")
    return {c: table[c].to_pylist() for c in table.column_names}


def _ours(source: Path, table: Mapping[str, Column], fields: Mapping[str, str]) -> tuple[dict[str, Column], set[str]]:
    """The columns of the table by our names, and the names of the others."""
    for ours, theirs in fields.items():
        if ours not in FIELDS:
            raise unknown("field of an utterance", ours, FIELDS)
        if theirs not in table:
            raise unknown(f"column in {source.name}", theirs, table)
    renamed = {fields.get(c, c): c for c in FIELDS if c in fields or c not in fields.values()}
    columns = {ours: table[theirs] for theirs, ours in renamed.items() if theirs in table}
    if "id" not in columns:
        raise InputError(f"{source} has no column 'id'; it has {', '.join(map(repr, table))}")
    if not {"label", "score"} & columns.keys():
        raise InputError(f"{source} has neither a column 'label' nor 'score'; it has {', '.join(map(repr, table))}")
    return columns, {c for c in table if c not in renamed}


def _name(value: object) -> str | None:
    """A name as text. A column of whole numbers with gaps comes as 7.0, which is called 7."""
    if value is None or value != value:  # NaN
        return None
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            text = value.decode("utf-8", "backslashreplace")
            raise InputError(f"'{text}' is not UTF-8; save the file with that encoding") from None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _refuse_stray_names(ids: Sequence[str], column: str, names: Column) -> None:
    """ "calm " would be another class than "calm", and a speaker with a space another speaker: a leak."""
    for name, value in zip(ids, names, strict=True):
        if value is not None and value != value.strip():
            raise InputError(f"utterance {name}: {column} {value!r} begins or ends with a space; remove it")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _has_decimals(values: Column) -> bool:
    return any(isinstance(v, float) and not _is_whole(v) and v == v for v in values)


def _class_labels(ids: Sequence[str], values: Column, class_names: Sequence[str] | None) -> list[str | None]:
    """Names as they are; whole numbers count the class names from 0, or are names themselves."""
    labels = []
    for name, value in zip(ids, values, strict=True):
        if value != value or (isinstance(value, str) and value.lower() == "nan"):
            raise InputError(f"utterance {name}: the label is NaN; leave the cell empty where no label is known")
        if isinstance(value, bool) and class_names is None:
            value = str(value)
        if isinstance(value, int | float):
            last = len(class_names) - 1 if class_names else None
            if not _is_whole(value) or value < 0 or (last is not None and value > last):
                expected = f"0 to {last} count the class names" if last is not None else "classes count from 0"
                raise InputError(f"utterance {name}: label {value} is out of range; {expected} (scores go in 'score')")
            value = class_names[int(value)] if class_names else int(value)
        labels.append(_name(value))
    return labels


def _float(ids: Sequence[str], column: str, i: int, value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise InputError(f"utterance {ids[i]}: {column} {value!r} is not a number")
    return float(value)


def _fold(ids: Sequence[str], i: int, value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or not _is_whole(value) or value < 0:
        raise InputError(f"utterance {ids[i]}: fold {value!r} is not one of 0, 1, 2, ...")
    return int(value)


def _per_modality(columns: Mapping[str, Column], prefix: str, i: int) -> dict[str, Any]:
    own = {m: columns[f"{prefix}_{m}"][i] for m in MODALITIES if f"{prefix}_{m}" in columns}
    return {m: value for m, value in own.items() if value is not None}


def _task(
    labels: Mapping[str, Column],
    scores: Mapping[str, Column],
    class_names: Sequence[str] | None,
    interval: tuple[float, float] | None,
) -> Task:
    known = [v for values in scores.values() for v in values if v is not None and np.isfinite(v)]
    low, high = interval or (min(known, default=0.0), max(known, default=0.0))
    if "label" not in labels:
        if class_names:
            raise InputError("class names need labels; there are only scores")
        if low == high:
            raise InputError(
                f"every score is {low}; there is nothing to learn" if known else "no utterance has a score"
            )
        return Task(low=low, high=high)
    found = {v for values in labels.values() for v in values if v is not None}
    if not found and not class_names:
        raise InputError("no utterance has a label")
    in_order = sorted(found, key=lambda c: (0, int(c), c) if c.isdecimal() else (1, 0, c))
    return Task(tuple(class_names or in_order), low=low, high=high)


def _refuse_leaks(utterances: Iterable[Utterance]) -> None:
    """A group that the user has named may not sit in two of the user's splits."""
    first: dict[str, str] = {}
    for u in utterances:
        part = u.split or (None if u.fold is None else f"fold {u.fold}")
        if u.group and part and first.setdefault(u.group, part) != part:
            raise InputError(
                f"group {u.group!r} is in both {first[u.group]} and {part} (utterance {u.id}); splits share no group:"
                " correct the split, or ask for a new one by group"
            )


def _rows(x: Array, lengths: Array) -> Iterator[Array]:
    for row, length in zip(x, lengths, strict=True):
        yield _float32((row if x.ndim == 3 else row[None])[:length])


def _float32(x: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite, and refused as that
        return np.asarray(x, np.float32)


def _opener(path: Path, m: str) -> Callable[[Sequence[str]], Clips]:
    def open_clips(ids: Sequence[str]) -> Clips:
        with array_errors(path):
            file = load_arrays(path)
            if isinstance(file, np.ndarray):
                return padded_clips(file, None, m, len(ids))
            if "values" in file.files:
                return padded_clips(file["values"], file["lengths"] if "lengths" in file.files else None, m, len(ids))
            return _clips_by_id(path, file, m, ids)

    return open_clips


def _clips_by_id(path: Path, file: Mapping[str, Array], m: str, ids: Sequence[str]) -> Clips:
    """One array per utterance id; an utterance without one lacks the modality."""
    first = next((name for name in ids if name in file), None)
    if first is None:
        raise InputError(f"{path} has neither 'values' nor an array for any utterance id (the first is {ids[0]})")
    strangers = len(set(file) - set(ids))
    notes = [f"{m}: {strangers} arrays belong to no utterance of the table"] if strangers else []

    def rows() -> Iterator[Array | None]:
        for name in ids:
            with array_errors(path):
                x = file.get(name)
            if x is not None and x.dtype.kind not in "fiub":
                raise InputError(f"utterance {name}: {m} holds {x.dtype}, expected numbers")
            yield None if x is None else _float32(np.atleast_2d(x))

    return Clips(np.atleast_2d(file[first]).shape[-1], rows(), notes)
