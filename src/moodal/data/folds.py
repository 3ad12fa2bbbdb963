"""Splits and folds that keep groups whole: a speaker or a video belongs to one of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from moodal.data.store import shared_groups
from moodal.types import SPLITS, InputError, Task, Utterance, unknown

FRACTIONS = (0.7, 0.15, 0.15)
GROUP_COLUMNS = ("group", "id", "speaker", "text", "video")  # the fields of Utterance that hold a name


def group_folds(groups: Sequence[str], num_folds: int) -> list[int]:
    """The fold, 0 to ``num_folds - 1``, of each of N utterances, given the group of each; no group is cut.

    The largest group goes first, each onto the fold with the fewest utterances so far; ties go by name.
    """
    sizes = Counter(groups)
    if num_folds < 2:
        raise InputError(f"cross-validation needs two folds or more, got {num_folds}")
    if len(sizes) < num_folds:
        raise InputError(f"{num_folds} folds need as many groups, there are {len(sizes)}; ask for fewer folds")
    filled = [0] * num_folds
    fold_of: dict[str, int] = {}
    for group, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        fold_of[group] = filled.index(min(filled))
        filled[fold_of[group]] += size
    return [fold_of[g] for g in groups]


def group_split(
    groups: Sequence[str], *, fractions: tuple[float, float, float] = FRACTIONS, seed: int = 0
) -> list[str]:
    """train, valid or test for each of N utterances, by whole groups; ``seed`` decides between groups of one size.

    The largest group goes first, each to the split that lacks the most utterances; no split stays empty.
    """
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise InputError(f"the fractions of train, valid and test must be positive and add up to 1, got {fractions}")
    sizes = Counter(groups)
    if len(sizes) < len(SPLITS):
        raise InputError(f"train, valid and test need three groups or more, there are {len(sizes)}")
    names = sorted(sizes)
    shuffled = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    lacking = {s: f * len(groups) for s, f in zip(SPLITS, fractions, strict=True)}
    split_of: dict[str, str] = {}
    for placed, group in enumerate(sorted(shuffled, key=lambda g: -sizes[g])):
        empty = [s for s in SPLITS if s not in split_of.values()]
        open_to = empty if len(names) - placed == len(empty) else SPLITS
        split_of[group] = max(open_to, key=lambda s: lacking[s])
        lacking[split_of[group]] -= sizes[group]
    return [split_of[g] for g in groups]


def with_splits(
    utterances: Sequence[Utterance],
    *,
    folds_by: str | None = None,
    num_folds: int = 5,
    split_by: str | None = None,
    columns: Mapping[str, Sequence[str | None]] | None = None,
    seed: int = 0,
) -> list[Utterance]:
    """The utterances with folds, or a fresh split, by whole groups of a column; unchanged when neither is asked for.

    The column is a field of ``Utterance`` that holds a name, or one of ``columns`` (N values each). It becomes the
    ``group``; where the utterances have groups already, these must stay whole too.
    """
    if folds_by and split_by:
        raise InputError("folds by a column and a split by a column exclude each other; ask for one of them")
    column = folds_by or split_by
    if column is None:
        return list(utterances)
    groups = _column(utterances, column, columns or {})
    if folds_by:
        folds = group_folds(groups, num_folds)
        made = [replace(u, fold=f, split=None, group=g) for u, f, g in zip(utterances, folds, groups, strict=True)]
    else:
        splits = group_split(groups, seed=seed)
        made = [replace(u, fold=None, split=s, group=g) for u, s, g in zip(utterances, splits, groups, strict=True)]
    _refuse_cut_groups(utterances, made, column)
    return made


def split_warnings(utterances: Sequence[Utterance], task: Task) -> list[str]:
    """What is wrong with the splits or folds, a sentence each: groups that sit in two, classes without examples."""
    found = []
    for pair, hit in shared_groups(utterances).items():
        first, later = pair.split("/")
        found.append(
            f"{hit['groups']} of {hit['of']} groups in {later} also occur in {first} ({hit['utterances']} utterances of"
            f" {later}): scores on {later} may be too good; fold or split by group for an honest number"
        )
    folds: dict[str, set[int]] = defaultdict(set)
    for u in utterances:
        if u.group and u.fold is not None:
            folds[u.group].add(u.fold)
    cut = sum(len(f) > 1 for f in folds.values())
    if cut:
        found.append(f"{cut} of {len(folds)} groups are in more than one fold: scores may be too good; fold by group")
    seen: dict[str, set[str | None]] = defaultdict(set)
    for u in utterances:
        if u.split is not None or u.fold is not None:
            seen[u.split or f"fold {u.fold}"].add(u.label)
    for part in sorted(seen):
        absent = [c for c in task.classes if c not in seen[part]]
        if absent:
            found.append(f"{part} has no example of {', '.join(absent)}")
    return found


def _column(utterances: Sequence[Utterance], name: str, columns: Mapping[str, Sequence[str | None]]) -> list[str]:
    if name in columns:
        values = list(columns[name])
    elif name in GROUP_COLUMNS:
        values = [getattr(u, name) for u in utterances]
    else:
        raise unknown("column", name, {*columns, *GROUP_COLUMNS})
    groups = [v for v in values if v]
    if len(groups) < len(utterances):
        lacking = next((u.id for u, v in zip(utterances, values, strict=True) if not v), "")
        raise InputError(f"utterance {lacking} has no {name}; whole groups need one for every utterance")
    return groups


def _refuse_cut_groups(before: Iterable[Utterance], after: Iterable[Utterance], column: str) -> None:
    parts: dict[str, set[str]] = defaultdict(set)
    for old, new in zip(before, after, strict=True):
        if old.group:
            parts[old.group].add(new.split or f"fold {new.fold}")
    for group, where in parts.items():
        if len(where) > 1:
            raise InputError(
                f"dividing by {column} would cut group {group!r} ({' and '.join(sorted(where)[:2])}); divide by group"
            )
