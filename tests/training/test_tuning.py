"""A search gives every model the same effort, never looks at test, and ends in the same trials whatever stops it."""

import csv
import json
import signal
import sqlite3
import subprocess
import sys
import time
import tomllib
from contextlib import closing
from dataclasses import replace

import pytest

from moodal.config import TRAINING_KEYS, Settings, read_settings
from moodal.data.store import read_dataset
from moodal.files import only_one, read_json
from moodal.models import MODELS, create_model, options_of, suitable_models
from moodal.training.plan import plan_experiments
from moodal.training.runs import train_all
from moodal.training.spaces import Choice, Range, read_spaces, space_of
from moodal.training.trials import GENERATION, Measured, Store, Trial, best_trial, propose
from moodal.training.tuning import measure, plan_searches, tune_models, valid_score
from moodal.types import InputError, WorkError

pytest.importorskip("optuna")
QUICK = Settings({"epochs": 2, "batch_size": 32, "patience": 2})
ACCURATE = Settings({**QUICK.common, "select": "accuracy"})


@pytest.fixture
def tune(tmp_path):
    """A search in this process: ``tune(folder, "mre", trials=3)``."""

    def run(folder, *names, trials=3, seeds=2, settings=QUICK, out="tuning", workers=1, **options):
        return tune_models(folder, names, trials, seeds, settings, tmp_path / out, workers=workers, **options)

    return run


