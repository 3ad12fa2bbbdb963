"""Commands of the SDME recipe: from raw episodes to a labelled data set."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from moodal.cli.app import Asr, Json, Overwrite, app, names_of, print_json
from moodal.types import InputError, WorkError

Recipe = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the recipe, begun by moodal shots.")]
Source = Annotated[
    Path,
    typer.Argument(metavar="SOURCE", help="A folder of the recipe, a table of votes, or CREMA-D's tabulatedVotes."),
]
StepSettings = Annotated[
    Path | None, typer.Option("--settings", metavar="FILE", help="TOML: [screen], [annotate] and [balance].")
]
StepSet = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting of this step.")]
Files = Annotated[int | None, typer.Option(min=1, help="Videos worked on at the same time.  [default: one per core]")]
Retry = Annotated[bool, typer.Option("--retry", help="Try again what failed too often.")]


@app.command()
def shots(
    videos: Annotated[Path, typer.Argument(metavar="VIDEOS", help="A folder of videos.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the recipe to begin or to go on with.")],
    detector: Annotated[
        str, typer.Option(help="transnet: TransNet V2. content, adaptive: PySceneDetect's, ten times faster.")
    ] = "transnet",
    threshold: Annotated[
        float | None, typer.Option(help="What counts as a cut.  [default: the detector's own]")
    ] = None,
    workers: Files = None,
    time_limit: Annotated[
        float | None, typer.Option(min=1, help="Seconds a video may take.  [default: by its size]")
    ] = None,
    retry: Retry = False,
    as_json: Json = False,
) -> None:
    """Where the camera cuts, in every video of a folder: a table of shots, exact to the picture. Step 1."""
    from moodal.screening.shots import ShotOptions, find_all_shots
    from moodal.terminal import progress_bar

    with progress_bar("videos") as on_change:
        found = find_all_shots(
            videos, folder, ShotOptions(detector, threshold, workers, time_limit, retry), on_change=on_change
        )
    if as_json:
        print_json(found.as_dict())
    if found.problem:
        raise WorkError(f"{found.problem}; ledger: {found.ledger}")
    if not as_json:
        print(*found.lines(), f"next: moodal screen {quote(str(folder))}", sep="\n")
    if not found.is_whole:
        raise typer.Exit(1)


@app.command()
def screen(
    folder: Recipe,
    settings: StepSettings = None,
    sets: StepSet = None,
    workers: Files = None,
    retry: Retry = False,
    as_json: Json = False,
) -> None:
    """Which shots are clips worth labelling: one voice, one face, from the front; and why the others fell. Step 2."""
    from moodal.config import read_options
    from moodal.screening.screen import screen_clips
    from moodal.screening.settings import ScreenSettings
    from moodal.terminal import progress_bar

    chosen = read_options(ScreenSettings, "screen", settings, sets or [])
    with progress_bar("videos") as on_change:
        found = screen_clips(folder, chosen, workers=workers, retry=retry, on_change=on_change)
    if as_json:
        print_json(found.as_dict())
    else:
        print(*found.lines(), found.next_line(folder), sep="\n")
    if not found.is_whole:
        raise typer.Exit(1)


@app.command()
def annotate(
    folder: Recipe,
    invite: Annotated[
        str | None, typer.Option(metavar="NAME", help="Print a link with which somebody new sets a password.")
    ] = None,
    role: Annotated[str, typer.Option(help="Of who is invited: annotator, or lead, who decides and sees it all.")] = (
        "annotator"
    ),
    host: Annotated[str, typer.Option(help="Where the pages are shown; 0.0.0.0 is to every machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any that is free.")] = 8080,
    address: Annotated[
        str | None, typer.Option(metavar="URL", help="How people reach the pages, for the links of invitations.")
    ] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="Believe a proxy on this machine about addresses and https.")
    ] = False,
    database: Annotated[
        str | None, typer.Option(metavar="URL", help="postgresql://...  [default: annotation.sqlite in DIR]")
    ] = None,
    settings: StepSettings = None,
    sets: StepSet = None,
    prepare: Annotated[bool, typer.Option("--prepare", help="Cut the clips and end; show no pages.")] = False,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the votes (.csv, .parquet) or Label Studio's .json.")
    ] = None,
    import_: Annotated[
        Path | None, typer.Option("--import", metavar="FILE", help="Read votes or Label Studio's .json into it.")
    ] = None,
    workers: Files = None,
    retry: Retry = False,
    as_json: Json = False,
) -> None:
    """Pages on which people label clips, each from sound alone, from silent pictures alone and whole. Step 3."""
    from contextlib import ExitStack

    from moodal.annotation import serve
    from moodal.annotation.settings import AnnotationSettings
    from moodal.config import read_options
    from moodal.terminal import progress_bar

    chosen = read_options(AnnotationSettings, "annotate", settings, sets or []) if settings or sets else None
    options = serve.AnnotateOptions(
        host, port, database, chosen, address=address, behind_proxy=behind_proxy, workers=workers, retry=retry
    )
    if invite is not None:
        link = serve.invite(folder, options, invite, role)
        print_json({"name": invite, "role": role, "link": link}) if as_json else print(link)
        return
    for file, work, done in ((import_, serve.import_, "read from"), (export, serve.export, "written to")):
        if file is not None:
            number = work(folder, options, file)
            print_json({"votes": number, "file": str(file)}) if as_json else print(f"{number} votes {done} {file}")
    if import_ is not None or export is not None:
        return
    with ExitStack() as bar:
        on_change = bar.enter_context(progress_bar("clips"))

        def ready(prepared: serve.Prepared, where: str | None) -> None:
            bar.close()
            if as_json:
                print_json({**prepared.as_dict(), "address": where})
            else:
                print(*prepared.lines(), *([f"labelling at {where}; Ctrl-C ends it"] if where else []), sep="\n")
            sys.stdout.flush()

        if prepare:
            ready(serve.prepare_only(folder, options, on_change=on_change), None)
        else:
            serve.serve(folder, options, on_change=on_change, on_ready=lambda where, done: ready(done, where))


@app.command()
def agreement(
    source: Source,
    samples: Annotated[int, typer.Option(min=100, help="Resamples for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resampling.")] = 0,
    labels: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="The emotions that may occur.  [default: those that do]")
    ] = None,
    as_json: Json = False,
) -> None:
    """How far people agree: within each condition, person by person, and between face, voice and the full clip."""
    from moodal.labels.report import AgreementOptions, measure_agreement

    _refresh_votes(source)
    found = measure_agreement(
        source, AgreementOptions(labels=tuple(names_of(labels)) if labels else None, samples=samples, seed=seed)
    )
    print_json(found.as_dict()) if as_json else print(*found.lines(), sep="\n")


@app.command()
def balance(
    source: Source,
    settings: StepSettings = None,
    sets: StepSet = None,
    caps: Annotated[
        list[str] | None, typer.Option("--cap", metavar="CLASS=CLIPS", help="The most clips of a class.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the labels go.  [default: labels.parquet in DIR]")
    ] = None,
    as_json: Json = False,
) -> None:
    """One label per clip of the votes, only sure ones, in classes that can be learned; why others were left out."""
    from dataclasses import replace

    from moodal.config import coerce, parse_assignments, read_options
    from moodal.labels.balance import BalanceSettings
    from moodal.labels.balance import balance as balanced

    _refresh_votes(source)
    chosen = read_options(BalanceSettings, "balance", settings, sets or [])
    given = {name: coerce(f"--cap {name}", number, 1) for name, number in parse_assignments(caps or []).items()}
    found = balanced(source, replace(chosen, caps={**chosen.caps, **given}), target=out)
    is_recipe = found.kept and out is None and (source / "recipe.json").is_file()
    lines = [*found.lines(), *([f"next: moodal export {quote(str(source))} DATASET"] if is_recipe else [])]
    print_json(found.as_dict()) if as_json else print(*lines, sep="\n")


@app.command()
def statistics(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A data set folder, a recipe's folder, or a table of votes.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where page, figure and tables go.  [default: statistics in DIR]")
    ] = None,
    as_json: Json = False,
) -> None:
    """The data set paper's Table 1, Table 2 and Figure 4 for data labelled modality by modality, as one page."""
    from moodal.labels.statistics import label_statistics

    if out is None and source.exists() and not (source / "recipe.json").is_file():
        raise InputError(f"{source} is no folder of the recipe; say with --out which folder the page goes to")
    found = label_statistics(source, out or source / "statistics")
    print_json(found.as_dict()) if as_json else print(*found.lines(), sep="\n")


