"""How long a prediction takes when all is loaded: of a clip as a whole, and of MRE by itself.

    python benchmarks/predict.py CLIP [--rounds 5] [--threads 2]

The clip is predicted by the prior with the default extractors: decoding, words, voice, face, shots, answer. MRE, with
its default sizes, reads features of that clip's shape. Medians of warm rounds; the first, which loads models, stands
apart.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from moodal.batch import Batch, Ragged
from moodal.media.decode import probe
from moodal.models import create_model
from moodal.serving.judgement import Member, judge
from moodal.serving.predictor import Predictor
from moodal.types import Task

SHAPES = {"text": (24, 384), "audio": (216, 33), "vision": (50, 40)}  # of a 5-second clip
EMOTIONS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    predictor = Predictor.from_pretrained("prior")
    length_s = probe(asked.clip).duration_s or 0.0
    cold = seconds(lambda: predictor.predict(asked.clip))
    warm = statistics.median(seconds(lambda: predictor.predict(asked.clip)) for _ in range(asked.rounds))
    print(
        f"{asked.clip.name}: {length_s:.1f} s; first {cold:.2f} s, warm {warm:.2f} s = {warm / length_s:.2f} x length"
    )
    model, clip = mre(), one_clip()
    with torch.inference_mode():
        forward = median_ms(lambda: model(clip), asked.rounds)
    explained = median_ms(lambda: judge([Member(model)], clip), asked.rounds)
    print(f"MRE, one clip: {forward:.2f} ms; explained, with each modality alone: {explained:.2f} ms")


def mre() -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model("mre", {m: dim for m, (_, dim) in SHAPES.items()}, Task(EMOTIONS)).eval()


def one_clip() -> Batch:
    return Batch({m: Ragged(torch.randn(steps, dim), torch.tensor([steps])) for m, (steps, dim) in SHAPES.items()})


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median_ms(work: Callable[[], object], rounds: int) -> float:
    return 1000 * statistics.median(seconds(work) for _ in range(20 * rounds))


if __name__ == "__main__":
    main()
