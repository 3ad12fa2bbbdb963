"""Folds and splits keep groups whole, are balanced, and are the same every time."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodal.data.folds import group_folds, group_split, split_warnings, with_splits
from moodal.types import SPLITS, InputError, Task, Utterance

GROUPS = st.lists(st.sampled_from("abcdefgh"), min_size=8, max_size=60)


def utterances(n=12, videos=6, **fields):
    return [Utterance(f"u{i}", video=f"v{i % videos}", speaker=f"s{i % 3}", label="a", **fields) for i in range(n)]


@given(GROUPS, st.integers(2, 8))
def test_no_fold_cuts_a_group_and_none_is_empty(groups, num_folds):
    if len(set(groups)) < num_folds:
        with pytest.raises(InputError, match=f"{num_folds} folds need as many groups"):
            group_folds(groups, num_folds)
        return
    folds = group_folds(groups, num_folds)
    assert len(set(zip(groups, folds, strict=True))) == len(set(groups))
    assert set(folds) == set(range(num_folds))


def test_folds_are_balanced_largest_group_first_and_ties_go_by_name():
    groups = ["b"] * 3 + ["a"] * 3 + ["c"] * 2 + ["d"] * 2 + ["e"]
    assert group_folds(groups, 2) == [1] * 3 + [0] * 3 + [0] * 2 + [1] * 2 + [0]
    assert Counter(group_folds([f"actor-{i}" for i in range(24)] * 60, 6)) == dict.fromkeys(range(6), 240)


def test_folds_do_not_depend_on_the_order_of_the_utterances():
    groups = ["a", "b", "c", "a", "d", "b"]
    forward = dict(zip(groups, group_folds(groups, 2), strict=True))
    assert forward == dict(zip(groups[::-1], group_folds(groups[::-1], 2), strict=True))


def test_one_fold_is_no_cross_validation():
    with pytest.raises(InputError, match="two folds or more, got 1"):
        group_folds(["a", "b"], 1)


@given(GROUPS, st.integers(0, 5))
def test_no_split_cuts_a_group_and_none_is_empty(groups, seed):
    if len(set(groups)) < 3:
        with pytest.raises(InputError, match="three groups or more"):
            group_split(groups, seed=seed)
        return
    splits = group_split(groups, seed=seed)
    assert len(set(zip(groups, splits, strict=True))) == len(set(groups))
    assert set(splits) == set(SPLITS)


def test_a_split_has_its_fractions_and_follows_its_seed():
    groups = [f"video-{i // 5}" for i in range(1000)]
    assert Counter(group_split(groups)) == {"train": 700, "valid": 150, "test": 150}
    assert group_split(groups, seed=1) == group_split(groups, seed=1) != group_split(groups, seed=2)


def test_fractions_must_add_up_to_one():
    with pytest.raises(InputError, match="add up to 1"):
        group_split(["a", "b", "c"], fractions=(0.7, 0.2, 0.2))


def test_folds_by_a_field_become_the_group_and_replace_the_split():
    made = with_splits(utterances(split="train"), folds_by="video", num_folds=3)
    assert {u.group for u in made} == {f"v{i}" for i in range(6)}
    assert {u.split for u in made} == {None}
    assert Counter(u.fold for u in made) == {0: 4, 1: 4, 2: 4}


def test_a_split_by_a_column_of_the_table_keeps_its_groups_whole():
    made = with_splits(utterances(), split_by="town", columns={"town": [f"t{i % 4}" for i in range(12)]})
    assert len({(u.group, u.split) for u in made}) == 4
    assert {u.split for u in made} == set(SPLITS)


def test_without_a_request_nothing_changes():
    given = utterances(split="train")
    assert with_splits(given) == given


def test_groups_that_are_there_already_are_never_cut():
    grouped = [Utterance(u.id, speaker=u.speaker, group=u.video) for u in utterances(videos=2)]
    with pytest.raises(InputError, match=r"dividing by speaker would cut group 'v0' \(.* and .*\); divide by group"):
        with_splits(grouped, folds_by="speaker", num_folds=3)
    assert {u.fold for u in with_splits(grouped, folds_by="group", num_folds=2)} == {0, 1}


def test_every_utterance_needs_a_group():
    with pytest.raises(InputError, match="utterance u7 has no speaker"):
        with_splits([*utterances(7), Utterance("u7")], folds_by="speaker")


def test_a_column_that_does_not_exist_is_named():
    with pytest.raises(InputError, match="no column called 'speeker'; did you mean 'speaker'"):
        with_splits(utterances(), folds_by="speeker")


def test_folds_and_a_split_exclude_each_other():
    with pytest.raises(InputError, match="exclude each other"):
        with_splits(utterances(), folds_by="video", split_by="video")


def test_warnings_tell_leakage_and_classes_without_examples():
    rows = [
        Utterance("1", label="a", split="train", group="x"),
        Utterance("2", label="b", split="train", group="y"),
        Utterance("3", label="a", split="test", group="x"),
        Utterance("4", label="a", split="test", group="z"),
    ]
    leak, gap = split_warnings(rows, Task(("a", "b")))
    assert leak.startswith("1 of 2 groups in test also occur in train (1 utterances of test)")
    assert gap == "test has no example of b"
    assert split_warnings(rows[:2], Task(("a", "b"))) == []
