"""The fused tensor is never built, and everything is as if it were."""

from __future__ import annotations

import itertools

import pytest
import torch
from tests.models.conftest import DIMS, TASK, random_batch
from torch import Tensor

from moodal.models import create_model
from moodal.models.dropout import kept, kept_scale
from moodal.models.fusion import LowRankFusion, append_one
from moodal.models.tfn import TensorFusion, outer_product
from moodal.types import InputError, Task

DIMENSIONS = [[3, 2, 4], [4, 3], [5]]
DIMS_OUT = {"text": 256, "audio": 32, "vision": 128}


def random_vectors(dims: list[int], count: int = 5) -> list[Tensor]:
    return [torch.randn(count, d, dtype=torch.float64, requires_grad=True) for d in dims]


@pytest.mark.parametrize("dims", DIMENSIONS, ids=str)
def test_fusion_is_a_linear_layer_on_the_outer_product_of_each_utterance(dims: list[int]) -> None:
    fusion = TensorFusion(dims, 2).double()
    h = random_vectors(dims)
    got = fusion(h)
    for row in range(5):
        vectors = [[*x[row].tolist(), 1.0] for x in h]
        fused = torch.tensor(
            [torch.tensor(c, dtype=torch.float64).prod() for c in itertools.product(*vectors)], dtype=torch.float64
        )
        torch.testing.assert_close(got[row], fusion.unfolded @ fused + fusion.bias)


@pytest.mark.parametrize("dims", DIMENSIONS, ids=str)
def test_training_equals_dropout_on_the_built_tensor_in_value_and_every_gradient(dims: list[int]) -> None:
    p, count = 0.4, 5
    fusion = TensorFusion(dims, 2, dropout=p).double().train()
    h = random_vectors(dims, count)
    weights = torch.randn(count, 2, dtype=torch.float64)
    leaves = [*h, *fusion.parameters()]

    torch.manual_seed(7)
    ours = fusion(h)
    gradients = torch.autograd.grad((ours * weights).sum(), leaves, allow_unused=True)

    torch.manual_seed(7)
    entries = fusion.weight.shape[2]  # of each slice of the tensor
    mask = torch.cat([kept(count * entries, p).view(count, entries) for _ in range(dims[0] + 1)], dim=1)
    fused = outer_product([append_one(x) for x in h]) * mask * kept_scale(p)
    built = fused @ fusion.unfolded.t() + fusion.bias
    assert 0 < mask.float().mean() < 1
    torch.testing.assert_close(ours, built)
    expected = torch.autograd.grad((built * weights).sum(), leaves, allow_unused=True)
    for ours_, built_ in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours_, built_)


def test_entries_of_the_tensor_are_dropped_each_for_itself() -> None:
    """Mean and variance over many draws are those of independent entries; any shared fate would raise the variance."""
    torch.manual_seed(0)
    p, count = 0.4, 40_000
    fusion = TensorFusion([2, 2, 3], 1, dropout=p)
    one = [torch.rand(1, d) + 0.5 for d in (2, 2, 3)]
    with torch.no_grad():
        fusion.weight.fill_(1.0)
        draws = fusion.train()([x.expand(count, -1) for x in one])[:, 0].double()
        whole = fusion.eval()(one).item()
    entries = outer_product([append_one(x) for x in one])[0].double()
    variance = p / (1 - p) * entries.square().sum().item()
    assert abs(draws.mean().item() - whole) < 5 * (variance / count) ** 0.5
    assert abs(draws.var().item() / variance - 1) < 0.05


def test_low_rank_fusion_is_tensor_fusion_with_a_factored_weight() -> None:
    """Liu et al. 2018: LMF's factors, multiplied out, are a weight of TFN's linear map."""
    dims, out = [3, 2, 4], 2
    low_rank, full = LowRankFusion(3, dims, out, rank=4), TensorFusion(dims, out)
    with torch.no_grad():
        full.weight.copy_(torch.einsum("r,rio,rjo,rko->iojk", low_rank.weights[0], *low_rank.factors).flatten(2))
        full.bias.copy_(low_rank.bias[0])
    h = [torch.randn(6, d) for d in dims]
    torch.testing.assert_close(full(h), low_rank(h))


def test_a_missing_modality_leaves_the_product_of_the_others() -> None:
    model = create_model("tfn", DIMS, TASK).eval()
    out = model(random_batch(4).without("audio"))
    weight = model.fusion.weight.view(-1, 32, DIMS_OUT["audio"] + 1, DIMS_OUT["vision"] + 1)[:, :, -1]  # audio's 1
    text, vision = (append_one(out.embeddings[m]) for m in ("text", "vision"))
    expected = torch.einsum("bi,bk,iok->bo", text, vision, weight) + model.fusion.bias
    torch.testing.assert_close(out.embeddings["fusion"], expected)


@pytest.mark.parametrize(("task", "count"), [(TASK, 35_632_143), (Task(low=-1, high=1), 35_632_077)])
def test_as_many_parameters_as_the_reference_has_on_ch_sims(task: Task, count: int) -> None:
    model = create_model("tfn", {"text": 768, "audio": 33, "vision": 709}, task)
    assert sum(p.numel() for p in model.parameters()) == count


def test_dropout_of_everything_is_refused() -> None:
    with pytest.raises(InputError, match="dropout must be at least 0 and below 1"):
        create_model("tfn", DIMS, TASK, dropout=1.0)
