"""MulT beside its paper: the whole model, one utterance, one head and one query at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.models.conftest import DIMS, TASK, random_batch
from torch import Tensor
from torch.nn import functional as F

from moodal.batch import Batch, Ragged
from moodal.models import create_model
from moodal.models.mult import Convolution, Layer, MulT, sinusoids
from moodal.types import InputError, Task

SMALL = {"hidden": 6, "heads": 3}
NO_DROPOUT = {
    f"{part}dropout": 0.0
    for part in (
        "text_",
        "embedding_",
        "attention_",
        "audio_attention_",
        "vision_attention_",
        "relu_",
        "residual_",
        "output_",
    )
}


def small(seed: int = 0, dims: dict[str, int] = DIMS, **options: Any) -> MulT:
    torch.manual_seed(seed)
    model = MulT(dims, TASK, **{**SMALL, **options})
    for p in model.parameters():  # biases and norms that do something
        torch.nn.init.normal_(p, std=0.3)
    return model.eval()


def steps(x: Ragged, b: int) -> Tensor:
    return x.values[int(x.starts[b]) : int(x.starts[b] + x.lengths[b])]


def slow_position(i: int, width: int) -> Tensor:
    """Appendix A, i from 1."""
    angles = [i / 10000 ** (2 * (column // 2) / width) for column in range(width)]
    return torch.tensor([math.cos(a) if column % 2 else math.sin(a) for column, a in enumerate(angles)])


def slow_embedding(x: Tensor) -> Tensor:
    return torch.stack([math.sqrt(x.shape[1]) * row + slow_position(i + 1, x.shape[1]) for i, row in enumerate(x)])


def slow_layer(layer: Layer, heads: int, x: Tensor, source: Tensor) -> Tensor:
    """One layer over one utterance: x (n_q, H), source (n_k, H)."""
    width = x.shape[1]
    norm = [F.layer_norm(s, (width,), layer.norm.weight, layer.norm.bias) for s in (x, source, source)]
    q, k, v = (
        s @ layer.project.weight[i * width : (i + 1) * width].T + layer.project.bias[i * width : (i + 1) * width]
        for i, s in enumerate(norm)
    )
    d = width // heads
    rows = []
    for i in range(len(x)):
        attended = []
        for h in range(heads):
            part = slice(h * d, (h + 1) * d)
            seen = [j for j in range(len(source)) if j <= i + abs(len(source) - len(x))]
            weights = torch.softmax(torch.stack([q[i, part] @ k[j, part] / math.sqrt(d) for j in seen]), 0)
            attended.append(sum(w * v[j, part] for w, j in zip(weights, seen, strict=True)))
        y = x[i] + layer.out(torch.cat(attended))  # type: ignore[arg-type]
        inner = torch.relu(layer.widen(layer.norm_inner(y)))
        rows.append(y + layer.narrow(inner))
    return torch.stack(rows)


def slow_stream(model: MulT, x: Tensor, source: Tensor, name: str) -> Tensor:
    h, transformer = slow_embedding(x), model.crossmodal[name]
    for layer in transformer.layers:  # type: ignore[union-attr]
        if len(source):
            h = slow_layer(layer, model.heads, h, slow_embedding(source))
        else:  # nothing to attend to: the feed-forward network alone
            h = h + layer.narrow(torch.relu(layer.widen(layer.norm_inner(h))))
    out: Tensor = transformer.norm(h)  # type: ignore[operator]
    return out


def slow_mult(model: MulT, batch: Batch) -> Tensor:
    logits = []
    for b in range(len(batch)):
        x = {}
        for m in model.modalities:
            raw, weight = steps(batch.inputs[m], b), model.convolutions[m].weight
            k = weight.shape[2]  # type: ignore[union-attr]
            padded = F.pad(raw.T[None], ((k - 1) // 2, k // 2))  # (1, D, n + k - 1)
            x[m] = F.conv1d(padded, weight)[0].T if len(raw) else raw.new_zeros(0, weight.shape[0])  # type: ignore
        z = []
        for m in model.modalities:
            memory = model.memories[m]
            others = [s for s in model.modalities if s != m]
            if not len(x[m]):
                z.append(torch.zeros(memory.norm.weight.shape[0]))  # type: ignore
                continue
            h = torch.cat([slow_stream(model, x[m], x[s], f"{m}_from_{s}") for s in others] or [x[m]], dim=1)
            h = slow_embedding(h)
            for layer in memory.layers:  # type: ignore[union-attr]
                h = slow_layer(layer, model.heads, h, h)
            z.append(memory.norm(h)[-1])  # type: ignore[operator]
        joined = torch.cat(z)
        logits.append(model.head(joined + model.residual(joined)))
    return torch.stack(logits)


def test_it_is_the_papers_model_one_utterance_at_a_time() -> None:
    model, batch = small(), random_batch(4)
    torch.testing.assert_close(model.fuse(batch).logits, slow_mult(model, batch), rtol=1e-4, atol=1e-5)


def test_what_is_missing_adds_nothing_and_is_remembered_as_zeros() -> None:
    model, batch = small(1), random_batch(5, seed=3)
    batch = batch.without("audio", torch.tensor([True, False, False, True, False]))
    batch = batch.without("text", torch.tensor([False, False, True, True, False]))
    output = model.fuse(batch)
    torch.testing.assert_close(output.logits, slow_mult(model, batch), rtol=1e-4, atol=1e-5)
    assert (output.embeddings["audio"][[0, 3]] == 0).all()
    assert (output.embeddings["audio"][[1, 2, 4]] != 0).any(1).all()


@pytest.mark.parametrize("left", [("text", "vision"), ("audio",)], ids="+".join)
def test_fewer_modalities_make_a_narrower_memory(left: tuple[str, ...]) -> None:
    model = small(2, {m: DIMS[m] for m in left})
    batch = random_batch(3, seed=4)
    batch = Batch({m: batch.inputs[m] for m in left})
    torch.testing.assert_close(model.fuse(batch).logits, slow_mult(model, batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_the_convolution_keeps_every_length_and_reads_zeros_beyond_both_ends(kernel: int) -> None:
    x = random_batch(6, seed=5).inputs["text"]  # utterances of 1 to 7 steps: some are shorter than the kernel
    convolution = Convolution(x.dim, 4, kernel)
    out = convolution(x)
    assert torch.equal(out.lengths, x.lengths)
    for b in range(len(x)):
        padded = F.pad(steps(x, b).T[None], ((kernel - 1) // 2, kernel // 2))
        torch.testing.assert_close(steps(out, b), F.conv1d(padded, convolution.weight)[0].T)


@pytest.mark.parametrize("width", [6, 5])
def test_positions_are_sines_and_cosines_of_each_utterances_own_steps(width: int) -> None:
    expected = torch.stack([slow_position(i + 1, width) for i in range(20)])
    torch.testing.assert_close(sinusoids(20, width), expected)


def test_order_counts_because_of_positions() -> None:
    """Without positions, and but for the mask, a source is a bag: with one query step no order can be seen."""
    batch = random_batch(1, seed=6)
    one = Ragged(torch.randn(1, DIMS["text"]), torch.tensor([1]))
    still = Ragged(torch.randn(1, DIMS["vision"]), torch.tensor([1]))
    audio = Ragged(torch.randn(5, DIMS["audio"]), torch.tensor([5]))
    swapped = Ragged(audio.values[[2, 0, 3, 1, 4]], audio.lengths)
    for positions in (True, False):
        model = small(3, positions=positions)
        read = [
            model.fuse(Batch({"text": one, "audio": a, "vision": still}, batch.labels)).embeddings["text"]
            for a in (audio, swapped)
        ]
        assert torch.allclose(read[0], read[1], atol=1e-5) is not positions


@pytest.mark.parametrize(
    ("dims", "options", "count"),
    [
        ({"text": 768, "audio": 33, "vision": 709}, {}, 1_871_303),
        (
            {"text": 768, "audio": 33, "vision": 709},
            {"hidden": 40, "vision_kernel": 5},
            1_351_283,
        ),
    ],
    ids=["HEAD", "v1.0"],
)
def test_parameter_counts_are_the_reference_packages(dims: dict[str, int], options: dict[str, int], count: int) -> None:
    model = create_model("mult", dims, Task(("negative", "neutral", "positive")), **options)
    assert sum(p.numel() for p in model.parameters()) == count


def test_many_utterances_are_evaluated_a_slice_at_a_time_to_the_same_output() -> None:
    model, batch = small(), random_batch(130)
    whole = model.fuse(batch)
    with torch.inference_mode():
        sliced = model.fuse(batch)
    torch.testing.assert_close(sliced.logits, whole.logits.detach())
    for m in DIMS:
        torch.testing.assert_close(sliced.embeddings[m], whole.embeddings[m].detach())


def test_training_without_dropout_is_evaluation_and_with_it_is_not() -> None:
    batch = random_batch(6, seed=7)
    for options, same in ((NO_DROPOUT, True), ({}, False)):
        model = small(4, **options)
        evaluated = model.fuse(batch).logits
        assert torch.allclose(model.train().fuse(batch).logits, evaluated, atol=1e-6) is same


@pytest.mark.parametrize("rate", list(NO_DROPOUT))
def test_every_rate_is_used(rate: str) -> None:
    model, batch = small(5, **{**NO_DROPOUT, rate: 0.5}), random_batch(6, seed=8)
    evaluated = model.fuse(batch).logits
    assert not torch.allclose(model.train().fuse(batch).logits, evaluated, atol=1e-4)


@pytest.mark.parametrize("count", [1, 4])
def test_gradients_are_finite_whatever_is_missing(count: int) -> None:
    for missing in ("text", "audio", "vision"):
        model = small(6).train()
        batch = random_batch(count, seed=9).without(missing, torch.arange(count) == 0)
        model.fuse(batch).logits.square().sum().backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 50, "heads": 4}, "hidden must be a multiple of heads, got 50 and 4"),
        ({"residual_dropout": 1.0}, "residual_dropout must be at least 0 and below 1"),
        ({"text_kernel": 0}, "text_kernel must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_model("mult", DIMS, TASK, **options)
