"""Small random batches and fitted models for the contract that every model has to keep."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from moodal.batch import Batch, Ragged
from moodal.models import MODELS, FusionModel, create_model
from moodal.types import Task

DIMS = {"text": 6, "audio": 4, "vision": 3}
TASK = Task(("negative", "neutral", "positive"))
ZOO = [name for name, entry in MODELS.items() if not entry.cls.reads_columns]  # what can learn from any features
MakeBatch = Callable[..., Batch]


def random_batch(count: int, seed: int = 0, *, signal: float = 0.0, shortest: int = 1) -> Batch:
    """``count`` utterances of 1 to 7 steps, classes in turn; ``signal`` moves every step by its class."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(TASK.classes)
    inputs = {}
    for m, dim in DIMS.items():
        lengths = torch.randint(shortest, 8, (count,), generator=g)
        x = Ragged(torch.randn(int(lengths.sum()), dim, generator=g), lengths)
        x.values[:, 0] += signal * (labels[x.owner] == 0)
        x.values[:, 1] += signal * (labels[x.owner] == 1)
        inputs[m] = x
    return Batch(inputs, labels, {}, torch.arange(count) // 2, [f"u{i}" for i in range(count)])


@pytest.fixture
def make_batch() -> MakeBatch:
    return random_batch


@pytest.fixture(params=ZOO)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str) -> FusionModel:
    """Each model of the zoo, in evaluation mode, standardisation (and closed forms) fitted on 40 utterances."""
    torch.manual_seed(0)
    built = create_model(name, DIMS, TASK)
    train = random_batch(40, seed=1, signal=1.0)
    built.fit_standardisation(train)
    if built.closed_form:
        built.fit(train, seed=0)
    return built.eval()
