import json
import math

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    mean_absolute_error,
)

from moodal import metrics
from moodal.types import InputError, Task

SENTIMENT = ("negative", "neutral", "positive")
NEGATIVE, NEUTRAL, POSITIVE = 0, 1, 2


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def imbalanced(rng):
    """Logits that favour class 0 and a truth that favours class 2, so that swapped arguments cannot hide."""
    y = rng.choice(3, size=400, p=[0.15, 0.25, 0.6])
    logits = rng.normal([0.9, 0.0, 0.1], 1.0, (400, 3))
    logits[np.arange(400), y] += 0.8
    return logits, y


@pytest.fixture
def sims_test_split():
    """True classes of the SIMS test split, by their counts."""
    return np.repeat([NEGATIVE, NEUTRAL, POSITIVE], [248, 69, 140])


def one_hot(predicted, num_classes=3):
    return np.eye(num_classes)[predicted] * 10.0


def weighted_f1(true, predicted):
    return f1_score(true, predicted, average="weighted", zero_division=0)


def test_classification_scores_are_scikit_learns(imbalanced):
    logits, y = imbalanced
    predicted = logits.argmax(1)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    found = metrics.classification_scores(logits, y, ("a", "b", "c"))

    assert found["accuracy"] == pytest.approx(accuracy_score(y, predicted), abs=1e-12)
    assert found["f1_weighted"] == pytest.approx(weighted_f1(y, predicted), abs=1e-12)
    assert found["f1_macro"] == pytest.approx(f1_score(y, predicted, average="macro"), abs=1e-12)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, predicted), abs=1e-12)
    assert found["nll"] == pytest.approx(log_loss(y, probabilities), abs=1e-12)


def test_f1_is_weighted_by_true_support_not_by_predicted(imbalanced):
    logits, y = imbalanced
    swapped = weighted_f1(logits.argmax(1), y)
    assert abs(metrics.classification_scores(logits, y, SENTIMENT)["f1_weighted"] - swapped) > 0.02


def test_two_class_scores_drop_the_neutral_logit(imbalanced):
    logits, y = imbalanced
    speaks_positive = logits[:, POSITIVE] > logits[:, NEGATIVE]
    counts = y != NEUTRAL

    found = metrics.classification_scores(logits, y, SENTIMENT)

    assert found["acc2_has0"] == pytest.approx(accuracy_score(y == POSITIVE, speaks_positive), abs=1e-12)
    assert found["f1_has0"] == pytest.approx(weighted_f1(y == POSITIVE, speaks_positive), abs=1e-12)
    assert found["acc2_non0"] == pytest.approx(accuracy_score(y[counts] == 2, speaks_positive[counts]), abs=1e-12)
    assert found["f1_non0"] == pytest.approx(weighted_f1(y[counts] == 2, speaks_positive[counts]), abs=1e-12)
    wrong = speaks_positive[counts].astype(int)
    assert found["mmsa_acc2_non0"] == pytest.approx(accuracy_score(y[counts], wrong), abs=1e-12)
    assert found["mmsa_f1_non0"] == pytest.approx(weighted_f1(y[counts], wrong), abs=1e-12)


def test_a_tie_between_negative_and_positive_is_negative():
    found = metrics.classification_scores([[1.0, 5.0, 1.0]], [NEGATIVE], SENTIMENT)
    assert found["acc2_has0"] == found["acc2_non0"] == 1.0


def test_always_negative_on_sims_gives_the_published_ef_lstm_row(sims_test_split):
    found = metrics.classification_scores(one_hot(np.zeros(457, int)), sims_test_split, SENTIMENT)

    published = {
        "acc2_has0": 0.6937,
        "f1_has0": 0.5682,
        "mmsa_acc2_non0": 0.6392,
        "mmsa_f1_non0": 0.4985,
        "accuracy": 0.5427,
        "f1_weighted": 0.3818,
    }
    assert {name: round(found[name], 4) for name in published} == published


def test_a_perfect_classifier_has_perfect_scores_except_under_the_reference_packages_mistake(sims_test_split):
    found = metrics.classification_scores(one_hot(sims_test_split), sims_test_split, SENTIMENT)

    perfect = ("accuracy", "f1_weighted", "f1_macro", "balanced_accuracy", "acc2_has0", "f1_has0")
    assert [found[name] for name in (*perfect, "acc2_non0", "f1_non0")] == [1.0] * 8
    assert round(found["mmsa_acc2_non0"], 4) == 0.6392


def test_two_class_scores_exist_only_for_negative_neutral_positive_in_that_order():
    backwards = metrics.classification_scores(one_hot([0, 1, 2]), [0, 1, 2], SENTIMENT[::-1])
    assert not any("has0" in name or "non0" in name for name in backwards)


