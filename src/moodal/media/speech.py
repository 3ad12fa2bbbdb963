"""When somebody speaks, by Silero VAD 6 (https://github.com/snakers4/silero-vad, MIT), whose wheel holds its weights.

The package runs them from a TorchScript archive, which is pickled code, sets torch to one thread when it is imported,
and wants all of the sound at once. Its wheel also has the bare weights of this network as safetensors, from another
training (probabilities differ by up to .3 at the edges of speech, what is found hardly does): those are read here, and
the small network is computed with numpy, block by block, so that memory does not grow with the length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moodal.media.decode import stream_audio
from moodal.types import InputError, Segment

RATE_HZ = 16_000
WINDOW = 512  # samples that get one probability, 32 ms
CONTEXT = 64  # samples before it that the network sees as well
PAD = 64  # and mirrored ones after it
HOP, SPECTRUM = 128, 256  # of its spectra: four per window
BLOCK_S = 500 * WINDOW / RATE_HZ  # 16 s
HYSTERESIS = 0.15  # speech goes on until the probability falls this far below what began it

Array = npt.NDArray[np.float32]

SHAPES = {
    "stft_conv.weight": (258, 1, SPECTRUM),
    "conv1.weight": (128, 129, 3),
    "conv2.weight": (64, 128, 3),
    "conv3.weight": (64, 64, 3),
    "conv4.weight": (128, 64, 3),
    "lstm_cell.weight_ih": (512, 128),
    "lstm_cell.weight_hh": (512, 128),
    "final_conv.weight": (1, 128, 1),
}


def find_speech(
    video: Path, *, min_pause_s: float = 0.5, min_speech_s: float = 0.25, pad_s: float = 0.03, threshold: float = 0.5
) -> tuple[Segment, ...]:
    """The stretches of ``video`` in which somebody speaks; none where nobody does, or where there is no sound.

    A pause shorter than ``min_pause_s`` does not end a stretch; what is shorter than ``min_speech_s`` is no speech;
    ``pad_s`` is added on both sides. Singing counts as speech more often than not.
    """
    if not 0 < threshold < 1 or min(min_pause_s, min_speech_s, pad_s) < 0:
        raise InputError(
            f"need a threshold between 0 and 1 and lengths of 0 s or more, got {threshold}, {min_pause_s}, "
            f"{min_speech_s} and {pad_s}"
        )
    stretches: list[tuple[float, float]] = []
    since, quiet_since, heard_s = None, None, 0.0  # since when a stretch goes on, and the pause within it
    for start_s, end_s, probability in _heard(video):
        heard_s = end_s
        if probability >= threshold:
            since, quiet_since = start_s if since is None else since, None
        elif probability < max(threshold - HYSTERESIS, 0.01) and quiet_since is None:
            quiet_since = start_s
        if since is not None and quiet_since is not None and end_s - quiet_since >= min_pause_s:
            stretches.append((since, quiet_since))
            since = None
    if since is not None:
        stretches.append((since, heard_s if quiet_since is None else quiet_since))
    return _padded([(start, end) for start, end in stretches if end - start >= min_speech_s], pad_s, heard_s)


def _padded(stretches: Sequence[tuple[float, float]], pad_s: float, end_s: float) -> tuple[Segment, ...]:
    """Longer on both sides, up to half of the pause between two."""
    found = []
    for k, (start, end) in enumerate(stretches):
        before = stretches[k - 1][1] if k else 0.0
        after = stretches[k + 1][0] if k + 1 < len(stretches) else end_s
        room_before, room_after = (start - before) / (2 if k else 1), (after - end) / (2 if after < end_s else 1)
        found.append(Segment(start - min(pad_s, room_before), end + min(pad_s, room_after)))
    return tuple(found)


def speech_share(speech: Iterable[Segment], segment: Segment) -> float:
    """How much of ``segment`` is ``speech`` (as ``find_speech`` gives it), from 0 to 1."""
    overlaps = (min(s.end_s, segment.end_s) - max(s.start_s, segment.start_s) for s in speech)
    return sum(o for o in overlaps if o > 0) / (segment.end_s - segment.start_s)


def _heard(video: Path) -> Iterator[tuple[float, float, float]]:
    """When each window begins and ends (the last may be cut short), and the probability of speech in it."""
    network = Network()
    for time_s, samples in stream_audio(video, rate_hz=RATE_HZ, block_s=BLOCK_S):
        for k, probability in enumerate(network(samples)):
            first, last = k * WINDOW, min((k + 1) * WINDOW, len(samples))
            yield time_s + first / RATE_HZ, time_s + last / RATE_HZ, float(probability)


class Network:
    """Probabilities of speech, one per window of 512 samples at 16 kHz; remembers what it has heard."""

    def __init__(self, weights: Mapping[str, Array] | None = None) -> None:
        self._weights = weights or _weights()
        self._context = np.zeros(CONTEXT, np.float32)
        self._hidden = np.zeros(128, np.float32)
        self._cell = np.zeros(128, np.float32)

    def __call__(self, samples: Array) -> Array:
        """samples: (n,) that follow on what came before; zeros fill the last window -> (ceil(n / 512),)."""
        if not len(samples):
            return np.zeros(0, np.float32)
        w = self._weights
        x = self._windows(samples)  # (N, 4, 256)
        spectrum = x @ w["stft_conv.weight"][:, 0].T  # (N, 4, 258): real parts, then imaginary ones
        x = np.sqrt(spectrum[..., :129] ** 2 + spectrum[..., 129:] ** 2)
        for name, stride in (("conv1", 1), ("conv2", 2), ("conv3", 2), ("conv4", 1)):
            x = _convolve(x, w[f"{name}.weight"], w[f"{name}.bias"], stride)
        h = self._remember(x[:, 0])  # (N, 128)
        logits = np.maximum(h, 0) @ w["final_conv.weight"][0, :, 0] + w["final_conv.bias"]
        return _sigmoid(logits)

    def _windows(self, samples: Array) -> Array:
        count = -(-len(samples) // WINDOW)
        filled = np.zeros(CONTEXT + count * WINDOW, np.float32)
        filled[:CONTEXT], filled[CONTEXT : CONTEXT + len(samples)] = self._context, samples
        self._context = filled[-CONTEXT:].copy()
        seen = np.lib.stride_tricks.sliding_window_view(filled, CONTEXT + WINDOW)[::WINDOW]  # (N, 576)
        mirrored = np.concatenate([seen, seen[:, -2 : -2 - PAD : -1]], axis=1)  # (N, 640)
        return np.lib.stride_tricks.sliding_window_view(mirrored, SPECTRUM, axis=1)[:, ::HOP]

    def _remember(self, x: Array) -> Array:
        """The LSTM: (N, 128) -> (N, 128)."""
        w = self._weights
        inputs = x @ w["lstm_cell.weight_ih"].T + w["lstm_cell.bias_ih"] + w["lstm_cell.bias_hh"]  # (N, 512)
        recurrent = np.ascontiguousarray(w["lstm_cell.weight_hh"].T)
        out = np.empty_like(x)
        h, c = self._hidden, self._cell
        for k, row in enumerate(inputs):
            i, f, g, o = np.split(row + h @ recurrent, 4)
            c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
            out[k] = h = _sigmoid(o) * np.tanh(c)
        self._hidden, self._cell = h, c
        return out


def _convolve(x: Array, weight: Array, bias: Array, stride: int) -> Array:
    """Three steps wide, zeros around, then ReLU. x: (N, T, C); weight: (D, C, 3) -> (N, ceil(T / stride), D)."""
    around = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(around, 3, axis=1)[:, ::stride]  # (N, T', C, 3)
    flat = seen.reshape(*seen.shape[:2], -1) @ weight.reshape(len(weight), -1).T
    found: Array = np.maximum(flat + bias, 0)
    return found


def _sigmoid(x: Array) -> Array:
    found: Array = np.float32(0.5) * (1 + np.tanh(x / 2))  # no overflow, however small x is
    return found


@cache
def _weights() -> Mapping[str, Array]:
    """The tensors by their names. The package is looked for and not imported: see above."""
    spec = find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("finding speech needs the video extra; run: pip install 'moodal[video]'")
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = Path(spec.submodule_search_locations[0]) / "data" / "silero_vad_16k.safetensors"
    try:
        weights: dict[str, Any] = load_file(file)
    except (OSError, SafetensorError) as e:
        raise InputError(f"{file} cannot be read ({e}); run: pip install 'silero-vad>=6.2,<7'") from e
    wrong = [name for name, shape in SHAPES.items() if name not in weights or weights[name].shape != shape]
    if wrong:
        raise InputError(f"{file} holds another network ({wrong[0]}); run: pip install 'silero-vad>=6.2,<7'")
    return weights
