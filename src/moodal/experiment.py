"""What was asked (``Experiment``) and the folder it left (``Run``)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from moodal import __version__
from moodal.config import TrainingSettings
from moodal.files import disk_errors, read_json, write_atomic, write_json
from moodal.models import FusionModel, create_model
from moodal.types import InputError, Task


@dataclass(frozen=True)
class Experiment:
    """Everything that decides a result. ``name`` is the folder and the table row; ``fold`` is None for fixed splits."""

    name: str
    model: str
    dataset: str
    fingerprint: str
    seed: int = 0
    fold: int | None = None
    task: str = "classification"
    options: Mapping[str, Any] = field(default_factory=dict)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "options": dict(self.options), "moodal": __version__}

    @property
    def hash(self) -> str:
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Run:
    """A run folder: experiment.json first, report.json last. The files between are whole or not there.

    model.safetensors + config.json; predictions.parquet; history.json; timing.json (the only file that differs
    between two runs of one experiment).
    """

    path: Path
    experiment: Experiment

    @classmethod
    def of(cls, root: Path, experiment: Experiment) -> Run:
        """The run of ``experiment`` below ``root``; a folder that holds another experiment is refused."""
        path = root / experiment.name / f"seed-{experiment.seed}"
        if experiment.fold is not None:
            path /= f"fold-{experiment.fold}"
        run = cls(path, experiment)
        if run.experiment_file.exists():
            run._check(read_json(run.experiment_file))
        return run

    def begin(self) -> None:
        """Create the folder and state what is asked."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.experiment_file.exists():
            write_json(self.experiment_file, self.experiment.as_dict())

    @property
    def experiment_file(self) -> Path:
        return self.path / "experiment.json"

    @property
    def report_file(self) -> Path:
        return self.path / "report.json"

    @property
    def predictions_file(self) -> Path:
        return self.path / "predictions.parquet"

    @property
    def progress_file(self) -> Path:
        """There while the run is under way: {"epoch", "epochs", "valid"}. For eyes only; nothing is resumed from it."""
        return self.path / "progress.json"

    def show_progress(self, epoch: int, epochs: int, valid: float) -> None:
        text = json.dumps({"epoch": epoch, "epochs": epochs, "valid": valid})
        with disk_errors(self.progress_file):
            self.progress_file.write_text(text, encoding="utf-8")

    def clear_leftovers(self) -> None:
        """Delete what only an unfinished run needs, also what a kill left behind after the report was written."""
        for leftover in (self.progress_file, *self.path.glob("checkpoint-*"), *self.path.glob(".*.partial-*")):
            leftover.unlink(missing_ok=True)

    @property
    def is_done(self) -> bool:
        # the report is written last, so its presence means the run finished
        return self.report_file.exists()

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = read_json(self.report_file)
        return found

    def timing(self) -> dict[str, Any]:
        found: dict[str, Any] = read_json(self.path / "timing.json") if (self.path / "timing.json").exists() else {}
        return found

    def _check(self, found: Mapping[str, Any]) -> None:
        asked = json.loads(json.dumps(self.experiment.as_dict()))
        if found == asked:
            return
        there, here = _flat(found), _flat(asked)
        key = next(k for k in [*here, *there] if there.get(k) != here.get(k))
        raise InputError(
            f"{self.path} holds another experiment ({key} is {there.get(key)} there and {here.get(key)} now); "
            "choose another --out, or delete that folder"
        )


def _flat(x: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in x.items():
        out |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return out


def save_model(
    path: Path,
    model: FusionModel,
    experiment: Experiment,
    features: Mapping[str, Mapping[str, Any]],
    temperature: float | None = None,
) -> None:
    """``model.safetensors`` and ``config.json`` in ``path``: all that is needed to make the model again.

    features: who made each modality's features (spec.json of the data set), so that the same can be made of new media;
    temperature: what the logits are divided by to be calibrated, None where that is not known.
    """
    task = model.task
    config = {
        "model": experiment.model,
        "options": dict(experiment.options),
        "dims": {m: int(spec["dim"]) for m, spec in features.items()},
        "task": {"classes": list(task.classes), "low": task.low, "high": task.high},
        "features": {m: dict(spec) for m, spec in features.items()},
        "temperature": temperature,
        "dataset": experiment.dataset,
        "moodal": __version__,
    }
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    write_atomic(path / "model.safetensors", lambda p: _write_tensors(p, state))
    write_json(path / "config.json", config)


def load_model(path: Path) -> FusionModel:
    """The model saved in a run folder, in evaluation mode. No pickle is read; every weight must be there, be finite
    and have the size that config.json gives it: that is looked at before any memory is taken."""
    config, weights = read_json(path / "config.json"), path / "model.safetensors"
    if not weights.is_file():
        raise InputError(f"{weights} does not exist; train the run again")
    try:
        with torch.device("meta"):
            wanted = {k: tuple(v.shape) for k, v in _model_of(config).state_dict().items()}
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, OverflowError) as e:
        raise InputError(f"{path / 'config.json'} is not the config of a moodal model ({_first_line(e)})") from e
    state = _weights(weights, wanted)
    model = _model_of(config)
    model.load_state_dict(state, strict=True)
    return model.eval()


def _model_of(config: Mapping[str, Any]) -> FusionModel:
    classes, dims = config["task"]["classes"], config["dims"]
    if not (isinstance(classes, list) and all(isinstance(c, str) for c in classes)):
        raise TypeError("classes must be a list of names")
    if not all(type(dim) is int and dim > 0 for dim in dims.values()):
        raise TypeError("dims must be whole numbers above 0")
    task = Task(tuple(classes), config["task"]["low"], config["task"]["high"])
    columns = {m: spec.get("columns", ()) for m, spec in config.get("features", {}).items()}
    return create_model(config["model"], dims, task, columns, **config["options"])


def _weights(file: Path, wanted: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """All tensors, after a look at the file's header."""
    try:
        with safe_open(file, framework="pt") as f:
            there = {k: tuple(f.get_slice(k).get_shape()) for k in f.keys()}  # noqa: SIM118 (not a dictionary)
            wrong = sorted(k for k in {*there, *wanted} if there.get(k) != wanted.get(k))
            if wrong:
                one, shape = wrong[0], there.get(wrong[0], "of nothing")
                raise InputError(
                    f"{file} does not fit its config.json: {one} has the shape {shape}, and should have "
                    f"{wanted.get(one, 'none')}"
                )
            state: dict[str, torch.Tensor] = load_file(file)
    except (SafetensorError, OSError) as e:
        raise InputError(f"{file} cannot be read as weights ({_first_line(e)}); train the run again") from e
    for k, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise InputError(f"{file}: {k} is not finite; train the run again")
    return state


def _first_line(e: Exception) -> str:
    return next(iter(str(e).splitlines()), type(e).__name__)


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    """Tensors and a JSON state in one safetensors file, atomically: they are always of the same moment."""
    text = {"state": json.dumps(state)}
    write_atomic(path, lambda p: _write_tensors(p, {k: v.contiguous() for k, v in tensors.items()}, text))


def _write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as e:  # its name for every failure, a full disk too
        raise OSError(str(e)) from e


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What ``save_tensors`` wrote."""
    with safe_open(path, framework="pt") as f:
        state = json.loads(f.metadata()["state"])
        return {k: f.get_tensor(k) for k in f.keys()}, state  # noqa: SIM118 (not a dictionary)
