"""Chance that is the same on every machine: who labels what must not depend on a library's generator."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def key(seed: int, *parts: object) -> int:
    """64 random bits for a purpose, the same on every machine."""
    said = "\x1f".join(map(str, (seed, *parts))).encode()
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "little")


def hashes(num: int, key: int) -> Array:
    """(num,) uint64, random by ``key``: SplitMix64 (Steele et al., OOPSLA 2014) at key + 0, 1, 2, ..."""
    x = np.arange(1, num + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))