def results(tuned):
    """Everything but how long it took."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in tuned.as_dict()["trials"]]


def planned(folder, *names, trials=3, seeds=2, settings=QUICK, spaces=None):
    return plan_searches(read_dataset(folder), names, trials, seeds, settings, spaces or read_spaces())


def toml(path, text):
    path.write_text(text)
    return path


# Effort and seeds


def test_every_model_gets_the_same_trials_and_seeds_and_one_without_options_a_single_trial(tune, toy):
    tuned = tune(toy, "mre", "text_only", "lda", trials=3)
    assert {m.name: len(m.trials) for m in tuned.models} == {"mre": 3, "text_only": 3, "lda": 1}
    assert {len(t.values) for m in tuned.models for t in m.trials} == {2}
    assert "lda: valid" in tuned.lines()[2]
    assert "1 trial, nothing to search" in tuned.lines()[2]


def test_seeds_of_a_search_are_never_those_of_a_report(toy):
    (search,) = planned(toy, "mre", seeds=3)
    assert [e.seed for e in search.experiments] == [1000, 1001, 1002]
    reported = plan_experiments(read_dataset(toy), ["mre"], 20, QUICK)
    assert not {e.seed for e in reported} & {e.seed for e in search.experiments}


def test_trial_0_has_the_given_settings_even_outside_of_the_space(tune, toy):
    given = Settings({**QUICK.common, "weight_decay": 0.0, "batch_size": 48}, {"mre": {"hidden": 24}})
    tuned = tune(toy, "mre", settings=given, trials=2)
    first = tuned.models[0].trials[0]
    assert first.settings | {"weight_decay": 0.0, "batch_size": 48, "hidden": 24} == first.settings
    base = replace(plan_experiments(read_dataset(toy), ["mre"], 1, given)[0], seed=1000)
    assert first.values[0] == measure(toy, base).value


def test_what_is_found_is_never_worse_on_valid_than_what_was_given(tune, toy):
    for row in tune(toy, "mre", "lmf", trials=4).as_dict()["best"]:
        assert row["valid"] >= row["default"]


def test_of_equals_the_given_settings_win_and_settings_that_failed_once_never_do():
    def trial(number, *values):
        return Trial(number, {}, {i: Measured(v, 0.0) for i, v in enumerate(values)})

    assert best_trial([trial(0, 0.5, 0.7), trial(1, 0.6, 0.6)]).number == 0
    assert best_trial([trial(0, 0.5, 0.5), trial(1, 0.9, None), trial(2, 0.5, 0.6)]).number == 2
    assert best_trial([trial(0, None)]) is None


# Test is never looked at


def spoilt(utterances, clips, rows):
    """Other labels and other features for these rows."""
    labels = {"calm": "angry", "angry": "sad", "sad": "calm"}
    changed = [replace(u, label=labels[u.label]) if i in rows else u for i, u in enumerate(utterances)]
    other = {
        m: [x * -3 + 1 if i in rows and x is not None else x for i, x in enumerate(values)]
        for m, values in clips.items()
    }
    return changed, other


def test_other_labels_and_features_in_test_change_no_trial_by_a_bit(tune, toy, write, utterances, clips):
    calm = tune(toy, "mre", "lda_stacking", trials=7)
    test = {i for i, u in enumerate(utterances) if u.split == "test"}
    other = tune(write(*spoilt(utterances, clips, test)), "mre", "lda_stacking", trials=7, out="other")
    assert other.facts["fingerprint"] != calm.facts["fingerprint"]
    assert results(other) == results(calm)
    valid = {i for i, u in enumerate(utterances) if u.split == "valid"}
    seen = tune(write(*spoilt(utterances, clips, valid)), "mre", trials=2, out="seen")
    assert results(seen)[0] != results(calm)[0]  # what is looked at does change it


@pytest.mark.parametrize("name", ["mre", "lda"])
def test_fold_k_changes_nothing_of_what_is_tried_for_fold_k(folded, write, clips, name):
    utterances = list(read_dataset(folded).utterances)
    third = {i for i, u in enumerate(utterances) if u.fold == 3}
    other = read_dataset(write(*spoilt(utterances, clips, third)))
    (search,) = planned(folded, name, seeds=1)
    scores = {e.fold: (valid_score(read_dataset(folded), e), valid_score(other, e)) for e in search.experiments}
    assert list(scores) == [0, 1, 2, 3, 4]
    assert [k for k, (a, b) in scores.items() if a == b] == [3]


def test_a_trial_with_folds_is_the_mean_over_seeds_and_folds(tune, folded, tmp_path):
    tuned = tune(folded, "text_only", trials=2, settings=ACCURATE)
    assert [len(t.values) for t in tuned.models[0].trials] == [10, 10]
    trial = tuned.models[0].trials[1]
    assert trial.valid == pytest.approx(sum(trial.values) / 10)
    text = (tmp_path / "tuning/tuned.toml").read_text()
    assert "valid folds (5 of 5)" in text
    assert "score: accuracy" in text


def test_a_search_on_the_first_folds_trains_those_alone(tune, folded, tmp_path):
    tuned = tune(folded, "text_only", trials=1, seeds=1, folds=2)
    every = tune(folded, "text_only", trials=1, seeds=1, out="all")
    assert tuned.models[0].trials[0].values == every.models[0].trials[0].values[:2]
    assert "valid folds (2 of 5)" in (tmp_path / "tuning/tuned.toml").read_text()
    with pytest.raises(InputError, match="was begun on 2 folds"):
        tune(folded, "text_only", trials=1, seeds=1)


@pytest.mark.parametrize("folds", [0, 6])
def test_folds_that_are_not_there_are_refused(tune, folded, toy, folds):
    with pytest.raises(InputError, match=f"--folds {folds} cannot be: .* has 5 folds"):
        tune(folded, "text_only", folds=folds)
    with pytest.raises(InputError, match=f"--folds {folds} cannot be: .* has fixed splits, no folds"):
        tune(toy, "text_only", folds=folds)


# Proposals


def test_a_proposal_depends_on_earlier_generations_alone():
    space = {"lr": Range(1e-4, 1e-2, log=True), "hidden": Choice((16, 32)), "layers": Range(1, 4)}
    start = {"lr": 0.5, "hidden": 32, "layers": 3}  # outside: the sampler does not hear of this lr
    before = [Trial(0, start, {0: Measured(0.1, 0.0)})]
    for n in range(1, 3 * GENERATION):
        before.append(Trial(n, propose("mre", n, space, before), {0: Measured(-abs(n - 7.0), 0.0)}))
    number = 2 * GENERATION + 2
    asked = propose("mre", number, space, before)
    assert propose("mre", number, space, before[: 2 * GENERATION]) == asked
    assert propose("mre", number, space, before[:GENERATION]) != asked
    assert propose("lmf", number, space, before) != asked
    assert all(trial.settings[k] in d for trial in before[1:] for k, d in space.items())
    assert {type(v) for trial in before for k, v in trial.settings.items() if k != "lr"} == {int}


def test_failures_teach_the_sampler_and_harm_it_not():
    space = {"lr": Range(1e-4, 1e-2, log=True)}
    before = [Trial(n, {"lr": 1e-3 * (n + 1) / 4}, {0: Measured(None, 0.0, "diverged")}) for n in range(20)]
    assert propose("mre", 20, space, before)["lr"] in space["lr"]


# Going on


def test_more_trials_later_are_the_trials_of_a_search_that_was_asked_for_all_of_them(tune, toy):
    first = tune(toy, "mre", "lda", trials=4)
    more = tune(toy, "mre", "lda", trials=8)
    assert [t.runs for t in more.models[0].trials[:4]] == [t.runs for t in first.models[0].trials]  # seconds too
    assert results(more) == results(tune(toy, "mre", "lda", trials=8, out="at-once"))


def test_a_finished_search_is_not_done_again(tune, toy, tmp_path, monkeypatch):
    tune(toy, "mre", trials=2, command="moodal tune it")
    files = {p.name: p.read_bytes() for p in (tmp_path / "tuning").iterdir()}
    monkeypatch.setattr("moodal.training.tuning.measure", None)  # calling it would fail
    tune(toy, "mre", trials=2, command="moodal tune it again")
    assert {p.name: p.read_bytes() for p in (tmp_path / "tuning").iterdir()} == files


# Starts once, then forks a child per attempt. A child that may die is killed at a moment, or dies in the n-th write.
KILLS = """
import json, os, random, signal, sys, time
from pathlib import Path
import optuna, sqlalchemy.dialects.sqlite, torch
torch.set_num_threads(1)
torch.optim.AdamW(torch.nn.Linear(1, 1).parameters()).zero_grad()  # imports what a first step imports
from moodal.config import Settings
from moodal.training.trials import Store
from moodal.training.tuning import tune_models

