import time

import numpy as np
import pytest

from moodal import metrics
from moodal.benchmark import statistics
from moodal.benchmark.statistics import Paired, discordance, holm, interval, minimal_detectable, paired
from moodal.types import InputError, Task

SENTIMENT = Task(("negative", "neutral", "positive"))
TWO = Task(("no", "yes"))
MOSI = Task(low=-3, high=3)
SIMS = Task(low=-1, high=1)


def classifier(rng, y, *, signal, runs=3):
    """(R, N, 3) logits that know the class the better, the larger ``signal``."""
    logits = rng.normal(size=(runs, len(y), 3))
    logits[:, np.arange(len(y)), y] += signal
    return logits


def answers(right):
    """(R, N, 2) logits of TWO, right where said; the truth is all ones."""
    return np.stack([~right, right], -1).astype(float)


def example(task, rng, n=90):
    """y, two models of three runs, and groups of unequal size."""
    if task.classes:
        y = rng.integers(3, size=n)
        models = [classifier(rng, y, signal=s) for s in (0.5, 1.5)]
    else:
        y = np.round(rng.uniform(task.low, task.high, n) * 5) / 5
        models = [y[:, None] + rng.normal(0, s, (3, n, 1)) for s in (1.5, 0.7)]
    return y, *models, rng.integers(12, size=n)


ALL_METRICS = [(task, name) for task in (SENTIMENT, MOSI, SIMS) for name in metrics.measures(task)]


@pytest.mark.parametrize(("task", "metric"), ALL_METRICS, ids=lambda x: x if isinstance(x, str) else x.kind)
def test_the_fast_bootstrap_is_the_slow_loop_over_resampled_rows(task, metric, monkeypatch):
    y, model, _, groups = example(task, np.random.default_rng(3))
    drawn = []
    fast = statistics._draws
    monkeypatch.setattr(statistics, "_draws", lambda *args: drawn.append(fast(*args)) or drawn[-1])

    low, high = interval(model, y, task, metric, groups, resamples=40, level=0.9)

    slow = []
    for run_weights, group_weights in zip(*drawn, strict=True):
        rows = np.concatenate(
            [
                np.flatnonzero(groups == g)
                for g, w in zip(np.unique(groups), group_weights, strict=True)
                for _ in range(int(w))
            ]
        )
        runs = np.repeat(np.arange(3), run_weights.astype(int))
        slow.append(np.mean([metrics.scores(model[r][rows], y[rows], task)[metric] for r in runs]))
    assert (low, high) == pytest.approx(tuple(np.quantile(slow, [0.05, 0.95])), abs=1e-9)


@pytest.mark.parametrize(("task", "metric"), ALL_METRICS, ids=lambda x: x if isinstance(x, str) else x.kind)
def test_the_difference_is_that_of_the_mean_scores_and_the_exchange_that_of_the_rows(task, metric):
    y, a, b, groups = example(task, np.random.default_rng(4))

    def difference(a, b):
        first, second = ([metrics.scores(run, y, task)[metric] for run in model] for model in (a, b))
        return np.mean(first) - np.mean(second)

    found = paired(a, b, y, task, metric, groups, resamples=60)

    actual = difference(a, b)
    assert found.difference == pytest.approx(actual, abs=1e-9)

    score, sums_a = statistics._group_sums(a, y, task, metric, groups)
    _, sums_b = statistics._group_sums(b, y, task, metric, groups)
    coins = np.random.default_rng(8).integers(2, size=(60, 12)).astype(bool)
    slow = [difference(np.where(c[groups][:, None], b, a), np.where(c[groups][:, None], a, b)) for c in coins]
    hits = np.sum(np.abs(slow) >= abs(actual) - 1e-9)
    p = statistics._exchange_p(np.random.default_rng(8), score, sums_a, sums_b, 60)
    assert p == (hits + 1) / 61


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """Utterances of 40 speakers, five runs; speakers, utterances and runs all differ."""
    rng = np.random.default_rng(0)
    speaker = np.repeat(np.arange(40), 5)
    truth = 0.7
    held = 0
    for i in range(150):
        chance = truth + rng.uniform(-0.15, 0.15, 40)[speaker] + rng.uniform(-0.05, 0.05, (5, 1))
        right = rng.uniform(size=200) < chance  # one draw per utterance for all runs: they agree on what is easy
        low, high = interval(answers(right), np.ones(200, int), TWO, "accuracy", speaker, resamples=300, seed=i)
        held += low <= truth <= high
    assert 0.90 <= held / 150 <= 0.985


