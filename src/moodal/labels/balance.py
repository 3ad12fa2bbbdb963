"""The paper's balancing (METHOD.md section 8): from all that was labelled to a set whose classes can be learned.

In this order: clips that did not pass the screening, clips with too few votes, compound and invalid ones, those without
a winner, those that are not sure enough; then the largest classes are kept, and a class may not be larger than its cap.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from moodal.data.clips import Clip, read_clips
from moodal.files import sha256
from moodal.labels.consensus import (
    COMPOUND,
    INVALID,
    NO_VOTES,
    REASONS,
    SMALL_SHARE,
    TIE,
    TOO_FEW,
    Consensus,
    ConsensusSettings,
    consensus,
)
from moodal.labels.table import FILE, LabelRow, write_labels
from moodal.labels.votes import INTENSITIES, Votes, read_votes, votes_file
from moodal.types import MODALITIES, InputError, unknown

STAGES = ("screening", "votes", "compound", "invalid", "majority", "confidence", "classes", "cap")
STAGE_OF = {NO_VOTES: "votes", TOO_FEW: "votes", TIE: "majority", SMALL_SHARE: "majority"}
STAGE_OF |= {COMPOUND: "compound", INVALID: "invalid"}
RULES = ("either", "both", "intensity", "confidence", "none")
PAPER_MULTIPLE = 795 / 1312  # SDME: neutral clips over those of the largest other class; without a cap it was 85.4 %


@dataclass(frozen=True)
class BalanceSettings:
    """``rule``: what makes an emotional clip sure enough: that most people called it strong ("intensity"), that a share
    ``confident`` of their votes went to its label ("confidence"), one of them ("either"), "both", or nothing ("none").
    The class ``neutral`` has no intensity and needs neither; it is cut to ``neutral_multiple`` times the largest other
    class instead (None: not at all). ``caps``: the most clips of a class; for neutral it replaces the multiple.
    """

    num_classes: int = 5
    rule: str = "either"
    confident: float = 0.75
    neutral: str = "neutral"
    neutral_multiple: float | None = PAPER_MULTIPLE
    caps: Mapping[str, int] = field(default_factory=dict)
    min_votes: int = 2
    min_share: float = 0.0
    seed: int = 0
    labels: tuple[str, ...] | None = None
    intensities: tuple[str, ...] = INTENSITIES

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise InputError(f"a data set needs two classes or more, got {self.num_classes}")
        if self.rule not in RULES:
            raise unknown("rule", self.rule, RULES)
        if not 0 <= self.confident <= 1:
            raise InputError(f"confident is a share of votes between 0 and 1, got {self.confident}")
        if self.neutral_multiple is not None and not 0 < self.neutral_multiple < np.inf:
            raise InputError(f"neutral_multiple must be above 0, got {self.neutral_multiple}")
        if self.seed < 0:
            raise InputError(f"seed must be 0 or more, got {self.seed}")
        for name, cap in self.caps.items():
            if cap < 1:
                raise InputError(f"the cap of {name} must be at least 1, got {cap}")

    @property
    def consensus(self) -> ConsensusSettings:
        return ConsensusSettings(self.min_votes, self.min_share)


@dataclass(frozen=True)
class Balance:
    """What was kept. ``funnel``: clips left out by stage; ``classes``: clips labelled, sure, kept, and the cap."""

    path: Path
    clips: int
    kept: int
    groups: int | None
    funnel: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int | None]]
    settings: BalanceSettings
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        plain = {k: v for k, v in vars(self).items() if k not in ("path", "settings")}
        funnel, left = {}, self.clips
        for stage, out in self.funnel.items():
            left -= out
            funnel[stage] = {"left_out": out, "left": left}
        return {"path": str(self.path), **plain, "funnel": funnel, "settings": asdict(self.settings)}

    def lines(self) -> list[str]:
        """The funnel, the classes before and after."""
        from moodal.labels.report_lines import balance_lines

        return balance_lines(self)


def balance(source: Path, settings: BalanceSettings | None = None, *, target: Path | None = None) -> Balance:
    """Write labels.parquet for a recipe folder, or ``target`` for a table of votes; the same seed, the same bytes."""
    s = settings or BalanceSettings()
    if target is None and source.is_file():
        raise InputError(f"{source} is no folder; say which file the labels go to with --out")
    if target is not None and target.suffix.lower() != ".parquet":
        raise InputError(f"{target}: the labels are a Parquet table; give it a name that ends in .parquet")
    votes = read_votes(source, s.labels, s.intensities)
    if target is not None and target.resolve() == votes_file(source).resolve():
        raise InputError(f"{target} holds the votes; give the labels another name")
    _refuse(source, votes, s)
    screened = read_clips(source) if (source / "clips.parquet").is_file() else []
    rows = _with_screening(source, _labelled(votes, s), screened) if screened else _labelled(votes, s)
    rows, caps = _balanced(rows, s)
    path = target or source / FILE
    made_by = {"settings": asdict(s), "votes_sha256": sha256(votes_file(source))}
    write_labels(path, rows, made_by)
    found = _summary(path, rows, caps, s, votes.emotions)
    return found


def _refuse(source: Path, votes: Votes, s: BalanceSettings) -> None:
    if "full" not in votes.conditions:
        raise InputError(f"{source} has no votes on the full clips; a data set is labelled by these")
    for name in s.caps:
        if name not in votes.emotions:
            raise unknown("class", name, votes.emotions)
    if not any((votes.intensity >= 0).tolist()) and s.rule in ("intensity", "both"):
        raise InputError(f"{source}: no vote says an intensity, so the rule {s.rule!r} would keep nothing emotional")


def _labelled(votes: Votes, s: BalanceSettings) -> list[LabelRow]:
    """A row per clip with votes, sorted by name, so that the order of the votes decides nothing."""
    found = {c: consensus(votes, c, s.consensus) for c in votes.conditions}
    full = found["full"]
    names = {m: _names(votes, found[m].label) if m in found else [None] * len(votes.clips) for m in MODALITIES}
    labels = _names(votes, full.label)
    rows = []
    for i in sorted(range(len(votes.clips)), key=lambda i: votes.clips[i]):
        reason = REASONS[full.reason[i]]
        rows.append(
            LabelRow(
                clip=votes.clips[i],
                label=labels[i],
                label_text=names["text"][i],
                label_audio=names["audio"][i],
                label_vision=names["vision"][i],
                intensity=None if full.intensity[i] < 0 else votes.intensities[full.intensity[i]],
                confidence=None if full.label[i] < 0 else float(full.confidence[i]),
                votes=int(full.votes[i]),
                adjudicated=bool(full.adjudicated[i]),
                group=votes.groups[i],
                kept=not reason,
                stage=STAGE_OF.get(reason),
                why=_why(votes, full, i, s) if reason else None,
            )
        )
    return rows


def _names(votes: Votes, codes: Any) -> list[str | None]:
    return [None if code < 0 else votes.labels[code] for code in codes.tolist()]


def _why(votes: Votes, full: Consensus, i: int, s: BalanceSettings) -> str:
    reason, total = REASONS[full.reason[i]], int(full.votes[i])
    if reason == NO_VOTES:
        return "nobody labelled the full clip"
    if reason == TOO_FEW:
        return f"it has {total} vote{'s' if total > 1 else ''} and needs {s.min_votes}"
    if reason == TIE:
        return (
            f"no label has most of its {total} votes" if not full.adjudicated[i] else "those who adjudicated disagree"
        )
    if reason == SMALL_SHARE:
        return f"its label has less than {s.min_share:.0%} of its {total} votes"
    if reason == COMPOUND:
        return "most people saw more than one emotion"
    said = _invalid_reason(votes, i)
    return "most people called it invalid" + (f": {said}" if said else "")


def _invalid_reason(votes: Votes, clip: int) -> str:
    """The reason that most people gave; the first by name of equals."""
    rows = np.flatnonzero((votes.clip == clip) & (votes.reason >= 0))
    given = Counter(" ".join(votes.reasons[code].split()) for code in votes.reason[rows].tolist())
    return min(given, key=lambda r: (-given[r], r), default="")


def _with_screening(folder: Path, labelled: Sequence[LabelRow], clips: Sequence[Clip]) -> list[LabelRow]:
    """One row per clip of clips.parquet, in its order, with its episode as the group."""
    by_name = {row.clip: row for row in labelled}
    known = {c.id for c in clips}
    if strangers := [name for name in by_name if name not in known]:
        raise InputError(
            f"{votes_file(folder)} has votes for {strangers[0]!r}, and clips.parquet has no such clip"
            + (f" (nor {len(strangers) - 1} others)" if len(strangers) > 1 else "")
        )
    empty = LabelRow("", None, None, None, None, None, None, 0, False, None, False, "votes", "nobody labelled it")
    rows = []
    for clip in clips:
        row = replace(by_name.get(clip.id, empty), clip=clip.id, group=clip.episode)
        if not clip.passed:
            why = clip.detail or clip.reason or "it did not pass the screening"
            row = replace(row, kept=False, stage="screening", why=why)
        rows.append(row)
    return rows


def _balanced(rows: Sequence[LabelRow], s: BalanceSettings) -> tuple[list[LabelRow], dict[str, int]]:
    """The rows with what sureness, classes and caps leave out, and the caps that were used."""
    rows = [_leave(r, "confidence", _unsure(r, s)) if r.kept and not _is_sure(r, s) else r for r in rows]
    sizes = Counter(r.label for r in rows if r.kept and r.label)
    largest = sorted(sizes, key=lambda name: (-sizes[name], name))[: s.num_classes]
    why = f"its class is none of the {s.num_classes} largest"
    rows = [_leave(r, "classes", why) if r.kept and r.label not in largest else r for r in rows]
    caps = _caps({name: sizes[name] for name in largest}, s)
    drawn = {name: _drawn(rows, name, cap, s.seed) for name, cap in caps.items() if sizes[name] > cap}
    return [
        _leave(r, "cap", f"{r.label} was cut from {sizes[r.label]} to {caps[r.label]} clips, and it was not drawn")
        if r.kept and r.label in drawn and r.clip not in drawn[r.label]
        else r
        for r in rows
    ], caps


def _leave(row: LabelRow, stage: str, why: str) -> LabelRow:
    return replace(row, kept=False, stage=stage, why=why)


def _is_sure(row: LabelRow, s: BalanceSettings) -> bool:
    if row.label == s.neutral or s.rule == "none":
        return True
    strong = bool(s.intensities) and row.intensity == s.intensities[-1]
    confident = row.confidence is not None and row.confidence >= s.confident
    return {
        "either": strong or confident,
        "both": strong and confident,
        "intensity": strong,
        "confidence": confident,
    }[s.rule]


def _unsure(row: LabelRow, s: BalanceSettings) -> str:
    strongest = s.intensities[-1] if s.intensities else "strong"
    strength = f"not {strongest}"
    share = f"{row.confidence or 0:.0%} of its votes, less than {s.confident:.0%}"
    return {"intensity": f"it is {strength}", "confidence": f"its label has {share}"}.get(
        s.rule,
        f"it is {strength}, or its label has {share}"
        if s.rule == "both"
        else f"it is {strength}, and its label has {share}",
    )


def _caps(sizes: Mapping[str, int], s: BalanceSettings) -> dict[str, int]:
    """The most clips of each class that has such a limit."""
    caps = {name: cap for name, cap in s.caps.items() if name in sizes}
    others = [min(n, caps.get(name, n)) for name, n in sizes.items() if name != s.neutral]
    if s.neutral in sizes and s.neutral not in caps and s.neutral_multiple is not None and others:
        caps[s.neutral] = max(1, round(s.neutral_multiple * max(others)))
    return caps


def _drawn(rows: Iterable[LabelRow], name: str, number: int, seed: int) -> set[str]:
    """``number`` clips of one class, spread over the groups: everyone gives one before anyone gives a second.

    A class has a stream of random numbers of its own, so that another cap elsewhere changes nothing here.
    """
    rng = np.random.default_rng([seed, *name.encode()])
    by_group: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.kept and row.label == name:
            by_group[row.group or row.clip].append(row.clip)
    places = []
    for group in sorted(by_group):
        clips = sorted(by_group[group])
        order = rng.permutation(len(clips))
        places += [(turn, float(rng.random()), clips[k]) for turn, k in enumerate(order.tolist())]
    return {clip for _, _, clip in sorted(places)[:number]}


def _summary(
    path: Path, rows: Sequence[LabelRow], caps: Mapping[str, int], s: BalanceSettings, emotions: Sequence[str]
) -> Balance:
    out = Counter(r.stage for r in rows)
    settled = [r for r in rows if r.label and r.stage != "screening"]
    before, kept = Counter(r.label for r in settled), Counter(r.label for r in rows if r.kept)
    sure = Counter(r.label for r in settled if r.stage != "confidence")
    classes: dict[str, dict[str, int | None]] = {
        name: {"labelled": before[name], "sure": sure[name], "kept": kept[name], "cap": caps.get(name)}
        for name in emotions
        if before[name]
    }
    groups = {r.group for r in rows if r.kept and r.group}
    notes = []
    if len(kept) < s.num_classes:
        there = "only 1 class is" if len(kept) == 1 else f"only {len(kept)} classes are"
        notes.append(f"{there} left, and {s.num_classes} were asked for")
    if not kept:
        notes = ["nothing is left; look at the funnel, and at the settings that left it out"]
    return Balance(
        path,
        len(rows),
        sum(kept.values()),
        len(groups) or None,
        {stage: out[stage] for stage in STAGES},
        classes,
        s,
        tuple(notes),
    )
