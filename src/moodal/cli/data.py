"""Commands that make a data set folder and look into it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moodal.cli.app import Asr, Json, Overwrite, app, print_json
from moodal.types import InputError, WorkError


@app.command()
def simulate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The data set folder to make.")],
    clips: Annotated[int, typer.Option(help="How many clips; 3667 has exactly the counts of SDME's table.")] = 3667,
    seed: Annotated[int, typer.Option(help="Another seed, another data set.")] = 0,
    difficulty: Annotated[float, typer.Option(help="Multiplies the noise; 1 gives a Bayes limit of .87 to .90.")] = 1.0,
    hard: Annotated[bool, typer.Option("--hard", help="The same as --difficulty 1.5.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Simulate SDME: its class counts and agreement rates, with the exact posterior of every clip beside it."""
    from moodal.data.simulate import simulate_sdme

    summary = simulate_sdme(folder, clips=clips, seed=seed, difficulty=1.5 if hard else difficulty, overwrite=overwrite)
    if as_json:
        print_json({"path": str(folder), **summary})
    else:
        bayes, single = summary["bayes_accuracy"]["all"], summary["single_bayes_accuracy"]
        alone = ", ".join(f"{m} {p['all']:.3f}" for m, p in single.items())
        print(f"{folder}: {clips} clips; exact Bayes accuracy {bayes:.3f} (alone: {alone})")


@app.command("import")
def import_(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="An MMSA .pkl, an .npz, or a table (.csv, .tsv, .parquet).")
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The data set folder to make.")],
    format_: Annotated[
        str | None, typer.Option("--format", help="mmsa, npz or table.  [default: by the file's name]")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set.  [default: the file's]")] = None,
    licence: Annotated[str | None, typer.Option(help="Under which licence the data may be used.")] = None,
    folds_by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Cross-validation folds that keep this column's groups whole.")
    ] = None,
    folds: Annotated[int | None, typer.Option(help="How many folds.  [default: 5; RAVDESS 6]")] = None,
    split_by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="A new 70/15/15 split that keeps this column's groups whole.")
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(
            "--field", metavar="FIELD=NAME", help="npz, table: which array or column is which, e.g. label=emotion."
        ),
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option("--features", metavar="MODALITY=FILE", help="table: the array file of each modality."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="npz, table: the class names that labels 0, 1, ... count.")
    ] = None,
    interval: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="npz, table: where scores may lie.  [default: their range]")
    ] = None,
    non_finite: Annotated[
        str | None, typer.Option(help="mmsa: NaN and inf in features: refuse, zero or drop_step.  [default: refuse]")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="MOSI's npz: official (default), or within_test: folds inside the test split.")
    ] = None,
    audio: Annotated[
        Path | None, typer.Option(help="RAVDESS's npz: folder of the sound files.  [default: audio16k beside it]")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a data set folder from foreign data. No pickle is executed."""
    from moodal.data.store import read_info
    from moodal.recipes.importing import ImportOptions, import_data

    options = ImportOptions(
        format_, name, licence, folds_by, folds, split_by, field or [], features or [], classes, interval,
        non_finite, protocol, audio, overwrite,
    )  # fmt: skip
    import_data(source, folder, options)
    info = read_info(folder)
    if as_json:
        print_json({"path": str(folder), **{k: info[k] for k in ("name", "task", "counts", "notes")}})
    else:
        count = info["counts"]["utterances"]
        print(f"{folder}: {info['name']}, {count} utterances; look at it with moodal inspect {folder}")


@app.command()
def extract(
    videos: Annotated[
        Path,
        typer.Argument(metavar="VIDEOS", help="A folder of media, or a table (.csv, .parquet) with a column video."),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The data set folder to make.")],
    labels: Annotated[
        Path | None, typer.Option(help="A table of labels for a folder of media; its rows are found by id or video.")
    ] = None,
    field: Annotated[
        list[str] | None, typer.Option("--field", metavar="FIELD=NAME", help="A column's name, e.g. label=emotion.")
    ] = None,
    text: Annotated[str, typer.Option(help="What reads the words; none leaves them out.")] = "minilm",
    audio: Annotated[str, typer.Option(help="What hears the voice; none leaves it out.")] = "audio33",
    vision: Annotated[str, typer.Option(help="What sees the face; none leaves it out.")] = "au_proxy",
    cut: Annotated[
        str, typer.Option(help="Files without segments: whole, transcript (a line each), or auto: long ones are cut.")
    ] = "auto",
    name: Annotated[str | None, typer.Option(help="Name of the data set.  [default: that of VIDEOS]")] = None,
    licence: Annotated[str | None, typer.Option(help="Under which licence the data may be used.")] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="The class names that labels 0, 1, ... count.")
    ] = None,
    interval: Annotated[str | None, typer.Option(metavar="LOW,HIGH", help="Where scores may lie.")] = None,
    folds_by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Cross-validation folds that keep this column's groups whole.")
    ] = None,
    folds: Annotated[int | None, typer.Option(help="How many folds.  [default: 5]")] = None,
    split_by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="A new 70/15/15 split that keeps this column's groups whole.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Files worked on at the same time.  [default: one per core]")
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option(min=1, help="Seconds a file may take.  [default: 300, and more for large ones]")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what failed too often.")] = False,
    asr: Asr = None,
    engine: Annotated[
        str, typer.Option(help="local: processes here. ray: a Ray cluster, that of RAY_ADDRESS if it is set.")
    ] = "local",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Features of real media as a data set folder. Continues where it stopped; the ledger says what is missing."""
    from moodal.config import parse_assignments, parse_class_names, parse_folds, parse_interval
    from moodal.extraction.extract import Options, extract_media
    from moodal.terminal import progress_bar

    options = Options(
        {m: spec for m, spec in (("text", text), ("audio", audio), ("vision", vision)) if spec != "none"},
        labels, parse_assignments(field or []), cut, workers, time_limit, retry, name, licence or "unknown",
        None if classes is None else parse_class_names(classes), None if interval is None else parse_interval(interval),
        folds_by, parse_folds(folds, folds_by), split_by, overwrite, engine, asr or "",
    )  # fmt: skip
    with progress_bar("files") as on_change:
        done = extract_media(videos, folder, options, on_change=on_change)
    if as_json:
        print_json({**done.as_dict(), "path": None if done.problem else str(folder)})
    if done.problem:
        raise WorkError(f"{done.problem}; ledger: {done.ledger}")
    if not as_json:
        print(f"{folder}: {done.sentence()}; ledger: {done.ledger}")
    if not done.is_whole:
        raise typer.Exit(1)


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data set folder.")],
    picture: Annotated[Path | None, typer.Option(help="Also draw it: a .png or .svg file.")] = None,
    as_json: Json = False,
) -> None:
    """What a careful person wants to know before training: counts, lengths, missing, leakage, agreement, health."""
    from moodal.benchmark.dataset_figures import dataset_figure
    from moodal.data.inspection import inspect_dataset
    from moodal.data.inspection_text import describe

    if picture is not None and picture.suffix not in (".png", ".svg"):
        raise InputError(f"--picture is a .png or .svg file, got {picture}")
    report = inspect_dataset(folder)
    if picture is not None:
        dataset_figure(folder, report, picture)
    print_json(report) if as_json else print(describe(report))
