"""The field's pickle becomes a data set: what is padding, what is a label, what leaks, and what is refused."""

import logging
import os
import pickle

import numpy as np
import pytest
import torch

from moodal.data.mmsa import import_mmsa
from moodal.data.store import read_dataset, read_info
from moodal.types import MODALITIES, InputError

STEPS = {"text": 6, "audio": 9, "vision": 5}
DIMS = {"text": 4, "audio": 3, "vision": 2}
SCORES = [-0.8, 0.0, 0.2, 1.0]  # for as many utterances per split


def make_part(split, *, lengths=True, aligned=False, bert=True, modal=True):
    rng = np.random.default_rng(len(split))
    n = len(SCORES)
    part = {}
    counts = {m: 1 + (np.arange(n) + k) % 4 for k, m in enumerate(MODALITIES)}
    for m in MODALITIES:
        steps = STEPS["text" if aligned else m]
        real = np.arange(steps) < counts["text" if aligned else m][:, None]
        x = rng.normal(1, 0.1, (n, steps, DIMS[m])).astype(np.float32)
        part[m] = x * real[:, :, None] if m != "text" or not bert else x  # text padding holds no zeros
        if m == "text" and bert:
            part["text_bert"] = np.stack([real * 7, real, real * 0], axis=1).astype(np.float32)
    if lengths:
        part |= {f"{m}_lengths": counts[m].tolist() for m in ("audio", "vision")}
    part["regression_labels"] = np.array(SCORES, dtype=np.float32)
    part["annotations"] = ["Negative", "Neutral", "Positive", "Positive"]
    part["classification_labels"] = np.array([0, 1, 2, 2])
    if modal:
        for key, own in {"T": SCORES, "A": [0.2, 0.2, -1, -1], "V": SCORES[::-1]}.items():
            part[f"regression_labels_{key}"] = np.array(own, dtype=np.float32)
    part["id"] = [f"{split}{i // 2}$_$000{i}" for i in range(n)]
    part["raw_text"] = np.array([f"words {split} {i}" for i in range(n)], dtype=object)
    return part


def make(**options):
    return {split: make_part(split, **options) for split in ("train", "valid", "test")}


@pytest.fixture
def bring(tmp_path):
    """Imports a content and reads the data set: (data set, warnings)."""

    def run(content, **options):
        source = tmp_path / "corpus.pkl"
        source.write_bytes(pickle.dumps(content, 4))
        notes = import_mmsa(source, tmp_path / "out", **options)
        return read_dataset(tmp_path / "out"), notes

    return run


def test_real_steps_come_through_and_nothing_else(bring):
    content = make()
    data, notes = bring(content)
    assert notes == []
    assert data.batch.inputs["text"].lengths.tolist() == [1, 2, 3, 4] * 3  # from the mask of text_bert
    assert data.batch.inputs["audio"].lengths.tolist() == [2, 3, 4, 1] * 3  # from audio_lengths
    for m in MODALITIES:
        expected = [
            x[:n] for p in content.values() for x, n in zip(p[m], data.batch.inputs[m].lengths[:4], strict=True)
        ]
        torch.testing.assert_close(data.batch.inputs[m].values, torch.from_numpy(np.concatenate(expected)))


def test_utterances_have_words_videos_and_official_splits(bring):
    data, _ = bring(make(), name="toy", licence="research only")
    u = data.utterances[5]
    assert (u.id, u.video, u.group, u.split, u.text) == ("valid0$_$0001", "valid0", "valid0", "valid", "words valid 1")
    assert data.name == "toy"
    assert data.info["licence"] == "research only"
    assert len(data.info["source_sha256"]) == 64


def test_labels_are_the_signs_of_the_scores(bring):
    data, _ = bring(make())
    assert data.task.classes == ("negative", "neutral", "positive")
    assert [u.label for u in data.utterances[:4]] == ["negative", "neutral", "positive", "positive"]
    assert [u.score for u in data.utterances[:4]] == SCORES  # 0.2, not 0.20000000298
    assert data.utterances[2].modality_labels == {"text": "positive", "audio": "negative", "vision": "neutral"}
    assert data.utterances[2].modality_scores == {"text": 0.2, "audio": -1.0, "vision": 0.0}


@pytest.mark.parametrize(("top", "interval"), [(1.0, (-1.0, 1.0)), (3.0, (-3.0, 3.0))])
def test_the_interval_comes_from_the_scores(bring, top, interval):
    content = make(modal=False)
    content["valid"]["regression_labels"] = np.array([-top, 0, top, top / 3], np.float32)
    data, _ = bring(content)
    assert (data.task.low, data.task.high) == interval
    assert data.batch.modality_labels == {}


def test_aligned_files_have_one_length_for_all(bring):
    data, notes = bring(make(lengths=False, aligned=True))
    assert notes == []
    for m in MODALITIES:
        assert data.batch.inputs[m].lengths.tolist() == [1, 2, 3, 4] * 3


