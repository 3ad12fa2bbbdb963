"""Finished run folders as arrays, from which tables, statistics and figures are made. Nothing is trained or rounded."""

from __future__ import annotations

import glob
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moodal import metrics
from moodal.files import read_json
from moodal.models import MODELS
from moodal.types import MODALITIES, InputError, Task, unknown

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ModelResult:
    """All seeds of one row of the table, folds pooled: every test utterance is predicted once per seed.

    outputs: (R, N, C) test logits (C = 1 for scores), R seeds in the order of ``seeds``; relevance: (R, N, M) or None;
    unimodal: (R, N, C) by modality, where the model has it; valid: one dictionary of scores per seed (mean over folds);
    constant: per seed, whether the model of any fold says the same of every test utterance.
    """

    name: str
    model: str
    options: Mapping[str, Any]
    training: Mapping[str, Any]
    seeds: tuple[int, ...]
    outputs: Array
    relevance: Array | None
    modalities: tuple[str, ...]
    unimodal: Mapping[str, Array]
    valid: tuple[Mapping[str, float], ...]
    constant: tuple[bool, ...]
    parameters: int
    epochs: float
    seconds_per_epoch: float
    seconds: float

    @property
    def is_control(self) -> bool:
        return MODELS[self.model].cls.is_control

    @property
    def title(self) -> str:
        """What a table prints: the model's name, and the options that differ from its defaults."""
        title = MODELS[self.model].title
        return title if self.name == self.model else f"{title} ({self.name.partition('@')[2] or self.name})"


@dataclass(frozen=True)
class Results:
    """Everything under one runs folder. All models predict the same utterances: ids, y, groups (N,).

    path: the data set folder; folds: 0 for fixed splits; limits: the simulation's exact limits on the test utterances,
    where they are known ("bayes" and "best_single": {"accuracy": .., "modality": ..}), and otherwise empty.
    """

    root: Path
    dataset: str
    path: str
    task: Task
    folds: int
    ids: tuple[str, ...]
    y: npt.NDArray[Any]
    groups: npt.NDArray[np.str_]
    models: tuple[ModelResult, ...]
    limits: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...]

    def scores(self, model: ModelResult) -> list[dict[str, float]]:
        """The test scores of each seed."""
        return [metrics.scores(o, self.y, self.task) for o in model.outputs]


def read_results(root: Path, names: Sequence[str] | None = None) -> Results:
    """The finished runs below ``root``, or those of ``names`` in that order. Unequal test sets are refused."""
    info = _read_info(root)
    task = Task(tuple(info["task"]["classes"]), info["task"]["low"], info["task"]["high"])
    found = _finished(root)
    wanted = list(names) if names is not None else sorted(found, key=_table_order)
    missing = [n for n in wanted if n not in found]
    if missing or not found:
        raise InputError(f"{root} holds no finished run{' of ' + missing[0] if missing else ''}; train it first")
    pooled = {name: _pool(name, found[name], task, info["folds"]) for name in wanted}
    _one_dataset({name: found[name] for name in wanted})
    ids, y, groups = _common_utterances(pooled)
    return Results(
        root,
        info["name"],
        str(info["path"]),
        task,
        info["folds"],
        ids,
        y,
        groups,
        tuple(result for result, _ in pooled.values()),
        info.get("limits", {}),
        (*info.get("notes", ()), *_unfinished(root, wanted)),
    )


def _read_info(root: Path) -> dict[str, Any]:
    if not (root / "benchmark.json").is_file():
        raise InputError(
            f"{root} is not a runs folder: it has no benchmark.json; make one with moodal train or compare"
        )
    found: dict[str, Any] = read_json(root / "benchmark.json")
    return found


