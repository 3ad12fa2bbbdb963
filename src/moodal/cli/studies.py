"""Commands that train models and say what can be said of them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from moodal.cli.app import Config, Json, Models, Out, Seeds, Set, TaskKind, Workers, app, names_of, print_json
from moodal.config import Settings


@app.command()
def train(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data set folder.")],
    model: Annotated[str, typer.Option(help="A model's name, or a variant like mre@hidden=32.")] = "mre",
    seeds: Seeds = 5,
    settings: Set = None,
    config: Config = None,
    out: Out = Path("runs"),
    workers: Workers = None,
    task: TaskKind = None,
    as_json: Json = False,
) -> None:
    """Train one model once per seed (and fold). Finished runs are skipped; a run that was killed continues."""
    from moodal.config import read_settings
    from moodal.training.plan import train_models

    trained = train_models(
        folder, [model], seeds, read_settings(config, settings or []), out, workers=workers, task=task
    )
    rows = [row.as_dict() for row in trained]
    if as_json:
        print_json({"runs": rows})
        return
    for r in rows:
        score = ", ".join(f"{k} {v:.4f}" for k, v in r["test"].items())
        print(f"{r['path']}: {'skipped (done before), ' if r['skipped'] else ''}{r['epochs']} epochs, test {score}")


@app.command()
def compare(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data set folder.")],
    models: Models = None,
    seeds: Seeds = 5,
    settings: Set = None,
    config: Config = None,
    out: Out = Path("runs"),
    workers: Workers = None,
    task: TaskKind = None,
    as_json: Json = False,
) -> None:
    """Train several models over several seeds and report them: table, paired tests, figures, an HTML page."""
    from moodal.config import read_settings

    compare_and_report(folder, models, seeds, read_settings(config, settings or []), out, workers, task, as_json)


@app.command()
def tune(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data set folder.")],
    models: Models = None,
    trials: Annotated[
        int, typer.Option(help="How many settings are tried for each model; the first are the given.")
    ] = 30,
    seeds: Annotated[
        int, typer.Option(help="Runs of each trial, with seeds 1000, 1001, ...; no report uses them.")
    ] = 2,
    folds: Annotated[
        int | None, typer.Option(help="Train a trial on the first so many folds.  [default: all that there are]")
    ] = None,
    settings: Set = None,
    config: Config = None,
    space: Annotated[
        Path | None, typer.Option(help="TOML file of what is searched, in place of lines of the built-in one.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the search; finished trials are kept.")] = Path(
        "tuning"
    ),
    workers: Workers = None,
    task: TaskKind = None,
    as_json: Json = False,
) -> None:
    """Search settings for each model on valid, with equal effort; test is never looked at. Writes tuned.toml."""
    from moodal.config import read_settings
    from moodal.training.tuning import tune_models

    tuned = tune_models(
        folder, None if models is None else names_of(models), trials, seeds, read_settings(config, settings or []), out,
        folds=folds, space_file=space, workers=workers, task=task, command=shlex.join(["moodal", *sys.argv[1:]]),
    )  # fmt: skip
    file = out / "tuned.toml"
    if as_json:
        print_json({**tuned.as_dict(), "settings_file": str(file)})
    else:
        print(*tuned.lines(), f"settings: {file}", sep="\n")


@app.command()
def report(
    out: Annotated[Path, typer.Argument(metavar="RUNS", help="A folder of finished runs.")],
    models: Annotated[str | None, typer.Option(help="Only these, comma-separated, in this order.")] = None,
    format_: Annotated[str, typer.Option("--format", help="What is printed: text, markdown, latex or csv.")] = "text",
    as_json: Json = False,
) -> None:
    """The table, statistics, figures and HTML page of finished runs; nothing is trained."""
    report_runs(out, names_of(models) if models else None, format_, as_json)


@app.command()
def relevance(
    out: Annotated[Path, typer.Argument(metavar="RUNS", help="A folder of finished runs.")],
    models: Annotated[str | None, typer.Option(help="Only these, comma-separated.")] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="The data set, if it is no longer where the runs were made.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Does relevance deserve its name? Whether it is where the truth is, falls with noise, and costs least to lose."""
    from moodal.benchmark.relevance import measure_relevance
    from moodal.benchmark.relevance_printing import as_text, write_relevance

    found = measure_relevance(out, names_of(models) if models else None, dataset)
    files = write_relevance(found, out / "relevance")
    if as_json:
        print_json({**found.as_dict(), "files": [str(f) for f in files]})
        return
    print(as_text(found))
    print(f"page: {files[-1]}")


