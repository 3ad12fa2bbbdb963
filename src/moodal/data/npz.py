"""Imports one ``.npz`` file: the user says which array is which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moodal.data.store import COLUMNS
from moodal.data.table import Clips, array_errors, assemble, load_arrays, padded_clips
from moodal.types import MODALITIES, InputError, unknown

Array = npt.NDArray[Any]

# "text" is the modality here; the words of an utterance are called "words"
COLUMN_FIELDS = {("words" if c == "text" else c): c for c in COLUMNS.names}
FIELDS = (*COLUMN_FIELDS, *MODALITIES, *(f"{m}_lengths" for m in MODALITIES), "class_names")


def import_npz(
    source: Path,
    target: Path,
    *,
    fields: Mapping[str, str],
    class_names: Sequence[str] | None = None,
    interval: tuple[float, float] | None = None,
    name: str | None = None,
    licence: str = "unknown",
    overwrite: bool = False,
    folds_by: str | None = None,
    num_folds: int = 5,
    split_by: str | None = None,
) -> list[str]:
    """Make the data set folder ``target`` from the arrays in ``source``; returns what its user should know about it.

    ``fields`` names the arrays, one entry per utterance each: id, and label or score, are needed; further the columns
    of ``utterances.parquet`` (``words`` for its text); text, audio, vision (N, D) or (N, T, D), with text_lengths,
    audio_lengths, vision_lengths (N,); class_names (C,), which whole-number labels count.
    """
    file = load_arrays(source)
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise InputError(f"{source} holds one array without a name (.npy); expected a .npz file")
    with file:
        _check_fields(source, fields, file.files)
        columns = {ours: _column(source, file, fields[f]) for f, ours in COLUMN_FIELDS.items() if f in fields}
        if "class_names" in fields:
            class_names = [str(c) for c in _column(source, file, fields["class_names"])]
        divide_by = [c for c in (folds_by, split_by) if c in file.files]
        return assemble(
            source,
            target,
            columns,
            {m: _opener(source, file, fields, m) for m in MODALITIES if m in fields},
            others={c: _column(source, file, c) for c in divide_by},
            notes=[],
            class_names=class_names,
            interval=interval,
            name=name,
            licence=licence,
            overwrite=overwrite,
            folds_by=folds_by,
            num_folds=num_folds,
            split_by=split_by,
        )


def _check_fields(source: Path, fields: Mapping[str, str], arrays: Sequence[str]) -> None:
    for ours, theirs in fields.items():
        if ours not in FIELDS:
            raise unknown("field", ours, FIELDS)
        if theirs not in arrays:
            raise unknown(f"array in {source.name}", theirs, arrays)
    if "id" not in fields or not {"label", "score"} & fields.keys():
        raise InputError(
            f"{source}: say which array is the id and which the label or score; it has {', '.join(sorted(arrays))}"
        )
    if not fields.keys() & set(MODALITIES):
        raise InputError(f"{source}: say which array is text, audio or vision; it has {', '.join(sorted(arrays))}")


def _column(source: Path, file: Mapping[str, Array], array: str) -> list[Any]:
    """One value per utterance, as Python's own; a float32 0.2 becomes 0.2, not 0.20000000298."""
    with array_errors(source):
        x = file[array]
    if x.ndim != 1:
        raise InputError(f"{source}: array {array!r} has shape {x.shape}, expected one value per utterance")
    return [float(str(v)) for v in x] if x.dtype.kind == "f" else list(x.tolist())


def _opener(
    source: Path, file: Mapping[str, Array], fields: Mapping[str, str], m: str
) -> Callable[[Sequence[str]], Clips]:
    def open_clips(ids: Sequence[str]) -> Clips:
        with array_errors(source):
            lengths = file[fields[f"{m}_lengths"]] if f"{m}_lengths" in fields else None
            return padded_clips(file[fields[m]], lengths, m, len(ids))

    return open_clips