def _finished(root: Path) -> dict[str, dict[int, list[Path]]]:
    """name -> seed -> run folders (one, or one per fold)."""
    found: dict[str, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for report in sorted(root.glob("*/seed-*/**/report.json")):
        name, seed = report.relative_to(root).parts[:2]
        found[name][int(seed.removeprefix("seed-"))].append(report.parent)
    return {name: dict(sorted(seeds.items())) for name, seeds in found.items()}


def _unfinished(root: Path, names: Sequence[str]) -> list[str]:
    """A sentence if runs were begun and not ended: their seeds are not in any number."""
    begun = {f.parent for name in names for f in root.glob(f"{glob.escape(name)}/seed-*/**/experiment.json")}
    open_runs = sorted(str(p.relative_to(root)) for p in begun if not (p / "report.json").exists())
    if not open_runs:
        return []
    return [f"Not finished and left out: {', '.join(open_runs)}."]


def _one_dataset(found: Mapping[str, Mapping[int, Sequence[Path]]]) -> None:
    """All models must have learned from the same files: the hash of the data set is in every experiment."""
    prints = {name: read_json(next(iter(seeds.values()))[0] / "experiment.json") for name, seeds in found.items()}
    (first, expected), *others = prints.items()
    for name, other in others:
        if other["fingerprint"] != expected["fingerprint"]:
            raise InputError(f"{first} and {name} were trained on different versions of the data set; train one again")


def _table_order(name: str) -> tuple[int, str]:
    """Candidates in the order of the zoo, each followed by its variants; folders of unknown models last."""
    known = list(MODELS)
    base = name.partition("@")[0]
    return (known.index(base) if base in known else len(known), name)


def _pool(name: str, seeds: Mapping[int, Sequence[Path]], task: Task, folds: int) -> tuple[ModelResult, pa.Table]:
    _check_folds(name, seeds, folds)
    experiment = _common_experiment(name, seeds)
    tables = [pa.concat_tables([_test_rows(p) for p in paths]).sort_by("id") for paths in seeds.values()]
    _check_utterances(name, tuple(seeds), tables)
    reports = [[read_json(p / "report.json") for p in paths] for paths in seeds.values()]
    timing = [read_json(p / "timing.json") for paths in seeds.values() for p in paths]
    names = list(task.classes) or ["score"]
    stacked = {
        c: np.stack([t[c].to_numpy() for t in tables]) for c in tables[0].column_names if tables[0][c].type == "float"
    }
    modalities = tuple(m for m in MODALITIES if f"relevance_{m}" in stacked)
    alone = [m for m in MODALITIES if f"unimodal_{m}_{names[0]}" in stacked]

    def columns(pattern: str, keys: Sequence[str]) -> Array:
        return np.stack([stacked[pattern.format(k)] for k in keys], axis=-1).astype(np.float64)

    result = ModelResult(
        name,
        experiment["model"],
        experiment["options"],
        experiment["training"],
        tuple(seeds),
        columns("logit_{}", names),
        columns("relevance_{}", modalities) if modalities else None,
        modalities,
        {m: columns(f"unimodal_{m}_{{}}", names) for m in alone},
        tuple(_mean_scores([r["scores"]["valid"] for r in per_fold]) for per_fold in reports),
        tuple(any(_says_one_thing(_test_rows(p), names) for p in paths) for paths in seeds.values()),
        reports[0][0]["parameters"],
        float(np.mean([r["epochs"] for per_fold in reports for r in per_fold])),
        float(np.mean([t["seconds_per_epoch"] for t in timing])),
        float(np.mean([t["seconds"] for t in timing])),
    )
    return result, tables[0]


def _test_rows(path: Path) -> pa.Table:
    return pq.read_table(path / "predictions.parquet", filters=[("split", "=", "test")])


def _mean_scores(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean over folds of the metrics that every fold has; one without a non-neutral utterance has no Non0."""
    return {k: float(np.mean([r[k] for r in rows])) for k in rows[0] if all(k in r for r in rows)}


def _says_one_thing(rows: pa.Table, names: Sequence[str]) -> bool:
    outputs = np.stack([rows[f"logit_{n}"].to_numpy() for n in names], axis=-1)
    return metrics.constant_prediction(outputs.argmax(-1) if len(names) > 1 else outputs[:, 0])


def _check_folds(name: str, seeds: Mapping[int, Sequence[Path]], folds: int) -> None:
    """One folder per fold, fold-0 to fold-(K-1); with fixed splits the seed's own folder and no other."""
    expected = [f"fold-{k}" for k in range(folds)] or [""]
    for seed, paths in seeds.items():
        there = [p.name if p.name.startswith("fold-") else "" for p in paths]
        if set(there) < set(expected):
            raise InputError(
                f"{name}: seed {seed} has {len(there)} of {folds} folds; finish it with the command that began it"
            )
        if set(there) != set(expected):
            found, wanted = ("folds", "fixed splits") if not folds else ("runs", f"{folds} folds")
            raise InputError(f"{name}: seed {seed} has {found} that do not belong to {wanted}; use another folder")


def _common_experiment(name: str, seeds: Mapping[int, Sequence[Path]]) -> dict[str, Any]:
    """What was asked, but for seed and fold. Runs that were asked different things are not seeds of one row."""
    found = [read_json(p / "experiment.json") for paths in seeds.values() for p in paths]
    first: dict[str, Any] = found[0]
    for other in found[1:]:
        differing = [k for k, v in _asked(first).items() if _asked(other).get(k) != v]
        if differing:
            raise InputError(
                f"{name}: seed {first['seed']} and seed {other['seed']} differ in {differing[0]}; "
                "seeds of one row must be trained alike, so give one of them another folder"
            )
    if first["model"] not in MODELS:
        raise unknown(f"model (of the runs {name})", first["model"], MODELS)
    return first


def _asked(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Everything but seed and fold, with the single settings and options beside the rest."""
    plain = {k: v for k, v in experiment.items() if k not in ("seed", "fold", "options", "training")}
    return {**plain, **experiment["training"], **experiment["options"]}


def _check_utterances(name: str, seeds: Sequence[int], tables: Sequence[pa.Table]) -> None:
    """Every seed predicts every test utterance once."""
    ids = tables[0]["id"]
    if len(pc.unique(ids)) < len(ids):
        raise InputError(f"{name}: some utterances are tested in two folds; folds must not overlap")
    for seed, table in zip(seeds, tables, strict=True):
        if table["id"] != ids or table["label"] != tables[0]["label"]:
            raise InputError(f"{name}: seeds {seeds[0]} and {seed} were not tested on the same utterances")


def _common_utterances(
    pooled: Mapping[str, tuple[ModelResult, pa.Table]],
) -> tuple[tuple[str, ...], npt.NDArray[Any], npt.NDArray[np.str_]]:
    (first, (_, table)), *others = pooled.items()
    for name, (_, other) in others:
        if other["id"] != table["id"] or other["label"] != table["label"]:
            raise InputError(f"{first} and {name} were not tested on the same utterances; they cannot be compared")
    classes = [c.removeprefix("logit_") for c in table.column_names if c.startswith("logit_")]
    labels = table["label"].to_pylist()
    y = np.array([classes.index(v) for v in labels]) if isinstance(labels[0], str) else np.array(labels, np.float64)
    return tuple(table["id"].to_pylist()), y, np.array(table["group"].to_pylist(), dtype=np.str_)
