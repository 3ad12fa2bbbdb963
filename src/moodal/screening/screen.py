"""From shots to clips: each shot screened by what can be measured of it, cheapest first, and why each fell.

DIR/screen.parts keeps what was measured of each video, whatever the thresholds; so other thresholds cost only what was
never measured before, and a command that was killed goes on where it was.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from moodal.data.clips import (
    Clip,
    Shot,
    changed_videos,
    read_shots,
    there_are_videos,
    video_prints,
    write_clips,
)
from moodal.extraction.ledger import Failures, write_ledger
from moodal.features.model_files import install_face_models, install_voice_model
from moodal.files import only_one, write_json
from moodal.media.speech import Network, speech_share
from moodal.screening.duplicates import EDGE_S, copies, sound_outline, sound_pairs
from moodal.screening.judging import (
    DUPLICATE,
    FACE,
    FACES,
    FRONTAL,
    LENGTH,
    REASONS,
    SILENCE,
    SPEECH,
    UNREADABLE,
    VOICE,
    fallen,
    judge,
    with_faces,
)
from moodal.screening.measures import BIN_S, QUIET_DB, STEP_S
from moodal.screening.parts import Array, Parts, Span, spans_of
from moodal.screening.settings import ScreenSettings
from moodal.screening.sheet import sample_clips, write_sheet
from moodal.screening.spans import cut_shots, with_words
from moodal.screening.work import OnChange, Wanted, Workshop
from moodal.types import InputError, Segment

WHOLE: Span = (0.0, 0.0)  # the span of what is measured of a whole file


@dataclass(frozen=True)
class ScreenResult:
    """``reasons``: how many clips each filter stopped, in the order of the filters; ``problems``: by video, why it
    could not be read; ``table`` and ``page``: what was written."""

    num_shots: int
    num_clips: int
    passed: int
    passed_s: float
    reasons: Mapping[str, int]
    problems: Mapping[str, str]
    notes: tuple[str, ...]
    table: Path
    page: Path

    @property
    def is_whole(self) -> bool:
        """Every video could be read."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        found = asdict(self)
        return {**found, "notes": list(self.notes), "table": str(self.table), "page": str(self.page)}

    def lines(self) -> list[str]:
        """For people: how many clips there are, and what stopped the others."""
        share = f" ({self.passed / self.num_clips:.0%})" if self.num_clips else ""
        said = [f"{self.passed} of {self.num_clips} clips passed{share}, {self.passed_s / 60:.1f} min to label"]
        said += [f"  {count} fell: {reason}" for reason, count in self.reasons.items()]
        said += [f"{video}: {problem}" for video, problem in self.problems.items()]
        return [*said, *self.notes, f"look at {self.page}"]

    def next_line(self, folder: Path) -> str:
        """What to do with what passed, if anything did."""
        return f"next: moodal annotate {quote(str(folder))}" if self.passed else "nothing is left to be labelled"


def screen_clips(
    folder: Path,
    settings: ScreenSettings,
    *,
    workers: int | None = None,
    retry: bool = False,
    on_change: OnChange | None = None,
) -> ScreenResult:
    """Screen every shot of the recipe folder ``folder``: clips.parquet and screening.html."""
    videos, shots = there_are_videos(folder), read_shots(folder)
    if not shots:
        raise InputError(f"{folder / 'shots.parquet'} holds no shots; look at what moodal shots said of the videos")
    parts = folder / "screen.parts"
    parts.mkdir(exist_ok=True)
    with only_one(parts):
        for left in parts.glob(".*.partial-*"):  # by a process that was killed
            left.unlink(missing_ok=True)
        shop = Workshop(videos, Parts(parts), Failures(parts / "failures.jsonl"), workers, retry, on_change)
        for video in changed_videos(folder / "shots.parquet", videos, [s.video for s in shots]):
            shop.refuse(video, f"{videos / video} is another file now than its shots are of; {_anew(videos, folder)}")
        clips, notes = _screen(shop, shots, settings)
        write_json(parts / "settings.json", asdict(settings))
        write_ledger(shop.entries, parts / "ledger.parquet")
        pictures = _thumbnails(shop, sample_clips(clips))
        problems = dict(sorted(shop.problems.items()))
        reasons = _reasons(clips)
        write_sheet(folder / "screening.html", clips, settings, pictures, problems, notes)
        write_clips(
            folder, clips, video_prints(folder / "shots.parquet")
        )  # last: what reads it finds a page that goes with it
    passed = [c for c in clips if c.passed]
    return ScreenResult(
        num_shots=len(shots),
        num_clips=len(clips),
        passed=len(passed),
        passed_s=sum(c.duration_s for c in passed),
        reasons=reasons,
        problems=problems,
        notes=notes,
        table=folder / "clips.parquet",
        page=folder / "screening.html",
    )


