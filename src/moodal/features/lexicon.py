"""How positive the words are, by a list of rated words: no model, no training, English only.

VADER (Hutto and Gilbert, ICWSM 2014, https://doi.org/10.1609/icwsm.v8i1.14550) adds the ratings of 7,500 words, idioms
and emoticons, turned by negation, degree words and exclamation marks. Its lists are two text files in the package.
Another language is not merely unread: German "die" and "war" are rated as dying and war.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version as package_version
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from moodal.features.extractor import Features, TextExtractor
from moodal.files import sha256
from moodal.types import InputError

COLUMNS = ("compound", "positive", "negative", "neutral")
FILES = ("vader_lexicon.txt", "emoji_utf8_lexicon.txt")
PIECE = 600  # characters: VADER's time grows with the square of a text, and its sum of ratings with the length
LONGEST = 200_000  # characters: more than two hours of speech
NOTHING_SAID = "there are no words"
NOTHING_RATED = "no word of it is rated in the lexicon"


class Lexicon(TextExtractor):
    """The extractor ``lexicon``: one step per text, without a time; a text beyond ``PIECE`` has a step per piece.

    compound: -1 to 1, the sum of the ratings squashed; positive, negative, neutral: the shares of rated and other
    words, which add up to 1 but for three decimals. A text without any rated word is all neutral, with a note.
    """

    name = "lexicon"
    version = "1"
    modality = "text"
    dim = len(COLUMNS)
    hop_s = None
    licence = "MIT"
    commercial = True
    columns = COLUMNS

    def __init__(self) -> None:
        try:
            from vaderSentiment import vaderSentiment
        except ImportError as e:
            raise InputError("the lexicon needs the text extra; run: pip install 'moodal[text]'") from e
        folder = Path(vaderSentiment.__file__).parent
        self.settings: Mapping[str, Any] = {
            "lexicon": "VADER",
            "vaderSentiment": package_version("vaderSentiment"),
            "files": {name: sha256(folder / name) for name in FILES},
            "piece": PIECE,
        }
        self._rate = vaderSentiment.SentimentIntensityAnalyzer().polarity_scores

    def __call__(self, text: str) -> Features:
        if len(text) > LONGEST:
            raise InputError(f"a text of {len(text)} characters is no utterance; split it, {LONGEST} are the most")
        said = [self._rate(piece) for piece in wrap(text, PIECE, break_on_hyphens=False)]
        if not said:
            return Features.missing(self.dim, NOTHING_SAID)
        values = np.array([[x["compound"], x["pos"], x["neg"], x["neu"]] for x in said], np.float32)
        nothing_rated = not values[:, 1:3].any()
        return Features(values, np.full(len(said), np.nan), NOTHING_RATED if nothing_rated else "")

    def many(self, texts: Sequence[str | None], ids: Sequence[str] = ()) -> list[Features]:
        """Features of each text; missing where there are no words. Equal texts are read once and share arrays."""
        if ids and len(ids) != len(texts):
            raise InputError(f"{len(ids)} ids for {len(texts)} sentences; they must be as many")
        found = {text: self(text) for text in dict.fromkeys(t or "" for t in texts)}
        return [found[t or ""] for t in texts]
