"""Imports the pickle that the field passes around: train, valid and test, each a dictionary of padded arrays.

text, audio, vision (N, T, D); text_bert (N, 3, T) with the mask of real tokens in its second row; audio_lengths and
vision_lengths (N,); regression_labels (N,), per modality with _T, _A, _V; id "video$_$clip"; raw_text.
What the files leave open (padding without lengths, leaking splits) is decided here once, and said.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moodal.data.folds import split_warnings, with_splits
from moodal.data.store import ROWS_PER_GROUP, FeatureSpec, check_utterances, new_dataset
from moodal.data.unpickle import read_pickle, release
from moodal.files import sha256
from moodal.types import MODALITIES, SPLITS, InputError, Task, Utterance, unknown

CLASSES = ("negative", "neutral", "positive")
INTERVALS = (1.0, 3.0)  # half width: CH-SIMS, CMU-MOSI and CMU-MOSEI
NON_FINITE = ("refuse", "zero", "drop_step")
SCALARS = (str, bytes, int, float, np.generic, type(None))
LONGEST_ROW = 8  # an id in parts (video, clip), a label in a row of its own
SUFFIXES = {"text": "T", "audio": "A", "vision": "V"}

Array = npt.NDArray[Any]
Part = Mapping[str, Any]  # one split of the file
log = logging.getLogger(__name__)


def import_mmsa(
    source: Path,
    target: Path,
    *,
    name: str | None = None,
    licence: str = "unknown",
    overwrite: bool = False,
    folds_by: str | None = None,
    num_folds: int = 5,
    split_by: str | None = None,
    non_finite: str = "refuse",
) -> list[str]:
    """Make the data set folder ``target`` from the pickle ``source``; returns what its user should know about it.

    ``non_finite``: what to do with NaN and infinity: refuse, put zero in their place, or drop the step.
    """
    if non_finite not in NON_FINITE:
        raise unknown("way with values that are not finite", non_finite, NON_FINITE)
    parts = _read_parts(source)
    notes = [f"the file has no {split}" for split in SPLITS if split not in parts]
    utterances = [u for split, part in parts.items() for u in _utterances(split, part, notes)]
    task = _task(utterances)
    check_utterances(utterances, task)
    utterances = with_splits(utterances, folds_by=folds_by, num_folds=num_folds, split_by=split_by)
    notes += split_warnings(utterances, task)
    ids = [u.id for u in utterances]
    spans: dict[tuple[str, str], tuple[Array, Array]] = {}
    with new_dataset(target, overwrite=overwrite) as out:
        for m in _modalities(parts):
            for split, part in parts.items():
                spans[split, m] = _span(split, part, m, spans.get((split, "text")), notes)
            spec = FeatureSpec(f"{name or source.stem}-{m}", "imported", m, _dim(parts, m), licence=licence)
            bad: Counter[str] = Counter()
            out.write_features(spec, ids, _clips(parts, ids, m, spans, non_finite, bad))
            notes += [f"{m}: {n} {what}" for what, n in bad.items()]
        out.finish(
            utterances,
            task,
            name=name or source.stem,
            licence=licence,
            source=source.name,
            notes=notes,
            extra={"source_sha256": sha256(source)},
        )
    for note in notes:
        log.warning("%s: %s", source, note)
    return notes


def _read_parts(source: Path) -> dict[str, Part]:
    """The splits of the file in our order, checked: the same keys have as many rows, and features have steps."""
    content = read_pickle(source)
    if not isinstance(content, dict) or not content.keys() or not content.keys() <= set(SPLITS):
        found = ", ".join(str(k) for k in list(content)[:8]) if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{source}: expected a dictionary with train, valid and test, found {found or 'nothing'}")
    parts = {split: content[split] for split in SPLITS if split in content}
    try:
        for split, part in parts.items():
            _check_part(split, part)
        names = {split: _modalities({split: part}) for split, part in parts.items()}
        for split, found_here in names.items():
            if found_here != names[next(iter(parts))] or not found_here:
                raise InputError(
                    f"{split} has features of {found_here or 'no modality'}, expected the same in all splits"
                )
        for m in _modalities(parts):
            _dim(parts, m)
    except InputError as e:
        raise InputError(f"{source}: {e}") from None
    return parts


def _check_part(split: str, part: Part) -> None:
    if not isinstance(part, dict):
        raise InputError(f"{split} is a {type(part).__name__}, expected a dictionary of arrays")
    for key in ("id", _label_key(part)):
        if key not in part:
            raise InputError(f"{split} has no {key!r}; it has {', '.join(sorted(map(str, part)))}")
    num = len(_rows(split, part, "id"))
    for key in (*MODALITIES, "text_bert"):
        x = part.get(key)
        if x is None:
            continue
        if not isinstance(x, np.ndarray) or x.ndim != 3 or x.dtype.kind not in "fiu":
            shape = f"shape {x.shape} of {x.dtype}" if isinstance(x, np.ndarray) else f"a {type(x).__name__}"
            raise InputError(f"{split}/{key} is {shape}, expected numbers (utterances, steps, features)")
        if len(x) != num:
            raise InputError(f"{split} has {num} ids but {len(x)} rows of {key}; they must be as many")
        if key == "text_bert" and x.shape[1] < 2:
            raise InputError(
                f"{split}/{key} has shape {x.shape}, expected ids, mask and segments (utterances, 3, steps)"
            )


def _label_key(part: Part) -> str:
    """Older files call them labels."""
    return "labels" if "labels" in part and "regression_labels" not in part else "regression_labels"


def _modalities(parts: Mapping[str, Part]) -> list[str]:
    return [m for m in MODALITIES if next(iter(parts.values())).get(m) is not None]


def _dim(parts: Mapping[str, Part], m: str) -> int:
    dims = {split: int(part[m].shape[2]) for split, part in parts.items()}
    if len(set(dims.values())) > 1:
        raise InputError(f"{m} has different numbers of features: {dims}")
    return next(iter(dims.values()))


def _utterances(split: str, part: Part, notes: list[str]) -> list[Utterance]:
    ids = ["$_$".join(_string(v) for v in row) for row in _rows(split, part, "id")]
    scores = _numbers(split, part, _label_key(part), len(ids))
    labels = [_class(s) for s in scores]
    texts = (
        [_string(t) for t in _values(split, part, "raw_text", len(ids))] if "raw_text" in part else [None] * len(ids)
    )
    own = {
        m: _numbers(split, part, k, len(ids)) for m in MODALITIES if (k := f"regression_labels_{SUFFIXES[m]}") in part
    }
    notes += _disagreements(split, part, labels)
    made = []
    for i, (name, text, score) in enumerate(zip(ids, texts, scores, strict=True)):
        video = name.split("$_$")[0] if "$_$" in name else None
        known = {m: float(s[i]) for m, s in own.items() if not np.isnan(s[i])}
        made.append(
            Utterance(
                name,
                video=video,
                group=video,
                text=text,
                label=_class(score),
                score=float(score),
                modality_labels={m: _class(s) for m, s in known.items()},
                modality_scores=known,
                split=split,
            )
        )
    return made


def _class(score: float) -> str:
    return CLASSES[int(np.sign(score)) + 1] if np.isfinite(score) else CLASSES[1]  # the score itself will be refused


def _string(value: object) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "replace").decode()  # lone surrogates cannot be stored


def _values(split: str, part: Part, key: str, num: int) -> list[Any]:
    values = [v for row in _rows(split, part, key) for v in row]
    if len(values) != num:
        raise InputError(f"{split} has {num} ids but {len(values)} values of {key}; they must be as many")
    return values


def _rows(split: str, part: Part, key: str) -> list[list[Any]]:
    """What stands for each utterance: a value, or a few. Nothing deeper is looked into: it may have no end."""
    given = part[key]
    if not isinstance(given, list | tuple | np.ndarray) or (isinstance(given, np.ndarray) and not given.ndim):
        raise InputError(f"{split}/{key} is a {type(given).__name__}, expected one value per utterance")
    rows = []
    for i, item in enumerate(given):
        row = item.reshape(-1) if isinstance(item, np.ndarray) else item
        row = list(row) if isinstance(row, list | tuple | np.ndarray) and len(row) <= LONGEST_ROW else [row]
        if not all(isinstance(v, SCALARS) for v in row):
            raise InputError(f"{split}/{key} holds a {type(row[0]).__name__} for utterance {i}, expected one value")
        rows.append(row)
    return rows


def _numbers(split: str, part: Part, key: str, num: int) -> Array:
    """(num,) float64. A float32 0.2 becomes 0.2, not 0.20000000298."""
    try:
        return np.array([float(str(v)) for v in _values(split, part, key, num)])
    except ValueError as e:
        raise InputError(f"{split}/{key} holds something that is not a number: {e}") from e


def _task(utterances: Sequence[Utterance]) -> Task:
    """Three classes by the sign of the score; the interval is the narrowest of the field's that holds all scores."""
    scores = [abs(s) for u in utterances for s in (u.score, *u.modality_scores.values()) if s is not None]
    top = next((top for top in INTERVALS if max(scores, default=0.0) <= top), INTERVALS[-1])
    for u in utterances:
        for score in (u.score, *u.modality_scores.values()):
            if score is None or not abs(score) <= top:
                raise InputError(f"utterance {u.id}: label {score} is out of range; scores go {-top} to {top}")
    return Task(CLASSES, low=-top, high=top)


