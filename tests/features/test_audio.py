"""The 33 audio features: librosa's numbers, faster."""

import os
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from moodal.features import audio
from moodal.features.audio import COLUMNS, HOP, PRESETS, SAMPLE_RATE_HZ, Audio33, audio_features, read_audio, spec
from moodal.features.extractor import create_extractor
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
    "a chord, a bass, a drum": sum(tone(hz, 2, 0.1) for hz in (55, 220, 277.18, 329.63)) + np.eye(1, 44_100, 22_050)[0],
    "clipped": np.clip(tone(220, 1.5, 5.0), -1, 1),
    "as loud as whole numbers get": noise(40_000, 1e8),
    "nearly nothing": noise(40_000, 1e-20),
    # what is left of these in a note is the rounding of the transform, and ours must round alike
    "constant": np.full(60_000, 0.5, np.float32),
    "constant with a step": np.repeat(np.float32([0.0, 1.0]), 30_000),
    "ramp": np.linspace(0, 3, 66_150, dtype=np.float32),
    "too low to hear": tone(20, 3),
    "highest frequency": np.tile(np.float32([1, -1]), 30_000),
}
SIGNALS = {name: y.astype(np.float32) for name, y in SIGNALS.items()}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", SIGNALS)
def test_features_are_librosas(name, preset):
    y = SIGNALS[name]
    ours, theirs = audio_features(y, preset), librosa_features(y, htk=preset == "field")
    assert ours.shape == (1 + len(y) // HOP, 33)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours[:, ZCR], theirs[:, ZCR], atol=1e-7)
    np.testing.assert_allclose(ours[:, MFCC], theirs[:, MFCC], atol=3e-4)  # near -800: the last digit is 6e-5
    np.testing.assert_allclose(ours[:, CHROMA], theirs[:, CHROMA], atol=1e-4)


@pytest.mark.parametrize(
    "num_samples", [2, 31, 33, 255, 511, 512, 513, 1023, 1024, 1025, 2047, 2048, 2049, 32_767, 32_768]
)
def test_features_are_librosas_at_every_length(num_samples):
    y = noise(num_samples)
    np.testing.assert_allclose(audio_features(y), librosa_features(y, htk=True), atol=3e-4)


def test_blocks_change_nothing(monkeypatch):
    y = SIGNALS["chirp"]
    expected = audio_features(y)
    for size in (1, 7, 10_000):
        monkeypatch.setattr(audio, "BLOCK", size)
        np.testing.assert_allclose(audio_features(y), expected, atol=1e-4)


def test_memory_grows_by_little_more_than_the_waveform():
    y = noise(120 * SAMPLE_RATE_HZ)
    audio_features(y[:SAMPLE_RATE_HZ])  # the filters
    tracemalloc.start()
    audio_features(y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * len(y) + 2e7  # bytes


def test_filters_are_built_once_per_tuning():
    audio_features(tone(440, 1))
    before = audio._octave_filters.cache_info()
    audio_features(tone(440, 1.5))
    after = audio._octave_filters.cache_info()
    assert (after.misses, after.hits) == (before.misses, before.hits + 1)


def test_clips_side_by_side_give_what_they_give_alone():
    clips = [SIGNALS[name] for name in ("chirp", "noise", "constant", "odd length")]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(audio_features, clips))
    for x, y in zip(together, clips, strict=True):
        np.testing.assert_array_equal(x, audio_features(y))


def test_the_extractor_says_when_each_frame_is():
    extractor = create_extractor("audio33")
    x = extractor(tone(440, 1), SAMPLE_RATE_HZ)
    assert x.values.shape == (44, extractor.dim)
    np.testing.assert_allclose(x.times_s, np.arange(44) * extractor.hop_s)
    assert x.note == ""
    click = extractor(np.eye(1, 22_050, 20 * HOP, dtype=np.float32)[0], SAMPLE_RATE_HZ)
    loudest = click.values[:, 1].argmax()
    assert click.times_s[loudest] == pytest.approx(20 * HOP / SAMPLE_RATE_HZ)


def test_no_sample_is_missing_and_silence_is_not():
    nothing, silence = (Audio33()(np.zeros(n, np.float32), SAMPLE_RATE_HZ) for n in (0, 9_000))
    assert nothing.is_missing
    assert nothing.values.shape == (0, 33)
    assert nothing.note == "there is no sound"
    assert len(silence.values) == 18
    assert silence.note == "the sound is silent"


def test_sound_at_another_rate_is_resampled_as_librosa_does():
    y = noise(16_000)
    expected = audio_features(librosa.resample(y, orig_sr=16_000, target_sr=SAMPLE_RATE_HZ))
    np.testing.assert_array_equal(Audio33()(y, 16_000).values, expected)


@pytest.mark.parametrize("rate_hz", [0, -16_000, 1, 10**9])
def test_a_rate_that_is_none_is_refused(rate_hz):
    with pytest.raises(InputError, match=f"a sample rate lies between 1000 and 768000 Hz, got {rate_hz}"):
        Audio33()(noise(100), rate_hz)


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
        (np.array([0.0, -np.inf]), "NaN or inf"),
        (np.array([0.0, -1e30]), r"reaches 1e\+30; a waveform lies in \[-1, 1\]"),
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
