"""What a careful person looks at before training: counts, leakage, missing and sick features, disagreement, precision.

``inspect_dataset`` measures; ``inspection_text`` says it in words. Nothing is repaired and nothing is decided here.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from moodal.batch import Ragged
from moodal.data.inspection_features import alone, fingerprints, health, lengths
from moodal.data.inspection_text import warnings_of
from moodal.data.store import (
    read_dataset,
    read_info,
    read_utterances,
    shared_groups,
    stated_task,
    stored_modalities,
    verify_files,
)
from moodal.files import read_json
from moodal.types import MODALITIES, SPLITS, Task, Utterance


def inspect_dataset(path: Path) -> dict[str, Any]:
    """Everything below about the data set folder ``path``, as plain JSON values; ``warnings`` are sentences.

    Reads one modality at a time.
    """
    info = read_info(path)
    verify_files(path, info)
    utterances = read_utterances(path)
    task = stated_task(path, info)
    report: dict[str, Any] = {
        "name": info["name"],
        "path": str(path),
        "task": dict(info["task"]),
        "utterances": len(utterances),
        "splits": _in_order(Counter(_part(u) for u in utterances)),
        "unlabelled": sum(not _is_labelled(u, task) for u in utterances),
        "classes": _classes(utterances, task),
        "scores": _scores(utterances),
        "folds": _folds(utterances),
        "baseline": _baseline(utterances, task),
        "precision": _precision(utterances, task),
        "texts": _texts(utterances),
        "agreement": _agreement(utterances, task),
        "leakage": _leakage(utterances),
    }
    for part in ("dims", "extractors", "lengths", "missing", "health", "alone"):
        report[part] = {}
    for m in stored_modalities(info):
        x = read_dataset(path, modalities=[m], verify=False).batch.inputs[m]
        spec = read_json(path / "features" / m / "spec.json")
        report["dims"][m] = x.dim
        report["extractors"][m] = {k: spec.get(k) for k in ("name", "version", "hop_s", "licence")}
        report["lengths"][m] = lengths(x)
        report["missing"][m] = _missing(x, utterances, task)
        report["health"][m] = health(x, spec.get("columns") or [])
        report["alone"][m] = alone(x, utterances, task)
        if copies := _shared(utterances, fingerprints(x)):
            report["leakage"]["features"][m] = copies
    report |= {"licence": info.get("licence", "unknown"), "source": info.get("source", "")}
    report |= {"notes": list(info.get("notes", [])), "bayes_accuracy": _bayes_accuracy(info)}
    report["warnings"] = warnings_of(report)
    return report


# Counting


def _part(u: Utterance) -> str:
    return u.split or "none"


def _is_labelled(u: Utterance, task: Task) -> bool:
    return (u.label if task.classes else u.score) is not None


def _in_order(counts: Counter[str]) -> dict[str, int]:
    return {s: counts[s] for s in (*SPLITS, "none") if counts[s]}


def _classes(utterances: Sequence[Utterance], task: Task) -> dict[str, dict[str, int]]:
    """split -> class -> utterances; empty for a regression task."""
    if not task.classes:
        return {}
    counts = Counter((_part(u), u.label) for u in utterances)
    parts = _in_order(Counter(_part(u) for u in utterances))
    return {s: {c: counts[s, c] for c in task.classes} for s in parts}


def _scores(utterances: Sequence[Utterance]) -> dict[str, dict[str, Any]] | None:
    by_part: dict[str, list[float]] = defaultdict(list)
    for u in utterances:
        if u.score is not None:
            by_part[_part(u)].append(u.score)
    if not by_part:
        return None
    found = {}
    for s in (s for s in (*SPLITS, "none") if s in by_part):
        x = np.array(by_part[s])
        signs = {"negative": int((x < 0).sum()), "zero": int((x == 0).sum()), "positive": int((x > 0).sum())}
        found[s] = {"min": float(x.min()), "mean": float(x.mean()), "max": float(x.max()), "std": float(x.std())}
        found[s] |= signs
    return found


def _folds(utterances: Sequence[Utterance]) -> list[dict[str, Any]] | None:
    numbers = sorted({u.fold for u in utterances if u.fold is not None})
    rows = []
    for k in numbers:
        members = [u for u in utterances if u.fold == k]
        labels = Counter(u.label for u in members if u.label is not None)
        groups = len({u.group for u in members if u.group})
        rows.append({"fold": k, "utterances": len(members), "groups": groups, "classes": dict(sorted(labels.items()))})
    return rows or None


def _baseline(utterances: Sequence[Utterance], task: Task) -> dict[str, Any] | None:
    """What the constant answer learned on train scores on each split; on everything where there is no train."""
    labelled = [u for u in utterances if _is_labelled(u, task)]
    train = [u for u in labelled if u.split == "train"] or labelled
    if not train:
        return None
    parts = {s: [u for u in labelled if _part(u) == s] for s in (*SPLITS, "none")}
    if task.classes:
        answer = Counter(u.label for u in train).most_common(1)[0][0]
        right = {s: _mean([u.label == answer for u in us]) for s, us in parts.items() if us}
        return {"metric": "accuracy", "constant": answer, "splits": right}
    middle = float(np.median([u.score for u in train if u.score is not None]))
    errors = {s: _mean([abs(u.score - middle) for u in us if u.score is not None]) for s, us in parts.items() if us}
    return {"metric": "mae", "constant": middle, "splits": errors}


def _precision(utterances: Sequence[Utterance], task: Task) -> dict[str, Any] | None:
    """How far one accuracy can be believed at this test size.

    interval: half the 95 % interval of an accuracy of .8. difference: what a paired test finds 4 times in 5, where
    two models differ in being right on a fifth of the clips. Both take clips as independent; groups make them wider.
    """
    tested = [u for u in utterances if u.split == "test"] or [u for u in utterances if u.fold is not None]
    n = sum(_is_labelled(u, task) for u in tested)
    if not n:
        return None
    return {
        "utterances": n,
        "groups": len({u.group for u in tested if u.group}) or None,
        "interval": 1.96 * math.sqrt(0.8 * 0.2 / n),
        "difference": (1.96 + 0.84) * math.sqrt(0.2 / n),
    }


def _texts(utterances: Sequence[Utterance]) -> dict[str, Any] | None:
    texts = Counter(t for u in utterances if (t := _plain(u.text)))
    if not texts:
        return None
    text, count = texts.most_common(1)[0]
    return {"present": texts.total(), "distinct": len(texts), "most_common": text, "most_common_count": count}


def _plain(text: str | None) -> str | None:
    return " ".join((text or "").casefold().split()) or None


# Agreement between what people said about each modality


def _agreement(utterances: Sequence[Utterance], task: Task) -> dict[str, Any] | None:
    """None where nobody labelled the modalities. confusion: rows are the utterance's label, columns the modality's."""
    found: dict[str, Any] = {}
    if task.classes and any(u.modality_labels for u in utterances):
        found |= _label_agreement(utterances, task.classes)
    if any(u.modality_scores for u in utterances):
        found["scores"] = _score_agreement(utterances)
    return found or None


def _label_agreement(utterances: Sequence[Utterance], classes: tuple[str, ...]) -> dict[str, Any]:
    code = {c: i for i, c in enumerate(classes)}
    with_label, confusions = {}, {}
    for m in MODALITIES:
        pairs = [(u.label, u.modality_labels[m]) for u in utterances if u.label is not None and m in u.modality_labels]
        if not pairs:
            continue
        confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
        np.add.at(confusion, tuple(np.array([(code[a], code[b]) for a, b in pairs]).T), 1)
        per_class = [_share(confusion[i, i], confusion[i].sum()) for i in range(len(classes))]
        with_label[m] = {
            "labelled": len(pairs),
            "all": _share(confusion.trace(), len(pairs)),
            "classes": dict(zip(classes, per_class, strict=True)),
        }
        confusions[m] = confusion.tolist()
    between = {}
    for a, b in combinations(MODALITIES, 2):
        both = [u.modality_labels for u in utterances if a in u.modality_labels and b in u.modality_labels]
        if both:
            between[f"{a}/{b}"] = _mean([own[a] == own[b] for own in both])
    return {"with_label": with_label, "between": between, "confusion": confusions}


def _score_agreement(utterances: Sequence[Utterance]) -> dict[str, Any]:
    """confusion: signs negative, zero, positive; rows are the utterance's, columns the modality's."""
    found = {}
    for m in MODALITIES:
        pairs = [(u.score, u.modality_scores[m]) for u in utterances if u.score is not None and m in u.modality_scores]
        if pairs:
            x = np.array(pairs)
            varies = len(x) > 1 and bool((x.std(0) > 0).all())
            signs = np.sign(x).astype(np.int64) + 1  # negative, zero, positive
            confusion = np.zeros((3, 3), dtype=np.int64)
            np.add.at(confusion, (signs[:, 0], signs[:, 1]), 1)
            found[m] = {
                "labelled": len(x),
                "same_sign": float(confusion.trace() / len(x)),
                "confusion": confusion.tolist(),
                "correlation": float(np.corrcoef(x.T)[0, 1]) if varies else None,
            }
    return found


# Leakage


def _leakage(utterances: Sequence[Utterance]) -> dict[str, Any]:
    """What two splits share, by kind; {} where they share nothing. Copies of features are added per modality."""
    return {
        "groups": shared_groups(utterances),
        "speakers": _shared(utterances, [u.speaker for u in utterances]),
        "videos": _shared(utterances, [u.video for u in utterances]),
        "texts": _shared(utterances, [_plain(u.text) for u in utterances]),
        "features": {},
        "overlapping_segments": _overlaps(utterances),
        "groups_across_folds": _groups_across_folds(utterances),
    }


def _shared(utterances: Sequence[Utterance], keys: Sequence[str | None]) -> dict[str, dict[str, int]]:
    return shared_groups([replace(u, group=key) for u, key in zip(utterances, keys, strict=True)])


def _overlaps(utterances: Sequence[Utterance]) -> dict[str, int]:
    """Pairs of splits -> pairs of segments of one video that share some time but not the split."""
    found: Counter[str] = Counter()
    by_video: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for u in utterances:
        if u.video and u.split and u.start_s is not None and u.end_s is not None:
            by_video[u.video].append((u.start_s, u.end_s, u.split))
    for segments in by_video.values():
        segments.sort()
        for i, (_, end_s, split) in enumerate(segments):
            for start_s, _, other in segments[i + 1 :]:
                if start_s >= end_s:
                    break
                if other != split:
                    found["/".join(sorted((split, other), key=SPLITS.index))] += 1
    return dict(found)


def _groups_across_folds(utterances: Sequence[Utterance]) -> int:
    folds: dict[str, set[int]] = defaultdict(set)
    for u in utterances:
        if u.group and u.fold is not None:
            folds[u.group].add(u.fold)
    return sum(len(f) > 1 for f in folds.values())


def _missing(x: Ragged, utterances: Sequence[Utterance], task: Task) -> dict[str, Any]:
    """Utterances without a single step of it: in all, per split and per class."""
    absent = (x.lengths == 0).tolist()
    splits = Counter(_part(u) for u, gone in zip(utterances, absent, strict=True) if gone)
    labels = Counter(u.label for u, gone in zip(utterances, absent, strict=True) if gone)
    parts = _in_order(Counter(_part(u) for u in utterances))
    found: dict[str, Any] = {"all": sum(absent), "splits": {s: splits[s] for s in parts}}
    return found | {"classes": {c: labels[c] for c in task.classes}}


def _bayes_accuracy(info: dict[str, Any]) -> float | None:
    """The best any model can do, where the data set is simulated and says so."""
    value = info.get("simulation", {}).get("bayes_accuracy", {}).get("test")
    return None if value is None else float(value)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
