"""Memory Fusion Network (MFN).

Zadeh, Liang, Mazumder, Poria, Cambria & Morency, "Memory Fusion Network for Multi-view Sequential Learning", AAAI 2018,
https://arxiv.org/abs/1802.00927: the system of LSTMs, the delta-memory attention and the multi-view gated memory, in
this order in ``MFN.fuse``. Step s of an utterance is a word; c(s) are the cells of all LSTMs after it, side by side:

    c*(s) = [c(s-1); c(s)]      u(s) = softmax(D_a(c*(s))) * c*(s)
    m(s)  = g1 * m(s-1) + g2 * tanh(D_u(u(s)))      g1, g2 = sigmoid(D_gamma([u(s); m(s-1)]))      c(0) = m(0) = 0

and the classes are read from the last hidden states and the last m. All D are one hidden layer with ReLU and dropout.
How it is computed: only m depends on the step before it, so all else is a few products for all words of all
utterances, and the loop over time carries m alone.
Differs from the field's reference package: audio and vision are sequences, averaged within each word, as in the paper
(there one mean of the clip stands at every word; ``audio_pooling`` and ``vision_pooling`` "mean" do the same here);
nothing runs through padding, so "last" is the last real word; a missing modality has zero states.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from moodal.batch import Batch, Ragged
from moodal.models.base import FusionModel, Output
from moodal.models.dropout import Dropout, keep_mask
from moodal.models.recurrent import LSTM, Packing
from moodal.types import Task


class MFN(FusionModel):
    """One LSTM per modality; attention over their cells before and after each word writes a gated memory."""

    is_control = True
    word_aligned = True

    def __init__(
        self,
        dims: Mapping[str, int],
        task: Task,
        *,
        text_hidden: int = 64,
        audio_hidden: int = 16,
        vision_hidden: int = 64,
        memory_size: int = 64,
        delta_hidden: int = 128,
        delta_dropout: float = 0.2,
        proposal_hidden: int = 128,
        proposal_dropout: float = 0.0,
        retain_hidden: int = 64,
        retain_dropout: float = 0.2,
        update_hidden: int = 64,
        update_dropout: float = 0.7,
        head_hidden: int = 64,
        head_dropout: float = 0.7,
        audio_pooling: str = "none",
        vision_pooling: str = "none",
        **inputs: Any,
    ) -> None:
        super().__init__(dims, task, audio_pooling=audio_pooling, vision_pooling=vision_pooling, **inputs)
        widths = {"text": text_hidden, "audio": audio_hidden, "vision": vision_hidden}
        self.lstms = nn.ModuleDict({m: LSTM(self.dims[m], widths[m]) for m in self.modalities})
        hidden = sum(widths[m] for m in self.modalities)  # H
        self.attention = Network(2 * hidden, delta_hidden, 2 * hidden, delta_dropout)
        self.gated_memory = GatedMemory(
            2 * hidden,
            memory_size,
            proposal=(proposal_hidden, proposal_dropout),
            retain=(retain_hidden, retain_dropout),
            update=(update_hidden, update_dropout),
        )
        self.head = Network(hidden + memory_size, head_hidden, task.num_outputs, head_dropout)

    def fuse(self, batch: Batch) -> Output:
        words = words_of(batch)
        states = {m: cast(LSTM, self.lstms[m]).states(batch.inputs[m]) for m in self.modalities}
        cells = [at_words(states[m].cell, batch.inputs[m], words) for m in self.modalities]
        after = torch.cat(cells, dim=1)  # c(s), (S, H)
        delta = torch.cat([one_word_earlier(after, words), after], dim=1)  # c*, (S, 2H)
        attended = torch.softmax(self.attention(delta), dim=1) * delta  # u
        memory = self.gated_memory(attended, words)  # m at each last word, (B, M)
        h = {m: states[m].last for m in self.modalities}
        return Output(self.head(torch.cat([*h.values(), memory], dim=1)), {**h, "memory": memory})


class Network(nn.Module):
    """One of the paper's D: a hidden layer with ReLU and dropout."""

    def __init__(self, dim: int, hidden: int, out: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(dim, hidden)
        self.dropout = Dropout(dropout)
        self.second = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.dropout(torch.relu(self.first(x))))
        return out


