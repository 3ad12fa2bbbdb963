"""What a worker is told: a file, and the utterances that lie in it. Light, because every worker imports it anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moodal.types import Segment


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
