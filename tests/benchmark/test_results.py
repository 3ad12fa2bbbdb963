import shutil

import numpy as np
import pytest

from moodal import metrics
from moodal.benchmark.results import read_results
from moodal.data.simulate import simulate_sdme
from moodal.data.store import read_dataset
from moodal.experiment import Experiment
from moodal.files import write_json
from moodal.training.runs import train_all
from moodal.types import InputError, Task


def test_seeds_are_stacked_in_the_order_of_ids_whatever_the_order_of_the_rows(runs):
    folder = runs()
    said = folder.add("mre", seeds=(4, 1, 10))

    results = read_results(folder.root)

    (model,) = results.models
    assert model.seeds == (1, 4, 10)
    np.testing.assert_allclose(model.outputs, said[[1, 0, 2]])
    assert results.ids == tuple(folder.ids)
    np.testing.assert_array_equal(results.y, folder.y)
    assert results.groups.tolist() == folder.groups
    assert results.scores(model)[1] == metrics.scores(said[0], folder.y, folder.task)


def test_folds_are_pooled_so_that_every_utterance_is_predicted_once_per_seed(runs):
    folder = runs(folds=4)
    said = folder.add("lda", seeds=(0, 1))

    results = read_results(folder.root)

    assert results.folds == 4
    np.testing.assert_allclose(results.models[0].outputs, said)
    assert results.ids == tuple(folder.ids)


def test_candidates_come_first_and_names_choose_and_order(runs):
    folder = runs()
    for name in ("lda", "mre", "text_only"):
        folder.add(name)

    assert [m.name for m in read_results(folder.root).models] == ["mre", "text_only", "lda"]
    assert [m.name for m in read_results(folder.root, ["lda", "mre"]).models] == ["lda", "mre"]
    assert [m.is_control for m in read_results(folder.root).models] == [False, True, True]


def test_a_variant_is_called_by_its_settings(runs):
    """The folder's name holds "=", which some readers of Parquet take for a column."""
    folder = runs()
    folder.add("mre@rank=8", options={"rank": 8})

    (model,) = read_results(folder.root).models

    assert (model.model, model.title, model.options["rank"]) == ("mre", "MRE (rank=8)", 8)


def test_relevance_and_unimodal_logits_are_read_where_the_model_has_them(runs):
    folder = runs()
    folder.add("mre", relevance=True)
    folder.add("lda")

    mre, lda = read_results(folder.root).models

    assert mre.modalities == ("text", "audio", "vision")
    assert mre.relevance.shape == (3, 60, 3)
    np.testing.assert_allclose(mre.relevance.sum(-1), 1, atol=1e-6)
    np.testing.assert_array_equal(mre.unimodal["vision"], mre.outputs)
    assert (lda.relevance, lda.modalities, dict(lda.unimodal)) == (None, (), {})


def test_scores_of_a_regression_are_kept_as_they_are(runs):
    folder = runs(Task(low=-3, high=3))
    said = folder.add("lmf")

    results = read_results(folder.root)

    assert results.models[0].outputs.shape == (3, 60, 1)
    np.testing.assert_allclose(results.models[0].outputs, said)
    np.testing.assert_array_equal(results.y, folder.y)


def test_what_training_writes_can_be_read(tmp_path):
    simulate_sdme(tmp_path / "data", clips=300)
    data = read_dataset(tmp_path / "data")
    experiments = [Experiment("lda", "lda", data.name, data.fingerprint, seed=s) for s in (0, 1)]
    train_all(tmp_path / "data", tmp_path / "runs", experiments)
    task = {"classes": list(data.task.classes), "low": 0.0, "high": 0.0}
    write_json(tmp_path / "runs" / "benchmark.json", {"name": data.name, "path": "data", "task": task, "folds": 0})

    results = read_results(tmp_path / "runs")

    assert len(results.ids) == len(data.index(split="test"))
    assert results.models[0].seeds == (0, 1)
    assert results.scores(results.models[0])[0]["accuracy"] > 0.5


def test_a_model_is_constant_if_one_of_its_folds_is_even_if_folds_say_different_things(runs):
    folder = runs(folds=2)
    of_fold = [sorted(set(folder.groups)).index(g) % 2 for g in folder.groups]
    one_answer_per_fold = np.eye(3)[of_fold]
    folder.add("mre", seeds=(0, 1), outputs=[one_answer_per_fold, folder.outputs(0.8)])

    assert read_results(folder.root).models[0].constant == (True, False)


