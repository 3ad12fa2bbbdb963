"""Decoded sound as one even run of samples per segment, in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from moodal.media.container import MAX_DURATION_S, MAX_GAP_S, reason, seconds_of
from moodal.media.packets import Damage
from moodal.types import Segment

SOURCE_RATES_HZ = (1_000, 768_000)
MAX_AMPLITUDE = 1_000.0  # of 1; what is louder is no sound
SYNC_S = 0.04  # how far sound may drift from its timestamps before it is set right: one picture of a film

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class AudioBlock:
    """Mono sound: ``samples[i]`` is heard at ``time_s + i / rate_hz``."""

    time_s: float
    samples: Samples
    rate_hz: int

    @property
    def end_s(self) -> float:
        return self.time_s + len(self.samples) / self.rate_hz

    @property
    def num_bytes(self) -> int:
        return self.samples.nbytes


class SoundClock:
    """When each decoded piece of sound is heard; one that does not say so follows on."""

    def __init__(self, stream: Any, zero: Fraction) -> None:
        self._zero = zero
        self._end_s = 0.0

    def interval(self, raw: av.AudioFrame) -> tuple[float, float]:
        stamp_s = seconds_of(raw.pts, raw, self._zero)
        time_s = self._end_s if stamp_s is None else stamp_s
        self._end_s = time_s + (raw.samples / raw.sample_rate if raw.sample_rate > 0 else 0.0)
        return time_s, self._end_s


class Sound:
    """Lays decoded sound on an even grid of samples that begins with the segment, and cuts it into blocks.

    Sound that follows on is resampled as one run. Where its timestamps leave the grid by more than ``SYNC_S`` a new
    run begins where they say: a gap becomes silence, what would come twice is dropped. Within a run the place of a
    sample is right to half a sample.
    """

    def __init__(self, segment: Segment, rate_hz: int, block_s: float, damage: Damage) -> None:
        self._damage = damage
        self._start_s = segment.start_s
        self._rate_hz = rate_hz
        self._end = round((segment.end_s - segment.start_s) * rate_hz)  # in samples, as all below
        self._block = np.zeros(max(1, min(self._end, round(block_s * rate_hz))), np.float32)
        self._filled = 0
        self._written = 0  # all that was given out or stands in the block
        self._run: _Run | None = None

    @property
    def is_done(self) -> bool:
        return self._written >= self._end

    def add(self, time_s: float, raw: av.AudioFrame) -> Iterator[AudioBlock]:
        mono = self._mono(raw)
        if mono is None or not len(mono):
            return
        expected_s = self._run.end_s if self._run else 0.0
        if time_s > min(max(self._start_s, expected_s) + MAX_GAP_S, MAX_DURATION_S):
            self._damage.add(f"sound at {time_s:.3f} s after sound at {expected_s:.3f} s")
            return
        if self._run is None or self._run.source_hz != raw.sample_rate or abs(time_s - self._run.end_s) > SYNC_S:
            yield from self._end_run()
            self._run = _Run(time_s, raw.sample_rate, self._rate_hz, self._start_s)
        yield from self._place(*self._run.add(mono))

    def finish(self) -> Iterator[AudioBlock]:
        yield from self._end_run()
        if self._filled:
            yield self._give(self._block[: self._filled])

    def _end_run(self) -> Iterator[AudioBlock]:
        if self._run:
            yield from self._place(*self._run.finish())
            self._run = None

    def _place(self, first: int, samples: Samples) -> Iterator[AudioBlock]:
        """Sample ``first`` of the grid is ``samples[0]``: silence up to it, nothing twice, nothing after the end."""
        yield from self._write(None, min(first, self._end) - self._written)
        samples = samples[max(0, self._written - first) :]
        yield from self._write(samples, min(len(samples), self._end - self._written))

    def _write(self, samples: Samples | None, count: int) -> Iterator[AudioBlock]:
        """``count`` samples into the block, and full blocks out; None is silence."""
        done = 0
        while done < count:
            step = min(count - done, len(self._block) - self._filled)
            here = self._block[self._filled : self._filled + step]
            here[:] = 0.0 if samples is None else samples[done : done + step]
            done += step
            self._filled += step
            self._written += step
            if self._filled == len(self._block):
                yield self._give(self._block)

    def _give(self, samples: Samples) -> AudioBlock:
        first = self._written - self._filled
        self._filled = 0
        return AudioBlock(self._start_s + first / self._rate_hz, samples.copy(), self._rate_hz)

    def _mono(self, raw: av.AudioFrame) -> Samples | None:
        low, high = SOURCE_RATES_HZ
        if not low <= raw.sample_rate <= high:
            self._damage.add(f"sound at {raw.sample_rate} Hz")
            return None
        try:
            mono = _mono(raw)
        except ValueError as e:
            self._damage.add(reason(e))
            return None
        loud = ~(np.abs(mono) <= MAX_AMPLITUDE)  # or not a number
        if loud.any():
            self._damage.add("samples that are no sound")
            mono[loud] = 0.0
        return mono


class _Run:
    """Sound without a gap: resampled as it comes. Counted on the grid of the output from ``start_s``."""

    def __init__(self, time_s: float, source_hz: int, rate_hz: int, start_s: float) -> None:
        import soxr

        self.source_hz = source_hz
        self._time_s = time_s
        self._num_in = 0
        self._next = round((time_s - start_s) * rate_hz)
        self._soxr = soxr.ResampleStream(source_hz, rate_hz, 1, dtype="float32", quality="HQ")  # as librosa's loader

    @property
    def end_s(self) -> float:
        return self._time_s + self._num_in / self.source_hz

    def add(self, mono: Samples) -> tuple[int, Samples]:
        self._num_in += len(mono)
        return self._placed(self._soxr.resample_chunk(mono))

    def finish(self) -> tuple[int, Samples]:
        return self._placed(self._soxr.resample_chunk(np.zeros(0, np.float32), last=True))

    def _placed(self, samples: Samples) -> tuple[int, Samples]:
        first = self._next
        self._next += len(samples)
        return first, samples


def _mono(raw: av.AudioFrame) -> Samples:
    """Mean of the channels, full scale at 1."""
    values: npt.NDArray[Any] = raw.to_ndarray()  # (C, n), or interleaved (1, n * C)
    if not raw.format.is_planar:
        values = values.reshape(-1, raw.layout.nb_channels).T
    mono: Samples = values.astype(np.float32, copy=False).mean(0, dtype=np.float32)
    if values.dtype.kind == "f":
        return mono
    middle = 128 if values.dtype == np.uint8 else 0
    return (mono - np.float32(middle)) / np.float32(2.0 ** (8 * values.dtype.itemsize - 1))
