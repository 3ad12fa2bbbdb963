"""Self-MM beside its paper: the labels it makes, against its formulas written step by step."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.models.conftest import DIMS, TASK, random_batch
from torch import Tensor

from moodal.batch import Batch
from moodal.config import TrainingSettings
from moodal.experiment import load_tensors
from moodal.models import create_model
from moodal.models.base import Output
from moodal.models.self_mm import SelfMM, class_distribution, generated_labels
from moodal.training.loop import fit_network, predict
from moodal.types import Task

SIMS = {"text": 768, "audio": 33, "vision": 709}
SCORES = Task(low=-1.0, high=1.0)


def distance(f: list[float], others: list[list[float]]) -> float:
    """To the centre of the others; not a number where there are none."""
    return math.dist(f, [sum(column) / len(others) for column in zip(*others, strict=True)]) if others else math.nan


class Slow:
    """The label generation of one class (or of the score), utterance by utterance, as the paper has it."""

    def __init__(self, true: list[float], present: dict[str, list[bool]], limit: float) -> None:
        self.true, self.present, self.limit = true, present, limit
        self.labels = {s: [y if present[s][i] else 0.0 for i, y in enumerate(true)] for s in present}
        self.features: dict[str, dict[int, list[float]]] = {s: {} for s in present}

    def relative_distance(self, s: str, f: list[float], labels: list[float]) -> float:
        known = [i for i in self.features[s] if self.present[s][i]]
        to_above = distance(f, [self.features[s][i] for i in known if labels[i] > 0])
        to_below = distance(f, [self.features[s][i] for i in known if labels[i] < 0])
        return (to_below - to_above) / (to_above + 1e-8)

    def step(self, rows: list[int], features: dict[str, list[list[float]]], epoch: int) -> None:
        """``epoch`` counts from 1."""
        before = copy.deepcopy(self.labels)
        for place, i in enumerate(rows):
            for s in self.present:
                if epoch == 1 or s == "fusion" or not self.present[s][i]:
                    continue
                own = self.relative_distance(s, features[s][place], before[s])
                fused = self.relative_distance("fusion", features["fusion"][place], before["fusion"])
                alpha = own / (fused + 1e-8)
                y = 0.5 * alpha * self.true[i] + 0.5 * (self.true[i] + own - fused)
                if math.isnan(y):
                    continue
                y = max(-self.limit, min(self.limit, y))
                self.labels[s][i] = ((epoch - 1) * before[s][i] + 2 * y) / (epoch + 1)  # after 1/3 and 2/3 exactly 0
        for s in self.present:
            for place, i in enumerate(rows):
                self.features[s][i] = features[s][place]


def batch_of(task: Task, times: int = 1) -> Batch:
    """Eight utterances, one without audio; or more."""
    count = 8 * times
    batch = random_batch(count).without("audio", torch.arange(count) == 5)
    scores = torch.tensor([-1.0, 0.4, 0.0, 0.8, -0.2, -0.6, 1.0, 0.2]).repeat(times)
    return replace(batch, labels=batch.labels if task.classes else scores, rows=torch.arange(count))


@pytest.mark.parametrize("task", [SCORES, TASK], ids=["scores", "classes"])
def test_labels_and_momentum_are_the_formula_over_four_epochs(task: Task) -> None:
    """Random features each step; for classes the formula of a score, class by class."""
    batch = batch_of(task, 5)
    model = SelfMM(DIMS, task)
    model.begin(model.prepare(batch))
    assert batch.labels is not None
    present = {"fusion": [True] * 40, **{m: p.tolist() for m, p in batch.present.items()}}
    columns = range(task.num_outputs)
    y = batch.labels.tolist()
    true = [[1.0 if k == c else -1.0 for k in y] for c in columns] if task.classes else [y]
    slow = [Slow(of_class, present, 1.0) for of_class in true]
    g = torch.Generator().manual_seed(0)
    for epoch in range(4):
        for rows in torch.split(torch.randperm(40, generator=g), 20):
            features = {s: torch.rand(20, width, generator=g) for s, width in model.widths.items()}
            model.after_step(Output(torch.zeros(20, len(columns)), features), batch.select(rows), epoch)
            for c in columns:
                slow[c].step(rows.tolist(), {s: f.tolist() for s, f in features.items()}, epoch + 1)
        for s in present:
            expected = torch.tensor([slow[c].labels[s] for c in columns]).t()
            torch.testing.assert_close(model.memory[f"labels/{s}"], expected, rtol=1e-3, atol=1e-3)
    assert all(torch.tensor(slow[0].labels[m]).unique().numel() > 20 for m in DIMS)
    assert not model.memory["labels/audio"][5].any()


def test_the_utterances_own_label_never_changes() -> None:
    batch = batch_of(SCORES)
    model = SelfMM(DIMS, SCORES)
    fit_network(model, batch, None, TrainingSettings(epochs=4, batch_size=4), seed=0)
    assert batch.labels is not None
    assert torch.equal(model.memory["labels/fusion"][:, 0], batch.labels)
    assert not torch.equal(model.memory["labels/text"][:, 0], batch.labels)


def test_labels_are_kept_within_the_interval_however_near_the_fusion_is_to_both_centres() -> None:
    own, fused = torch.tensor([[2.0], [2.0], [-2.0]]), torch.tensor([[1e-9], [-1e-4], [0.0]])
    true = torch.tensor([[0.6], [0.6], [0.6]])
    assert generated_labels(own, fused, true, 1.0).flatten().tolist() == [1.0, -1.0, -1.0]


def test_without_one_of_the_centres_labels_stay() -> None:
    batch = replace(batch_of(SCORES), labels=torch.full((8,), 0.5))
    model = SelfMM(DIMS, SCORES)
    fit_network(model, batch, None, TrainingSettings(epochs=3, batch_size=4), seed=0)
    assert (model.memory["labels/text"] == 0.5).all()


def test_an_interval_around_another_middle_is_moved() -> None:
    """Scores on [1, 5] make the labels that the same scores less 3 make on [-2, 2]."""
    batch, made = batch_of(SCORES), []
    assert batch.labels is not None
    for task, labels in ((Task(low=-2, high=2), 2 * batch.labels), (Task(low=1, high=5), 2 * batch.labels + 3)):
        torch.manual_seed(0)
        model = SelfMM(DIMS, task)
        moved = replace(batch, labels=labels)
        model.begin(moved)
        output = model(moved)
        for epoch in range(2):
            model.after_step(output, moved, epoch)
        with torch.no_grad():
            for head in (model.fusion, *model.heads.values()):
                head.classes[2].bias += (task.low + task.high) / 2
        losses = model.extra_losses(model(moved), moved)
        made.append([model.memory["labels/vision"], *losses.values()])
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("task", [SCORES, TASK], ids=["scores", "classes"])
def test_a_modalitys_loss_is_weighted_by_how_far_its_label_is_from_the_utterances(task: Task) -> None:
    batch = batch_of(task)
    torch.manual_seed(0)
    model = SelfMM(DIMS, task).eval()
    model.begin(batch)
    output = model(batch)
    for epoch in range(2):
        losses = model.extra_losses(output, batch)
        assert set(losses) == set(DIMS)
        assert epoch or all(v == 0 for v in losses.values())  # nothing is generated in the first epoch
        model.after_step(output, batch, epoch)
    losses = model.extra_losses(output, batch)
    for m in DIMS:
        total = 0.0
        there = [i for i in range(8) if batch.present[m][i]]
        for i in there:
            y, true = model.memory[f"labels/{m}"][i].tolist(), model.memory["labels/fusion"][i].tolist()
            weight = sum(math.tanh(abs(a - b)) for a, b in zip(y, true, strict=True)) / len(y)
            logits = output.unimodal_logits[m][i].detach().double()
            if task.classes:
                shares = [(1 + a) / sum(1 + b for b in y) for a in y]
                total += weight * -sum(p * float(logits.log_softmax(0)[c]) for c, p in enumerate(shares))
            else:
                total += weight * abs(float(logits[0]) - y[0])
        assert losses[m].item() == pytest.approx(total / len(there), rel=1e-4)
        assert losses[m] > 0


def test_scores_become_a_distribution_and_the_true_class_where_all_are_rejected() -> None:
    labels = torch.tensor([[1.0, -1.0, -1.0], [0.0, 0.0, -1.0], [-1.0, -1.0, -1.0]])
    true = torch.tensor([[1.0, -1.0, -1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0]])
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(class_distribution(labels, true), expected)


def test_outside_training_there_are_no_losses_of_modalities() -> None:
    model = SelfMM(DIMS, TASK)
    batch = random_batch(4)
    assert model.extra_losses(model(batch), batch) == {}


@pytest.mark.parametrize("task", [SCORES, TASK], ids=["scores", "classes"])
def test_a_killed_training_continues_to_the_same_bits(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before, while and after labels are made, and taken up by a new model: same weights, labels, history."""
    monkeypatch.setattr("moodal.training.loop.CHECKPOINT_EVERY_S", -1.0)
    settings = TrainingSettings(epochs=5, batch_size=4, ema=0.5)

    def new() -> SelfMM:
        torch.manual_seed(0)
        return SelfMM(DIMS, task)

    whole = new()
    expected = fit_network(whole, batch_of(task), batch_of(task), settings, seed=3)
    for stop in (1, 2, 4):
        file = tmp_path / f"{stop}.safetensors"

        class Killed(Exception):  # noqa: N818
            pass

        def progress(epoch: int, epochs: int, score: float, *, stop: int = stop) -> None:
            if epoch == stop + 1:
                raise Killed

        with pytest.raises(Killed):
            fit_network(new(), batch_of(task), batch_of(task), settings, 3, checkpoint=file, progress=progress)
        assert load_tensors(file)[1]["epoch"] == stop
        again = new()
        found = fit_network(again, batch_of(task), batch_of(task), settings, 3, checkpoint=file)
        assert found.history == expected.history
        for kept, other in ((again.state_dict(), whole.state_dict()), (again.memory, whole.memory)):
            assert kept.keys() == other.keys()
            assert all(torch.equal(kept[k], other[k]) for k in kept)


