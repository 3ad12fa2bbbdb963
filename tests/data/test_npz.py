"""One .npz file becomes a data set: the user says which array is which."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from moodal.data.npz import import_npz
from moodal.data.store import read_dataset
from moodal.types import InputError

DATA = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
N = 8
ARRAYS = {
    "ids": np.array([f"u{i}" for i in range(N)]),
    "emotion": np.arange(N) % 2,
    "names": np.array(["calm", "angry"]),
    "actor": np.arange(N) // 2,
    "said": np.array(["word"] * N),
    "valence": np.linspace(-0.4, 1, N, dtype=np.float32).round(1),
    "sentence": np.ones((N, 5), np.float32),
    "sound": np.arange(N * 6, dtype=np.float64).reshape(N, 3, 2),
    "sound_steps": np.arange(N) % 4,
    "room": np.array(["x", "y"] * 4),
}
FIELDS = {"id": "ids", "label": "emotion", "class_names": "names", "audio": "sound", "audio_lengths": "sound_steps"}


@pytest.fixture
def bring(tmp_path):
    def run(*, arrays=None, fields=FIELDS, **options):
        np.savez_compressed(tmp_path / "corpus.npz", **{**ARRAYS, **(arrays or {})})
        notes = import_npz(tmp_path / "corpus.npz", tmp_path / "out", fields=fields, **options)
        return read_dataset(tmp_path / "out"), notes

    return run


def test_arrays_become_columns_and_modalities(bring):
    more = {"text": "sentence", "words": "said", "speaker": "actor", "score": "valence"}
    data, notes = bring(fields={**FIELDS, **more}, name="toy")
    u = data.utterances[3]
    assert notes == []
    assert (u.id, u.label, u.speaker, u.group, u.text, u.score) == ("u3", "angry", "1", "1", "word", 0.2)
    assert data.task.classes == ("calm", "angry")
    assert data.batch.inputs["text"].lengths.tolist() == [1] * N
    assert data.batch.inputs["audio"].lengths.tolist() == [0, 1, 2, 3] * 2
    expected = np.concatenate([x[: i % 4] for i, x in enumerate(ARRAYS["sound"])]).astype(np.float32)
    torch.testing.assert_close(data.batch.inputs["audio"].values, torch.from_numpy(expected))


def test_scores_alone_make_a_regression(bring):
    data, notes = bring(fields={"id": "ids", "score": "valence", "audio": "sound"}, interval=(-1, 1))
    assert (data.task.kind, data.task.low, data.task.high) == ("regression", -1, 1)
    assert data.utterances[0].score == -0.4  # a float32 in the file
    assert notes == ["audio came without lengths: all 3 steps count as real"]


def test_folds_by_a_field_or_by_any_array(bring, tmp_path):
    fields = {**FIELDS, "speaker": "actor"}
    data, _ = bring(fields=fields, folds_by="speaker", num_folds=2)
    assert len({(u.speaker, u.fold) for u in data.utterances}) == 4
    data, _ = bring(fields=fields, folds_by="room", num_folds=2, overwrite=True)
    assert {(u.group, u.fold) for u in data.utterances} == {("x", 0), ("y", 1)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fields": {**FIELDS, "sound": "sound"}}, "no field called 'sound'"),
        (
            {"fields": {**FIELDS, "label": "emotions"}},
            r"no array in corpus.npz called 'emotions'; did you mean 'emotion'",
        ),
        ({"fields": {"label": "emotion", "audio": "sound"}}, "say which array is the id and which the label or score"),
        ({"fields": {"id": "ids", "label": "emotion"}}, "say which array is text, audio or vision; it has actor"),
        (
            {"fields": {**FIELDS, "speaker": "sound"}},
            r"array 'sound' has shape \(8, 3, 2\), expected one value per utt",
        ),
        ({"arrays": {"emotion": np.zeros(5, int)}}, "label has 5 values for 8 utterances; they must be as many"),
        ({"arrays": {"emotion": np.full(N, 2)}}, "utterance u0: label 2 is out of range; 0 to 1 count the class names"),
        ({"arrays": {"sound": np.ones((5, 3, 2))}}, "audio has 5 rows for 8 utterances; they must be as many"),
        ({"arrays": {"sound": np.full((N, 3, 2), np.inf)}}, "utterance u1: audio holds inf"),  # u0 has no step
        ({"arrays": {"sound": np.array([None] * N)}}, r"corpus.npz holds an array of Python objects"),
        ({"arrays": {"ids": np.array(["a", None] * 4)}}, r"corpus.npz holds an array of Python objects"),
        ({"arrays": {"ids": np.array(["a"] * N)}}, "utterance id 'a' stands 8 times"),
        ({"folds_by": "rooom"}, "no column called 'rooom'"),
    ],
)
def test_what_cannot_be_used_is_refused(bring, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        bring(**change)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_npz(tmp_path):
    np.save(tmp_path / "one.npy", np.ones(3))
    (tmp_path / "text.npz").write_text("id,label")
    for name, message in [
        ("one.npy", "one array without a name"),
        ("text.npz", "is no NumPy file"),
        ("no.npz", "exist"),
    ]:
        with pytest.raises(InputError, match=f"{name} .*{message}"):
            import_npz(tmp_path / name, tmp_path / "out", fields=FIELDS)


def test_a_damaged_file(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **ARRAYS)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    at = content.index(b"sound.npy")
    content[at + 40 : at + 80] = bytes(40)
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"a.npz is damaged"):
        import_npz(tmp_path / "a.npz", tmp_path / "out", fields=FIELDS)


@pytest.mark.corpus
def test_ravdess_as_it_lies_folds_by_actor(tmp_path):
    source = DATA / "ravdess" / "ravdess_av_features.npz"
    if not source.is_file():
        pytest.skip(f"needs {source}")
    fields = {"id": "ids", "label": "emotion", "class_names": "emotion_names", "vision": "au_mean", "speaker": "actor"}
    notes = import_npz(source, tmp_path / "out", fields=fields, folds_by="speaker", num_folds=6)
    data = read_dataset(tmp_path / "out")
    assert notes == []
    assert data.num_folds == 6
    assert len({(u.speaker, u.fold) for u in data.utterances}) == 24
    assert data.batch.dims == {"vision": 35}
    assert len(data.index()) == 1440
