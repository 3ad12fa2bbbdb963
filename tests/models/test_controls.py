"""The yardsticks do what their names say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from tests.models.conftest import DIMS, TASK, random_batch

from moodal.batch import Batch, Ragged
from moodal.models import create_model
from moodal.models.discriminant import LDA, LDAProduct, LDAStacking, shrunk_gaussians
from moodal.models.fusion import LowRankFusion, append_one
from moodal.training.loop import predict
from moodal.types import InputError, Task


@pytest.fixture
def train() -> Batch:
    return random_batch(120, seed=3, signal=0.7)


def fitted(cls: type, train: Batch) -> LDA:
    model = cls(train.dims, TASK)
    model.fit_standardisation(train)
    model.fit(train, seed=0)
    return model.eval()  # type: ignore[no-any-return]


def test_low_rank_fusion_is_tensor_fusion_with_a_factored_weight() -> None:
    fusion = LowRankFusion(3, dim=3, out=2, rank=4)
    h = torch.randn(5, 3, 3)
    weight = torch.einsum("r,rio,rjo,rko->ijko", fusion.weights[0], *fusion.factors)
    a, b, c = (append_one(x) for x in h.unbind(1))
    tensor = torch.einsum("bi,bj,bk->bijk", a, b, c)  # (B, 4, 4, 4)
    torch.testing.assert_close(fusion(h), torch.einsum("bijk,ijko->bo", tensor, weight) + fusion.bias)


def test_late_average_is_the_mean_probability_of_the_modalities_that_are_there() -> None:
    model = create_model("late_average", DIMS, TASK).eval()
    batch = random_batch(3).without("text", torch.tensor([True, False, False]))
    out = model(batch)
    for row, names in ((0, ["audio", "vision"]), (1, ["text", "audio", "vision"])):
        mean = torch.stack([out.unimodal_logits[m][row].softmax(0) for m in names]).mean(0)
        torch.testing.assert_close(out.logits[row].softmax(0), mean)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_late_average_trains_each_modality_for_itself(smoothing: float) -> None:
    """The gradient that reaches audio's weights does not depend on what text says."""
    model = create_model("late_average", DIMS, TASK, dropout=0.0).train()
    model.label_smoothing = smoothing
    first, second = random_batch(6), random_batch(6, seed=5)
    mixed = Batch({**first.inputs, "text": second.inputs["text"]}, first.labels)
    grads = []
    for batch in (first, mixed):
        model.zero_grad()
        out = model(batch)
        losses = [model.task_loss(out.logits, batch.labels), *model.extra_losses(out, batch).values()]
        sum(losses).backward()
        grads.append(model.heads["audio"].weight.grad.clone())
    assert torch.equal(grads[0], grads[1])


@pytest.mark.parametrize("modality", list(DIMS))
def test_a_unimodal_model_sees_one_modality_only(modality: str) -> None:
    model = create_model(f"{modality}_only", DIMS, TASK).eval()
    first, second = random_batch(4), random_batch(4, seed=8)
    mixed = Batch({m: (first if m == modality else second).inputs[m] for m in DIMS}, first.labels)
    assert torch.equal(model(first).logits, model(mixed).logits)


def test_a_unimodal_model_of_an_absent_modality_is_refused() -> None:
    with pytest.raises(InputError, match="this data set has no vision"):
        create_model("vision_only", {"text": 3}, TASK)


