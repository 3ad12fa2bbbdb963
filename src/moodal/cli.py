"""The commands: parse, call one function, print. Results go to stdout, progress and warnings to stderr."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import traceback
from pathlib import Path
from typing import Annotated, cast

import typer

from moodal import __version__
from moodal.config import Settings
from moodal.types import InputError, WorkError

app = typer.Typer(
    name="moodal",
    help="Reads emotion from text, voice and face together, and says how far each modality can be believed.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

# click's, from which all complaints about usage inherit; newer typers carry a click of their own
UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; everything else on stderr.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it exists.")]
Seeds = Annotated[int, typer.Option(help="How many runs of each model, with seeds 0, 1, ...")]
Out = Annotated[Path, typer.Option("--out", help="Folder of the runs; finished ones in it are skipped.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A training setting or an option of the models.")
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "--settings",
        metavar="FILE",
        help="TOML file of settings; a table like [mre] is for that model alone. Or sdme, ravdess: tuned settings that "
        "come with moodal.",
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Runs trained at the same time, one thread each.  [default: one per core]")
]
TaskKind = Annotated[
    str | None, typer.Option("--task", help="'regression' uses the scores of a data set that has classes and scores.")
]
Asr = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="A Whisper model on this machine: writes down speech that has no transcript."),
]
Models = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated names; a variant is written mre@text_pooling=mean+hidden=32; all: the whole zoo.  "
        "[default: MRE, its ablations and the yardsticks that fit]"
    ),
]

INTERRUPTED = 130
# Chosen on validation splits (docs/experiments.md), the same for every network; the variant beside them has the
# paper's text encoder, an LSTM.
DEMO_SETTINGS = Settings({"text_pooling": "mean", "batch_size": 128, "lr": 0.002})
DEMO_MODELS = (
    "mre,mre_baseline,mre_rs,mre_cnce,mre@text_pooling=none,lmf,lf_dnn,late_average,text_only,audio_only,vision_only,"
    "lda,lda_product,lda_stacking"
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Reads emotion from text, voice and face together, and says how far each modality can be believed."""
    if version:
        print(f"moodal {__version__}")
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Where the data set, the runs and the report go.")] = Path(
        "moodal-demo"
    ),
    clips: Annotated[int, typer.Option(help="How many clips are simulated; a few hundred for a quick look.")] = 3667,
    seeds: Seeds = 5,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """No data needed: simulates SDME, trains MRE, its ablation and controls, prints the table and writes the report."""
    from moodal.data.simulate import simulate_sdme
    from moodal.data.store import read_info

    data = out / "sdme"
    if not (data / "dataset.json").exists():
        simulate_sdme(data, clips=clips)
    elif (there := read_info(data)["counts"]["utterances"]) != clips:
        raise InputError(f"{data} holds {there} clips, not {clips}; say --clips {there}, or choose another --out")
    _compare(data, DEMO_MODELS, seeds, DEMO_SETTINGS, out / "runs", workers, None, as_json)


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
        _print_json({"path": str(folder), **summary})
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
        _print_json({"path": str(folder), **{k: info[k] for k in ("name", "task", "counts", "notes")}})
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
        _print_json({**done.as_dict(), "path": None if done.problem else str(folder)})
    if done.problem:
        raise WorkError(f"{done.problem}; ledger: {done.ledger}")
    if not as_json:
        print(f"{folder}: {done.sentence()}; ledger: {done.ledger}")
    if not done.is_whole:
        raise typer.Exit(1)


@app.command()
def predict(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video or sound file.")],
    model: Annotated[
        str, typer.Option(help="A run's folder, one of several runs (their mean), a model of the hub, or prior.")
    ] = "prior",
    segments: Annotated[
        Path | None, typer.Option(help="A table with start_s, end_s (and text) of what to predict.")
    ] = None,
    cut: Annotated[
        str,
        typer.Option(help="Without --segments: auto, whole, transcript, speech, shots, or a length in seconds."),
    ] = "auto",
    min_confidence: Annotated[
        float | None,
        typer.Option(help="Below this probability it gives no answer.  [default: 0.5; of two classes 0.6]"),
    ] = None,
    text: Annotated[str | None, typer.Option(help="The run's own extractor found elsewhere, or none.")] = None,
    audio: Annotated[str | None, typer.Option(help="The same for the voice.")] = None,
    vision: Annotated[str | None, typer.Option(help="The same for the face.")] = None,
    asr: Asr = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="A folder for the timeline (.png), .json, .csv and captions (.vtt).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Emotion of every segment of a video, how far each modality can be believed, and what was missing."""
    from moodal.serving.files import make_folder, write_prediction
    from moodal.serving.prediction import plain
    from moodal.serving.predictor import Predictor
    from moodal.serving.printing import print_prediction

    if out is not None:
        make_folder(out)  # said now, and not after the work
    chosen = {m: spec for m, spec in (("text", text), ("audio", audio), ("vision", vision)) if spec is not None}
    found = Predictor.from_pretrained(model, chosen).predict(
        video, segments=segments, cut=cut, min_confidence=min_confidence, asr=asr or ""
    )
    files = [] if out is None else write_prediction(found, video, out)
    if as_json:
        _print_json({**found.as_dict(), "files": [str(f) for f in files]})
        return
    print_prediction(found)
    if files:
        print(f"written: {', '.join(plain(str(f)) for f in files)}")


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
    _print_json(report) if as_json else print(describe(report))


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
        _print_json({"runs": rows})
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

    _compare(folder, models, seeds, read_settings(config, settings or []), out, workers, task, as_json)


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
        folder, None if models is None else _names(models), trials, seeds, read_settings(config, settings or []), out,
        folds=folds, space_file=space, workers=workers, task=task, command=shlex.join(["moodal", *sys.argv[1:]]),
    )  # fmt: skip
    file = out / "tuned.toml"
    if as_json:
        _print_json({**tuned.as_dict(), "settings_file": str(file)})
    else:
        print(*tuned.lines(), f"settings: {file}", sep="\n")


