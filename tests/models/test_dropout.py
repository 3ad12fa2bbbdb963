"""Our dropout drops as many as asked, keeps the mean, and repeats with the seed."""

from __future__ import annotations

import pytest
import torch

from moodal.models.dropout import Dropout, dropout, keep_mask


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_a_share_of_p_is_zero_and_the_mean_stays(p: float) -> None:
    torch.manual_seed(0)
    mask = keep_mask(torch.empty(1000, 997), p)
    spread = (p * (1 - p) / mask.numel()) ** 0.5
    assert abs((mask == 0).float().mean().item() - p) < 5 * spread + 1e-5
    torch.testing.assert_close(mask[mask > 0], torch.full_like(mask[mask > 0], 1 / (1 - p)), rtol=1e-4, atol=0)
    assert abs(mask.mean().item() - 1) < 5 * spread / (1 - p)


def test_neighbours_are_dropped_independently() -> None:
    """Four elements share one draw: they must not share their fate."""
    torch.manual_seed(0)
    kept = (keep_mask(torch.empty(200_000), 0.5) > 0).view(-1, 4).double()
    correlation = torch.corrcoef(kept.t())
    assert (correlation - torch.eye(4)).abs().max() < 0.02


def test_the_gradient_goes_where_the_value_went() -> None:
    x = torch.ones(7, 5, requires_grad=True)
    torch.manual_seed(0)
    y = dropout(x, 0.4)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_the_seed_decides_and_evaluation_drops_nothing() -> None:
    layer, x = Dropout(0.5), torch.ones(100)
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    assert torch.equal(first, layer(x))
    assert layer.eval()(x) is x
    assert dropout(x, 0.0) is x
