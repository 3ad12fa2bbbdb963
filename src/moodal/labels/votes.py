"""Who said what about which clip: a table of votes, as arrays, from our own columns or from CREMA-D's counts.

A VOTES TABLE has one row per vote and the columns clip, condition, annotator, label; where people are not known, count
says how many votes a row stands for. Optional: intensity, reason, seconds, round; further columns are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from moodal.labels.cells import ENDINGS, MAX_ROWS, codes, floats, known, read_table, refuse_where
from moodal.types import MODALITIES, InputError, unknown

CONDITIONS = (*MODALITIES, "full")  # what people were shown
EMOTIONS = ("neutral", "happy", "sad", "angry", "anxious", "surprised", "fearful", "disgusted")
SPECIAL = ("compound", "invalid")  # more than one emotion; nothing that can be labelled
INTENSITIES = ("weak", "strong")  # in order
ROUNDS = ("qualification", "main", "adjudication")
NEEDED = ("clip", "condition", "label")
OPTIONAL = ("annotator", "intensity", "reason", "seconds", "round", "count")
MAX_LABELS = 60  # with more, somebody has put something else into that column

# CREMA-D's tabulatedVotes.csv: one column of counts per emotion, the row id's first digit says what was shown
CREMA_D = {"N": "neutral", "H": "happy", "S": "sad", "A": "angry", "F": "fearful", "D": "disgusted"}
CREMA_D_SHOWN = {"1": "audio", "2": "vision", "3": "full"}
CREMA_D_COLUMNS = (*CREMA_D, "fileName", "numResponses")

NUMBERS = ("seconds", "count", *CREMA_D, "numResponses")
WORDS = (*(c for c in (*NEEDED, *OPTIONAL) if c not in NUMBERS), "fileName", "")

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Votes:
    """Row i: ``count[i]`` votes of one kind. Codes point into the names; -1 is not known. V rows.

    ``labels``: emotions first, then the special answers; ``annotators`` is empty where nobody's name is known.
    ``groups``: of each clip (its episode, its actor), what it shares with others; None where that is not known.
    """

    name: str
    clips: tuple[str, ...]
    labels: tuple[str, ...]
    annotators: tuple[str, ...]
    intensities: tuple[str, ...]
    reasons: tuple[str, ...]
    groups: tuple[str | None, ...]
    clip: Array  # (V,)
    condition: Array  # (V,) into CONDITIONS
    annotator: Array  # (V,)
    label: Array  # (V,)
    intensity: Array  # (V,)
    reason: Array  # (V,)
    seconds: Array  # (V,) float, NaN
    round: Array  # (V,) into ROUNDS
    count: Array  # (V,)
    notes: tuple[str, ...] = ()

    @property
    def conditions(self) -> tuple[str, ...]:
        """Those that have votes, in order."""
        there = set(np.unique(self.condition).tolist())
        return tuple(c for i, c in enumerate(CONDITIONS) if i in there)

    @property
    def emotions(self) -> tuple[str, ...]:
        return tuple(label for label in self.labels if label not in SPECIAL)

    def where(self, condition: str, rounds: Sequence[str] = ("main",)) -> Array:
        """(n,) rows of one condition in these rounds."""
        in_rounds = np.isin(self.round, [ROUNDS.index(r) for r in rounds])
        return np.flatnonzero((self.condition == CONDITIONS.index(condition)) & in_rounds)

    def counts(self, condition: str, rounds: Sequence[str] = ("main",)) -> Array:
        """(clips, labels) votes."""
        rows = self.where(condition, rounds)
        return tally(self.clip[rows], self.label[rows], self.count[rows], (len(self.clips), len(self.labels)))


def tally(row: Array, column: Array, count: Array, shape: tuple[int, int]) -> Array:
    """A table of ``shape`` whose cell (row, column) holds the sum of its counts."""
    cells = row.astype(np.int64) * shape[1] + column
    return np.bincount(cells, weights=count, minlength=shape[0] * shape[1]).reshape(shape).astype(np.int64)


def read_votes(source: Path, labels: Sequence[str] | None = None, intensities: Sequence[str] = INTENSITIES) -> Votes:
    """The votes in ``source``: a VOTES TABLE, a recipe folder (its votes.csv), or CREMA-D's tabulatedVotes.

    ``labels``: every label that may occur, in order (the special answers besides them). Without it, a table that mostly
    speaks of the paper's emotions may hold no others, and any other table may hold what it does.
    """
    source, name = votes_file(source), source.resolve().name
    table = read_table(source, WORDS, NUMBERS)
    is_crema = all(c in table.column_names for c in CREMA_D_COLUMNS)
    if is_crema and any(c in table.column_names for c in NEEDED):
        raise InputError(f"{source} has columns of a votes table and of CREMA-D's tabulated votes; keep one of the two")
    if not table.num_rows:
        raise InputError(f"{source} holds no votes")
    return _crema_d(source, table) if is_crema else replace(_long_form(source, table, labels, intensities), name=name)


def votes_file(source: Path) -> Path:
    """The table of votes that ``source`` is, or that a recipe folder, or CREMA-D's, holds."""
    if not source.exists():
        raise InputError(f"{source} does not exist")
    if not source.is_dir():
        return source
    # a labelling project's own first, as moodal agreement and balance write it; the second name is CREMA-D's
    names = [f"{name}{ending}" for name in ("votes", "tabulatedVotes") for ending in ENDINGS]
    found = [source / name for name in ("votes.parquet", *names) if (source / name).is_file()]
    if found:
        return found[0]
    if (source / "annotation.sqlite").is_file():
        raise InputError(
            f"{source} has a labelling project and no table of votes; write it: "
            f"moodal annotate {source} --export {source / 'votes.parquet'}"
        )
    raise InputError(f"{source} has no votes.csv; have its clips labelled with: moodal annotate {source}")