class GatedMemory(nn.Module):
    """Multi-view gated memory: what each word proposes, and how much of it and of the memory before is kept.

    dim: columns of what it is shown; size: M; proposal, retain, update: width and dropout of D_u, D_gamma1, D_gamma2.
    """

    def __init__(
        self,
        dim: int,
        size: int,
        *,
        proposal: tuple[int, float],
        retain: tuple[int, float],
        update: tuple[int, float],
    ) -> None:
        super().__init__()
        self.dim, self.size = dim, size
        self.proposal = Network(dim, proposal[0], size, proposal[1])
        self.retain = Network(dim + size, retain[0], size, retain[1])
        self.update = Network(dim + size, update[0], size, update[1])

    def forward(self, u: Tensor, words: Ragged) -> Tensor:
        """u: (S, dim) -> (B, M) the memory after each utterance's last word; zeros where it has none."""
        packing = Packing.of(words)
        out = u.new_zeros(len(words), self.size)
        if not packing.sizes:
            return out
        proposed = torch.tanh(self.proposal(u))  # (S, M)
        gates = (self.retain, self.update)
        # both gates' first layers are one; the columns that meet u are multiplied here, for all words at once
        weight = torch.cat([gate.first.weight for gate in gates])  # (K, dim + M), K both hidden widths together
        bias = torch.cat([gate.first.bias for gate in gates])
        seen = torch.addmm(bias, u, weight[:, : self.dim].t())  # (S, K)
        last: Tensor = _Memory.apply(  # type: ignore[no-untyped-call]
            seen,
            proposed,
            self._keep(seen),
            weight[:, self.dim :],
            *(gate.second.weight for gate in gates),
            torch.cat([gate.second.bias for gate in gates]),
            packing,
        )
        return out.index_copy(0, packing.order[: len(last)], last)

    def _keep(self, seen: Tensor) -> Tensor | None:
        """(S, K) dropout of the two hidden layers, drawn for all words at once; None in evaluation."""
        rates = [gate.dropout.p for gate in (self.retain, self.update)]
        if not self.training or not any(rates):
            return None
        sides = torch.split(seen, [self.retain.first.out_features, self.update.first.out_features], dim=1)
        return torch.cat([keep_mask(side, p) for side, p in zip(sides, rates, strict=True)], dim=1)


