"""Stress tests of models that were really trained, on a data set of 120 clips."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from moodal import metrics
from moodal.batch import Batch, Ragged
from moodal.benchmark import statistics
from moodal.benchmark.corruptions import CORRUPTIONS, Setting, corrupt, deviation_of
from moodal.benchmark.results import read_results
from moodal.benchmark.stress import aurc, differs, stress_models
from moodal.benchmark.stress_figures import draw_stress, line_styles
from moodal.benchmark.stress_printing import as_csv, as_markdown, as_text, headline, write_stress
from moodal.config import TrainingSettings
from moodal.data.simulate import simulate_sdme
from moodal.data.store import FeatureSpec, new_dataset, read_dataset
from moodal.experiment import Experiment, Run, load_model
from moodal.files import write_json
from moodal.training.runs import split_rows, train_run
from moodal.types import InputError, Task, Utterance

QUICK = TrainingSettings(epochs=3, patience=3)
MODELS = {"mre": 2, "text_only": 2, "late_average": 1}


def train(data_path, root, models, *, folds=0, task="classification"):
    data = read_dataset(data_path, task=task)
    experiments = [
        Experiment(name, name, data.name, data.fingerprint, seed, fold, task=task, training=QUICK)
        for name, seeds in models.items()
        for seed in range(seeds)
        for fold in (range(folds) if folds else [None])
    ]
    root.mkdir(parents=True)
    stated = {"classes": list(data.task.classes), "low": data.task.low, "high": data.task.high}
    facts = {"name": data.name, "path": str(data_path), "fingerprint": data.fingerprint, "task": stated}
    write_json(root / "benchmark.json", {**facts, "folds": folds})
    for experiment in experiments:  # here, because processes that are started for it take longer than the training
        train_run(data_path, Run.of(root, experiment))
    return root


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "sdme"
    simulate_sdme(path, clips=120, difficulty=0.5)
    return path


@pytest.fixture(scope="module")
def trained(simulated, tmp_path_factory):
    return train(simulated, tmp_path_factory.mktemp("trained") / "runs", MODELS)


@pytest.fixture(scope="module")
def report(trained):
    return stress_models(trained)


@pytest.fixture(scope="module")
def scores_in_folds(tmp_path_factory):
    """A regression data set of three folds, one clip in it without audio."""
    path, rng = tmp_path_factory.mktemp("data") / "scores", np.random.default_rng(0)
    people = [
        Utterance(f"u{i:02d}", score=float(s), fold=i % 3, group=f"speaker {i % 9}")
        for i, s in enumerate(np.linspace(-3, 3, 45))
    ]
    with new_dataset(path) as writer:
        for m, dim in (("text", 4), ("audio", 3)):
            clips = [rng.normal(u.score, 1, (int(rng.integers(1, 6)), dim)).astype(np.float32) for u in people]
            if m == "audio":
                clips[7] = None
            writer.write_features(FeatureSpec("drawn", "1", m, dim), [u.id for u in people], clips)
        writer.finish(people, Task(low=-3, high=3), name="scores")
    root = tmp_path_factory.mktemp("trained") / "runs"
    return train(path, root, {"lf_dnn": 2, "audio_only": 2}, folds=3, task="regression")


def slow_outputs(root, name, corruption, subset, severity):
    """The plain loop: every run reads the whole corrupted test set."""
    results = read_results(root)
    data = read_dataset(Path(results.path), task=results.task.kind)
    model = next(m for m in results.models if m.name == name)
    said = np.empty_like(model.outputs)
    for i, seed in enumerate(model.seeds):
        for fold in range(results.folds) if results.folds else [None]:
            rows = split_rows(data, fold)
            test = data.batch.select(rows["test"])
            train_split = data.batch.select(rows["train"])
            setting = Setting({m: deviation_of(x) for m, x in train_split.inputs.items()}, test, results.task)
            modalities = data.modalities if subset == "all" else [subset]
            folder = root / name / f"seed-{seed}" / ("" if fold is None else f"fold-{fold}")
            with torch.inference_mode():
                logits = load_model(folder)(corrupt(test, corruption, modalities, severity, setting)).logits
            said[i, [results.ids.index(u) for u in test.ids]] = logits.numpy()
    return results, said


def row_of(report, model, corruption, subset, severity, metric):
    (found,) = [
        r
        for r in report.rows
        if (r.model, r.corruption, r.modalities, r.severity, r.metric) == (model, corruption, subset, severity, metric)
    ]
    return found


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("corruption", "c"), list(CORRUPTIONS.items()))
def test_rows_are_those_of_a_slow_loop(trained, report, name, corruption, c):
    subset, severity = ("all", 2) if c.jointly else (("text", 3) if name == "mre" else ("all", 5))
    results, said = slow_outputs(trained, name, corruption, subset, severity)
    expected = [metrics.scores(o, results.y, results.task) for o in said]

    for metric in ("accuracy", "f1_weighted", "nll", "ece"):
        row = row_of(report, name, corruption, subset, severity, metric)
        values = [e[metric] for e in expected]
        assert row.mean == pytest.approx(np.mean(values), abs=1e-5)
        assert row.std == pytest.approx(np.std(values, ddof=1) if len(values) > 1 else 0, abs=1e-5)
        assert row.num_runs == len(values)
        assert (row.low is None) == (metric == "ece")
        if row.low is not None:
            low, high = statistics.interval(said, results.y, results.task, metric, results.groups, resamples=1000)
            assert (row.low, row.high) == pytest.approx((low, high), abs=1e-5)


def test_rows_of_scores_in_folds_are_those_of_a_slow_loop(scores_in_folds):
    chosen = [("gaussian", "text", 5), ("drop_steps", "audio", 2), ("swap", "all", 4), ("opposite", "text", 4)]
    report = stress_models(scores_in_folds, corruptions=[c for c, _, _ in chosen])
    for corruption, subset, severity in chosen:
        results, said = slow_outputs(scores_in_folds, "lf_dnn", corruption, subset, severity)
        expected = [metrics.scores(o, results.y, results.task) for o in said]
        for metric in ("mae", "corr"):
            row = row_of(report, "lf_dnn", corruption, subset, severity, metric)
            assert row.mean == pytest.approx(np.mean([e[metric] for e in expected]), abs=1e-5)


def test_every_model_meets_every_condition_once(report):
    suite = [n for n, c in CORRUPTIONS.items() if not c.jointly]
    num = len(suite) * 4 * 6 + 10 + 8
    conditions = [(r.model, r.corruption, r.modalities, r.severity, r.metric) for r in report.rows]
    assert len(set(conditions)) == len(conditions) == num * len(MODELS) * 4
    assert report.subsets == ("text", "audio", "vision", "all")
    assert report.levels["gaussian"] == {0: 0, 1: 0.25, 2: 0.5, 3: 1, 4: 2, 5: 4}


def test_severity_0_is_what_the_runs_saved(trained, report):
    results = read_results(trained)
    for model in results.models:
        clean = np.mean([s["accuracy"] for s in results.scores(model)])
        found = {r.mean for r in report.rows if (r.model, r.severity, r.metric) == (model.name, 0, "accuracy")}
        assert found == {clean}


def test_a_modality_that_a_model_does_not_read_costs_it_nothing(report):
    for corruption in ("gaussian", "drop_modality", "opposite"):
        clean = row_of(report, "text_only", corruption, "audio", 0, "nll")
        for severity in range(1, 6):
            row = row_of(report, "text_only", corruption, "audio", severity, "nll")
            assert (row.mean, row.std, row.low, row.high) == (clean.mean, clean.std, clean.low, clean.high)
        hit = row_of(report, "text_only", corruption, "text", 5, "nll")
        assert hit.mean > clean.mean
        assert hit.mean == row_of(report, "text_only", corruption, "all", 5, "nll").mean


def test_the_summary_is_made_of_the_rows(report):
    (mre,) = [s for s in report.summary if s.model == "mre"]
    per_corruption = []
    for name in CORRUPTIONS:
        curves = [report.curve("mre", name, subset, "accuracy") for subset in report.subsets]
        per_corruption.append(np.mean([np.mean(list(c.values())[1:]) for c in curves if c]))
    accuracies = [r.mean for r in report.rows if (r.model, r.metric) == ("mre", "accuracy")]
    assert mre.mean == pytest.approx(np.mean(per_corruption))
    assert mre.worst == min(accuracies)
    assert report.curve("mre", mre.worst_at[0], mre.worst_at[1], "accuracy")[mre.worst_at[2]] == mre.worst
    assert mre.retention == pytest.approx(mre.mean / mre.clean)
    curve = list(report.curve("mre", "random_missing", "all", "accuracy").values())
    assert mre.area["random_missing"] == pytest.approx((sum(curve) - (curve[0] + curve[-1]) / 2) / 9)
    assert mre.mean_nll > mre.clean_nll


def test_the_difference_is_that_of_the_means(report):
    by = {s.model: s for s in report.summary}
    assert by["mre"].difference is None
    for name in ("text_only", "late_average"):
        s = by[name]
        assert s.against == "mre"
        assert s.difference == pytest.approx(s.mean - by["mre"].mean)
        assert s.low <= s.difference <= s.high
        assert s.p <= s.p_holm


def test_the_difference_of_scores_is_an_error_too(scores_in_folds):
    report = stress_models(scores_in_folds, corruptions=["gaussian"], severities=[5])
    by = {s.model: s for s in report.summary}
    assert by["audio_only"].difference == pytest.approx(by["audio_only"].mean - by["lf_dnn"].mean)
    assert by["lf_dnn"].worst > by["lf_dnn"].clean  # of errors, the largest is the worst
    assert by["lf_dnn"].clean_aurc is by["lf_dnn"].mean_ece is None
    assert any("no runs of mre" in n for n in report.notes)


def test_controls_stand_beside_whatever_is_asked_for(trained):
    report = stress_models(trained, ["mre"], ["drop_modality"], [5])
    assert list(report.titles) == ["mre", "text_only", "late_average"]
    assert report.controls == ("text_only", "late_average")
    assert {r.severity for r in report.rows} == {0, 5}


def test_without_controls_a_note_says_how_to_train_them(trained, tmp_path):
    shutil.copy(trained / "benchmark.json", tmp_path)
    shutil.copytree(trained / "mre", tmp_path / "mre")
    report = stress_models(tmp_path, corruptions=["shift"], severities=[1])
    assert any("moodal compare" in n and "text_only,audio_only,vision_only,late_average" in n for n in report.notes)


def test_fewer_clips_are_the_same_clips_every_time_and_named(trained):
    heard = []
    some = stress_models(
        trained,
        ["mre"],
        ["gaussian"],
        [3],
        max_clips=10,
        on_change=lambda done, total, what: heard.append((done, total, what)),
    )
    again = stress_models(trained, ["mre"], ["gaussian"], [3], max_clips=10)
    assert some.num_clips == 10
    assert some.as_dict() == again.as_dict()
    assert heard == [(0, 1, "gaussian, severity 3")]
    assert some.protocol[0].startswith("10 of ")


def test_an_input_differs_where_a_bit_of_it_does():
    a = Ragged(torch.arange(12.0).reshape(6, 2), torch.tensor([2, 0, 3, 1]))
    b = Ragged(a.values.clone(), a.lengths)
    b.values[4, 1] += 1e-6
    assert differs(a, b).tolist() == [False, False, True, False]
    assert differs(
        a, Batch({"text": a}).without("text", torch.tensor([True, True, False, False])).inputs["text"]
    ).tolist() == [
        True,
        False,
        False,
        False,
    ]


def test_the_risk_coverage_area_is_the_mean_error_of_the_surest():
    y = np.array([0, 0, 0, 0])
    logits = np.array([[4.0, 0], [0, 3.0], [2.0, 0], [0, 1.0]])  # right, wrong, right, wrong, ever less sure
    assert aurc(logits[None], y) == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    unsure = np.array([[1.0, 0], [0, 1.0], [1.0, 0], [0, 1.0]])
    assert aurc(unsure[None], y) == pytest.approx(0.5)
    assert aurc(np.stack([logits, unsure]), y) == pytest.approx((1 / 3 + 0.5) / 2)


# What is refused.


def test_what_does_not_exist_is_refused(trained, tmp_path):
    with pytest.raises(InputError, match="no corruption called 'noise'"):
        stress_models(trained, corruptions=["noise"])
    with pytest.raises(InputError, match="severities from 1 to 5, got"):
        stress_models(trained, corruptions=["swap"], severities=[7])
    with pytest.raises(InputError, match="severities from 1 to 5, got"):
        stress_models(trained, corruptions=["swap"], severities=[0])
    with pytest.raises(InputError, match="no corruption"):
        stress_models(trained, corruptions=[])
    with pytest.raises(InputError, match="two clips or more, got max_clips=1"):
        stress_models(trained, max_clips=1)
    with pytest.raises(InputError, match="holds no finished run of lmf; train it first"):
        stress_models(trained, ["lmf"])
    with pytest.raises(InputError, match="is not a runs folder"):
        stress_models(tmp_path)
    shutil.copy(trained / "benchmark.json", tmp_path)
    with pytest.raises(InputError, match="holds no finished run; train it first"):
        stress_models(tmp_path)


def test_data_that_are_not_there_or_not_the_same_are_refused(trained, simulated, tmp_path, edit):
    shutil.copytree(trained, tmp_path / "runs")
    edit(tmp_path / "runs" / "benchmark.json", path=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="nowhere, which does not exist here"):
        stress_models(tmp_path / "runs")

    simulate_sdme(tmp_path / "other", clips=160, seed=1)
    edit(tmp_path / "runs" / "benchmark.json", path=str(tmp_path / "other"))
    with pytest.raises(InputError, match="other has changed since"):
        stress_models(tmp_path / "runs")


def test_a_model_that_is_not_the_one_that_predicted_is_refused(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "runs")
    folder = tmp_path / "runs" / "mre" / "seed-0"
    shutil.copy(tmp_path / "runs" / "mre" / "seed-1" / "model.safetensors", folder)
    with pytest.raises(InputError, match="seed-0: the saved model no longer gives the predictions beside it"):
        stress_models(tmp_path / "runs", ["mre"], ["swap"], [1])
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="does not exist; train the run again"):
        stress_models(tmp_path / "runs", ["mre"], ["swap"], [1])


# What is shown.


def test_the_dictionary_is_json_and_has_the_names_that_were_promised(report):
    found = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert {"dataset", "protocol", "rows", "summary"} <= found.keys()
    names = ["model", "corruption", "modalities", "severity", "metric", "mean", "std", "low", "high", "num_runs"]
    assert list(found["rows"][0]) == names
    assert "MMSA, TFR-Net and LNLN write zeros" in found["protocol"]


def test_tables_round_and_csv_does_not(report):
    text, lines = as_text(report), as_csv(report).splitlines()
    assert headline(report) in text
    assert len(lines) == 1 + len(report.rows)
    for s in report.summary:
        assert re.search(rf"^{re.escape(s.title)} .*{100 * s.clean:.1f}.*{100 * s.mean:.1f}", text, re.MULTILINE)
    assert "| MRE |" in as_markdown(report)


def test_a_stress_folder_has_tables_pictures_and_a_page_that_loads_nothing(trained, tmp_path):
    report = stress_models(trained, corruptions=["gaussian", "modality_missing"], severities=[1, 5])
    files = write_stress(report, tmp_path / "stress")
    assert files[-1].name == "report.html"
    assert all(f.stat().st_size > 100 for f in files)
    page = files[-1].read_text(encoding="utf-8")
    assert page.count("<figure") == 5
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    drawn = {f.name for f in files if f.suffix == ".png"}
    assert drawn == {f"stress_{x}.png" for x in ("kept", "all", "text", "audio", "vision")}


def test_every_model_has_a_line_of_its_own(report):
    styles = line_styles(report)
    assert list(styles) == list(report.titles)
    assert len({(s["color"], str(s["ls"]), s["marker"]) for s in styles.values()}) == len(styles)
    (together,) = [p for p in draw_stress(report) if p.name == "stress_all"]
    panels = [ax for ax in together.figure.axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in panels] == [c.title for c in CORRUPTIONS.values()]
    assert all(len(ax.lines) == len(styles) for ax in panels)
