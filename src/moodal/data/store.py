"""The data set folder: utterances.parquet, features/<modality>/*.parquet with spec.json, and dataset.json.

Readable without us: pandas, polars, DuckDB, Hugging Face datasets and Ray Data open every table as it lies.
dataset.json is written last and carries the SHA-256 of every other file, so its presence means the folder is whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from moodal.batch import Batch, Ragged
from moodal.files import new_folder, read_json, sha256, write_json
from moodal.types import MODALITIES, SPLITS, InputError, Task, Utterance, unknown

FORMAT = 1
TASK_KINDS = ("classification", "regression")
ROWS_PER_GROUP = 256  # about 30 MB of the widest features of the field; reading holds one group besides the result
Array = npt.NDArray[Any]
log = logging.getLogger(__name__)

COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("video", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("speaker", pa.string()),
        ("text", pa.string()),
        ("label", pa.string()),
        *((f"label_{m}", pa.string()) for m in MODALITIES),
        ("score", pa.float64()),
        *((f"score_{m}", pa.float64()) for m in MODALITIES),
        ("split", pa.string()),
        ("fold", pa.int32()),
        ("group", pa.string()),
    ]
)
MORE_COLUMNS = pa.schema([("intensity", pa.string())])  # there where known, so that other tables keep their bytes
FIELDS = (*COLUMNS.names, *MORE_COLUMNS.names)


@dataclass(frozen=True)
class FeatureSpec:
    """Who wrote the features: ``name``, ``version`` and ``settings`` hold all that changes an extractor's output."""

    name: str
    version: str
    modality: str
    dim: int
    hop_s: float | None = None
    licence: str = "unknown"
    columns: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON form, with ``hash`` over everything else."""
        known = {**vars(self), "columns": list(self.columns), "settings": dict(self.settings)}
        text = json.dumps(known, sort_keys=True)
        return {**known, "hash": hashlib.sha256(text.encode()).hexdigest()}


class DatasetWriter:
    """Fills a new data set folder: features modality by modality, utterances and dataset.json at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: dict[str, int] = {}

    def write_features(
        self, spec: FeatureSpec, ids: Sequence[str], clips: Iterable[Array | None], *, file: str = "part-0.parquet"
    ) -> None:
        """One row per utterance. clips: (T, D) float arrays in the order of ``ids``; None or T = 0 is missing.

        Clips may be a generator: only ``ROWS_PER_GROUP`` of them are held at a time.
        """
        if spec.dim < 1:
            raise InputError(f"{spec.modality} has {spec.dim} features per step; it needs at least one")
        target = self.folder / "features" / spec.modality
        target.mkdir(parents=True, exist_ok=True)
        nested = pa.list_(pa.list_(pa.float32(), spec.dim))
        schema = pa.schema([("id", pa.string()), ("steps", pa.int32()), ("features", nested)])
        present = rows = 0
        with pq.ParquetWriter(target / file, schema, compression="zstd", use_dictionary=False) as out:
            for chunk_ids, chunk in _chunks(ids, clips):
                present += sum(c is not None and len(c) > 0 for c in chunk)
                rows += len(chunk)
                out.write_table(_feature_table(spec, chunk_ids, chunk, schema))
        if rows != len(ids):
            raise InputError(f"{spec.modality}: {rows} clips for {len(ids)} utterances; they must be as many")
        if not present:
            raise InputError(f"{spec.modality} is empty: no utterance has a single step of it")
        self.counts[spec.modality] = present
        write_json(target / "spec.json", spec.as_dict())

    def finish(
        self,
        utterances: Sequence[Utterance],
        task: Task,
        *,
        name: str,
        licence: str = "unknown",
        source: str = "",
        notes: Sequence[str] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Check and write the table and dataset.json. ``extra`` goes into dataset.json as it is."""
        check_utterances(utterances, task)
        pq.write_table(_utterance_table(utterances), self.folder / "utterances.parquet", compression="zstd")
        files = sorted(p for p in self.folder.rglob("*") if p.is_file() and p.name != "dataset.json")
        write_json(
            self.folder / "dataset.json",
            {
                "format": FORMAT,
                "name": name,
                "task": {"kind": task.kind, "classes": list(task.classes), "low": task.low, "high": task.high},
                "licence": licence,
                "source": source,
                "notes": list(notes),
                "counts": _counts(utterances, self.counts),
                **(extra or {}),
                "files": {p.relative_to(self.folder).as_posix(): sha256(p) for p in files},
            },
        )


@contextmanager
def new_dataset(folder: Path, *, overwrite: bool = False) -> Iterator[DatasetWriter]:
    """A ``DatasetWriter`` whose folder appears only when the block has ended well.

    ``overwrite`` replaces a data set folder, and nothing that it does not recognise as one.
    """
    if overwrite:
        _refuse_to_replace(folder)
    with new_folder(folder, overwrite=overwrite) as partial:
        writer = DatasetWriter(partial)
        yield writer
        if not (partial / "dataset.json").exists():
            raise InputError(f"{folder}: nothing was written, finish() was never called")


def _refuse_to_replace(folder: Path) -> None:
    """What is no data set, or holds more than one (the user's own table, say), is not ours to delete."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        ours = {"dataset.json", *read_info(folder)["files"]}
    except InputError as e:
        message = f"{folder} is not a data set folder, so --overwrite leaves it alone; choose another folder"
        raise InputError(message) from e
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        if file.relative_to(folder).as_posix() not in ours:
            raise InputError(f"{file} is not part of the data set, and --overwrite would delete it; move it away first")


def check_utterances(utterances: Sequence[Utterance], task: Task) -> None:
    """Refuse what no training should start from: no or double ids, unknown labels and splits, shared groups."""
    if not utterances:
        raise InputError("there are no utterances")
    for name, n in Counter(u.id for u in utterances).items():
        if not name:
            raise InputError(f"{n} of {len(utterances)} utterances have no id; every one needs one")
        if n > 1:
            raise InputError(f"utterance id {name!r} stands {n} times; ids must be unique and not empty")
    for u in utterances:
        for label in (u.label, *u.modality_labels.values()):
            if task.classes and label is not None and label not in task.classes:
                raise InputError(
                    f"utterance {u.id}: label {label!r} is out of range; classes: {', '.join(task.classes)}"
                )
        for score in (u.score, *u.modality_scores.values()):
            in_range = score is None or (np.isfinite(score) and (task.classes or task.low <= score <= task.high))
            if not in_range:
                raise InputError(
                    f"utterance {u.id}: label {score} is out of range; scores go {task.low} to {task.high}"
                )
        if u.split is not None and u.split not in SPLITS:
            raise unknown("split", u.split, SPLITS)


def shared_groups(utterances: Sequence[Utterance]) -> dict[str, dict[str, int]]:
    """Leakage: for each pair of splits, the groups that sit in both and the utterances of the later one they touch."""
    found: dict[str, dict[str, int]] = {}
    groups = {s: {u.group for u in utterances if u.split == s and u.group} for s in SPLITS}
    for i, first in enumerate(SPLITS):
        for later in SPLITS[i + 1 :]:
            both = groups[first] & groups[later]
            if both:
                hit = sum(u.split == later and u.group in both for u in utterances)
                found[f"{first}/{later}"] = {"groups": len(both), "of": len(groups[later]), "utterances": hit}
    return found


@dataclass(frozen=True)
class Dataset:
    """A data set folder, opened. Features are read when ``batch`` is first asked for, or by ``read``."""

    path: Path
    info: Mapping[str, Any]
    utterances: tuple[Utterance, ...]
    modalities: tuple[str, ...]
    task: Task
    fingerprint: str

    @property
    def name(self) -> str:
        return str(self.info["name"])

    @property
    def num_folds(self) -> int:
        """0 when the data set has fixed splits."""
        return 1 + max((u.fold for u in self.utterances if u.fold is not None), default=-1)

    @cached_property
    def features(self) -> dict[str, dict[str, Any]]:
        """Who made the features of each modality: its spec.json."""
        return {m: read_json(self.path / "features" / m / "spec.json") for m in self.modalities}

    @property
    def dims(self) -> dict[str, int]:
        """Features per step of each modality."""
        return {m: int(spec["dim"]) for m, spec in self.features.items()}

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """What each number of a step is called; empty where the extractor names none."""
        return {m: tuple(spec.get("columns", ())) for m, spec in self.features.items()}

    @cached_property
    def labels(self) -> Tensor:
        """(B,) int64 classes (-1 without a label), or float32 scores (NaN without)."""
        if self.task.classes:
            code = {name: i for i, name in enumerate(self.task.classes)}
            return torch.tensor([code.get(u.label or "", -1) for u in self.utterances])
        scores = [float("nan") if u.score is None else u.score for u in self.utterances]
        return torch.tensor(scores, dtype=torch.float32)

    @cached_property
    def batch(self) -> Batch:
        """Every utterance with its raw features, in the order of ``utterances``."""
        return self.read()

    def read(
        self, modalities: Sequence[str] | None = None, reduce: Callable[[str, Ragged], Ragged] | None = None
    ) -> Batch:
        """A new ``batch`` of some modalities; ``reduce`` shortens each as soon as it is read, so that the raw steps
        of only one are ever held."""
        inputs = {}
        for m in self.modalities if modalities is None else modalities:
            x = _read_features(self.path, m, self.utterances, self.info)
            inputs[m] = x if reduce is None else reduce(m, x)
        stage = "raw" if reduce is None else "reduced"
        return _batch(self.utterances, inputs, self.task, self.labels, stage)

    def index(self, **where: object) -> Tensor:
        """(n,) positions of the labelled utterances whose fields have these values, e.g. ``split="train"``."""
        labelled = [(u.label if self.task.classes else u.score) is not None for u in self.utterances]
        hits = [
            i
            for i, u in enumerate(self.utterances)
            if labelled[i] and all(getattr(u, k) == v for k, v in where.items())
        ]
        return torch.tensor(hits, dtype=torch.int64)


def read_dataset(
    path: Path, *, modalities: Sequence[str] | None = None, verify: bool = True, task: str | None = None
) -> Dataset:
    """The data set in ``path``, its files checked against their hashes; features are read later, when needed.

    ``task`` "regression" reads a classification data set that also has scores as a regression one.
    """
    info = read_info(path)
    if verify:
        verify_files(path, info)
    utterances = read_utterances(path)
    stated = stated_task(path, info)
    check_utterances(utterances, stated)
    names = stored_modalities(info)
    for m in modalities or ():
        if m not in names:
            raise unknown("modality", m, names)
    chosen = _chosen_task(stated, task, utterances)
    identity = json.dumps({k: info[k] for k in ("files", "task")}, sort_keys=True)
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()
    kept = tuple(m for m in names if modalities is None or m in modalities)
    return Dataset(path, info, utterances, kept, chosen, fingerprint)


def read_info(path: Path) -> dict[str, Any]:
    """dataset.json, refused when it is absent (the folder is no data set, or only half of one) or of another format."""
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if not (path / "dataset.json").is_file():
        raise InputError(f"{path} is not a data set folder: it has no dataset.json; make one with moodal import")
    info = read_json(path / "dataset.json")
    if (
        not isinstance(info, dict)
        or info.get("format") != FORMAT
        or not ({"name", "task"} <= info.keys() and isinstance(info.get("files"), dict))
    ):
        raise InputError(f"{path / 'dataset.json'} is not of format {FORMAT}; import the data set again")
    return info


def stated_task(path: Path, info: Mapping[str, Any]) -> Task:
    """The task that dataset.json states."""
    try:
        return Task(tuple(info["task"]["classes"]), float(info["task"]["low"]), float(info["task"]["high"]))
    except (KeyError, TypeError) as e:
        raise InputError(f"{path / 'dataset.json'} states no usable task; import the data set again") from e


def stored_modalities(info: Mapping[str, Any]) -> list[str]:
    """The modalities of a data set, by what dataset.json lists: a folder that lies there besides is none of it."""
    return [m for m in MODALITIES if f"features/{m}/spec.json" in info["files"]]


def verify_files(path: Path, info: Mapping[str, Any]) -> None:
    """Every file must be there and have the hash that dataset.json states."""
    for name, expected in info["files"].items():
        file = path / name
        if not file.resolve().is_relative_to(path.resolve()):
            raise InputError(f"{path / 'dataset.json'} names {name}, which lies outside the data set folder")
        if not file.is_file():
            raise InputError(f"{file} is missing; dataset.json lists it, so import the data set again")
        if sha256(file) != expected:
            raise InputError(
                f"{file} has changed since it was written (its SHA-256 differs); import the data set again"
            )


def read_utterances(path: Path) -> tuple[Utterance, ...]:
    """The rows of utterances.parquet."""
    rows = pq.read_table(path / "utterances.parquet").to_pylist()
    return tuple(_utterance(row) for row in rows)


def _utterance(row: dict[str, Any]) -> Utterance:
    def per_modality(prefix: str) -> dict[str, Any]:
        return {m: row[f"{prefix}_{m}"] for m in MODALITIES if row.get(f"{prefix}_{m}") is not None}

    plain = [c for c in FIELDS if not c.startswith(("label_", "score_"))]
    return Utterance(
        **{k: row.get(k) for k in plain},  # type: ignore[arg-type]
        modality_labels=per_modality("label"),
        modality_scores=per_modality("score"),
    )


def _utterance_table(utterances: Sequence[Utterance]) -> pa.Table:
    rows = []
    for u in utterances:
        per_modality: dict[str, Any] = {f"label_{m}": v for m, v in u.modality_labels.items()}
        per_modality |= {f"score_{m}": v for m, v in u.modality_scores.items()}
        plain: dict[str, Any] = {name: getattr(u, name, None) for name in FIELDS}
        rows.append(plain | per_modality)
    known = [column for column in MORE_COLUMNS if any(row[column.name] is not None for row in rows)]
    return pa.Table.from_pylist(rows, schema=pa.schema([*COLUMNS, *known]))


def _counts(utterances: Sequence[Utterance], present: Mapping[str, int]) -> dict[str, Any]:
    splits = Counter(u.split or "none" for u in utterances)
    classes = Counter(u.label for u in utterances if u.label is not None)
    return {"utterances": len(utterances), "splits": dict(splits), "classes": dict(classes), "present": dict(present)}


def _chunks(ids: Sequence[str], clips: Iterable[Array | None]) -> Iterator[tuple[list[str], list[Array | None]]]:
    names: list[str] = []
    chunk: list[Array | None] = []
    given = iter(ids)
    for clip in clips:
        names.append(next(given, ""))
        chunk.append(clip)
        if len(chunk) == ROWS_PER_GROUP:
            yield names, chunk
            names, chunk = [], []
    if chunk:
        yield names, chunk


def _feature_table(spec: FeatureSpec, ids: list[str], clips: list[Array | None], schema: pa.Schema) -> pa.Table:
    arrays = [np.zeros((0, spec.dim), np.float32) if c is None else np.asarray(c, np.float32) for c in clips]
    for name, x in zip(ids, arrays, strict=True):
        if x.ndim != 2 or x.shape[1] != spec.dim:
            raise InputError(f"utterance {name}: {spec.modality} has shape {x.shape}, expected (steps, {spec.dim})")
    values = np.concatenate(arrays)
    lengths = [len(x) for x in arrays]
    if not np.isfinite(values).all():
        step = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
        which = int(np.searchsorted(np.cumsum(lengths), step, side="right"))
        kind = "NaN" if np.isnan(values[step]).any() else "inf"
        raise InputError(f"utterance {ids[which]}: {spec.modality} holds {kind}; clean the features and import again")
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), spec.dim)
    column = pa.ListArray.from_arrays(pa.array(offsets), flat)
    return pa.Table.from_arrays([pa.array(ids), pa.array(lengths, pa.int32()), column], schema=schema)