def test_classes_without_support_count_as_in_scikit_learn():
    y, predicted = [0, 0, 1, 1, 1], [0, 3, 1, 1, 0]  # class 2 is nowhere, class 3 only predicted
    found = metrics.classification_scores(one_hot(predicted, 4), y, "abcd")
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["f1_macro"] == pytest.approx(f1_score(y, predicted, average="macro", zero_division=0))
    assert found["f1_weighted"] == pytest.approx(weighted_f1(y, predicted))


def test_calibration_error_is_the_weighted_gap_of_fifteen_bins(imbalanced):
    logits, y = (x[:60] for x in imbalanced)  # few, so that some bins are too sure and some not sure enough
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    confidence, right = probabilities.max(1), logits.argmax(1) == y
    slow, gaps = 0.0, []
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            gaps.append(right[inside].mean() - confidence[inside].mean())
            slow += inside.mean() * abs(gaps[-1])
    assert min(gaps) < 0 < max(gaps)
    assert metrics.classification_scores(logits, y, SENTIMENT)["ece"] == pytest.approx(slow, abs=1e-12)


def test_calibration_error_of_a_sure_and_wrong_model_is_one():
    assert metrics.classification_scores([[500.0, 0.0]] * 3, [1, 1, 1], "ab")["ece"] == pytest.approx(1)


def test_huge_logits_give_a_finite_loss():
    assert metrics.classification_scores([[1e4, 0.0]], [1], "ab")["nll"] == pytest.approx(1e4)


def test_mosi_scores_are_the_protocols(rng):
    true = np.round(rng.uniform(-3, 3, 300) * 5) / 5
    true[:30] = 0
    pred = true * 0.6 + rng.normal(0.4, 1.2, 300)
    pred[:5] = 0
    told = true != 0

    found = metrics.regression_scores(pred, true, -3, 3)

    assert found["mae"] == pytest.approx(mean_absolute_error(true, pred), abs=1e-12)
    assert found["corr"] == pytest.approx(np.corrcoef(true, pred)[0, 1], abs=1e-12)
    assert found["acc2_has0"] == pytest.approx(accuracy_score(true >= 0, pred >= 0), abs=1e-12)
    assert found["f1_has0"] == pytest.approx(weighted_f1(true >= 0, pred >= 0), abs=1e-12)
    assert found["acc2_non0"] == pytest.approx(accuracy_score(true[told] > 0, pred[told] > 0), abs=1e-12)
    assert found["f1_non0"] == pytest.approx(weighted_f1(true[told] > 0, pred[told] > 0), abs=1e-12)
    assert set(found) == {"mae", "corr", "acc2_has0", "f1_has0", "acc2_non0", "f1_non0", "acc7", "acc5"}


def test_seven_and_five_classes_are_clipped_and_rounded_half_to_even():
    found = metrics.regression_scores([2.6, 9.0, 0.5, 1.5, -0.4], [3.0, 2.0, 0.0, 1.0, -1.0], -3, 3)
    assert found["acc7"] == 2 / 5  # 2.6 is 3; 9 is 3, not 2; 0.5 is 0; 1.5 is 2; -0.4 is 0
    assert found["acc5"] == 3 / 5  # and here 9 is 2


def test_sims_scores_are_clipped_and_binned_with_closed_upper_ends():
    true = np.array([-1.0, -0.8, -0.2, 0.0, 0.2, 0.8, 1.0, 0.4])
    pred = np.array([-7.0, -0.7, 0.05, 0.0, 0.1, 0.71, 3.0, -0.1])

    found = metrics.regression_scores(pred, true, -1, 1)

    clipped = np.clip(pred, -1, 1)
    assert found["mae"] == pytest.approx(mean_absolute_error(true, clipped), abs=1e-12)
    assert found["corr"] == pytest.approx(np.corrcoef(true, clipped)[0, 1], abs=1e-12)
    assert found["mult_acc2"] == accuracy_score(true > 0, pred > 0) == 6 / 8
    assert found["mult_f1"] == pytest.approx(weighted_f1(true > 0, pred > 0), abs=1e-12)
    assert found["mult_acc3"] == 5 / 8  # 0.05 and 0.1 are neutral, and so truly -0.2 and 0.2 are missed; so is 0.4
    assert found["mult_acc5"] == 5 / 8  # -0.7 is the lowest bin, 0.71 the highest
    assert set(found) == {"mae", "corr", "mult_acc2", "mult_f1", "mult_acc3", "mult_acc5"}


def test_other_intervals_have_what_makes_sense_on_them():
    signed = metrics.regression_scores([1.0, -2.0], [1.0, 2.0], -5, 5)
    assert "acc2_has0" in signed
    assert "acc7" not in signed
    assert set(metrics.regression_scores([1.0, 2.0], [1.0, 3.0], 1, 9)) == {"mae", "corr"}


