"""Relevance is measured on saved models of a small simulation, and on planted ones that know, or are, the truth."""

import base64
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from moodal.batch import Batch, Ragged
from moodal.benchmark.relevance import measure_relevance
from moodal.benchmark.relevance_estimates import exchanged, removals, split_by_agreement, trend
from moodal.benchmark.relevance_printing import as_markdown, as_text, write_relevance
from moodal.benchmark.relevance_probes import (
    NOISE,
    OTHER,
    SILENCE,
    STRENGTHS,
    Condition,
    ask,
    draw_donors,
    draw_noise,
    perturbed,
    spread_of,
    with_noise,
)
from moodal.benchmark.relevance_report import Question, verdict_of
from moodal.benchmark.relevance_statistics import Estimate, Resamples, auroc_of, mean_of, rank_correlation_of
from moodal.config import Settings
from moodal.data.simulate import read_truth, simulate_sdme
from moodal.data.store import FeatureSpec, new_dataset, read_dataset
from moodal.experiment import Run, load_model
from moodal.files import write_json
from moodal.models import FusionModel, Output
from moodal.training.loop import predict
from moodal.training.plan import benchmark_facts, plan_experiments
from moodal.training.runs import train_run
from moodal.types import MODALITIES, InputError, Task, Utterance

QUICK = {"epochs": "2", "hidden": "8", "batch_size": "32"}
ESTIMATES = {"auroc", "oracle_auroc", "spearman", "mean", "change", "falls", "share", "cost", "saved"} | {
    "loss",
    "exchanged",
    "equal",
}


def train_into(root, folder, names, seeds=2, task=None):
    """What ``moodal compare`` leaves, made in this process."""
    data = read_dataset(folder, task=task)
    write_json(root / "benchmark.json", benchmark_facts(data))
    for experiment in plan_experiments(data, names, seeds, Settings(QUICK)):
        train_run(folder, Run.of(root, experiment))
    return root