def test_lda_is_fishers_rule_with_the_shrunk_covariance() -> None:
    """On many rows of few columns Ledoit-Wolf shrinks next to nothing, and scikit-learn's plain LDA is the truth."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 4000)
    x = rng.normal(size=(4000, 4)) @ rng.normal(size=(4, 4)) + np.eye(3)[y] @ rng.normal(size=(3, 4)) / 2
    batch = Batch({"audio": Ragged.from_rows(torch.from_numpy(x).float())}, torch.from_numpy(y))
    ours = predict(fitted(LDA, batch), batch).logits.softmax(1).numpy()
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(x, y).predict_proba(x)
    np.testing.assert_allclose(ours, theirs, atol=0.05)
    assert (ours.argmax(1) == theirs.argmax(1)).mean() > 0.98


def test_the_product_multiplies_the_experts_and_counts_the_prior_once(train: Batch) -> None:
    model = fitted(LDAProduct, train)
    test = random_batch(10, seed=4)
    out = model(test)
    prior = model.get_buffer("log_prior").exp()
    product = prior * torch.stack([out.unimodal_logits[m].double().softmax(1) / prior for m in DIMS]).prod(0)
    torch.testing.assert_close(
        out.logits.double().softmax(1), product / product.sum(1, keepdim=True), atol=1e-5, rtol=0
    )


def test_a_missing_modality_drops_out_of_the_product(train: Batch) -> None:
    model = fitted(LDAProduct, train)
    test = random_batch(10, seed=4)
    alone = model(test.without("text").without("audio"))
    torch.testing.assert_close(alone.logits.softmax(1), model(test).unimodal_logits["vision"].softmax(1))


def test_lda_integrates_a_missing_modality_out(train: Batch) -> None:
    """Exactly: the LDA of the remaining columns with the same means and the block of the same covariance."""
    model = fitted(LDA, train)
    test = random_batch(10, seed=4)
    x = model.vectors(model.prepare(test))
    keep = slice(DIMS["text"], DIMS["text"] + DIMS["audio"])
    covariance = model.get_buffer("covariance")[keep, keep].numpy()
    centres = model.get_buffer("centres_audio").numpy()
    distance = [[(r - c) @ np.linalg.solve(covariance, r - c) for c in centres] for r in x["audio"].numpy()]
    expected = torch.softmax(model.get_buffer("log_prior") - torch.tensor(distance) / 2, 1)
    got = model(test.without("text").without("vision")).logits.double().softmax(1)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_a_modality_missing_in_training_counts_for_nothing() -> None:
    """The centres are those of the utterances that have it, and LDA is no worse for the rest."""
    train, test = random_batch(600, seed=3, signal=2.0), random_batch(300, seed=4, signal=2.0)
    sparse = train.without("audio", torch.arange(600) % 10 > 0)
    model = fitted(LDA, sparse)
    has = sparse.present["audio"]
    x = model.prepare(sparse).inputs["audio"].mean()
    for c in range(3):
        expected = x[has & (sparse.labels == c)].double().mean(0)
        torch.testing.assert_close(model.get_buffer("centres_audio")[c], expected, atol=1e-5, rtol=0)
    assert (predict(model, test).logits.argmax(1) == test.labels).float().mean() > 0.9


def test_stacking_never_lets_an_expert_judge_a_group_it_was_fitted_on(
    monkeypatch: pytest.MonkeyPatch, train: Batch
) -> None:
    model = LDAStacking(train.dims, TASK)
    model.fit_standardisation(train)
    fitted_on: list[set[int]] = []
    original_fit, original_judge = LDAStacking.fit_experts, LDAStacking.log_probabilities

    def fit(self: LDAStacking, batch: Batch, y: object) -> None:
        fitted_on.append(set(batch.groups.tolist()))  # type: ignore[union-attr]
        original_fit(self, batch, y)  # type: ignore[arg-type]

    def judge(self: LDAStacking, batch: Batch) -> torch.Tensor:
        assert not fitted_on[-1] & set(batch.groups.tolist())  # type: ignore[union-attr]
        return original_judge(self, batch)

    monkeypatch.setattr(LDAStacking, "fit_experts", fit)
    monkeypatch.setattr(LDAStacking, "log_probabilities", judge)
    model.fit(train, seed=0)
    assert len(fitted_on) == 6  # five folds, then everything


def test_stacking_works_with_two_classes() -> None:
    batch = random_batch(80, signal=3.0)
    two = Batch(batch.inputs, (batch.labels == 0).long(), {}, batch.groups)
    model = LDAStacking(two.dims, Task(("no", "yes")))
    model.fit_standardisation(two)
    model.fit(two, seed=0)
    assert (predict(model, two).logits.argmax(1) == two.labels).float().mean() > 0.9


def test_a_class_without_examples_is_refused_by_name(train: Batch) -> None:
    rows = torch.nonzero(train.labels != 1)[:, 0]
    with pytest.raises(InputError, match="class 'neutral' has no example in the training split"):
        fitted(LDA, train.select(rows))


def test_shrunk_covariance_is_invertible_with_more_columns_than_rows() -> None:
    x = np.random.default_rng(0).normal(size=(20, 50))
    _, covariance = shrunk_gaussians(x, np.arange(20) % 2, 2)
    assert np.linalg.eigvalsh(covariance).min() > 0


def test_lmf_has_the_reference_packages_number_of_parameters() -> None:
    """273,303 on CH-SIMS sizes, counted in the package of the field. The layers are the same, so the count is."""
    model = create_model("lmf", {"text": 768, "audio": 33, "vision": 709}, TASK)
    assert sum(p.numel() for p in model.parameters()) == 273_303
