"""Files that are either whole or not there: write beside, flush to disk, rename."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from moodal.types import InputError

PIECE = 1 << 16  # bytes, of each of the three that make a fingerprint
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """``write`` a temporary file beside ``path``, flush it to disk, and rename it into place."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with disk_errors(path):
            write(partial)
            _flush(partial)
            partial.replace(path)
            _flush(path.parent)
    except OSError as e:
        if e.errno in DENIED:
            raise InputError(f"{path} cannot be written: {os.strerror(e.errno)}") from e
        raise
    finally:
        with suppress(OSError):  # else what went wrong before would not be heard
            partial.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """``value`` as readable JSON, atomically. NaN is refused: it is not JSON."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(path, lambda p: p.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """The JSON in ``path``; what cannot be read is an ``InputError`` that names the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise InputError(f"{path} is not valid JSON: {e}") from e


def fingerprint(path: Path) -> str:
    """Tells two files of one name apart without reading all of them: by size, beginning, middle and end. The time
    of the last change is no part of it, so a copy is the same file. "" where there is no file to read."""
    try:
        size = path.stat().st_size
        with path.open("rb") as f:
            said = hashlib.sha256(str(size).encode())
            for at in sorted({0, max(0, size // 2 - PIECE // 2), max(0, size - PIECE)}):
                f.seek(at)
                said.update(f.read(PIECE))
    except OSError:
        return ""
    return said.hexdigest()[:24]


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Nobody else may be in such a block for ``folder``; the lock falls with the process, however it ends."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another moodal is at work in {folder}; wait for it, or choose another folder") from None
        yield
    finally:
        os.close(lock)


@contextmanager
def new_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder that appears at ``path`` only when the block ends well; until then it has another name."""
    if path.exists() and not overwrite and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} exists already; choose another folder, or say --overwrite")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, old = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():  # killed between the two renames below
        old.replace(path)
    shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
    try:
        with disk_errors(path):
            partial.mkdir()
            yield partial
            for file in partial.rglob("*"):
                _flush(file)
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)  # left by a run that was killed right at its end
                path.replace(old)
            partial.replace(path)
            _flush(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """A full disk, in one sentence. Some libraries raise an ``OSError`` that says so in words only."""
    try:
        yield
    except OSError as e:
        if e.errno in FULL or any(os.strerror(code) in str(e) for code in FULL):
            raise InputError(f"the disk is full: {path} was not written; free some space and run it again") from e
        raise


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