def _read_features(path: Path, modality: str, utterances: Sequence[Utterance], info: Mapping[str, Any]) -> Ragged:
    """All rows of one modality, in the order of ``utterances``, into one array filled a row group at a time."""
    folder = path / "features" / modality
    dim = int(read_json(folder / "spec.json")["dim"])
    shards = sorted(f for f in info["files"] if f.startswith(f"features/{modality}/") and f.endswith(".parquet"))
    files = [pq.ParquetFile(path / f) for f in shards]
    ids, lengths = _ids_and_lengths(files)
    values = np.empty((int(sum(lengths)), dim), np.float32)
    at = 0
    for file in files:
        for g in range(file.num_row_groups):
            block = file.read_row_group(g, columns=["features"], use_threads=False)["features"].combine_chunks()
            rows = block.flatten().flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
            if at + len(rows) > len(values):
                raise InputError(f"{folder}: the column steps does not agree with the features; import again")
            values[at : at + len(rows)] = rows
            at += len(rows)
        file.close()
    pa.default_memory_pool().release_unused()
    if at < len(values):
        raise InputError(f"{folder}: the column steps does not agree with the features; import again")
    ragged = Ragged(torch.from_numpy(values), torch.tensor(lengths, dtype=torch.int64))
    wanted = [u.id for u in utterances]
    if ids == wanted:
        return ragged
    where = {name: i for i, name in enumerate(ids)}
    strangers = [name for name in ids if name not in set(wanted)]
    if strangers or len(where) < len(ids):
        raise InputError(f"{folder}: row {(strangers or ids)[0]!r} is not in utterances.parquet, or stands twice")
    padded = Ragged(ragged.values, torch.cat([ragged.lengths, torch.zeros(1, dtype=torch.int64)]))
    return padded.select(torch.tensor([where.get(name, len(ids)) for name in wanted]))


