"""What every model of the zoo keeps, whatever its architecture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models.conftest import DIMS, TASK, ZOO, random_batch

from moodal.batch import Batch, Ragged
from moodal.config import TrainingSettings
from moodal.models import MODELS, FusionModel, chosen_models, create_model, options_of, suitable_models
from moodal.training.loop import fit_network, predict
from moodal.types import InputError, Task

MakeBatch = Callable[..., Batch]
SMALLER = {"tfn": {"text_hidden": 16, "audio_hidden": 8, "vision_hidden": 8, "text_out": 8}}  # of 35 million weights


def test_one_row_per_utterance_even_for_a_batch_of_one(model: FusionModel, make_batch: MakeBatch) -> None:
    for count in (1, 5):
        out = model(make_batch(count))
        assert out.logits.shape == (count, 3)
        assert torch.isfinite(out.logits).all()


def test_padding_of_any_length_and_content_changes_nothing(model: FusionModel, make_batch: MakeBatch) -> None:
    batch = make_batch(4)
    padded = {}
    for m, x in batch.inputs.items():
        garbage = torch.cat([x.padded(fill=7.0), torch.full((4, 20, x.dim), 1e6)], dim=1)
        padded[m] = Ragged.from_padded(garbage, x.lengths)
    assert torch.equal(model(replace(batch, inputs=padded)).logits, model(batch).logits)


def test_utterances_do_not_see_each_other(model: FusionModel, make_batch: MakeBatch) -> None:
    batch = make_batch(6)
    alone = torch.cat([model(batch.select(torch.tensor([i]))).logits for i in range(6)])
    torch.testing.assert_close(model(batch).logits, alone)


@pytest.mark.parametrize("missing", [c for n in (1, 2) for c in combinations(DIMS, n)], ids="+".join)
def test_a_missing_modality_is_not_read(model: FusionModel, make_batch: MakeBatch, missing: tuple[str, ...]) -> None:
    """Two batches that differ only in what is then taken away give the same output, with no NaN and relevance 0."""
    first, second = make_batch(5), make_batch(5, seed=9)
    mixed = replace(first, inputs={m: (second if m in missing else first).inputs[m] for m in DIMS})
    for m in missing:
        first, mixed = first.without(m), mixed.without(m)
    out = model(first)
    assert torch.isfinite(out.logits).all()
    assert torch.equal(out.logits, model(mixed).logits)
    if out.relevance is not None:
        gone = [model.modalities.index(m) for m in missing]
        assert (out.relevance[:, gone] == 0).all()


def test_an_utterance_with_nothing_at_all_still_gets_finite_logits(model: FusionModel, make_batch: MakeBatch) -> None:
    batch = make_batch(3)
    for m in DIMS:
        batch = batch.without(m, torch.tensor([False, True, False]))
    assert torch.isfinite(model(batch).logits).all()


def test_a_data_set_without_one_modality_is_fine(name: str, make_batch: MakeBatch) -> None:
    dropped = "vision" if MODELS[name].fixed.get("modality") != "vision" else "text"
    batch = make_batch(12, signal=1.0)
    batch = replace(batch, inputs={m: x for m, x in batch.inputs.items() if m != dropped})
    model = create_model(name, batch.dims, TASK)
    model.fit_standardisation(batch)
    if model.closed_form:
        model.fit(batch, seed=0)
    assert model.eval()(batch).logits.shape == (12, 3)


def test_every_parameter_is_trained_exactly_once(name: str, make_batch: MakeBatch) -> None:
    model = create_model(name, DIMS, TASK)
    grouped = [id(p) for group in model.param_groups(0.1, 0.0) for p in group["params"]]  # type: ignore[union-attr]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    if model.closed_form:
        return
    batch = make_batch(12)
    model.fit_standardisation(batch)
    output = model.train()(batch)
    assert batch.labels is not None
    losses = [model.task_loss(output.logits, batch.labels), *model.extra_losses(output, batch).values()]
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    without = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    # M2 is there to be asked by L_rs; without that loss nobody asks it
    unasked = {n for n in without if n.startswith("m2.") and name in ("mre_baseline", "mre_cnce")}
    # a softmax over modalities does not feel what is added to all of M1's scores: no gradient but by rounding
    unasked |= {"m1.3.bias"} if name.startswith("mre") else set()
    # Self-MM's modalities learn labels that only its second epoch makes
    unasked |= {n for n in without if n.startswith("heads.") and name == "self_mm"}
    assert not without - unasked


def test_it_learns_a_label_planted_in_the_features(name: str) -> None:
    train, test = random_batch(90, seed=1, signal=4.0), random_batch(60, seed=2, signal=4.0)
    torch.manual_seed(0)
    model = create_model(name, DIMS, TASK, **SMALLER.get(name, {}))
    model.fit_standardisation(train)
    if model.closed_form:
        model.fit(train, seed=0)
    else:
        fit_network(model, train, None, TrainingSettings(epochs=20, lr=5e-3, batch_size=16), seed=0)
    assert test.labels is not None
    assert (predict(model, test).logits.argmax(1) == test.labels).float().mean() > 0.9


def without_everywhere(batch: Batch) -> Batch:
    return batch.without("audio")


def without_all_of_one_utterance(batch: Batch) -> Batch:
    for m in batch.inputs:
        batch = batch.without(m, torch.arange(len(batch)) == 2)
    return batch


def with_one_modality(batch: Batch) -> Batch:
    return replace(batch, inputs={"audio": batch.inputs["audio"]})


@pytest.mark.parametrize("taken", [without_everywhere, without_all_of_one_utterance, with_one_modality])
@pytest.mark.parametrize("size", [1, 4])
def test_it_trains_on_what_is_there_and_twice_to_the_same_bits(
    name: str, make_batch: MakeBatch, taken: Callable[[Batch], Batch], size: int
) -> None:
    """Also in batches of one, and with a first batch that lacks what a later one has."""
    batch = taken(make_batch(6))
    if MODELS[name].cls.closed_form or not {MODELS[name].fixed.get("modality", "audio")} <= batch.inputs.keys():
        pytest.skip("is not trained on this")
    said = []
    for _ in range(2):
        torch.manual_seed(0)
        model = create_model(name, batch.dims, TASK, **SMALLER.get(name, {}))
        model.fit_standardisation(batch)
        history = fit_network(model, batch, batch, TrainingSettings(epochs=2, batch_size=size), seed=0).history
        said.append((history, predict(model, batch).logits))
    assert said[0][0] == said[1][0]
    assert torch.equal(said[0][1], said[1][1])
    assert torch.isfinite(said[0][1]).all()


def test_forward_is_pure(model: FusionModel, make_batch: MakeBatch) -> None:
    batch = make_batch(4)
    before = {m: x.values.clone() for m, x in batch.inputs.items()}
    attributes = set(vars(model))
    first, second = model(batch), model(batch)
    assert torch.equal(first.logits, second.logits)
    assert set(vars(model)) == attributes
    assert all(torch.equal(before[m], x.values) for m, x in batch.inputs.items())


def test_a_reloaded_model_is_the_same_model(
    name: str, model: FusionModel, make_batch: MakeBatch, tmp_path: Path
) -> None:
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "m.safetensors")
    again = create_model(name, DIMS, TASK)
    again.load_state_dict(load_file(tmp_path / "m.safetensors"), strict=True)
    batch = make_batch(4)
    assert torch.equal(again.eval()(batch).logits, model(batch).logits)


def test_scores_are_predicted_with_one_column(name: str, make_batch: MakeBatch) -> None:
    task = Task(low=-3.0, high=3.0)
    if MODELS[name].cls.closed_form:
        with pytest.raises(InputError, match="needs classes"):
            create_model(name, DIMS, task)
        return
    batch = replace(make_batch(8), labels=torch.linspace(-3, 3, 8))
    model = create_model(name, DIMS, task)
    model.fit_standardisation(batch)
    fit_network(model, batch, None, TrainingSettings(epochs=2), seed=0)
    assert predict(model, batch).logits.shape == (8, 1)


def test_any_pooling_can_be_chosen_and_raw_features_go_in(name: str, make_batch: MakeBatch) -> None:
    batch = make_batch(30, signal=1.0)
    for pooling in ("none", "mean", "mean_std"):
        chosen = {f"{m}_pooling": pooling for m in DIMS}
        if MODELS[name].cls.closed_form and pooling == "none":
            with pytest.raises(InputError, match="one vector per modality"):
                create_model(name, DIMS, TASK, **chosen)
            continue
        model = create_model(name, DIMS, TASK, **chosen)
        model.fit_standardisation(batch)
        if model.closed_form:
            model.fit(batch, seed=0)
        assert torch.isfinite(model.eval()(batch).logits).all()


def test_prepare_and_fuse_are_forward(model: FusionModel, make_batch: MakeBatch) -> None:
    batch = make_batch(4)
    assert torch.equal(model.fuse(model.prepare(batch)).logits, model(batch).logits)


def test_options_are_listed_with_their_defaults_and_unknown_ones_are_refused(name: str) -> None:
    known = options_of(name)
    create_model(name, DIMS, TASK, **known)
    with pytest.raises(InputError, match="did you mean 'audio_pooling'"):
        create_model(name, DIMS, TASK, audio_poolin="mean")


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(InputError, match="no model called 'mer'; did you mean 'mre'"):
        create_model("mer", DIMS, TASK)


@pytest.mark.parametrize(
    ("option", "message"),
    [({"standardise": "no"}, "scale, whiten, whiten_within"), ({"audio_pooling": "max"}, "pooling of audio")],
)
def test_wrong_option_values_are_refused(name: str, option: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_model(name, DIMS, TASK, **option)


def test_without_names_the_slow_ones_wait_until_asked() -> None:
    by_default = chosen_models(None, DIMS, TASK)
    assert {"mre", "mre_baseline", "lmf", "lf_dnn", "lda_stacking", "text_only"} < set(by_default)
    assert not {"mult", "misa", "tfn"} & set(by_default)
    assert chosen_models(["all"], DIMS, TASK) == ZOO
    assert chosen_models(["mult"], DIMS, TASK) == ["mult"]


def test_suitable_models_are_those_that_can_be_made() -> None:
    assert suitable_models(DIMS, TASK) == ZOO
    scores = suitable_models({"audio": 4, "vision": 3}, Task(low=-1, high=1))
    assert "mre" in scores
    assert not {"text_only", "lda", "lda_product", "lda_stacking"} & set(scores)
    for name in scores:
        create_model(name, {"audio": 4, "vision": 3}, Task(low=-1, high=1))