class _Memory(torch.autograd.Function):
    """The recurrence m = g1 * m_before + g2 * proposed, by hand: a step is three small products.

    seen: (S, K) both gates' hidden layers before ReLU, without what m_before adds; proposed: (S, M); keep: (S, K)
    dropout or None; recurrent: (K, M) meets m_before; retain, update: (M, K1), (M, K2) the gates' second layers;
    bias: (2M,) theirs -> (B', M) last memories, longest sequence first.
    """

    @staticmethod
    def forward(
        ctx: Any,
        seen: Tensor,
        proposed: Tensor,
        keep: Tensor | None,
        recurrent: Tensor,
        retain: Tensor,
        update: Tensor,
        bias: Tensor,
        packing: Packing,
    ) -> Tensor:
        sizes, size = list(packing.sizes), proposed.shape[1]
        inner, proposed = (x.index_select(0, packing.rows) for x in (seen, proposed))  # inner: gates' hidden layers
        gate, memory = (seen.new_empty(len(seen), n) for n in (2 * size, size))
        last = memory.new_empty(sizes[0], size)
        # all views of all steps are cut at once: cutting them inside the loop costs as much as the arithmetic
        layers = [retain.t(), update.t()]
        inners = torch.split(inner, [len(x) for x in layers], dim=1)
        gates = torch.split(gate, size, dim=1)
        wholes = (inner, *inners, gate, *gates, proposed, memory)
        steps = zip(sizes, *(torch.split(x, sizes) for x in wholes), strict=True)
        keeps = None if keep is None else torch.split(keep, sizes)
        biases, recurrent_t, before = torch.split(bias, size), recurrent.t(), last
        for t, (n, hidden, of_retain, of_update, both, g1, g2, new, m) in enumerate(steps):
            if t:
                hidden.addmm_(before[:n], recurrent_t)
            hidden.relu_()
            if keeps is not None:
                hidden.mul_(keeps[t])
            torch.addmm(biases[0], of_retain, layers[0], out=g1)
            torch.addmm(biases[1], of_update, layers[1], out=g2)
            both.sigmoid_()
            torch.mul(g2, new, out=m)
            if t:
                m.addcmul_(g1, before[:n])
            ending = sizes[t + 1] if t + 1 < len(sizes) else 0
            if ending < n:
                last[ending:n] = m[ending:]
            before = m
        ctx.save_for_backward(inner, gate, proposed, memory, keep, recurrent, retain, update)
        ctx.packing = packing
        return last

    @staticmethod
    def backward(ctx: Any, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        inner, gate, proposed, memory, keep, recurrent, retain, update = ctx.saved_tensors
        packing: Packing = ctx.packing
        sizes, size = list(packing.sizes), memory.shape[1]
        earlier = [m[:n] for m, n in zip(torch.split(memory, sizes), sizes[1:], strict=False)]
        before = torch.cat([memory.new_zeros(sizes[0], size), *earlier])  # (S, M)
        # what the pre-activations of both gates receive from m's gradient, and what their hidden layers let through
        to_gate = (gate * (1 - gate)).view(-1, 2, size) * torch.stack([before, proposed], dim=1)  # (S, 2, M)
        through = (inner > 0).to(inner.dtype) if keep is None else keep * (inner > 0)
        grad_gate, grad_inner, grad_proposed = (torch.empty_like(x) for x in (gate, inner, proposed))
        grad_gates = torch.split(grad_gate, size, dim=1)
        grad_inners = torch.split(grad_inner, [retain.shape[1], update.shape[1]], dim=1)
        wholes = (to_gate, through, *torch.split(gate, size, dim=1), grad_gate.view(-1, 2, size), *grad_gates)
        wholes += (grad_inner, *grad_inners, grad_proposed)
        steps = list(zip(sizes, *(torch.split(x, sizes) for x in wholes), strict=True))
        grad = grad_last.clone()  # of m after each step; rows of utterances that ended earlier wait at the bottom
        for t in range(len(sizes) - 1, -1, -1):
            n, part, kept, g1, g2, both, of_g1, of_g2, hidden, of_retain, of_update, new = steps[t]
            dm = grad[:n]
            torch.mul(dm, g2, out=new)
            torch.mul(part, dm[:, None], out=both)
            torch.mm(of_g1, retain, out=of_retain)
            torch.mm(of_g2, update, out=of_update)
            hidden.mul_(kept)
            if t:
                dm.mul_(g1).addmm_(hidden, recurrent)
        unpacked = [torch.empty_like(x).index_copy_(0, packing.rows, x) for x in (grad_inner, grad_proposed)]
        inners = torch.split(inner, [retain.shape[1], update.shape[1]], dim=1)
        second = [g.t() @ x for g, x in zip(grad_gates, inners, strict=True)]
        return unpacked[0], unpacked[1], None, grad_inner.t() @ before, *second, grad_gate.sum(0), None


def words_of(batch: Batch) -> Ragged:
    """The S steps that the modalities of an aligned batch share, without columns."""
    lengths = torch.stack([x.lengths for x in batch.inputs.values()]).amax(0)
    return Ragged(torch.empty(int(lengths.sum()), 0), lengths)


def at_words(x: Tensor, source: Ragged, words: Ragged) -> Tensor:
    """Rows of a modality's own steps (``source``) -> (S, H), zeros at the words of utterances that miss it."""
    if len(x) == len(words.values):
        return x
    rows = (source.lengths > 0)[words.owner].nonzero()[:, 0]
    return x.new_zeros(len(words.values), x.shape[1]).index_copy(0, rows, x)


def one_word_earlier(x: Tensor, words: Ragged) -> Tensor:
    """(S, H) -> (S, H): each word gets the row of the word before it, an utterance's first word zeros."""
    if not len(x):
        return x
    first = words.starts[words.lengths > 0]
    return torch.cat([x[:1], x[:-1]]).index_fill(0, first, 0.0)
