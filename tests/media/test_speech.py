"""Speech is found where it is, at the file's own times, by the network of Silero VAD and nothing that is pickled."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests.media.conftest import SOUND_HZ, every, tone

from moodal.media import speech
from moodal.media.decode import read_audio
from moodal.media.speech import Network, find_speech, speech_share
from moodal.types import InputError, Segment

DATA = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))


def voice(seconds, rate_hz=SOUND_HZ, hz=120.0):
    """Something like a sung vowel: pulses of a throat through the two resonances of an "a", swelling three times a
    second."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    phase = 2 * np.pi * np.cumsum(hz * (1 + 0.1 * np.sin(2 * np.pi * 2 * t))) / rate_hz
    sound = np.zeros_like(t)
    for k in range(1, 30):
        f = k * hz
        gain = sum(a / (1 + ((f - centre) / width) ** 2) for centre, width, a in ((730, 90, 1), (1090, 110, 0.5)))
        sound += gain * np.sin(k * phase)
    sound *= 0.5 * (1 - np.cos(2 * np.pi * 3 * t))
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def quiet(seconds, rate_hz=SOUND_HZ):
    return np.zeros(round(seconds * rate_hz), np.float32)


def spoken(monkeypatch, probabilities):
    """A network that has made up its mind: one probability per window of 32 ms."""
    left = iter(probabilities)
    monkeypatch.setattr(speech, "_weights", dict)
    monkeypatch.setattr(Network, "__call__", lambda self, x: np.array([next(left) for _ in range(-(-len(x) // 512))]))


@pytest.fixture
def silence(tmp_path):
    """A sound file of so many windows."""

    def make(num_windows, extra=0):
        path = tmp_path / "a.wav"
        soundfile.write(path, np.zeros(num_windows * 512 + extra, np.float32), 16_000)
        return path

    return make


def in_windows(found):
    return [(round(s.start_s / 0.032, 3), round(s.end_s / 0.032, 3)) for s in found]


def test_a_voice_is_found_where_it_begins(make_video):
    sound = np.concatenate([quiet(2), voice(2), quiet(2)])
    (found,) = find_speech(make_video("a.mkv", every(10), sound=[(0.0, sound)]))
    assert found.start_s == pytest.approx(2, abs=0.4)
    assert found.end_s < 4.5


def test_times_are_those_of_the_file_where_the_sound_begins_late(make_video):
    sound = np.concatenate([voice(2), quiet(2)])
    waited = find_speech(make_video("a.mkv", every(200), sound=[(0.0, np.concatenate([quiet(3.2), sound]))]))
    late = find_speech(make_video("b.mkv", every(200), sound=[(3.2, sound)]))
    assert late[0].start_s == pytest.approx(3.2, abs=0.4)
    assert [(s.start_s, s.end_s) for s in late] == [(s.start_s, s.end_s) for s in waited]


@pytest.mark.parametrize("sound", [[], [(0.0, quiet(3))], [(0.0, tone(3))]], ids=["no sound", "silence", "a tone"])
def test_where_nobody_speaks_there_is_none(make_video, sound):
    assert find_speech(make_video("a.mkv", every(75), sound=sound)) == ()


def test_blocks_make_no_difference(monkeypatch):
    samples = voice(3, 16_000)
    whole = Network()(samples)
    network = Network()
    parts = np.concatenate([network(samples[i : i + 5120]) for i in range(0, len(samples), 5120)])
    np.testing.assert_allclose(parts, whole, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # of torch about its own archive
def test_the_network_is_the_one_of_the_package():
    """With the weights of its archive it gives the archive's probabilities."""
    import torch

    threads = torch.get_num_threads()
    silero = pytest.importorskip("silero_vad")
    archive = silero.load_silero_vad()
    torch.set_num_threads(threads)  # importing the package sets it to 1
    theirs = {
        "stft.forward_basis_buffer": "stft_conv.weight",
        **{f"encoder.{k}.reparam_conv.{p}": f"conv{k + 1}.{p}" for k in range(4) for p in ("weight", "bias")},
        **{f"decoder.rnn.{p}_{q}": f"lstm_cell.{p}_{q}" for p in ("weight", "bias") for q in ("ih", "hh")},
        **{f"decoder.decoder.2.{p}": f"final_conv.{p}" for p in ("weight", "bias")},
    }
    tensors = archive.state_dict()
    weights = {ours: tensors[f"_model.{name}"].numpy() for name, ours in theirs.items()}
    assert {k: weights[k].shape for k in speech.SHAPES} == speech.SHAPES
    sound = np.concatenate([quiet(0.5, 16_000), voice(2, 16_000), quiet(0.7, 16_000)])
    sound += np.random.default_rng(0).normal(0, 1e-3, len(sound)).astype(np.float32)
    expected = [float(archive(torch.from_numpy(x), 16_000)) for x in sound.reshape(-1, 512)]
    np.testing.assert_allclose(Network(weights)(sound), expected, atol=1e-4)


def test_short_pauses_do_not_end_a_stretch_and_long_ones_do(monkeypatch, silence):
    said = [0] * 10 + [1] * 20 + [0] * 10 + [1] * 20 + [0] * 20 + [1] * 20 + [0] * 20
    spoken(monkeypatch, said)
    found = find_speech(silence(len(said)), min_pause_s=15 * 0.032, pad_s=0)
    assert in_windows(found) == [(10, 60), (80, 100)]


def test_what_is_too_short_is_no_speech(monkeypatch, silence):
    spoken(monkeypatch, [0] * 20 + [1] * 3 + [0] * 40 + [1] * 30)
    assert in_windows(find_speech(silence(93), pad_s=0)) == [(63, 93)]


def test_a_stretch_goes_on_a_little_below_what_begins_it(monkeypatch, silence):
    spoken(monkeypatch, [0.45] * 10 + [0.6] * 10 + [0.4] * 30 + [0.3] * 30)
    assert in_windows(find_speech(silence(80), pad_s=0)) == [(10, 50)]


def test_padding_stays_in_the_file_and_in_the_pause(monkeypatch, silence):
    spoken(monkeypatch, [1] * 20 + [0] * 16 + [1] * 20)
    found = find_speech(silence(56), min_pause_s=0.5, pad_s=1.0)
    assert in_windows(found) == [(0, 28), (28, 56)]


def test_speech_to_the_end_ends_with_the_sound(monkeypatch, silence):
    spoken(monkeypatch, [1] * 21)
    (only,) = find_speech(silence(20, extra=100))
    assert only.end_s == pytest.approx((20 * 512 + 100) / 16_000)


def test_the_share_of_speech_counts_what_overlaps():
    said = [Segment(0, 2), Segment(3, 4), Segment(9, 11)]
    assert speech_share(said, Segment(1, 5)) == pytest.approx(0.5)
    assert speech_share(said, Segment(5, 9)) == 0
    assert speech_share((), Segment(0, 1)) == 0


@pytest.mark.parametrize("wrong", [{"threshold": 0}, {"threshold": 1}, {"min_pause_s": -1}, {"pad_s": float("-inf")}])
def test_settings_that_mean_nothing_are_refused(silence, wrong):
    with pytest.raises(InputError, match="threshold between 0 and 1"):
        find_speech(silence(10), **wrong)


def test_without_the_package_the_line_that_installs_it_is_named(monkeypatch, silence):
    monkeypatch.setattr(speech, "find_spec", lambda name: None)
    monkeypatch.setattr(speech, "_weights", speech._weights.__wrapped__)
    with pytest.raises(InputError, match=r"pip install 'moodal\[video\]'"):
        find_speech(silence(10))


def test_another_network_under_its_name_is_refused(monkeypatch, tmp_path, silence):
    from safetensors.numpy import save_file

    (tmp_path / "data").mkdir()
    save_file({"conv1.weight": np.zeros((2, 2), np.float32)}, tmp_path / "data" / "silero_vad_16k.safetensors")
    found = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(speech, "find_spec", lambda name: found)
    monkeypatch.setattr(speech, "_weights", speech._weights.__wrapped__)
    with pytest.raises(InputError, match="another network"):
        find_speech(silence(10))


def test_neither_torch_nor_the_package_is_loaded(silence):
    code = (
        "import sys; from pathlib import Path; from moodal.media.speech import find_speech; "
        "find_speech(Path(sys.argv[1])); sys.exit(bool({'torch', 'silero_vad'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code, str(silence(40))], check=True)


@pytest.mark.corpus
@pytest.mark.skipif(not (DATA / "clips").exists(), reason="no real data here")
def test_real_voices_are_found_and_silent_tracks_are_not():
    clips = DATA / "clips"
    said = {n: find_speech(clips / n) for n in ("d18.mp4", "single_face.mp4", "Input-00002.mp4", "d11.mp4")}
    assert said["d18.mp4"] == said["single_face.mp4"] == ()
    for name in ("Input-00002.mp4", "d11.mp4"):
        whole = Segment(0.0, len(read_audio(clips / name, rate_hz=16_000)) / 16_000)
        assert speech_share(said[name], whole) > 0.9


@pytest.mark.corpus
@pytest.mark.skipif(not (DATA / "ravdess" / "audio16k").exists(), reason="no real data here")
def test_real_words_are_found_between_silences(tmp_path):
    takes = sorted((DATA / "ravdess" / "audio16k").glob("*.flac"))[::160]
    words = [soundfile.read(take, dtype="float32")[0] for take in takes]
    told = np.concatenate([x for take in words for x in (take, quiet(3, 16_000))])
    soundfile.write(tmp_path / "a.wav", told, 16_000)
    begins = np.cumsum([0.0, *(len(take) / 16_000 + 3 for take in words)])
    found = find_speech(tmp_path / "a.wav")
    for begin, end in pairwise(begins):
        assert 0.15 < speech_share(found, Segment(begin, end - 3)) < 1
        assert speech_share(found, Segment(end - 2.5, end)) == 0
