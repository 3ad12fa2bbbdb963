"""The application that commands join, the options that several of them share, and how they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="moodal",
    help="Reads emotion from text, voice and face together, and says how far each modality can be believed.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

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


def print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, allow_nan=False))


def names_of(models: str) -> list[str]:
    return [n.strip() for n in models.split(",") if n.strip()]