def _disagreements(split: str, part: Part, labels: Sequence[str]) -> list[str]:
    """Where the file's own classes are not the sign of its scores."""
    notes = []
    for key in ("annotations", "classification_labels"):
        if key not in part:
            continue
        given = [_class_name(v) for v in _values(split, part, key, len(labels))]
        if not set(given) <= set(CLASSES):
            strange = next(v for v in given if v not in CLASSES)
            notes.append(f"{split}/{key} holds {strange!r}, which is none of the three classes; it was not used")
            continue
        differ = sum(a != b for a, b in zip(given, labels, strict=True))
        if differ:
            notes.append(
                f"{split}: {differ} of {len(labels)} {key} disagree with the sign of the score; the sign was kept"
            )
    return notes


def _class_name(value: object) -> str:
    """0, 1.0 and "Positive" as names; anything else as it is."""
    text = _string(value).lower()
    codes = {form: c for i, c in enumerate(CLASSES) for form in (str(i), f"{i}.0")}
    return codes.get(text, text)


def _span(
    split: str, part: Part, m: str, text_span: tuple[Array, Array] | None, notes: list[str]
) -> tuple[Array, Array]:
    """(N,) the first real step of each utterance, and (N,) the number of real steps.

    Rows of zeros decide only where nothing else does: in text they are no sign of padding, since the encoder ran over
    the padded sentence, and in audio and vision they may be silence or a face that was not found.
    """
    num, steps = part[m].shape[:2]
    if m == "text" and part.get("text_bert") is not None:
        starts, lengths = _extent(part["text_bert"][:, 1, :] > 0)
        return np.minimum(starts, steps), np.minimum(lengths, steps - np.minimum(starts, steps))
    if f"{m}_lengths" in part:
        return np.zeros(num, int), _stated_lengths(split, part, m, notes)
    if text_span is not None and steps == part["text"].shape[1]:  # aligned: a step is a word in every modality
        return text_span
    starts, lengths = _extent(_rows_with_content(part[m]))
    left = int((starts > 0).sum())
    notes.append(
        f"{split}/{m} comes without lengths: rows of zeros at the end were taken as padding"
        + (f", and at the start too ({left} utterances)" if left else "")
    )
    return starts, lengths


