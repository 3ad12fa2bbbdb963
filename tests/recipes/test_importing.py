"""One door for foreign data: the right importer by name or option, and no option that is silently ignored."""

import csv
import pickle

import numpy as np
import pytest

from moodal.data.store import read_dataset
from moodal.recipes.importing import ImportOptions, import_data
from moodal.types import InputError

NUM = 12
FIELDS = ("id=name", "label=mood", "audio=sound")


def names_in(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def npz(tmp_path):
    file = tmp_path / "corpus.npz"
    np.savez(
        file,
        name=np.array([f"u{i}" for i in range(NUM)]),
        mood=np.arange(NUM) % 2,
        moods=np.array(["calm", "angry"]),
        valence=np.linspace(-1, 1, NUM).round(2),
        actor=np.array([f"a{i // 2}" for i in range(NUM)]),
        sound=np.arange(NUM * 3, dtype=np.float32).reshape(NUM, 3),
    )
    return file


@pytest.fixture
def table(tmp_path):
    file = tmp_path / "corpus.csv"
    with file.open("w", newline="") as f:
        rows = csv.writer(f)
        rows.writerow(["name", "mood", "valence", "speaker"])
        rows.writerows([f"u{i}", i % 2, round(i / 10 - 0.6, 1), f"a{i // 2}"] for i in range(NUM))
    np.save(tmp_path / "sound.npy", np.ones((NUM, 3), np.float32))
    return file


@pytest.fixture
def bring(tmp_path):
    def run(source, **options):
        import_data(source, tmp_path / "out", ImportOptions(**options))
        return read_dataset(tmp_path / "out")

    return run


def test_the_name_tells_the_format(bring, npz, table, tmp_path):
    assert bring(npz, fields=FIELDS).batch.dims == {"audio": 3}
    sound = (f"audio={tmp_path / 'sound.npy'}",)
    assert bring(table, fields=("id=name", "label=mood"), features=sound, overwrite=True).batch.dims == {"audio": 3}
    tabs = tmp_path / "corpus.tsv"
    tabs.write_text(table.read_text().replace(",", "\t"))
    assert len(bring(tabs, fields=("id=name", "label=mood"), features=sound, overwrite=True).index()) == NUM


def test_the_format_can_be_said(bring, npz, tmp_path):
    plain = tmp_path / "corpus.data"
    npz.rename(plain)
    with pytest.raises(InputError, match=r"its name does not tell the format; say --format mmsa, npz or table"):
        bring(plain, fields=FIELDS)
    assert len(bring(plain, format="npz", fields=FIELDS).index()) == NUM
    with pytest.raises(InputError, match="no format called 'nps'; did you mean 'npz'"):
        bring(plain, format="nps")


def test_class_names_are_what_whole_numbers_count(bring, npz, table, tmp_path):
    assert bring(npz, fields=FIELDS).task.classes == ("0", "1")
    assert bring(npz, fields=FIELDS, class_names="calm, angry", overwrite=True).task.classes == ("calm", "angry")
    by_array = bring(npz, fields=(*FIELDS, "class_names=moods"), overwrite=True)
    assert by_array.task.classes == ("calm", "angry")
    fields, features = ("id=name", "label=mood"), (f"audio={tmp_path / 'sound.npy'}",)
    data = bring(table, fields=fields, features=features, class_names="calm,angry", overwrite=True)
    assert [u.label for u in data.utterances[:3]] == ["calm", "angry", "calm"]


def test_scores_lie_in_the_interval_that_was_said(bring, npz, table, tmp_path):
    fields = ("id=name", "score=valence", "audio=sound")
    assert bring(npz, fields=fields).task.high == 1
    task = bring(npz, fields=fields, interval="-3,3", overwrite=True).task
    assert (task.low, task.high) == (-3, 3)
    features = (f"audio={tmp_path / 'sound.npy'}",)
    task = bring(table, fields=fields[:2], features=features, interval="-1, 1", overwrite=True).task
    assert (task.low, task.high) == (-1, 1)
    with pytest.raises(InputError, match=r"utterance u0: label -0.6 is out of range; scores go 0.0 to 1.0"):
        bring(table, fields=fields[:2], features=features, interval="0,1", overwrite=True)


def test_folds_and_splits_by_a_column(bring, npz, table, tmp_path):
    assert bring(npz, fields=FIELDS, folds_by="actor").num_folds == 5
    assert bring(npz, fields=FIELDS, folds_by="actor", folds=3, overwrite=True).num_folds == 3
    fields, features = ("id=name", "label=mood"), (f"audio={tmp_path / 'sound.npy'}",)
    data = bring(table, fields=fields, features=features, split_by="speaker", overwrite=True)
    assert {u.split for u in data.utterances} == {"train", "valid", "test"}
    assert data.utterances[0].split == data.utterances[1].split


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": ["audio=x.npy"]}, "--features means nothing for an npz file; leave it out"),
        ({"non_finite": "zero"}, "--non-finite means nothing for an npz file"),
        ({"protocol": "official"}, "--protocol means nothing for an npz file"),
        ({"folds": 3}, "--folds needs --folds-by COLUMN"),
        ({"folds": 0, "folds_by": "actor"}, "cross-validation needs two folds or more, got 0"),
        ({"class_names": "calm,,angry"}, "--classes needs names with commas between them, got 'calm,,angry'"),
        ({"class_names": ""}, "--classes needs names"),
        ({"class_names": "calm"}, "label 1 is out of range; 0 to 0 count the class names"),
        ({"class_names": "calm,calm"}, "needs two or more different classes"),
        ({"interval": "1"}, "--interval needs two numbers like -3,3, got '1'"),
        ({"interval": "low,high"}, "--interval needs two numbers like -3,3, got 'low,high'"),
        ({"interval": "3,-3"}, "--interval needs a lower number before a higher one, got '3,-3'"),
        ({"interval": "nan,1"}, "--interval needs a lower number"),
        ({"fields": [*FIELDS, "class_names=moods"], "class_names": "a,b"}, "--classes means nothing for a file whose"),
        ({"fields": ["label"]}, "need KEY=VALUE, got 'label'"),
        ({"folds_by": "actor", "split_by": "actor"}, "exclude each other"),
    ],
)
def test_options_of_an_npz_that_cannot_be_meant(bring, npz, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        bring(npz, **{"fields": FIELDS, **options})
    assert names_in(tmp_path) == ["corpus.npz"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"non_finite": "zero"}, "--non-finite means nothing for a table"),
        ({"audio": "folder"}, "--audio means nothing for a table"),
        ({"features": []}, "no features given; name a file for text, audio or vision"),
        ({"features": ["sound=sound.npy"]}, "no modality called 'sound'"),
        ({"fields": ["id=name", "lable=mood"]}, "no field of an utterance called 'lable'; did you mean 'label'"),
        ({"fields": ["id=name", "label=moods"]}, "no column in corpus.csv called 'moods'; did you mean 'mood'"),
        ({"features": ["audio=nowhere.npy"]}, "nowhere.npy does not exist"),
    ],
)
def test_options_of_a_table_that_cannot_be_meant(bring, table, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        bring(
            table,
            **{"fields": ["id=name", "label=mood"], "features": [f"audio={tmp_path / 'sound.npy'}"], **options},
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"fields": ["id=x"]}, "--field"),
        ({"features": ["audio=x"]}, "--features"),
        ({"class_names": "a,b"}, "--classes"),
        ({"interval": "0,1"}, "--interval"),
        ({"protocol": "official"}, "--protocol"),
        ({"audio": "x"}, "--audio"),
    ],
)
def test_options_of_a_pickle_that_cannot_be_meant(bring, tmp_path, options, flag):
    (tmp_path / "corpus.pkl").write_bytes(pickle.dumps({}))
    with pytest.raises(InputError, match=f"{flag} means nothing for a pickle; leave it out"):
        bring(tmp_path / "corpus.pkl", **options)


def test_what_a_recipe_knows_cannot_be_said(bring, tmp_path):
    from moodal.recipes.ravdess import ARRAYS

    np.savez(tmp_path / "ravdess.npz", **{name: np.zeros(1) for name in ARRAYS})
    for options, message in (
        ({"class_names": "a,b"}, r"--classes means nothing for RAVDESS \(its recipe knows them\)"),
        ({"split_by": "actor"}, "--split-by means nothing for RAVDESS"),
        ({"folds_by": "emotion"}, "RAVDESS is folded by actor, not by 'emotion'"),
    ):
        with pytest.raises(InputError, match=message):
            bring(tmp_path / "ravdess.npz", **options)


def test_a_source_that_does_not_exist(bring, tmp_path):
    with pytest.raises(InputError, match=r"nowhere.npz does not exist"):
        bring(tmp_path / "nowhere.npz")