def _anew(videos: Path, folder: Path) -> str:
    return f"run again: moodal shots {quote(str(videos))} {quote(str(folder))}"


def _reasons(clips: Iterable[Clip]) -> dict[str, int]:
    found = Counter(c.reason for c in clips)
    return {r: found[r] for r in REASONS if found[r]}


def _screen(shop: Workshop, shots: Sequence[Shot], settings: ScreenSettings) -> tuple[list[Clip], tuple[str, ...]]:
    """Every clip with what was measured of it and the first reason why it fell, in the order of the shots."""
    clips, outlines, speech, notes = _heard(shop, shots, settings)
    clips = [judge(c, [LENGTH, SILENCE], settings) for c in clips]
    if settings.duplicates:
        clips = _without_copies(shop, clips, outlines)
    clips = [judge(_no_sound(c), [SPEECH], settings) for c in clips]
    clips = _seen(shop, clips, settings)
    clips = [judge(c, [FACES, FACE, FRONTAL], settings) for c in clips]
    if settings.voices:
        clips = [judge(c, [VOICE], settings) for c in _told_apart(shop, clips, speech)]
        untold = sum(c.reason is None and c.voice_distance is None for c in clips)
        if untold:
            notes.append(f"passed with too little speech to tell voices apart: {untold}")
    else:
        notes.append("voices were not told apart, because voices = false in the settings")
    return [replace(c, passed=c.reason is None) for c in clips], tuple(notes)


def _heard(
    shop: Workshop, shots: Sequence[Shot], settings: ScreenSettings
) -> tuple[list[Clip], dict[str, Array], dict[str, tuple[Segment, ...]], list[str]]:
    """The clips with what their sound says; their outlines by id; by video when somebody speaks; what to know."""
    Network()  # refuses before any work where there is none
    by_video: dict[str, list[Shot]] = {}
    for shot in shots:
        by_video.setdefault(shot.video, []).append(shot)
    keys = shop.measure("sound", [Wanted(v, (WHOLE,)) for v in by_video if v not in shop.problems])
    clips: list[Clip] = []
    outlines: dict[str, Array] = {}
    speech: dict[str, tuple[Segment, ...]] = {}
    notes = []
    for video, mine in by_video.items():
        record = shop.read(keys[video]).get(WHOLE) if video in keys else None
        if record is None:
            clips += _unreadable(cut_shots(mine, (), settings), shop)
            continue
        speech[video] = tuple(Segment(*map(float, s)) for s in record["speech"])
        said = json.loads(record["said"].tobytes())
        if said["problem"]:
            notes.append(f"{video} has no words: {said['problem']}")
        for clip in with_words(cut_shots(mine, speech[video], settings), said["lines"]):
            if record["has_sound"][0]:
                outlines[clip.id] = sound_outline(record["bands"], clip.start_s, clip.end_s, STEP_S)
                share = speech_share(speech[video], Segment(clip.start_s, clip.end_s))
                clip = replace(clip, loudness_db=_loudest(record["loudness"], clip), speech_share=share)
            clips.append(clip)
    return clips, outlines, speech, notes


def _loudest(loudness: Array, clip: Clip) -> float:
    """Of the pieces that lie in the clip and sound of nothing beside it."""
    edge_s = min(EDGE_S, clip.duration_s / 4)
    first = int(np.ceil((clip.start_s + edge_s) / STEP_S))
    last = int((clip.end_s - edge_s - BIN_S) / STEP_S)
    return float(loudness[first : max(first, last) + 1].max(initial=QUIET_DB))


