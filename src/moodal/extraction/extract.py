"""From media files to a data set folder: what is done is kept, what fails is written down, the order never changes.

Beside the data set DIR lies DIR.parts: one file per medium and set of extractors, named by what went into it. So a
command that was killed goes on where it was, new files cost only themselves, and another extractor never mixes in.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from moodal.data.store import FIELDS, FeatureSpec
from moodal.data.table import LABELS, SCORES, Clips, assemble, utterances_from_columns
from moodal.extraction.items import Source
from moodal.extraction.ledger import TRIES, Entry, Failures, counts, write_ledger
from moodal.extraction.manifest import SOUND, Manifest, read_manifest
from moodal.extraction.pool import Outcome, run_jobs
from moodal.extraction.ray_engine import needs_ray, ray_cluster
from moodal.extraction.tries import run_tries
from moodal.extraction.work import (
    DONE,
    FAILED,
    MISSING,
    SKIPPED,
    Job,
    extract_source,
    extractor,
    read_part,
    read_values,
    transcriber,
)
from moodal.features.extractor import identity_hash
from moodal.features.model_files import install_face_models
from moodal.files import only_one, read_json
from moodal.media.transcripts import SIDE_CARS
from moodal.types import MODALITIES, InputError, Task, unknown

EMOTIONS = (
    "neutral",
    "happy",
    "sad",
    "angry",
    "fearful",
    "disgusted",
    "surprised",
    "calm",
)  # when nobody has labelled yet
CUTS = ("auto", "whole", "transcript")
ENGINES = ("local", "ray")  # processes of this machine, or of all nodes of a Ray cluster
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How to extract. ``extractors``: by modality; ``limit_s``: of one file, by its size unless given.

    ``engine``: processes of this machine, or of a Ray cluster: then ``workers`` is one per processor of all its nodes.
    ``root``: where the files that a table names lie, if not beside it.
    """

    extractors: Mapping[str, str]
    labels: Path | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    cut: str = "auto"
    workers: int | None = None
    limit_s: float | None = None
    retry: bool = False
    name: str | None = None
    licence: str = "unknown"
    class_names: Sequence[str] | None = None
    interval: tuple[float, float] | None = None
    folds_by: str | None = None
    num_folds: int = 5
    split_by: str | None = None
    overwrite: bool = False
    engine: str = "local"
    asr: str = ""
    root: Path | None = None


