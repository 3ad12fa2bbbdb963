"""placeholder"""

from __future__ import annotations
from collections.abc import Mapping, Sequence
from pathlib import Path
from moodal.data.clips import Clip
from moodal.screening.settings import ScreenSettings


def sample_clips(clips: Sequence[Clip]) -> list[Clip]:
    return list(clips)[:60]


def write_sheet(
    path: Path,
    clips: Sequence[Clip],
    settings: ScreenSettings,
    pictures: Mapping[str, bytes],
    problems: Mapping[str, str],
    notes: Sequence[str],
) -> None:
    path.write_text("x")
