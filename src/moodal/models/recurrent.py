"""LSTM over sequences of different lengths, in few large operations.

Hochreiter & Schmidhuber 1997; gates in the order of ``torch.nn.LSTM`` and with its two biases: the results are equal.
Why not ``torch.nn.LSTM``: on a CPU it pays for padding, or for packing, and its backward runs dozens of small
operations a step. Here the projections of all real steps are one product, and a step is one small product and six
element-wise operations in place (`make bench`: docs/benchmarks.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from moodal.batch import Ragged


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
    def starts(self) -> list[int]:
        """Where each time step begins among the packed rows; one more entry for the end."""
        out = [0]
        for n in self.sizes:
            out.append(out[-1] + n)
        return out


@dataclass(frozen=True)
class States:
    """What an LSTM went through. last: (B, H) hidden state at the end of each utterance, zeros where it has no steps;
    hidden, cell: (S, H) after each step, in the order of the input's steps."""

    last: Tensor
    hidden: Tensor
    cell: Tensor


class LSTM(nn.Module):
    """(S, D) ragged steps -> (B, H) hidden state at each utterance's last real step; zeros where there is none."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden, dim))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden, hidden))
        self.bias_ih = nn.Parameter(torch.empty(4 * hidden))
        self.bias_hh = nn.Parameter(torch.empty(4 * hidden))
        for p in self.parameters():
            nn.init.uniform_(p, -1 / math.sqrt(hidden), 1 / math.sqrt(hidden))

    def forward(self, x: Ragged) -> Tensor:
        packing = Packing.of(x)
        last, _, _ = self._run(x, packing)
        return self._unsorted(last, packing, len(x))

    def states(self, x: Ragged, *, reverse: bool = False) -> States:
        """The states after every step; ``reverse``: each utterance read from its end, ``last`` is then at its start."""
        packing = Packing.of(x, reverse=reverse)
        last, *each = self._run(x, packing)
        hidden, cell = (torch.empty_like(s).index_copy(0, packing.rows, s) for s in each)
        return States(self._unsorted(last, packing, len(x)), hidden, cell)

    def _run(self, x: Ragged, packing: Packing) -> tuple[Tensor, Tensor, Tensor]:
        if not packing.sizes:
            return (x.values.new_zeros(0, self.weight_hh.shape[1]),) * 3
        gates = torch.addmm(self.bias_ih + self.bias_hh, x.values, self.weight_ih.t())  # (S, 4H)
        out: tuple[Tensor, Tensor, Tensor] = _Recurrence.apply(gates, self.weight_hh, packing)  # type: ignore[no-untyped-call]
        return out

    @staticmethod
    def _unsorted(last: Tensor, packing: Packing, count: int) -> Tensor:
        return last.new_zeros(count, last.shape[1]).index_copy(0, packing.order[: len(last)], last)


class _Recurrence(torch.autograd.Function):
    """Gate pre-activations (S, 4H) in the utterances' order -> last hidden states (B', H), longest sequence first,
    and all hidden states and cells (S, H) in packed order."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, packing: Packing) -> tuple[Tensor, Tensor, Tensor]:
        hidden, sizes = weight.shape[1], packing.sizes
        act = gates.index_select(0, packing.rows)
        cell, squashed, state = (gates.new_empty(len(gates), hidden) for _ in range(3))
        last = gates.new_empty(sizes[0], hidden)
        weight_t = weight.t()
        # all views of all steps are cut at once: cutting them inside the loop costs as much as the arithmetic
        steps = [torch.split(x, list(sizes)) for x in (act, cell, squashed, state)]
        parts = [torch.split(x, list(sizes)) for x in torch.split(act, hidden, dim=1)]
        input_forget = torch.split(act[:, : 2 * hidden], list(sizes))
        before_h = before_c = last
        for t, (n, a, c, squash, h, i, f, g, o, i_f) in enumerate(
            zip(sizes, *steps, *parts, input_forget, strict=True)
        ):
            if t:
                a.addmm_(_first(before_h, n), weight_t)
            i_f.sigmoid_()
            g.tanh_()
            o.sigmoid_()
            torch.mul(i, g, out=c)
            if t:
                c.addcmul_(f, _first(before_c, n))
            torch.tanh(c, out=squash)
            torch.mul(o, squash, out=h)
            ending = sizes[t + 1] if t + 1 < len(sizes) else 0
            if ending < n:
                last[ending:n] = h[ending:]
            before_h, before_c = h, c
        ctx.save_for_backward(act, cell, squashed, state, weight)
        ctx.packing = packing
        ctx.set_materialize_grads(False)
        return last, state, cell

    @staticmethod
    def backward(
        ctx: Any, grad_last: Tensor | None, grad_states: Tensor | None, grad_cells: Tensor | None
    ) -> tuple[Tensor, Tensor, None]:
        act, cell, squashed, state, weight = ctx.saved_tensors
        packing: Packing = ctx.packing
        hidden, starts, sizes = weight.shape[1], packing.starts, packing.sizes
        i, f, g, o = torch.split(act, hidden, dim=1)
        earlier = [torch.arange(starts[t - 1], starts[t - 1] + n) for t, n in enumerate(sizes) if t]
        before = torch.cat(earlier or [torch.arange(0)])
        cell_before, state_before = (torch.cat([x.new_zeros(sizes[0], hidden), x[before]]) for x in (cell, state))
        # what each gate's pre-activation receives from the cell's and from the state's gradient, for all steps at once
        from_cell = torch.stack([g * i * (1 - i), cell_before * f * (1 - f), i * (1 - g * g)], dim=1)  # (S, 3, H)
        from_state = squashed * o * (1 - o)
        state_to_cell = o * (1 - squashed * squashed)
        grad_gates = torch.empty_like(act)
        by_cell = grad_gates[:, : 3 * hidden].view(-1, 3, hidden)
        wholes = (from_cell, from_state, state_to_cell, f, grad_gates, by_cell, grad_gates[:, 3 * hidden :])
        steps = list(zip(sizes, *(torch.split(x, list(sizes)) for x in wholes), strict=True))
        outside = [None if x is None else torch.split(x, list(sizes)) for x in (grad_states, grad_cells)]
        grad_cell = act.new_zeros(sizes[0], hidden)
        grad_state = torch.zeros_like(grad_cell) if grad_last is None else grad_last.clone()
        wide_cell = grad_cell[:, None]
        for t in range(len(sizes) - 1, -1, -1):
            n, cell_part, state_part, through, forget, out, out_cell, out_state = steps[t]
            ds, dc = _first(grad_state, n), _first(grad_cell, n)
            for total, given in zip((ds, dc), outside, strict=True):
                if given is not None:
                    total.add_(given[t])
            dc.addcmul_(ds, through)
            torch.mul(cell_part, _first(wide_cell, n), out=out_cell)
            torch.mul(ds, state_part, out=out_state)
            dc.mul_(forget)
            if t:
                torch.mm(out, weight, out=ds)
        unpacked = torch.empty_like(grad_gates).index_copy_(0, packing.rows, grad_gates)
        return unpacked, grad_gates.t() @ state_before, None


def _first(x: Tensor, n: int) -> Tensor:
    """The first n rows; x itself where that is all of them."""
    return x if len(x) == n else x[:n]
