"""LSTM over sequences of different lengths, in few large operations.

Hochreiter & Schmidhuber 1997; gates in the order of ``torch.nn.LSTM`` and with its two biases: the results are equal.
Why not ``torch.nn.LSTM``: on a CPU it pays for padding, or for packing, and its backward runs dozens of small
operations a step. Here the projections of all real steps are one product, and a step is one small product and six
element-wise operations in place (`make bench`: docs/benchmarks.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from moodal.batch import Ragged

BLOCK = 1 << 17  # numbers
SIGMOID_BACKWARD = torch.ops.aten.sigmoid_backward.grad_input  # one pass over memory where the formula needs three
TANH_BACKWARD = torch.ops.aten.tanh_backward.grad_input


@dataclass(frozen=True)
class Packing:
    """Steps of ragged sequences in time-major order, longest sequence first.

    rows: (S,) the step that stands at each packed place; sizes: how many sequences have a t-th step;
    order: (B,) the utterances, longest first.
    """

    rows: Tensor
    sizes: tuple[int, ...]
    order: Tensor

    @classmethod
    def of(cls, x: Ragged, *, reverse: bool = False) -> Packing:
        """``reverse``: each sequence from its last real step to its first."""
        lengths, order = torch.sort(x.lengths, descending=True, stable=True)
        longest = int(lengths[0]) if len(lengths) else 0
        step = torch.arange(longest)[:, None]
        alive = step < lengths  # (T, B)
        rows = x.starts[order] + (lengths - 1 - step if reverse else step)
        return cls(rows[alive], tuple(alive.sum(1).tolist()), order)

    @property
    def before(self) -> Tensor:
        """(S - B',) for each packed step after the first of its utterance, the place of the one before it."""
        sizes = torch.tensor(self.sizes)
        return torch.arange(self.sizes[0], int(sizes.sum())) - torch.repeat_interleave(sizes[:-1], sizes[1:])

    @property
    def ends(self) -> Tensor:
        """(B',) the packed place of each utterance's last step in this direction, longest utterance first."""
        alive = torch.tensor([*self.sizes, 0])
        steps = torch.repeat_interleave(torch.arange(len(self.sizes)), alive[:-1] - alive[1:]).flip(0)  # shortest last
        starts = torch.tensor(self.starts)
        return starts[steps] + torch.arange(len(steps))

    @property
    def starts(self) -> list[int]:
        """Where each time step begins among the packed rows; one more entry for the end."""
        out = [0]
        for n in self.sizes:
            out.append(out[-1] + n)
        return out


@dataclass(frozen=True)
class States:
    """What an LSTM went through. last: (B, H) hidden state at the end of each utterance, zeros where it has no steps;
    hidden, cell: (S, H) after each step, in the order of the input's steps, in which they are put when asked for."""

    last: Tensor
    packed: tuple[Tensor, Tensor]
    rows: Tensor

    @cached_property
    def hidden(self) -> Tensor:
        return _unpacked(self.packed[0], self.rows)

    @cached_property
    def cell(self) -> Tensor:
        return _unpacked(self.packed[1], self.rows)


class LSTM(nn.Module):
    """(S, D) ragged steps -> (B, H) hidden state at each utterance's last real step; zeros where there is none.

    Weights start uniform within 1 / sqrt(H), as torch's; those of the input within 1 / sqrt(D) where D is larger, so
    that standardised features of any number leave the gates where they have a slope.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden, dim))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden, hidden))
        self.bias_ih = nn.Parameter(torch.empty(4 * hidden))
        self.bias_hh = nn.Parameter(torch.empty(4 * hidden))
        for p in self.parameters():
            bound = 1 / math.sqrt(max(hidden, dim) if p is self.weight_ih else hidden)
            nn.init.uniform_(p, -bound, bound)

    def forward(self, x: Ragged) -> Tensor:
        packing = Packing.of(x)
        last, _, _ = self._run(x, packing)
        return self._unsorted(last, packing, len(x))

    def states(self, x: Ragged, *, reverse: bool = False) -> States:
        """The states after every step; ``reverse``: each utterance read from its end, ``last`` is then at its start."""
        packing = Packing.of(x, reverse=reverse)
        last, hidden, cell = self._run(x, packing)
        return States(self._unsorted(last, packing, len(x)), (hidden, cell), packing.rows)

    def _run(self, x: Ragged, packing: Packing) -> tuple[Tensor, Tensor, Tensor]:
        if not packing.sizes:
            return (x.values.new_zeros(0, self.weight_hh.shape[1]),) * 3
        bias = self.bias_ih + self.bias_hh
        out: tuple[Tensor, Tensor, Tensor] = _Recurrence.apply(  # type: ignore[no-untyped-call]
            x.take(packing.rows), self.weight_ih, self.weight_hh, bias, packing
        )
        return out

    @staticmethod
    def _unsorted(last: Tensor, packing: Packing, count: int) -> Tensor:
        return last.new_zeros(count, last.shape[1]).index_copy(0, packing.order[: len(last)], last)


class _Recurrence(torch.autograd.Function):
    """Steps (S, D) in packed order -> last hidden states (B', H), longest sequence first, and all hidden states and
    cells (S, H), in packed order too."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, packing: Packing
    ) -> tuple[Tensor, Tensor, Tensor]:
        hidden, sizes = weight_hh.shape[1], packing.sizes
        act = torch.addmm(bias, x, weight_ih.t())
        cell, state = (act.new_empty(len(act), hidden) for _ in range(2))
        squashed = act.new_empty(sizes[0], hidden)
        weight_t = weight_hh.t().contiguous()  # the product of a step reads it faster so
        # all views of all steps are cut at once: cutting them inside the loop costs as much as the arithmetic
        steps = [torch.split(x, list(sizes)) for x in (act, cell, state)]
        parts = [torch.split(x, list(sizes)) for x in torch.split(act, hidden, dim=1)]
        input_forget = torch.split(act[:, : 2 * hidden], list(sizes))
        before_h = before_c = squashed
        for t, (n, a, c, h, i, f, g, o, i_f) in enumerate(zip(sizes, *steps, *parts, input_forget, strict=True)):
            if t:
                a.addmm_(_first(before_h, n), weight_t)
            i_f.sigmoid_()
            g.tanh_()
            o.sigmoid_()
            torch.mul(i, g, out=c)
            if t:
                c.addcmul_(f, _first(before_c, n))
            squash = _first(squashed, n)
            torch.tanh(c, out=squash)
            torch.mul(o, squash, out=h)
            before_h, before_c = h, c
        last = state.index_select(0, packing.ends)
        ctx.save_for_backward(x, weight_ih, weight_hh, act, cell, state)
        ctx.packing = packing
        ctx.set_materialize_grads(False)
        return last, state, cell

    @staticmethod
    def backward(
        ctx: Any, grad_last: Tensor | None, grad_states: Tensor | None, grad_cells: Tensor | None
    ) -> tuple[Tensor | None, Tensor, Tensor, Tensor, None]:
        x, weight_ih, weight_hh, act, cell, state = ctx.saved_tensors
        packing: Packing = ctx.packing
        hidden, starts, sizes = weight_hh.shape[1], packing.starts, packing.sizes
        before = packing.before
        grad_gates = torch.empty_like(act)
        grad_cell = act.new_zeros(sizes[0], hidden)
        grad_state = torch.zeros_like(grad_cell) if grad_last is None else grad_last.clone()
        wide_cell = grad_cell[:, None]
        for first, end in reversed(_blocks(sizes, hidden)):
            rows, inside = slice(starts[first], starts[end]), list(sizes[first:end])
            local = _local_gradients(act[rows], cell[rows], cell, before, rows.start - sizes[0])
            gates = grad_gates[rows]
            wholes = (*local, gates, gates[:, : 3 * hidden].view(-1, 3, hidden), gates[:, 3 * hidden :])
            steps = list(zip(inside, *(torch.split(w, inside) for w in wholes), strict=True))
            outside = [None if w is None else torch.split(w[rows], inside) for w in (grad_states, grad_cells)]
            for t in range(len(inside) - 1, -1, -1):
                n, cell_part, state_part, through, forget, out, out_cell, out_state = steps[t]
                ds, dc = _first(grad_state, n), _first(grad_cell, n)
                for total, given in zip((ds, dc), outside, strict=True):
                    if given is not None:
                        total.add_(given[t])
                dc.addcmul_(ds, through)
                torch.mul(cell_part, _first(wide_cell, n), out=out_cell)
                torch.mul(ds, state_part, out=out_state)
                dc.mul_(forget)
                if first + t:
                    torch.mm(out, weight_hh, out=ds)
        grad_hh = grad_gates[sizes[0] :].t() @ state.index_select(0, before)
        grad_x = grad_gates @ weight_ih if ctx.needs_input_grad[0] else None
        return grad_x, grad_gates.t() @ x, grad_hh, grad_gates.sum(0), None


def _local_gradients(
    act: Tensor, cell: Tensor, cells: Tensor, before: Tensor, offset: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What each gate's pre-activation receives from its cell's gradient (n, 3, H) and from its state's (n, H), what the
    cell receives from the state's (n, H), and the forget gate. act, cell: of n packed steps, the first of which is
    step ``offset`` after the first time step; ``cells``: all."""
    i, f, g, o = torch.split(act, cell.shape[1], dim=1)
    squashed = torch.tanh(cell)
    earlier = cells.index_select(0, before[max(0, offset) : max(0, offset + len(act))])
    if offset < 0:
        earlier = torch.cat([cells.new_zeros(len(act) - len(earlier), cell.shape[1]), earlier])
    from_cell = act.new_empty(len(act), 3, cell.shape[1])
    SIGMOID_BACKWARD(g, i, grad_input=from_cell[:, 0])  # g i (1 - i), written where it belongs
    SIGMOID_BACKWARD(earlier, f, grad_input=from_cell[:, 1])
    TANH_BACKWARD(i, g, grad_input=from_cell[:, 2])  # i (1 - g g)
    from_state, through = torch.empty_like(cell), torch.empty_like(cell)
    SIGMOID_BACKWARD(squashed, o, grad_input=from_state)
    TANH_BACKWARD(o, squashed, grad_input=through)
    return from_cell, from_state, through, f


def _blocks(sizes: tuple[int, ...], hidden: int) -> list[tuple[int, int]]:
    """Runs of time steps, first and end, small enough that what is computed for one stays in the processor's cache."""
    out, first, rows = [], 0, 0
    for t, n in enumerate(sizes):
        if rows and (rows + n) * hidden > BLOCK:
            out.append((first, t))
            first, rows = t, 0
        rows += n
    return [*out, (first, len(sizes))]


def _unpacked(x: Tensor, rows: Tensor) -> Tensor:
    """Packed rows back where the steps stood."""
    return torch.empty_like(x).index_copy_(0, rows, x)


def _first(x: Tensor, n: int) -> Tensor:
    """The first n rows; x itself where that is all of them."""
    return x if len(x) == n else x[:n]