@pytest.fixture(scope="module")
def sdme(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdme") / "data"
    simulate_sdme(folder, clips=200)
    return folder


@pytest.fixture(scope="module")
def trained(sdme, tmp_path_factory):
    return train_into(tmp_path_factory.mktemp("trained"), sdme, ["mre", "lda_product"])


@pytest.fixture(scope="module")
def report(trained):
    return measure_relevance(trained)


@pytest.fixture(scope="module")
def said(trained, sdme):
    """Saved predictions on test of both seeds, and the utterances they are of."""
    files = [trained / "mre" / f"seed-{s}" / "predictions.parquet" for s in (0, 1)]
    tables = [pq.read_table(f, filters=[("split", "=", "test")]).to_pandas().sort_values("id") for f in files]
    where = {u.id: u for u in read_dataset(sdme).utterances}
    return tables, [where[i] for i in tables[0]["id"]]


def named(rows, **wanted):
    return [r for r in rows if all(getattr(r, k) == v for k, v in wanted.items())]


def one(rows, **wanted):
    (found,) = named(rows, **wanted)
    return found


# What stands in saved predictions.


@pytest.mark.parametrize("modality", MODALITIES)
def test_auroc_is_that_of_sklearn_on_the_saved_predictions(report, said, modality):
    tables, utterances = said
    agrees = [u.modality_labels[modality] == u.label for u in utterances]
    expected = np.mean([roc_auc_score(agrees, t[f"relevance_{modality}"]) for t in tables])
    row = one(report.rows, model="mre", modality=modality)
    assert row.auroc.value == pytest.approx(expected, abs=1e-9)
    assert row.auroc.low < row.auroc.value < row.auroc.high
    assert (row.num_runs, row.num_clips) == (2, len(utterances))


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_oracle_is_the_auroc_of_the_exact_posterior(report, said, sdme, modality):
    _, utterances = said
    truth = read_truth(sdme, [u.id for u in utterances])
    at = MODALITIES.index(modality)
    expected = roc_auc_score(truth.agree[:, at], truth.relevance[:, at])
    assert one(report.rows, modality=modality).oracle_auroc.value == pytest.approx(expected, abs=1e-9)


def test_mean_relevance_is_that_of_the_saved_predictions(report, said):
    for m in MODALITIES:
        expected = np.mean([t[f"relevance_{m}"].mean() for t in said[0]])
        assert one(report.rows, modality=m).mean.value == pytest.approx(expected, abs=1e-6)
        assert one(report.response, modality=m, condition="none").mean.value == pytest.approx(expected, abs=1e-4)


def test_without_a_model_of_one_modality_the_judge_is_fitted_here(report):
    row = one(report.rows, modality="vision")
    assert row.unimodal == "LDA on vision"
    assert -1 <= row.spearman.low <= row.spearman.value <= row.spearman.high <= 1


def test_a_trained_model_of_one_modality_is_the_judge(sdme, tmp_path):
    root = train_into(tmp_path, sdme, ["mre", "text_only"], seeds=1)
    found = measure_relevance(root)
    assert one(found.rows, modality="text").unimodal == "text only"
    assert one(found.rows, modality="audio").unimodal == "LDA on audio"


def test_accuracy_where_modalities_agree_and_conflict_adds_up(report, said):
    tables, utterances = said
    parts = named(report.agreement, model="mre")
    total = sum(p.mean.value * p.num_clips for p in parts) / len(utterances)
    assert sum(p.num_clips for p in parts) == len(utterances)
    assert total == pytest.approx(np.mean([(t["predicted"] == t["label"]).mean() for t in tables]))
    assert {p.by for p in parts} == {"labels"}
    conflict = sum(len(set(u.modality_labels.values())) > 1 for u in utterances)
    assert one(parts, subset="conflict").num_clips == conflict
    assert named(report.agreement, model="lda_product")
    assert named(report.agreement, model="exact posterior")


# What the saved models say again.


def test_a_missing_modality_has_no_relevance_and_a_removal_is_that_run_of_the_model(report):
    for m in MODALITIES:
        silence = one(report.response, model="mre", modality=m, condition=SILENCE)
        assert silence.mean.value == 0
        assert silence.falls.value == 1
        assert silence.change.value == pytest.approx(-one(report.rows, modality=m).mean.value, abs=1e-4)
    found = {r.removed: r for r in report.deletion}
    assert set(found) == {"none", "lowest", "random", "highest", "lowest_on_average"}
    for r in found.values():
        if r.cost is not None:
            assert r.cost.value == pytest.approx(found["none"].mean.value - r.mean.value)
    saved = found["random"].saved.value
    assert saved == pytest.approx(found["random"].cost.value - found["lowest"].cost.value)


def test_every_strength_of_noise_has_a_row(report):
    rows = named(report.response, modality="audio", condition=NOISE)
    assert [r.strength for r in rows] == list(STRENGTHS)
    assert {r.modality for r in report.monotone} == set(MODALITIES)


def test_a_model_without_relevance_is_named_and_its_accuracy_told(report):
    assert "No relevance to measure: product of LDA experts." in report.notes
    assert {r.model for r in report.rows} == {"mre"}


def test_the_same_runs_give_the_same_report(trained, report):
    again = measure_relevance(trained, ["mre"])
    assert again.rows == report.rows
    assert again.response == report.response
    assert again.deletion == report.deletion
    assert not any("No relevance" in s for s in again.notes)


# Planted models: pure functions, known answers.


class Planted(FusionModel):
    """Reads the first feature of each modality as its relevance; answers with the sum of relevance times the second."""

    def fuse(self, batch):
        first, second = (torch.stack([batch.inputs[m].mean()[:, i] for m in self.modalities], dim=1) for i in (0, 1))
        answer = (first * second).sum(1)
        return Output(torch.stack([-answer, answer], dim=1), relevance=first)


def planted(relevance, evidence):
    """(B, M) each -> a batch of raw features that ``Planted`` reads so, and the model."""
    torch.manual_seed(0)
    inputs = {
        m: Ragged.from_rows(torch.tensor(np.stack([relevance[:, i], evidence[:, i]], 1), dtype=torch.float32))
        for i, m in enumerate(MODALITIES)
    }
    model = Planted(dict.fromkeys(MODALITIES, 2), Task(("no", "yes")), text_pooling="mean", standardise="scale")
    return Batch(inputs, ids=[f"u{i}" for i in range(len(relevance))]), model


def test_relevance_that_is_the_truth_has_the_auroc_of_the_oracle(sdme):
    ids = [u.id for u in read_dataset(sdme).utterances]
    truth = read_truth(sdme, ids)
    batch, model = planted(truth.relevance, np.ones((len(ids), 3)))
    (answer,) = ask([model], batch)
    draws = Resamples(np.array(ids))
    for i in range(3):
        agrees = truth.agree[:, i].astype(float)
        planted_in = draws.estimate(auroc_of(answer.relevance[None, :, i], agrees))
        oracle = draws.estimate(auroc_of(truth.relevance[None, :, i], agrees))
        assert planted_in.value == pytest.approx(oracle.value, abs=1e-6)
        assert planted_in.value > 0.8
        assert (planted_in.low, planted_in.high) == pytest.approx((oracle.low, oracle.high), abs=1e-6)


def test_removing_a_modality_of_no_relevance_changes_nothing():
    rng = np.random.default_rng(0)
    relevance = np.array([[0.0, 0.4, 0.6], [0.7, 0.0, 0.3], [0.5, 0.5, 0.0]])[rng.integers(3, size=60)]
    batch, model = planted(relevance, rng.normal(size=(60, 3)))
    (before,) = ask([model], batch)
    after = np.stack([ask([model], batch.without(m))[0].logits for m in MODALITIES], axis=-1)  # (N, C, M)
    shares = removals(before.relevance[None], np.ones((60, 3), dtype=bool))
    np.testing.assert_allclose((after * shares["lowest"][0][:, None]).sum(-1), before.logits, atol=1e-6)
    assert np.abs((after * shares["highest"][0][:, None]).sum(-1) - before.logits).max() > 0.1


def test_an_exchange_moves_the_highest_and_the_lowest_of_what_is_present():
    r = np.array([[[0.2, 0.7, 0.1], [0.5, 0.0, 0.3], [0.4, 0.0, 0.0]]])
    present = np.array([[True, True, True], [True, False, True], [True, False, False]])
    assert exchanged(r, present).tolist() == [[[0.2, 0.1, 0.7], [0.3, 0.0, 0.5], [0.4, 0.0, 0.0]]]


def test_what_an_exchange_costs_is_that_of_a_slow_loop(report, trained, sdme):
    data = read_dataset(sdme)
    batch = data.batch.select(data.index(split="test"))
    lost = []
    for seed in (0, 1):
        output = predict(model := load_model(trained / "mre" / f"seed-{seed}"), model.pool(batch))
        for i in range(len(batch)):
            p = [float(output.unimodal_logits[m][i].softmax(0)[batch.labels[i]]) for m in model.modalities]
            own = output.relevance[i].tolist()
            other = list(own)
            low, high = own.index(min(own)), own.index(max(own))
            other[low], other[high] = own[high], own[low]
            mean = [sum(w * x for w, x in zip(r, p, strict=True)) / sum(r) for r in (own, other)]
            lost.append(math.log(mean[0]) - math.log(mean[1]))
    assert one(report.exchange, model="mre").exchanged.value == pytest.approx(np.mean(lost), abs=1e-5)


def test_removals_take_present_modalities_only():
    relevance = np.array([[[0.0, 0.3, 0.7], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]]])
    present = np.array([[False, True, True], [True, True, True], [True, True, False]])
    found = removals(relevance, present)
    assert found["lowest"].argmax(-1).tolist() == [[1, 0, 0]]
    assert found["highest"].argmax(-1).tolist() == [[2, 1, 1]]
    assert found["lowest_on_average"].argmax(-1).tolist() == [[1, 0, 0]]  # means .15, .33, .50
    np.testing.assert_allclose(found["random"][0], [[0, 0.5, 0.5], [1 / 3] * 3, [0.5, 0.5, 0]])


