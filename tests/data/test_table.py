"""A table and arrays become a data set; what is missing, doubled, out of range or leaking is refused or told."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from moodal.data.store import read_dataset
from moodal.data.table import import_table
from moodal.types import SPLITS, InputError

N = 12
ROWS = {
    "id": [f"0{i}" for i in range(N)],
    "label": ["sad", "happy", "calm"] * 4,
    "speaker": [i // 2 for i in range(N)],
    "town": [f"t{i // 4}" for i in range(N)],
}


@pytest.fixture
def audio():
    return np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)


@pytest.fixture
def bring(tmp_path, audio):
    """Imports columns and arrays: (data set, warnings). A modality's features may be an array or a dict of arrays."""

    def run(rows=ROWS, *, suffix=".csv", audio=audio, without=(), also=None, **options):
        frame = pd.DataFrame({k: v for k, v in {**rows, **(also or {})}.items() if k not in without})
        source = tmp_path / f"table{suffix}"
        if suffix == ".parquet":
            frame.to_parquet(source)
        else:
            frame.to_csv(source, index=False, sep="\t" if suffix == ".tsv" else ",")
        if isinstance(audio, dict):
            np.savez(tmp_path / "audio.npz", **audio)
        else:
            np.save(tmp_path / "audio.npy", audio)
        path = tmp_path / ("audio.npz" if isinstance(audio, dict) else "audio.npy")
        notes = import_table(source, tmp_path / "out", features={"audio": path}, overwrite=True, **options)
        return read_dataset(tmp_path / "out"), notes

    return run


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_table_and_an_array_become_a_data_set(bring, audio, suffix):
    data, notes = bring(suffix=suffix, without=["town"])
    assert notes == []
    assert data.task.classes == ("calm", "happy", "sad")
    assert [u.id for u in data.utterances[:2]] == ["00", "01"]  # not the numbers 0 and 1
    assert [u.label for u in data.utterances[:3]] == ["sad", "happy", "calm"]
    assert data.utterances[5].speaker == data.utterances[5].group == "2"
    torch.testing.assert_close(data.batch.inputs["audio"].values, torch.from_numpy(audio))
    assert data.info["source"] == f"table{suffix}"


def test_every_column_of_an_utterance_comes_through(bring):
    also = {
        "video": "v",
        "start_s": np.arange(N) + 0.5,
        "end_s": np.arange(N) + 1.0,
        "text": ["a, b", 'say "x"', "", *["w"] * (N - 3)],
        "label_audio": ["sad", None, "calm"] * 4,
        "score": np.linspace(-1, 1, N),
        "score_vision": np.linspace(0, 1, N),
        "split": ["train"] * 6 + ["valid"] * 3 + ["test"] * 3,
        "group": [f"g{i // 3}" for i in range(N)],
        "intensity": ["weak", "strong", None] * 4,
    }
    data, notes = bring(also=also, without=["town"])
    u = data.utterances[1]
    assert notes == []
    assert (u.video, u.start_s, u.end_s, u.text, u.split, u.group) == ("v", 1.5, 2.0, 'say "x"', "train", "g0")
    assert [u.intensity for u in data.utterances[:3]] == ["weak", "strong", None]
    assert u.modality_labels == {}
    assert data.utterances[0].modality_labels == {"audio": "sad"}
    assert u.score == pytest.approx(-1 + 2 / 11)
    assert u.modality_scores == {"vision": pytest.approx(1 / 11)}
    assert (data.task.low, data.task.high) == (-1, 1)


def test_columns_may_have_other_names(bring):
    data, notes = bring({"clip": ROWS["id"], "emotion": ROWS["label"]}, fields={"id": "clip", "label": "emotion"})
    assert data.utterances[1].id == "01"
    assert notes == []


