"""The lead's overview as cards, tables and heat maps that a page shows as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from moodal.annotation.overview import Overview

EMPTY = "–"
SHOWN = 60  # rows of a table; fifty people are 1225 pairs
SHARES = ("share", "percent")  # columns that are shown in percent
WORDS = {
    "annotator": "who",
    "median_s": "median time (s)",
    "differing": "differ",
    "undecided": "to decide",
    "last_at": "last label (UTC)",
    "active": "open",
    "accepted": "has joined",
    "percent": "agree",
    "alpha": "Krippendorff's α",
    "fleiss": "Fleiss' κ",
    "kappa": "Cohen's κ",
    "first": "one",
    "second": "other",
    "p": "p (Holm)",
    "flagged": "differs",
}
BLOCK = "block_"
HEAT_LEFT, HEAT_TOP, HEAT_W, HEAT_H = 84, 46, 54, 30  # of a heat map's cells, in its own units


@dataclass(frozen=True, slots=True)
class Cell:
    """A value as it is shown; ``low``: its interval, beside it; ``flag``: "bad" where it asks for attention."""

    text: str
    interval: str = ""
    is_number: bool = False
    flag: str = ""
    line: str = ""  # points of a small drawing, in 100 x 24


@dataclass(frozen=True, slots=True)
class Table:
    """``columns``: a name, and whether it holds numbers. ``left_out``: rows beyond those that are shown."""

    title: str
    about: str
    columns: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[Cell, ...], ...]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class HeatCell:
    x: float
    y: float
    share: float
    text: str
    name: str


@dataclass(frozen=True, slots=True)
class Heat:
    """How labels in one condition (down) go together with those in another (across); shares of a row."""

    first: str
    second: str
    rows: tuple[tuple[str, float, int], ...]  # a label, its place, and how many clips
    columns: tuple[tuple[str, float], ...]
    cells: tuple[HeatCell, ...]
    width: float
    height: float


def people_table(overview: Overview) -> Table:
    return _table("People", "Who gave how many labels, and how fast.", overview.people)


def agreement_tables(overview: Overview) -> list[Table]:
    """Those that have rows. Every number has its 95 % interval beside it."""
    found = (
        ("Agreement", "How far independent labels of the same clips are the same.", overview.agreement),
        ("Each person against the others", "How often somebody says what another said of the same clip. Who is far "
         "below the rest reads the task in another way.", overview.against_others),
        ("Pairs of people", "On the clips that both have labelled.", overview.pairs),
    )  # fmt: skip
    return [_table(title, about, rows) for title, about, rows in found if any(row["clips"] for row in rows)]


def drift_table(overview: Overview) -> Table | None:
    """What differs first. The line shows five consecutive fifths of somebody's work."""
    rows = sorted(overview.drift, key=lambda row: (not row["flagged"], row["p"] is None, row["p"]))
    about = (
        "Whether somebody labels otherwise in the second half than in the first, by Holm's correction over all rows. "
        "The line runs over five consecutive fifths of the work."
    )
    return _table("Drift", about, [_with_line(row) for row in rows]) if rows else None


def heats(overview: Overview) -> list[Heat]:
    """The confusion between every two conditions."""
    pairs = groupby(overview.confusion, key=lambda row: (row["first"], row["second"]))
    return [_heat(*pair, list(rows)) for pair, rows in pairs]


def _table(title: str, about: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rows with the same keys. ``x_low`` and ``x_high`` are the interval of ``x``; low and high that of what stands
    before them."""
    keys = list(rows[0]) if rows else []
    names = [n for n in keys if n not in ("low", "high") and not n.endswith(("_low", "_high"))]
    owner = keys[keys.index("low") - 1] if "low" in keys else ""
    cells = tuple(tuple(_cell(row, name, name == owner) for name in names) for row in rows[:SHOWN])
    is_number = [any(line[i].is_number for line in cells) for i in range(len(names))]
    columns = tuple(zip((_words(n) for n in names), is_number, strict=True))
    return Table(title, about, columns, cells, max(0, len(rows) - SHOWN))


def _cell(row: Mapping[str, Any], name: str, is_owner: bool) -> Cell:
    value = row[name]
    if name == "line":
        return Cell("", line=value)
    if isinstance(value, bool):
        bad = value if name == "flagged" else not value
        return Cell("yes" if value else "no", flag="bad" if bad else "")
    if name.endswith("_at") and value:
        return Cell(str(value)[:16].replace("T", " "))  # to the minute, UTC
    low, high = (row.get("low"), row.get("high")) if is_owner else (row.get(f"{name}_low"), row.get(f"{name}_high"))
    in_percent = name in SHARES
    interval = "" if low is None or high is None else f"{_text(low, in_percent)} – {_text(high, in_percent)}"
    return Cell(_text(value, in_percent), interval, isinstance(value, int | float))


def _with_line(row: Mapping[str, Any]) -> dict[str, Any]:
    values = [value for name, value in row.items() if name.startswith(BLOCK)]
    rest = {name: value for name, value in row.items() if not name.startswith(BLOCK)}
    first, last = values[0], values[-1]
    return {**{k: rest[k] for k in ("annotator", "condition", "measure")}, "first fifth": first, "last fifth": last,
            "line": _line(values), "p": rest["p"], "flagged": rest["flagged"]}  # fmt: skip


def _line(values: Sequence[float | None]) -> str:
    """Points from left to right, from the smallest at the bottom to the largest."""
    known = [v for v in values if v is not None]
    if len(known) < 2:
        return ""
    low, span = min(known), (max(known) - min(known)) or 1.0
    step = 96 / (len(values) - 1)
    return " ".join(
        f"{2 + i * step:.1f},{21 - 18 * (v - low) / span:.1f}" for i, v in enumerate(values) if v is not None
    )


def _heat(first: str, second: str, rows: Sequence[Mapping[str, Any]]) -> Heat:
    labels = [name for name in rows[0] if name not in ("first", "second", "label")]
    used = [name for name in labels if any(row[name] for row in rows)]
    cells = []
    for i, row in enumerate(rows):
        total = sum(row[name] for name in used)
        for j, name in enumerate(used):
            share = row[name] / total
            said = f"{first} {row['label']}, {second} {name}: {row[name]} of {total}"
            text = f"{100 * share:.0f}" if row[name] else ""
            cells.append(HeatCell(HEAT_LEFT + j * HEAT_W, HEAT_TOP + i * HEAT_H, share, text, said))
    return Heat(
        first,
        second,
        tuple((r["label"], HEAT_TOP + i * HEAT_H, sum(r[n] for n in used)) for i, r in enumerate(rows)),
        tuple((name, HEAT_LEFT + j * HEAT_W) for j, name in enumerate(used)),
        tuple(cells),
        HEAT_LEFT + len(used) * HEAT_W + 46,
        HEAT_TOP + len(rows) * HEAT_H + 6,
    )


def _text(value: Any, in_percent: bool = False) -> str:
    if value is None:
        return EMPTY
    if isinstance(value, float):
        return f"{100 * value:.1f} %" if in_percent else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _words(name: str) -> str:
    return WORDS.get(name, "" if name == "line" else name.replace("_", " "))
