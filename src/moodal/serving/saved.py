"""Saved models: where they lie (a run, several runs, the model hub), what they read, and who makes that."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moodal.experiment import load_model
from moodal.features.extractor import EXTRACTORS, create_extractor, identity_hash
from moodal.files import read_json
from moodal.serving.judgement import Member
from moodal.types import MODALITIES, InputError, unknown

FILES = ("config.json", "model.safetensors")  # all that is ever fetched from the hub
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Saved(Member):
    """A model and what its config.json says. ``features``: the spec of each modality's extractor."""

    folder: Path = Path()
    kind: str = ""
    dims: Mapping[str, int] = field(default_factory=dict)
    features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dataset: str = ""


def read_saved(source: str | Path) -> tuple[Saved, ...]:
    """The model in a folder, or all of those in the run folders below it, which must be of one kind and data set."""
    found = tuple(_read(folder) for folder in _folders(source))
    first = found[0]
    kinds = sorted({s.kind for s in found})
    if len(kinds) > 1:
        raise InputError(f"{source} holds runs of {', '.join(kinds)}; name the folder of one, say {source}/{kinds[0]}")
    for other in found[1:]:
        same = (other.features, other.model.task, other.dataset) == (first.features, first.model.task, first.dataset)
        if not same or _asked(other.folder) != _asked(first.folder):
            raise InputError(
                f"the runs in {source} differ in more than seed and fold ({first.folder.name} and {other.folder}); "
                "name those of one model"
            )
    return found


def _asked(folder: Path) -> tuple[Any, ...]:
    """What decides a run besides its seed and fold, as far as it is written down beside it."""
    file = folder / "experiment.json"
    said = read_json(file) if file.exists() else {}
    return tuple(said.get(k) for k in ("name", "fingerprint", "options", "training"))


def _read(folder: Path) -> Saved:
    model = load_model(folder)
    config = read_json(folder / "config.json")
    heat = config.get("temperature")
    if not (heat is None or (type(heat) in (int, float) and 0.01 <= heat <= 100)):
        raise InputError(f"{folder / 'config.json'}: the temperature is no number that calibrates, got {heat!r}")
    return Saved(
        model,
        heat,
        folder,
        str(config["model"]),
        config["dims"],
        config.get("features", {}),
        str(config.get("dataset", "a data set that it does not name")),
    )


def _folders(source: str | Path) -> list[Path]:
    folder = Path(source)
    if folder.is_dir():
        found = sorted(p.parent for p in folder.rglob("config.json") if _is_ours(p))
        done = [p for p in found if (p / "report.json").exists() or not (p / "experiment.json").exists()]
        if not done:
            what = f"{len(found)} unfinished runs" if found else "no saved model"
            raise InputError(f"{folder} holds {what}; give the folder of a finished run, as moodal train leaves it")
        return done
    if HUB_NAME.fullmatch(str(source)) and not folder.exists():
        return [_fetched(str(source))]
    raise InputError(
        f"there is no run folder {source}; train one with moodal train, or leave --model out for the prior"
    )


def _is_ours(config: Path) -> bool:
    """A model of moodal, and not of somebody else who has files of these names."""
    if not (config.parent / FILES[1]).is_file():
        return False
    said = read_json(config)
    return not isinstance(said, dict) or "architectures" not in said


def _fetched(name: str) -> Path:
    """A model from the hub, or from its cache on this machine."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as e:
        raise InputError(f"there is no folder {name}; for the model hub run: pip install 'moodal[text]'") from e
    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES), etag_timeout=5))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as e:
        raise InputError(f"there is no folder {name}, and the model hub gave no model of that name") from e


def extractor_of(modality: str, spec: str) -> Any:
    """The extractor that ``spec`` names; one of another modality is refused."""
    made = create_extractor(spec)
    if made.modality != modality:
        raise InputError(f"--{modality} {spec}: that one reads {made.modality}")
    return made


def own_extractors(
    source: str, modalities: Sequence[str], specs: Mapping[str, Mapping[str, Any]], asked: Mapping[str, str]
) -> dict[str, Any]:
    """Who makes what the run was trained on, by modality; another one is refused."""
    for m in asked:
        if m not in MODALITIES:
            raise unknown("modality", m, MODALITIES)
        if m not in modalities and asked[m] != "none":
            raise InputError(f"{source} does not read {m}; it reads {', '.join(modalities)}")
    made = {m: _made(source, m, specs.get(m, {}), asked.get(m)) for m in modalities if asked.get(m) != "none"}
    if not made:
        raise InputError("nothing to look at: every modality that it reads is none")
    return made


def _made(source: str, modality: str, spec: Mapping[str, Any], asked: str | None) -> Any:
    name = str(spec.get("name", "somebody unknown"))
    if asked is None and name.partition(":")[0] not in EXTRACTORS:
        raise InputError(
            f"the {modality} features of {source} were made by {name!r}, which cannot be run on a video here; train on "
            f"features of moodal extract, or leave the modality out with --{modality} none"
        )
    made = extractor_of(modality, asked or name)
    if identity_hash(made.identity()) != spec.get("hash"):
        raise InputError(
            f"{source} was trained on {modality} features of {name} {spec.get('version', '')} with other settings than "
            f"{made.name} {made.version} has here; give the same with --{modality}, or extract and train again"
        )
    return made
