"""Standardisation: fitted on the real steps, exact on them, harmless where a column is constant."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moodal.batch import Batch, Ragged
from moodal.models import create_model
from moodal.models.base import STANDARDISATIONS
from moodal.types import Task

TASK = Task(("a", "b"))


def correlated(count: int = 400) -> Batch:
    g = torch.Generator().manual_seed(0)
    base = torch.randn(count, 3, generator=g)
    audio = torch.stack([100 + 5 * base[:, 0], 0.01 * (base[:, 0] + base[:, 1]), base[:, 2]], dim=1)
    lengths = torch.randint(1, 5, (count,), generator=g)
    text = torch.randn(int(lengths.sum()), 2, generator=g) * torch.tensor([3.0, 0.1]) + 7
    return Batch({"text": Ragged(text, lengths), "audio": Ragged.from_rows(audio)}, torch.arange(count) % 2)


def test_scaling_gives_every_column_mean_zero_and_deviation_one_over_real_steps() -> None:
    batch = correlated()
    model = create_model("lf_dnn", batch.dims, TASK, standardise="scale")
    model.fit_standardisation(batch)
    for x in model.prepare(batch).inputs.values():
        torch.testing.assert_close(x.values.mean(0), torch.zeros(x.dim), atol=1e-4, rtol=0)
        torch.testing.assert_close(x.values.std(0, correction=0), torch.ones(x.dim), atol=1e-3, rtol=0)


def test_more_steps_than_allowed_are_averaged_over_equal_spans_and_fewer_stay() -> None:
    steps = torch.arange(11.0)[:, None]
    batch = Batch({"text": Ragged(steps, torch.tensor([3, 0, 8]))}, torch.tensor([0, 1, 0]))
    model = create_model("text_only", batch.dims, TASK, max_steps=4)
    pooled = model.pool(batch).inputs["text"]
    assert pooled.lengths.tolist() == [3, 0, 4]
    assert pooled.values[:, 0].tolist() == [0, 1, 2, 3.5, 5.5, 7.5, 9.5]


def test_whitening_removes_correlation_within_a_pooled_modality_and_only_scales_sequences() -> None:
    batch = correlated()
    model = create_model("lf_dnn", batch.dims, TASK, standardise="whiten")
    model.fit_standardisation(batch)
    prepared = model.prepare(batch)
    covariance = np.cov(prepared.inputs["audio"].values.numpy().T)
    np.testing.assert_allclose(covariance, np.eye(3), atol=0.05)  # not exact: the covariance is shrunk
    assert model.get_buffer("scale_text").dim() == 1


def test_whitening_within_classes_removes_the_correlation_around_each_classs_own_mean() -> None:
    batch = correlated(900)
    assert batch.labels is not None
    moved = batch.inputs["audio"].values + batch.labels[:, None] * torch.tensor([20.0, -0.05, 3.0])
    absent = torch.arange(900) % 7 == 0  # rows of features and labels differ in number
    batch = Batch({"text": batch.inputs["text"], "audio": Ragged.from_rows(moved)}, batch.labels).without(
        "audio", absent
    )
    model = create_model("lf_dnn", batch.dims, TASK, standardise="whiten_within")
    model.fit_standardisation(batch)
    x, y = model.prepare(batch).inputs["audio"].values.numpy(), batch.labels[~absent].numpy()
    residual = np.concatenate([x[y == c] - x[y == c].mean(0) for c in (0, 1)])
    np.testing.assert_allclose(np.cov(residual.T), np.eye(3), atol=0.05)
    assert np.abs(np.cov(x.T) - np.eye(3)).max() > 1  # the classes themselves stay apart


def test_a_constant_column_becomes_zero_not_nan() -> None:
    batch = correlated()
    batch.inputs["audio"].values[:, 1] = 4.2
    for how in STANDARDISATIONS:
        model = create_model("lf_dnn", batch.dims, TASK, standardise=how)
        model.fit_standardisation(batch)
        out = model.prepare(batch).inputs["audio"].values
        assert torch.isfinite(out).all()
        torch.testing.assert_close(out[:, 1], torch.zeros(len(out)), atol=1e-4, rtol=0)


def test_mean_std_pooling_is_numpys_mean_and_population_deviation() -> None:
    batch = correlated(20)
    model = create_model("lf_dnn", batch.dims, TASK, text_pooling="mean_std")
    pooled = model.pool(batch).inputs["text"].values.numpy()
    steps = np.split(batch.inputs["text"].values.numpy(), np.cumsum(batch.inputs["text"].lengths.numpy())[:-1])
    expected = np.stack([np.concatenate([s.mean(0), s.std(0)]) for s in steps])
    np.testing.assert_allclose(pooled, expected, atol=1e-5)


@pytest.mark.parametrize("how", STANDARDISATIONS)
def test_standardising_does_not_depend_on_scale_or_offset_of_the_features(how: str) -> None:
    batch = correlated()
    moved = Batch({m: Ragged(x.values * 1000 - 5, x.lengths) for m, x in batch.inputs.items()}, batch.labels)
    tiny = Batch({m: Ragged(x.values * 1e-7, x.lengths) for m, x in batch.inputs.items()}, batch.labels)
    out = []
    for b in (batch, moved, tiny):
        model = create_model("lf_dnn", b.dims, TASK, standardise=how)
        model.fit_standardisation(b)
        out.append(model.prepare(b).inputs["audio"].values)
    torch.testing.assert_close(out[0], out[1], atol=2e-3, rtol=0)
    torch.testing.assert_close(out[0], out[2], atol=2e-3, rtol=0)


def test_a_modality_with_too_few_rows_to_whiten_is_scaled() -> None:
    wide = Ragged.from_rows(torch.randn(30, 16, generator=torch.Generator().manual_seed(0)) * 5)
    batch = Batch({"audio": wide}, torch.arange(30) % 2)
    prepared = []
    for how in STANDARDISATIONS:
        model = create_model("lf_dnn", batch.dims, TASK, standardise=how)
        model.fit_standardisation(batch)
        prepared.append(model.prepare(batch).inputs["audio"].values)
    torch.testing.assert_close(prepared[1], prepared[0])
    torch.testing.assert_close(prepared[2], prepared[0])
