"""Where the camera cuts: a video as the shots it was made of.

PySceneDetect compares neighbouring pictures by hue, saturation and brightness (Castellano, https://scenedetect.com). It
is given our own pictures with the times at which they are shown, so that a shot begins when its first picture does, at
whatever rate the file runs. Slow fades are no cuts to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from moodal.media.decode import FrameArray, read_frames
from moodal.types import InputError, Segment, unknown

MIN_SHOT_S = 0.5  # a cut that follows another sooner is a flash, or the same one seen twice
MAX_SIDE_PX = 128  # a cut changes the whole picture; details cost time and find nothing
LAST_S = 0.04  # how long a picture stands that is the only one
MICROSECOND = Fraction(1, 1_000_000)


def find_shots(video: Path, *, detector: str = "adaptive") -> tuple[Segment, ...]:
    """The shots of ``video`` in order, each up to the first picture of the next; none where there is no picture.

    ``detector``: "adaptive" compares a change with those around it and so bears fast movement; "content" takes every
    large change for a cut. Reads all pictures once; memory does not grow with their number.
    """
    if detector not in DETECTORS:
        raise unknown("shot detector", detector, DETECTORS)
    shown = _Shown()
    cuts = list(DETECTORS[detector](shown.pictures(video)))
    if shown.first_s is None:
        return ()
    inside = [t for t in cuts if shown.first_s < t < shown.end_s]
    edges = [shown.first_s, *inside, shown.end_s]
    return tuple(Segment(start, end) for start, end in pairwise(edges))


class _Shown:
    """Passes pictures on, all of one size, and notes from when to when they are shown."""

    def __init__(self) -> None:
        self.first_s: float | None = None
        self.end_s = 0.0

    def pictures(self, video: Path) -> Iterator[tuple[float, FrameArray]]:
        import cv2

        last_s, size = -math.inf, (0, 0)
        for frame in read_frames(video, max_side_px=MAX_SIDE_PX):
            rgb = frame.rgb
            if self.first_s is None:
                self.first_s, size = frame.time_s, (rgb.shape[1], rgb.shape[0])
            if rgb.shape[1::-1] != size:  # some broadcasts change it on the way
                rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
            self.end_s = frame.time_s + (frame.time_s - last_s if math.isfinite(last_s) else LAST_S)
            last_s = frame.time_s
            yield frame.time_s, rgb


def _scenedetect(name: str) -> Callable[[Iterator[tuple[float, FrameArray]]], Iterator[float]]:
    """Cuts by the detector that PySceneDetect calls ``name``, in seconds."""

    def find(pictures: Iterator[tuple[float, FrameArray]]) -> Iterator[float]:
        try:
            import scenedetect
            from scenedetect.common import Timecode
        except ImportError as e:
            raise InputError("finding shots needs the video extra; run: pip install 'moodal[video]'") from e
        judge: Any = getattr(scenedetect, name)(min_scene_len=MIN_SHOT_S)
        time: Any = None
        for time_s, rgb in pictures:
            # the rate only serves lengths that are given in frames, and ours are in seconds
            time = scenedetect.FrameTimecode(Timecode(round(time_s / MICROSECOND), MICROSECOND), Fraction(25))
            bgr = np.ascontiguousarray(rgb[..., ::-1])
            yield from (cut.seconds for cut in judge.process_frame(time, bgr))
        if time is not None:
            yield from (cut.seconds for cut in judge.post_process(time))

    return find


DETECTORS: dict[str, Callable[[Iterator[tuple[float, FrameArray]]], Iterator[float]]] = {
    "adaptive": _scenedetect("AdaptiveDetector"),
    "content": _scenedetect("ContentDetector"),
}
