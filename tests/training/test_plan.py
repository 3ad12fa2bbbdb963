"""What a user asks becomes experiments; what cannot work is refused before anything is written."""

import json
from dataclasses import replace

import pytest

from moodal.config import Settings
from moodal.data.simulate import simulate_sdme
from moodal.data.store import read_dataset
from moodal.experiment import Run
from moodal.files import only_one
from moodal.models import options_of
from moodal.training.plan import plan_experiments, train_models
from moodal.training.runs import train_all, train_run
from moodal.types import InputError, Task

QUICK = Settings({"epochs": "2"})


def names_in(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def finish(tmp_path):
    """Trains a plan in this process, as the workers of ``train_models`` would, and returns what that says then."""

    def run(folder, names, seeds=1, settings=QUICK, out="runs", **options):
        data = read_dataset(folder, task=options.get("task"))
        for e in plan_experiments(data, names, seeds, settings):
            train_run(folder, Run.of(tmp_path / out, e))
        return train_models(folder, names, seeds, settings, tmp_path / out, **options)

    return run


def test_one_experiment_per_model_seed_and_fold(toy, folded):
    plain = plan_experiments(read_dataset(toy), ["mre", "lda"], 3, Settings())
    assert [(e.model, e.seed, e.fold) for e in plain] == [(m, s, None) for m in ("mre", "lda") for s in range(3)]
    assert not plain[0].training.refit
    crossed = plan_experiments(read_dataset(folded), ["lda"], 2, Settings())
    assert [(e.seed, e.fold) for e in crossed] == [(s, k) for s in range(2) for k in range(5)]
    assert crossed[0].training.refit  # train has lost a fold to valid; with folds it gets it back


def test_settings_go_to_the_models_that_have_them(toy):
    settings = Settings({"hidden": "9", "lr": "0.5"}, {"lmf": {"rank": 2}})
    names = ["mre", "lmf", "mre@hidden=5+lr=0.25", "text_only"]
    mre, lmf, variant, _ = plan_experiments(read_dataset(toy), names, 1, settings)
    assert (mre.options["hidden"], mre.training.lr) == (9, 0.5)
    assert lmf.options["rank"] == 2
    assert (variant.name, variant.model) == ("mre@hidden=5+lr=0.25", "mre")
    assert (variant.options["hidden"], variant.training.lr) == (5, 0.25)
    assert mre.options["rank"] == options_of("mre")["rank"] != 2


def test_an_experiment_records_the_defaults_too(toy):
    (e,) = plan_experiments(read_dataset(toy), ["mre"], 1, Settings())
    recorded = e.as_dict()
    assert recorded["options"]["dropout"] == e.options["dropout"]
    assert recorded["training"]["patience"] == 10
    assert recorded["fingerprint"] == read_dataset(toy).fingerprint


@pytest.mark.parametrize(
    ("names", "seeds", "settings", "message"),
    [
        (["mre"], 0, Settings(), "--seeds must be at least 1, got 0"),
        ([], 1, Settings(), "--models needs one or more different names, got none"),
        (["mre", "mre"], 1, Settings(), "--models needs one or more different names, got mre, mre"),
        (["mre"], 1, Settings({"hidden": 0}), "mre: hidden must be at least 1, got 0"),
        (["mre"], 1, Settings({"rank": "-1"}), "mre: rank must be at least 1, got -1"),
        (["mre"], 1, Settings({"dropout": "1.5"}), "mre: dropout must be at least 0 and below 1, got 1.5"),
        (["mre"], 1, Settings({"w_rs": "nan"}), "mre: w_rs must be at least 0 and finite, got nan"),
        (["mre"], 1, Settings({"temperature": 0.0}), "mre: temperature must be above 0, got 0.0"),
        (["mer"], 1, Settings(), "no model called 'mer'; did you mean 'mre'"),
        (["mre@hiden=3"], 1, Settings(), "no setting called 'hiden'; did you mean 'hidden'"),
        (["mre@hidden"], 1, Settings(), "need KEY=VALUE, got 'hidden'"),
        (["mre"], 1, Settings({"epoch": "3"}), "no setting called 'epoch'; did you mean 'epochs'"),
        (["mre"], 1, Settings({}, {"mree": {}}), "no model called 'mree'; did you mean 'mre'"),
        (["mre"], 1, Settings({"epochs": "many"}), "epochs needs a value like 100, got 'many'"),
        (["mre"], 1, Settings({"epochs": 2.5}), "epochs needs a value like 100, got 2.5"),
        (["mre"], 1, Settings({"epochs": True}), "epochs needs a value like 100, got True"),
        (["mre"], 1, Settings({"lr": "inf"}), "lr must be above 0 and finite, got inf"),
        (["mre"], 1, Settings({"weight_decay": "nan"}), "weight_decay must be at least 0 and finite, got nan"),
        (["mre"], 1, Settings({"select": "los"}), "no selection criterion called 'los'; did you mean 'loss'"),
        (["mre"], 1, Settings({"select": "loss"}), "select=loss is for scores"),
        (["mre"], 1, Settings({"text_pooling": "max"}), "pooling of text must be one of none, mean, mean_std"),
        (["lda"], 1, Settings({"text_pooling": "none"}), "discriminant analysis needs one vector per modality"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(toy, tmp_path, names, seeds, settings, message):
    with pytest.raises(InputError, match=message):
        train_models(toy, names, seeds, settings, tmp_path / "runs")
    assert names_in(tmp_path) == []


def test_a_class_without_examples_is_refused_before_anything_is_written(write, utterances, tmp_path):
    folder = write([replace(u, label="calm" if u.split == "valid" else u.label) for u in utterances])
    with pytest.raises(InputError, match="class 'angry' has no example in valid"):
        train_models(folder, ["mre"], 1, QUICK, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_classes_are_not_predicted_by_a_score_model_and_the_other_way_round(toy, tmp_path):
    with pytest.raises(InputError, match="discriminant analysis needs classes"):
        train_models(toy, ["lda"], 1, Settings(), tmp_path / "runs", task="regression")
    with pytest.raises(InputError, match="no task called 'regresion'; did you mean 'regression'"):
        train_models(toy, ["lda"], 1, Settings(), tmp_path / "runs", task="regresion")


# Running again


def test_finished_runs_are_skipped_and_not_touched(toy, finish, tmp_path):
    first = finish(toy, ["lda", "mre"])
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*") if p.is_file()}
    again = train_models(toy, ["lda", "mre"], 1, QUICK, tmp_path / "runs")
    assert [t.skipped for t in first + again] == [True] * 4
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*") if p.is_file()} == files


def test_what_a_run_says(toy, finish, tmp_path):
    (row,) = (t.as_dict() for t in finish(toy, ["mre"]))
    assert row["path"] == str(tmp_path / "runs/mre/seed-0")
    assert (row["seed"], row["fold"], row["epochs"], row["skipped"]) == (0, None, 2, True)
    assert row["seconds_per_epoch"] > 0
    assert row["parameters"] > 100
    assert row["test"].keys() == {"accuracy", "f1_weighted"}
    (row,) = (t.as_dict() for t in finish(toy, ["mre"], out="scores", task="regression"))
    assert row["test"].keys() == {"mae", "corr"}


def test_what_a_kill_left_beside_the_report_is_cleared(toy, finish, tmp_path):
    (done,) = finish(toy, ["mre"])
    kept = names_in(done.run.path)
    for name in ("progress.json", "checkpoint-select.safetensors", ".report.json.partial-17"):
        (done.run.path / name).write_text("{}")
    train_models(toy, ["mre"], 1, QUICK, tmp_path / "runs")
    assert names_in(done.run.path) == kept


def test_runs_of_another_experiment_are_refused(toy, finish, tmp_path):
    finish(toy, ["mre"])
    with pytest.raises(
        InputError, match=r"runs/mre/seed-0 holds another experiment \(training.epochs is 2 there and 3"
    ):
        train_models(toy, ["mre"], 1, Settings({"epochs": "3"}), tmp_path / "runs")


def test_runs_of_another_data_set_are_refused(toy, folded, finish, tmp_path):
    finish(toy, ["mre"])
    with pytest.raises(InputError, match=r"runs holds runs on another data set \(toy as it was in .*choose another"):
        train_models(folded, ["lda"], 1, Settings(), tmp_path / "runs")
    assert names_in(tmp_path / "runs") == ["benchmark.json", "mre"]


# What is said of the data set


def test_a_group_in_two_splits_is_trained_on_with_a_warning(write, utterances, finish, tmp_path, caplog):
    leaking = [replace(u, group="s0") if u.id in ("u00", "u12", "u13") else u for u in utterances]
    finish(write(leaking), ["lda"])
    (said,) = (r.getMessage() for r in caplog.records if "moodal" in r.name)
    assert "1 of 7 groups in test also occur in train (2 utterances of test): scores on test may be too good" in said
    notes = json.loads((tmp_path / "runs/benchmark.json").read_text())["notes"]
    assert len([n for n in notes if "also occur" in n]) == 1  # the report will say it too


def test_clean_splits_are_trained_on_in_silence(toy, finish, caplog):
    finish(toy, ["lda"])
    assert not caplog.records


def test_only_a_simulation_knows_its_limits(toy, finish, tmp_path):
    simulate_sdme(tmp_path / "sdme", clips=100)
    finish(tmp_path / "sdme", ["text_only"])
    limits = json.loads((tmp_path / "runs/benchmark.json").read_text())["limits"]
    stated = json.loads((tmp_path / "sdme/dataset.json").read_text())["simulation"]
    assert limits["bayes"]["accuracy"] == pytest.approx(stated["bayes_accuracy"]["test"])
    single = {m: v["test"] for m, v in stated["single_bayes_accuracy"].items()}
    assert limits["best_single"] == {
        "accuracy": pytest.approx(max(single.values())),
        "modality": max(single, key=lambda m: single[m]),
    }
    finish(toy, ["lda"], out="other")
    assert json.loads((tmp_path / "other/benchmark.json").read_text())["limits"] == {}


def test_the_task_is_part_of_what_a_data_set_is(write, toy):
    assert read_dataset(write(task=Task(("sad", "calm", "angry")))).fingerprint != read_dataset(toy).fingerprint


def test_whoever_listens_hears_how_far_it_is(toy, finish, tmp_path):
    finish(toy, ["lda"])
    heard = []
    experiments = plan_experiments(read_dataset(toy), ["lda"], 2, QUICK)
    runs = train_all(toy, tmp_path / "runs", experiments, on_change=lambda done, way: heard.append(done))
    assert set(heard) == {1}  # one of two was done before
    assert all(run.is_done for run in runs)


def test_two_commands_do_not_work_in_one_folder_at_once(toy, tmp_path):
    out = tmp_path / "runs"
    out.mkdir()
    with only_one(out), pytest.raises(InputError, match=f"another moodal is at work in {out}"):
        train_models(toy, ["lda"], 1, QUICK, out)
    assert len(train_models(toy, ["lda"], 1, QUICK, out)) == 1


def test_blanks_around_a_model_name_mean_nothing(toy):
    (e,) = plan_experiments(read_dataset(toy), [" mre@w_rs=0.1 "], 1, QUICK)
    assert e.name == "mre@w_rs=0.1"