def test_memory_is_not_in_the_saved_model() -> None:
    batch = batch_of(TASK)
    model = SelfMM(DIMS, TASK)
    before = set(model.state_dict())
    fit_network(model, batch, None, TrainingSettings(epochs=1, batch_size=4), seed=0)
    assert set(model.state_dict()) == before
    assert predict(model, batch).unimodal_logits.keys() == DIMS.keys()


def test_the_heads_of_modalities_learn_from_the_second_epoch_on() -> None:
    batch = batch_of(TASK)
    torch.manual_seed(0)
    model = SelfMM(DIMS, TASK)
    model.begin(batch)
    output = model(batch)
    for epoch in range(2):
        model.after_step(output, batch, epoch)
    torch.stack(list(model.extra_losses(output, batch).values())).sum().backward()  # type: ignore[no-untyped-call]
    grads: list[Tensor | None] = [p.grad for p in model.heads.parameters()]
    assert all(g is not None and g.any() for g in grads)


def test_audio_and_vision_have_learning_rates_of_their_own() -> None:
    model = SelfMM(DIMS, TASK, vision_lr_factor=2.0)
    groups = model.param_groups(0.1, 0.01)
    assert [g["lr"] for g in groups] == pytest.approx([0.1, 0.5, 0.2])
    of = {id(p): g["lr"] for g in groups for p in g["params"]}  # type: ignore[attr-defined]
    for name, p in model.named_parameters():
        rate = 0.5 if name.startswith("encoders.audio") else 0.2 if name.startswith("encoders.vision") else 0.1
        assert of[id(p)] == pytest.approx(rate)


def test_as_many_parameters_as_the_reference() -> None:
    for task, count in ((SCORES, 381_380), (TASK, 381_380 + 2 * (128 + 64 + 16 + 32 + 4))):
        assert sum(p.numel() for p in create_model("self_mm", SIMS, task).parameters()) == count
