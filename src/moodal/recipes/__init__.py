"""Named recipes: a file others published in, a data set folder out."""

from __future__ import annotations

from pathlib import Path

from moodal.recipes import mosi, ravdess
from moodal.recipes.arrays import names

_ARRAYS = {"ravdess": ravdess.ARRAYS, "mosi": mosi.ARRAYS}


def recognise(npz: Path) -> str | None:
    """The recipe that reads ``npz``, known by the names of its arrays: "ravdess", "mosi" or None."""
    there = set(names(npz))
    return next((recipe for recipe, needed in _ARRAYS.items() if there >= set(needed)), None)
