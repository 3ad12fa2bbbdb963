"""Where the camera cuts: a video as the shots it was made of.

TransNet V2 (see ``transnet``) was trained to see cuts and dissolves, at half a second of processor time per second of
video. PySceneDetect compares neighbouring pictures by hue, saturation and brightness (Castellano,
https://scenedetect.com): fast, and blind to slow fades. Both are given our own pictures with the times at which they
are shown, so that a shot begins when its first picture does, at whatever rate the file runs.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from moodal.media.decode import FrameArray, read_frames
from moodal.media.transnet import HEIGHT_PX, WIDTH_PX, transition_probabilities, transitions, weights_file
from moodal.types import InputError, Segment, unknown

MIN_SHOT_S = 0.5  # PySceneDetect: a cut that follows another sooner is a flash, or the same one seen twice
MAX_SIDE_PX = 128  # a cut changes the whole picture; details cost time and find nothing
LAST_S = 0.04  # how long a picture stands that is the only one
MICROSECOND = Fraction(1, 1_000_000)


@dataclass(frozen=True, slots=True)
class FoundShot:
    """``first_frame`` and ``last_frame``, both in it, count the pictures in the order they are shown, from 0.

    ``confidence``: of the cut at its beginning, 0 to 1, see ``Detector``; None where the video begins.
    """

    segment: Segment
    first_frame: int
    last_frame: int
    confidence: float | None


Find = Callable[["_Shown", float], Iterator[tuple[int, float | None]]]


@dataclass(frozen=True, slots=True)
class Detector:
    """A way to find cuts. ``find`` gives the number of each next shot's first picture, and a confidence.

    TransNet's confidence is its probability, the highest of the transition. PySceneDetect's scores are no
    probabilities, so theirs says only how far a score is above the threshold: score / (score + threshold), one half at
    the threshold and 3/4 at three times of it. Comparable within a detector, not between two.
    """

    find: Find
    threshold: float  # unless another is asked for
    highest: float  # that a threshold may be
    check: Callable[[], object]  # raises where its package is not there


def detect_shots(video: Path, *, detector: str = "transnet", threshold: float | None = None) -> tuple[FoundShot, ...]:
    """The shots of ``video`` in order, each up to the first picture of the next; none where there is no picture.

    ``detector``: "transnet"; "adaptive" compares a change with those around it and so bears fast movement; "content"
    takes every large change for a cut. ``threshold``: for "transnet" a probability (0.5), for "content" the mean change
    of a pixel's hue, saturation and brightness (27 of 255), for "adaptive" how many times that of its neighbours (3).
    Reads all pictures once; but for their times, memory does not grow with their number.
    """
    threshold = checked_threshold(detector, threshold)
    shown = _Shown(video)
    cuts = dict(DETECTORS[detector].find(shown, threshold))
    times = shown.times_s
    if not times:
        return ()
    firsts = [0, *sorted(number for number in cuts if 0 < number < len(times)), len(times)]
    edges = [*(times[number] for number in firsts[:-1]), shown.end_s]
    return tuple(
        FoundShot(Segment(*edge), first, after - 1, cuts.get(first) if first else None)
        for edge, (first, after) in zip(pairwise(edges), pairwise(firsts), strict=True)
    )


def find_shots(video: Path, *, detector: str = "adaptive") -> tuple[Segment, ...]:
    """The times of ``detect_shots``."""
    return tuple(shot.segment for shot in detect_shots(video, detector=detector))


def checked_threshold(detector: str, threshold: float | None = None) -> float:
    """The threshold that ``detector`` will use; refuses what it cannot, and a detector that is not installed."""
    if detector not in DETECTORS:
        raise unknown("shot detector", detector, DETECTORS)
    known = DETECTORS[detector]
    if threshold is None:
        threshold = known.threshold
    if not 0 < threshold < known.highest:
        raise InputError(f"the threshold of {detector} lies between 0 and {known.highest:g}, got {threshold:g}")
    known.check()
    return threshold


class _Shown:
    """The pictures of a video, all of one size, and when each of them is shown."""

    def __init__(self, video: Path) -> None:
        self.video = video
        self.times_s = array("d")

    @property
    def end_s(self) -> float:
        """The last picture stands as long as the one before it."""
        times_s = self.times_s
        return times_s[-1] + (times_s[-1] - times_s[-2] if len(times_s) > 1 else LAST_S)

    def pictures(self, size: tuple[int, int] | None = None) -> Iterator[FrameArray]:
        """``size``: width and height; that of the first picture where it is None."""
        import cv2

        for frame in read_frames(self.video, max_side_px=MAX_SIDE_PX):
            rgb = frame.rgb
            size = size or (rgb.shape[1], rgb.shape[0])
            if rgb.shape[1::-1] != size:  # some broadcasts change it on the way
                rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
            self.times_s.append(frame.time_s)
            yield rgb

    def number_at(self, time_s: float) -> int:
        """Of the picture that is shown from ``time_s`` on, which may be rounded."""
        at = bisect_left(self.times_s, time_s)
        return min((n for n in (at - 1, at) if 0 <= n < len(self.times_s)), key=lambda n: abs(self.times_s[n] - time_s))


def _transnet(shown: _Shown, threshold: float) -> Iterator[tuple[int, float]]:
    yield from transitions(transition_probabilities(shown.pictures((WIDTH_PX, HEIGHT_PX))), threshold)


def _scenedetect(name: str, option: str) -> Callable[[_Shown, float], Iterator[tuple[int, float | None]]]:
    """Cuts by the detector that PySceneDetect calls ``name``, and its threshold ``option``."""

    def find(shown: _Shown, threshold: float) -> Iterator[tuple[int, float | None]]:
        import scenedetect
        from scenedetect.common import Timecode

        judge: Any = getattr(scenedetect, name)(min_scene_len=MIN_SHOT_S, **{option: threshold})
        scores = judge.stats_manager = _Scores(judge.get_metrics()[-1 if name == "AdaptiveDetector" else 0], threshold)
        time: Any = None
        for number, rgb in enumerate(shown.pictures()):
            # the rate only serves lengths that are given in frames, and ours are in seconds
            ticks = Timecode(round(shown.times_s[number] / MICROSECOND), MICROSECOND)
            time = scenedetect.FrameTimecode(ticks, Fraction(25))
            for cut in judge.process_frame(time, np.ascontiguousarray(rgb[..., ::-1])):
                yield shown.number_at(cut.seconds), scores.confidence(cut.seconds)
        for cut in judge.post_process(time) if time is not None else ():
            yield shown.number_at(cut.seconds), scores.confidence(cut.seconds)

    return find


class _Scores:
    """What PySceneDetect writes its scores to; keeps the last that were above the threshold, the only ones that it
    still may call a cut."""

    def __init__(self, metric: str, threshold: float) -> None:
        self.metric, self.threshold = metric, threshold
        self.last: deque[tuple[float, float]] = deque(maxlen=16)

    def set_metrics(self, time: Any, values: dict[str, float]) -> None:
        if values.get(self.metric, -math.inf) >= self.threshold:
            self.last.append((time.seconds, values[self.metric]))

    def confidence(self, time_s: float) -> float | None:
        found = dict(self.last).get(time_s)
        return None if found is None else float(found / (found + self.threshold))


def _needs_scenedetect() -> None:
    if find_spec("scenedetect") is None:
        raise InputError("finding shots needs the video extra; run: pip install 'moodal[video]'")


DETECTORS = {
    "transnet": Detector(_transnet, 0.5, 1.0, weights_file),
    "adaptive": Detector(_scenedetect("AdaptiveDetector", "adaptive_threshold"), 3.0, 255.0, _needs_scenedetect),
    "content": Detector(_scenedetect("ContentDetector", "threshold"), 27.0, 255.0, _needs_scenedetect),
}
