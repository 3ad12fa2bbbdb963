"""Multi-head attention between ragged sequences, with dropout on its maps, in blocks that stay in the cache.

softmax(Q K^T / sqrt(d)) V per head (Vaswani et al., NeurIPS 2017, eq. 1). Why not ``torch.nn.MultiheadAttention`` or
``scaled_dot_product_attention``: on a CPU dropout makes both write every map of the batch several times, and
draw a double for each of its elements.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moodal.models.dropout import LEVELS

BLOCK = 64  # queries of an utterance attended at a time
BLOCK_ELEMENTS = 1 << 18  # of the maps of one block: 1 MiB in float32, which a core's second-level cache holds


@dataclass(frozen=True)
class Rows:
    """Where the steps of G utterances stand among all S steps, and in a padded (G, T) rectangle.

    padded: (G T,) the step at each place, padding repeats its utterance's last; steps: (n,) the real ones among the
    S; places: (n,) where these stand in the rectangle.
    """

    padded: Tensor
    steps: Tensor
    places: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, starts: Tensor, lengths: Tensor) -> Rows:
        longest = int(lengths.max())
        step = torch.arange(longest)
        padded = (starts[:, None] + torch.minimum(step, lengths[:, None] - 1)).flatten()
        places = (step < lengths[:, None]).flatten().nonzero().squeeze(1)
        return cls(padded, padded[places], places, (len(lengths), longest))

    def gather(self, x: Tensor, heads: int, *, zero_padding: bool = False) -> Tensor:
        """(S, heads d) -> (G heads, T, d)."""
        if zero_padding:
            taken = x.new_zeros(len(self.padded), x.shape[1]).index_copy_(0, self.places, x.index_select(0, self.steps))
        else:
            taken = x.index_select(0, self.padded)
        groups, longest = self.shape
        return taken.view(groups, longest, heads, -1).transpose(1, 2).reshape(groups * heads, longest, -1)

    def scatter(self, x: Tensor, heads: int, out: Tensor) -> None:
        """(G heads, T, d) -> its real steps into ``out`` (S, heads d)."""
        groups, longest = self.shape
        flat = x.view(groups, heads, longest, -1).transpose(1, 2).reshape(groups * longest, -1)
        out.index_copy_(0, self.steps, flat.index_select(0, self.places))


@dataclass(frozen=True)
class Block:
    """Queries ``first`` to ``last`` of a group and the ``width`` keys that any of them may see.

    forbidden: (G, 1, last - first, width - free), -inf where a query may not see a key behind the first ``free``.
    """

    first: int
    last: int
    width: int
    free: int
    forbidden: Tensor | None


@dataclass(frozen=True)
class Group:
    """Utterances of similar size, attended together."""

    queries: Rows
    keys: Rows
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Plan:
    """Which query of which utterance sees which keys: query i sees key j where j <= i + |n_keys - n_queries|.

    Utterances without queries or without keys are in no group: they attend to nothing.
    """

    groups: tuple[Group, ...]
    heads: int

    @classmethod
    def of(cls, queries: Tensor, keys: Tensor, heads: int) -> Plan:
        """queries, keys: (B,) lengths."""
        starts_q, starts_k = torch.cumsum(queries, 0) - queries, torch.cumsum(keys, 0) - keys
        longer = torch.where(torch.minimum(queries, keys) > 0, torch.maximum(queries, keys), 0)
        order = torch.argsort(longer, descending=True, stable=True)[: int((longer > 0).sum())]
        groups = []
        for some in _cut(order, queries, keys, heads):
            n_q, n_k = queries[some], keys[some]
            blocks = tuple(_blocks(n_q, n_k))
            groups.append(Group(Rows.of(starts_q[some], n_q), Rows.of(starts_k[some], n_k), blocks))
        return cls(tuple(groups), heads)

    @property
    def scratch(self) -> int:
        """Elements of the largest block's maps."""
        return max((self._elements(g, b) for g in self.groups for b in g.blocks), default=0)

    def _elements(self, group: Group, block: Block) -> int:
        return group.queries.shape[0] * self.heads * (block.last - block.first) * block.width


def _cut(order: Tensor, queries: Tensor, keys: Tensor, heads: int) -> Iterator[Tensor]:
    """``order``, longest first, in groups whose blocks have at most BLOCK_ELEMENTS, or are of one utterance."""
    at = 0
    while at < len(order):
        n_q, n_k = (int(n[order[at:]].max()) for n in (queries, keys))
        count = max(1, BLOCK_ELEMENTS // (heads * min(n_q, BLOCK) * n_k))
        yield order[at : at + count]
        at += count


def _blocks(queries: Tensor, keys: Tensor) -> Iterator[Block]:
    longest = int(queries.max())
    step = torch.arange(longest)
    seen = torch.minimum(keys[:, None], step + (keys - queries).abs()[:, None] + 1)  # (G, T): the first keys
    widest, free = torch.where(step < queries[:, None], seen, 1).max(0).values, seen.min(0).values
    for first in range(0, longest, BLOCK):
        part = slice(first, min(first + BLOCK, longest))
        width, common = int(widest[part].max()), int(free[part].min())
        forbidden = None
        if common < width:
            hidden = torch.arange(common, width) >= seen[:, part, None]
            forbidden = torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)[:, None]
        yield Block(part.start, part.stop, width, min(common, width), forbidden)


