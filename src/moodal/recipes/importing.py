"""One door for foreign data: picks the importer by format, and the recipe where the file is a known one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moodal.config import parse_assignments, parse_class_names, parse_folds, parse_interval
from moodal.recipes import recognise
from moodal.types import InputError, unknown

FORMATS = {"mmsa": (".pkl", ".pickle"), "npz": (".npz",), "table": (".csv", ".tsv", ".parquet")}


@dataclass(frozen=True)
class ImportOptions:
    """What may be said about an import; None and empty mean not said. One that the format cannot use is refused."""

    format: str | None = None
    name: str | None = None
    licence: str | None = None
    folds_by: str | None = None
    folds: int | None = None
    split_by: str | None = None
    fields: Sequence[str] = ()
    features: Sequence[str] = ()
    class_names: str | None = None
    interval: str | None = None
    non_finite: str | None = None
    protocol: str | None = None
    audio: Path | None = None
    overwrite: bool = False


def import_data(source: Path, target: Path, options: ImportOptions) -> None:
    """Make the data set folder ``target`` from ``source``."""
    if not source.exists():
        raise InputError(f"{source} does not exist")
    kind = options.format or _format_of(source)
    if kind not in FORMATS:
        raise unknown("format", kind, FORMATS)
    if kind == "mmsa":
        _import_mmsa(source, target, options)
    elif kind == "table":
        _import_table(source, target, options)
    else:
        _import_npz(source, target, options)


def _format_of(source: Path) -> str:
    for name, suffixes in FORMATS.items():
        if source.suffix.lower() in suffixes:
            return name
    raise InputError(f"{source}: its name does not tell the format; say --format mmsa, npz or table")


def _import_mmsa(source: Path, target: Path, options: ImportOptions) -> None:
    from moodal.data.mmsa import import_mmsa

    _refuse(options, "a pickle", fields="--field", features="--features", class_names="--classes")
    _refuse(options, "a pickle", interval="--interval", protocol="--protocol", audio="--audio")
    import_mmsa(source, target, **_common(options), non_finite=options.non_finite or "refuse")


def _import_table(source: Path, target: Path, options: ImportOptions) -> None:
    from moodal.data.table import import_table

    _refuse(options, "a table", non_finite="--non-finite", protocol="--protocol", audio="--audio")
    features = {m: Path(p) for m, p in parse_assignments(options.features).items()}
    fields = parse_assignments(options.fields)
    import_table(source, target, features=features, fields=fields, **_labels(options), **_common(options))


def _import_npz(source: Path, target: Path, options: ImportOptions) -> None:
    from moodal.data.npz import import_npz
    from moodal.recipes.mosi import import_mosi
    from moodal.recipes.ravdess import import_ravdess

    recipe = None if options.fields else recognise(source)
    _refuse(options, "an npz file", features="--features", non_finite="--non-finite")
    if recipe is not None:
        _refuse(options, f"{recipe.upper()} (its recipe knows them)", class_names="--classes", interval="--interval")
    if recipe == "ravdess":
        _refuse(options, "RAVDESS", name="--name", split_by="--split-by", protocol="--protocol", licence="--licence")
        if options.folds_by not in (None, "actor", "speaker", "group"):
            raise InputError(f"RAVDESS is folded by actor, not by {options.folds_by!r}; leave --folds-by out")
        import_ravdess(
            source,
            target,
            audio=options.audio,
            folds=6 if options.folds is None else options.folds,
            overwrite=options.overwrite,
        )
    elif recipe == "mosi":
        said = {"name": "--name", "folds_by": "--folds-by", "split_by": "--split-by", "folds": "--folds"}
        _refuse(options, "MOSI (its --protocol decides)", **said, audio="--audio", licence="--licence")
        import_mosi(source, target, protocol=options.protocol or "official", overwrite=options.overwrite)
    else:
        _refuse(options, "an npz file", protocol="--protocol", audio="--audio")
        fields = parse_assignments(options.fields)
        if "class_names" in fields:
            _refuse(options, "a file whose --field class_names holds them", class_names="--classes")
        import_npz(source, target, fields=fields, **_labels(options), **_common(options))


def _labels(options: ImportOptions) -> dict[str, Any]:
    """What whole-number labels count, and where scores may lie."""
    names = None if options.class_names is None else parse_class_names(options.class_names)
    return {"class_names": names, "interval": None if options.interval is None else parse_interval(options.interval)}


def _common(options: ImportOptions) -> dict[str, Any]:
    return {
        "name": options.name,
        "licence": options.licence or "unknown",
        "folds_by": options.folds_by,
        "num_folds": parse_folds(options.folds, options.folds_by),
        "split_by": options.split_by,
        "overwrite": options.overwrite,
    }


def _refuse(options: ImportOptions, what: str, **flags: str) -> None:
    """An option that would be silently ignored is an error."""
    for attribute, flag in flags.items():
        if getattr(options, attribute) not in (None, (), []):
            raise InputError(f"{flag} means nothing for {what}; leave it out")
