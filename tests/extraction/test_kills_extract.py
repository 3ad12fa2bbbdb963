"""Killed at any moment and run again, an extraction ends with the same bytes: a small version of the benchmark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from benchmarks.extraction import kill_at_moments


def test_killed_at_random_moments_the_result_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    for k in range(60):
        noise = 0.1 * np.random.default_rng(k).standard_normal(4_000)
        soundfile.write(tmp_path / f"media/{k:02d}.wav", noise, 16_000)
    options = ["--text", "none", "--vision", "none", "--workers", "1"]
    found = kill_at_moments(tmp_path / "media", tmp_path, 3, 0, options)
    assert found["files"] == 60
    assert found["identical"] == 3
    assert found["killed_before_the_end"] >= 2
