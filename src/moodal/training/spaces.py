"""Where a search may look: ``spaces.toml``, single lines of which a file of the user's may replace."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from moodal.config import TRAINING_KEYS, TrainingSettings, coerce, split_settings
from moodal.models import MODELS, options_of
from moodal.types import InputError, unknown

SHIPPED = Path(__file__).with_name("spaces.toml")
NETWORKS = "networks"  # the table of what all networks share
# they decide what a trial's score means, or nothing that valid could choose
NOT_SEARCHED = ("select", "refit", "threads")
Value = int | float | str | bool
Tables = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Range:
    """Every number from ``low`` to ``high``; whole numbers when both are."""

    low: int | float
    high: int | float
    log: bool = False

    @property
    def ends(self) -> tuple[Value, ...]:
        return (self.low, self.high)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    choices: tuple[Value, ...]

    @property
    def ends(self) -> tuple[Value, ...]:
        return self.choices

    def __contains__(self, value: object) -> bool:
        return value in self.choices


Space = dict[str, Range | Choice]


def read_spaces(file: Path | None = None) -> dict[str, dict[str, Any]]:
    """The tables below ``[space]``, still as written: the shipped ones with the lines of ``file`` in their place."""
    tables = _tables(SHIPPED)
    for name, lines in {} if file is None else _tables(file).items():
        tables[name] = {**tables.get(name, {}), **lines}
    for name, lines in tables.items():
        if name != NETWORKS and name not in MODELS:
            raise unknown("search space", name, [NETWORKS, *MODELS])
        known = _known(name)
        for key, line in lines.items():
            if key in NOT_SEARCHED:
                raise InputError(f"{key} cannot be searched; give it with --set")
            if key not in known:
                raise unknown(f"setting to search in [space.{name}]", key, known)
            dimension = _dimension(key, line, known[key])  # what is wrong is said before anything is trained
            for end in dimension.ends if key in TRAINING_KEYS else ():
                split_settings({key: end}, {})
    return tables


def space_of(name: str, tables: Tables) -> Space:
    """What is searched for the model ``name``: the lines that hold for it, as far as its name leaves them open."""
    closed_form = MODELS[name].cls.closed_form
    family = next(n for n, entry in MODELS.items() if entry.cls is MODELS[name].cls)
    sources = ([] if closed_form else [NETWORKS]) + list(dict.fromkeys([family, name]))
    known = _known(name)
    lines = {k: line for source in sources for k, line in tables.get(source, {}).items() if k in known}
    return {k: _dimension(k, line, known[k]) for k, line in lines.items()}


def _tables(file: Path) -> dict[str, dict[str, Any]]:
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise InputError(f"{file} is not valid TOML: {e}") from e
    tables = found.pop("space", {})
    if found or not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        raise InputError(f"{file} needs tables like [space.{NETWORKS}] or [space.mre], and nothing beside them")
    return tables


def _known(name: str) -> dict[str, Any]:
    """What could be searched in a table, with the defaults: closed-form models read no training settings."""
    training = {f.name: f.default for f in fields(TrainingSettings)}
    if name == NETWORKS:
        networks = [n for n, entry in MODELS.items() if not entry.cls.closed_form]
        return {**training, **{k: v for n in networks for k, v in options_of(n).items()}}
    return options_of(name) if MODELS[name].cls.closed_form else {**training, **options_of(name)}


def _dimension(key: str, line: Any, default: Any) -> Range | Choice:
    """``line`` in the type of the setting's default."""
    if isinstance(line, dict) and line.keys() == {"choices"} and isinstance(line["choices"], list) and line["choices"]:
        return Choice(tuple(dict.fromkeys(coerce(key, v, default) for v in line["choices"])))
    log = line.get("log", False) if isinstance(line, dict) else None
    if not isinstance(log, bool) or {*line} - {"log"} != {"low", "high"}:
        raise InputError(f"the space of {key} is {{low = ..., high = ...}} or {{choices = [...]}}, got {line!r}")
    if type(default) not in (int, float):
        raise InputError(f"{key} is no number, so its space is {{choices = [...]}}")
    low, high = coerce(key, line["low"], default), coerce(key, line["high"], default)
    if not (-math.inf < low < high < math.inf) or (log and low <= 0):
        wanted = "0 < low < high for a logarithmic scale" if log else "low < high"
        raise InputError(f"the space of {key} needs {wanted}, got {low} and {high}")
    return Range(low, high, log)
