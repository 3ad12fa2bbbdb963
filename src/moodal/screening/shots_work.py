"""One video at a time: its shots as a file of numbers. Light, because every process imports it anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moodal.extraction.items import Source
from moodal.files import write_json
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
    found = probe(job.source.file)
    shots = detect_shots(job.source.file, detector=job.detector, threshold=job.threshold) if found.video else ()
    rows = [[s.segment.start_s, s.segment.end_s, s.first_frame, s.last_frame, s.confidence] for s in shots]
    note = _note(shots[-1].segment.end_s if shots else None, found.duration_s)
    try:
        write_json(job.part, {"shots": rows, "note": note})
    except (InputError, OSError) as e:
        return str(e)
    return ""


def _note(end_s: float | None, duration_s: float | None) -> str:
    if end_s is None:
        return "has no pictures"
    if duration_s and end_s < duration_s - SHORT_S:
        return f"its pictures end at {end_s:.1f} s, the file at {duration_s:.1f} s"
    return ""
