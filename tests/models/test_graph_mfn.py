"""Graph-MFN beside its paper: the dynamic fusion graph vertex by vertex, and the whole model word by word."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from tests.models.conftest import DIMS, TASK, random_batch
from tests.models.test_mfn import SIMS, slow_memory, slow_network, slow_states, steps_of, word_batch
from torch import Tensor, nn

from moodal.batch import Batch
from moodal.models import create_model
from moodal.models.graph_mfn import BOTTLENECK, DynamicFusionGraph, GraphMFN
from moodal.models.recurrent import LSTM
from moodal.types import InputError, Task

SMALL = {
    "text_hidden": 4,
    "audio_hidden": 2,
    "vision_hidden": 3,
    "vertex_size": 6,
    "memory_size": 5,
    "proposal_hidden": 7,
    "retain_hidden": 4,
    "update_hidden": 3,
    "head_hidden": 6,
}


def chain(layers: nn.Module, x: Tensor) -> Tensor:
    for layer in layers.children():
        assert isinstance(layer, nn.Linear)
        x = layer.weight @ x + layer.bias
    return x


def slow_graph(graph: DynamicFusionGraph, t: Tensor, a: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """One word of three modalities: each vertex from its own sentence of the paper, efficacies counted off."""
    e = chain(graph.efficacy, torch.cat([t, a, v]))
    net = graph.vertices
    ta = chain(net["text+audio"], torch.cat([e[0] * t, e[1] * a]))
    tv = chain(net["text+vision"], torch.cat([e[2] * t, e[3] * v]))
    av = chain(net["audio+vision"], torch.cat([e[4] * a, e[5] * v]))
    below = [e[6] * t, e[7] * a, e[8] * v, e[9] * ta, e[10] * tv, e[11] * av]
    tav = chain(net["text+audio+vision"], torch.cat(below))
    below = [e[12] * t, e[13] * a, e[14] * v, e[15] * ta, e[16] * tv, e[17] * av, e[18] * tav]
    return chain(net["output"], torch.cat(below)), e


def slow_graph_mfn(model: GraphMFN, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    logits, efficacies = [], []
    for b in range(len(batch)):
        words = max(int(x.lengths[b]) for x in batch.inputs.values())
        last, vertices = [], []
        for m in DIMS:
            lstm, linear = cast(LSTM, model.lstms[m]), cast(nn.Linear, model.singletons[m])
            x = steps_of(batch, m, b, words)
            if x is None:
                last.append(lstm.weight_hh.new_zeros(lstm.weight_hh.shape[1]))
                vertices.append([last[-1]] * words)
                continue
            hidden, _ = slow_states(lstm, x)
            last.append(hidden[-1])
            pairs = [torch.cat([hidden[s - 1], hidden[s]]) for s in range(1, words + 1)]
            vertices.append([torch.relu(linear.weight @ p + linear.bias) for p in pairs])
        seen = [slow_graph(model.graph, *x) for x in zip(*vertices, strict=True)]
        efficacies += [e for _, e in seen]
        memory = slow_memory(model.gated_memory, [tau for tau, _ in seen])
        logits.append(slow_network(model.head, torch.cat([*last, memory])))
    return torch.stack(logits), efficacies


@pytest.mark.parametrize(
    ("lengths", "missing"),
    [
        ([3, 1, 5, 3], None),
        ([1], None),
        ([2, 0, 4], None),
        ([3, 2, 4], {"text": [0], "audio": [1, 2], "vision": [1]}),
    ],
)
def test_it_is_the_paper_word_by_word(lengths: list[int], missing: dict[str, list[int]] | None) -> None:
    """Logits, every word's efficacies, and the gradient of every weight, also of the vertices' networks."""
    torch.manual_seed(0)
    model = GraphMFN(DIMS, TASK, **SMALL).double().eval()
    batch = word_batch(lengths, missing)
    fast, (slow, efficacies) = model.fuse(batch).logits, slow_graph_mfn(model, batch)
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(model.efficacies(batch).values, torch.stack(efficacies))
    weight = torch.randn_like(slow)
    named = dict(model.named_parameters())
    mine, theirs = (torch.autograd.grad((x * weight).sum(), list(named.values())) for x in (fast, slow))
    for name, a, b in zip(named, mine, theirs, strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


def test_the_graph_is_its_formula_sample_by_sample() -> None:
    torch.manual_seed(0)
    graph = DynamicFusionGraph({"text": 5, "audio": 2, "vision": 3}, 4).double()
    x = {m: torch.randn(7, n, dtype=torch.double) for m, n in {"text": 5, "audio": 2, "vision": 3}.items()}
    tau, efficacies = graph(x)
    each = [slow_graph(graph, *rows) for rows in zip(*x.values(), strict=True)]
    torch.testing.assert_close(tau, torch.stack([t for t, _ in each]))
    torch.testing.assert_close(efficacies, torch.stack([e for _, e in each]))


def test_three_modalities_have_nineteen_edges_and_they_have_names() -> None:
    edges = GraphMFN(DIMS, TASK, **SMALL).edges
    assert len(edges) == 19
    assert edges[:3] == (("text", "text+audio"), ("audio", "text+audio"), ("text", "text+vision"))
    assert edges[9] == ("text+audio", "text+audio+vision")
    assert edges[18] == ("text+audio+vision", "output")


def test_two_modalities_and_one_have_smaller_graphs() -> None:
    assert GraphMFN({"text": 6, "vision": 3}, TASK, **SMALL).edges == (
        ("text", "text+vision"),
        ("vision", "text+vision"),
        ("text", "output"),
        ("vision", "output"),
        ("text+vision", "output"),
    )
    assert GraphMFN({"audio": 4}, TASK, **SMALL).edges == (("audio", "output"),)


def test_an_efficacy_says_how_much_passes_along_its_edge() -> None:
    """With the efficacies of every edge out of the audio at 0, the audio's vertex changes nothing."""
    torch.manual_seed(0)
    graph = DynamicFusionGraph({"text": 5, "audio": 2}, 4)
    into = graph.efficacy[2]
    assert isinstance(into, nn.Linear)
    with torch.no_grad():
        into.weight.zero_()
        into.bias.copy_(torch.tensor([0.0 if source == "audio" else 1.0 for source, _ in graph.edges]))
    text = torch.randn(3, 5)
    first, second = (graph({"text": text, "audio": torch.randn(3, 2)})[0] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.allclose(graph({"text": text + 1, "audio": torch.randn(3, 2)})[0], first)


def test_the_embedding_holds_the_mean_efficacies_of_each_utterance() -> None:
    model = GraphMFN(DIMS, TASK, **SMALL).eval()
    batch = random_batch(4)
    found, each = model(batch).embeddings["efficacies"], model.efficacies(batch)
    assert torch.equal(each.lengths, batch.inputs["text"].lengths)
    for row, words in zip(found, torch.split(each.values, each.lengths.tolist()), strict=True):
        torch.testing.assert_close(row, words.mean(0))


def test_every_vertex_is_trained() -> None:
    """In the reference these 253,712 weights stay as they were drawn."""
    model = GraphMFN(SIMS, TASK)
    nodes = [p for name, net in model.graph.vertices.items() if name != "output" for p in net.parameters()]
    assert sum(p.numel() for p in nodes) == 253_712
    assert sum(p.numel() for p in model.parameters()) == 2_725_374 + 253_712
    (group,) = model.param_groups(0.1, 0.0)
    assert {id(p) for p in nodes} <= {id(p) for p in group["params"]}  # type: ignore[union-attr,attr-defined]
    assert {k for k in model.state_dict() if k.startswith("graph.vertices.text+audio.")}
    assert BOTTLENECK == 100


def test_scores_have_one_column() -> None:
    assert GraphMFN(DIMS, Task(low=-1, high=1), **SMALL)(random_batch(4)).logits.shape == (4, 1)


@pytest.mark.parametrize("name", ["proposal", "retain", "update", "head"])
def test_a_dropout_of_one_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"{name}_dropout must be at least 0 and below 1, got 1\.0"):
        create_model("graph_mfn", DIMS, TASK, **{f"{name}_dropout": 1.0})
