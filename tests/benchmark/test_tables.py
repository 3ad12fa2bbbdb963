import numpy as np
import pytest

from moodal import metrics
from moodal.benchmark import statistics
from moodal.benchmark.comparison import better, share_of_gap
from moodal.benchmark.results import read_results
from moodal.benchmark.tables import compare_results
from moodal.types import InputError, Task

SENTIMENT = Task(metrics.SENTIMENT)
MOSI = Task(low=-3, high=3)
SIMS = Task(low=-1, high=1)


def compare(folder, **options):
    return compare_results(read_results(folder.root), **{"resamples": 100, **options})


def contrast(comparison, model, against, metric=None):
    metric = metric or comparison.main
    return next(x for x in comparison.paired if (x.model, x.against, x.metric) == (model, against, metric))


# Numbers.


@pytest.mark.parametrize("task", [SENTIMENT, MOSI, SIMS], ids=["classes", "-3 to 3", "-1 to 1"])
def test_every_test_row_is_the_mean_over_seeds_with_an_interval_around_it(runs, task):
    folder = runs(task)
    said = folder.add("mre", 0.6)

    comparison = compare(folder)

    expected = [metrics.scores(o, folder.y, task) for o in said]
    rows = {r.metric: r for r in comparison.rows if r.split == "test"}
    assert rows.keys() == {k for k in expected[0] if not k.startswith("mmsa_")}
    for name, row in rows.items():
        values = [e[name] for e in expected]
        assert row.mean == pytest.approx(np.mean(values))
        assert row.std == pytest.approx(np.std(values, ddof=1))
        assert row.num_runs == 3
        if name == "ece":
            assert (row.low, row.high) == (None, None)
        else:
            assert row.low <= row.mean <= row.high
            results = read_results(folder.root)
            interval = statistics.interval(said, folder.y, task, name, results.groups, resamples=100)
            assert (row.low, row.high) == pytest.approx(interval)


def test_valid_rows_have_no_interval_because_valid_chose_the_model(runs):
    folder = runs()
    folder.add("mre", valid=0.65)

    row = compare(folder).row("mre", "accuracy", "valid")

    assert (row.mean, row.std, row.low, row.high, row.num_runs) == (pytest.approx(0.65), 0.0, None, None, 3)


def test_the_wrong_metric_of_the_reference_package_is_shown_only_to_those_who_ask(runs):
    folder = runs(SENTIMENT)
    folder.add("mre")

    assert compare(folder).row("mre", "mmsa_acc2_non0") is None
    asked = compare(folder, metrics_shown=["mmsa_acc2_non0"])
    assert asked.row("mre", "mmsa_acc2_non0") is not None
    assert asked.shown == ("accuracy", "mmsa_acc2_non0")


def test_an_unknown_metric_is_refused_with_its_nearest_name(runs):
    folder = runs()
    folder.add("mre")

    with pytest.raises(InputError, match="no metric called 'f1_weightd'; did you mean 'f1_weighted'"):
        compare(folder, metrics_shown=["f1_weightd"])


def test_a_metric_that_these_utterances_do_not_have_gets_no_row(runs):
    folder = runs(SENTIMENT)
    folder.y[:] = 1  # all neutral: Non0 counts nobody
    folder.add("mre")

    comparison = compare(folder)

    assert comparison.row("mre", "acc2_non0") is None
    assert comparison.row("mre", "acc2_has0") is not None


def test_one_seed_has_no_spread_and_the_protocol_says_what_that_means(runs):
    folder = runs()
    folder.add("mre", seeds=(0,))

    comparison = compare(folder)

    assert comparison.row("mre", "accuracy").std == 0.0
    assert "1 seed per model: nothing is known of how much another seed would change." in comparison.protocol
    assert "for that run alone" in " ".join(comparison.protocol)


# Differences.


def test_every_candidate_meets_every_control_and_variants_meet_the_full_model(runs):
    folder = runs()
    for name in ("mre", "mre_rs", "lda", "lf_dnn"):
        folder.add(name)

    pairs = {(x.model, x.against, x.family) for x in compare(folder).paired if x.metric == "accuracy"}

    against_controls = {(a, b, "controls") for a in ("mre", "mre_rs") for b in ("lda", "lf_dnn")}
    assert pairs == against_controls | {("mre_rs", "mre", "ablations")}