def attend(query: Tensor, key: Tensor, value: Tensor, plan: Plan, dropout: float = 0.0) -> Tensor:
    """(S_q, heads d), (S_k, heads d) twice -> (S_q, heads d); zeros where an utterance has no keys.

    ``dropout``: each weight is zero with this probability, the others divided by 1 - dropout.
    """
    out: Tensor = _Attention.apply(query, key, value, plan, dropout)  # type: ignore[no-untyped-call]
    return out


class _Attention(torch.autograd.Function):
    """Saves one map per block, in which a dropped weight is negative: one tensor is both the map and what is kept."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, plan: Plan, dropout: float) -> Tensor:
        heads = plan.heads
        scale = (query.shape[1] // heads) ** -0.5
        dropped = round(dropout * LEVELS)
        rescale = LEVELS / (LEVELS - dropped)
        draw = _Draws() if dropped else None
        training = any(ctx.needs_input_grad)
        out = torch.zeros_like(query)
        scores, kept = (query.new_empty(plan.scratch) for _ in range(2))
        maps: list[Tensor] = []
        gathered: list[Tensor] = []
        for group in plan.groups:
            q, k, v = (
                rows.gather(x, heads) for rows, x in ((group.queries, query), (group.keys, key), (group.keys, value))
            )
            keys, o = k.transpose(1, 2), torch.empty_like(q)
            for b in group.blocks:
                s = _view(scores, len(q), b)
                torch.baddbmm(s, q[:, b.first : b.last], keys[:, :, : b.width], beta=0, alpha=scale, out=s)
                if b.forbidden is not None:
                    per_head = s.view(-1, heads, b.last - b.first, b.width)
                    per_head[..., b.free :] += b.forbidden
                weights = torch.softmax(s, -1, out=None if training else s)
                used = weights
                if draw is not None:
                    used = _view(kept, len(q), b)
                    weights.copysign_(draw.into(used).sub_(dropped - LEVELS // 2 - 0.5))
                    torch.clamp(weights, min=0, out=used)
                o[:, b.first : b.last] = torch.bmm(used, v[:, : b.width])
                if training:
                    maps.append(weights)
            group.queries.scatter(o.mul_(rescale) if dropped else o, heads, out)
            if training:
                gathered += (q, k, v)
        ctx.save_for_backward(out, *gathered, *maps)
        ctx.num_keys, ctx.plan, ctx.scale, ctx.rescale = len(key), plan, scale, rescale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """With weights P, kept and rescaled M P: dS = M P dO V^T - P (dO . O), the rest as usual."""
        out, *saved = ctx.saved_tensors
        plan, scale, heads = ctx.plan, ctx.scale, ctx.plan.heads
        grads = [out.new_zeros(n, out.shape[1]) for n in (len(out), ctx.num_keys, ctx.num_keys)]
        inner = (grad * out).view(len(out), heads, -1).sum(-1)  # dO . O per head
        scratch = [out.new_empty(plan.scratch) for _ in range(2)]
        gathered, maps = iter(saved[: 3 * len(plan.groups)]), iter(saved[3 * len(plan.groups) :])
        for group in plan.groups:
            rows, others = group.queries, group.keys
            q, k, v = next(gathered), next(gathered), next(gathered)
            do = rows.gather(grad, heads, zero_padding=True)
            mean = rows.gather(inner, heads, zero_padding=True)
            do_kept, values = do * ctx.rescale, v.transpose(1, 2)
            dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
            for b in group.blocks:
                weights = next(maps)
                part = slice(b.first, b.last)
                ds, other = (_view(x, len(q), b) for x in scratch)
                torch.bmm(do_kept[:, part], values[:, :, : b.width], out=ds)
                if ctx.rescale == 1:
                    used = weights
                    ds.sub_(mean[:, part]).mul_(weights)
                else:
                    used = torch.clamp(weights, min=0, out=other)
                    ds.mul_(used)
                dv[:, : b.width] += torch.bmm(used.transpose(1, 2), do_kept[:, part])
                if ctx.rescale != 1:
                    ds.addcmul_(torch.abs(weights, out=other), mean[:, part], value=-1)
                dq[:, part] = torch.bmm(ds, k[:, : b.width])
                dk[:, : b.width] += torch.bmm(ds.transpose(1, 2), q[:, part])
            rows.scatter(dq.mul_(scale), heads, grads[0])
            others.scatter(dk.mul_(scale), heads, grads[1])
            others.scatter(dv, heads, grads[2])
        return grads[0], grads[1], grads[2], None, None


def _view(scratch: Tensor, maps: int, block: Block) -> Tensor:
    shape = (maps, block.last - block.first, block.width)
    return scratch[: shape[0] * shape[1] * shape[2]].view(shape)


class _Draws:
    """Uniform 16-bit whole numbers, four per 64-bit draw of a generator seeded by torch's, at a third of the
    price of torch's own."""

    def __init__(self) -> None:
        self.generator = np.random.SFC64(int(torch.randint(1 << 62, ())))

    def into(self, out: Tensor) -> Tensor:
        draws = torch.from_numpy(self.generator.random_raw((out.numel() + 3) // 4).view(np.int16))
        return out.copy_(draws[: out.numel()].view(out.shape))
