"""From shots to the clips that are screened, and the words that are said in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from moodal.data.clips import Clip, Shot
from moodal.screening.settings import ScreenSettings
from moodal.types import Segment

PAD_S = 0.1  # before and after a stretch of speech: a breath belongs to it


def cut_shots(shots: Sequence[Shot], speech: Sequence[Segment], settings: ScreenSettings) -> list[Clip]:
    """The clips of one video. ``speech``: when somebody speaks in it.

    The id of what was cut from a shot ends with when it begins in the shot, in milliseconds: with other settings
    another clip does not take the name of one that people have labelled, unless it begins where that one did.
    """
    clips = []
    for shot in shots:
        whole = Clip(shot.id, shot.video, shot.episode, shot.start_s, shot.end_s)
        parts: list[Segment] = []
        if settings.cut == "speech" and whole.duration_s > settings.max_s:
            parts = list(_stretches(Segment(shot.start_s, shot.end_s), speech, settings))
        for part in parts:
            id_ = f"{shot.id}-{round(1000 * (part.start_s - shot.start_s)):07d}"
            clips.append(replace(whole, id=id_, start_s=part.start_s, end_s=part.end_s))
        clips += [] if parts else [whole]
    return clips


def _stretches(shot: Segment, speech: Sequence[Segment], settings: ScreenSettings) -> Iterator[Segment]:
    """Speech in ``shot``, with the pauses in it that are shorter than ``pause_s``, at most ``max_s`` long."""
    heard = [(max(s.start_s, shot.start_s), min(s.end_s, shot.end_s)) for s in speech]
    runs: list[list[tuple[float, float]]] = []
    for start, end in heard:
        if end <= start:
            continue
        if runs and start - runs[-1][-1][1] < settings.pause_s:
            runs[-1].append((start, end))
        else:
            runs.append([(start, end)])
    for run in runs:
        for part in _short_enough(run, settings.max_s - 2 * PAD_S):
            yield Segment(max(shot.start_s, part[0][0] - PAD_S), min(shot.end_s, part[-1][1] + PAD_S))


def _short_enough(run: list[tuple[float, float]], max_s: float) -> list[list[tuple[float, float]]]:
    """``run``, cut at its longest pauses until nothing is longer than ``max_s``, or has no pause."""
    found, todo = [], [run]
    while todo:
        run = todo.pop()
        if len(run) == 1 or run[-1][1] - run[0][0] <= max_s:
            found.append(run)
            continue
        pauses = [b[0] - a[1] for a, b in pairwise(run)]
        at = pauses.index(max(pauses)) + 1
        todo += [run[at:], run[:at]]
    return found


def with_words(clips: Sequence[Clip], lines: Sequence[Sequence[Any]]) -> list[Clip]:
    """``lines``: (start_s, end_s, text, speaker) in order of time; a clip has those whose middle lies in it."""
    found, first = [], 0
    middles = [(line[0] + line[1]) / 2 for line in lines]
    for clip in clips:
        while first < len(lines) and middles[first] < clip.start_s:
            first += 1
        last = first
        while last < len(lines) and middles[last] < clip.end_s:
            last += 1
        mine = lines[first:last]
        speakers = {line[3] for line in mine}
        text = " ".join(line[2] for line in mine) or None
        found.append(replace(clip, text=text, speaker=speakers.pop() if len(speakers) == 1 else None))
    return found