def test_noise_of_strength_zero_changes_nothing():
    x = Ragged(torch.randn(7, 3), torch.tensor([2, 0, 5]))
    noise = draw_noise(x, "audio", ["a", "b", "c"])
    assert torch.equal(with_noise(x, noise, spread_of(x), 0.0).values, x.values)
    assert not torch.equal(with_noise(x, noise, spread_of(x), 1.0).values, x.values)


def test_noise_has_unit_variance_half_of_it_shared_and_belongs_to_the_utterance():
    ids = [f"u{i}" for i in range(400)]
    x = Ragged(torch.zeros(400 * 20, 5), torch.full((400,), 20))
    noise = draw_noise(x, "audio", ids)
    assert noise.var().item() == pytest.approx(1, abs=0.05)
    means = noise.view(400, 20, 5).mean(1)
    assert means.var().item() == pytest.approx(0.5 + 0.5 / 20, abs=0.05)
    alone = draw_noise(x.select(torch.tensor([7])), "audio", ["u7"])
    assert torch.equal(alone, noise.view(400, 20, 5)[7])
    assert not torch.equal(draw_noise(x, "text", ids), noise)


def test_a_column_that_never_varies_gets_no_noise():
    x = Ragged(torch.tensor([[1.0, 2.0], [1.0, 4.0]]), torch.tensor([1, 1]))
    changed = with_noise(x, draw_noise(x, "text", ["a", "b"]), spread_of(x), 4.0).values
    assert torch.equal(changed[:, 0], x.values[:, 0])
    assert not torch.equal(changed[:, 1], x.values[:, 1])


