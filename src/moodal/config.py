"""Settings: from TOML or KEY=VALUE into frozen dataclasses; an unknown key is an error that names the known ones."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from moodal.types import InputError, unknown


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained. Closed-form models read none of it but ``refit``.

    patience: epochs without a better ``select`` on valid before stopping; select: nll, accuracy or f1_macro for
    classes, loss (the mean absolute error) for scores; ema: decay of the moving average of the weights that is
    validated, kept and tested, 0 for none; refit: after the number of epochs is chosen on valid, train again on
    train + valid for that many; threads: torch's, part of the settings because it can change the last bits.
    """

    epochs: int = 100
    patience: int = 10
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.3
    clip_norm: float = 1.0
    label_smoothing: float = 0.0
    ema: float = 0.0
    select: str = "nll"
    refit: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be above 0 and finite, got {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay must be at least 0 and finite, got {self.weight_decay}")
        for name in ("ema", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if self.select not in ("nll", "accuracy", "f1_macro", "loss"):
            raise unknown("selection criterion", self.select, ("nll", "accuracy", "f1_macro", "loss"))


TRAINING_KEYS = tuple(f.name for f in fields(TrainingSettings))

RECIPE_TABLES = ("screen", "annotate", "balance")  # of a file that has the settings of every step
T = TypeVar("T")

SHIPPED = Path(__file__).with_name("tuned")  # per data set, as moodal tune wrote them


@dataclass(frozen=True)
class Settings:
    """Keys for every model that knows them, and keys for one model by its name."""

    common: Mapping[str, Any] = field(default_factory=dict)
    per_model: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_settings(file: Path | None, assignments: Iterable[str] = ()) -> Settings:
    """A TOML file's keys (a table like ``[mre]`` is for that model alone), overruled by KEY=VALUE assignments.

    In place of a file, a name: the settings that ``moodal tune`` found for that data set and that we ship.
    """
    found: dict[str, Any] = {}
    if file is not None:
        shipped = {p.stem: p for p in sorted(SHIPPED.glob("*.toml"))}
        try:
            found = tomllib.loads(
                (file if file.is_file() else shipped.get(str(file), file)).read_text(encoding="utf-8")
            )
        except FileNotFoundError:
            raise InputError(f"{file} does not exist, and shipped settings are: {', '.join(shipped)}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
            raise InputError(f"{file} is not valid TOML: {e}") from e
    given = parse_assignments(assignments)
    common = {k: v for k, v in found.items() if not isinstance(v, dict)}
    tables = {k: {n: x for n, x in v.items() if n not in given} for k, v in found.items() if isinstance(v, dict)}
    return Settings({**common, **given}, tables)


def parse_assignments(items: Iterable[str]) -> dict[str, str]:
    """``["lr=0.01", "rank=8"]`` -> a dictionary of texts; ``coerce`` gives them types."""
    found: dict[str, str] = {}
    for item in items:
        key, sign, value = item.partition("=")
        if not sign or not key.strip():
            raise InputError(f"need KEY=VALUE, got {item!r}")
        if key.strip() in found:
            raise InputError(f"{key.strip()} is given twice, as {found[key.strip()]} and {value.strip()}; say it once")
        found[key.strip()] = value.strip()
    return found


def parse_class_names(text: str) -> list[str]:
    """``"sad,happy"`` of --classes."""
    names = [c.strip() for c in text.split(",")]
    if "" in names:
        raise InputError(f"--classes needs names with commas between them, got {text!r}")
    return names


def parse_interval(text: str) -> tuple[float, float]:
    """``"-3,3"`` of --interval."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--interval needs two numbers like -3,3, got {text!r}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"--interval needs a lower number before a higher one, got {text!r}")
    return low, high


def parse_folds(folds: int | None, folds_by: str | None) -> int:
    """How many folds: 5 unless said."""
    if folds is not None and not folds_by:
        raise InputError("--folds needs --folds-by COLUMN: folds keep the groups of a column whole")
    return 5 if folds is None else folds


def coerce(key: str, value: Any, default: Any) -> Any:
    """``value`` as the type of the option's default."""
    kind = type(default)
    if kind is bool:
        truth = {
            "true": True,
            "false": False,
            "1": True,
            "0": False,
            "yes": True,
            "no": False,
            "on": True,
            "off": False,
        }
        if str(value).lower() not in truth:
            raise InputError(f"{key} is either true or false, got {value!r}")
        return truth[str(value).lower()]
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    try:
        if isinstance(value, bool) or (kind is int and not isinstance(value, str)):
            raise ValueError  # int(2.5) and float(True) would go through
        return kind(value) if kind in (int, float, str) else value
    except (TypeError, ValueError):
        raise InputError(f"{key} needs a value like {default!r}, got {value!r}") from None


def read_options(kind: type[T], table: str, file: Path | None = None, assignments: Iterable[str] = ()) -> T:
    """A frozen dataclass of options, from a TOML file and KEY=VALUE assignments, which overrule it.

    The file has the keys themselves, or a table ``[table]`` of them beside those of the recipe's other steps.
    """
    if file is not None and not file.is_file():
        raise InputError(f"{file} does not exist; settings are a TOML file with lines like KEY = VALUE")
    found = read_settings(file, assignments)
    for name in found.per_model:
        if name not in RECIPE_TABLES:
            raise unknown(f"table in {file}", name, RECIPE_TABLES)
    given = {**found.per_model.get(table, {}), **found.common}
    hints, defaults = get_type_hints(kind), {f.name: f.default for f in fields(kind)}  # type: ignore[arg-type]
    for key in given:
        if key not in defaults:
            raise unknown("setting", key, defaults)
    return kind(**{key: _of_kind(key, value, hints[key], defaults[key]) for key, value in given.items()})


def _of_kind(key: str, value: Any, hint: Any, default: Any) -> Any:
    """``value`` as what ``hint`` says: None where that is allowed, a tuple of names, or the type of the default."""
    kinds = [k for k in get_args(hint) if k is not type(None)] if type(None) in get_args(hint) else [hint]
    if kinds != [hint] and str(value).lower() == "none":
        return None
    if str(kinds[0]).startswith("tuple"):
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise InputError(f"{key} needs names like a,b,c, got {value!r}")
        return tuple(n.strip() for n in names if n.strip())
    return coerce(key, value, kinds[0]() if default is None else default)


def split_settings(
    given: Mapping[str, Any], options: Mapping[str, Any], base: TrainingSettings | None = None
) -> tuple[dict[str, Any], TrainingSettings]:
    """One flat dictionary -> a model's options and training settings. ``options``: the known ones, with defaults."""
    base = base or TrainingSettings()
    training = {name: getattr(base, name) for name in TRAINING_KEYS}
    chosen: dict[str, Any] = {}
    for key, value in given.items():
        if key in training:
            training[key] = coerce(key, value, training[key])
        elif key in options:
            chosen[key] = coerce(key, value, options[key])
        else:
            raise unknown("setting", key, [*TRAINING_KEYS, *options])
    return chosen, TrainingSettings(**training)
