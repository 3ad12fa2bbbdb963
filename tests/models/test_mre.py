"""MRE beside its paper: each fast form against the formula, written as loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from tests.models.conftest import DIMS, TASK, random_batch
from torch import Tensor

from moodal.batch import Batch
from moodal.models import create_model
from moodal.models.mre import MRE, bag_attention, contrastive_semantic_loss, masked_softmax, relevant_semantic_loss
from moodal.types import InputError, Task

ALL = torch.ones(4, 3, dtype=torch.bool)


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    e = [math.exp(v - top) for v in values]
    return [x / sum(e) for x in e]


def slow_attention(bag: Tensor, present: Tensor) -> Tensor:
    """Eq. 3 per utterance: softmax(S S^T / sqrt(H)) S over the modalities that are there."""
    out = torch.zeros_like(bag)
    for b in range(len(bag)):
        there = [m for m in range(bag.shape[1]) if present[b, m]]
        for m in there:
            scores = [float(bag[b, m] @ bag[b, k]) / math.sqrt(bag.shape[2]) for k in there]
            out[b, m] = sum(w * bag[b, k] for w, k in zip(softmax(scores), there, strict=True))
    return out


def cross_entropy(logits: Tensor, label: int) -> float:
    return -math.log(softmax(logits.tolist())[label])


def slow_contrastive(bag: Tensor, classes: Tensor, present: Tensor, tau: float) -> float:
    """Eq. 6-7, pair of modalities by pair, utterance by utterance."""
    total = 0.0
    for s1, s2 in itertools.permutations(range(bag.shape[1]), 2):
        positive, negative = [], []
        others = [k for k in range(len(bag)) if present[k, s2]]
        for i in range(len(bag)):
            if not present[i, s1]:
                continue
            sims = [float(torch.cosine_similarity(bag[i, s1], bag[k, s2], dim=0)) / tau for k in others]
            for j, p in zip(others, softmax(sims), strict=True):
                if classes[i] == classes[j]:
                    positive.append(math.log(p))
                else:
                    negative.append(math.log(1 - p))
        total -= sum(positive) / max(1, len(positive)) + sum(negative) / max(1, len(negative))
    return total


@pytest.fixture
def bag() -> Tensor:
    return torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.double)


@pytest.mark.parametrize("gone", [[], [(0, 1)], [(0, 0), (0, 2), (3, 1)]])
def test_attention_is_equation_3(bag: Tensor, gone: list[tuple[int, int]]) -> None:
    present = ALL.clone()
    for b, m in gone:
        present[b, m] = False
    torch.testing.assert_close(bag_attention(bag, bag, bag, present), slow_attention(bag, present))


def test_relevant_semantic_loss_is_equation_5() -> None:
    g = torch.Generator().manual_seed(1)
    unimodal, pooled = torch.randn(4, 3, 5, generator=g), torch.randn(4, 5, generator=g)
    r = torch.softmax(torch.randn(4, 3, generator=g), 1)
    labels, present = torch.tensor([0, 4, 2, 2]), ALL.clone()
    present[1, 2] = False
    expected = 0.0
    for b in range(4):
        for m in range(3):
            if present[b, m]:
                expected += (1 + float(r[b, m])) * cross_entropy(unimodal[b, m], int(labels[b])) / 4
        expected += cross_entropy(pooled[b], int(labels[b])) / 4
    loss = relevant_semantic_loss(unimodal, pooled, r, labels, present)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("classes", [[0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 0, 1]])
@pytest.mark.parametrize("gone", [[], [(0, 1), (2, 0)]])
def test_contrastive_loss_is_equations_6_and_7(bag: Tensor, classes: list[int], gone: list[tuple[int, int]]) -> None:
    """Also where a class is alone in the batch and where there is no negative: that term is 0."""
    present = ALL.clone()
    for b, m in gone:
        present[b, m] = False
    loss = contrastive_semantic_loss(bag, torch.tensor(classes), present, 0.5)
    assert loss.item() == pytest.approx(slow_contrastive(bag, torch.tensor(classes), present, 0.5), rel=1e-4)


def test_contrastive_loss_and_its_gradient_are_finite_where_a_trial_had_nan() -> None:
    """A zero vector, identical vectors with a tiny temperature (P = 1 for a negative), a batch of one."""
    for rows, classes in (
        (torch.zeros(3, 3, 4), [0, 1, 0]),
        (torch.ones(3, 3, 4), [0, 1, 2]),
        (torch.ones(1, 3, 4), [0]),
    ):
        bag = rows.clone().requires_grad_()
        there = torch.ones(len(rows), 3, dtype=torch.bool)
        loss = contrastive_semantic_loss(bag, torch.tensor(classes), there, 0.01)
        loss.backward()  # type: ignore[no-untyped-call]
        assert torch.isfinite(loss)
        assert bag.grad is not None
        assert torch.isfinite(bag.grad).all()


def test_the_fusion_is_the_formula_of_the_weighted_bag() -> None:
    """Eq. 1, 2 and 4 by loops over ranks and modalities, from the model's own encodings and relevance."""
    model = MRE(DIMS, TASK, hidden=5, rank=3).eval()
    batch = random_batch(4)
    out = model(batch)
    bag, r = out.embeddings["bag"], out.relevance
    assert r is not None
    expected = torch.zeros(4, 3)
    for b in range(4):
        for rank in range(3):
            z = torch.ones(3)
            for m in range(3):
                row = torch.cat([3 * r[b, m] * bag[b, m], torch.ones(1)])  # rescaled by the number of modalities
                z = z * (row @ model.fusion.factors[m][rank])
            expected[b] += model.fusion.weights[0, rank] * z
    torch.testing.assert_close(out.logits, expected + model.fusion.bias)


