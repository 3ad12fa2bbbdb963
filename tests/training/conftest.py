"""A data set small enough to train on in a hundredth of a second, with a label that can be learned."""

from dataclasses import replace

import numpy as np
import pytest

from moodal.config import Settings
from moodal.data.store import FeatureSpec, new_dataset, read_dataset
from moodal.experiment import Run
from moodal.training.plan import plan_experiments
from moodal.training.runs import train_run
from moodal.types import Task, Utterance

DIMS = {"text": 5, "audio": 4, "vision": 3}
CLASSES = ("calm", "angry", "sad")
SPLITS = ("train", "train", "train", "valid", "test")
NUM = 90


def toy_utterances(*, folds=0):
    """Groups of three neighbours, one utterance of each class; all of a group in one split or fold."""
    return [
        Utterance(
            id=f"u{i:02d}",
            speaker=f"s{i // 3}",
            group=f"s{i // 3}",
            label=CLASSES[i % 3],
            score=float(i % 3) - 1 + i / 1000,
            split=None if folds else SPLITS[i // 3 % len(SPLITS)],
            fold=i // 3 % folds if folds else None,
        )
        for i in range(NUM)
    ]


def toy_clips():
    """One to six noisy steps around a centre per class; every tenth utterance lacks its sound."""
    rng = np.random.default_rng(7)
    clips = {}
    for m, dim in DIMS.items():
        centres = rng.normal(0, 1, (3, dim))
        clips[m] = [
            (centres[i % 3] + rng.normal(0, 1, (rng.integers(1, 7), dim))).astype(np.float32) for i in range(NUM)
        ]
    clips["audio"] = [None if i % 10 == 4 else x for i, x in enumerate(clips["audio"])]
    return clips


def write_toy(path, utterances=None, clips=None, task=None):
    utterances, clips = utterances or toy_utterances(), clips or toy_clips()
    with new_dataset(path) as out:
        for m, dim in DIMS.items():
            out.write_features(FeatureSpec("toy", "1", m, dim), [u.id for u in utterances], clips[m])
        out.finish(utterances, task or Task(CLASSES, -1.5, 1.5), name="toy")
    return path


@pytest.fixture
def utterances():
    return toy_utterances()


@pytest.fixture
def clips():
    return toy_clips()


@pytest.fixture
def write(tmp_path):
    """Writes a data set folder: ``write(utterances, clips, task)``, each the toy's own where it is left out."""

    def run(*args, **options):
        return write_toy(tmp_path / f"data{len(list(tmp_path.iterdir()))}", *args, **options)

    return run


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy") / "data")


@pytest.fixture(scope="session")
def folded(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("folded") / "data", toy_utterances(folds=5))


@pytest.fixture(scope="session")
def plan():
    """One experiment: ``plan(folder, "mre", epochs=3)``."""

    def make(folder, model="mre", *, seed=0, fold=None, task=None, **settings):
        data = read_dataset(folder, task=task)
        given = Settings({"epochs": "4", "batch_size": "16", **{k: str(v) for k, v in settings.items()}})
        return replace(plan_experiments(data, [model], 1, given)[0], seed=seed, fold=fold)

    return make


@pytest.fixture
def train(tmp_path, plan):
    """Trains one run in this process and returns it."""

    def run(folder, *args, out="runs", **options):
        made = Run.of(tmp_path / out, plan(folder, *args, **options))
        train_run(folder, made)
        return made

    return run