def test_p_is_corrected_within_each_family_and_only_for_the_main_metric(runs):
    folder = runs()
    for name, right in (("mre", 0.7), ("mre_rs", 0.66), ("mre_cnce", 0.55), ("lda", 0.8), ("lf_dnn", 0.6)):
        folder.add(name, right)

    paired = compare(folder).paired

    for family in ("controls", "ablations"):
        of_main = [x for x in paired if (x.family, x.metric) == (family, "accuracy")]
        assert [x.p_holm for x in of_main] == statistics.holm([x.p for x in of_main])
    assert {x.p_holm for x in paired if x.metric == "f1_weighted"} == {None}


def test_differences_are_model_minus_control_on_the_same_utterances(runs):
    folder = runs()
    a, b = folder.add("mre", 0.6), folder.add("lda", 0.9)

    x = contrast(compare(folder), "mre", "lda")

    right = [(o.argmax(-1) == folder.y).mean() for o in (a, b)]
    assert x.difference == pytest.approx(right[0] - right[1])
    assert x.low <= x.difference <= x.high < 0
    assert better(x) == -1


def test_a_large_family_can_still_show_a_difference(runs):
    """Holm multiplies the smallest p by the family's size, so the number of resamples must grow with it."""
    folder = runs(num=150)
    folder.add("mre", 1.0)
    names = ["lda", *(f"lda@prior={i}" for i in range(29))]
    for name in names:
        folder.add(name, 0.4)

    comparison = compare(folder, resamples=100)

    assert len([x for x in comparison.paired if x.metric == "accuracy"]) == 30
    assert all(x.p_holm < 0.05 for x in comparison.paired if x.metric == "accuracy")


def test_the_yardstick_is_best_on_test_and_the_candidate_is_best_on_valid(runs):
    folder = runs(num=150)
    folder.add("mre", 0.55, valid=0.9)
    folder.add("mre_rs", 0.75, valid=0.5)
    folder.add("lda", 0.6, valid=0.9)
    folder.add("lf_dnn", 0.8, valid=0.5)

    comparison = compare(folder)

    assert comparison.best_candidate["accuracy"] == "mre"
    assert comparison.best_control["accuracy"] == "lf_dnn"


def test_for_errors_less_is_better(runs):
    folder = runs(MOSI)
    folder.add("mre", 0.3)
    folder.add("lda", 0.9)
    folder.add("text_only", 0.1)

    comparison = compare(folder)

    assert comparison.main == "mae"
    assert comparison.best_control["mae"] == "lda"
    assert contrast(comparison, "mre", "lda").difference > 0
    assert better(contrast(comparison, "mre", "lda")) == -1
    assert comparison.verdict[0].startswith("The control LDA on the concatenation is ahead of MRE by 0.")
    assert " of mae [0." in comparison.verdict[0]


# Words.


def test_a_control_that_wins_is_said_to_win(runs):
    folder = runs(num=150)
    folder.add("mre", 0.5)
    folder.add("lda", 0.95)

    comparison = compare(folder)

    x = contrast(comparison, "mre", "lda")
    size = f"{-100 * x.difference:.1f} points of accuracy [{-100 * x.high:.1f}, {-100 * x.low:.1f}]"
    assert (
        comparison.verdict[0]
        == f"The control LDA on the concatenation is ahead of MRE by {size}, p_holm = {x.p_holm:.3f}."
    )


def test_a_candidate_that_wins_is_said_to_win(runs):
    folder = runs(num=150)
    folder.add("mre", 0.95)
    folder.add("lda", 0.5)

    assert compare(folder).verdict[0].startswith("MRE is ahead of the strictest control, LDA on the concatenation, by ")


def test_equal_models_show_no_difference(runs):
    folder = runs()
    same = [folder.outputs(0.7) for _ in range(3)]
    folder.add("mre", outputs=same)
    folder.add("lda", outputs=same)

    assert compare(folder).verdict[0].startswith("No difference is shown between MRE and the strictest control, LDA")


def test_variants_are_said_to_be_worse_than_the_full_model_or_not(runs):
    folder = runs(num=150)
    folder.add("mre", 0.9)
    folder.add("mre_rs", 0.3)

    said = compare(folder).verdict[1]

    assert said.startswith("Against the full MRE, in % accuracy: MRE, L_rs only −")
    assert "(worse, p_holm" in said


def test_without_controls_or_candidates_the_verdict_says_what_is_missing(runs):
    alone, controls = runs(), runs()
    alone.add("mre")
    controls.add("lda")

    assert "No control was run, so nothing says how good that is." in compare(alone).verdict[0]
    assert compare(controls).verdict[0].startswith("The best control, LDA on the concatenation reaches ")
    assert compare(controls).verdict[0].endswith("No candidate was run.")