def _long_form(source: Path, table: pa.Table, labels: Sequence[str] | None, intensities: Sequence[str]) -> Votes:
    missing = [c for c in NEEDED if c not in table.column_names]
    if missing or not {"annotator", "count"} & set(table.column_names):
        lacking = missing[0] if missing else "annotator"
        raise InputError(f"{source} has no column {lacking!r}; it has {', '.join(map(repr, table.column_names))}")
    coded = {c: codes(source, table, c, free=c == "reason") for c in table.column_names if c not in NUMBERS}
    for c in NEEDED:
        refuse_where(source, coded[c][0] < 0, f"has no {c}")
    condition = known(source, "condition", coded["condition"], CONDITIONS)
    round_ = known(source, "round", coded["round"], ROUNDS) if "round" in coded else np.full(table.num_rows, -1)
    names = _label_set(source, coded["label"], labels)
    nothing = (np.full(table.num_rows, -1), ())
    strength = known(source, "intensity", coded.get("intensity", nothing), intensities)
    annotator, people = coded.get("annotator", nothing)
    count = _whole_counts(source, table)
    if (annotator >= 0).any():
        refuse_where(source, annotator < 0, "names no annotator, and other rows do; name all of them or none")
        refuse_where(source, count != 1, "stands for another number of votes than one, and names an annotator")
    clips = coded["clip"][1]
    votes = Votes(
        name=source.name,
        clips=clips,
        labels=names,
        annotators=people,
        intensities=tuple(intensities),
        reasons=coded.get("reason", nothing)[1],
        groups=(None,) * len(clips),
        clip=coded["clip"][0],
        condition=condition,
        annotator=annotator,
        label=known(source, "label", coded["label"], names),
        intensity=strength,
        reason=coded.get("reason", nothing)[0],
        seconds=floats(table, "seconds"),
        round=np.where(round_ < 0, ROUNDS.index("main"), round_),
        count=count,
    )
    _refuse_twice(source, votes)
    return votes


def _label_set(source: Path, coded: tuple[Array, Sequence[str]], labels: Sequence[str] | None) -> tuple[str, ...]:
    """Emotions, then those special answers that were given."""
    found = [name for name in coded[1] if name not in SPECIAL]
    special = tuple(s for s in SPECIAL if s in coded[1])
    if len(found) > MAX_LABELS:
        raise InputError(
            f"{source} has {len(found):,} different labels, {found[0]!r} to {found[-1]!r}; are they labels?"
        )
    if labels is not None:
        emotions = [name for name in labels if name not in SPECIAL]
        if len(set(emotions)) < len(emotions) or not emotions:
            raise InputError(f"the labels that may occur are different names, got {', '.join(labels)}")
        return (*emotions, *special)
    of_the_paper = [name for name in EMOTIONS if name in found]
    strangers = [name for name in found if name not in EMOTIONS]
    if strangers and len(of_the_paper) > len(strangers):
        row = int(np.flatnonzero(coded[0] == coded[1].index(strangers[0]))[0])
        said = unknown("label", strangers[0], (*EMOTIONS, *SPECIAL))
        raise InputError(f"{source}: row {row + 1}: {said}; say which labels may occur with --labels if it is meant")
    return (*of_the_paper, *sorted(strangers), *special)