@pytest.mark.parametrize("constant", [0.0, 0.1, -1.7])
def test_the_correlation_of_a_constant_is_zero(constant):
    found = metrics.regression_scores(np.full(50, constant), np.linspace(-3, 3, 50), -3, 3)
    assert found["corr"] == 0.0
    json.dumps(found, allow_nan=False)


def test_a_metric_for_which_no_utterance_counts_is_left_out():
    found = metrics.classification_scores(one_hot([1, 1]), [NEUTRAL, NEUTRAL], SENTIMENT)
    assert "acc2_non0" not in found
    assert found["acc2_has0"] == 1.0


@pytest.mark.parametrize("task", [Task(SENTIMENT), Task(low=-3, high=3), Task(low=-1, high=1)], ids=str)
def test_scores_are_plain_finite_floats_with_a_description_and_a_direction(task, rng):
    y = rng.integers(3, size=50) if task.classes else rng.uniform(task.low, task.high, 50)
    found = metrics.scores(rng.normal(size=(50, task.num_outputs)), y, task)
    assert {type(value) for value in found.values()} == {float}
    assert all(math.isfinite(value) for value in found.values())
    assert found.keys() == metrics.measures(task).keys()
    assert found.keys() <= metrics.DESCRIPTIONS.keys() == metrics.HIGHER_IS_BETTER.keys()


def test_only_losses_and_errors_are_better_when_lower():
    assert {name for name, higher in metrics.HIGHER_IS_BETTER.items() if not higher} == {"nll", "ece", "mae"}


def test_float32_is_counted_in_float64(imbalanced):
    logits, y = imbalanced
    single = logits.astype(np.float32)
    double = metrics.classification_scores(single.astype(np.float64), y, SENTIMENT)
    assert metrics.classification_scores(single, y, SENTIMENT) == double


def test_confusion_has_true_rows(imbalanced):
    logits, y = imbalanced
    predicted = logits.argmax(1)
    assert np.array_equal(metrics.confusion(y, predicted, 3), confusion_matrix(y, predicted))
    assert metrics.confusion([0], [2], 4).tolist() == [[0, 0, 1, 0]] + [[0] * 4] * 3


def test_a_model_that_says_one_thing_is_constant():
    assert metrics.constant_prediction([2, 2, 2])
    assert metrics.constant_prediction(np.float32([0.1, 0.1 + 1e-7]))
    assert not metrics.constant_prediction([2, 2, 1])
    assert not metrics.constant_prediction([2])


@pytest.mark.parametrize(
    ("outputs", "y", "message"),
    [
        ([[0.0, 1.0]], [0], r"outputs \(N, 3\)"),
        ([[0.0, 1.0, 2.0]], [0, 1], r"need y \(N,\)"),
        ([[0.0, 1.0, 2.0]], [-1], "leave utterances without a label out"),
        ([[0.0, 1.0, 2.0]], [3], "integers from 0 to 2"),
        ([[0.0, 1.0, 2.0]], [1.0], "integers from 0 to 2, got float64"),
        ([[0.0, 1.0, math.nan]], [1], "hold NaN or inf"),
        (np.zeros((0, 3)), np.zeros(0, int), "at least one utterance"),
    ],
)
def test_classification_refuses(outputs, y, message):
    with pytest.raises(InputError, match=message):
        metrics.classification_scores(outputs, y, SENTIMENT)


def test_regression_refuses_missing_scores():
    with pytest.raises(InputError, match="leave utterances without a score out"):
        metrics.regression_scores([0.0, 1.0], [0.0, math.nan], -3, 3)


def test_the_fitted_temperature_is_the_one_the_labels_were_drawn_with(rng):
    logits = rng.normal(0, 3, (20_000, 4))
    p = np.exp(logits / 2.5)
    y = (p.cumsum(1) / p.sum(1, keepdims=True) < rng.random(len(p))[:, None]).sum(1)
    assert metrics.fit_temperature(logits, y) == pytest.approx(2.5, rel=0.05)


def test_no_other_temperature_is_more_likely(imbalanced):
    logits, y = imbalanced
    fitted = metrics.fit_temperature(logits, y)
    best = log_loss(y, np.exp(logits / fitted) / np.exp(logits / fitted).sum(1, keepdims=True))
    for t in (0.5 * fitted, 0.95 * fitted, 1.05 * fitted, 2 * fitted):
        assert best < log_loss(y, np.exp(logits / t) / np.exp(logits / t).sum(1, keepdims=True))


def test_a_few_rows_that_are_all_right_claim_no_certainty():
    y = np.array([0, 1, 2, 0])
    scaled = one_hot(y) / metrics.fit_temperature(one_hot(y), y)
    assert 0.7 < (np.exp(scaled) / np.exp(scaled).sum(1, keepdims=True)).max() < 0.95


def test_where_all_is_wrong_the_temperature_stays_finite():
    y = np.array([0, 1, 2])
    assert metrics.fit_temperature(one_hot((y + 1) % 3), y) == pytest.approx(20, rel=0.01)
