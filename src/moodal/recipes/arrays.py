"""Arrays out of an ``.npz`` that somebody else wrote. Pickled objects are never read."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moodal.types import InputError

Array = npt.NDArray[Any]


def names(npz: Path) -> list[str]:
    """The names of the arrays in ``npz``; none when it is no npz file."""
    if not npz.is_file():
        raise InputError(f"{npz} does not exist, or is no file")
    if not zipfile.is_zipfile(npz):
        return []
    with np.load(npz, allow_pickle=False) as file:
        return list(file.files)


def read_arrays(npz: Path, wanted: Sequence[str]) -> dict[str, Array]:
    """The ``wanted`` arrays, whole and without pickled objects."""
    missing = sorted(set(wanted) - set(names(npz)))
    if missing:
        raise InputError(f"{npz} has no array {missing[0]!r}; this recipe needs {', '.join(wanted)}")
    with np.load(npz, allow_pickle=False) as file:
        try:
            return {name: file[name] for name in wanted}
        except (ValueError, zipfile.BadZipFile, OSError) as e:
            raise InputError(f"{npz} could not be read: {e}") from e


def check_rows(npz: Path, arrays: dict[str, Array]) -> None:
    """Each of ``arrays`` has a row per utterance."""
    rows = {name: len(x) for name, x in arrays.items()}
    if len(set(rows.values())) != 1:
        raise InputError(f"{npz}: arrays differ in their number of rows: {rows}")


def check_values(npz: Path, name: str, values: Array, known: Sequence[Any]) -> None:
    """Every one of ``values`` is one of ``known``."""
    strange = [v for v in np.unique(values).tolist() if v not in known]
    if strange:
        raise InputError(f"{npz}: array {name!r} holds {strange[0]!r}; expected one of {list(known)}")
