"""The table in the terminal is read without colours, on any width, and whatever stands in the transcript."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tests.serving.predictions import happy, of, scored, unsure

from moodal.serving.printing import clock, print_prediction, remarks, shares
from moodal.types import MODALITIES


def printed(prediction, width=140, colours=False):
    out = io.StringIO()
    system = "truecolor" if colours else None
    print_prediction(prediction, Console(file=out, width=width, force_terminal=True, color_system=system))
    return out.getvalue()


def test_a_row_says_when_what_why_and_in_which_words():
    row = next(line for line in printed(of(happy(), unsure())).splitlines() if "0:00.0" in line)
    assert row.split() == [
        "0:00.0–0:02.0", "■", "happy", "72%", "tttaaaaaav", "happy", "80%", "happy", "50%", "sad", "60%",
        "Ann:", "how", "nice",
    ]  # fmt: skip


def test_what_is_missing_and_unsure_is_said_with_its_reason():
    text = printed(of(happy(), unsure(), unsure(3.5, 4.0)))
    row = next(line for line in text.splitlines() if "0:02.0–0:03.5" in line)
    assert row.split() == ["0:02.0–0:03.5", "unsure", "aaaaaaaaaa", "missing", "neutral", "40%", "missing"]
    assert "unsure: its best guess is below 50% (2 of 3 segments)" in text
    assert "vision missing: no face in 38 frames (2 of 3 segments)" in text


def test_the_models_own_notes_come_first():
    assert next(remarks(of(unsure(), notes=("prior: nobody trained it",)))) == "prior: nobody trained it"


def test_scores_have_signs():
    row = next(line for line in printed(of(scored(-0.5), classes=())).splitlines() if "0:00.0" in line)
    assert row.split()[1:7] == ["■", "-0.50", "tttttaaaaa", "-0.25", "-0.25", "missing"]


def test_words_are_cut_to_the_width():
    text = printed(of(happy(text="word " * 100)), width=100)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" in text


def test_a_terminal_of_eighty_columns_has_all_but_the_details():
    text = printed(of(happy(text="nice"), unsure()), width=80)
    row = next(line for line in text.splitlines() if "happy 72%" in line)
    assert row.split() == ["0:00.0", "■", "happy", "72%", "tttaaaaaav", "happy", "happy", "sad", "Ann:", "nice"]
    assert max(map(len, text.splitlines())) <= 80


def test_orders_to_the_terminal_are_not_passed_on():
    text = printed(of(happy(text="\x1b]0;owned\x07[bold]x[/bold]", speaker="\x1b[2J"), notes=("\x1b[2J",)))
    assert "\x1b" not in text
    assert "[bold]x[/bold]" in text


def test_colours_are_there_for_those_who_see_them():
    assert "\x1b[" in printed(of(happy()), colours=True)


def test_without_a_terminal_there_is_room_for_the_words():
    out = io.StringIO()
    print_prediction(of(happy(text="a rather long sentence that needs its room")), Console(file=out, width=60))
    assert "a rather long sentence that needs its room" in out.getvalue()


def test_no_segments_are_said():
    assert "no segments" in printed(of())


@pytest.mark.parametrize(("time_s", "said"), [(0, "0:00.0"), (59.96, "1:00.0"), (3723.44, "1:02:03.4")])
def test_times(time_s, said):
    assert clock(time_s) == said


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_a_bar_is_full_or_empty_and_gives_each_its_share(values):
    total = sum(values)
    counts = shares(happy(relevance=dict(zip(MODALITIES, values, strict=True))))
    assert sum(counts.values()) == (10 if total > 0 else 0)
    assert all(abs(counts[m] - 10 * v / total) < 1.001 for m, v in zip(MODALITIES, values, strict=True) if total > 0)
