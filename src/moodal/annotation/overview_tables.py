"""The lead's overview as tables and heat maps that a page shows as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moodal.annotation.lead import Overview

EMPTY = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    """A value as it is shown; ``interval`` stands beside it, ``share`` (0 to 1) is how dark it is."""

    text: str
    interval: str = ""
    is_number: bool = False
    flag: str = ""
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    about: str
    columns: tuple[tuple[str, bool], ...]  # name, and whether it holds numbers
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Heat:
    """Row-normalised counts: what was said from the full clip down, from the condition across."""

    title: str
    labels: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


TITLES = {
    "conditions": ("Progress", "Labels given and still to give, and how long one takes."),
    "people": ("People", "Who gave how many, and how fast."),
    "agreement": ("Agreement", "How far independent labels of the same clip are the same, with 95 % intervals."),
    "pairs": ("Pairs of people", "Two people on the clips that both have labelled."),
    "against_others": ("Each person against the others", "Somebody far below the rest reads the task differently."),
    "drift": ("Drift", "Whether somebody's answers change in the course of the work."),
}


def tables_of(overview: Overview) -> list[Table]:
    """Every table of the overview that has rows."""
    found = ((name, getattr(overview, name)) for name in TITLES)
    return [table(*TITLES[name], rows) for name, rows in found if rows]


def table(title: str, about: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rows with the same keys as a table; ``x_low`` and ``x_high`` become the interval of ``x``, low and high that of
    the number before them."""
    names = [n for n in rows[0] if not _is_bound(n)]
    cells = tuple(tuple(_cell(row, name) for name in names) for row in rows)
    is_number = [any(line[i].is_number for line in cells) for i in range(len(names))]
    return Table(title, about, tuple(zip((_words(n) for n in names), is_number, strict=True)), cells)


def _is_bound(name: str) -> bool:
    return name in ("low", "high") or name.endswith(("_low", "_high"))


def _cell(row: Mapping[str, Any], name: str) -> Cell:
    value = row[name]
    low, high = (row.get(f"{name}_{end}") for end in ("low", "high"))
    interval = f"{_text(low)} – {_text(high)}" if low is not None and high is not None else ""
    if isinstance(value, bool):
        return Cell("yes" if value else "no", flag="flag" if value else "")
    return Cell(_text(value), interval, isinstance(value, int | float))


def _text(value: Any) -> str:
    if value is None:
        return EMPTY
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) <= 1 else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _words(name: str) -> str:
    return name.replace("_", " ")