def test_donors_are_of_another_class_have_the_modality_and_do_not_mean_this_class_themselves():
    rng = np.random.default_rng(1)
    present = torch.tensor(rng.random(40) < 0.8)
    classes, own = (torch.tensor(rng.integers(3, size=40)) for _ in range(2))
    batch = Batch({"audio": Ragged.from_rows(torch.randn(40, 2), present)}, ids=[str(i) for i in range(40)])
    donors = draw_donors("audio", batch, classes, own)
    assert (classes[donors] != classes).all()
    assert (own[donors] != classes).all()
    assert present[donors].all()
    assert len(set(donors.tolist())) > 5
    assert torch.equal(donors, draw_donors("audio", batch, classes, own))


def test_without_another_class_nothing_is_exchanged():
    batch, _ = planted(np.ones((4, 3)), np.ones((4, 3)))
    spread = {m: torch.ones(2) for m in MODALITIES}
    for condition, changed, concerned in perturbed(batch, spread, torch.zeros(4, dtype=torch.int64), {}):
        if condition.kind == OTHER:
            assert not concerned.any()
            assert torch.equal(changed.inputs[condition.modality].values, batch.inputs[condition.modality].values)


def test_features_of_another_class_go_where_the_modality_was_right():
    batch, _ = planted(np.ones((4, 3)), np.ones((4, 3)))
    classes, own = torch.tensor([0, 0, 1, 1]), {"audio": torch.tensor([0, 1, 1, 0])}
    found = perturbed(batch, {m: torch.ones(2) for m in MODALITIES}, classes, own)
    concerned = {c: who.tolist() for c, _, who in found}
    assert concerned[Condition("audio", OTHER)] == [True, False, True, False]
    assert concerned[Condition("text", OTHER)] == [True] * 4
    assert concerned[Condition("audio", NOISE, 1.0)] == [True] * 4


def test_only_the_modality_that_is_named_is_spoilt():
    batch, _ = planted(np.ones((4, 3)), np.ones((4, 3)))
    for condition, changed, _ in perturbed(
        batch, {m: torch.ones(2) for m in MODALITIES}, torch.tensor([0, 1, 0, 1]), {}
    ):
        for m in MODALITIES:
            same = torch.equal(changed.inputs[m].values, batch.inputs[m].values)
            assert same or m == condition.modality


