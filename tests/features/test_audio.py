"""The 33 audio features: librosa's numbers, faster."""

import os
import warnings
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from moodal.features.audio import COLUMNS, HOP, PRESETS, SAMPLE_RATE_HZ, audio_features, read_audio, spec
from moodal.types import InputError

DATA = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
ZCR, MFCC, CHROMA = slice(0, 1), slice(1, 21), slice(21, 33)


def librosa_features(y, *, htk):
    """The three calls of the field's published extractors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa warns about clips shorter than a frame, and about silence
        zcr = librosa.feature.zero_crossing_rate(y, hop_length=512)
        mfcc = librosa.feature.mfcc(y=y, sr=22_050, hop_length=512, htk=htk)
        chroma = librosa.feature.chroma_cqt(y=y, sr=22_050, hop_length=512)
    return np.concatenate([zcr, mfcc, chroma]).T


def tone(hz, seconds, level=0.3):
    return (level * np.sin(2 * np.pi * hz * np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ)).astype("f4")


def noise(num_samples, level=0.1):
    return (level * np.random.default_rng(0).standard_normal(num_samples)).astype(np.float32)


SIGNALS = {
    "tone": tone(440, 2),
    "tone off the scale": tone(452, 1.3),
    "two tones in noise": tone(225, 1.7) + tone(961, 1.7, 0.1) + noise(37485, 0.01),
    "chirp": (0.3 * librosa.chirp(fmin=80, fmax=6000, sr=22_050, length=50_001)).astype(np.float32),
    "noise": noise(44_100),
    "loud then silent": np.concatenate([noise(20_000), np.zeros(20_000, np.float32)]),
    "silence": np.zeros(9_000, np.float32),
    "odd length": noise(33_333),
    "shorter than a frame": noise(1_500),
    "shorter than a hop": tone(300, 1)[:100],
    "one sample": np.full(1, 0.5, np.float32),
}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", SIGNALS)
def test_features_are_librosas(name, preset):
    y = SIGNALS[name]
    ours, theirs = audio_features(y, preset), librosa_features(y, htk=preset == "field")
    assert ours.shape == (1 + len(y) // HOP, 33)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours[:, ZCR], theirs[:, ZCR], atol=1e-7)
    np.testing.assert_allclose(ours[:, MFCC], theirs[:, MFCC], atol=1e-3)
    np.testing.assert_allclose(ours[:, CHROMA], theirs[:, CHROMA], atol=1e-3)


def test_the_presets_differ_in_the_mel_scale_only():
    field, default = (audio_features(SIGNALS["chirp"], p) for p in ("field", "librosa"))
    assert np.abs(field[:, MFCC] - default[:, MFCC]).max() > 1
    np.testing.assert_array_equal(field[:, CHROMA], default[:, CHROMA])
    np.testing.assert_array_equal(field[:, ZCR], default[:, ZCR])


def test_a_tone_of_440_hz_is_an_a_with_880_sign_changes_per_second():
    middle = audio_features(tone(440, 2))[20:60]
    assert {COLUMNS[21 + i] for i in middle[:, CHROMA].argmax(1)} == {"chroma_A"}
    np.testing.assert_allclose(middle[:, 0] * SAMPLE_RATE_HZ, 880, rtol=0.02)


def test_silence_has_no_notes_and_no_sign_changes():
    x = audio_features(SIGNALS["silence"])
    assert not x[:, ZCR].any()
    assert not x[:, CHROMA].any()


def test_spec_names_every_column_and_the_preset():
    assert len(COLUMNS) == spec()["dim"] == 33
    assert COLUMNS[0] == "zcr"
    assert COLUMNS[1] == "mfcc_0"
    assert COLUMNS[21] == "chroma_C"
    assert spec("field")["settings"] != spec("librosa")["settings"]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(0, np.float32), "empty"),
        (np.zeros((2, 100), np.float32), r"one row of floats, got shape \(2, 100\)"),
        (np.zeros(100, np.int16), "int16"),
        (np.array([0.0, np.nan]), "NaN"),
    ],
)
def test_what_is_no_waveform_is_refused(y, message):
    with pytest.raises(InputError, match=message):
        audio_features(y)


def test_a_misspelt_preset_is_refused():
    with pytest.raises(InputError, match="did you mean 'field'"):
        audio_features(tone(440, 0.1), "feild")
    with pytest.raises(InputError, match="no audio preset"):
        spec("htk")


def test_reading_mixes_channels_and_resamples_as_librosa_does(tmp_path):
    stereo = np.stack([noise(16_000), 0.5 * noise(16_000)], 1)
    soundfile.write(tmp_path / "a.wav", stereo, 16_000, subtype="FLOAT")
    y = read_audio(tmp_path / "a.wav")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa.load imports a fallback that is deprecated
        theirs, _ = librosa.load(tmp_path / "a.wav")
    assert y.shape == (SAMPLE_RATE_HZ,)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, theirs, atol=1e-6)


def test_flac_reads_like_wav(tmp_path):
    for name in ("a.flac", "a.wav"):
        soundfile.write(tmp_path / name, (32_767 * tone(440, 0.5)).astype(np.int16), SAMPLE_RATE_HZ)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.flac"), read_audio(tmp_path / "a.wav"))


def test_files_without_sound_are_refused_by_name(tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    with pytest.raises(InputError, match=r"text\.wav could not be read as sound"):
        read_audio(tmp_path / "text.wav")
    with pytest.raises(InputError, match=r"empty\.wav holds no sound"):
        read_audio(tmp_path / "empty.wav")
    with pytest.raises(InputError, match=r"gone\.wav does not exist"):
        read_audio(tmp_path / "gone.wav")


# Clips with two tunings that have nearly the same votes: the last bit of the spectrum decides.
UNDECIDED = ["03-01-04-01-02-01-01", "03-01-05-01-01-02-01", "03-01-08-02-01-01-01", "03-01-08-02-02-02-01"]


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["03-01-01-01-01-01-01", "03-01-06-02-01-02-24", *UNDECIDED])
def test_real_speech_gives_librosas_features(name):
    file = DATA / "ravdess" / "audio16k" / f"{name}.flac"
    if not file.exists():
        pytest.skip(f"{file} is not there; set MOODAL_DATA")
    y = read_audio(file)
    np.testing.assert_allclose(audio_features(y), librosa_features(y, htk=True), atol=1e-3)
