"""One video at a time: its shots as a file of numbers. Light, because every process imports it anew."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from moodal.extraction.items import Source
from moodal.files import fingerprint, write_json
from moodal.media.decode import probe
from moodal.media.shots import detect_shots
from moodal.types import InputError

SHORT_S = 1.0  # by which a video's pictures may end before it does, unremarked: its sound may be longer


@dataclass(frozen=True)
class Job:
    """``part``: where the result goes."""

    source: Source
    detector: str
    threshold: float
    part: Path


def find_in_video(job: Job) -> str:
    """Write the shots of one video, or that it has no pictures. Says what went wrong with our own disk, and does not
    raise it, because it is no fault of the video's."""
    of_file = fingerprint(job.source.file)
    found = probe(job.source.file)
    with _overheard() as complaints:
        shots = detect_shots(job.source.file, detector=job.detector, threshold=job.threshold) if found.video else ()
    rows = [[s.segment.start_s, s.segment.end_s, s.first_frame, s.last_frame, s.confidence] for s in shots]
    end = _note(shots[-1].segment.end_s if shots else None, found.duration_s)
    said = [complaint.removeprefix(f"{job.source.file}: ") for complaint in dict.fromkeys(complaints)]
    note = "; ".join([*said, *([end] if end else [])])
    try:
        write_json(job.part, {"shots": rows, "note": note, "print": of_file})
    except (InputError, OSError) as e:
        return str(e)
    return ""


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """What reading a medium warns of (damage that it passed over); else only who watches the screen would know."""
    said: list[str] = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    media = logging.getLogger("moodal.media")
    media.addHandler(listener)
    try:
        yield said
    finally:
        media.removeHandler(listener)


def _note(end_s: float | None, duration_s: float | None) -> str:
    if end_s is None:
        return "has no pictures"
    if duration_s and end_s < duration_s - SHORT_S:
        return f"its pictures end at {end_s:.1f} s, the file at {duration_s:.1f} s"
    return ""
