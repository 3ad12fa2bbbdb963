"""Clips one after another as an "episode" whose cuts are known to the picture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, count, pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from moodal.media.decode import read_audio, read_frames
from moodal.types import Segment

TICK = Fraction(1, 90_000)
SOUND_HZ = 16_000
BLOCK = 1024  # samples that AAC takes at a time
EDGE_S = 1e-3  # what a container may round a time by

RGB = npt.NDArray[np.uint8]
Piece = Path | tuple[Path, float, float]  # a clip, or from when to when of it


@dataclass(frozen=True)
class Cut:
    """The first picture that shows the next clip alone: its number, counted from 0, and when it is shown.

    ``blend``: how many pictures before it show both clips.
    """

    frame: int
    time_s: float
    blend: int = 0


def joined(
    clips: Sequence[Piece],
    target: Path,
    *,
    fps: float | Sequence[float] = 25,
    size: tuple[int, int] = (320, 240),
    sound: bool = True,
    blend: int = 0,
    crf: int = 20,
) -> list[Cut]:
    """Writes ``clips`` (real or made) one after another to ``target`` (.mp4 or .mkv) and says where the cuts are.

    ``fps``: several of them take turns picture by picture, which is a variable rate. A clip of another rate shows its
    latest picture; its sound goes along as 16 kHz mono, silent where it has none. Each picture fills ``size`` (width,
    height) and is cropped. ``blend``: pictures of the dissolve at each cut.
    """
    with av.open(f"file:{target}", "w") as out:
        episode, cuts = _Episode(out, fps, size, crf, sound), []
        last: list[RGB] = []  # of the clip before, to be dissolved
        for number, clip in enumerate(clips):
            path, span = (clip, None) if isinstance(clip, Path) else (clip[0], Segment(*clip[1:]))
            shown = _held(_pictures(path, span, size), episode)
            for k, old in enumerate(last, 1):
                episode.show(cv2.addWeighted(old, 1 - k / (blend + 1), next(shown), k / (blend + 1), 0))
            if number:
                cuts.append(Cut(episode.frame, episode.time_s, len(last)))
            last = []
            for picture in shown:
                last.append(picture)
                if len(last) > blend or number == len(clips) - 1:
                    episode.show(last.pop(0))
            if sound:
                episode.play(read_audio(path, rate_hz=SOUND_HZ, segment=span))
        episode.end()
    return cuts


class _Episode:
    """What is written, and when the next picture will be shown."""

    def __init__(self, out: Any, fps: float | Sequence[float], size: tuple[int, int], crf: int, sound: bool) -> None:
        rates = fps if isinstance(fps, Sequence) else [fps]
        steps = [round(1 / Fraction(rate) / TICK) for rate in rates]
        self.firsts = list(accumulate(steps, initial=0))  # when the pictures of one turn are shown, and the next turn
        self.out, self.frame = out, 0
        self.video = out.add_stream("libx264", rate=Fraction(rates[0]).limit_denominator(1001))
        self.video.width, self.video.height, self.video.pix_fmt = *size, "yuv420p"
        self.video.codec_context.time_base = TICK
        self.video.options = {"preset": "ultrafast", "crf": str(crf), "threads": "1"}
        self.audio = out.add_stream("aac", rate=SOUND_HZ, layout="mono") if sound else None
        self.samples, self.played = np.zeros(0, np.float32), 0

    def show(self, rgb: RGB) -> None:
        picture = av.VideoFrame.from_ndarray(rgb, "rgb24")
        picture.pts, picture.time_base = self.tick(self.frame), TICK
        self.out.mux(self.video.encode(picture))
        self.frame += 1

    def tick(self, frame: int) -> int:
        """When a picture is shown."""
        turns, place = divmod(frame, len(self.firsts) - 1)
        return turns * self.firsts[-1] + self.firsts[place]

    @property
    def time_s(self) -> float:
        """When the next picture will be shown."""
        return float(self.tick(self.frame) * TICK)

    def play(self, samples: npt.NDArray[np.float32]) -> None:
        """Until the next picture will be shown; what is over is cut, what lacks is silence."""
        wanted = round(self.time_s * SOUND_HZ) - self.played - len(self.samples)
        samples = np.pad(samples[:wanted], (0, max(0, wanted - len(samples))))
        self.samples = np.concatenate([self.samples, samples])
        while len(self.samples) >= BLOCK:
            self._encode(self.samples[:BLOCK])
            self.samples = self.samples[BLOCK:]

    def _encode(self, samples: npt.NDArray[np.float32]) -> None:
        block = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
        block.sample_rate, block.pts, block.time_base = SOUND_HZ, self.played, Fraction(1, SOUND_HZ)
        self.played += len(samples)
        self.out.mux(self.audio.encode(block))

    def end(self) -> None:
        self.out.mux(self.video.encode(None))
        if self.audio:
            if len(self.samples):
                self._encode(self.samples)
            self.out.mux(self.audio.encode(None))


def _pictures(path: Path, span: Segment | None, size: tuple[int, int]) -> list[tuple[float, RGB]]:
    """Those of a clip, filling ``size``, with their times after its beginning."""
    start_s = span.start_s if span else 0.0
    return [(f.time_s - start_s, _fill(f.rgb, size)) for f in read_frames(path, segment=span)]


def _fill(rgb: RGB, size: tuple[int, int]) -> RGB:
    (height, width), (wide, high) = rgb.shape[:2], size
    scale = max(wide / width, high / height)
    scaled = cv2.resize(rgb, (max(wide, round(width * scale)), max(high, round(height * scale))))
    top, left = (scaled.shape[0] - high) // 2, (scaled.shape[1] - wide) // 2
    return np.ascontiguousarray(scaled[top : top + high, left : left + wide])


def _held(pictures: list[tuple[float, RGB]], episode: _Episode) -> Iterator[RGB]:
    """The latest of ``pictures`` at each moment at which the episode shows one, until they end."""
    steps = [b[0] - a[0] for a, b in pairwise(pictures)] or [0.04]
    end_s = pictures[-1][0] + steps[-1]
    first, index = episode.frame, 0
    for frame in count(first):
        at_s = float((episode.tick(frame) - episode.tick(first)) * TICK)
        if at_s >= end_s - EDGE_S:
            return
        while index + 1 < len(pictures) and pictures[index + 1][0] <= at_s + EDGE_S:
            index += 1
        yield pictures[index][1]
