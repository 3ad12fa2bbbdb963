"""Attention in blocks against one query, one head and one utterance at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from moodal.models import attention
from moodal.models.attention import Plan, attend

HEADS, DIM = 2, 8
QUERIES, KEYS = torch.tensor([5, 1, 0, 7, 3, 2]), torch.tensor([2, 8, 4, 7, 0, 6])


@pytest.fixture(params=[(1, 1), (2, 40), (64, 1 << 19)], ids=["one by one", "small blocks", "one block"])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the work is cut into blocks and groups, the result is the same."""
    monkeypatch.setattr(attention, "BLOCK", request.param[0])
    monkeypatch.setattr(attention, "BLOCK_ELEMENTS", request.param[1])


def inputs(seed: int = 0) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    sizes = [int(QUERIES.sum()), int(KEYS.sum()), int(KEYS.sum())]
    return [torch.randn(n, HEADS * DIM, generator=g, dtype=torch.double, requires_grad=True) for n in sizes]


def slow(query: Tensor, key: Tensor, value: Tensor, keep: dict[tuple[int, int, int], Tensor] | None = None) -> Tensor:
    """Query i of utterance b sees key j if j <= i + |n_k - n_q|; ``keep``: factors on its weights, by (b, head, i)."""
    rows, at_q, at_k = [], 0, 0
    for b, (n_q, n_k) in enumerate(zip(QUERIES.tolist(), KEYS.tolist(), strict=True)):
        for i in range(n_q):
            parts = []
            for h in range(HEADS):
                columns = slice(h * DIM, (h + 1) * DIM)
                seen = [at_k + j for j in range(n_k) if j <= i + abs(n_k - n_q)]
                if not seen:
                    parts.append(torch.zeros(DIM, dtype=torch.double))
                    continue
                scores = torch.stack([query[at_q + i, columns] @ key[j, columns] / math.sqrt(DIM) for j in seen])
                weights = scores.exp() / scores.exp().sum()
                if keep is not None:
                    weights = weights * keep[b, h, i][: len(seen)]
                parts.append(sum(w * value[j, columns] for w, j in zip(weights, seen, strict=True)))  # type: ignore[arg-type]
            rows.append(torch.cat(parts))
        at_q, at_k = at_q + n_q, at_k + n_k
    return torch.stack(rows)


def gradients(out: Tensor, wrt: list[Tensor]) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(9)
    return torch.autograd.grad(out, wrt, torch.randn(out.shape, generator=g, dtype=out.dtype))


@pytest.mark.usefixtures("cut")
def test_values_and_gradients_are_those_of_the_formula() -> None:
    x = inputs()
    fast, expected = attend(*x, Plan.of(QUERIES, KEYS, HEADS)), slow(*x)
    torch.testing.assert_close(fast, expected)
    torch.testing.assert_close(gradients(fast, x), gradients(expected, x))


@pytest.mark.usefixtures("cut")
def test_dropout_is_elementwise_on_the_weights_in_values_and_gradients() -> None:
    """With unit vectors as values the output is the weights: what was kept can be read, and put into the formula."""
    plan, x = Plan.of(QUERIES, KEYS, HEADS), inputs()
    step = torch.cat([torch.arange(int(n)) for n in KEYS])
    unit = torch.eye(DIM, dtype=torch.double)[step].repeat(1, HEADS)
    all_weights = attend(x[0], x[1], unit, plan)
    torch.manual_seed(3)
    ratio = (attend(x[0], x[1], unit, plan, 0.4) / all_weights.clamp(min=1e-300)).detach().view(-1, HEADS, DIM)
    assert torch.isclose(ratio, torch.tensor(1 / 0.6, dtype=torch.double), rtol=1e-4).logical_or(ratio == 0).all()
    keep, row = {}, 0
    for b, n_q in enumerate(QUERIES.tolist()):
        for i in range(n_q):
            keep |= {(b, h, i): ratio[row, h] for h in range(HEADS)}
            row += 1
    torch.manual_seed(3)
    fast, expected = attend(*x, plan, 0.4), slow(*x, keep)
    torch.testing.assert_close(fast, expected)
    torch.testing.assert_close(gradients(fast, x), gradients(expected, x))


def test_the_share_of_dropped_weights_is_the_rate() -> None:
    n, dim = torch.tensor([300]), 300
    zeros, unit = torch.zeros(300, dim), torch.eye(dim)
    kept = attend(zeros, zeros, unit, Plan.of(n, n, 1), 0.2) > 0  # causal: row i has i + 1 weights
    share = 1 - kept.sum().item() / (300 * 301 / 2)
    assert abs(share - 0.2) < 0.01
    by_column = kept.sum(0) / torch.arange(300, 0, -1)
    assert (by_column[:200] - 0.8).abs().max() < 0.15


def test_the_same_seed_drops_the_same_weights_and_another_seed_others() -> None:
    x, plan = inputs(), Plan.of(QUERIES, KEYS, HEADS)
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(attend(*x, plan, 0.3))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_without_gradients_the_result_is_the_same() -> None:
    x, plan = inputs(), Plan.of(QUERIES, KEYS, HEADS)
    with torch.inference_mode():
        torch.testing.assert_close(attend(*x, plan), attend(*x, plan).clone())
        plain = attend(*x, plan).clone()
    assert torch.equal(plain, attend(*x, plan))


def test_nobody_reads_the_steps_of_another_utterance_not_even_a_nan() -> None:
    x, plan = inputs(), Plan.of(QUERIES, KEYS, HEADS)
    clean = attend(*x, plan)
    with torch.no_grad():
        for t, n in zip(x, (QUERIES, KEYS, KEYS), strict=True):
            t[int(n[:3].sum()) : int(n[:4].sum())] = torch.nan  # the fourth utterance
    dirty = attend(*x, plan)
    own = torch.repeat_interleave(QUERIES) == 3
    assert torch.equal(dirty[~own], clean[~own])
    assert dirty[own].isnan().all()


def test_utterances_without_keys_or_queries_are_left_out() -> None:
    x = inputs()
    out = attend(*x, Plan.of(QUERIES, KEYS, HEADS))
    blind = torch.repeat_interleave(QUERIES) == 4
    assert (out[blind] == 0).all()
    assert (out[~blind] != 0).all()
    nobody = attend(x[0], x[1][:0], x[2][:0], Plan.of(QUERIES, torch.zeros_like(KEYS), HEADS), 0.1)
    assert (nobody == 0).all()