def test_relevance_is_a_softmax_over_the_modalities_that_are_there() -> None:
    model = MRE(DIMS, TASK).eval()
    batch = random_batch(5).without("audio", torch.tensor([True, False, False, True, False]))
    r = model(batch).relevance
    assert r is not None
    torch.testing.assert_close(r.sum(1), torch.ones(5))
    assert r[[0, 3], 1].tolist() == [0.0, 0.0]
    assert (r[[1, 2, 4]] > 0).all()


def test_with_rescaling_equal_relevance_leaves_the_bag_as_it_is() -> None:
    model = MRE(DIMS, TASK).eval()
    for p in model.m1.parameters():
        p.data.zero_()  # every modality gets the same score
    out = model(random_batch(3))
    torch.testing.assert_close(out.embeddings["weighted_bag"], out.embeddings["bag"])
    plain = MRE(DIMS, TASK, rescale=False).eval()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(plain(random_batch(3)).embeddings["weighted_bag"], out.embeddings["bag"] / 3)


def test_sigmoid_relevance_judges_each_modality_by_itself() -> None:
    r = MRE(DIMS, TASK, relevance="sigmoid").eval()(random_batch(5)).relevance
    assert r is not None
    assert ((r > 0) & (r < 1)).all()
    assert not torch.allclose(r.sum(1), torch.ones(5))


def gradient_at_m1(model: MRE, batch: Batch) -> float:
    output = model(batch)
    loss = model.extra_losses(output, batch)["relevant_semantic"]
    grads = torch.autograd.grad(loss, list(model.m1.parameters()), allow_unused=True)
    return sum(float(g.abs().sum()) for g in grads if g is not None)


def test_equation_5_teaches_relevance_unless_detached() -> None:
    batch = random_batch(6)
    torch.manual_seed(0)
    free = MRE(DIMS, TASK, w_cnce=0.0).eval()
    assert gradient_at_m1(free, batch) > 0
    # detached, only the mixture's own term is left
    held = MRE(DIMS, TASK, w_cnce=0.0, detach_relevance=True).eval()
    held.load_state_dict(free.state_dict())
    assert gradient_at_m1(held, batch) != pytest.approx(gradient_at_m1(free, batch))


def test_the_four_settings_of_table_5_differ_only_in_their_losses() -> None:
    expected = {
        "mre": {"relevant_semantic", "contrastive_semantic"},
        "mre_rs": {"relevant_semantic"},
        "mre_cnce": {"contrastive_semantic"},
        "mre_baseline": set(),
    }
    batch, logits = random_batch(6), []
    for name, losses in expected.items():
        torch.manual_seed(0)
        model = create_model(name, DIMS, TASK).eval()
        output = model(batch)
        assert set(model.extra_losses(output, batch)) == losses
        logits.append(output.logits)
    assert all(torch.equal(logits[0], other) for other in logits[1:])


def test_projections_are_learned_only_when_asked_for() -> None:
    def size(model: MRE) -> int:
        return sum(p.numel() for p in model.parameters())

    plain, projected = MRE(DIMS, TASK, hidden=8), MRE(DIMS, TASK, hidden=8, attention_projections=True)
    assert size(projected) - size(plain) == 3 * (8 * 8 + 8)


def test_masked_softmax_ignores_what_is_not_kept_and_survives_nothing_kept() -> None:
    out = masked_softmax(
        torch.tensor([[1.0, 99.0, 1.0], [5.0, 5.0, 5.0]]), torch.tensor([[True, False, True], [False] * 3])
    )
    torch.testing.assert_close(out, torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]))


def test_for_scores_the_losses_use_absolute_errors_and_signs() -> None:
    model = MRE(DIMS, Task(low=-3, high=3)).eval()
    batch = Batch(random_batch(4).inputs, torch.tensor([-2.0, 0.0, 1.0, 3.0]))
    losses = model.extra_losses(model(batch), batch)
    assert all(torch.isfinite(v) and v > 0 for v in losses.values())


def test_an_unknown_kind_of_relevance_is_refused() -> None:
    with pytest.raises(InputError, match="softmax or sigmoid"):
        MRE(DIMS, TASK, relevance="tanh")


def test_one_modality_alone_has_nothing_to_contrast() -> None:
    batch = random_batch(6)
    alone = Batch({"audio": batch.inputs["audio"]}, batch.labels)
    model = create_model("mre", alone.dims, TASK)
    losses = model.extra_losses(model(alone), alone)
    assert losses["contrastive_semantic"] == 0
    assert losses["relevant_semantic"] > 0