def test_a_model_that_gives_one_answer_in_any_seed_is_flagged_and_said(runs):
    folder = runs()
    always_sad = np.tile([0.0, 0.0, 1.0], (60, 1))
    folder.add("mre", seeds=(0, 1), outputs=[folder.outputs(0.8), always_sad])
    folder.add("lda")

    comparison = compare(folder)

    assert comparison.constant == {"mre": (1,)}
    assert "MRE gives one answer to every utterance in 1 run (seed 1)" in comparison.verdict[-1]


def test_a_model_that_gives_one_answer_per_fold_is_flagged(runs):
    folder = runs(folds=2)
    of_fold = [sorted(set(folder.groups)).index(g) % 2 for g in folder.groups]
    folder.add("mre", seeds=(0,), outputs=[np.eye(3)[of_fold]])

    assert compare(folder).constant == {"mre": (0,)}


def test_a_constant_score_is_flagged_too(runs):
    folder = runs(SIMS)
    folder.add("mre", seeds=(0,), outputs=[np.full((60, 1), 0.1)])

    assert compare(folder).constant == {"mre": (0,)}


def test_the_share_of_the_gap_is_between_one_modality_and_the_best_possible(runs):
    limits = {"bayes": {"accuracy": 0.9}, "best_single": {"accuracy": 0.5, "modality": "vision"}}
    folder = runs(limits=limits)
    said = folder.add("mre", 0.7)
    folder.add("lda", 0.1)

    comparison = compare(folder)

    accuracy = np.mean([(o.argmax(-1) == folder.y).mean() for o in said])
    assert comparison.share_of_gap["mre"] == pytest.approx((accuracy - 0.5) / 0.4)
    assert comparison.share_of_gap["lda"] < 0
    assert "LDA on the concatenation stays below both" in comparison.verdict[1]


def test_there_is_a_gap_only_where_two_modalities_together_can_know_more_than_one():
    best = {"bayes": {"accuracy": 0.9}}

    assert share_of_gap(0.7, {}) is None
    assert share_of_gap(0.7, best) is None
    assert share_of_gap(0.7, {**best, "best_single": {"accuracy": 0.9, "modality": "text"}}) is None
    assert share_of_gap(0.7, {**best, "best_single": {"accuracy": 0.5, "modality": "text"}}) == pytest.approx(0.5)


def test_mean_relevance_is_given_per_model_and_modality(runs):
    folder = runs()
    folder.add("mre", relevance=True)
    folder.add("lda")

    comparison = compare(folder)

    assert comparison.relevance.keys() == {"mre"}
    model = read_results(folder.root).models[0]
    assert list(comparison.relevance["mre"].values()) == pytest.approx(model.relevance.mean((0, 1)))
    assert list(comparison.relevance["mre"]) == ["text", "audio", "vision"]


def test_the_protocol_states_groups_folds_seeds_refit_test_and_metrics(runs):
    folder = runs(folds=3)
    for name in ("mre", "lda"):
        folder.add(name, training={"refit": True})

    said = " ".join(compare(folder).protocol)

    assert "60 test utterances in 20 groups" in said
    assert "3 folds by group, every utterance tested once per seed, folds pooled" in said
    assert "3 seeds per model" in said
    assert "trained again on train + valid" in said
    assert "corrected (Holm) over the 1 comparison of every candidate with every control in accuracy" in said
    assert f"accuracy = {metrics.DESCRIPTIONS['accuracy']}" in said


def test_the_protocol_states_what_this_test_set_can_tell_apart(runs):
    folder = runs()
    a, b = folder.add("mre", 0.6), folder.add("lda", 0.8)

    said = " ".join(compare(folder).protocol)

    d = statistics.discordance(a, b, folder.y, folder.task)
    apart, alike = (100 * statistics.minimal_detectable(n, d) for n in (60, 20))
    assert f"below {apart:.1f} points ({alike:.1f} if a group's are all alike) cannot be told from none" in said


def test_one_group_only_is_resampled_by_utterance_and_said(runs):
    folder = runs(groups=["the only speaker"] * 60)
    folder.add("mre")
    folder.add("lda")

    comparison = compare(folder)

    assert comparison.row("mre", "accuracy").low < comparison.row("mre", "accuracy").high
    assert "all of one group, so single utterances are resampled" in comparison.protocol[0]


def test_unequal_numbers_of_seeds_are_said(runs):
    folder = runs()
    folder.add("mre", seeds=(0,))
    folder.add("lda", seeds=(0, 1, 2))

    assert any(s.startswith("1 to 3 seeds per model") for s in compare(folder).protocol)