def _no_sound(clip: Clip) -> Clip:
    if clip.reason is None and clip.loudness_db is None:
        return fallen(clip, SPEECH.name, "its video has no sound")
    return clip


def _unreadable(clips: Sequence[Clip], shop: Workshop) -> list[Clip]:
    return [c if c.reason else fallen(c, UNREADABLE, shop.problems[c.video]) for c in clips]


def _without_copies(shop: Workshop, clips: list[Clip], outlines: Mapping[str, Array]) -> list[Clip]:
    """Clips that are there before, in this video or another, fall; the first stays."""
    left = [c for c in clips if c.reason is None and c.id in outlines]
    if not left:
        return clips
    pairs = sound_pairs(left, np.stack([outlines[c.id] for c in left]))
    suspects = sorted({k for pair in pairs for k in pair})
    found = _measured(shop, "pictures", [left[k] for k in suspects])
    grey = {k: found[left[k].id]["grey"] for k in suspects if left[k].id in found}
    first = {left[copy].id: left[k].id for copy, k in copies(pairs, grey).items()}
    return [
        replace(fallen(c, DUPLICATE, f"sounds and looks the same as {first[c.id]}"), duplicate_of=first[c.id])
        if c.id in first
        else c
        for c in clips
    ]


def _seen(shop: Workshop, clips: list[Clip], settings: ScreenSettings) -> list[Clip]:
    def measured(clip: Clip, record: Mapping[str, Array]) -> Clip:
        return with_faces(clip, record, settings)

    return _completed(shop, "faces", clips, measured, install_face_models, rate_hz=settings.looks_per_s)


def _told_apart(shop: Workshop, clips: list[Clip], speech: Mapping[str, tuple[Segment, ...]]) -> list[Clip]:
    def measured(clip: Clip, record: Mapping[str, Array]) -> Clip:
        distance = float(record["voice_distance"][0])
        return replace(clip, voice_distance=distance if np.isfinite(distance) else None)

    return _completed(shop, "voices", clips, measured, install_voice_model, speech=speech)


def _completed(
    shop: Workshop,
    stage: str,
    clips: list[Clip],
    complete: Callable[[Clip, Mapping[str, Array]], Clip],
    prepare: Callable[[], object],
    *,
    rate_hz: float = 0.0,
    speech: Mapping[str, tuple[Segment, ...]] | None = None,
) -> list[Clip]:
    """Clips that still stand, with what ``stage`` measures of them; ``prepare`` fetches what it needs, once and now."""
    left = [c for c in clips if c.reason is None]
    if left:
        prepare()
    found = _measured(shop, stage, left, rate_hz=rate_hz, speech=speech)
    done = []
    for clip in clips:
        if clip.reason is None and clip.id not in found:
            clip = _unreadable([clip], shop)[0]
        done.append(complete(clip, found[clip.id]) if clip.reason is None else clip)
    return done


def _measured(
    shop: Workshop,
    stage: str,
    clips: Sequence[Clip],
    *,
    rate_hz: float = 0.0,
    speech: Mapping[str, tuple[Segment, ...]] | None = None,
) -> dict[str, Mapping[str, Array]]:
    """By clip, what ``stage`` has measured of it; of a video that fails nothing."""
    by_video: dict[str, list[Clip]] = {}
    for clip in clips:
        by_video.setdefault(clip.video, []).append(clip)
    wanted = [Wanted(v, spans_of(mine), (speech or {}).get(v, ())) for v, mine in by_video.items()]
    keys = shop.measure(stage, wanted, rate_hz=rate_hz)
    found: dict[str, Mapping[str, Array]] = {}
    for video, mine in by_video.items():
        records = shop.read(keys[video])
        found |= {c.id: records[c.start_s, c.end_s] for c in mine if (c.start_s, c.end_s) in records}
    return found


def _thumbnails(shop: Workshop, clips: Sequence[Clip]) -> dict[str, bytes]:
    """JPEG by clip; of a video that cannot be read none."""
    readable = [c for c in clips if c.reason != UNREADABLE]
    found = _measured(shop, "thumbnails", readable)
    return {id_: record["jpeg"].tobytes() for id_, record in found.items() if len(record["jpeg"])}
