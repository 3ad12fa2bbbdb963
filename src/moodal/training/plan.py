"""From what a user asks ("mre, lmf with these settings, five seeds") to experiments, and the facts a report needs."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from moodal.config import TRAINING_KEYS, Settings, TrainingSettings, parse_assignments, split_settings
from moodal.data.folds import split_warnings
from moodal.data.simulate import read_truth
from moodal.data.store import Dataset, read_dataset
from moodal.experiment import Experiment, Run
from moodal.files import only_one, read_json, write_json
from moodal.models import MODELS, chosen_models, create_model, options_of
from moodal.training.progress import progress_bar
from moodal.training.runs import split_rows, train_all
from moodal.types import InputError, unknown

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A finished run, and whether it was finished before it was asked for."""

    run: Run
    skipped: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain facts of the run; seconds are of the process that trained it."""
        report, timing = self.run.report(), self.run.timing()
        test = report["scores"]["test"]
        main = ("accuracy", "f1_weighted") if "accuracy" in test else ("mae", "corr")
        return {
            "path": str(self.run.path),
            "seed": self.run.experiment.seed,
            "fold": self.run.experiment.fold,
            "epochs": report["epochs"],
            "best_epoch": report["best_epoch"],
            "seconds_per_epoch": timing["seconds_per_epoch"],
            "parameters": report["parameters"],
            "skipped": self.skipped,
            "test": {k: test[k] for k in main},
        }


def train_models(
    folder: Path,
    names: Sequence[str] | None,
    seeds: int,
    settings: Settings,
    out: Path,
    *,
    workers: int | None = None,
    task: str | None = None,
) -> list[Trained]:
    """Every model of ``names`` on the data set in ``folder``, seeds 0, 1, ..: all their runs below ``out``.

    ``names``: see ``chosen_models``. ``workers`` runs at a time, one per core unless given; progress goes to stderr
    where that is a terminal.
    """
    data = read_dataset(folder, task=task)
    chosen = chosen_models(names, data.dims, data.task)
    experiments = plan_experiments(data, chosen, seeds, settings)
    leaks = split_warnings(data.utterances, data.task)
    facts = benchmark_facts(data, leaks)
    check_benchmark(out, facts)
    check_experiments(data, experiments)
    before = [run.is_done for run in (Run.of(out, e) for e in experiments)]
    for sentence in leaks:
        log.warning("%s: %s", folder, sentence)
    out.mkdir(parents=True, exist_ok=True)
    with only_one(out), progress_bar(len(experiments)) as on_change:
        if not (out / "benchmark.json").exists():
            write_json(out / "benchmark.json", facts)
        runs = train_all(folder, out, experiments, workers=workers or os.cpu_count() or 1, on_change=on_change)
    return [Trained(run, skipped) for run, skipped in zip(runs, before, strict=True)]


def plan_experiments(data: Dataset, names: Sequence[str], seeds: int, settings: Settings) -> list[Experiment]:
    """One experiment per model, seed and fold.

    A name is a model's, or a variant ``model@key=value+key=value``. A setting that some models have goes to those;
    one that none of them has is an error. With folds, training ends with a refit on train + valid unless told not to.
    """
    if seeds < 1:
        raise InputError(f"--seeds must be at least 1, got {seeds}")
    names = [name.strip() for name in names]
    if len(set(names)) < len(names) or not names:
        raise InputError(f"--models needs one or more different names, got {', '.join(names) or 'none'}")
    known = {name: options_of(name.partition("@")[0]) for name in names}
    _check_keys(settings, known)
    folds: list[int | None] = list(range(data.num_folds)) or [None]
    base = TrainingSettings(refit=data.num_folds > 0)
    planned = []
    for name in names:
        model, _, variant = name.partition("@")
        given = {k: v for k, v in settings.common.items() if k in known[name] or k in TRAINING_KEYS}
        given |= settings.per_model.get(model, {})
        given |= parse_assignments(variant.split("+")) if variant else {}
        chosen, training = split_settings(given, known[name], base)
        options = {**known[name], **chosen}  # defaults too: they may change, a run's record may not
        first = Experiment(name, model, data.name, data.fingerprint, 0, None, data.task.kind, options, training)
        planned += [replace(first, seed=s, fold=k) for s in range(seeds) for k in folds]
    return planned


def _check_keys(settings: Settings, known: Mapping[str, Mapping[str, Any]]) -> None:
    every = {*TRAINING_KEYS, *(k for options in known.values() for k in options)}
    for key in settings.common:
        if key not in every:
            raise unknown("setting", key, every)
    for model in settings.per_model:
        if model not in MODELS:
            raise unknown("model", model, MODELS)


def check_experiments(data: Dataset, experiments: Sequence[Experiment]) -> None:
    """What would stop a run before its first epoch is said before anything is written."""
    for fold in {e.fold for e in experiments}:
        split_rows(data, fold)
    for e in {e.name: e for e in experiments}.values():
        try:
            create_model(e.model, data.dims, data.task, data.columns, **e.options)
        except InputError as error:
            raise InputError(f"{e.name}: {error}") from error
        if data.task.classes and e.training.select == "loss":
            raise InputError("select=loss is for scores; for classes choose nll, accuracy or f1_macro")
        if not data.task.classes and e.training.label_smoothing:
            raise InputError("label_smoothing is for classes; scores have none to smooth, so leave it out")


def benchmark_facts(data: Dataset, leaks: Sequence[str] = ()) -> dict[str, Any]:
    """What tables need to know of the data set; ``leaks`` are further notes."""
    notes = list(data.info.get("notes", []))
    return {
        **dataset_facts(data),
        "limits": _limits(data),
        "notes": [*notes, *(sentence for sentence in leaks if sentence not in notes)],
    }


def dataset_facts(data: Dataset) -> dict[str, Any]:
    """By which a folder of results knows its data set again."""
    return {
        "name": data.name,
        "path": str(data.path),
        "fingerprint": data.fingerprint,
        "task": {"classes": list(data.task.classes), "low": data.task.low, "high": data.task.high},
        "folds": data.num_folds,
    }


def check_benchmark(root: Path, facts: Mapping[str, Any]) -> None:
    """A runs folder of another data set is refused."""
    if (root / "benchmark.json").exists():
        check_dataset(read_json(root / "benchmark.json"), facts, f"{root} holds runs")


def check_dataset(found: Mapping[str, Any], facts: Mapping[str, Any], what: str) -> None:
    """``found`` and ``facts``: of ``dataset_facts``. ``what``: who holds what, the beginning of the sentence."""
    if any(found.get(k) != facts[k] for k in ("fingerprint", "task")):
        where = f"{found.get('name')} as it was in {found.get('path')}"
        raise InputError(f"{what} on another data set ({where}); choose another --out")


def _limits(data: Dataset) -> dict[str, dict[str, Any]]:
    """What no model can beat on the test utterances, and what the best single modality could reach: simulation only."""
    if not (data.path / "truth.parquet").exists() or not data.task.classes:
        return {}
    rows = data.index() if data.num_folds else data.index(split="test")
    y = data.labels[rows].numpy()
    truth = read_truth(data.path, [data.utterances[i].id for i in rows.tolist()])
    single = {m: float(np.mean(p.argmax(1) == y)) for m, p in truth.single.items()}
    best = max(single, key=lambda m: single[m])
    return {
        "bayes": {"accuracy": float(np.mean(truth.posterior.argmax(1) == y))},
        "best_single": {"accuracy": single[best], "modality": best},
    }