folder, out, settings = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])

def die_in(write):
    left = write
    def mortal(method):
        def call(*args):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)  # before the write
            method(*args)
            if left == 1:
                os.kill(os.getpid(), signal.SIGKILL)  # after it, and before the next
        return call
    for name in ("note", "begin", "record", "finish"):
        setattr(Store, name, mortal(getattr(Store, name)))

random.seed(3)
kills = 0
while True:
    child = os.fork()
    if not child:
        if kills % 2:
            die_in(random.randint(1, 6))
        tune_models(folder, ["mre", "lda"], 7, 2, Settings(settings), out, workers=1)
        os._exit(0)
    if kills % 2 == 0 and kills < 8:
        time.sleep(random.uniform(0.05, 0.5))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status):
        break
    kills += 1
print(json.dumps({"kills": kills, "code": os.waitstatus_to_exitcode(status)}))
"""


def test_killed_again_and_again_it_ends_in_the_same_trials_and_no_more(tune, toy, tmp_path):
    settings = {**QUICK.common, "epochs": 6}
    command = [sys.executable, "-c", KILLS, toy, tmp_path / "killed", json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["code"] == 0
    assert found["kills"] >= 6
    calm = tune(toy, "mre", "lda", trials=7, settings=Settings(settings), out="calm")
    killed = tune(toy, "mre", "lda", trials=7, settings=Settings(settings), out="killed")
    assert results(killed) == results(calm)
    assert states(tmp_path / "killed", "mre") == ["COMPLETE"] * 7


def states(out, name):
    import optuna

    storage = optuna.storages.RDBStorage(f"sqlite:///{out / 'trials.db'}")
    found = [t.state.name for t in optuna.load_study(study_name=name, storage=storage).trials]
    storage.engine.dispose()
    return found


def test_what_two_workers_left_when_they_were_killed_goes_on_to_what_one_alone_finds(tune, toy, tmp_path, moodal):
    """Through the command line, with ``--json``, which is the whole of stdout."""
    options = [x for k, v in QUICK.common.items() for x in ("--set", f"{k}={v}")]
    asked = ["tune", str(toy), "--models", "mre,lda", "--trials", "6", "--out", "killed", *options]
    entry = [sys.executable, "-c", "from moodal.cli import main; main()"]
    first = subprocess.Popen([*entry, *asked, "--workers", "2"], cwd=tmp_path, stdout=subprocess.PIPE)
    while first.poll() is None and finished_trials(tmp_path / "killed/trials.db") < 2:
        time.sleep(0.02)
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed/tuned.toml").exists()
    done = moodal(*asked, "--workers", "1", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    calm = tune(toy, "mre", "lda", trials=6, out="calm")
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in found["trials"]] == results(calm)
    assert found["best"] == calm.as_dict()["best"]
    assert (found["dataset"], found["settings_file"]) == ("toy", "killed/tuned.toml")


def finished_trials(file):
    if not file.exists():
        return 0
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        try:
            return connection.execute("select count(*) from trial_values").fetchone()[0]
        except sqlite3.OperationalError:  # the tables are being made
            return 0


# What is left for people


def test_tuned_settings_are_read_back_to_the_bit_by_the_command_that_compares(tune, toy, tmp_path):
    given = Settings({**QUICK.common, "audio_pooling": "mean_std", "rescale": False})
    tuned = tune(toy, "mre", "text_only", "lda", trials=4, settings=given)
    read = read_settings(tmp_path / "tuning/tuned.toml")
    assert not read.common
    best = {m.name: t for m, t in tuned.best()}
    for e in plan_experiments(read_dataset(toy), ["mre", "text_only", "lda"], 1, read):
        flat = {**vars(e.training), **e.options}
        assert {k: flat[k] for k in best[e.name].settings} == best[e.name].settings
        assert flat["audio_pooling"] == "mean_std"
        assert flat["epochs"] == 2
        assert flat.get("rescale", False) is False


def test_the_file_says_where_its_settings_come_from_and_is_the_same_for_the_same_trials(tune, toy, tmp_path):
    tuned = tune(toy, "mre", trials=2, command="moodal tune 'my data' --models mre\n--trials 2")
    text = (tmp_path / "tuning/tuned.toml").read_text()
    assert "\n# moodal tune 'my data' --models mre --trials 2\n" in text
    assert tuned.facts["fingerprint"] in text
    assert "seeds 1000, 1001" in text
    assert f"# {tuned.lines()[0]}\n" in text
    assert list(tomllib.loads(text)) == ["mre"]
    tune(toy, "mre", trials=2, command="moodal tune 'my data' --models mre --trials 2", out="again")
    assert (tmp_path / "again/tuned.toml").read_text() == text


def test_every_trial_is_a_row_of_the_table_and_the_picture_is_drawn(tune, toy, tmp_path):
    tuned = tune(toy, "mre", "lmf", trials=3)
    with (tmp_path / "tuning/trials.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert [(r["model"], int(r["number"])) for r in rows] == [(m, n) for m in ("mre", "lmf") for n in range(3)]
    trial = tuned.models[1].trials[2]
    assert float(rows[5]["valid"]) == trial.valid
    assert [float(v) for v in rows[5]["values"].split()] == trial.values
    assert float(rows[5]["lr"]) == trial.settings["lr"]
    assert (rows[5]["text_hidden"], rows[5]["hidden"]) == (str(trial.settings["text_hidden"]), "")
    assert (tmp_path / "tuning/trials.png").read_bytes().startswith(b"\x89PNG")


# Settings that do not work


def test_settings_that_diverge_or_that_a_model_refuses_are_failed_trials_and_not_chosen(tune, toy, tmp_path):
    text = "[space.networks]\nlr = {choices = [1e30]}\n[space.lmf]\ndropout = {choices = [1.5]}"
    tuned = tune(toy, "mre", "lmf", trials=2, space_file=toml(tmp_path / "space.toml", text))
    for model, words in zip(tuned.models, ("not finite", "dropout must be"), strict=True):
        first, second = model.trials
        assert first.valid is not None
        assert second.values == [None, None]
        assert words in second.error
        assert best_trial(model.trials) is first
    json.dumps(tuned.as_dict(), allow_nan=False)
    assert "failed failed" in (tmp_path / "tuning/trials.csv").read_text()


def test_a_model_of_which_no_trial_ends_well_is_a_failure(tune, toy):
    with pytest.raises(WorkError, match=r"no trial of mre ended well; the first one: .* not finite"):
        tune(toy, "mre", trials=1, settings=Settings({**QUICK.common, "lr": 1e30}))


# Spaces


def test_every_network_searches_what_networks_share_as_far_as_it_has_it():
    shared = read_spaces()["networks"].keys()
    for name, entry in MODELS.items():
        space = space_of(name, read_spaces())
        if entry.cls.closed_form:
            assert space.keys() <= options_of(name).keys()
        else:
            assert shared & {*TRAINING_KEYS, *options_of(name)} <= space.keys()
            assert {"lr", "weight_decay", "batch_size"} <= space.keys()


def test_every_model_accepts_each_value_at_the_ends_of_its_space(toy):
    data = read_dataset(toy)
    for name in suitable_models(data.dims, data.task):
        for key, dimension in space_of(name, read_spaces()).items():
            for value in dimension.ends if key not in TRAINING_KEYS else ():
                create_model(name, data.dims, data.task, **{key: value})  # else trials are lost, for one model alone


def test_names_of_one_network_search_what_their_name_leaves_open():
    extra = {name: space_of(name, read_spaces()).keys() - read_spaces()["networks"].keys() for name in MODELS}
    assert extra["mre"] == {"rank", "w_rs", "w_cnce"}
    assert extra["mre_rs"] == {"rank", "w_rs"}
    assert extra["mre_baseline"] == {"rank"}
    assert len(space_of("lmf", read_spaces())) == len(space_of("mre", read_spaces()))


def test_a_file_replaces_single_lines(tmp_path):
    text = """
    [space.networks]
    dropout = {choices = [0.25]}
    [space.mre_rs]
    lr = {low = 0.001, high = 1}
    layers = {low = 1, high = 3}
    [space.lda]
    standardise = {choices = ["scale", "whiten"]}
    """
    spaces = read_spaces(toml(tmp_path / "space.toml", text))
    usual, mine = space_of("mre_rs", read_spaces()), space_of("mre_rs", spaces)
    changed = {"dropout": Choice((0.25,)), "lr": Range(0.001, 1.0), "layers": Range(1, 3)}
    assert mine == {**usual, **changed}
    assert space_of("mre", spaces) == {**space_of("mre", read_spaces()), "dropout": Choice((0.25,))}
    assert space_of("lda", spaces) == {"standardise": Choice(("scale", "whiten"))}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[space.mre]\nrnk = {choices = [2]}",
            r"no setting to search in \[space.mre\] called 'rnk'; did you mean 'rank'",
        ),
        ("[space.networks]\nlearning_rate = {choices = [2.0]}", "'learning_rate'"),
        ("[space.lda]\nlr = {choices = [0.1]}", r"space.lda\] called 'lr'"),
        ("[space.mer]\nrank = {choices = [2]}", "no search space called 'mer'; did you mean 'mre'"),
        ("[mre]\nrank = 2", r"needs tables like \[space.networks\]"),
        ("[space]\nrank = 2", r"needs tables like \[space.networks\]"),
        ("[space.mre]\nrank = 2", "the space of rank is .* got 2"),
        ("[space.mre]\nrank = {low = 2}", "the space of rank is .* or .*choices"),
        ("[space.mre]\nrank = {choices = []}", "the space of rank is"),
        ("[space.mre]\nrank = {choices = [2.5]}", "rank needs a value like 4, got 2.5"),
        ("[space.mre]\nrank = {low = 4, high = 2}", "needs low < high, got 4 and 2"),
        ("[space.mre]\nw_rs = {low = 0, high = 1, log = true}", "needs 0 < low < high for a logarithmic scale"),
        ("[space.mre]\nw_rs = {low = 0, high = 1, log = 2}", "the space of w_rs is"),
        ("[space.mre]\nrelevance = {low = 0, high = 1}", "relevance is no number"),
        ("[space.mre]\nselect = {choices = ['nll', 'accuracy']}", "select cannot be searched; give it with --set"),
        ("[space.networks]\nlr = {low = -1, high = 1}", "lr must be above 0"),
        ("[space", "not valid TOML"),
    ],
)
def test_spaces_that_make_no_sense_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_spaces(toml(tmp_path / "space.toml", text))


def test_a_space_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"space.toml does not exist"):
        read_spaces(tmp_path / "space.toml")


# Refusals


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["mer"], {}, "no model called 'mer'; did you mean 'mre'"),
        (["mre@hidden=8"], {}, "a variant like mre@hidden=8 is not searched"),
        (["mre"], {"trials": 0}, "--trials must be at least 1, got 0"),
        (["mre"], {"seeds": 0}, "--seeds must be at least 1"),
        (["mre"], {"settings": Settings({"hiden": 8})}, "no setting called 'hiden'; did you mean 'hidden'"),
        (["mre"], {"settings": Settings({"select": "loss"})}, "select=loss is for scores"),
        (
            ["mre", "lmf"],
            {"settings": Settings({}, {"lmf": {"select": "accuracy"}})},
            "all models need the same select",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_written(tune, toy, tmp_path, names, options, message):
    with pytest.raises(InputError, match=message):
        tune(toy, *names, **options)
    assert not (tmp_path / "tuning").exists()


def test_without_optuna_the_line_that_installs_it_is_named(tune, toy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'moodal\[tune\]'"):
        tune(toy, "mre")
    assert not (tmp_path / "tuning").exists()


def test_a_folder_whose_trials_could_not_be_compared_is_refused(tune, toy, tmp_path):
    tune(toy, "mre", trials=2)
    before = {p.name: p.read_bytes() for p in (tmp_path / "tuning").iterdir()}
    narrow = toml(tmp_path / "space.toml", "[space.mre]\nrank = {choices = [2]}")
    for name, options, message in (
        ("mre", {"seeds": 1}, "was begun with --seeds 2"),
        ("mre", {"trials": 1}, "has 2 trials of mre; say --trials with that or more"),
        ("mre", {"settings": Settings({**QUICK.common, "patience": 3})}, "patience was 2 there and is 3 now"),
        ("mre", {"settings": ACCURATE}, "chooses by nll, not by accuracy"),
        ("lmf", {"trials": 3}, "2 finished trials of mre, and every model gets the same number"),
        ("mre", {"space_file": narrow}, "of mre with another space .rank was"),
    ):
        with pytest.raises(InputError, match=message):
            tune(toy, name, **{"trials": 2, **options})
        assert {p.name: p.read_bytes() for p in (tmp_path / "tuning").iterdir()} == before


def test_a_trial_that_was_left_half_done_is_refused_beside_the_trials_of_another_model(tune, toy, tmp_path):
    tune(toy, "mre", trials=2)
    with Store.open(tmp_path / "tuning/trials.db") as store:
        half = replace(store.trials("mre")[0], number=2, runs={})
        store.begin("mre", half, {})
        half.runs[0] = Measured(0.0, 1.0)  # better than all
        store.record("mre", half, 0)
    with pytest.raises(InputError, match="has 2 finished and 1 unfinished trials of mre"):
        tune(toy, "lmf", trials=2)


def test_a_file_of_trials_that_cannot_be_read_is_one_sentence(tune, toy, tmp_path):
    (tmp_path / "tuning").mkdir()
    (tmp_path / "tuning/trials.db").write_bytes(b"no data base" * 1000)
    with pytest.raises(WorkError, match=r"trials.db could not be read or written \(file is not a database\)"):
        tune(toy, "lda")


def test_any_folder_will_do_even_one_that_is_no_part_of_an_address(tune, toy, tmp_path):
    tune(toy, "lda", out="what? 100% {sure} #1")
    assert {"trials.db", "tuned.toml"} <= {p.name for p in (tmp_path / "what? 100% {sure} #1").iterdir()}


def test_a_trial_is_measured_as_a_run_of_a_report_is_trained(toy, tmp_path):
    (search,) = planned(toy, "mre", seeds=1)
    (run,) = train_all(toy, tmp_path / "runs", search.experiments)
    assert measure(toy, search.experiments[0]).value == -run.report()["scores"]["valid"]["nll"]


def test_a_folder_of_another_data_set_is_refused(tune, toy, folded):
    tune(toy, "lda")
    with pytest.raises(InputError, match=r"holds a search on another data set \(toy as it was in .*\); choose another"):
        tune(folded, "lda")


def test_another_model_may_join_with_the_same_effort(tune, toy, tmp_path):
    tune(toy, "mre", trials=2)
    tune(toy, "lda", "text_only", trials=2)
    assert list(tomllib.loads((tmp_path / "tuning/tuned.toml").read_text())) == ["mre", "lda", "text_only"]
    assert read_json(tmp_path / "tuning/tuning.json")["seeds"] == [1000, 1001]


def test_two_searches_in_one_folder_are_refused(tune, toy, tmp_path):
    (tmp_path / "tuning").mkdir()
    with only_one(tmp_path / "tuning"), pytest.raises(InputError, match="another moodal is at work in"):
        tune(toy, "mre")
    tune(toy, "lda")  # the lock went with the one who held it


def test_a_data_set_that_changes_meanwhile_stops_the_search(toy):
    (search,) = planned(toy, "mre")
    with pytest.raises(InputError, match="has changed since the search began"):
        measure(toy, replace(search.experiments[0], fingerprint="another"))


def test_scores_are_searched_by_their_mean_absolute_error(tune, toy):
    tuned = tune(toy, "mre", trials=2, task="regression")
    assert tuned.score_name == "minus mae"
    assert all(t.valid < 0 for t in tuned.models[0].trials)