def _ids_and_lengths(files: Sequence[pq.ParquetFile]) -> tuple[list[str], list[int]]:
    """Who is there with how many steps, without reading a feature."""
    tables = [file.read(columns=["id", "steps"]) for file in files]
    return [i for t in tables for i in t["id"].to_pylist()], [n for t in tables for n in t["steps"].to_pylist()]


def _chosen_task(stated: Task, kind: str | None, utterances: Sequence[Utterance]) -> Task:
    if kind is None or kind == stated.kind:
        return stated
    if kind not in TASK_KINDS:
        raise unknown("task", kind, TASK_KINDS)
    if kind == "classification":
        raise InputError("this data set is labelled with scores only; it can be used for regression, not for classes")
    scores = [u.score for u in utterances if u.score is not None]
    if not scores:
        raise InputError("this data set has classes but no scores; it cannot be used for regression")
    return (
        Task(low=stated.low, high=stated.high) if stated.low < stated.high else Task(low=min(scores), high=max(scores))
    )


def _batch(
    utterances: Sequence[Utterance], inputs: Mapping[str, Ragged], task: Task, labels: Tensor, stage: str
) -> Batch:
    code = {name: i for i, name in enumerate(task.classes)}
    own = {m: torch.tensor([code.get(u.modality_labels.get(m, ""), -1) for u in utterances]) for m in MODALITIES}
    known = {m: y for m, y in own.items() if task.classes and bool((y >= 0).any())}
    numbers = {name: i for i, name in enumerate(dict.fromkeys(u.group for u in utterances))}
    groups = None if None in numbers else torch.tensor([numbers[u.group] for u in utterances])
    return Batch(inputs, labels, known, groups, [u.id for u in utterances], stage=stage)
