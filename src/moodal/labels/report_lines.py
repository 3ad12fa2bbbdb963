"""The agreement report in words and columns, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from moodal.labels.balance import Balance
from moodal.labels.estimates import Estimate
from moodal.labels.people import MIN_SHARED
from moodal.labels.report import AgreementReport, Between, ConditionAgreement, Follows
from moodal.labels.votes import SPECIAL

MAX_PEOPLE_SHOWN = 40


def report_lines(r: AgreementReport) -> list[str]:
    """Blocks with an empty line between."""
    blocks = [_head(r), _conditions(r), _people(r), _between(r), _confusions(r), _follows(r), _consistency(r)]
    lines = [line for block in blocks if block for line in (*block, "")]
    return [*lines, *(f"note: {note}" for note in r.notes)] if r.notes else lines[:-1]


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Columns of text, the first ``left`` of them flush left, the others flush right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  ".join(
            c.ljust(w) if k < left else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def fraction(value: float | None) -> str:
    """.731, 1.000, -.042; a dash where there is none."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3f}"


def span(e: Estimate | None) -> str:
    """.731 [.720, .742]"""
    if e is None or math.isnan(e.value):
        return "-"
    return fraction(e.value) + ("" if math.isnan(e.low) else f" [{fraction(e.low)}, {fraction(e.high)}]")


def _head(r: AgreementReport) -> list[str]:
    o, votes = r.options, sum(c.votes for c in r.conditions)
    return [
        f"{r.name}: {votes:,} votes, labels {', '.join(r.labels)}",
        f"intervals: {o.confidence:.0%}, shares by Wilson, the others from {o.samples:,} resamples of the clips",
    ]


def _conditions(r: AgreementReport) -> list[str]:
    rows = [
        ["condition", "clips", "votes", "people", "one winner", "unanimous", "two agree", "alpha", "Fleiss", "Cohen"]
    ]
    rows += [_condition(c) for c in r.conditions]
    lines = aligned(rows)
    if any(c.fleiss_is != "Fleiss" for c in r.conditions):
        lines.append("Fleiss: Gwet's generalisation, as clips have different numbers of votes")
    if any(c.cohen for c in r.conditions):
        pairs = ", ".join(f"{c.cohen_pairs} in {c.condition}" for c in r.conditions)
        lines.append(f"Cohen: the mean over pairs of people who share {MIN_SHARED} clips or more: {pairs}")
    if special := [s for s in SPECIAL if s in r.labels]:
        lines.append(f"{' and '.join(special)} count as labels like the others")
    for c in (c for c in r.conditions if c.intensity):
        lines.append(f"intensity in {c.condition}: ordinal alpha {span(c.intensity)} on {c.intensity_units:,} clips")
    return lines


def _condition(c: ConditionAgreement) -> list[str]:
    people = "unknown" if c.people is None else f"{c.people:,}"
    counts = [f"{c.clips:,}", f"{c.votes:,}", people, f"{c.one_winner:,}", f"{c.unanimous:,}"]
    return [c.condition, *counts, *(span(e) for e in (c.percent, c.alpha, c.fleiss, c.cohen))]


def _people(r: AgreementReport) -> list[str]:
    if not r.people:
        return []
    rows = [["annotator", "condition", "votes", "with others", "agrees", "kappa"]]
    lowest = sorted(r.people, key=lambda p: (math.isnan(p.kappa.value), p.kappa.value, p.annotator, p.condition))
    for p in lowest[:MAX_PEOPLE_SHOWN]:
        rows.append([p.annotator, p.condition, f"{p.votes:,}", f"{p.shared:,}", span(p.percent), span(p.kappa)])
    left_out = len(lowest) - MAX_PEOPLE_SHOWN
    more = [f"and {left_out} more, who agree more"] if left_out > 0 else []
    return ["each person against the others, least agreement first", *aligned(rows, left=2), *more]


def _between(r: AgreementReport) -> list[str]:
    if not r.between:
        return []
    rows = [["conditions", "one winner in both", "same", "share"], *(_pair(b) for b in r.between)]
    lines = aligned(rows)
    if len(r.conditions) > 2:
        lines += [f"of the {r.in_all:,} clips with one winner in every condition:"]
        lines += aligned([_pair(b) for b in r.between_all])
    return lines


def _pair(b: Between) -> list[str]:
    return [f"{b.first} = {b.second}", f"{b.clips:,}", f"{b.same:,}", span(b.share)]


def _confusions(r: AgreementReport) -> list[str]:
    lines: list[str] = []
    for b in r.between:
        if b.second != "full" or not b.clips:
            continue
        rows = [["full \\ " + b.first, *r.labels]]
        for i, label in enumerate(r.labels):
            row = [b.confusion[k][i] for k in range(len(r.labels))]
            rows.append([label, *(fraction(n / sum(row)) if sum(row) else "-" for n in row)])
        lines += [*([""] if lines else []), *aligned(rows)]
    return lines


def _follows(r: AgreementReport) -> list[str]:
    return [_whom(f) for f in r.follows if f.clips]


def _whom(f: Follows) -> str:
    return (
        f"where {f.first} and {f.second} disagree ({f.clips:,} clips) full follows {f.second} "
        f"{span(f.share_second)}, {f.first} {span(f.share_first)}, neither {fraction(f.as_neither / f.clips)}"
    )


def _consistency(r: AgreementReport) -> list[str]:
    c = r.consistency
    if not c.units:
        return []
    said = f"all agree on {c.at_first:,} of {c.units:,} clips and conditions {span(c.share_at_first)}"
    if not c.adjudicated:
        return [f"{said}; nothing was adjudicated"]
    return [f"{said}; after adjudication of {c.adjudicated:,} on {c.final:,} {span(c.share)} (final consistency)"]


def balance_lines(b: Balance) -> list[str]:
    """The funnel, then the classes."""
    left, rows = b.clips, [["stage", "left out", "left"], ["clips", "", f"{b.clips:,}"]]
    for stage, out in b.funnel.items():
        left -= out
        if out:
            rows.append([stage, f"{out:,}", f"{left:,}"])
    table = [["class", "labelled", "sure", "kept", "share", "cap"]]
    for name, of in b.classes.items():
        share = f"{(of['kept'] or 0) / b.kept:.1%}" if b.kept else "-"
        cap = "" if of["cap"] is None else f"{of['cap']:,}"
        table.append([name, f"{of['labelled']:,}", f"{of['sure']:,}", f"{of['kept']:,}", share, cap])
    where = f" from {b.groups:,} groups" if b.groups else ""
    said = f"{b.path}: {b.kept:,} of {b.clips:,} clips{where}"
    classes = [*aligned(table), ""] if b.classes else []
    return [*aligned(rows), "", *classes, said, *(f"note: {note}" for note in b.notes)]
