"""What one run must be: the same bits from the same seed, nothing learned from test, everything in its folder."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from moodal.data.store import read_dataset
from moodal.experiment import load_model
from moodal.models import MODELS, create_model
from moodal.training.loop import fit_network, random_seed
from moodal.training.runs import split_rows, train_run
from moodal.types import SPLITS, InputError, Task, WorkError

RESULT = ("model.safetensors", "config.json", "predictions.parquet", "history.json", "report.json")


def names_in(folder):
    return sorted(p.name for p in folder.iterdir())


def bits(run, names=RESULT):
    return {name: (run.path / name).read_bytes() for name in names}


def weights(run):
    return load_file(run.path / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("model", ["mre", "lda_stacking"])
def test_the_same_seed_gives_the_same_bits(model, train, toy):
    assert bits(train(toy, model, out="a")) == bits(train(toy, model, out="b"))


def test_another_seed_gives_other_weights(train, toy):
    first, second = train(toy), train(toy, seed=1)
    assert first.path != second.path
    assert not same(weights(first), weights(second))


def test_a_run_leaves_its_results_and_nothing_else(train, toy):
    run = train(toy, ema=0.9, refit=True)
    assert names_in(run.path) == sorted([*RESULT, "experiment.json", "timing.json"])
    assert run.report()["utterances"] == {"train": 54, "valid": 18, "test": 18}
    assert run.report()["experiment"] == run.experiment.hash
    assert len(json.loads((run.path / "history.json").read_text())) == run.report()["epochs"] == 4


# Nothing is learned from test, and no statistics from valid


def test_labels_of_test_change_no_weight(train, write, toy, utterances):
    labels = iter([u.label for u in utterances if u.split == "test"][::-1])
    permuted = write([replace(u, label=next(labels)) if u.split == "test" else u for u in utterances])
    for model, settings in (("mre", {"epochs": 20, "patience": 3, "refit": True}), ("lda_stacking", {})):
        before, after = train(toy, model, out="a", **settings), train(permuted, model, out="b", **settings)
        assert same(weights(before), weights(after))
        assert before.report()["best_epoch"] == after.report()["best_epoch"]
        assert before.report()["scores"]["valid"] == after.report()["scores"]["valid"]
        assert before.report()["scores"]["test"] != after.report()["scores"]["test"]


def test_features_of_test_change_no_weight(train, write, toy, utterances, clips):
    changed = {
        m: [100 * x if u.split == "test" and x is not None else x for u, x in zip(utterances, rows, strict=True)]
        for m, rows in clips.items()
    }
    assert same(weights(train(toy, out="a")), weights(train(write(utterances, changed), out="b")))


@pytest.mark.parametrize("standardise", ["scale", "whiten"])
def test_standardisation_is_of_train_alone(train, write, toy, utterances, clips, standardise):
    options = {"standardise": standardise, "text_pooling": "mean", "audio_pooling": "mean"}
    changed = {
        m: [5 + 3 * x if u.split != "train" and x is not None else x for u, x in zip(utterances, rows, strict=True)]
        for m, rows in clips.items()
    }
    before = weights(train(toy, out="a", **options))
    after = weights(train(write(utterances, changed), out="b", **options))
    buffers = [k for k in before if k.startswith(("mean_", "scale_"))]
    assert len(buffers) == 6
    assert all(torch.equal(before[k], after[k]) for k in buffers)
    data = read_dataset(toy)
    audio = data.batch.select(data.index(split="train")).inputs["audio"]
    torch.testing.assert_close(before["mean_audio"], audio.mean()[audio.lengths > 0].mean(0))


# Refit, folds, splits


def test_refit_is_training_on_train_and_valid_for_the_chosen_epochs(train, toy):
    run = train(toy, epochs=12, patience=2, refit=True, lr=0.02)
    chosen = run.report()["best_epoch"]
    assert 1 <= chosen < 12
    data = read_dataset(toy)
    both = data.batch.select(torch.cat([data.index(split="train"), data.index(split="valid")]))
    torch.manual_seed(random_seed(0, "weights"))
    model = create_model("mre", data.batch.dims, data.task, **run.experiment.options)
    model.fit_standardisation(both)
    fit_network(model, both, None, replace(run.experiment.training, epochs=chosen), 0, phase="refit")
    assert same(weights(run), model.state_dict())
    plain = train(toy, epochs=12, patience=2, lr=0.02, out="plain")
    assert plain.report()["best_epoch"] == chosen
    assert plain.report()["scores"]["valid"] == run.report()["scores"]["valid"]  # before the refit, or it would be seen


def test_every_utterance_is_tested_once_per_seed(train, folded, toy):
    data = read_dataset(folded)
    tested = Counter()
    for fold in range(data.num_folds):
        run = train(folded, "lda", fold=fold)
        assert run.path.name == f"fold-{fold}"
        table = pq.read_table(run.predictions_file).to_pydict()
        at = {s: {i for i, split in zip(table["id"], table["split"], strict=True) if split == s} for s in SPLITS[1:]}
        assert at["test"] == {u.id for u in data.utterances if u.fold == fold}
        assert at["valid"] == {u.id for u in data.utterances if u.fold == (fold + 1) % 5}
        tested.update(at["test"])
    assert tested == Counter(u.id for u in data.utterances)


def test_no_group_is_in_two_parts_of_a_fold(folded):
    data = read_dataset(folded)
    for fold in range(data.num_folds):
        rows = split_rows(data, fold)
        groups = [{data.utterances[i].group for i in index.tolist()} for index in rows.values()]
        assert sum(map(len, groups)) == len(set.union(*groups)) == 30
        assert sum(map(len, rows.values())) == len(data.utterances)


def test_utterances_without_label_or_split_are_left_out(write, utterances):
    some = [replace(u, label=None) if i % 9 == 0 else u for i, u in enumerate(utterances)]
    some = [replace(u, split=None) if i % 9 == 1 else u for i, u in enumerate(some)]
    rows = split_rows(read_dataset(write(some)), None)
    used = torch.cat(list(rows.values())).tolist()
    assert sorted(used) == [i for i in range(len(some)) if i % 9 > 1]


@pytest.mark.parametrize(
    ("change", "fold", "message"),
    [
        (lambda u: replace(u, split="train"), None, "no labelled utterances in valid; import it with --split-by"),
        (
            lambda u: replace(u, label="calm" if u.split == "test" else u.label),
            None,
            "class 'angry' has no example in test",
        ),
        (lambda u: replace(u, split=None, fold=int(u.id[1:]) // 3 % 2), 0, "has 2 folds; train, valid and test need"),
        (
            lambda u: replace(u, split=None, fold=int(u.id[1:]) % 3),
            0,
            "class 'calm' has no example in train",
        ),
    ],
)
def test_splits_that_cannot_be_trained_on_are_refused(write, utterances, change, fold, message):
    data = read_dataset(write([change(u) for u in utterances]))
    with pytest.raises(InputError, match=message):
        split_rows(data, fold)


# What is written is what was said


@pytest.mark.parametrize("model", sorted(n for n, e in MODELS.items() if not e.cls.reads_columns))
def test_a_loaded_model_says_what_was_written(model, train, toy):
    run = train(toy, model, epochs=2)
    data = read_dataset(toy)
    loaded = load_model(run.path)
    table = pq.read_table(run.predictions_file).to_pandas()
    for split in ("valid", "test"):
        rows = table[table["split"] == split]
        index = data.index(split=split)
        assert rows["id"].tolist() == [data.utterances[i].id for i in index.tolist()]
        assert rows["label"].tolist() == [data.utterances[i].label for i in index.tolist()]
        with torch.inference_mode():
            output = loaded(data.batch.select(index))
        assert np.array_equal(rows[[f"logit_{c}" for c in data.task.classes]].to_numpy(), output.logits.numpy())
        assert rows["predicted"].tolist() == [data.task.classes[i] for i in output.logits.argmax(1).tolist()]
        if output.relevance is not None:
            written = rows[[f"relevance_{m}" for m in loaded.modalities]].to_numpy()
            assert np.array_equal(written, output.relevance.numpy())
        for m, logits in output.unimodal_logits.items():
            assert np.array_equal(rows[[f"unimodal_{m}_{c}" for c in data.task.classes]].to_numpy(), logits.numpy())


def test_scores_are_trained_and_written_too(train, toy):
    run = train(toy, task="regression", epochs=30, lr=0.02)
    table = pq.read_table(run.predictions_file).to_pandas()
    data = read_dataset(toy, task="regression")
    assert table["label"].tolist() == [u.score for s in SPLITS[1:] for u in data.utterances if u.split == s]
    test = table[table["split"] == "test"]
    mae = (test["label"].astype("float32") - test["logit_score"]).abs().mean()
    assert run.report()["scores"]["test"]["mae"] == pytest.approx(mae, abs=1e-6)
    assert mae < test["label"].abs().mean()  # better than always saying 0


def test_a_planted_label_is_learned(train, toy):
    assert train(toy, "mre", epochs=40, lr=0.01).report()["scores"]["test"]["accuracy"] > 0.6


# Work that fails


def test_a_loss_that_is_not_finite_leaves_no_report(train, plan, toy, tmp_path):
    with pytest.raises(WorkError, match=r"runs/mre/seed-0: the loss is not finite in epoch \d, batch \d+ of 4 \("):
        train(toy, lr=1e38, clip_norm=1e38)
    left = set(names_in(tmp_path / "runs/mre/seed-0"))
    assert not left & set(RESULT)


def test_a_prediction_that_is_not_finite_leaves_no_report(train, write, utterances, clips, tmp_path):
    name = next(i for i, u in enumerate(utterances) if u.split == "test")
    clips["text"][name] = np.full((1, 5), 3e38, np.float32) * [1, -1, 1, -1, 1]
    with pytest.raises(WorkError, match=rf"the prediction for {utterances[name].id} \(test\) is not finite"):
        train(write(utterances, clips), "lda")
    assert not (tmp_path / "runs/lda/seed-0/report.json").exists()


def test_a_data_set_that_changed_in_between_is_refused(plan, write, tmp_path, toy):
    from moodal.experiment import Run

    other = Run.of(tmp_path / "runs", plan(toy))
    changed = write(task=Task(("sad", "calm", "angry")))
    with pytest.raises(InputError, match="has changed since the experiment was made"):
        train_run(changed, other)
    assert not other.path.exists()
