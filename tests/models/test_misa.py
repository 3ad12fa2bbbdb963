"""MISA beside its paper: the losses and the layers against their definitions, written as loops."""

from __future__ import annotations

import math

import pytest
import torch
from tests.models.conftest import DIMS, TASK, random_batch
from torch import Tensor, nn

from moodal.batch import Batch, Ragged
from moodal.models import create_model
from moodal.models.misa import (
    MISA,
    StackedBiLSTM,
    TransformerLayer,
    central_moment_discrepancy,
    difference_loss,
    reconstruction_loss,
    similarity_loss,
)
from moodal.types import InputError, Task

SIMS = {"text": 768, "audio": 33, "vision": 709}


def slow_orthogonality(x: list[list[float]], y: list[list[float]]) -> float:
    """Mean square of the entries of X'^T Y': centred over the utterances, then each utterance of length 1."""

    def prepared(rows: list[list[float]]) -> list[list[float]]:
        means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        centred = [[v - m for v, m in zip(row, means, strict=True)] for row in rows]
        return [[v / (math.sqrt(sum(w * w for w in row)) + 1e-6) for v in row] for row in centred]

    x, y = prepared(x), prepared(y)
    entries = [sum(x[b][i] * y[b][j] for b in range(len(x))) ** 2 for i in range(len(x[0])) for j in range(len(y[0]))]
    return sum(entries) / len(entries)


def slow_moments(rows: list[list[float]]) -> list[list[float]]:
    """The mean and the 2nd to the 5th central moments of each column."""
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    central = [
        [sum((row[i] - means[i]) ** k for row in rows) / len(rows) for i in range(len(means))] for k in range(2, 6)
    ]
    return [means, *central]


def slow_discrepancy(x: list[list[float]], y: list[list[float]]) -> float:
    return sum(math.dist(a, b) for a, b in zip(slow_moments(x), slow_moments(y), strict=True))


def rows_of(code: Tensor, present: Tensor, *modalities: int) -> list[list[list[float]]]:
    """The codes of some modalities for the utterances that have them all."""
    there = [b for b in range(len(code)) if all(present[b, m] for m in modalities)]
    return [[code[b, m].tolist() for b in there] for m in modalities]


@pytest.fixture
def codes() -> tuple[Tensor, Tensor, Tensor]:
    """Private and shared codes (6, 3, 4), and who has which modality."""
    g = torch.Generator().manual_seed(0)
    private, shared = (torch.rand(6, 3, 4, generator=g, dtype=torch.double) for _ in range(2))
    present = torch.ones(6, 3, dtype=torch.bool)
    present[0, 1] = present[2, 1] = present[3, 2] = False
    return private, shared, present


def test_the_difference_loss_sums_six_pairs(codes: tuple[Tensor, Tensor, Tensor]) -> None:
    private, shared, present = codes
    expected = 0.0
    for m in range(3):
        expected += slow_orthogonality(*rows_of(private, present, m), *rows_of(shared, present, m))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        expected += slow_orthogonality(*rows_of(private, present, a, b))
    assert difference_loss(private, shared, present).item() == pytest.approx(expected, rel=1e-9)


def test_orthogonal_codes_have_no_difference_loss() -> None:
    g = torch.Generator().manual_seed(0)
    private, shared = (torch.rand(8, 1, 4, generator=g, dtype=torch.double) for _ in range(2))
    private[:4] = private[4:].mean(0)  # centred, each utterance has only one of the two
    shared[4:] = shared[:4].mean(0)
    assert difference_loss(private, shared, torch.ones(8, 1, dtype=torch.bool)).item() == pytest.approx(0, abs=1e-9)


def test_the_similarity_loss_is_the_mean_discrepancy_of_pairs(codes: tuple[Tensor, Tensor, Tensor]) -> None:
    _, shared, present = codes
    expected = sum(slow_discrepancy(*rows_of(shared, present, a, b)) for a, b in ((0, 1), (0, 2), (1, 2))) / 3
    assert similarity_loss(shared, present).item() == pytest.approx(expected, rel=1e-9)


def test_the_reconstruction_loss_reads_those_who_have_the_modality(codes: tuple[Tensor, Tensor, Tensor]) -> None:
    decoded, encoded, present = codes
    each = []
    for m in range(3):
        there = [b for b in range(6) if present[b, m]]
        each.append(sum(((decoded[b, m] - encoded[b, m]) ** 2).mean().item() for b in there) / len(there))
    assert reconstruction_loss(decoded, encoded, present).item() == pytest.approx(sum(each) / 3, rel=1e-9)


