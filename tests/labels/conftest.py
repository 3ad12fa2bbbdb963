"""Small tables of votes and recipe folders, written as people would have them."""

import csv
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from moodal.data.clips import Clip, write_clips, write_recipe

RATE_HZ = 22_050
CLIP_S = 0.3


@pytest.fixture
def write_votes(tmp_path: Path) -> Callable[..., Path]:
    """``write_votes([("c1", "full", "anna", "happy"), ...], columns=...)``: a table of votes."""

    def write(
        rows: Sequence[Sequence[object]],
        columns: Sequence[str] = ("clip", "condition", "annotator", "label"),
        name: str = "votes.csv",
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as f:
            csv.writer(f, delimiter="\t" if name.endswith(".tsv") else ",").writerows([columns, *rows])
        return path

    return write


@pytest.fixture(scope="session")
def build_recipe() -> Callable[..., Path]:
    """``build_recipe(base, episodes=3, clips=6)``: real sound files, clips.parquet, and votes of two people who agree.

    Clip k of an episode is happy, sad, angry in turn, and strong; its sound alone is neutral where k is odd.
    """

    def build(base: Path, episodes: int = 3, clips: int = 6, name: str = "recipe") -> Path:
        videos, folder = base / "videos", base / name
        videos.mkdir(exist_ok=True)
        folder.mkdir()
        write_recipe(folder, videos)
        rows, found = [], []
        for e in range(episodes):
            noise = np.random.default_rng(e).standard_normal(round(clips * CLIP_S * RATE_HZ)).astype(np.float32)
            soundfile.write(videos / f"episode{e}.wav", 0.1 * noise, RATE_HZ)
            for k in range(clips):
                clip = f"episode{e}_{k:04d}"
                times = {"start_s": round(k * CLIP_S, 3), "end_s": round((k + 1) * CLIP_S, 3)}
                found.append(Clip(clip, f"episode{e}.wav", f"episode{e}", **times, text=f"word {k}", passed=True))
                label = ("happy", "sad", "angry")[k % 3]
                for person in ("anna", "ben"):
                    rows.append((clip, "full", person, label, "strong"))
                    rows.append((clip, "audio", person, "neutral" if k % 2 else label, ""))
        write_clips(folder, found)
        with (folder / "votes.csv").open("w", encoding="utf-8", newline="") as f:
            csv.writer(f).writerows([("clip", "condition", "annotator", "label", "intensity"), *rows])
        return folder

    return build


@pytest.fixture
def make_recipe(build_recipe: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """``build_recipe`` in a folder of the test's own."""
    return partial(build_recipe, tmp_path)
