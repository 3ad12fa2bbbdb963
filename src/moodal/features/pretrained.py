"""Models made with transformers: from a folder, or from the hub's cache on this machine. Nothing is downloaded here.

Weights are read from safetensors only, never pickled ones, and no code that came with a model runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from moodal.files import sha256
from moodal.types import InputError

CONTENT = (".safetensors", ".json", ".txt", ".model")  # weights, settings and vocabularies: what changes the output
WANTED = "give a folder with config.json, *.safetensors weights and what prepares the input, or a name on the model hub"
UNUSED = ("pooler", "masked_spec_embed")  # tensors that the last hidden states do not depend on


@dataclass(frozen=True)
class Pretrained:
    """A model in evaluation mode and single precision, what prepares its input, and the hashes of its files."""

    name: str
    processor: Any
    model: Any
    files: dict[str, str]


def load_pretrained(source: str, processor: Literal["AutoTokenizer", "AutoFeatureExtractor"]) -> Pretrained:
    """``source`` is a folder, or the name of a model on the hub that was downloaded before."""
    try:
        import transformers
    except ImportError as e:
        raise needs_extra() from e
    folder = _folder(source)
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"{source} holds no *.safetensors weights (pickled ones are not read); {WANTED}")
    try:
        with _quiet():
            prepare = getattr(transformers, processor).from_pretrained(folder, local_files_only=True)
            model, loaded = transformers.AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    except Exception as e:  # a damaged file raises whatever its parser likes, plain Exception included
        first_line = next(iter(str(e).strip().splitlines()), type(e).__name__)
        raise InputError(f"no model could be read from {source!r}: {first_line}; {WANTED}") from e
    _refuse_random_weights(source, loaded)
    files = {p.name: sha256(p) for p in sorted(folder.iterdir()) if p.suffix in CONTENT}
    return Pretrained(_short_name(source), prepare, model.float().eval(), files)


def needs_extra() -> InputError:
    return InputError("pretrained encoders need the text extra; run: pip install 'moodal[text]'")


def _folder(source: str) -> Path:
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or source.startswith(".") or source.count("/") > 1:
        raise InputError(f"there is no folder {source}; {WANTED}")
    from huggingface_hub import try_to_load_from_cache

    try:  # looks only: with the hub out of reach, asking it takes a minute of retries
        config = try_to_load_from_cache(source, "config.json")
    except ValueError:  # what can be no name on the hub
        config = None
    if not isinstance(config, str):
        raise InputError(
            f"there is no folder {source} and no model of that name on this machine; "
            f"download it once where there is a network (hf download {source}), or give a model's folder"
        )
    return Path(config).parent


def _refuse_random_weights(source: str, loaded: dict[str, Any]) -> None:
    """transformers fills what a file lacks with random numbers, and says so in passing only."""
    random = sorted(k for k in loaded["missing_keys"] if not any(name in k for name in UNUSED))
    if random:
        raise InputError(f"the weights of {source!r} lack {len(random)} tensors of its config, e.g. {random[0]}")


def _short_name(source: str) -> str:
    """Without the way to it, which says more about a machine than about a model."""
    return Path(source).expanduser().resolve().name


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