def test_equal_methods_are_rarely_told_apart_though_their_runs_differ():
    """Runs differ by 4 points. Every run of a method is new, so p must count that; p_runs does not."""
    rng = np.random.default_rng(1)
    y, found = np.ones(300, int), []
    for i in range(100):
        easy = rng.uniform(size=300)
        a, b = (answers(easy < rng.normal(0.7, 0.04, (5, 1))) for _ in range(2))
        found.append(paired(a, b, y, TWO, "accuracy", np.arange(300), resamples=200, seed=i))
    assert np.mean([f.p < 0.05 for f in found]) <= 0.15
    assert np.mean([f.p_runs < 0.05 for f in found]) > 0.3
    assert all(f.p >= f.p_runs for f in found)


def test_without_differences_between_runs_p_values_are_those_of_chance():
    rng = np.random.default_rng(2)
    y, p = np.ones(200, int), []
    for i in range(200):
        a, b = (answers(rng.uniform(size=(1, 200)) < 0.7) for _ in range(2))
        p.append(paired(a, b, y, TWO, "accuracy", np.arange(200), resamples=200, seed=i).p_runs)
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.09
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("metric", ["accuracy", "f1_weighted", "nll", "ece"])
def test_a_model_does_not_differ_from_itself(metric):
    rng = np.random.default_rng(5)
    y = rng.integers(3, size=120)
    model = classifier(rng, y, signal=1.0)
    assert paired(model, model, y, SENTIMENT, metric, np.arange(120)) == Paired(0.0, 0.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro", "nll", "acc2_non0"])
def test_a_clear_difference_has_a_small_p_that_is_not_zero(metric):
    rng = np.random.default_rng(6)
    y = rng.integers(3, size=400)
    good, bad = classifier(rng, y, signal=3.0), classifier(rng, y, signal=0.3)
    found = paired(good, bad, y, SENTIMENT, metric, np.arange(400), resamples=999)
    assert found.p_runs == 1 / 1000
    assert found.p == 2 / 1000
    assert found.low <= found.difference <= found.high
    assert (found.low > 0) == metrics.HIGHER_IS_BETTER[metric]


def test_the_order_of_the_models_turns_only_the_sign():
    y, a, b, groups = example(SENTIMENT, np.random.default_rng(7))
    one, other = (paired(*pair, y, SENTIMENT, "f1_weighted", groups) for pair in ((a, b), (b, a)))
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))
    assert one.p_runs == other.p_runs


def test_utterances_that_are_alike_within_groups_widen_the_interval():
    rng = np.random.default_rng(8)
    speaker = np.repeat(np.arange(20), 15)
    right = (rng.uniform(size=20) < 0.6)[speaker][None]  # a speaker is got right always or never
    y = np.ones(300, int)
    alone, together = (interval(answers(right), y, TWO, "accuracy", g) for g in (np.arange(300), speaker))
    assert (together[1] - together[0]) > 3 * (alone[1] - alone[0])


def test_runs_that_differ_widen_the_interval():
    rng = np.random.default_rng(9)
    easy = rng.uniform(size=300)
    y = np.ones(300, int)
    same, differing = (answers(easy < np.array(levels)[:, None]) for levels in ([0.7] * 3, [0.6, 0.7, 0.8]))
    narrow, wide = (interval(model, y, TWO, "accuracy", np.arange(300)) for model in (same, differing))
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


def test_few_runs_are_not_taken_for_less_variable_than_they_are():
    """Only runs differ here, so the variance of their mean is known: s^2 / R with the unbiased s^2."""
    errors = np.array([0.1, 0.2, 0.4, 0.8])
    outputs = np.broadcast_to(errors[:, None, None], (4, 30, 1))
    score, sums = statistics._group_sums(outputs, np.zeros(30), MOSI, "mae", np.arange(30))
    (drawn,) = statistics._bootstrap(np.random.default_rng(0), score, [sums], 20_000)
    assert drawn.var() == pytest.approx(errors.var(ddof=1) / 4, rel=0.04)


def test_a_single_run_has_the_binomial_interval():
    right = np.arange(457)[None] < 366  # 80 % of the SIMS test split
    low, high = interval(answers(right), np.ones(457, int), TWO, "accuracy", np.arange(457), resamples=4000)
    assert (high - low) / 2 == pytest.approx(0.0367, abs=0.002)


def test_models_with_different_numbers_of_runs_can_be_compared():
    rng = np.random.default_rng(10)
    y = rng.integers(3, size=300)
    five, one = classifier(rng, y, signal=2.0, runs=5), classifier(rng, y, signal=0.2, runs=1)
    found = paired(five, one, y, SENTIMENT, "accuracy", np.arange(300))
    assert found.low > 0
    assert found.p < 0.01


