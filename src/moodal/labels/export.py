"""A balanced recipe folder becomes a data set folder: its kept clips, their labels, and features of the raw videos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from moodal.data.clips import changed_videos, read_clips, recipe_videos, there_are_videos
from moodal.data.store import COLUMNS, MORE_COLUMNS
from moodal.extraction.extract import Extraction, Options, extract_media
from moodal.files import write_atomic
from moodal.labels.labelled import in_order
from moodal.labels.table import FILE, read_labels
from moodal.types import MODALITIES, SPLITS, InputError

GROUP = "group"  # an episode: whole in one split
WRITTEN = ("id", "video", "start_s", "end_s", "text", "speaker", "label", *(f"label_{m}" for m in MODALITIES))
TABLE_COLUMNS = (*WRITTEN, "intensity", GROUP)
ENDINGS = (".csv", ".tsv", ".parquet")

OnChange = Callable[[int, int, str], None]


@dataclass(frozen=True)
class ExportOptions:
    """``extractors``: by modality, as ``moodal extract`` takes them. ``num_folds``: cross-validation instead of a
    split. ``labels_only``: write the table of utterances to this file, and no features."""

    extractors: Mapping[str, str] = field(default_factory=dict)
    num_folds: int | None = None
    labels_only: Path | None = None
    name: str | None = None
    licence: str = "unknown"
    workers: int | None = None
    limit_s: float | None = None
    retry: bool = False
    overwrite: bool = False
    asr: str = ""


@dataclass(frozen=True)
class Export:
    """``path``: the data set, or the table. ``extraction``: how the features went; None with ``labels_only``."""

    path: Path
    utterances: int
    classes: Mapping[str, int]
    groups: int
    extraction: Extraction | None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "path": str(self.path),
            "utterances": self.utterances,
            "classes": dict(self.classes),
            "groups": self.groups,
            "notes": list(self.notes),
            "extraction": self.extraction.as_dict() if self.extraction else None,
        }

    def lines(self) -> list[str]:
        """What is there."""
        sizes = ", ".join(f"{name} {n:,}" for name, n in self.classes.items())
        said = [f"{self.path}: {self.utterances:,} utterances of {self.groups:,} episodes: {sizes}"]
        if self.extraction:
            said.append(self.extraction.problem or self.extraction.sentence())
        return [*said, *(f"note: {note}" for note in self.notes)]


def export_dataset(
    folder: Path, target: Path | None, options: ExportOptions, on_change: OnChange | None = None
) -> Export:
    """The kept clips of ``folder`` as the data set folder ``target``; resumable, with a ledger, like ``extract_media``.

    After another ``moodal balance`` it replaces the data set, and extracts those videos anew whose kept clips changed.
    """
    columns, notes = utterance_columns(folder)
    sizes = Counter(columns["label"])
    classes = {name: sizes[name] for name in in_order(list(sizes))}
    groups = len(set(columns[GROUP]))
    num = len(columns["id"])
    if options.labels_only:
        _write_table(options.labels_only, columns)
        return Export(options.labels_only, num, classes, groups, None, tuple(notes))
    if target is None:
        raise InputError("say which data set folder to make, or which file the labels alone go to (--labels-only)")
    _refuse_to_replace(folder, target)
    _refuse_few_groups(groups, options.num_folds)
    _refuse_other_videos(folder, columns["video"])
    table = folder / "utterances.parquet"  # here, so that a data set of another folder is not taken for an earlier one
    _write_table(table, columns)
    extraction = extract_media(table, target, _extraction_options(folder, options, list(classes)), on_change=on_change)
    return Export(target, num, classes, groups, extraction, (*notes, *extraction.notes))


def _extraction_options(folder: Path, options: ExportOptions, classes: Sequence[str]) -> Options:
    return Options(
        extractors=options.extractors,
        workers=options.workers,
        limit_s=options.limit_s,
        retry=options.retry,
        name=options.name or folder.resolve().name,
        licence=options.licence,
        class_names=classes,
        folds_by=GROUP if options.num_folds else None,
        num_folds=options.num_folds or 5,
        split_by=None if options.num_folds else GROUP,
        overwrite=options.overwrite,
        asr=options.asr,
        root=recipe_videos(folder),
    )


def utterance_columns(folder: Path) -> tuple[dict[str, list[Any]], list[str]]:
    """The table of utterances by column, and what its user should know. ``video`` is relative to the recipe's videos.

    A label of a single modality that is no class of the data set is left empty: nothing can be trained on it.
    """
    clips = {c.id: c for c in read_clips(folder)}
    kept = [r for r in read_labels(folder) if r.kept]
    if not kept:
        raise InputError(f"{folder / FILE} keeps no clip; run moodal balance with other settings")
    if lost := [r.clip for r in kept if r.clip not in clips]:
        raise InputError(
            f"{folder / FILE} names {lost[0]!r}, which clips.parquet has not; run: moodal balance {folder}"
        )
    classes = {r.label for r in kept}
    rows, strange = [], Counter[str]()
    for r in kept:
        clip = clips[r.clip]
        own = {m: getattr(r, f"label_{m}") for m in MODALITIES}
        strange.update(m for m, label in own.items() if label is not None and label not in classes)
        known = {f"label_{m}": label for m, label in own.items() if label in classes}
        place = {"video": clip.video, "start_s": clip.start_s, "end_s": clip.end_s, "text": clip.text}
        who = {"speaker": clip.speaker, GROUP: clip.episode}
        rows.append({"id": r.clip, **place, **who, "label": r.label, **known, "intensity": r.intensity})
    columns = {c: [row.get(c) for row in rows] for c in TABLE_COLUMNS}
    notes = [f"labels of {m} alone that are none of the classes, left empty: {n}" for m, n in strange.items()]
    return {c: values for c, values in columns.items() if any(v is not None for v in values)}, notes


def _refuse_to_replace(folder: Path, target: Path) -> None:
    """``--overwrite`` would remove what the data set is made of."""
    for what, path in (("the recipe", folder), ("its videos", recipe_videos(folder))):
        if path.resolve().is_relative_to(target.resolve()):
            raise InputError(f"{target} holds {what}; choose another folder for the data set")


def _refuse_other_videos(folder: Path, names: Sequence[str]) -> None:
    """People labelled what was to be seen at these times of the files that were screened, and of no others."""
    changed = changed_videos(folder / "clips.parquet", videos := there_are_videos(folder), names)
    if changed:
        more = f", and {len(changed) - 1} more are" if len(changed) > 1 else ""
        raise InputError(
            f"{videos / changed[0]} is another file now than the one that was screened and labelled{more}; bring it "
            "back, or begin a new recipe folder"
        )


def _refuse_few_groups(groups: int, num_folds: int | None) -> None:
    """Said before hours of work, with the way out."""
    if num_folds is not None:
        if not 2 <= num_folds <= groups:
            raise InputError(f"folds keep episodes whole, so with {groups} of them there can be 2 to {groups} folds")
    elif groups == 1:
        raise InputError("all clips are of one episode, which cannot be divided; label clips of another one too")
    elif groups < len(SPLITS):
        raise InputError(
            f"train, valid and test need an episode each, and the clips are of {groups}; ask for --folds {groups}"
        )


def _write_table(path: Path, columns: Mapping[str, list[Any]]) -> None:
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{path}: a table ends in {', '.join(ENDINGS)}")
    types = {f.name: f.type for f in (*COLUMNS, *MORE_COLUMNS)}
    table = pa.table({c: pa.array(values, types[c]) for c, values in columns.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".parquet":
        write_atomic(path, lambda partial: pq.write_table(table, partial, compression="zstd"))
    else:
        options = pa.csv.WriteOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ",", quoting_style="needed")
        write_atomic(path, lambda partial: pa.csv.write_csv(table, partial, options))
