"""Multimodal Transformer (MulT) for unaligned sequences.

Tsai et al., "Multimodal Transformer for Unaligned Multimodal Language Sequences", ACL 2019,
https://arxiv.org/abs/1906.00295, section 3: temporal convolutions, positions (appendix A), crossmodal transformers,
self-attention transformers and the head.

As in the paper's code: keys and values are the embedded source at every layer; embeddings are multiplied by the root of
their width before the positions are added; one layer norm serves query, key and value, and what a layer adds to is not
normed; a query i sees key j where j <= i + |n_keys - n_queries|; the memory of a modality is its last step.
Differs from the paper's code: convolutions keep every length (zeros beyond both ends of an utterance, so that one
shorter than the kernel has steps too) and are there even where the width is already right.
Differs from the field's reference package: sinusoidal positions are there (its published tables had them, today's
version does not); only real steps are attended, counted by the mask and read by the head, which there takes the last
step of the padding. A source that is missing adds nothing; the memory of a missing modality is zeros; with a single
modality there is nothing to cross, and its memory reads it alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moodal.batch import Batch, Ragged
from moodal.models.attention import Plan, attend
from moodal.models.base import FusionModel, Output
from moodal.models.dropout import Dropout
from moodal.types import InputError, Task


class MulT(FusionModel):
    """Every modality attends to every other, directed crossmodal transformers; the memories' last steps are classified.

    ``attention_dropout`` is for text as the source and for the memories, ``audio_attention_dropout`` and
    ``vision_attention_dropout`` for these as the source.
    """

    is_control = True

    def __init__(
        self,
        dims: Mapping[str, int],
        task: Task,
        *,
        hidden: int = 50,
        heads: int = 10,
        crossmodal_layers: int = 2,
        memory_layers: int = 3,
        text_kernel: int = 5,
        audio_kernel: int = 1,
        vision_kernel: int = 1,
        positions: bool = True,
        text_dropout: float = 0.3,
        embedding_dropout: float = 0.1,
        attention_dropout: float = 0.2,
        audio_attention_dropout: float = 0.1,
        vision_attention_dropout: float = 0.0,
        relu_dropout: float = 0.0,
        residual_dropout: float = 0.2,
        output_dropout: float = 0.1,
        audio_pooling: str = "none",
        vision_pooling: str = "none",
        **inputs: Any,
    ) -> None:
        super().__init__(dims, task, audio_pooling=audio_pooling, vision_pooling=vision_pooling, **inputs)
        if hidden % heads:
            raise InputError(f"hidden must be a multiple of heads, got {hidden} and {heads}")
        self.heads = heads
        self.sources = {m: tuple(n for n in self.modalities if n != m) for m in self.modalities}
        kernels = {"text": text_kernel, "audio": audio_kernel, "vision": vision_kernel}
        on_maps = {
            "text": attention_dropout,
            "audio": audio_attention_dropout,
            "vision": vision_attention_dropout,
        }
        rates = {"embedding": embedding_dropout, "relu": relu_dropout, "residual": residual_dropout}
        self.text_dropout = Dropout(text_dropout)
        self.convolutions = nn.ModuleDict({m: Convolution(self.dims[m], hidden, kernels[m]) for m in self.modalities})
        self.crossmodal = nn.ModuleDict(
            {
                f"{m}_from_{n}": Crossmodal(hidden, heads, crossmodal_layers, {**rates, "attention": on_maps[n]})
                for m in self.modalities
                for n in self.sources[m]
            }
        )
        width = hidden * max(1, len(self.modalities) - 1)
        self.memories = nn.ModuleDict(
            {m: Memory(width, heads, memory_layers, {**rates, "attention": attention_dropout}) for m in self.modalities}
        )
        self.embed = Embedding(positions)
        width *= len(self.modalities)
        self.residual = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), Dropout(output_dropout), nn.Linear(width, width)
        )
        self.head = nn.Linear(width, task.num_outputs)

    def fuse(self, batch: Batch) -> Output:
        x = {m: self.convolutions[m](self._input(m, batch.inputs[m])) for m in self.modalities}
        embedded = {m: self.embed(x[m]) for m in self.modalities}
        memories = {m: self._memory(m, x, embedded) for m in self.modalities}  # (B, (M - 1) H) each
        z = torch.cat([memories[m] for m in self.modalities], dim=1)
        return Output(self.head(z + self.residual(z)), memories)

    def _input(self, modality: str, x: Ragged) -> Ragged:
        return Ragged(self.text_dropout(x.values), x.lengths) if modality == "text" else x

    def _memory(self, modality: str, x: dict[str, Ragged], embedded: dict[str, Ragged]) -> Tensor:
        """The modality seen from each of the others, concatenated, and what self-attention makes of its last step."""
        lengths = x[modality].lengths
        crossed = [
            self.crossmodal[f"{modality}_from_{source}"](
                embedded[modality], embedded[source], Plan.of(lengths, x[source].lengths, self.heads)
            )
            for source in self.sources[modality]
        ]
        seen = torch.cat(crossed, dim=1) if crossed else x[modality].values  # (S, (M - 1) H)
        out: Tensor = self.memories[modality](self.embed(Ragged(seen, lengths)))
        return out


class Convolution(nn.Module):
    """(S, D) -> (S, H) along each utterance, without bias; beyond its ends are zeros, so that it keeps its length."""

    def __init__(self, dim: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Conv1d(dim, hidden, kernel, bias=False).weight  # (H, D, K)

    def forward(self, x: Ragged) -> Ragged:
        hidden, dim, kernel = self.weight.shape
        parts = x.values @ self.weight.permute(1, 2, 0).reshape(dim, kernel * hidden)  # each tap on every step
        if kernel == 1:
            return Ragged(parts, x.lengths)
        tap = torch.arange(kernel)
        step = torch.arange(len(parts))[:, None] + tap - (kernel - 1) // 2  # (S, K) the step that each tap reads
        first = x.starts[x.owner][:, None]
        inside = (step >= first) & (step < first + x.lengths[x.owner][:, None])
        rows = torch.cat([parts.view(-1, hidden), parts.new_zeros(1, hidden)])
        taken = torch.where(inside, step * kernel + tap, len(rows) - 1)
        return Ragged(rows.index_select(0, taken.flatten()).view(-1, kernel, hidden).sum(1), x.lengths)


class Embedding(nn.Module):
    """sqrt(H) x, plus the position of each step within its utterance."""

    def __init__(self, positions: bool) -> None:
        super().__init__()
        self.positions = positions

    def forward(self, x: Ragged) -> Ragged:
        values = x.values * x.dim**0.5
        if self.positions and len(values):
            table = sinusoids(int(x.lengths.max()), x.dim)
            values = values + table.index_select(0, torch.arange(len(values)) - x.starts[x.owner])
        return Ragged(values, x.lengths)


def sinusoids(steps: int, width: int) -> Tensor:
    """(T, H): sin(i / 10000^(2j / H)) in column 2j, the cosine in column 2j + 1, i = 1 ... T (appendix A)."""
    column = torch.arange(width)
    angle = torch.arange(1, steps + 1)[:, None] / 10000 ** ((column - column % 2) / width)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos())


class Transformer(nn.Module):
    """What crossmodal transformers and memories have in common: layers and a last layer norm.

    dropout: rates on "embedding", "attention", "relu" and "residual".
    """

    def __init__(self, width: int, heads: int, layers: int, dropout: Mapping[str, float]) -> None:
        super().__init__()
        self.heads = heads
        self.embedding_dropout = Dropout(dropout["embedding"])
        self.layers = nn.ModuleList(
            Layer(width, dropout["attention"], dropout["relu"], dropout["residual"]) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)


class Crossmodal(Transformer):
    """Every step of a sequence attends to the same embedded source at every layer. (S, H) -> (S, H)"""

    def forward(self, x: Ragged, source: Ragged, plan: Plan) -> Tensor:
        h, keys, values = (self.embedding_dropout(s.values) for s in (x, source, source))
        blind = (source.lengths == 0)[x.owner][:, None] if bool((source.lengths == 0).any()) else None
        for layer in self.layers:
            h = layer(h, keys, values, plan, blind)
        out: Tensor = self.norm(h)
        return out


class Memory(Transformer):
    """Causal self-attention. (S, H) -> (B, H), the last step of each utterance; zeros where there is none."""

    def forward(self, x: Ragged) -> Tensor:
        there = x.lengths > 0
        if not bool(there.any()):
            return x.values.new_zeros(len(x), x.dim)
        h = self.embedding_dropout(x.values)
        plan = Plan.of(x.lengths, x.lengths, self.heads)
        for layer in self.layers[:-1]:
            h = layer(h, h, h, plan)
        ends = (x.starts + x.lengths - 1)[there]
        # nobody reads the last layer's other steps
        h = self.layers[-1](h.index_select(0, ends), h, h, Plan.of(there.long(), x.lengths, self.heads))
        return x.values.new_zeros(len(x), x.dim).index_copy(0, there.nonzero().squeeze(1), self.norm(h))


class Layer(nn.Module):
    """x + Attention(LN x, LN keys, LN values), then y + W2 ReLU(W1 LN y)."""

    def __init__(self, width: int, attention_dropout: float, relu_dropout: float, residual_dropout: float) -> None:
        super().__init__()
        self.attention_dropout = attention_dropout
        self.norm, self.norm_inner = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)  # query, key and value
        self.out = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.relu_dropout = Dropout(relu_dropout)
        self.residual_dropout = Dropout(residual_dropout)
        for linear in (self.project, self.out, self.widen, self.narrow):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, plan: Plan, blind: Tensor | None = None) -> Tensor:
        """x: (S_q, H); keys, values: (S_k, H); blind: (S_q, 1), True where there is nothing to attend to."""
        normed = {id(s): self.norm(s) for s in (x, keys, values)}  # where they are one tensor, it is normed once
        weights, biases = self.project.weight.chunk(3), self.project.bias.chunk(3)
        query, key, value = (
            F.linear(normed[id(s)], w, b) for s, w, b in zip((x, keys, values), weights, biases, strict=True)
        )
        seen = self.out(attend(query, key, value, plan, self.attention_dropout if self.training else 0.0))
        if blind is not None:
            seen = seen.masked_fill(blind, 0.0)
        y = x + self.residual_dropout(seen)
        inner = self.relu_dropout(self.widen(self.norm_inner(y)).relu_())
        out: Tensor = y + self.residual_dropout(self.narrow(inner))
        return out
