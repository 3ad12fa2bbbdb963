"""The loop's parts against slow versions of themselves."""

import copy
import itertools

import pytest
import torch
from torch import nn

from moodal.batch import Batch, Ragged
from moodal.config import TrainingSettings
from moodal.experiment import load_tensors
from moodal.models.base import FusionModel, Output
from moodal.training.loop import batches, fit_network, predict, random_seed
from moodal.types import Task, WorkError

TASK = Task(("no", "yes"))


class Linear(FusionModel):
    """The smallest model: the mean of the words, one linear layer, no chance in it; remembers its weights."""

    def __init__(self, task=TASK):
        super().__init__({"text": 3}, task)
        self.head = nn.Linear(3, task.num_outputs)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    seen: list = []  # noqa: RUF012 (shared by the copies that an average needs)

    def fuse(self, batch):
        return Output(self.head(batch.inputs["text"].mean()))

    def after_step(self, output, batch, epoch):
        self.steps += 1
        self.seen.append({k: v.clone() for k, v in self.head.state_dict().items()})


@pytest.fixture
def model():
    torch.manual_seed(0)
    Linear.seen.clear()
    return Linear()


def make_batch(num, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(num) % 2
    return Batch({"text": Ragged.from_rows(torch.randn(num, 3, generator=generator) + y[:, None])}, y)


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(8, 4, [4, 4]), (9, 4, [4, 5]), (10, 4, [4, 4, 2]), (1, 4, [1]), (5, 1, [1, 1, 1, 2]), (3, 8, [3])],
)
def test_every_utterance_once_and_no_last_batch_of_one(count, size, sizes):
    cuts = batches(count, size)
    assert [len(c) for c in cuts] == sizes
    assert sorted(torch.cat(cuts).tolist()) == list(range(count))


def test_the_average_is_the_slow_formula(model):
    start = {k: v.clone() for k, v in model.head.state_dict().items()}
    settings = TrainingSettings(epochs=3, batch_size=4, ema=0.7, lr=0.1)
    fit_network(model, make_batch(13), None, settings, seed=0)
    slow = start
    for step, weights in enumerate(Linear.seen, start=1):
        decay = min(0.7, (step - 1) / step)
        slow = {k: decay * slow[k] + (1 - decay) * weights[k] for k in slow}
    assert len(Linear.seen) == 9  # 4 + 4 + 5 utterances
    torch.testing.assert_close(dict(model.head.state_dict()), slow)
    assert model.steps == 9  # a count is copied, not averaged


def test_without_an_average_the_last_weights_stay(model):
    fit_network(model, make_batch(13), None, TrainingSettings(epochs=2, batch_size=4), seed=0)
    torch.testing.assert_close(dict(model.head.state_dict()), Linear.seen[-1])


def test_with_valid_the_best_epoch_stays(model):
    """Valid is labelled the wrong way round, so the first epoch is the best and patience ends the rest."""
    valid = make_batch(40, seed=1)
    wrong = Batch(valid.inputs, 1 - valid.labels)
    fitted = fit_network(model, make_batch(64), wrong, TrainingSettings(patience=3, lr=0.05), seed=0)
    assert fitted.best_epoch == 1
    assert [row["epoch"] for row in fitted.history] == [1, 2, 3, 4]
    torch.testing.assert_close(dict(model.head.state_dict()), Linear.seen[0])


def test_the_order_depends_on_the_seed_and_the_epoch(model):
    fit_network(model, make_batch(32), None, TrainingSettings(epochs=2, batch_size=8), seed=0)
    first = list(Linear.seen)
    for seed, same in ((0, True), (1, False)):
        torch.manual_seed(0)
        Linear.seen.clear()
        fit_network(Linear(), make_batch(32), None, TrainingSettings(epochs=2, batch_size=8), seed=seed)
        assert all(torch.equal(a["weight"], b["weight"]) for a, b in zip(first, Linear.seen, strict=True)) == same
    assert len({random_seed(s, p, e) for s, p, e in itertools.product(range(3), ("select", "refit"), range(3))}) == 18


def test_a_loss_that_is_not_finite_names_epoch_and_batch(model):
    batch = make_batch(12)
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    with pytest.raises(WorkError, match=r"runs/x: the loss is not finite in epoch 1, batch 1 of 3 \(task nan\)"):
        fit_network(model, batch, None, TrainingSettings(batch_size=4), seed=0, where="runs/x")


def test_valid_that_cannot_be_scored_stops_the_run(model):
    valid = make_batch(4)
    broken = Batch({"text": Ragged.from_rows(torch.full((4, 3), float("inf")))}, valid.labels)
    with pytest.raises(WorkError, match="nll on valid is not finite after epoch 1"):
        fit_network(model, make_batch(12), broken, TrainingSettings(), seed=0)


def test_a_checkpoint_holds_everything(model, tmp_path, monkeypatch):
    """Stopped after any epoch and taken up by a new model, training ends in the same weights and history."""
    monkeypatch.setattr("moodal.training.loop.CHECKPOINT_EVERY_S", -1.0)
    settings = TrainingSettings(epochs=5, batch_size=8, ema=0.5)
    train, valid = make_batch(30), make_batch(10, seed=1)
    whole = copy.deepcopy(model)
    expected = fit_network(whole, train, valid, settings, seed=3)
    for stop in (1, 3, 5):
        file = tmp_path / f"{stop}.safetensors"

        class Killed(Exception):  # noqa: N818
            pass

        def progress(epoch, epochs, score, *, stop=stop):
            if epoch == stop + 1:
                raise Killed

        first = copy.deepcopy(model)
        try:
            fit_network(first, train, valid, settings, seed=3, checkpoint=file, progress=progress)
        except Killed:
            assert load_tensors(file)[1]["epoch"] == stop
        torch.manual_seed(stop)
        again = Linear()
        found = fit_network(again, train, valid, settings, seed=3, checkpoint=file)
        assert found.history == expected.history
        assert found.best_epoch == expected.best_epoch
        assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), whole.state_dict().values()))  # noqa: B905


def test_prediction_in_slices_is_prediction_at_once(model, monkeypatch):
    batch = make_batch(11)
    whole = predict(model, batch).logits
    monkeypatch.setattr("moodal.training.loop.EVALUATION_BATCH", 4)
    torch.testing.assert_close(predict(model, batch).logits, whole)
    assert not model.training


def test_label_smoothing_is_that_of_training_and_not_of_valid(model):
    train = make_batch(8)
    before = model(train).logits.detach()
    fitted = fit_network(model, train, train, TrainingSettings(epochs=1, label_smoothing=0.2, lr=1e-9), 0)
    smoothed = nn.functional.cross_entropy(before, train.labels, label_smoothing=0.2).item()
    plain = nn.functional.cross_entropy(before, train.labels).item()
    assert fitted.history[0]["task"] == pytest.approx(smoothed, abs=1e-5)
    assert fitted.history[0]["valid"] == pytest.approx(-plain, abs=1e-5)
    assert abs(smoothed - plain) > 1e-3