def test_trend_is_spearmans_correlation_with_the_strength():
    path = np.random.default_rng(2).normal(size=(6, 5))
    expected = [spearmanr(row, np.arange(5)).statistic for row in path]
    np.testing.assert_allclose(trend(path), expected)
    assert trend(np.full((2, 5), 0.3)).tolist() == [0, 0]


def test_agreement_needs_two_that_say_something():
    said = {"text": np.array([0, 0, 1, -1]), "audio": np.array([0, 1, -1, 1]), "vision": np.array([0, 1, -1, 1])}
    present = {m: np.array([True, True, True, True]) for m in said} | {"vision": np.array([True, True, True, False])}
    found = split_by_agreement(said, present)
    assert found["agree"].tolist() == [True, False, False, False]
    assert found["conflict"].tolist() == [False, True, False, False]


# Statistics.


def test_weights_count_like_copies():
    rng = np.random.default_rng(3)
    x, y = rng.integers(6, size=(2, 30)).astype(float), rng.normal(size=30)
    positive = (rng.random(30) < 0.5).astype(float)
    w = rng.integers(4, size=30)
    rows = np.repeat(np.arange(30), w)
    for r, (auc, rho) in enumerate(
        zip(auroc_of(x, positive)(w[None] * 1.0)[0], rank_correlation_of(x, y)(w[None] * 1.0)[0], strict=True)
    ):
        assert auc == pytest.approx(roc_auc_score(positive[rows], x[r][rows]))
        assert rho == pytest.approx(spearmanr(x[r][rows], y[rows]).statistic)


def test_what_is_not_known_does_not_count():
    x = np.array([[0.1, 0.9, 0.4, 0.3]])
    some = np.array([0, 1, np.nan, 0])
    ones = np.ones((1, 4))
    assert auroc_of(x, some)(ones)[0, 0] == 1
    assert mean_of(np.array([[1.0, np.nan, 3.0, np.nan]]))(ones)[0, 0] == 2
    assert np.isnan(auroc_of(x, np.full(4, np.nan))(ones)[0, 0])
    assert rank_correlation_of(np.full((1, 4), 0.3), np.arange(4.0))(ones)[0, 0] == 0


def test_an_estimate_without_any_utterance_is_none():
    draws = Resamples(np.array(["a", "b", "c"]))
    assert draws.estimate(mean_of(np.full((2, 3), np.nan))) is None
    assert draws.estimate(auroc_of(np.ones((1, 3)), np.ones(3))) is None
    assert draws.estimate(auroc_of(np.ones((1, 3)), np.full(3, np.nan))) is None
    assert draws.estimate(rank_correlation_of(np.ones((1, 3)), np.full(3, np.nan))) is None


def test_utterances_of_one_group_are_drawn_together():
    rng = np.random.default_rng(4)
    per_group = np.repeat(rng.normal(size=20), 30)[None]
    groups = np.repeat([f"g{i}" for i in range(20)], 30)
    together = Resamples(groups).estimate(mean_of(per_group))
    apart = Resamples(np.arange(600).astype(str)).estimate(mean_of(per_group))
    assert together.high - together.low > 3 * (apart.high - apart.low)
    deviation = per_group[0, ::30].std(ddof=1) / math.sqrt(20)
    assert together.high - together.low == pytest.approx(2 * 1.96 * deviation, rel=0.15)


def test_of_a_single_group_utterances_are_drawn():
    draws = Resamples(np.array(["g"] * 5))
    assert draws.alone
    assert draws.num_groups == 5


# The verdict.


def test_a_question_is_answered_where_the_interval_leaves_chance():
    estimates = [Estimate(0.8, 0.7, 0.9), Estimate(0.6, 0.4, 0.8), Estimate(0.2, 0.1, 0.3)]
    higher = Question("higher", "lower", estimates, 0.5, above=True)
    assert (higher.passed, higher.failed) == (1, 1)
    assert higher.words == "higher in 1 of 3 modalities (in 1 lower)"
    lower = Question("lower", "higher", estimates[2:], 0.5, above=False)
    assert lower.words == "lower in 1 of 1 modalities"