def test_whole_numbers_count_the_class_names(bring):
    data, _ = bring(also={"label": [0, 1, 2] * 4}, class_names=["no", "yes", "maybe"])
    assert data.task.classes == ("no", "yes", "maybe")
    assert [u.label for u in data.utterances[:3]] == ["no", "yes", "maybe"]


def test_whole_numbers_alone_are_class_names_in_their_order(bring):
    data, _ = bring(also={"label": list(range(N))})
    assert data.task.classes == tuple(str(i) for i in range(N))
    gaps, _ = bring(also={"label": [0, None, 1] * 4})  # pandas writes 0.0, nothing, 1.0
    assert gaps.task.classes == ("0", "1")
    assert gaps.utterances[1].label is None


@pytest.mark.parametrize("column", ["label", "score"])
def test_numbers_with_decimals_are_scores(bring, column):
    data, _ = bring(also={column: np.linspace(-2, 2.5, N)}, without={"label", "score"} - {column})
    assert data.task.kind == "regression"
    assert (data.task.low, data.task.high) == (-2, 2.5)
    fixed, _ = bring(also={column: np.linspace(-2, 2.5, N)}, without={"label", "score"} - {column}, interval=(-3, 3))
    assert (fixed.task.low, fixed.task.high) == (-3, 3)


def test_padded_sequences_with_and_without_lengths(bring):
    x = np.random.default_rng(1).normal(size=(N, 3, 2))
    lengths = np.arange(N) % 4
    data, notes = bring(audio={"values": x, "lengths": lengths}, without=["town"])
    assert notes == []
    assert data.batch.inputs["audio"].lengths.tolist() == lengths.tolist()
    expected = np.concatenate([clip[:n] for clip, n in zip(x, lengths, strict=True)]).astype(np.float32)
    torch.testing.assert_close(data.batch.inputs["audio"].values, torch.from_numpy(expected))
    full, notes = bring(audio=x, without=["town"])
    assert full.batch.inputs["audio"].lengths.tolist() == [3] * N
    assert notes == ["audio came without lengths: all 3 steps count as real"]


def test_sequences_one_after_the_other(bring):
    lengths = np.arange(N)
    x = np.arange(2 * lengths.sum(), dtype=np.float32).reshape(-1, 2)
    data, _ = bring(audio={"values": x, "lengths": lengths})
    assert data.batch.inputs["audio"].lengths.tolist() == lengths.tolist()
    torch.testing.assert_close(data.batch.inputs["audio"].values, torch.from_numpy(x))


def test_one_array_per_utterance_in_any_order(bring):
    arrays = {name: np.full((i % 3 + 1, 2), i) for i, name in reversed(list(enumerate(ROWS["id"])))}
    arrays["01"] = np.array([1.0, 1.0])
    del arrays["03"]
    data, notes = bring(audio={**arrays, "stranger": np.zeros((1, 2))}, without=["town"])
    assert data.batch.inputs["audio"].lengths.tolist() == [1, 1, 3, 0, 2, 3, 1, 2, 3, 1, 2, 3]
    assert data.batch.inputs["audio"].values[2].tolist() == [2, 2]
    assert notes == ["audio: 1 arrays belong to no utterance of the table"]


def test_folds_and_splits_by_any_column(bring):
    by_speaker, _ = bring(folds_by="speaker", num_folds=3)
    assert by_speaker.num_folds == 3
    assert len({(u.speaker, u.fold) for u in by_speaker.utterances}) == 6
    by_town, notes = bring(split_by="town")
    assert {u.split for u in by_town.utterances} == set(SPLITS)
    assert len({(u.group, u.split) for u in by_town.utterances}) == 3
    assert notes == []  # town was used


def test_a_group_in_two_splits_is_refused_and_a_speaker_in_two_is_told(bring):
    splits = ["train"] * 7 + ["test"] * 5
    _, notes = bring(also={"split": splits}, without=["town"])
    assert notes[0].startswith("1 of 3 groups in test also occur in train (1 utterances of test)")
    with pytest.raises(
        InputError, match=r"group 't1' is in both train and test \(utterance 07\); splits share no group"
    ):
        bring(also={"split": splits, "group": ROWS["town"]})
    with pytest.raises(InputError, match="group 't0' is in both fold 0 and fold 1"):
        bring(also={"fold": [0, 1] * 6, "group": ROWS["town"]})


