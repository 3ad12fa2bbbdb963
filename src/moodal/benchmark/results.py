"""Finished run folders as arrays, from which tables, statistics and figures are made. Nothing is trained or rounded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from moodal import metrics
from moodal.files import read_json
from moodal.models import MODELS
from moodal.types import MODALITIES, InputError, Task

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ModelResult:
    """All seeds of one row of the table, folds pooled: every test utterance is predicted once per seed.

    outputs: (R, N, C) test logits (C = 1 for scores), R seeds in the order of ``seeds``; relevance: (R, N, M) or None;
    unimodal: (R, N, C) by modality, where the model has it; valid: one dictionary of scores per seed (mean over folds).
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

    folds: 0 for fixed splits; limits: the simulation's exact limits on the test utterances, where they are known
    ("bayes" and "best_single": {"accuracy": ..}), and otherwise empty.
    """

    root: Path
    dataset: str
    task: Task
    folds: int
    ids: tuple[str, ...]
    y: npt.NDArray[Any]
    groups: npt.NDArray[np.str_]
    models: tuple[ModelResult, ...]
    limits: Mapping[str, Mapping[str, float]]
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
    pooled = {name: _pool(name, found[name], task) for name in wanted}
    ids, y, groups = _common_utterances(pooled)
    return Results(
        root,
        info["name"],
        task,
        info["folds"],
        ids,
        y,
        groups,
        tuple(result for result, _ in pooled.values()),
        info.get("limits", {}),
        tuple(info.get("notes", ())),
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


def _table_order(name: str) -> tuple[int, str]:
    """Candidates in the order of the zoo, each followed by its variants; folders of unknown models last."""
    known = list(MODELS)
    base = name.partition("@")[0]
    return (known.index(base) if base in known else len(known), name)


def _pool(name: str, seeds: Mapping[int, Sequence[Path]], task: Task) -> tuple[ModelResult, pa.Table]:
    folds = {s: len(paths) for s, paths in seeds.items()}
    complete = max(folds.values())
    short = [s for s, n in folds.items() if n < complete]
    if short:
        raise InputError(
            f"{name}: seed {short[0]} has {folds[short[0]]} of {complete} folds; finish it with the same command"
        )
    tables = [pa.concat_tables([_test_rows(p) for p in paths]).sort_by("id") for paths in seeds.values()]
    experiments = [read_json(next(iter(seeds.values()))[0] / "experiment.json")]
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
        experiments[0]["model"],
        experiments[0]["options"],
        experiments[0]["training"],
        tuple(seeds),
        columns("logit_{}", names),
        columns("relevance_{}", modalities) if modalities else None,
        modalities,
        {m: columns(f"unimodal_{m}_{{}}", names) for m in alone},
        tuple(_mean_scores([r["scores"]["valid"] for r in per_fold]) for per_fold in reports),
        reports[0][0]["parameters"],
        float(np.mean([r["epochs"] for per_fold in reports for r in per_fold])),
        float(np.mean([t["seconds_per_epoch"] for t in timing])),
        float(np.mean([t["seconds"] for t in timing])),
    )
    return result, tables[0]


def _test_rows(path: Path) -> pa.Table:
    return pq.read_table(path / "predictions.parquet", filters=[("split", "=", "test")])


def _mean_scores(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {k: float(np.mean([r[k] for r in rows])) for k in rows[0]}


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