def test_a_metric_that_a_fold_does_not_have_is_left_out_of_the_valid_scores(runs, edit):
    folder = runs(folds=2)
    folder.add("mre", seeds=(0,), valid=0.5)
    edit(
        folder.root / "mre/seed-0/fold-1/report.json",
        scores={"valid": {"accuracy": 0.7}, "test": {}},
    )

    (valid,) = read_results(folder.root).models[0].valid

    assert valid == {"accuracy": pytest.approx(0.6)}


def test_runs_that_did_not_finish_are_left_out_and_named(runs):
    folder = runs()
    folder.add("mre", seeds=(0, 1))
    (folder.root / "mre/seed-1/report.json").unlink()

    results = read_results(folder.root)

    assert results.models[0].seeds == (0,)
    assert results.notes == ("Not finished and left out: mre/seed-1.",)


# What is refused: each would else be a table that looks right.


def test_missing_folds_are_refused(runs):
    folder = runs(folds=3)
    folder.add("mre")
    shutil.rmtree(folder.root / "mre/seed-1/fold-2")

    with pytest.raises(InputError, match="mre: seed 1 has 2 of 3 folds; finish it"):
        read_results(folder.root)


def test_a_fold_that_every_seed_lacks_is_refused_too(runs):
    folder = runs(folds=3)
    folder.add("mre", seeds=(0,))
    shutil.rmtree(folder.root / "mre/seed-0/fold-2")

    with pytest.raises(InputError, match="mre: seed 0 has 2 of 3 folds"):
        read_results(folder.root)


def test_folds_beside_fixed_splits_are_refused(runs):
    folder = runs()
    folder.add("mre", seeds=(0,))
    shutil.copytree(folder.root / "mre/seed-0", folder.root / "mre/seed-0/fold-0")

    with pytest.raises(InputError, match="mre: seed 0 has folds that do not belong to fixed splits"):
        read_results(folder.root)


def test_an_utterance_tested_in_two_folds_is_refused(runs):
    folder = runs(folds=2)
    folder.add("mre", seeds=(0,))
    shutil.copy(folder.root / "mre/seed-0/fold-0/predictions.parquet", folder.root / "mre/seed-0/fold-1")

    with pytest.raises(InputError, match="mre: some utterances are tested in two folds"):
        read_results(folder.root)


def test_models_tested_on_other_utterances_or_labels_are_refused(runs):
    folder = runs()
    folder.add("mre")
    folder.add("lda", ids=[f"other{i}" for i in range(60)])
    folder.add("lmf", y=(folder.y + 1) % 3)

    for other in ("lda", "lmf"):
        with pytest.raises(InputError, match=f"mre and {other} were not tested on the same utterances"):
            read_results(folder.root, ["mre", other])


@pytest.mark.parametrize("other", ["ids", "labels"])
def test_seeds_tested_on_other_utterances_are_refused(runs, other):
    folder = runs()
    folder.add("mre", seeds=(0,))
    change = {"ids": [f"v{i:03d}" for i in range(60)]} if other == "ids" else {"y": (folder.y + 1) % 3}
    folder.add("mre", seeds=(1,), **change)

    with pytest.raises(InputError, match="mre: seeds 0 and 1 were not tested on the same utterances"):
        read_results(folder.root)


def test_seeds_trained_with_different_settings_are_refused(runs):
    folder = runs()
    folder.add("mre", seeds=(0,))
    folder.add("mre", seeds=(1,), training={"lr": 0.5})

    with pytest.raises(InputError, match="mre: seed 0 and seed 1 differ in lr"):
        read_results(folder.root)


def test_models_trained_on_different_versions_of_the_data_are_refused(runs):
    folder = runs()
    folder.add("mre")
    folder.add("lda", fingerprint="f1")

    with pytest.raises(InputError, match="mre and lda were trained on different versions of the data set"):
        read_results(folder.root)


def test_runs_of_a_model_that_does_not_exist_are_refused(runs):
    folder = runs()
    folder.add("mree")

    with pytest.raises(InputError, match=r"no model \(of the runs mree\) called 'mree'; did you mean 'mre'"):
        read_results(folder.root)


def test_a_model_without_runs_is_refused(runs):
    folder = runs()
    with pytest.raises(InputError, match="holds no finished run; train it first"):
        read_results(folder.root)

    folder.add("mre")
    with pytest.raises(InputError, match="holds no finished run of lda; train it first"):
        read_results(folder.root, ["mre", "lda"])


def test_a_folder_that_is_no_runs_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is not a runs folder: it has no benchmark\.json"):
        read_results(tmp_path)