@app.command()
def export(
    folder: Recipe,
    target: Annotated[Path | None, typer.Argument(metavar="DATASET", help="The data set folder to make.")] = None,
    labels_only: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only the table of utterances (.csv, .parquet), no features.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="So many folds by episode, in place of train, valid and test.")
    ] = None,
    text: Annotated[str, typer.Option(help="What reads the words; none leaves them out.")] = "minilm",
    audio: Annotated[str, typer.Option(help="What hears the voice; none leaves it out.")] = "audio33",
    vision: Annotated[str, typer.Option(help="What sees the face; none leaves it out.")] = "au_proxy",
    name: Annotated[str | None, typer.Option(help="Name of the data set.  [default: that of DIR]")] = None,
    licence: Annotated[str, typer.Option(help="Under which licence the data may be used.")] = "unknown",
    workers: Files = None,
    time_limit: Annotated[
        float | None, typer.Option(min=1, help="Seconds a video may take.  [default: by its size]")
    ] = None,
    retry: Retry = False,
    asr: Asr = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """The balanced clips as a data set folder with features, labels of each modality and no episode in two splits."""
    from moodal.labels.export import ExportOptions, export_dataset
    from moodal.terminal import progress_bar

    options = ExportOptions(
        {m: spec for m, spec in (("text", text), ("audio", audio), ("vision", vision)) if spec != "none"},
        folds, labels_only, name, licence, workers, time_limit, retry, overwrite, asr or "",
    )  # fmt: skip
    with progress_bar("videos") as on_change:
        done = export_dataset(folder, target, options, on_change)
    if as_json:
        print_json(done.as_dict())
    if done.extraction and done.extraction.problem:
        raise WorkError(f"{done.extraction.problem}; ledger: {done.extraction.ledger}")
    if not as_json:
        print(*done.lines(), *([f"next: moodal train {quote(str(target))}"] if done.extraction else []), sep="\n")
    if done.extraction and not done.extraction.is_whole:
        raise typer.Exit(1)


def _refresh_votes(source: Path) -> None:
    """People may be labelling right now; a table of votes as SOURCE stays as it is."""
    if (source / "annotation.sqlite").is_file():
        from moodal.annotation.serve import refresh_votes

        refresh_votes(source)
