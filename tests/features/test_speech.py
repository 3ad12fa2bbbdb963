"""Hidden states of a speech encoder: the model's own, at known times, in windows where the sound is long."""

import numpy as np
import pytest
import torch

from moodal.features import speech
from moodal.features.audio import resample
from moodal.features.extractor import create_extractor
from moodal.features.speech import SpeechEncoder
from moodal.types import InputError

transformers = pytest.importorskip("transformers", reason="needs the text extra")
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8, 8, 8),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (5, 8, 4),  # 160 samples from step to step; a step sees 10 + 7 * 5 + 3 * 40 = 165
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
}
HOP, REACH, RATE_HZ = 160, 165, 16_000
KINDS = ("Wav2Vec2", "Hubert", "WavLM")


def noise(num_samples):
    return (0.1 * np.random.default_rng(0).standard_normal(num_samples)).astype(np.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny model of each kind with random weights."""
    made = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp("models") / f"tiny-{kind}"
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**SIZES)
        getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
        transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
        made[kind] = folder
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_states_are_the_models_own(folders, kind):
    y = noise(RATE_HZ)
    model = getattr(transformers, f"{kind}Model").from_pretrained(folders[kind]).eval()
    z = torch.from_numpy((y - y.mean()) / np.sqrt(y.var() + 1e-7))
    with torch.inference_mode():
        output = model(z[None], output_hidden_states=True)
    ours = create_extractor(f"hf-audio:{folders[kind]}")
    np.testing.assert_allclose(ours(y, RATE_HZ).values, output.last_hidden_state[0], atol=1e-4)
    first = create_extractor(f"hf-audio:{folders[kind]}", layer=1)
    np.testing.assert_allclose(first(y, RATE_HZ).values, output.hidden_states[1][0], atol=1e-4)
    assert ours.identity()["name"] == f"hf-audio:tiny-{kind}"


def test_a_step_lies_in_the_middle_of_what_it_sees(folders):
    extractor = SpeechEncoder(str(folders["Wav2Vec2"]))
    x = extractor(noise(REACH + 3 * HOP), RATE_HZ)
    assert x.values.shape == (4, extractor.dim) == (4, 16)
    assert extractor.hop_s == 0.01
    np.testing.assert_allclose(x.times_s, REACH / 2 / RATE_HZ + np.arange(4) * 0.01)


def test_sound_too_short_for_a_step_is_missing(folders):
    extractor = SpeechEncoder(str(folders["Wav2Vec2"]))
    assert len(extractor(noise(REACH), RATE_HZ).values) == 1
    short = extractor(noise(REACH - 1), RATE_HZ)
    assert short.is_missing
    assert short.note == "164 samples at 16000 Hz are fewer than the 165 of a step"
    assert extractor(noise(0), RATE_HZ).note == "there is no sound"


def test_sound_at_another_rate_is_resampled(folders):
    extractor, y = SpeechEncoder(str(folders["Wav2Vec2"])), noise(22_050)
    expected = extractor(resample(y, 22_050, RATE_HZ), RATE_HZ)
    np.testing.assert_array_equal(extractor(y, 22_050).values, expected.values)


@pytest.mark.parametrize("num_samples", [30_000, 33_000, 36_123])
def test_windows_join_without_a_seam(folders, monkeypatch, num_samples):
    """What enters the transformer depends on its neighbourhood only, so there windows must change nothing."""
    extractor, y = SpeechEncoder(str(folders["Wav2Vec2"]), layer=0), noise(num_samples)
    whole = extractor(y, RATE_HZ)
    monkeypatch.setattr(speech, "WINDOW_S", 0.5)
    monkeypatch.setattr(speech, "CONTEXT_S", 0.1)
    windowed = extractor(y, RATE_HZ)
    np.testing.assert_allclose(windowed.values, whole.values, atol=1e-4)
    np.testing.assert_array_equal(windowed.times_s, whole.times_s)


def test_no_piece_is_longer_than_a_window_and_its_context(folders):
    extractor = SpeechEncoder(str(folders["Wav2Vec2"]))
    pieces = list(extractor._windows(360_000))  # an hour
    assert max(last - first for first, last, _, _ in pieces) == 2400  # 20 s and 2 s on both sides
    assert [p[2] for p in pieces[1:]] == [p[3] for p in pieces[:-1]]
    assert (pieces[0][2], pieces[-1][3]) == (0, 360_000)


def test_the_layer_and_the_weights_are_part_of_the_identity(folders):
    one, other = (SpeechEncoder(str(folders["Hubert"]), layer=n).identity()["settings"] for n in (None, 1))
    assert one != other
    assert one["files"].keys() == {"config.json", "model.safetensors", "preprocessor_config.json"}


def test_refusals_are_sentences(folders, tmp_path):
    with pytest.raises(InputError, match="has layers 0 to 2, got 3"):
        SpeechEncoder(str(folders["Hubert"]), layer=3)
    with pytest.raises(InputError, match="there is no folder"):
        SpeechEncoder(str(tmp_path / "gone"))
    with pytest.raises(InputError, match="NaN or inf"):
        SpeechEncoder(str(folders["Hubert"]))(np.full(RATE_HZ, np.nan, np.float32), RATE_HZ)


def test_another_kind_of_model_is_refused_by_its_name(tmp_path):
    config = transformers.WhisperConfig(
        vocab_size=64,
        num_mel_bins=4,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
        d_model=8,
        max_source_positions=8,
        max_target_positions=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    transformers.WhisperModel(config).save_pretrained(tmp_path)
    transformers.WhisperFeatureExtractor(feature_size=4).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a whisper, not a speech encoder"):
        SpeechEncoder(str(tmp_path))