@pytest.mark.parametrize("count", [1, 5])
def test_equal_codes_have_no_discrepancy_and_a_finite_gradient(count: int) -> None:
    x = torch.rand(count, 4, requires_grad=True)
    distance = central_moment_discrepancy(x, x.detach().clone())
    distance.backward()  # type: ignore[no-untyped-call]
    assert distance.item() == 0
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_a_modality_that_nobody_has_is_in_no_loss_and_gets_no_gradient() -> None:
    model = MISA(DIMS, TASK, hidden=8)
    batch = random_batch(5).without("audio")
    losses = model.extra_losses(model(batch), batch)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    for name, p in model.named_parameters():
        assert p.grad is None or torch.isfinite(p.grad).all()
        if name.startswith(("project.audio", "private.audio", "decoders.audio")):
            assert p.grad is None or not p.grad.any()


def test_two_stacked_bilstms_are_torchs() -> None:
    torch.manual_seed(0)
    ours = StackedBiLSTM(4).double()
    first = nn.LSTM(4, 4, bidirectional=True).double()
    second = nn.LSTM(8, 4, bidirectional=True).double()
    for theirs, ahead, back in ((first, ours.ahead, ours.back), (second, ours.ahead2, ours.back2)):
        for p, q in zip(theirs.parameters(), [*ahead.parameters(), *back.parameters()], strict=True):
            p.data.copy_(q.data)
    x = Ragged(torch.randn(9, 4).double(), torch.tensor([3, 1, 5]))
    rows = []
    for steps in torch.split(x.values, x.lengths.tolist()):
        states, (one, _) = first(steps)
        _, (two, _) = second(ours.norm(states))
        rows.append(torch.cat([one[0], two[0], one[1], two[1]]))
    torch.testing.assert_close(ours(x), torch.stack(rows))


def test_evaluation_in_slices_is_evaluation_at_once() -> None:
    encoder = StackedBiLSTM(DIMS["audio"])
    x = random_batch(150).inputs["audio"]
    with torch.inference_mode():
        sliced = encoder(x)
    torch.testing.assert_close(sliced, encoder(x).detach())


def test_the_transformer_is_torchs_and_absent_tokens_are_not_read() -> None:
    torch.manual_seed(0)
    ours = TransformerLayer(8, 0.1).eval()
    theirs = nn.TransformerEncoderLayer(8, 2, 2048, 0.1, batch_first=True).eval()
    pairs = {"self_attn.in_proj_": ours.qkv, "self_attn.out_proj.": ours.out, "linear1.": ours.widen}
    pairs |= {"linear2.": ours.narrow, "norm1.": ours.norms[0], "norm2.": ours.norms[1]}
    theirs.load_state_dict({f"{k}{n}": p for k, layer in pairs.items() for n, p in layer.state_dict().items()})
    x, present = torch.randn(3, 6, 8), torch.ones(3, 6, dtype=torch.bool)
    torch.testing.assert_close(ours(x, present), theirs(x))
    present[1, 2] = present[1, 5] = False
    kept = x[1:2, [0, 1, 3, 4]]
    out = ours(x, present)
    torch.testing.assert_close(out[1:2, [0, 1, 3, 4]], theirs(kept))
    assert not out[1, [2, 5]].any()


def test_audio_is_read_to_its_own_end_whatever_the_text() -> None:
    """The reference package stops at as many frames as the text has tokens."""
    model = MISA(DIMS, TASK, hidden=8).eval()
    batch = random_batch(1)
    audio = Ragged(torch.randn(40, DIMS["audio"]), torch.tensor([40]))
    changed = Ragged(torch.cat([audio.values[:-1], audio.values[-1:] + 1]), audio.lengths)
    first, second = (model(Batch({**batch.inputs, "audio": x})).logits for x in (audio, changed))
    assert not torch.equal(first, second)


def test_as_many_parameters_as_the_reference_less_those_that_it_never_uses() -> None:
    """Those are the norm of a doubled text (2 * 2 * 768) and a four-way discriminator (128 * 4 + 4)."""
    model = create_model("misa", SIMS, TASK)
    assert sum(p.numel() for p in model.parameters()) == 21_665_519 - 3072 - 516


def test_scores_are_taught_by_squared_errors() -> None:
    model = MISA(DIMS, Task(low=-3, high=3), hidden=8)
    assert model.task_loss(torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, -1.0])).item() == 5.0


def test_a_loss_without_weight_is_not_computed() -> None:
    batch = random_batch(4)
    model = MISA(DIMS, TASK, hidden=8, w_diff=0.0, w_sim=0.0, w_recon=0.0)
    assert model.extra_losses(model(batch), batch) == {}


def test_one_modality_alone_has_nothing_to_be_similar_to() -> None:
    batch = random_batch(4)
    alone = Batch({"audio": batch.inputs["audio"]}, batch.labels)
    model = MISA(alone.dims, TASK, hidden=8)
    losses = model.extra_losses(model(alone), alone)
    assert losses["similarity"] == 0
    assert losses["reconstruction"] > 0


def test_a_width_that_two_heads_cannot_share_is_refused() -> None:
    with pytest.raises(InputError, match="hidden must be even, for MISA's 2 attention heads, got 7"):
        MISA(DIMS, TASK, hidden=7)
