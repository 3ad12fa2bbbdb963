"""Labelled clips, wherever they are: a data set folder, a table of votes, a recipe folder that was balanced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from moodal.data.clips import read_clips
from moodal.data.store import read_info, read_utterances, stated_task
from moodal.labels.consensus import consensus
from moodal.labels.table import FILE, LabelRow, read_labels
from moodal.labels.votes import EMOTIONS, INTENSITIES, Array, Votes, read_votes
from moodal.types import MODALITIES, InputError


@dataclass(frozen=True)
class Labelled:
    """N clips with a label of the full clip. C classes, L >= C labels: what single modalities may say besides.

    full: (N,) into ``labels``, all below C; single: by modality (N,), -1 where nobody labelled it alone; duration_s:
    (N,), or None. ``num_all``: how many clips there were before some were left out, ``of_all``: the share of each class
    among those of them that had a label.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    full: Array
    single: Mapping[str, Array]
    duration_s: Array | None = None
    num_groups: int | None = None
    num_speakers: int | None = None
    licence: str | None = None
    num_all: int | None = None
    of_all: Mapping[str, float] | None = None
    votes: Votes | None = None
    notes: tuple[str, ...] = ()


def read_labelled(
    source: Path, labels: Sequence[str] | None = None, intensities: Sequence[str] = INTENSITIES
) -> Labelled:
    """``source``: a data set folder (dataset.json), a recipe folder (labels.parquet, else its votes), or votes."""
    if source.is_dir() and (source / "dataset.json").is_file():
        return _of_dataset(source)
    if source.is_dir() and (source / FILE).is_file():
        return _of_recipe(source, labels, intensities)
    return _of_votes(read_votes(source, labels, intensities))


def in_order(names: Sequence[str]) -> tuple[str, ...]:
    """The paper's emotions as the paper orders them, others by name."""
    known = [e for e in EMOTIONS if e in names]
    return (*known, *sorted(set(names) - set(known)))


def _of_dataset(path: Path) -> Labelled:
    info = read_info(path)
    task = stated_task(path, info)
    if not task.classes:
        raise InputError(
            f"{path} is labelled with scores; these statistics are of classes (moodal inspect shows scores)"
        )
    utterances = [u for u in read_utterances(path) if u.label is not None]
    if not utterances:
        raise InputError(f"{path}: no utterance has a label")
    full = [u.label or "" for u in utterances]
    own = {m: [u.modality_labels.get(m) for u in utterances] for m in MODALITIES}
    times = [(u.start_s, u.end_s) for u in utterances]
    durations = [e - s for s, e in times if s is not None and e is not None]
    classes = in_order(list(dict.fromkeys(full)))
    return _coded(
        Labelled(
            name=str(info["name"]),
            kind="data set",
            classes=classes,
            labels=(),
            full=np.zeros(0),
            single={},
            duration_s=np.array(durations) if len(durations) == len(times) else None,
            num_groups=_different(u.group for u in utterances),
            num_speakers=_different(u.speaker for u in utterances),
            licence=str(info.get("licence", "unknown")),
            notes=tuple(map(str, info.get("notes", ()))),
        ),
        full,
        own,
    )


def _of_recipe(path: Path, labels: Sequence[str] | None, intensities: Sequence[str]) -> Labelled:
    """The clips that were kept."""
    rows = read_labels(path)
    kept = [r for r in rows if r.kept and r.label]
    if not kept:
        raise InputError(f"{path / FILE} keeps no clip; run moodal balance with other settings")
    settled = [r.label for r in rows if r.label and r.stage != "screening"]
    duration = _durations(path, kept)
    has_votes = any((path / f"votes{ending}").is_file() for ending in (".csv", ".csv.gz", ".tsv", ".parquet"))
    return _coded(
        Labelled(
            name=path.resolve().name,
            kind="balanced recipe folder",
            classes=in_order([r.label or "" for r in kept]),
            labels=(),
            full=np.zeros(0),
            single={},
            duration_s=duration,
            num_groups=_different(r.group for r in kept),
            num_all=len(rows),
            of_all={name: settled.count(name) / len(settled) for name in dict.fromkeys(settled) if name},
            votes=read_votes(path, labels, intensities) if has_votes else None,
        ),
        [r.label or "" for r in kept],
        {m: [getattr(r, f"label_{m}") for r in kept] for m in MODALITIES},
    )


def _durations(path: Path, kept: Sequence[LabelRow]) -> Array | None:
    if not (path / "clips.parquet").is_file():
        return None
    of = {c.id: c.duration_s for c in read_clips(path)}
    return np.array([of[r.clip] for r in kept]) if all(r.clip in of for r in kept) else None


def _of_votes(votes: Votes) -> Labelled:
    """Clips with one winner among those who saw all of it."""
    if "full" not in votes.conditions:
        raise InputError(f"{votes.name} has no votes on the full clips, to compare the others with")
    found = {c: consensus(votes, c).label for c in votes.conditions}
    keep = found["full"] >= 0
    if not keep.any():
        raise InputError(f"{votes.name}: on no full clip has one label most votes")

    def named(codes: Array) -> list[str | None]:
        return [votes.labels[k] if k >= 0 else None for k in codes[keep].tolist()]

    full = [name or "" for name in named(found["full"])]
    return _coded(
        Labelled(
            name=votes.name,
            kind="votes",
            classes=tuple(e for e in votes.emotions if e in set(full)),
            labels=votes.emotions,
            full=np.zeros(0),
            single={},
            num_groups=_different(g for g, kept in zip(votes.groups, keep.tolist(), strict=True) if kept),
            num_all=len(votes.clips),
            votes=votes,
            notes=votes.notes,
        ),
        full,
        {m: named(found[m]) for m in MODALITIES if m in found},
    )


def _coded(base: Labelled, full: Sequence[str], own: Mapping[str, Sequence[str | None]]) -> Labelled:
    """``base`` with the labels as numbers; modalities that nobody labelled alone are left out."""
    said = {name for values in own.values() for name in values if name}
    labels = (*base.classes, *(name for name in in_order([*said, *base.labels]) if name not in base.classes))
    labels = tuple(name for name in labels if name in base.classes or name in said)
    code = {name: i for i, name in enumerate(labels)}
    single = {m: np.array([code[v] if v else -1 for v in values]) for m, values in own.items() if any(values)}
    return replace(base, labels=labels, full=np.array([code[v] for v in full]), single=single)


def _different(values: Iterable[str | None]) -> int | None:
    return len({v for v in values if v}) or None
