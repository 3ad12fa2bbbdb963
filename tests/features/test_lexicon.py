"""Rated words: the known sentences, what is not rated, and texts that mean harm."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from moodal.features.extractor import create_extractor, identity_hash
from moodal.features.lexicon import COLUMNS, LONGEST, NOTHING_RATED, NOTHING_SAID, PIECE, Lexicon
from moodal.types import InputError

pytest.importorskip("vaderSentiment", reason="needs the text extra")


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon()


def step(lexicon: Lexicon, text: str) -> dict[str, float]:
    features = lexicon(text)
    assert features.values.shape == (1, 4)
    assert np.isnan(features.times_s).all()
    return dict(zip(COLUMNS, features.values[0].tolist(), strict=True))


def test_hate_is_negative_and_love_is_positive(lexicon: Lexicon) -> None:
    hate, love = step(lexicon, "I hate this, it is terrible"), step(lexicon, "I love this, it is wonderful")
    assert hate["compound"] < -0.5 < 0.5 < love["compound"]
    assert hate["negative"] > 0 == hate["positive"]
    assert love["positive"] > 0 == love["negative"]


def test_a_negation_turns_the_words_after_it(lexicon: Lexicon) -> None:
    assert step(lexicon, "this is good")["compound"] > 0 > step(lexicon, "this is not good")["compound"]


def test_a_text_without_a_rated_word_is_neutral_and_says_so(lexicon: Lexicon) -> None:
    features = lexicon("Kids are talking by the door")
    assert features.values.tolist() == [[0.0, 0.0, 0.0, 1.0]]
    assert features.note == NOTHING_RATED
    assert lexicon("a good door").note == ""


def test_no_words_are_a_missing_modality(lexicon: Lexicon) -> None:
    for empty in (None, "", " \n\t"):
        (features,) = lexicon.many([empty])
        assert features.is_missing
        assert features.note == NOTHING_SAID


def test_many_is_each_alone_in_the_same_order(lexicon: Lexicon) -> None:
    texts = ["so good", None, "so bad", "so good"]
    for text, together in zip(texts, lexicon.many(texts, ["a", "b", "c", "d"]), strict=True):
        assert np.array_equal(together.values, lexicon(text or "").values)
    with pytest.raises(InputError, match="1 ids for 4 sentences"):
        lexicon.many(texts, ["a"])


def test_a_long_text_has_a_step_per_piece_and_none_of_it_is_lost(lexicon: Lexicon) -> None:
    features = lexicon("the door. " * 100 + "terrible. " * 10 + "the door. " * 100)
    assert len(features.values) == -(-2100 // PIECE)
    assert (features.values[:, 2] > 0).sum() == 1


@pytest.mark.parametrize("unit", ["🙂", "a but good ", "!", "x"], ids=["emoji", "but", "marks", "one word"])
def test_time_grows_with_the_length_and_not_its_square(lexicon: Lexicon, unit: str) -> None:
    text = (unit * LONGEST)[:5000]  # the emoji alone took VADER 8 s in one piece, ours 1 s
    began = time.process_time()
    lexicon(text)
    assert time.process_time() - began < 4


def test_a_text_that_is_no_utterance_is_refused(lexicon: Lexicon) -> None:
    with pytest.raises(InputError, match="200001 characters is no utterance; split it"):
        lexicon("x" * (LONGEST + 1))


def test_the_identity_holds_the_hash_of_both_lists() -> None:
    lexicon = create_extractor("lexicon")
    identity = lexicon.identity()
    assert identity["columns"] == COLUMNS
    assert {len(h) for h in identity["settings"]["files"].values()} == {64}
    assert identity["settings"]["files"].keys() == {"vader_lexicon.txt", "emoji_utf8_lexicon.txt"}
    assert identity_hash(identity) == identity_hash(Lexicon().identity())


def test_it_asks_no_network_and_without_the_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("asked the network"))
    assert Lexicon()("good").values[0, 0] > 0
    monkeypatch.setitem(sys.modules, "vaderSentiment", None)
    with pytest.raises(InputError, match=r"pip install 'moodal\[text\]'"):
        Lexicon()
