"""Hidden states of a self-supervised speech encoder: wav2vec 2.0, HuBERT, WavLM, by their names in transformers.

Baevski et al., NeurIPS 2020, https://arxiv.org/abs/2006.11477; Hsu et al., 2021, https://arxiv.org/abs/2106.07447;
Chen et al., 2022, https://arxiv.org/abs/2110.13900. A stack of convolutions makes a step every 20 ms, on which a
transformer works. Attention costs the square of the length, so longer sound goes through in windows that overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from moodal.features.audio import resample
from moodal.features.extractor import AudioExtractor, Features
from moodal.features.pretrained import Pretrained, load_pretrained
from moodal.types import InputError

WINDOW_S = 20.0  # sound up to this goes through in one piece
CONTEXT_S = 2.0  # of sound that each window sees beyond its own ends
Array = npt.NDArray[Any]


class SpeechEncoder(AudioExtractor):
    """``dim`` numbers per step. ``source`` is a model's folder or its name on the hub; ``layer`` counts from 0, which
    is what enters the transformer; without it the last hidden states.
    """

    version = "1"
    modality = "audio"
    licence = "unknown"
    commercial = None
    columns: tuple[str, ...] = ()

    def __init__(self, source: str, *, layer: int | None = None) -> None:
        known = load_pretrained(source, "AutoFeatureExtractor")
        config = known.model.config
        _refuse_others(known)
        if layer is not None and not 0 <= layer <= config.num_hidden_layers:
            raise InputError(f"{known.name} has layers 0 to {config.num_hidden_layers}, got {layer}")
        self.name = f"hf-audio:{known.name}"
        self.dim = int(config.hidden_size)
        self.rate_hz = int(known.processor.sampling_rate)
        self._hop, self._reach = _geometry(config.conv_kernel, config.conv_stride)
        self.hop_s = self._hop / self.rate_hz
        self.settings: Mapping[str, Any] = {
            "model": known.name,
            "files": known.files,
            "sample_rate_hz": self.rate_hz,
            "layer": layer,
            "window_s": WINDOW_S,
            "context_s": CONTEXT_S,
        }
        self._layer, self._prepare, self._model = layer, known.processor, known.model

    def __call__(self, samples: Array, rate_hz: int) -> Features:
        """samples: (n,) float, mono. Sound shorter than one step (25 ms) is a missing modality."""
        y = resample(samples, rate_hz, self.rate_hz)
        if len(y) < self._reach:
            why = f"{len(y)} samples at {self.rate_hz} Hz are fewer than the {self._reach} of a step"
            return Features.missing(self.dim, why if len(y) else "there is no sound")
        prepared = self._prepare(y, sampling_rate=self.rate_hz, return_tensors="np")["input_values"][0]
        num_steps = (len(y) - self._reach) // self._hop + 1
        values = np.concatenate([self._states(prepared, *w) for w in self._windows(num_steps)])
        times_s = (np.arange(num_steps) * self._hop + self._reach / 2) / self.rate_hz
        return Features(values, times_s, "" if y.any() else "the sound is silent")

    def _windows(self, num_steps: int) -> Iterator[tuple[int, int, int, int]]:
        """First and last + 1 step that a window sees, and those that it answers for."""
        length, context = (round(s / self.hop_s) for s in (WINDOW_S, CONTEXT_S))
        if num_steps <= length:
            yield 0, num_steps, 0, num_steps
            return
        for start in range(0, num_steps, length):
            stop = min(start + length, num_steps)
            yield max(start - context, 0), min(stop + context, num_steps), start, stop

    def _states(self, prepared: Array, first: int, last: int, start: int, stop: int) -> Array:
        """(stop - start, dim) float32"""
        import torch

        piece = prepared[first * self._hop : last * self._hop + self._reach - 1]  # one sample fewer than another step
        with torch.inference_mode():
            output = self._model(
                torch.from_numpy(np.ascontiguousarray(piece))[None], output_hidden_states=self._layer is not None
            )
        states = output.last_hidden_state if self._layer is None else output.hidden_states[self._layer]
        if states.shape[1] != last - first:
            raise InputError(f"{self.name} gave {states.shape[1]} steps where its convolutions make {last - first}")
        kept: Array = states[0, start - first : stop - first].float().numpy()
        return kept


def _refuse_others(known: Pretrained) -> None:
    has_convolutions = getattr(known.model.config, "conv_stride", None) and hasattr(known.model.config, "conv_kernel")
    if not has_convolutions or known.processor.model_input_names[0] != "input_values":
        kind = known.model.config.model_type
        raise InputError(f"{known.name} is a {kind}, not a speech encoder like wav2vec 2.0, HuBERT or WavLM")


def _geometry(kernels: list[int], strides: list[int]) -> tuple[int, int]:
    """Samples from step to step, and samples that one step sees."""
    reach = 1 + sum((k - 1) * math.prod(strides[:i]) for i, k in enumerate(kernels))
    return math.prod(strides), reach