def _whole_counts(source: Path, table: pa.Table) -> Array:
    if "count" not in table.column_names:
        return np.ones(table.num_rows, dtype=np.int64)
    count = floats(table, "count")
    count = np.where(np.isnan(count), 1.0, count)
    refuse_where(source, count < 0, "has a negative count")
    refuse_where(source, (count != np.floor(count)) | (count > MAX_ROWS), "has a count that is no number of votes")
    return count.astype(np.int64)


def _refuse_twice(source: Path, v: Votes) -> None:
    """A person has one vote for what they were shown; gold clips may be answered again."""
    if not v.annotators:
        return
    rows = np.flatnonzero(v.round != ROUNDS.index("qualification"))
    keys = np.stack([v.clip, v.condition, v.annotator, v.round])[:, rows]
    order = np.lexsort(keys)
    same = (keys[:, order[1:]] == keys[:, order[:-1]]).all(0)
    if same.any():
        pair = sorted(rows[order[np.flatnonzero(same)[0] + np.array([0, 1])]].tolist())
        who, clip = v.annotators[v.annotator[pair[0]]], v.clips[v.clip[pair[0]]]
        shown = CONDITIONS[v.condition[pair[0]]]
        raise InputError(
            f"{source}: row {pair[1] + 1}: {who} votes for {clip} in {shown} again (row {pair[0] + 1}); keep one vote"
        )


def _crema_d(source: Path, table: pa.Table) -> Votes:
    """Counts of three conditions, no people; an actor's clips are one group."""
    first = next((c for c in table.column_names if c not in CREMA_D_COLUMNS), None)
    if first is None:
        raise InputError(
            f"{source} has no column of row ids, whose first digit says what was shown (1 voice, 2 face, 3)"
        )
    ids = pc.utf8_slice_codeunits(pc.cast(table[first], pa.string()), 0, 1)
    shown = codes(source, pa.table({"row": ids}), "row")
    refuse_where(source, shown[0] < 0, "has no row id")
    names = [CREMA_D_SHOWN.get(digit, f"row id {digit}...") for digit in shown[1]]
    condition = known(source, "condition", (shown[0], names), CONDITIONS)
    clip, clips = codes(source, table, "fileName")
    refuse_where(source, clip < 0, "has no fileName")
    counts = np.stack([floats(table, letter) for letter in CREMA_D], axis=1)
    refuse_where(source, (counts < 0).any(1), "has a negative count")
    wrong = (counts != np.floor(counts)) | (counts > MAX_ROWS)
    refuse_where(source, wrong.any(1), "has a count that is no number of votes")
    off = counts.sum(1) != floats(table, "numResponses")
    refuse_where(source, off, "has votes that do not add up to numResponses")
    pairs = clip * len(CONDITIONS) + condition
    again = np.ones(len(pairs), bool)
    again[np.unique(pairs, return_index=True)[1]] = False
    refuse_where(source, again, "has the votes of a clip and a condition that stood there before")
    row, label = np.nonzero(counts)
    return Votes(
        name="CREMA-D",
        clips=clips,
        labels=tuple(CREMA_D.values()),
        annotators=(),
        intensities=INTENSITIES,
        reasons=(),
        groups=tuple(name.split("_")[0] for name in clips),
        clip=clip[row],
        condition=condition[row],
        annotator=np.full(len(row), -1),
        label=label,
        intensity=np.full(len(row), -1),
        reason=np.full(len(row), -1),
        seconds=np.full(len(row), np.nan),
        round=np.full(len(row), ROUNDS.index("main")),
        count=counts[row, label].astype(np.int64),
        notes=("Counts of CREMA-D's voters, who are not named; voice is audio, face is vision, both is full.",),
    )
