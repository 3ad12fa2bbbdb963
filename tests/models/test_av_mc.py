"""Three passes over each batch, each modality asked for its own label, mixed targets where the input was mixed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from tests.models.conftest import DIMS, TASK, random_batch
from torch import Tensor
from torch.nn import functional as F

from moodal.batch import Batch, Ragged
from moodal.models import FusionModel, create_model
from moodal.models.av_mc import mixing_share
from moodal.types import InputError, Task

WEIGHTS = {"text": 0.2, "audio": 0.8, "vision": 0.4}
SCORES = Task(low=-1.0, high=1.0)


def labelled(count: int = 8) -> Batch:
    """Utterances whose modalities have labels of their own, some of them unknown."""
    g = torch.Generator().manual_seed(3)
    own = {m: torch.randint(-1, 3, (count,), generator=g) for m in ("audio", "vision")}
    return replace(random_batch(count), modality_labels=own)


def scored(count: int = 8) -> Batch:
    return replace(random_batch(count), labels=torch.linspace(-1, 1, count))


def fitted(batch: Batch, task: Task = TASK, **options: float) -> FusionModel:
    torch.manual_seed(0)
    model = create_model("av_mc", DIMS, task, **{"dropout": 0.0, "input_dropout": 0.0, **options})
    model.fit_standardisation(batch)
    return model


def total_loss(model: FusionModel, batch: Batch) -> Tensor:
    output = model.fuse(batch)
    assert batch.labels is not None
    losses = [model.task_loss(output.logits, batch.labels), *model.extra_losses(output, batch).values()]
    return torch.stack(losses).sum()


def own_label(batch: Batch, modality: str, i: int) -> int:
    """What people said of this modality; the utterance's label where nobody did."""
    assert batch.labels is not None
    said = int(batch.modality_labels[modality][i]) if modality in batch.modality_labels else -1
    return said if said >= 0 else int(batch.labels[i])


def passes(batch: Batch) -> Iterator[tuple[str | None, Batch, Tensor, float]]:
    """The batch as it is, then with audio, then with vision mixed; drawn as the model draws."""
    yield None, batch, torch.arange(len(batch)), 1.0
    for m in ("audio", "vision"):
        order = torch.randperm(len(batch))
        share = mixing_share(1.0)
        mean = batch.inputs[m].mean()
        mixed = torch.stack([share * mean[i] + (1 - share) * mean[order[i]] for i in range(len(batch))])
        yield m, replace(batch, inputs={**batch.inputs, m: Ragged.from_rows(mixed)}), order, share


def test_training_is_three_whole_passes_in_each_of_which_everything_is_asked() -> None:
    raw = labelled()
    model = fitted(raw).train()
    batch = model.prepare(raw)
    assert batch.labels is not None

    def error(logits: Tensor, label: int) -> Tensor:
        return F.cross_entropy(logits[None], torch.tensor([label]))

    torch.manual_seed(5)
    expected = torch.zeros(())
    for changed, inputs, order, share in passes(batch):
        output = model.fuse(inputs)
        for i, j in enumerate(order.tolist()):
            part = share * error(output.logits[i], int(batch.labels[i]))
            part = part + (1 - share) * error(output.logits[i], int(batch.labels[j]))
            for m, weight in WEIGHTS.items():
                kept = share if m == changed else 1.0
                logits = output.unimodal_logits[m][i]
                part = part + weight * kept * error(logits, own_label(batch, m, i))
                part = part + weight * (1 - kept) * error(logits, own_label(batch, m, j))
            expected = expected + part / len(batch)
    torch.manual_seed(5)
    torch.testing.assert_close(total_loss(model, batch), expected)


def test_of_scores_the_target_itself_is_mixed() -> None:
    raw = scored()
    model = fitted(raw, SCORES).train()
    batch = model.prepare(raw)
    assert batch.labels is not None
    torch.manual_seed(5)
    expected = torch.zeros(())
    for changed, inputs, order, share in passes(batch):
        output = model.fuse(inputs)
        mixed = share * batch.labels + (1 - share) * batch.labels[order]
        expected = expected + (output.logits[:, 0] - mixed).abs().mean()
        for m, weight in WEIGHTS.items():
            target = mixed if m == changed else batch.labels
            expected = expected + weight * (output.unimodal_logits[m][:, 0] - target).abs().mean()
    torch.manual_seed(5)
    torch.testing.assert_close(total_loss(model, batch), expected)


def test_only_utterances_that_have_a_modality_are_mixed_in_it() -> None:
    """The mixed pass of a batch is that of the utterances with audio; so nothing is mixed with nothing."""
    raw = labelled()
    model = fitted(raw).train()
    gone = torch.tensor([False, True, False, False, True, False, False, True])
    batch = model.prepare(raw.without("audio", gone))
    losses = []
    for b in (batch, batch.select(torch.nonzero(~gone)[:, 0])):
        torch.manual_seed(5)
        losses.append(model.extra_losses(model.fuse(b), b)["audio_mixed"])
    torch.testing.assert_close(*losses)
    nobody = batch.without("audio")
    assert "audio_mixed" not in model.extra_losses(model.fuse(nobody), nobody)


@pytest.mark.parametrize(("alpha", "training"), [(0.0, True), (1.0, False)])
def test_without_alpha_and_in_evaluation_nothing_is_mixed_and_nothing_drawn(alpha: float, training: bool) -> None:
    raw = labelled()
    model = fitted(raw, mixup_alpha=alpha).train(training)
    batch = model.prepare(raw)
    before = torch.get_rng_state()
    losses = model.extra_losses(model.fuse(batch), batch)
    assert set(losses) == set(DIMS)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_share_is_betas_and_the_seed_decides_it() -> None:
    torch.manual_seed(0)
    for alpha in (0.2, 1.0, 5.0):
        draws = torch.tensor([mixing_share(alpha) for _ in range(4000)])
        variance = 1 / (4 * (2 * alpha + 1))
        assert abs(draws.mean().item() - 0.5) < 5 * (variance / 4000) ** 0.5
        assert abs(draws.var().item() / variance - 1) < 0.1
    torch.manual_seed(1)
    first = mixing_share(1.0)
    torch.manual_seed(1)
    assert mixing_share(1.0) == first


def test_the_sizes_on_ch_sims_are_those_of_the_authors_code_without_batch_norm() -> None:
    model = create_model("av_mc", {"text": 768, "audio": 33, "vision": 709}, TASK)
    shapes = [(768, 64), (64, 32), (32, 32), (32, 3)]
    shapes += [(33, 16), (16, 16), (16, 16), (16, 32), (32, 32), (32, 3)]
    shapes += [(709, 16), (16, 16), (16, 16), (16, 64), (64, 64), (64, 3)]
    shapes += [(32 + 32 + 64, 16), (16, 16), (16, 3)]
    assert sum(p.numel() for p in model.parameters()) == sum((a + 1) * b for a, b in shapes)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"input_dropout": 1.0}, "input_dropout must be at least 0 and below 1"),
        ({"mixup_alpha": -1.0}, "mixup_alpha must be at least 0"),
        ({"text_features": 0}, "text_features must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(option: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_model("av_mc", DIMS, TASK, **option)
