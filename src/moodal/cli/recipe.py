"""Commands of the SDME recipe: from raw episodes to a labelled data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moodal.cli.app import Json, app, names_of, print_json
from moodal.types import WorkError

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
        print(*found.lines(), f"next: moodal screen {folder}", sep="\n")
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
        print(*found.lines(), f"next: moodal annotate {folder}", sep="\n")
    if not found.is_whole:
        raise typer.Exit(1)


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

    chosen = read_options(BalanceSettings, "balance", settings, sets or [])
    given = {name: coerce(f"--cap {name}", number, 1) for name, number in parse_assignments(caps or []).items()}
    found = balanced(source, replace(chosen, caps={**chosen.caps, **given}), target=out)
    print_json(found.as_dict()) if as_json else print(*found.lines(), sep="\n")
