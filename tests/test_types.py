"""Segments, tasks and the two kinds of failure."""

import pytest

from moodal.types import InputError, Segment, Task, WorkError, unknown


def test_a_misspelt_name_is_answered_with_the_nearest_one():
    error = unknown("model", "mer", ["lmf", "mre", "lda"])
    assert isinstance(error, InputError)
    assert "no model called 'mer'" in str(error)
    assert "did you mean 'mre'?" in str(error)


def test_a_name_like_no_other_gets_the_list_alone():
    message = str(unknown("model", "xyzzy", ["mre", "lmf"]))
    assert "did you mean" not in message
    assert message.endswith("There are: lmf, mre")


def test_a_sentence_ends_before_the_next_begins():
    assert str(unknown("model", "xyzzy", ["mre", "lmf"])) == "no model called 'xyzzy'. There are: lmf, mre"


def test_the_users_mistake_is_no_failure_of_the_work():
    assert not issubclass(InputError, WorkError)
    assert not issubclass(WorkError, InputError)


@pytest.mark.parametrize(("start", "end"), [(1.0, 1.0), (2.0, 1.0), (-0.1, 1.0), (float("nan"), 1.0)])
def test_a_segment_has_a_beginning_before_its_end(start, end):
    with pytest.raises(InputError, match="0 <= start_s < end_s"):
        Segment(start, end)


def test_a_segment_may_begin_with_the_video():
    assert Segment(0.0, 0.5).end_s == 0.5


def test_a_task_with_classes_has_an_output_for_each():
    task = Task(("sad", "happy", "angry"))
    assert (task.kind, task.num_outputs) == ("classification", 3)


def test_a_task_without_classes_is_one_score_in_an_interval():
    task = Task(low=-3.0, high=3.0)
    assert (task.kind, task.num_outputs) == ("regression", 1)


def test_a_task_with_classes_may_also_say_where_its_scores_lie():
    assert Task(("negative", "positive"), low=-3.0, high=3.0).kind == "classification"


@pytest.mark.parametrize("classes", [("one",), ("same", "same"), ("a", "b", "a")])
def test_classes_are_two_or_more_and_different(classes):
    with pytest.raises(InputError, match="two or more different classes"):
        Task(classes)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (1.0, -1.0), (float("nan"), 1.0)])
def test_an_interval_has_two_ends(low, high):
    with pytest.raises(InputError, match="low < high"):
        Task(low=low, high=high)
