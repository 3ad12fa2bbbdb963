"""Agreement of people: the fast sums against slow loops, against the papers' own examples, and what is undefined."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import cohen_kappa_score

from moodal.agreement import (
    DISTANCES,
    FLEISS_KAPPA,
    PERCENT_AGREEMENT,
    alpha_statistic,
    cohen_kappa,
    cohen_statistic,
    fleiss_kappa,
    has_equal_votes,
    interval,
    intervals,
    krippendorff_alpha,
    others_kappa,
    percent_agreement,
    wilson,
)
from moodal.types import InputError

# Krippendorff 2011, example C: four observers, twelve units, five values, some missing (0)
KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
)

# Fleiss 1971, table 1: 30 patients, 6 psychiatrists each, 5 diagnoses
FLEISS = np.array(
    [
        list(map(int, row))
        for row in (
            *("00060", "03003", "01401", "00006", "03030", "20400", "00402", "20310", "20040", "00006"),
            *("10050", "11040", "03300", "10050", "02031", "00501", "30012", "51000", "02040", "10203"),
            *("00006", "01050", "02013", "20040", "10041", "05010", "40002", "02040", "10500", "00006"),
        )
    ]
)

COHEN = [[88, 14, 18], [10, 40, 10], [2, 6, 12]]  # Cohen 1960, table 2, of 200

tables = arrays(int, st.tuples(st.integers(1, 8), st.integers(2, 5)), elements=st.integers(0, 4))


def counted(votes, num_labels):
    return np.stack([(votes == label).sum(0) for label in range(1, num_labels + 1)], axis=1)


def people(confusion):
    cells = [(i, j) for i, row in enumerate(confusion) for j, n in enumerate(row) for _ in range(n)]
    return np.array(cells).T


def slow_alpha(counts, distance):
    """One minus observed over expected squared distance, by listing every pair of votes."""
    units = [[c for c, n in enumerate(row) for _ in range(n)] for row in counts if sum(row) >= 2]
    votes = [v for unit in units for v in unit]
    n_c = [votes.count(c) for c in range(len(counts[0]))]

    def d(c, k):
        c, k = min(c, k), max(c, k)
        if distance == "ordinal":
            return (sum(n_c[c : k + 1]) - (n_c[c] + n_c[k]) / 2) ** 2
        return float(c != k) if distance == "nominal" else (c - k) ** 2

    observed = sum(d(a, b) / (len(u) - 1) for u in units for a, b in itertools.permutations(u, 2))
    expected = sum(d(a, b) for a, b in itertools.permutations(votes, 2))
    return 1 - observed * (len(votes) - 1) / expected if expected else math.nan


def slow_percent(counts):
    units = [[c for c, n in enumerate(row) for _ in range(n)] for row in counts if sum(row) >= 2]
    shares = [np.mean([a == b for a, b in itertools.combinations(u, 2)]) for u in units]
    return np.mean(shares) if shares else math.nan


def slow_fleiss(counts):
    rows = [row for row in counts if sum(row) >= 2]
    if not rows:
        return math.nan
    by_chance = sum(np.mean([row[c] / sum(row) for row in rows]) ** 2 for c in range(len(counts[0])))
    return (slow_percent(counts) - by_chance) / (1 - by_chance) if by_chance < 1 - 1e-12 else math.nan


@pytest.mark.parametrize(("distance", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_krippendorffs(distance, published):
    assert krippendorff_alpha(counted(KRIPPENDORFF, 5), distance) == pytest.approx(published, abs=5e-4)


def test_kappa_is_fleiss():
    assert FLEISS.sum() == 180
    assert has_equal_votes(FLEISS)
    assert fleiss_kappa(FLEISS) == pytest.approx(0.430, abs=5e-4)
    assert percent_agreement(FLEISS) == pytest.approx(0.5556, abs=5e-5)


def test_kappa_is_cohens():
    assert cohen_kappa(*people(COHEN)) == pytest.approx(0.492, abs=5e-4)


@given(tables)
@pytest.mark.parametrize("distance", DISTANCES)
def test_alpha_is_the_slow_one(distance, counts):
    assert krippendorff_alpha(counts, distance) == pytest.approx(slow_alpha(counts, distance), nan_ok=True)


@given(tables)
def test_percentage_and_fleiss_are_the_slow_ones(counts):
    assert percent_agreement(counts) == pytest.approx(slow_percent(counts), nan_ok=True)
    assert fleiss_kappa(counts) == pytest.approx(slow_fleiss(counts), nan_ok=True, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=30))
@pytest.mark.parametrize("weights", [None, "linear", "quadratic"])
def test_cohen_is_that_of_sklearn(weights, pairs):
    a, b = np.array(pairs).T
    ours = cohen_kappa(a, b, weights=weights)
    if len({*a, *b}) == 1:
        assert math.isnan(ours)
    else:
        theirs = cohen_kappa_score(a, b, weights=weights, labels=range(4))
        assert ours == pytest.approx(theirs)


def test_a_missing_label_takes_its_pair_along():
    assert cohen_kappa([0, 1, -1, 1], [0, 1, 1, -1]) == cohen_kappa([0, 1], [0, 1]) == 1.0


def test_a_unit_with_one_vote_changes_nothing():
    more = np.vstack([FLEISS, [[1, 0, 0, 0, 0]] * 50])
    for statistic in (PERCENT_AGREEMENT, FLEISS_KAPPA, *(alpha_statistic(d) for d in DISTANCES)):
        assert statistic(more) == pytest.approx(statistic(FLEISS))
        assert interval(statistic, more, seed=0) == pytest.approx(interval(statistic, FLEISS, seed=0))


def test_whoever_always_agrees_has_one_and_guessing_has_nothing():
    assert krippendorff_alpha([[3, 0], [0, 3], [3, 0]]) == 1.0
    assert fleiss_kappa([[3, 0], [0, 3], [3, 0]]) == 1.0
    guesses = np.random.default_rng(0).multinomial(5, [0.7, 0.2, 0.1], size=20_000)
    assert krippendorff_alpha(guesses) == pytest.approx(0, abs=0.01)
    assert fleiss_kappa(guesses) == pytest.approx(0, abs=0.01)
    assert percent_agreement(guesses) == pytest.approx(0.54, abs=0.01)


@pytest.mark.parametrize(
    "counts",
    [np.zeros((0, 3)), np.zeros((4, 3)), [[1, 0], [0, 1]], [[3, 0], [2, 0]]],
    ids=["no unit", "no votes", "no pairs", "one label"],
)
def test_what_is_not_defined_is_nan_and_warns_nobody(counts):
    for distance in DISTANCES:
        assert math.isnan(krippendorff_alpha(counts, distance))
        assert np.isnan(interval(alpha_statistic(distance), counts, seed=0)).all()
    assert math.isnan(fleiss_kappa(counts))
    assert np.isnan(interval(FLEISS_KAPPA, counts, seed=0)).all()


def test_one_unit_has_a_value_and_no_interval():
    assert percent_agreement([[2, 1]]) == pytest.approx(1 / 3)
    assert np.isnan(interval(PERCENT_AGREEMENT, [[2, 1]], seed=0)).all()


def test_an_interval_is_that_of_resampled_units():
    rng = np.random.default_rng(3)
    for statistic in (PERCENT_AGREEMENT, FLEISS_KAPPA, *(alpha_statistic(d) for d in DISTANCES)):
        slow = [statistic(FLEISS[rng.integers(30, size=30)]) for _ in range(2000)]
        fast = interval(statistic, FLEISS, seed=0, samples=4000)
        assert fast == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.015)


def test_cohen_has_an_interval_too():
    pairs = people(COHEN).T
    low, high = interval(cohen_statistic(3), pairs, seed=0)
    assert low < 0.492 < high
    error = 0.0549  # Cohen 1960: sqrt(p_o (1 - p_o) / N) / (1 - p_c)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.15)


def test_against_one_other_it_is_cohens_kappa():
    a, b = people(COHEN)
    assert others_kappa(a, np.eye(3, dtype=int)[b]) == pytest.approx(cohen_kappa(a, b))


def test_against_several_others_their_shares_count_and_whoever_has_none_does_not():
    own, others = [0, 1, 1, 0], [[2, 0], [1, 1], [0, 2], [0, 0]]
    agreeing, by_chance = (1 + 0.5 + 1) / 3, (1 / 3) * (1.5 / 3) + (2 / 3) * (1.5 / 3)
    assert others_kappa(own, others) == pytest.approx((agreeing - by_chance) / (1 - by_chance))


def test_the_order_of_units_does_not_matter():
    assert interval(FLEISS_KAPPA, FLEISS[::-1], seed=1) == interval(FLEISS_KAPPA, FLEISS, seed=1)


def test_the_same_seed_gives_the_same_interval_and_statistics_share_their_draws():
    alone = interval(FLEISS_KAPPA, FLEISS, seed=7)
    assert alone == interval(FLEISS_KAPPA, FLEISS, seed=7) != interval(FLEISS_KAPPA, FLEISS, seed=8)
    assert intervals([PERCENT_AGREEMENT, FLEISS_KAPPA], FLEISS, seed=7)[1] == alone


def test_a_true_share_lies_in_most_of_its_intervals():
    rng = np.random.default_rng(0)
    holds = [low <= 0.9 <= high for low, high in (wilson(h, 40) for h in rng.binomial(40, 0.9, 4000).tolist())]
    assert np.mean(holds) == pytest.approx(0.95, abs=0.02)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    assert wilson(15, 20) == pytest.approx((0.5313, 0.8881), abs=5e-4)
    assert np.isnan(wilson(0, 0)).all()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: krippendorff_alpha([[1, 2]], "ratio"), "no distance of labels called 'ratio'"),
        (lambda: krippendorff_alpha([1, 2]), "table of units and labels"),
        (lambda: percent_agreement([[1, -2]]), "whole numbers, 0 or more"),
        (lambda: fleiss_kappa([[1.5, 2]]), "whole numbers, 0 or more"),
        (lambda: cohen_kappa([0], [1], weights="cubic"), "no weighting of labels called 'cubic'"),
        (lambda: cohen_kappa([0], [5], num_labels=3), "numbers below 3"),
        (lambda: interval(FLEISS_KAPPA, FLEISS, seed=0, confidence=95), "between 0 and 1, got 95"),
        (lambda: interval(FLEISS_KAPPA, FLEISS, seed=0, samples=0), "at least one resample"),
        (lambda: interval(FLEISS_KAPPA, FLEISS, seed=-1), "seed must be 0 or more"),
        (lambda: wilson(3, 2), "3 of 2 is no share"),
    ],
)
def test_what_cannot_be_measured_is_refused(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