@app.command()
def doctor(
    install: Annotated[
        str | None, typer.Option(metavar="WHAT", help="Fetch what packages cannot carry: face (two models, 2 MB).")
    ] = None,
    as_json: Json = False,
) -> None:
    """What works on this machine, under which licence, and how to get the rest."""
    from moodal import doctor as checks

    if install is not None:
        where = checks.install(install)
        print(f"{install}: in {where}", file=sys.stderr if as_json else sys.stdout)
    found = checks.examine()
    if as_json:
        _print_json({"checks": [vars(c) for c in found]})
        return
    for c in found:
        print(f"{'yes' if c.ok else 'no ':3s}  {c.name:24s} {c.detail}" + (f"\n{'':30s}{c.fix}" if c.fix else ""))


@app.command()
def report(
    out: Annotated[Path, typer.Argument(metavar="RUNS", help="A folder of finished runs.")],
    models: Annotated[str | None, typer.Option(help="Only these, comma-separated, in this order.")] = None,
    format_: Annotated[str, typer.Option("--format", help="What is printed: text, markdown, latex or csv.")] = "text",
    as_json: Json = False,
) -> None:
    """The table, statistics, figures and HTML page of finished runs; nothing is trained."""
    _report(out, _names(models) if models else None, format_, as_json)


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

    found = measure_relevance(out, _names(models) if models else None, dataset)
    files = write_relevance(found, out / "relevance")
    if as_json:
        _print_json({**found.as_dict(), "files": [str(f) for f in files]})
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
            out, _names(models) if models else None, _names(corruptions) if corruptions else None,
            max_clips=max_clips, on_change=on_change,
        )  # fmt: skip
    files = write_stress(found, out / "stress")
    if as_json:
        _print_json({**found.as_dict(), "files": [str(f) for f in files]})
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
        table, folder, out, models=None if models is None else _names(models), seeds=seeds,
        settings=read_settings(config, settings or []), workers=workers, paper=paper, epochs=epochs,
        command=shlex.join(["moodal", *sys.argv[1:]]),
    )  # fmt: skip
    files = printing.write_table(made, out)
    if as_json:
        _print_json({**printing.as_json(made), "files": [str(f) for f in files]})
        return
    print(printing.as_text(made))
    print(f"written: {out / table}.md, .tex, .csv, .json")


def _compare(
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

    names = None if models is None else _names(models)
    trained = train_models(folder, names, seeds, settings, out, workers=workers, task=task)
    _report(out, list(dict.fromkeys(t.run.experiment.name for t in trained)), "text", as_json)


def _names(models: str) -> list[str]:
    return [n.strip() for n in models.split(",") if n.strip()]


def _report(out: Path, names: list[str] | None, format_: str, as_json: bool) -> None:
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
        _print_json({**comparison_json(comparison), "files": [str(f) for f in files]})
        return
    print(EMITTERS[format_](comparison))
    if format_ == "text":
        print(f"report: {out / 'report' / 'report.html'}")


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, allow_nan=False))


def main() -> None:
    """The command line's entry: errors become one sentence and an exit code (2 input, 1 the work failed)."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    argv = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(argv) < len(sys.argv) - 1
    try:
        code = app(argv or ["--help"], standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # typer has caught it
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except UsageError as e:
        _fail(e.format_message().rstrip("."), 2, debug)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted; the same command continues where it stopped", INTERRUPTED, debug)
    except InputError as e:
        _fail(str(e), 2, debug)
    except WorkError as e:
        _fail(str(e), 1, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # a reader like head has gone; that is no error
        sys.exit(0)
    except (FileExistsError, NotADirectoryError) as e:
        _fail(f"{e.filename} is a file, but a folder is needed there", 2, debug)
    except OSError as e:  # no permission, a folder where a file should be
        _fail(f"{e.filename}: {e.strerror}" if e.filename and e.strerror else str(e), 2, debug)


def _fail(message: str, code: int, debug: bool) -> None:
    """One line on stderr, whatever the message holds; the traceback before it only with --debug."""
    if debug:
        traceback.print_exc()
    line = "".join(c if c.isprintable() else "?" for c in " ".join(message.split()))  # file names may hold anything
    print(f"moodal: {line}", file=sys.stderr)
    sys.exit(code)