def test_without_lengths_zeros_at_the_end_are_padding_and_this_is_said(bring):
    data, notes = bring(make(lengths=False, bert=False))
    assert data.batch.inputs["text"].lengths.tolist() == [1, 2, 3, 4] * 3
    assert data.batch.inputs["audio"].lengths.tolist() == [2, 3, 4, 1] * 3
    assert "train/audio comes without lengths: rows of zeros at the end were taken as padding" in notes
    assert list(data.info["notes"]) == notes


def test_a_row_of_zeros_between_real_steps_is_no_padding(bring):
    content = make(lengths=False, bert=False)
    content["train"]["audio"][2, 1] = 0
    data, _ = bring(content)
    assert data.batch.inputs["audio"].lengths[2] == 4


def test_padding_on_the_left_is_found(bring):
    plain, _ = bring(make(lengths=False, aligned=True, bert=False))
    content = make(lengths=False, aligned=True, bert=False)
    for part in content.values():
        for m in MODALITIES:
            part[m] = np.stack([np.roll(x, 6 - n, axis=0) for x, n in zip(part[m], [1, 2, 3, 4], strict=True)])
    data, notes = bring(content, overwrite=True)
    for m in MODALITIES:
        torch.testing.assert_close(data.batch.inputs[m].values, plain.batch.inputs[m].values)
    assert any("and at the start too (4 utterances)" in note for note in notes)


def test_length_zero_is_a_missing_modality_and_too_long_is_cut(bring):
    content = make()
    content["test"]["vision_lengths"] = [0, 3, 99, 5]
    data, notes = bring(content)
    assert data.batch.inputs["vision"].lengths[-4:].tolist() == [0, 3, 5, 5]
    assert data.batch.present["vision"][-4:].tolist() == [False, True, True, True]
    assert notes == ["test/vision: 1 lengths are beyond the 5 steps of the file; those clips were cut there"]


def test_classes_that_contradict_the_scores_are_counted(bring):
    content = make()
    content["train"]["annotations"][0] = "Positive"
    content["valid"]["classification_labels"] = np.array([0.0, 0.0, 0.0, 2.0])
    content["test"]["classification_labels"] = np.array([0, 1, 2, 6])
    _, notes = bring(content)
    assert notes == [
        "train: 1 of 4 annotations disagree with the sign of the score; the sign was kept",
        "valid: 2 of 4 classification_labels disagree with the sign of the score; the sign was kept",
        "test/classification_labels holds '6', which is none of the three classes; it was not used",
    ]


def test_leaking_splits_are_imported_with_a_warning(bring, caplog, tmp_path):
    content = make()
    content["test"]["id"] = [f"train{i // 2}$_$100{i}" for i in range(4)]
    with caplog.at_level(logging.WARNING):
        _, notes = bring(content)
    assert notes[0].startswith("2 of 2 groups in test also occur in train (4 utterances of test)")
    assert read_info(tmp_path / "out")["notes"] == notes
    assert notes[0] in caplog.text


def test_folds_by_video_replace_the_splits(bring):
    data, _ = bring(make(), folds_by="video", num_folds=3)
    assert data.num_folds == 3
    assert len({(u.video, u.fold) for u in data.utterances}) == 6
    assert {u.split for u in data.utterances} == {None}


def test_a_new_split_by_video_keeps_videos_whole(bring):
    data, _ = bring(make(), split_by="video")
    assert len({(u.video, u.split) for u in data.utterances}) == 6


def test_folds_that_would_cut_a_video_are_refused(bring):
    with pytest.raises(InputError, match="dividing by id would cut group 'train0'"):
        bring(make(), folds_by="id", num_folds=2)


def test_classes_without_examples_are_told(bring):
    content = make(modal=False)
    for key, value in {"regression_labels": [-1, -1, -1, 1], "annotations": ["Negative"] * 3 + ["Positive"]}.items():
        content["valid"][key] = value
    del content["valid"]["classification_labels"], content["test"]
    _, notes = bring(content)
    assert notes == ["the file has no test", "valid has no example of neutral"]


@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (-np.inf, "-inf")])
def test_values_that_are_not_finite_are_refused_by_name(bring, tmp_path, value, shown):
    content = make()
    content["valid"]["audio"][1, 2, 0] = content["valid"]["audio"][2, 0, 0] = value
    with pytest.raises(InputError, match=rf"utterance valid0\$_\$0001: audio holds {shown} in step 2; .*drop_step"):
        bring(content)
    assert not (tmp_path / "out").exists()


def test_values_that_are_not_finite_become_zero_or_go_with_their_step(bring):
    content = make()
    content["valid"]["audio"][1, 2, 0] = -np.inf
    data, notes = bring(content, non_finite="zero")
    assert data.batch.inputs["audio"].lengths[5] == 3
    assert data.batch.select(torch.tensor([5])).inputs["audio"].values[2, 0] == 0
    assert notes == ["audio: 1 values that were not finite became 0"]
    data, notes = bring(content, non_finite="drop_step", overwrite=True)
    assert data.batch.inputs["audio"].lengths[5] == 2
    assert notes == ["audio: 1 steps with values that were not finite were dropped"]
    with pytest.raises(InputError, match="no way with values that are not finite called 'ignore'"):
        bring(content, non_finite="ignore")