@app.command()
def stress(
    out: Annotated[Path, typer.Argument(metavar="RUNS", help="A folder of finished runs.")],
    models: Annotated[str | None, typer.Option(help="Only these, comma-separated.")] = None,
    corruptions: Annotated[str | None, typer.Option(help="Only these, comma-separated.  [default: all]")] = None,
    max_clips: Annotated[
        int | None, typer.Option(min=1, help="At most so many test clips, for models that take long.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Trained models on corrupted test clips: noise, lost steps and modalities, swapped ones; curves and a table."""
    from moodal.benchmark.stress import stress_models
    from moodal.benchmark.stress_printing import as_text, write_stress
    from moodal.terminal import progress_bar

    with progress_bar("conditions") as on_change:
        found = stress_models(
            out, names_of(models) if models else None, names_of(corruptions) if corruptions else None,
            max_clips=max_clips, on_change=on_change,
        )  # fmt: skip
    files = write_stress(found, out / "stress")
    if as_json:
        print_json({**found.as_dict(), "files": [str(f) for f in files]})
        return
    print(as_text(found))
    print(f"page: {files[-1]}")


@app.command()
def reproduce(
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="table3 (all models), table4 (training time) or table5 (ablation).")
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data set folder.")],
    models: Annotated[str | None, typer.Option(help="Comma-separated names.  [default: the paper's]")] = None,
    seeds: Seeds = 5,
    settings: Set = None,
    config: Config = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the runs and the table.  [default: runs; table4 runs-timing]"),
    ] = None,
    workers: Workers = None,
    paper: Annotated[
        str | None,
        typer.Option(help="Whose column of the paper: mosei, sims, sdme or none.  [default: by the data set's name]"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="table4: exactly so many epochs of each model, only to time them.")
    ] = None,
    as_json: Json = False,
) -> None:
    """A table of the MRE paper, trained here, with the paper's numbers beside ours."""
    from moodal.benchmark import paper as tables
    from moodal.benchmark import paper_printing as printing
    from moodal.config import read_settings

    out = out or Path("runs-timing" if table == "table4" else "runs")
    made = tables.reproduce(
        table, folder, out, models=None if models is None else names_of(models), seeds=seeds,
        settings=read_settings(config, settings or []), workers=workers, paper=paper, epochs=epochs,
        command=shlex.join(["moodal", *sys.argv[1:]]),
    )  # fmt: skip
    files = printing.write_table(made, out)
    if as_json:
        print_json({**printing.as_json(made), "files": [str(f) for f in files]})
        return
    print(printing.as_text(made))
    print(f"written: {out / table}.md, .tex, .csv, .json")


def compare_and_report(
    folder: Path,
    models: str | None,
    seeds: int,
    settings: Settings,
    out: Path,
    workers: int | None,
    task: str | None,
    as_json: bool,
) -> None:
    from moodal.training.plan import train_models

    names = None if models is None else names_of(models)
    trained = train_models(folder, names, seeds, settings, out, workers=workers, task=task)
    report_runs(out, list(dict.fromkeys(t.run.experiment.name for t in trained)), "text", as_json)


def report_runs(out: Path, names: list[str] | None, format_: str, as_json: bool) -> None:
    from moodal.benchmark.printing import EMITTERS
    from moodal.benchmark.printing import as_json as comparison_json
    from moodal.benchmark.report import write_report
    from moodal.benchmark.results import read_results
    from moodal.benchmark.tables import compare_results
    from moodal.types import unknown

    if format_ not in EMITTERS:
        raise unknown("table format", format_, EMITTERS)
    results = read_results(out, names)
    comparison = compare_results(results)
    files = write_report(results, comparison, out / "report")
    if as_json:
        print_json({**comparison_json(comparison), "files": [str(f) for f in files]})
        return
    print(EMITTERS[format_](comparison))
    if format_ == "text":
        print(f"report: {out / 'report' / 'report.html'}")
