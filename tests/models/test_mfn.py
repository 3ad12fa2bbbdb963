"""MFN beside its paper: the system of LSTMs, delta-memory attention and gated memory, word by word."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
import torch
from tests.models.conftest import DIMS, TASK, random_batch
from torch import Tensor

from moodal.batch import Batch, Ragged
from moodal.models import create_model
from moodal.models.mfn import MFN, GatedMemory, Network, _Memory, at_words, one_word_earlier, words_of
from moodal.models.recurrent import LSTM, Packing
from moodal.types import InputError, Task

SMALL = {
    "text_hidden": 4,
    "audio_hidden": 2,
    "vision_hidden": 3,
    "memory_size": 5,
    "delta_hidden": 6,
    "proposal_hidden": 7,
    "retain_hidden": 4,
    "update_hidden": 3,
    "head_hidden": 6,
}
SIMS = {"text": 768, "audio": 33, "vision": 709}


def word_batch(lengths: list[int], missing: dict[str, list[int]] | None = None) -> Batch:
    """A prepared batch in doubles: as many steps of every modality as there are words, none where it is missing."""
    g = torch.Generator().manual_seed(3)
    inputs = {}
    for m, dim in DIMS.items():
        own = torch.tensor([0 if i in (missing or {}).get(m, ()) else n for i, n in enumerate(lengths)])
        inputs[m] = Ragged(torch.randn(int(own.sum()), dim, generator=g, dtype=torch.double), own)
    return Batch(inputs, torch.arange(len(lengths)) % 3, stage="prepared")


def slow_states(lstm: LSTM, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Hidden states and cells of one utterance before its first word and after each; x: (T, D)."""
    hidden, cell = ([lstm.weight_hh.new_zeros(lstm.weight_hh.shape[1])] for _ in range(2))
    for row in x:
        gates = lstm.weight_ih @ row + lstm.bias_ih + lstm.weight_hh @ hidden[-1] + lstm.bias_hh
        i, f, g, o = gates.chunk(4)
        cell.append(torch.sigmoid(f) * cell[-1] + torch.sigmoid(i) * torch.tanh(g))
        hidden.append(torch.sigmoid(o) * torch.tanh(cell[-1]))
    return hidden, cell


def steps_of(batch: Batch, modality: str, utterance: int, words: int) -> Tensor | None:
    """(T, D) one utterance's steps, None where the modality is missing."""
    x = batch.inputs[modality]
    if not x.lengths[utterance]:
        return None
    start = int(x.starts[utterance])
    return x.values[start : start + words]


def slow_memory(memory: GatedMemory, u: list[Tensor]) -> Tensor:
    """m after the last of one utterance's words, each of which shows ``u`` (dim,)."""
    m = torch.zeros(memory.size, dtype=torch.double)
    for shown in u:
        proposed = torch.tanh(slow_network(memory.proposal, shown))
        q = torch.cat([shown, m])
        g1, g2 = (torch.sigmoid(slow_network(gate, q)) for gate in (memory.retain, memory.update))
        m = g1 * m + g2 * proposed
    return m


def slow_network(d: Network, x: Tensor) -> Tensor:
    return d.second.weight @ (d.first.weight @ x + d.first.bias).clamp(min=0) + d.second.bias


def slow_mfn(model: MFN, batch: Batch) -> Tensor:
    logits = []
    for b in range(len(batch)):
        words = max(int(x.lengths[b]) for x in batch.inputs.values())
        hidden, cells = {}, {}
        for m in DIMS:
            lstm = cast(LSTM, model.lstms[m])
            x = steps_of(batch, m, b, words)
            zeros = [lstm.weight_hh.new_zeros(lstm.weight_hh.shape[1])] * (words + 1)
            hidden[m], cells[m] = (zeros, zeros) if x is None else slow_states(lstm, x)
        u = []
        for s in range(1, words + 1):
            delta = torch.cat([*(cells[m][s - 1] for m in DIMS), *(cells[m][s] for m in DIMS)])
            u.append(torch.softmax(slow_network(model.attention, delta), dim=0) * delta)
        state = torch.cat([*(hidden[m][-1] for m in DIMS), slow_memory(model.gated_memory, u)])
        logits.append(slow_network(model.head, state))
    return torch.stack(logits)


