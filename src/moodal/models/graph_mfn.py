"""Graph Memory Fusion Network (Graph-MFN).

Zadeh, Liang, Poria, Cambria & Morency, "Multimodal Language Analysis in the Wild: CMU-MOSEI Dataset and Interpretable
Dynamic Fusion Graph", ACL 2018, https://aclanthology.org/P18-1208: MFN (``moodal.models.mfn``) with a Dynamic Fusion
Graph (DFG) in the place of the delta-memory attention.

At step s modality i enters the graph as x_i = ReLU(Linear([h_i(s-1); h_i(s)])), h its LSTM's hidden states. Every set
of two or more modalities is a vertex n = D_n([a x; ...; a n'; ...]) over the vertices of its proper subsets, and the
output tau is read from all vertices alike. Each edge has its own efficacy a, a number that a network D_a gives for this
step: how much of the one vertex passes to the other (19 edges for three modalities). Efficacies can be read: their
means over the words of each utterance are ``Output.embeddings["efficacies"]``, those of every word are
``GraphMFN.efficacies``, and ``GraphMFN.edges`` names them. Then m~ = tanh(D_u(tau)), gates on [tau; m(s-1)], memory
and head as in MFN.

As in the field's reference package: D_n and D_a are chains of linear layers with no non-linearity, so an efficacy is
any number, not one in (0, 1), and the graph reads hidden states, not cells.
Differs from it: the vertices' networks D_n are parameters (there, and in the authors' SDK, they stand where no
optimizer and no checkpoint sees them: 253,712 of the 2,979,086 weights for CH-SIMS stay as they were drawn); audio and
vision are averaged within each word over real steps only; "last" is the last real word; the x of a missing modality is
zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, cast

import torch
from torch import Tensor, nn

from moodal.batch import Batch, Ragged
from moodal.models.base import FusionModel, Output
from moodal.models.mfn import GatedMemory, Network, at_words, one_word_earlier, words_of
from moodal.models.recurrent import LSTM
from moodal.types import Task

BOTTLENECK = 100  # the width in the middle of every chain of the graph


class GraphMFN(FusionModel):
    """MFN in which a graph of all sets of modalities, with an efficacy on every edge, writes the gated memory."""

    is_control = True
    word_aligned = True

    def __init__(
        self,
        dims: Mapping[str, int],
        task: Task,
        *,
        text_hidden: int = 256,
        audio_hidden: int = 32,
        vision_hidden: int = 256,
        vertex_size: int = 128,
        memory_size: int = 64,
        proposal_hidden: int = 256,
        proposal_dropout: float = 0.5,
        retain_hidden: int = 32,
        retain_dropout: float = 0.2,
        update_hidden: int = 32,
        update_dropout: float = 0.7,
        head_hidden: int = 256,
        head_dropout: float = 0.2,
        audio_pooling: str = "none",
        vision_pooling: str = "none",
        **inputs: Any,
    ) -> None:
        super().__init__(dims, task, audio_pooling=audio_pooling, vision_pooling=vision_pooling, **inputs)
        all_widths = {"text": text_hidden, "audio": audio_hidden, "vision": vision_hidden}
        widths = {m: all_widths[m] for m in self.modalities}
        self.lstms = nn.ModuleDict({m: LSTM(self.dims[m], h) for m, h in widths.items()})
        self.singletons = nn.ModuleDict({m: nn.Linear(2 * h, h) for m, h in widths.items()})
        self.graph = DynamicFusionGraph(widths, vertex_size)
        self.gated_memory = GatedMemory(
            vertex_size,
            memory_size,
            proposal=(proposal_hidden, proposal_dropout),
            retain=(retain_hidden, retain_dropout),
            update=(update_hidden, update_dropout),
        )
        self.head = Network(sum(widths.values()) + memory_size, head_hidden, task.num_outputs, head_dropout)

    def fuse(self, batch: Batch) -> Output:
        words = words_of(batch)
        h, tau, efficacies = self._graph_at_words(batch, words)
        memory = self.gated_memory(tau, words)  # m at each last word, (B, M)
        logits = self.head(torch.cat([*h.values(), memory], dim=1))
        return Output(logits, {**h, "memory": memory, "efficacies": Ragged(efficacies, words.lengths).mean()})

    def _graph_at_words(self, batch: Batch, words: Ragged) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Last hidden states (B, H_m) by modality, tau (S, D), efficacies (S, E)."""
        last, x = {}, {}
        for m in self.modalities:
            own = batch.inputs[m]
            states = cast(LSTM, self.lstms[m]).states(own)
            two_words = torch.cat([one_word_earlier(states.hidden, own), states.hidden], dim=1)  # (S_m, 2H_m)
            last[m] = states.last
            x[m] = at_words(torch.relu(self.singletons[m](two_words)), own, words)
        return last, *self.graph(x)

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """What the columns of the efficacies are: from which vertex to which."""
        return self.graph.edges

    def efficacies(self, batch: Batch) -> Ragged:
        """(S, E) every edge's efficacy at every word, columns as ``edges``."""
        batch = self.prepare(batch)
        words = words_of(batch)
        return Ragged(self._graph_at_words(batch, words)[2], words.lengths)


class DynamicFusionGraph(nn.Module):
    """Vertices for all sets of modalities, an output that reads them all, and the efficacies of the edges between.

    widths: columns of each modality's own vertex; size: D, of all others. A set is called "text+audio" and the like.
    """

    def __init__(self, widths: Mapping[str, int], size: int) -> None:
        super().__init__()
        sets = [c for n in range(2, len(widths) + 1) for c in combinations(widths, n)]
        self.sources = {"+".join(c): _proper_subsets(c) for c in sets}
        everything = ["+".join(c) for n in range(1, len(widths) + 1) for c in combinations(widths, n)]
        self.sources["output"] = everything
        self.edges = tuple((source, to) for to, sources in self.sources.items() for source in sources)
        columns = dict(widths) | {"+".join(c): size for c in sets}
        self.efficacy = nn.Sequential(
            nn.Linear(sum(widths.values()), BOTTLENECK), nn.Linear(BOTTLENECK, size), nn.Linear(size, len(self.edges))
        )
        self.vertices = nn.ModuleDict(
            {
                to: nn.Sequential(nn.Linear(sum(columns[s] for s in sources), BOTTLENECK), nn.Linear(BOTTLENECK, size))
                for to, sources in self.sources.items()
            }
        )

    def forward(self, x: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """x: (S, H_m) by modality -> the output vertex (S, D), the efficacies (S, E) in the order of ``edges``."""
        efficacies = self._efficacies(torch.cat(list(x.values()), dim=1))
        each = iter(torch.split(efficacies, 1, dim=1))
        values = dict(x)
        for to, sources in self.sources.items():
            values[to] = self.vertices[to](torch.cat([next(each) * values[s] for s in sources], dim=1))
        return values["output"], efficacies

    def _efficacies(self, x: Tensor) -> Tensor:
        """The three linear layers multiplied with each other first: they are small, the words are many."""
        first, second, third = (cast(nn.Linear, layer) for layer in self.efficacy)
        weight = third.weight @ (second.weight @ first.weight)  # (E, H)
        bias = third(second(first.bias))
        return torch.addmm(bias, x, weight.t())


def _proper_subsets(names: Sequence[str]) -> list[str]:
    return ["+".join(c) for n in range(1, len(names)) for c in combinations(names, n)]
