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
    def of(cls, x: Ragged) -> Packing:
        lengths, order = torch.sort(x.lengths, descending=True, stable=True)
        longest = int(lengths[0]) if len(lengths) else 0
        step = torch.arange(longest)[:, None]
        alive = step < lengths  # (T, B)
        rows = (x.starts[order] + step)[alive]
        return cls(rows, tuple(alive.sum(1).tolist()), order)

    @property
    def starts(self) -> list[int]:
        """Where each time step begins among the packed rows; one more entry for the end."""
        out = [0]
        for n in self.sizes:
            out.append(out[-1] + n)
        return out


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
        out = x.values.new_zeros(len(x), self.weight_hh.shape[1])
        if not packing.sizes:
            return out
        gates = torch.addmm(self.bias_ih + self.bias_hh, x.values, self.weight_ih.t())  # (S, 4H)
        packed = gates.index_select(0, packing.rows)
        last: Tensor = _Recurrence.apply(packed, self.weight_hh, packing)  # type: ignore[no-untyped-call]
        return out.index_copy(0, packing.order[: len(last)], last)


class _Recurrence(torch.autograd.Function):
    """Gate pre-activations (S, 4H), packed -> last hidden states (B', H), longest sequence first."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, packing: Packing) -> Tensor:
        hidden = weight.shape[1]
        act = gates.clone()
        cell, squashed, state = (gates.new_empty(len(gates), hidden) for _ in range(3))
        last = gates.new_empty(packing.sizes[0], hidden)
        weight_t = weight.t()
        starts = packing.starts
        for t, n in enumerate(packing.sizes):
            now = slice(starts[t], starts[t] + n)
            a = act[now]
            if t:
                before = slice(starts[t - 1], starts[t - 1] + n)
                a.addmm_(state[before], weight_t)
            a[:, : 2 * hidden].sigmoid_()
            a[:, 2 * hidden : 3 * hidden].tanh_()
            a[:, 3 * hidden :].sigmoid_()
            i, f, g, o = torch.split(a, hidden, dim=1)
            torch.mul(i, g, out=cell[now])
            if t:
                cell[now].addcmul_(f, cell[before])
            torch.tanh(cell[now], out=squashed[now])
            torch.mul(o, squashed[now], out=state[now])
            ending = packing.sizes[t + 1] if t + 1 < len(packing.sizes) else 0
            last[ending:n] = state[starts[t] + ending : starts[t] + n]
        ctx.save_for_backward(act, cell, squashed, state, weight)
        ctx.packing = packing
        return last

    @staticmethod
    def backward(ctx: Any, grad_last: Tensor) -> tuple[Tensor, Tensor, None]:
        act, cell, squashed, state, weight = ctx.saved_tensors
        packing: Packing = ctx.packing
        hidden, starts = weight.shape[1], packing.starts
        i, f, g, o = torch.split(act, hidden, dim=1)
        first = packing.sizes[0]
        before = torch.cat(
            [torch.arange(starts[t - 1], starts[t - 1] + n) for t, n in enumerate(packing.sizes) if t]
            or [torch.arange(0)]
        )
        cell_before, state_before = (torch.cat([x.new_zeros(first, hidden), x[before]]) for x in (cell, state))
        # what each gate's pre-activation receives from the cell's and from the state's gradient, for all steps at once
        from_cell = torch.stack([g * i * (1 - i), cell_before * f * (1 - f), i * (1 - g * g)], dim=1)  # (S, 3, H)
        from_state = squashed * o * (1 - o)
        state_to_cell = o * (1 - squashed * squashed)
        grad_gates = torch.empty_like(act)
        grad_state, grad_cell = grad_last.clone(), torch.zeros_like(grad_last)
        for t in range(len(packing.sizes) - 1, -1, -1):
            n = packing.sizes[t]
            now = slice(starts[t], starts[t] + n)
            ds, dc, out = grad_state[:n], grad_cell[:n], grad_gates[now]
            dc.addcmul_(ds, state_to_cell[now])
            torch.mul(from_cell[now], dc[:, None], out=out[:, : 3 * hidden].view(n, 3, hidden))
            torch.mul(ds, from_state[now], out=out[:, 3 * hidden :])
            dc.mul_(f[now])
            if t:
                torch.mm(out, weight, out=ds)
        return grad_gates, grad_gates.t() @ state_before, None