def test_padding_may_hold_anything(bring):
    content = make()
    content["train"]["audio"][0, 8] = np.nan
    bring(content)


def test_doubles_that_overflow_are_not_finite(bring):
    content = make()
    content["train"]["audio"] = content["train"]["audio"].astype(float) * 1e300
    with pytest.raises(InputError, match="audio holds inf in step 0"):
        bring(content)


def test_a_file_may_hold_two_modalities(bring):
    content = make()
    for part in content.values():
        del part["vision"]
    assert list(bring(content)[0].batch.inputs) == ["text", "audio"]


def test_older_files_have_labels_in_three_dimensions_and_ids_in_columns(bring):
    content = make(modal=False)
    for split, part in content.items():
        part["labels"] = part.pop("regression_labels").reshape(-1, 1, 1)
        part["id"] = np.array([[split.encode(), b"%d" % i, b"9"] for i in range(4)])
    data, _ = bring(content)
    assert data.utterances[1].id == "train$_$1$_$9"
    assert data.utterances[1].video == "train"
    assert data.utterances[0].score == -0.8


def without(key):
    def change(content):
        del content["valid"][key]

    return change


def doubling():
    """A small list whose text, or whose form as an array, would fill any memory."""
    x = ["a"]
    for _ in range(60):
        x = [x, x]
    return x


def put(key, value):
    def change(content):
        content["valid"][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("id"), r"corpus.pkl: valid has no 'id'; it has annotations, audio"),
        (without("regression_labels"), "valid has no 'regression_labels'"),
        (without("audio"), r"valid has features of \['text', 'vision'\], expected the same in all splits"),
        (put("audio", np.zeros((4, 3))), r"valid/audio is shape \(4, 3\) of float64, expected numbers \(utterances"),
        (put("audio", [[0.0]]), "valid/audio is a list, expected numbers"),
        (put("audio", np.full((4, 1, 1), "a")), "valid/audio is shape .* of <U1, expected numbers"),
        (put("audio", np.ones((4, 3, 8))), "audio has different numbers of features: {'train': 3, 'valid': 8"),
        (put("audio", np.ones((3, 3, 3))), "valid has 4 ids but 3 rows of audio; they must be as many"),
        (put("raw_text", ["a"]), "valid has 4 ids but 1 values of raw_text"),
        (put("regression_labels", np.zeros(5)), "valid has 4 ids but 5 values of regression_labels"),
        (put("regression_labels", ["a"] * 4), "valid/regression_labels holds something that is not a number"),
        (put("regression_labels", [0, 0, 5, 0]), r"utterance valid1\$_\$0002: label 5.0 is out of range; scores go -3"),
        (put("regression_labels", [0, np.nan, 0, 0]), r"utterance valid0\$_\$0001: label nan is out of range"),
        (put("raw_text", [doubling()] * 4), "valid/raw_text holds a list for utterance 0, expected one value"),
        (put("id", [[doubling()]] * 4), "valid/id holds a list for utterance 0, expected one value"),
        (put("id", 4), "valid/id is a int, expected one value per utterance"),
        (put("regression_labels", np.zeros(())), "valid/regression_labels is a ndarray, expected one value per utt"),
        (put("text_bert", np.ones((4, 1, 5))), r"valid/text_bert has shape \(4, 1, 5\), expected ids, mask"),
        (put("audio_lengths", [1, -1, 1, 1]), "valid/audio_lengths holds .* lengths are counts of steps"),
        (put("id", ["a", "b", "c", "train0$_$0000"]), r"utterance id 'train0\$_\$0000' stands 2 times"),
        (lambda c: c.update(valid=[1]), "valid is a list, expected a dictionary"),
        (
            lambda c: c.update(extra={}),
            "expected a dictionary with train, valid and test, found train, valid, test, ext",
        ),
        (lambda c: c.clear(), "expected a dictionary with train, valid and test, found nothing"),
        (lambda c: [p.update(vision=p["vision"] * 0, vision_lengths=[0] * 4) for p in c.values()], "vision is empty"),
    ],
)
def test_a_file_of_another_layout_is_refused(bring, tmp_path, change, message):
    content = make()
    change(content)
    with pytest.raises(InputError, match=message):
        bring(content)
    assert not (tmp_path / "out").exists()


def test_a_pickle_with_a_command_in_it_is_refused(bring, tmp_path):
    class Command:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'victim'}",)

    with pytest.raises(InputError, match=r"corpus.pkl: the pickle asks for posix.system"):
        bring({**make(), "test": Command()})
    assert not (tmp_path / "victim").exists()