@pytest.mark.parametrize(
    ("lengths", "missing"),
    [
        ([3, 1, 5, 3], None),
        ([1], None),
        ([2, 0, 4], None),
        ([3, 2, 4], {"text": [0], "audio": [1, 2], "vision": [1]}),
        ([3, 2], {"vision": [0, 1]}),
    ],
)
def test_it_is_the_paper_word_by_word(lengths: list[int], missing: dict[str, list[int]] | None) -> None:
    """Logits and the gradient of every weight."""
    torch.manual_seed(0)
    model = MFN(DIMS, TASK, **SMALL).double().eval()
    batch = word_batch(lengths, missing)
    fast, slow = model.fuse(batch).logits, slow_mfn(model, batch)
    torch.testing.assert_close(fast, slow)
    weight = torch.randn_like(slow)
    named = dict(model.named_parameters())
    mine, theirs = (
        torch.autograd.grad((x * weight).sum(), list(named.values()), materialize_grads=True, allow_unused=True)
        for x in (fast, slow)
    )
    for name, a, b in zip(named, mine, theirs, strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("lengths", [[4, 2, 0, 3, 4], [1, 1]])
def test_the_memory_keeps_what_dropout_keeps_and_its_gradients_are_the_numerical_ones(lengths: list[int]) -> None:
    torch.manual_seed(0)
    words = Ragged(torch.zeros(sum(lengths), 0), torch.tensor(lengths))
    packing = Packing.of(words)
    steps, size, k1, k2 = sum(lengths), 3, 4, 2
    keep = torch.randint(0, 2, (steps, k1 + k2)).double() * 2
    shapes = [(steps, k1 + k2), (steps, size), (k1 + k2, size), (size, k1), (size, k2), (2 * size,)]
    leaves = [torch.randn(*shape, dtype=torch.double, requires_grad=True) for shape in shapes]
    seen, proposed, recurrent, retain, update, bias = leaves

    def fast(*x: Tensor) -> Tensor:
        out: Tensor = _Memory.apply(x[0], x[1], keep, *x[2:], packing)  # type: ignore[no-untyped-call]
        return out

    last = []
    for b in packing.order[: packing.sizes[0]].tolist():
        m = torch.zeros(size, dtype=torch.double)
        for row in range(int(words.starts[b]), int(words.starts[b]) + lengths[b]):
            hidden = torch.relu(seen[row] + recurrent @ m) * keep[packing.rows.tolist().index(row)]
            g1, g2 = torch.sigmoid(torch.cat([retain @ hidden[:k1], update @ hidden[k1:]]) + bias).chunk(2)
            m = g1 * m + g2 * proposed[row]
        last.append(m)
    torch.testing.assert_close(fast(*leaves), torch.stack(last))
    assert torch.autograd.gradcheck(fast, leaves)


def test_dropout_is_drawn_anew_in_training_and_absent_in_evaluation() -> None:
    memory = GatedMemory(3, 4, proposal=(5, 0.0), retain=(400, 0.5), update=(200, 0.0))
    seen = torch.zeros(50, 600)
    keep = memory.train()._keep(seen)
    assert keep is not None
    assert set(keep[:, :400].unique().tolist()) == {0.0, 2.0}
    assert (keep[:, :400] > 0).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert (keep[:, 400:] == 1).all()
    assert memory.eval()._keep(seen) is None
    words = Ragged(torch.zeros(6, 0), torch.tensor([2, 4]))
    u = torch.randn(6, 3)
    assert torch.equal(memory(u, words), memory(u, words))
    assert not torch.equal(memory.train()(u, words), memory(u, words))


def test_the_first_word_has_nothing_before_it() -> None:
    words = Ragged(torch.zeros(5, 0), torch.tensor([0, 2, 0, 3, 0]))
    x = torch.arange(1.0, 6.0)[:, None]
    assert one_word_earlier(x, words)[:, 0].tolist() == [0, 1, 0, 3, 4]
    assert one_word_earlier(x[:0], Ragged(torch.zeros(0, 0), torch.tensor([0]))).shape == (0, 1)


def test_a_missing_modality_stands_as_zeros_at_the_words_of_the_others() -> None:
    batch = word_batch([2, 1, 2], {"text": [1], "audio": [0]})
    words = words_of(batch)
    assert words.lengths.tolist() == [2, 1, 2]
    audio = batch.inputs["audio"]
    there = at_words(audio.values, audio, words)
    assert (there[:2] == 0).all()
    assert torch.equal(there[2:], audio.values)


def test_pooled_audio_stands_at_every_word_as_in_the_reference() -> None:
    model = MFN(DIMS, TASK, audio_pooling="mean", standardise="scale")
    batch = random_batch(5)
    audio = model.prepare(batch).inputs["audio"]
    assert torch.equal(audio.lengths, batch.inputs["text"].lengths)
    torch.testing.assert_close(audio.values, batch.inputs["audio"].mean()[audio.owner])
    assert not torch.equal(model.prepare(batch).inputs["vision"].values[0], batch.inputs["vision"].mean()[0])


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 601_635),  # BASELINES 2.9, CH-SIMS
        (
            {
                "text_hidden": 128,
                "vision_hidden": 128,
                "memory_size": 128,
                "delta_hidden": 64,
                "proposal_hidden": 64,
                "retain_hidden": 256,
                "update_hidden": 128,
            },
            1_339_747,  # the settings behind the published classification table
        ),
    ],
)
def test_it_has_as_many_weights_as_the_reference(options: dict[str, int], count: int) -> None:
    assert sum(p.numel() for p in MFN(SIMS, TASK, **options).parameters()) == count


def test_scores_have_one_column() -> None:
    model = MFN(DIMS, Task(low=-1, high=1), **SMALL)
    batch = replace(random_batch(4), labels=torch.tensor([-1.0, 0.0, 0.2, 1.0]))
    output = model(batch)
    assert output.logits.shape == (4, 1)
    assert batch.labels is not None
    assert torch.isfinite(model.task_loss(output.logits, batch.labels))


@pytest.mark.parametrize("name", ["delta", "proposal", "retain", "update", "head"])
def test_a_dropout_of_one_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"{name}_dropout must be at least 0 and below 1, got 1\.0"):
        create_model("mfn", DIMS, TASK, **{f"{name}_dropout": 1.0})
