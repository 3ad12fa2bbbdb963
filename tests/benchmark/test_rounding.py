import pytest

from moodal.benchmark.rounding import show, show_p, show_range, show_share


@pytest.mark.parametrize(
    ("value", "metric", "sign", "text"),
    [
        (0.7636, "accuracy", False, "76.4"),
        (-0.0001, "accuracy", True, "+0.0"),
        (-0.0361, "accuracy", True, "−3.6"),
        (0.0361, "f1_weighted", True, "+3.6"),
        (0.68449, "nll", False, "0.684"),
        (-0.2, "corr", False, "−0.200"),
    ],
)
def test_numbers_are_percent_with_one_decimal_or_plain_with_three(value, metric, sign, text):
    assert show(value, metric, sign=sign) == text


@pytest.mark.parametrize(("share", "text"), [(0.474, "47"), (-1.95, "−195"), (-0.001, "0"), (1.0, "100")])
def test_shares_are_whole_percent_without_a_minus_zero(share, text):
    assert show_share(share) == text


def test_an_interval_that_is_not_known_is_not_shown():
    assert show_range(None, None, "ece") == ""
    assert show_range(-0.05, 0.013, "accuracy", sign=True) == "[−5.0, +1.3]"


def test_a_small_p_is_said_to_be_below_what_is_printed():
    assert [show_p(p) for p in (0.0009, 0.001, 1.0)] == ["< 0.001", "0.001", "1.000"]
