"""Voices: the network is the published one, and distances say what they should of known points."""

import os
from itertools import pairwise
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch

from moodal.features.model_files import VOICE_MODEL, VOICE_VARIABLE, VOICES, models_installed
from moodal.features.voices import (
    HOP,
    RATE_HZ,
    TENSORS,
    WINDOW,
    embed,
    mel_power,
    speech_only,
    voice_distance,
    voice_points,
)
from moodal.types import Segment

DATA = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
SPEECH = DATA / "ravdess" / "audio16k"
needs_model = pytest.mark.skipif(
    not (models_installed(VOICES) or os.environ.get(VOICE_VARIABLE)),
    reason=f"the voice model is not in the cache, and {VOICE_VARIABLE} names no wheel",
)


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, (_, shape) in TENSORS.items()}


def test_the_network_is_three_lstm_layers_a_linear_one_relu_and_length_one(weights):
    mels = np.random.default_rng(1).random((3, 20, 40), np.float32)
    lstm, linear = torch.nn.LSTM(40, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
    ours = {"weight_ih": "input", "weight_hh": "hidden", "bias_ih": "bias_input", "bias_hh": "bias_hidden"}
    named = {f"{theirs}_l{k}": weights[f"{name}.{k}"] for theirs, name in ours.items() for k in range(3)}
    lstm.load_state_dict({name: torch.from_numpy(value) for name, value in named.items()})
    linear.load_state_dict({"weight": torch.from_numpy(weights["linear"]), "bias": torch.from_numpy(weights["bias"])})
    with torch.no_grad():
        points = torch.relu(linear(lstm(torch.from_numpy(mels))[1][0][-1]))
    expected = torch.nn.functional.normalize(points, dim=1).numpy()
    np.testing.assert_allclose(embed(mels, weights), expected, atol=1e-5)


def test_utterances_of_a_batch_do_not_see_each_other(weights):
    mels = np.random.default_rng(1).random((4, 12, 40), np.float32)
    alone = np.concatenate([embed(m[None], weights) for m in mels])
    np.testing.assert_allclose(embed(mels, weights), alone, atol=1e-6)


def test_the_tensors_lie_in_the_file_beside_each_other_and_not_over():
    spans = sorted((at, at + 4 * int(np.prod(shape))) for at, shape in TENSORS.values())
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert spans[-1][1] <= VOICE_MODEL.size


def test_mel_bands_are_librosas():
    samples = np.random.default_rng(0).standard_normal(8_000).astype(np.float32)
    theirs = librosa.feature.melspectrogram(y=samples, sr=RATE_HZ, n_fft=400, hop_length=HOP, n_mels=40).T
    np.testing.assert_allclose(mel_power(samples), theirs, rtol=1e-3, atol=1e-6)


def test_one_voice_is_at_no_distance_and_two_that_share_nothing_are_at_one():
    one, other = np.eye(256, dtype=np.float32)[:2]
    assert voice_distance(np.stack([one] * 6)) == pytest.approx(0)
    assert voice_distance(np.stack([one, one, other])) == pytest.approx(1)


def test_one_odd_window_among_many_is_no_voice():
    one, other = np.eye(256, dtype=np.float32)[:2]
    assert voice_distance(np.stack([one] * 19 + [other])) < 0.1
    assert voice_distance(np.stack([one] * 10 + [other] * 10)) == pytest.approx(1)


def test_the_order_in_which_voices_come_does_not_matter():
    points = np.abs(np.random.default_rng(0).standard_normal((9, 256))).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    assert voice_distance(points) == pytest.approx(voice_distance(points[::-1]), abs=1e-6)


def test_too_little_speech_tells_nothing():
    assert len(voice_points(np.zeros(RATE_HZ, np.float32))) == 0
    assert np.isnan(voice_distance(np.zeros((0, 256), np.float32)))
    assert np.isnan(voice_distance(np.ones((1, 256), np.float32)))


def test_only_what_is_spoken_is_heard():
    samples = np.arange(4 * RATE_HZ, dtype=np.float32)
    heard = speech_only(samples, 10.0, [Segment(9.5, 10.5), Segment(12.0, 12.25), Segment(13.5, 20.0)])
    seconds = [samples[:8_000], samples[32_000:36_000], samples[56_000:]]
    np.testing.assert_array_equal(heard, np.concatenate(seconds))
    assert len(speech_only(samples, 10.0, [])) == 0


@needs_model
def test_long_speech_costs_no_more_than_a_minute_of_it():
    assert len(voice_points(np.random.default_rng(0).normal(0, 0.1, 20 * RATE_HZ).astype(np.float32))) == 47
    step = WINDOW * HOP
    assert len(voice_points(np.zeros(2 * step, np.float32) + 0.01)) == 5


@pytest.mark.corpus
@needs_model
@pytest.mark.skipif(not SPEECH.is_dir(), reason=f"no real data at {DATA}")
def test_two_actors_are_further_apart_than_one():
    def said(actor, statement):
        samples = soundfile.read(SPEECH / f"03-01-01-01-{statement:02d}-01-{actor:02d}.flac", dtype="float32")[0]
        return samples[RATE_HZ : -RATE_HZ // 2 - RATE_HZ // 4]

    for actor, other in ((1, 2), (13, 18), (20, 23)):
        one = voice_distance(voice_points(np.concatenate([said(actor, 1), said(actor, 2)])))
        two = voice_distance(voice_points(np.concatenate([said(actor, 1), said(other, 2)])))
        assert one < two - 0.05
