"""Whether one voice speaks or two: a network that turns a second and a half of speech into a point, and how far apart
the points of a clip lie.

The network is the encoder of the GE2E loss (Wan et al., ICASSP 2018, https://arxiv.org/abs/1710.10467) with the weights
that Resemblyzer 0.1.4 publishes: three LSTM layers over 40 mel bands, a linear layer, ReLU, length 1. The file is a
checkpoint of torch from before its zip format, which is pickled code; because it is one known file, checked by its
hash, the tensors are read from where they lie in it and nothing is unpickled. Computed with numpy, so that a worker
need not load torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from moodal.features.model_files import VOICE_MODEL, VOICES, read_model
from moodal.types import Segment

RATE_HZ = 16_000
SPECTRUM, HOP = 400, 160  # samples: 25 ms every 10 ms
BANDS = 40
WINDOW = 160  # steps of the network that make one point: 1.6 s
MIN_WINDOW = 60  # of a clip with less speech than two windows; below 0.6 s a voice is hardly told
STRIDE = 40
LOUDNESS_DB = -30.0  # what is softer is made this loud, as in training
MAX_SPEECH_S = 60.0  # of one clip, evenly spread: two points more or less do not move the middle of hundreds
BATCH = 64  # windows at a time

Array = npt.NDArray[np.float32]

# Where each tensor lies in the checkpoint: byte and shape. The file's hash is checked before.
TENSORS: dict[str, tuple[int, tuple[int, ...]]] = {
    "input.0": (269_883, (1024, 40)),
    "hidden.0": (433_723, (1024, 256)),
    "bias_input.0": (5_676_603, (1024,)),
    "bias_hidden.0": (5_680_699, (1024,)),
    "input.1": (1_482_299, (1024, 256)),
    "hidden.1": (2_530_875, (1024, 256)),
    "bias_input.1": (5_684_795, (1024,)),
    "bias_hidden.1": (5_688_891, (1024,)),
    "input.2": (3_579_451, (1024, 256)),
    "hidden.2": (4_628_027, (1024, 256)),
    "bias_input.2": (5_692_987, (1024,)),
    "bias_hidden.2": (5_697_083, (1024,)),
    "linear": (7_731, (256, 256)),
    "bias": (6_699, (256,)),
}


def embed(mels: Array, weights: Mapping[str, Array] | None = None) -> Array:
    """mels: (N, T, 40) power in mel bands -> (N, 256), each of length 1 and without a negative number."""
    w = weights or load_weights()
    x = np.ascontiguousarray(mels.transpose(1, 0, 2))  # (T, N, 40)
    for layer in range(3):
        x = _lstm(x, w, layer)
    points = np.maximum(x[-1] @ w["linear"].T + w["bias"], 0)
    found: Array = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-6)
    return found


def _lstm(x: Array, w: Mapping[str, Array], layer: int) -> Array:
    """(T, N, D) -> (T, N, 256). Gates as in torch: input, forget, cell, output; a sigmoid is half a tanh of half."""
    half = np.repeat(np.array([0.5, 0.5, 1.0, 0.5], np.float32), 256)
    bias = w[f"bias_input.{layer}"] + w[f"bias_hidden.{layer}"]
    inputs = (x @ w[f"input.{layer}"].T + bias) * half  # (T, N, 1024)
    recurrent = np.ascontiguousarray((w[f"hidden.{layer}"] * half[:, None]).T)
    out = np.empty((*x.shape[:2], 256), np.float32)
    h = c = np.zeros((x.shape[1], 256), np.float32)
    for t, row in enumerate(inputs):
        row += h @ recurrent
        i, f, g, o = np.split(np.tanh(row, out=row), 4, axis=1)
        c = np.float32(0.5) * ((1 + f) * c + (1 + i) * g)
        out[t] = h = np.float32(0.5) * (1 + o) * np.tanh(c)
    return out


@cache
def load_weights() -> Mapping[str, Array]:
    """The tensors of the network; the first use ever fetches their file."""
    content = read_model(VOICE_MODEL, VOICES)
    return {
        name: np.frombuffer(content, "<f4", int(np.prod(shape)), at).reshape(shape).astype(np.float32)
        for name, (at, shape) in TENSORS.items()
    }


def mel_power(samples: Array) -> Array:
    """(n,) at 16 kHz -> (1 + n // 160, 40): the power in Slaney's mel bands, not its logarithm."""
    around = np.pad(samples, SPECTRUM // 2)
    frames = np.lib.stride_tricks.sliding_window_view(around, SPECTRUM)[::HOP]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(SPECTRUM) / SPECTRUM)
    spectra = np.fft.rfft(frames * window.astype(np.float32), axis=1)
    found: Array = (np.abs(spectra).astype(np.float32) ** 2) @ _mel_bands().T
    return found


@cache
def _mel_bands() -> Array:
    """(40, 201): triangles of equal area between equally spaced mels, up to 8 kHz, as librosa's default."""
    edges = _hz_of(np.linspace(0.0, _mel_of(RATE_HZ / 2), BANDS + 2))
    bins = np.arange(SPECTRUM // 2 + 1) * RATE_HZ / SPECTRUM
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rise, fall = (bins - low) / (middle - low), (high - bins) / (high - middle)
    triangles: Array = (np.maximum(0, np.minimum(rise, fall)) * 2 / (high - low)).astype(np.float32)
    return triangles


def _mel_of(hz: float) -> float:
    return float(15 + np.log(hz / 1000) / (np.log(6.4) / 27))  # above 1 kHz


def _hz_of(mels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Linear up to 1 kHz, logarithmic above."""
    return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))


def speech_only(samples: Array, start_s: float, speech: Sequence[Segment]) -> Array:
    """The parts of ``samples`` (at 16 kHz, from ``start_s`` on) in which somebody speaks, one after the other."""
    spans = [(round((s.start_s - start_s) * RATE_HZ), round((s.end_s - start_s) * RATE_HZ)) for s in speech]
    parts = [samples[max(0, first) : max(0, last)] for first, last in spans]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def voice_points(speech: Array) -> Array:
    """(N, 256): the voice in each window of ``speech`` (no pauses, 16 kHz), none where there is too little of it."""
    size = len(speech) // HOP
    width = min(WINDOW, size // 2)  # two windows that do not overlap, at least
    if width < MIN_WINDOW:
        return np.zeros((0, 256), np.float32)
    mels = mel_power(_loud_enough(speech))[:size]
    count = 1 + (size - width) // STRIDE
    limit = round(MAX_SPEECH_S * RATE_HZ / HOP / STRIDE)
    firsts = np.unique(np.linspace(0, size - width, min(max(count, 2), limit)).astype(int))
    windows = np.stack([mels[k : k + width] for k in firsts])
    return np.concatenate([embed(windows[k : k + BATCH]) for k in range(0, len(windows), BATCH)])


def _loud_enough(samples: Array) -> Array:
    level_db = 10 * np.log10(max(float(np.mean(samples.astype(float) ** 2)), 1e-12))
    louder: Array = samples * np.float32(10 ** (max(0.0, LOUDNESS_DB - level_db) / 20))
    return louder


def voice_distance(points: Array) -> float:
    """How different the two most different voices among ``points`` are: 0 the same, 1 nothing in common; NaN of none.

    One window may be laughter or a door. So each point is first replaced by the mean of those that are most like it, a
    quarter of all; then it is 1 less the cosine of the two that are furthest apart.
    """
    if len(points) < 2:
        return float("nan")
    alike = points @ points.T
    nearest = np.argsort(-alike, axis=1, kind="stable")[:, : max(1, len(points) // 4)]
    voices = points[nearest].mean(1)
    voices /= np.maximum(np.linalg.norm(voices, axis=1, keepdims=True), 1e-6)
    return float(1 - (voices @ voices.T).min())
