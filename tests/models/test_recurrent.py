"""Our recurrence is torch's LSTM: values and gradients, for any mixture of lengths."""

from __future__ import annotations

import pytest
import torch

from moodal.batch import Ragged
from moodal.models import recurrent
from moodal.models.recurrent import LSTM, Packing


@pytest.fixture(autouse=True, params=[1, 12, 1 << 17], ids=["a step a block", "few steps a block", "one block"])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradients are worked out in blocks of steps: however long those are, they are the same."""
    monkeypatch.setattr(recurrent, "BLOCK", request.param)


def reference_of(ours: LSTM) -> torch.nn.LSTM:
    dim, hidden = ours.weight_ih.shape[1], ours.weight_hh.shape[1]
    reference = torch.nn.LSTM(dim, hidden).to(ours.weight_ih.dtype)
    weights = (ours.weight_ih, ours.weight_hh, ours.bias_ih, ours.bias_hh)
    for theirs, mine in zip(reference.parameters(), weights, strict=True):
        theirs.data.copy_(mine.data)
    return reference


def one_by_one(reference: torch.nn.LSTM, x: Ragged) -> torch.Tensor:
    """Each sequence alone through torch.nn.LSTM; zeros for an empty one."""
    parts = torch.split(x.values, x.lengths.tolist())
    return torch.stack([reference(p)[0][-1] if len(p) else x.values.new_zeros(reference.hidden_size) for p in parts])


@pytest.mark.parametrize("dim", [5, 14])  # fewer and more than the 12 gates
@pytest.mark.parametrize("lengths", [[3, 0, 1, 5, 3], [1], [4, 4, 4], [0, 2], [1, 1, 7]])
def test_last_states_and_all_gradients_equal_torchs(lengths: list[int], dim: int) -> None:
    torch.manual_seed(0)
    ours = LSTM(dim, 3).double()
    reference = reference_of(ours)
    x = Ragged(torch.randn(sum(lengths), dim, dtype=torch.double, requires_grad=True), torch.tensor(lengths))
    weight = torch.randn(len(lengths), 3, dtype=torch.double)
    torch.testing.assert_close(ours(x), one_by_one(reference, x))
    mine = torch.autograd.grad((ours(x) * weight).sum(), [x.values, *ours.parameters()])
    theirs = torch.autograd.grad((one_by_one(reference, x) * weight).sum(), [x.values, *reference.parameters()])
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_gates_keep_their_slope_however_many_standardised_features_are_read() -> None:
    """torch's start, 1 / sqrt(hidden) for all weights, has the gates of 768 features saturated before training."""
    torch.manual_seed(0)
    x = torch.randn(500, 768)
    for hidden, dim in ((16, 768), (16, 33), (64, 5)):
        lstm = LSTM(dim, hidden)
        assert (x[:, :dim] @ lstm.weight_ih.detach().t()).std() < 0.7
        assert lstm.weight_hh.abs().max().item() == pytest.approx(hidden**-0.5, rel=0.01)


def test_no_sequence_at_all_gives_zeros() -> None:
    out = LSTM(2, 3)(Ragged(torch.zeros(0, 2), torch.zeros(4, dtype=torch.int64)))
    assert torch.equal(out, torch.zeros(4, 3))


def test_packing_is_time_major_longest_first() -> None:
    packing = Packing.of(Ragged(torch.zeros(6, 1), torch.tensor([1, 3, 2])))
    assert packing.order.tolist() == [1, 2, 0]
    assert packing.sizes == (3, 2, 1)
    assert packing.rows.tolist() == [1, 4, 0, 2, 5, 3]  # first steps of 1, 2, 0; second steps of 1, 2; third of 1


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [[3, 0, 1, 5, 3], [2], [0, 0]])
def test_states_of_every_step_and_their_gradients_equal_torchs(lengths: list[int], reverse: bool) -> None:
    """Hidden states from torch.nn.LSTM; cells from torch.nn.LSTMCell, step by step."""
    torch.manual_seed(0)
    ours = LSTM(5, 3).double()
    cell = torch.nn.LSTMCell(5, 3).double()
    cell.load_state_dict(ours.state_dict())
    x = Ragged(torch.randn(sum(lengths), 5, dtype=torch.double, requires_grad=True), torch.tensor(lengths))

    def slowly() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        last, hidden, cells = [], torch.zeros(sum(lengths), 3).double(), torch.zeros(sum(lengths), 3).double()
        for start, length in zip(x.starts.tolist(), lengths, strict=True):
            h, c = (torch.zeros(1, 3).double() for _ in range(2))
            for row in sorted(range(start, start + length), reverse=reverse):
                h, c = cell(x.values[row : row + 1], (h, c))
                hidden, cells = (
                    hidden.index_copy(0, torch.tensor([row]), h),
                    cells.index_copy(0, torch.tensor([row]), c),
                )
            last.append(h[0])
        return torch.stack(last), hidden, cells

    states = ours.states(x, reverse=reverse)
    found, expected = (states.last, states.hidden, states.cell), slowly()
    weights = [torch.randn_like(e) for e in expected]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    for used in ([0], [1], [2], [0, 1, 2]) if sum(lengths) else []:
        of_mine = torch.autograd.grad(
            sum((found[k] * weights[k]).sum() for k in used), [x.values, *ours.parameters()], retain_graph=True
        )
        of_theirs = torch.autograd.grad(
            sum((expected[k] * weights[k]).sum() for k in used), [x.values, *cell.parameters()], retain_graph=True
        )
        for a, b in zip(of_mine, of_theirs, strict=True):
            torch.testing.assert_close(a, b)


def test_gradients_that_fade_away_are_right_and_leave_the_processor_as_it_was() -> None:
    """After 700 steps they are below what a float holds with full precision; whoever computes next may need those."""
    torch.manual_seed(0)
    ours = LSTM(4, 3)
    reference = reference_of(ours)
    x = torch.randn(700, 4, requires_grad=True)
    mine = torch.autograd.grad(ours(Ragged(x, torch.tensor([700]))).sum(), [x, *ours.parameters()])
    theirs = torch.autograd.grad(reference(x)[0][-1].sum(), [x, *reference.parameters()])
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)
    assert mine[0][0].abs().max() == 0
    assert torch.full((), 1e-38) / 2 > 0