def test_relevance_passes_where_every_interval_is_on_the_right_side(report):
    good, low, high = Estimate(0.9, 0.8, 0.95), Estimate(-0.5, -0.6, -0.4), Estimate(0.2, 0.1, 0.3)
    perfect = replace(
        report,
        rows=tuple(replace(r, auroc=good, spearman=low) for r in report.rows),
        response=tuple(replace(r, falls=good) for r in report.response),
        monotone=tuple(replace(r, spearman=low) for r in report.monotone),
        deletion=tuple(replace(r, saved=high) for r in report.deletion),
    )
    head, sentence = verdict_of(perfect)
    assert head == "The relevance of MRE passes every test."
    assert "20.0 points of accuracy [10.0, 30.0] less than a random one" in sentence
    row = replace(perfect.rows[0], auroc=Estimate(0.6, 0.49, 0.7))
    assert "does not pass" in verdict_of(replace(perfect, rows=(row, *perfect.rows[1:])))[0]
    worse = tuple(replace(r, saved=Estimate(-0.2, -0.3, -0.1)) for r in perfect.deletion)
    head, sentence = verdict_of(replace(perfect, deletion=worse))
    assert "does not pass" in head
    assert "20.0 points of accuracy [10.0, 30.0] more than a random one" in sentence


# Folds, missing modalities, scores.


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    """Three folds, no labels of modalities, sound missing now and then; also with scores."""
    folder, rng = tmp_path_factory.mktemp("folded") / "data", np.random.default_rng(5)
    classes, dims = ("calm", "angry"), {"text": 3, "audio": 2}
    utterances = [
        Utterance(f"u{i:02d}", label=classes[i % 2], score=i % 2 - 0.5 + i / 1000, group=f"g{i // 4}", fold=i // 4 % 3)
        for i in range(72)
    ]
    with new_dataset(folder) as out:
        for m, dim in dims.items():
            clips = [rng.normal(i % 2, 1, (int(rng.integers(1, 5)), dim)).astype(np.float32) for i in range(72)]
            kept = [None if m == "audio" and i % 9 == 0 else x for i, x in enumerate(clips)]
            out.write_features(FeatureSpec("toy", "1", m, dim), [u.id for u in utterances], kept)
        out.finish(utterances, Task(classes, -1, 1), name="folded")
    return folder


def test_folds_are_pooled_and_a_missing_modality_does_not_count(folded, tmp_path):
    found = measure_relevance(train_into(tmp_path, folded, ["mre", "lda"], seeds=1))
    text, audio = (one(found.rows, modality=m) for m in ("text", "audio"))
    assert (text.num_clips, audio.num_clips) == (72, 64)
    assert text.auroc is None
    assert text.oracle_auroc is None
    assert text.unimodal == "LDA on text"
    assert text.spearman is not None
    assert one(found.response, modality="audio", condition=OTHER).num_clips == 64
    assert {r.num_clips for r in found.deletion} == {64}
    assert {r.by for r in found.agreement} == {"unimodal"}
    assert not any("differ by up to" in s for s in found.notes)
    assert "no AUROC" in " ".join(found.protocol)
    assert "3 folds" in " ".join(found.protocol)
    assert "AUROC" not in as_text(found).splitlines()[2]


def test_scores_are_judged_by_their_error(folded, tmp_path):
    root = train_into(tmp_path, folded, ["mre@text_pooling=mean", "text_only@text_pooling=mean"], 1, "regression")
    found = measure_relevance(root)
    assert one(found.rows, modality="text").spearman is not None
    assert one(found.rows, modality="audio").spearman is None
    assert {r.metric for r in found.deletion} == {"mae"}
    lowest, none = (one(found.deletion, removed=k) for k in ("lowest", "none"))
    assert lowest.cost.value == pytest.approx(lowest.mean.value - none.mean.value)
    assert found.agreement == ()
    write_relevance(found, tmp_path / "out")


# Refusals.


def test_no_model_with_relevance_is_refused(sdme, trained, tmp_path):
    with pytest.raises(InputError, match=r"none of lda_product in .* how relevant"):
        measure_relevance(trained, ["lda_product"])
    with pytest.raises(InputError, match="did you mean 'mre'"):
        measure_relevance(trained, ["mre2"])
    with pytest.raises(InputError, match="not a runs folder"):
        measure_relevance(tmp_path)


def test_another_data_set_is_refused(trained, tmp_path):
    simulate_sdme(tmp_path / "other", clips=200, seed=1)
    with pytest.raises(InputError, match=r"is not the data set that .* or it has changed"):
        measure_relevance(trained, dataset=tmp_path / "other")
    with pytest.raises(InputError, match="does not exist here; say where it is"):
        measure_relevance(trained, dataset=tmp_path / "nowhere")


def test_a_changed_data_set_is_refused(sdme, trained, tmp_path):
    copy = shutil.copytree(sdme, tmp_path / "copy")
    assert measure_relevance(trained, ["mre"], copy).dataset == "SDME simulated"
    next((copy / "features" / "text").glob("*.parquet")).write_bytes(b"changed")
    with pytest.raises(InputError, match="has changed since it was written"):
        measure_relevance(trained, ["mre"], copy)


def test_a_model_that_answers_differently_today_is_said(trained, report, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "copy")
    file = copy / "mre" / "seed-0" / "predictions.parquet"
    table = pq.read_table(file)
    at = table.column_names.index("relevance_text")
    pq.write_table(table.set_column(at, "relevance_text", pa.array(table["relevance_text"].to_numpy() + 0.1)), file)
    assert not any("train it again" in s for s in report.notes)
    assert any("differ by up to 0.1" in s for s in measure_relevance(copy).notes)


# What is printed.


def test_the_report_is_json_with_the_promised_names(report):
    found = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert {
        "dataset",
        "protocol",
        "verdict",
        "rows",
        "response",
        "monotone",
        "deletion",
        "exchange",
        "agreement",
        "notes",
    } == set(found)
    names = {"model", "modality", "auroc", "low", "high", "oracle_auroc", "mean", "spearman", "num_runs", "num_clips"}
    assert names <= set(found["rows"][0])
    row = found["rows"][0]
    assert row["low"] <= row["auroc"] <= row["high"]
    assert row["mean_low"] <= row["mean"] <= row["mean_high"]
    assert row["oracle_low"] <= row["oracle_auroc"] <= row["oracle_high"]
    assert found["deletion"][1]["cost_low"] <= found["deletion"][1]["cost"] <= found["deletion"][1]["cost_high"]
    assert found["response"][1]["falls_low"] <= found["response"][1]["falls"]


def test_everything_is_written_and_the_page_loads_nothing(report, tmp_path):
    files = write_relevance(report, tmp_path / "relevance")
    names = {f.relative_to(tmp_path / "relevance").as_posix() for f in files}
    pictures = {f"figures/{n}.{k}" for n in ("signal", "response", "deletion", "agreement") for k in ("png", "svg")}
    assert names == {"table.txt", "table.md", "relevance.json", "relevance.html", *pictures}
    assert all(f.stat().st_size > 0 for f in files)
    page = files[-1].read_text()
    assert files[-1].name == "relevance.html"
    assert page.count("data:image/svg+xml;base64,") == 4
    assert "://" not in page
    assert "<script" not in page
    svg = (tmp_path / "relevance" / "figures" / "signal.svg").read_bytes()
    assert base64.b64encode(svg).decode() in page
    assert page.count("<table>") == 5


def test_tables_say_the_verdict_and_every_row(report):
    for text in (as_text(report), as_markdown(report)):
        assert "MRE" in text
        assert "test" in text
        assert report.verdict[0] in text
    assert sum(line.startswith("| MRE | ") for line in as_markdown(report).splitlines()) == 3 + 3 + 1 + 1 + 1
    assert len(report.verdict) == 2