@dataclass(frozen=True)
class Extraction:
    """``entries``: the ledger; ``ledger``: its file. ``problem``: why there is no data set, where there is none."""

    entries: tuple[Entry, ...]
    ledger: Path
    notes: tuple[str, ...] = ()
    problem: str = ""

    @property
    def is_whole(self) -> bool:
        """Nothing failed, now or before."""
        return not any(e.status in (FAILED, SKIPPED) for e in self.entries)

    @property
    def counts(self) -> dict[str, int]:
        return counts(self.entries)

    def sentence(self) -> str:
        """What is there and what is not."""
        said = ", ".join(f"{n} {status}" for status, n in sorted(self.counts.items()))
        files = {e.video for e in self.entries if e.stage == "file"}
        return f"stages: {said}" + (f"; {len(files)} files could not be read" if files else "")

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` prints: stages by their status, and what went wrong."""
        found = self.counts
        return {
            "done": found.get(DONE, 0),
            "missing": found.get(MISSING, 0),
            "failed": found.get(FAILED, 0),
            "skipped": found.get(SKIPPED, 0),
            "ledger": str(self.ledger),
            "problems": [asdict(e) for e in self.entries if e.status in (FAILED, SKIPPED)],
            "notes": list(self.notes),
        }


OnChange = Callable[[int, int, str], None]  # how many files are done, of how many, which are under way


def extract_media(videos: Path, target: Path, options: Options, *, on_change: OnChange | None = None) -> Extraction:
    """Make the data set folder ``target`` of the media in ``videos``; see ``read_manifest`` for what that may be."""
    _refuse(videos, target, options)
    divide_by = [c for c in (options.folds_by, options.split_by) if c]
    manifest = read_manifest(videos, options.labels, options.fields, divide_by, options.root)
    identities = {m: extractor(spec).identity() for m, spec in options.extractors.items()}  # refuses before any work
    for m, identity in identities.items():
        if identity["modality"] != m:
            raise InputError(f"--{m} {options.extractors[m]}: that one reads {identity['modality']}")
    _fetch_models(identities, manifest)
    parts = target.with_name(f"{target.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    with only_one(parts):
        for left in parts.glob(".*.partial-*"):  # by a process that was killed
            left.unlink(missing_ok=True)
        jobs = [_job(s, options, identities, parts) for s in manifest.sources]
        failures = Failures(parts / "failures.jsonl")
        if options.retry:
            failures.forget([j.part.stem for j in jobs])
        found = _work(jobs, failures, options, on_change)
        entries = [e for job in jobs for e in _entries(job, found, failures)]
        write_ledger(entries, parts / "ledger.parquet")
        if not any(e.status == DONE for e in entries):
            first = next((e for e in entries if e.status == FAILED), entries[0])
            problem = f"nothing could be extracted from {videos}; {first.video}: {first.note}"
            return Extraction(tuple(entries), parts / "ledger.parquet", problem=problem)
        notes = _assemble(videos, target, manifest, jobs, found, identities, options)
    return Extraction(tuple(entries), parts / "ledger.parquet", tuple(notes))


def _refuse(videos: Path, target: Path, options: Options) -> None:
    """What could only fail when the work is done."""
    if options.cut not in CUTS:
        raise InputError(f"--cut must be one of {', '.join(CUTS)}, got {options.cut!r}")
    if options.limit_s is not None and not options.limit_s > 0:  # also what is no number
        raise InputError(f"--time-limit must be above 0 s, got {options.limit_s}")
    if options.engine not in ENGINES:
        raise unknown("engine", options.engine, ENGINES)
    if options.engine == "ray":
        needs_ray()
    if options.asr:
        transcriber(options.asr)
    if not options.extractors:
        raise InputError("nothing to extract: text, audio and vision are all none")
    if target.name in ("", ".."):
        raise InputError(f"{target} names no folder to make; give it a name of its own")
    is_there = target.exists() and not (target.is_dir() and not any(target.iterdir()))
    if is_there and not options.overwrite and not _is_extracted(videos, target):
        raise InputError(f"{target} exists already; choose another folder, or say --overwrite")


def _fetch_models(identities: Mapping[str, Mapping[str, Any]], manifest: Manifest) -> None:
    """Once and now: without a network every file would fail for it, each after its own try."""
    pictures = any(s.file.suffix.lower() not in SOUND for s in manifest.sources)
    if pictures and any(i["name"] == "au_proxy" for i in identities.values()):
        install_face_models()


def _job(source: Source, options: Options, identities: Mapping[str, Mapping[str, Any]], parts: Path) -> Job:
    """Named by all that decides its result: the file (name, size, time), its utterances, the extractors."""
    beside = [source.file.name, *(source.file.stem + s for suffix in SIDE_CARS for s in (suffix, suffix.upper()))]
    state = [[name, *_size_and_time(source.file.parent / name)] for name in beside]
    items = [[i.id, i.segment and [i.segment.start_s, i.segment.end_s], i.text] for i in source.items]
    heard = [options.asr] if options.asr else []
    said = [*heard, source.video, state, items, options.cut, {m: identity_hash(i) for m, i in identities.items()}]
    key = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:24]
    return Job(source, dict(options.extractors), parts / f"{key}.npz", options.cut, options.asr)


def _size_and_time(file: Path) -> list[int]:
    try:
        stat = file.stat()
    except (OSError, ValueError):  # it does not exist, or cannot: the name is too long, or holds a zero byte
        return []
    return [stat.st_size, stat.st_mtime_ns]


Part = list[dict[str, Any]]


def _work(
    jobs: Sequence[Job], failures: Failures, options: Options, on_change: OnChange | None
) -> dict[Path, Part | None]:
    """Every job that is not done yet, or not all of it; one whose process hung or died is tried again, after all
    others. What each part holds; None where there is none."""
    # only of names that are there: a shared disk may deny a while longer what was asked for before a node wrote it
    there = {p for folder in {j.part.parent for j in jobs} for p in folder.iterdir()}
    found = {j.part: read_part(j.part) if j.part in there else None for j in jobs}
    todo = [j for j in jobs if not _is_good(found[j.part]) and failures.tries(j.part.stem) < TRIES]
    before = len(jobs) - len(todo)

    def show(done: int, under_way: str) -> None:
        if on_change:
            on_change(before + done, len(jobs), under_way)

    with _engine(options, todo) as engine:
        run = partial(engine, extract_source, limit_s=lambda j: _limit_s(j, options))
        for outcome in run_tries(run, todo, failures, lambda j: (j.part.stem, j.source.video), show):
            if not outcome.problem:
                found[outcome.job.part] = said = read_part(outcome.job.part)
                if not _is_good(said):
                    failures.record(outcome.job.part.stem, outcome.job.source.video, _problem(said))
    return found


@contextmanager
def _engine(options: Options, todo: Sequence[Job]) -> Iterator[Callable[..., Iterator[Outcome[Job]]]]:
    """``run_jobs`` here or on a Ray cluster, which costs seconds to reach and so is not where nothing is to be done."""
    if options.engine == "ray" and todo:
        media = [j.source.file for j in todo if j.source.file.is_file()][:1]
        with ray_cluster(todo[0].part.parent, media, options.workers) as cluster:
            yield partial(cluster.run_jobs, workers=min(options.workers or cluster.num_cpus, len(todo)))
    else:
        yield partial(run_jobs, workers=max(1, min(options.workers or os.cpu_count() or 1, len(todo))))


def _is_good(part: Part | None) -> bool:
    """It is there, and no stage of it failed."""
    return part is not None and not _problem(part)


def _problem(part: Part | None) -> str:
    """What the first stage that failed says."""
    if part is None:
        return "its part was written and cannot be read again; check the disk"
    stages = (stage for said in part for stage in said["stages"].values())
    return next((stage["note"] or FAILED for stage in stages if stage["status"] == FAILED), "")


def _limit_s(job: Job, options: Options) -> float:
    """Ample for a file at a third of real time and 100 kB a second; only what hangs takes longer."""
    if options.limit_s is not None:
        return options.limit_s
    size = _size_and_time(job.source.file)
    return 300.0 + (size[0] / 30_000 if size else 0.0)


def _entries(job: Job, found: Mapping[Path, Part | None], failures: Failures) -> Iterator[Entry]:
    key, video, part = job.part.stem, job.source.video, found[job.part]
    tries = failures.tries(key)
    status = SKIPPED if tries >= TRIES else FAILED
    if part is None:
        for item in job.source.items:
            yield Entry(video, item.id, "file", status, failures.last(key), 0, tries)
        return
    for said in part:
        for m, stage in said["stages"].items():
            failed = stage["status"] == FAILED
            yield Entry(
                video,
                said["id"],
                m,
                status if failed else stage["status"],
                stage["note"],
                stage["steps"],
                tries if failed or not _is_good(part) else tries + 1,
            )


def _assemble(
    videos: Path,
    target: Path,
    manifest: Manifest,
    jobs: Sequence[Job],
    found: Mapping[Path, Part | None],
    identities: Mapping[str, Mapping[str, Any]],
    options: Options,
) -> list[str]:
    rows: list[dict[str, Any]] = []
    places: dict[str, tuple[Path, int]] = {}
    present: set[str] = set()
    lost = [j.source.video for j in jobs if found[j.part] is None]
    labels, task = _of_all(manifest, options) if lost else ({}, None)
    for job in jobs:
        own = {item.id for item in job.source.items}
        for number, said in enumerate(found[job.part] or ()):
            places[said["id"]] = (job.part, number)
            present |= {m for m, stage in said["stages"].items() if stage["status"] == DONE}
            given = said["id"] if said["id"] in own else said["id"].rpartition("_")[0]  # what was cut has a number
            more = {c: values.get(given) for c, values in manifest.columns.items()}
            more = {c: v for c, v in more.items() if c != "speaker" or v is not None}
            known = {k: said[k] for k in ("id", "start_s", "end_s", "text", "speaker")}
            if said["speaker"] is not None and "speaker" not in more and "group" not in more:
                known["group"] = job.source.video  # a transcript's SPEAKER_00 is somebody else in every video
            rows.append({"video": job.source.video, **known, **more, **labels.get(given, {})})
    names = list(dict.fromkeys(c for row in rows for c in row))
    columns = {c: [row.get(c) for row in rows] for c in names}
    others = {c: columns.pop(c) for c in list(columns) if c not in FIELDS}
    labelled = {c for c in ("label", "score") if any(v is not None for v in columns.get(c, ()))}
    if not labelled:
        columns["label"] = [None] * len(rows)
    absent = [m for m in options.extractors if m not in present]
    notes = [
        *manifest.notes,
        *([] if labelled else ["nobody has labelled it yet: its classes are a proposal"]),
        *([f"{len(lost)} files are not in it because they failed, the first {lost[0]}"] if lost else []),
        *(f"no utterance has {m}" for m in absent),
    ]
    return assemble(
        videos,
        target,
        columns,
        {m: _opener(places, identities[m]) for m in MODALITIES if m in present},
        others=others,
        notes=notes,
        class_names=options.class_names or (task.classes or None if task else None if labelled else EMOTIONS),
        interval=options.interval or ((task.low, task.high) if task and task.low < task.high else None),
        name=options.name or (videos.resolve().name if videos.is_dir() else videos.stem),
        licence=options.licence,
        overwrite=options.overwrite or _is_extracted(videos, target),
        folds_by=options.folds_by,
        num_folds=options.num_folds,
        split_by=options.split_by,
        extra={"extracted": _place(videos)},
    )


def _of_all(manifest: Manifest, options: Options) -> tuple[dict[str, dict[str, Any]], Task | None]:
    """The labels by utterance and the task of all that was asked for, also of files that failed: what becomes readable
    later must not change what the classes are."""
    given = {c: values for c, values in manifest.columns.items() if c in (*LABELS, *SCORES)}
    if not ({"label", "score"} & given.keys()):
        return {}, None
    ids = [item.id for source in manifest.sources for item in source.items]
    columns = {c: [values.get(i) for i in ids] for c, values in given.items()}
    utterances, task = utterances_from_columns(
        {"id": ids, **columns}, class_names=options.class_names, interval=options.interval
    )
    if not task.classes:
        return {}, task
    own = {f"label_{m}": m for m in MODALITIES if f"label_{m}" in given}
    return {u.id: {"label": u.label, **{c: u.modality_labels.get(m) for c, m in own.items()}} for u in utterances}, task


def _is_extracted(videos: Path, target: Path) -> bool:
    """An earlier result of ours from the same place: it is replaced by what the files say now."""
    if not (target / "dataset.json").is_file():
        return False
    info = read_json(target / "dataset.json")
    return isinstance(info, dict) and info.get("extracted") == _place(videos)


def _place(videos: Path) -> str:
    """Which folder or table it was, without telling others where it lay."""
    return hashlib.sha256(str(videos.resolve()).encode()).hexdigest()[:16]


def _opener(places: Mapping[str, tuple[Path, int]], identity: Mapping[str, Any]) -> Callable[[Sequence[str]], Clips]:
    spec = FeatureSpec(**identity)

    def open_clips(ids: Sequence[str]) -> Clips:
        return Clips(spec.dim, read_values([places[i] for i in ids], spec.modality), spec=spec)

    return open_clips