def _stated_lengths(split: str, part: Part, m: str, notes: list[str]) -> Array:
    num, steps = part[m].shape[:2]
    stated = _numbers(split, part, f"{m}_lengths", num)
    if not np.isfinite(stated).all() or (stated < 0).any():
        raise InputError(f"{split}/{m}_lengths holds {stated[~(stated >= 0)][:1]}; lengths are counts of steps")
    longer = int((stated > steps).sum())
    if longer:
        notes.append(
            f"{split}/{m}: {longer} lengths are beyond the {steps} steps of the file; those clips were cut there"
        )
    lengths: Array = np.minimum(stated, steps).astype(int)
    return lengths


def _extent(real: Array) -> tuple[Array, Array]:
    """real: (N, T) bool -> (N,) first True, and (N,) steps from it to the last True; 0 and 0 where there is none."""
    if not real.shape[1]:
        return np.zeros(len(real), int), np.zeros(len(real), int)
    starts = real.argmax(1)
    ends = real.shape[1] - real[:, ::-1].argmax(1)
    return starts, np.where(real.any(1), ends - starts, 0)


def _rows_with_content(x: Array) -> Array:
    """(N, T) bool: some feature of the step is not zero."""
    real = np.zeros(x.shape[:2], dtype=bool)
    for at in range(0, len(x), ROWS_PER_GROUP):
        real[at : at + ROWS_PER_GROUP] = (x[at : at + ROWS_PER_GROUP] != 0).any(-1)
        release(x)
    return real


def _clips(
    parts: Mapping[str, Part],
    names: Iterable[str],
    m: str,
    spans: Mapping[tuple[str, str], tuple[Array, Array]],
    non_finite: str,
    bad: Counter[str],
) -> Iterator[Array | None]:
    """The real steps of each utterance, (T, D), split after split; None where there are none."""
    ids = iter(names)
    for split, part in parts.items():
        x = part[m]
        starts, lengths = spans[split, m]
        for i, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            if i % ROWS_PER_GROUP == 0:
                release(x)
            clip = _finite(x[i, start : start + length], f"utterance {next(ids)}: {m}", non_finite, bad)
            yield clip if len(clip) else None


def _finite(clip: Array, what: str, how: str, bad: Counter[str]) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        clip = np.asarray(clip, np.float32)
    wrong = ~np.isfinite(clip)
    if not wrong.any():
        return clip
    if how == "refuse":
        step, feature = np.argwhere(wrong)[0]
        raise InputError(
            f"{what} holds {clip[step, feature]} in step {step}; clean the file, or import it with non-finite"
            " zero (0 in its place) or drop_step (without such steps)"
        )
    if how == "zero":
        bad["values that were not finite became 0"] += int(wrong.sum())
        cleaned: Array = np.where(wrong, np.float32(0), clip)
        return cleaned
    bad["steps with values that were not finite were dropped"] += int(wrong.any(1).sum())
    kept: Array = clip[~wrong.any(1)]
    return kept