def test_a_speaker_in_two_folds_is_told(bring):
    _, notes = bring(also={"fold": [0, 1] * 6}, without=["town"])
    assert notes[0].startswith("6 of 6 groups are in more than one fold")


def test_a_split_without_a_class_and_columns_without_use_are_told(bring):
    _, notes = bring(also={"split": ["train"] * 10 + ["test"] * 2})
    assert notes == ["columns that were not used: town", "test has no example of sad"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"without": ["id"]}, r"table.csv has no column 'id'; it has 'label', 'speaker', 'town'"),
        ({"without": ["label"]}, r"table.csv has neither a column 'label' nor 'score'; it has 'id'"),
        ({"also": {"id": ["a"] * N}}, "utterance id 'a' stands 12 times"),
        ({"also": {"id": [None, *ROWS["id"][1:]]}}, "1 of 12 utterances have no id"),
        ({"also": {"label": ["calm ", "calm", "sad"] * 4}}, "utterance 00: label 'calm ' begins or ends with a space"),
        ({"also": {"speaker": [" 1"] * N}}, "utterance 00: speaker ' 1' begins or ends with a space"),
        ({"also": {"label": ["calm", "sad", "NaN"] * 4}}, "utterance 02: the label is NaN; leave the cell empty"),
        ({"rows": {k: [] for k in ROWS}}, "the table has no rows"),
        ({"also": {"label": [None] * N}}, "no utterance has a label"),
        ({"also": {"score": [1.5] * N}, "without": ["label"]}, r"every score is 1.5; there is nothing to learn"),
        ({"also": {"score": [None] * N}, "without": ["label"]}, "no utterance has a score"),
        ({"audio": np.ones((N, 0))}, "audio has 0 features per step; it needs at least one"),
        (
            {"also": {"label": [0, 1, 9] * 4}, "class_names": ["a", "b"]},
            "utterance 02: label 9 is out of range; 0 to 1",
        ),
        ({"class_names": ["sad", "happy"]}, "utterance 02: label 'calm' is out of range; classes: sad, happy"),
        ({"also": {"label": [-1, 0, 1] * 4}}, "utterance 00: label -1 is out of range; classes count from 0"),
        ({"also": {"label": [0.5, 0, 1] * 4}, "class_names": ["a", "b"]}, "utterance 00: label 0.5 is out of range"),
        ({"also": {"label": ["one"] * N}}, "needs two or more different classes, got ..one"),
        (
            {"also": {"score": [0.0, 4.0] * 6}, "without": ["label"], "interval": (0, 1)},
            "utterance 01: label 4.0 is out",
        ),
        ({"also": {"score": ["x"] * N}}, "utterance 00: score 'x' is not a number"),
        ({"also": {"score": [0.5] * N, "label": [0.5] * N}}, "they are scores, but there is a column of scores too"),
        ({"also": {"score": [0.5, 1] * 6}, "without": ["label"], "class_names": ["a", "b"]}, "class names need labels"),
        ({"also": {"split": ["trian"] * N}}, "no split called 'trian'; did you mean 'train'"),
        ({"also": {"fold": [0, -1] * 6}}, "utterance 01: fold -1 is not one of 0, 1, 2"),
        ({"folds_by": "twon"}, "no column called 'twon'; did you mean 'town'"),
        ({"fields": {"labl": "town"}}, "no field of an utterance called 'labl'; did you mean 'label'"),
        ({"fields": {"label": "twon"}}, "no column in table.csv called 'twon'; did you mean 'town'"),
        ({"audio": np.ones((N - 1, 4))}, "audio has 11 rows for 12 utterances; they must be as many"),
        ({"audio": np.ones(N)}, r"audio has shape \(12,\) of float64, expected numbers"),
        ({"audio": np.full((N, 2), "a")}, r"audio has shape \(12, 2\) of <U1, expected numbers"),
        ({"audio": np.full((N, 2), np.nan)}, "utterance 00: audio holds NaN"),
        ({"audio": np.full((N, 2), 1e300)}, "utterance 00: audio holds inf"),
        ({"audio": np.array([[None] * 2] * N)}, r"audio.npy holds an array of Python objects"),
        (
            {"audio": {"values": np.ones((N, 3, 2)), "lengths": np.full(N, 4)}},
            "lengths go from 4 to 4, but there are 3",
        ),
        ({"audio": {"values": np.ones((N, 3, 2)), "lengths": np.ones(5, int)}}, r"the lengths have shape \(5,\)"),
        ({"audio": {"values": np.ones((30, 2)), "lengths": np.full(N, 2)}}, "30 rows, but its lengths add up to 24"),
        ({"audio": {"values": np.ones((N, 3, 2)), "lengths": np.zeros(N, int)}}, "audio is empty: no utterance"),
        ({"audio": {"else": np.ones((N, 2))}}, "neither 'values' nor an array for any utterance id"),
        (
            {"audio": {"00": np.ones((1, 2)), "01": np.ones((1, 3))}},
            r"utterance 01: audio has shape \(1, 3\), expected",
        ),
        ({"audio": {"00": np.ones((1, 2)), "01": np.array(["a"])}}, "utterance 01: audio holds <U1, expected numbers"),
    ],
)
def test_what_cannot_be_used_is_refused(bring, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        bring(**change)
    assert not (tmp_path / "out").exists()


def test_true_and_false_are_names_of_classes(bring):
    assert bring(also={"label": [True, False] * 6})[0].task.classes == ("False", "True")


def test_a_table_in_another_encoding_is_refused_and_not_repaired(bring, tmp_path):
    bring()
    table = tmp_path / "table.csv"
    table.write_bytes(table.read_text().replace("happy", "fröhlich").encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8; save the file with that encoding"):
        import_table(table, tmp_path / "new", features={"audio": tmp_path / "audio.npy"})


def test_the_first_of_several_bad_values_is_named(bring, audio):
    audio[7, 2] = np.inf
    audio[9, 0] = np.nan
    with pytest.raises(InputError, match="utterance 07: audio holds inf"):
        bring(audio=audio)


def test_files_that_are_not_there_or_not_what_they_say(bring, tmp_path):
    bring()
    table, out = tmp_path / "table.csv", tmp_path / "new"
    (tmp_path / "list.npy").write_bytes(pickle.dumps([1]))
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "twice.csv").write_text("id,label,label\n1,a,b\n")
    (tmp_path / "odd.csv").write_text("id,label\n1,a,b,c\n")
    for features, message in [
        ({"audio": tmp_path / "none.npy"}, r"none.npy does not exist"),
        ({"audio": tmp_path / "list.npy"}, r"list.npy is damaged, or is no NumPy file"),
        ({"audio": tmp_path / "cut.npz"}, r"cut.npz is damaged, or is no NumPy file"),
        ({"sound": tmp_path / "audio.npy"}, "no modality called 'sound'"),
        ({}, "no features given"),
    ]:
        with pytest.raises(InputError, match=message):
            import_table(table, out, features=features)
    for name, message in [
        ("none.csv", r"none.csv does not exist"),
        ("twice.csv", "two columns of one name among id, label, label"),
        ("odd.csv", r"odd.csv cannot be read as a table: CSV parse error"),
        ("list.npy", r"a table ends in .csv, .tsv or .parquet"),
    ]:
        with pytest.raises(InputError, match=message):
            import_table(tmp_path / name, out, features={"audio": tmp_path / "audio.npy"})
    assert not out.exists()