def test_groups_may_be_names_in_any_order():
    y, a, b, groups = example(SENTIMENT, np.random.default_rng(11))
    order = np.random.default_rng(12).permutation(len(y))
    names = np.array([f"speaker {g:02}" for g in groups])
    there = paired(a, b, y, SENTIMENT, "f1_macro", groups)
    shuffled = paired(a[:, order], b[:, order], y[order], SENTIMENT, "f1_macro", names[order])
    assert shuffled.p == there.p
    assert (shuffled.low, shuffled.high) == pytest.approx((there.low, there.high), abs=1e-12)


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others():
    y, a, b, groups = example(SENTIMENT, np.random.default_rng(13))
    first, again, other = (paired(a, b, y, SENTIMENT, "nll", groups, seed=s) for s in (0, 0, 1))
    assert first == again != other


def test_little_memory_gives_as_good_an_interval(monkeypatch):
    y, a, _, groups = example(SENTIMENT, np.random.default_rng(14))
    whole = interval(a, y, SENTIMENT, "accuracy", groups)
    monkeypatch.setattr(statistics, "MAX_CELLS", 100)
    assert interval(a, y, SENTIMENT, "accuracy", groups) == pytest.approx(whole, abs=0.01)


def test_resamples_on_which_a_metric_is_undefined_do_not_count():
    y = np.array([0, 1, 1, 1, 1, 1])  # one utterance counts for Non0, and many resamples miss it
    low, high = interval(np.eye(3)[y][None], y, SENTIMENT, "acc2_non0", np.arange(6))
    assert (low, high) == (1.0, 1.0)


def test_two_thousand_resamples_of_five_runs_take_a_moment():
    rng = np.random.default_rng(15)
    y = rng.integers(3, size=1440)
    model = classifier(rng, y, signal=1.0, runs=5)
    start = time.process_time()
    interval(model, y, SENTIMENT, "f1_weighted", np.arange(1440))
    assert time.process_time() - start < 1.0  # 0.1 s on a quiet machine


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_what_a_test_set_cannot_show():
    assert minimal_detectable(457, 0.2) == pytest.approx(0.0410, abs=1e-4)  # 1.96 sqrt(.2 / 457)
    assert minimal_detectable(4 * 457, 0.2) == pytest.approx(minimal_detectable(457, 0.2) / 2)
    assert minimal_detectable(457, 0.2, level=0.99) > minimal_detectable(457, 0.2)
    assert minimal_detectable(457, 0.0) == 0.0


def test_discordance_is_the_share_that_one_of_two_models_gets_right():
    y = np.ones(4, int)
    a, b = (answers(np.array([r], bool)) for r in ([1, 1, 0, 0], [1, 0, 1, 0]))
    assert discordance(a, b, y, TWO) == 0.5
    assert discordance(a, a, y, TWO) == 0.0
    half_the_time = answers(np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool))
    assert discordance(a, half_the_time, y, TWO) == 0.25 / 4


def test_minimal_detectable_is_the_width_of_the_interval_of_equal_models():
    rng = np.random.default_rng(16)
    y = np.ones(800, int)
    a, b = (answers(rng.uniform(size=(1, 800)) < 0.7) for _ in range(2))
    found = paired(a, b, y, TWO, "accuracy", np.arange(800))
    half = minimal_detectable(800, discordance(a, b, y, TWO))
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.08)


def test_statistics_refuse_what_they_cannot_answer():
    y, a, _, groups = example(SENTIMENT, np.random.default_rng(17))
    with pytest.raises(InputError, match="did you mean 'accuracy'"):
        interval(a, y, SENTIMENT, "acuracy", groups)
    with pytest.raises(InputError, match=r"outputs \(R, N, 3\)"):
        interval(a[0], y, SENTIMENT, "accuracy", groups)
    with pytest.raises(InputError, match="one group per utterance"):
        interval(a, y, SENTIMENT, "accuracy", groups[:5])
    with pytest.raises(InputError, match="all utterances are of one group"):
        interval(a, y, SENTIMENT, "accuracy", np.zeros(90))
    with pytest.raises(InputError, match="acc2_non0 is not defined"):
        interval(a, np.ones(90, int), SENTIMENT, "acc2_non0", groups)
    with pytest.raises(InputError, match="p-values must be numbers from 0 to 1"):
        holm([0.5, 1.5])
    with pytest.raises(InputError, match="need n >= 1"):
        minimal_detectable(0, 0.2)
