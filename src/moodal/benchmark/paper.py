"""The tables of the MRE paper made again: what is trained for them, and whose numbers stand beside ours.

``paper_scores`` makes tables 3 and 5, ``paper_times`` makes table 4, ``paper_printing`` prints.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from moodal.benchmark.paper_scores import score_table
from moodal.benchmark.paper_table import COLUMNS, MODELS_OF, TABLES, PaperTable
from moodal.benchmark.paper_times import TIMED_ALONE, timing_table
from moodal.benchmark.results import read_results
from moodal.config import TRAINING_KEYS, Settings
from moodal.data.store import Dataset, read_dataset
from moodal.experiment import Run
from moodal.metrics import SENTIMENT
from moodal.models import options_of
from moodal.training.plan import plan_experiments, train_models
from moodal.types import InputError, Task, unknown

NAMES = {"mosei": {"mosei", "cmumosei"}, "sdme": {"sdme"}, "sims": {"sims", "chsims"}}
SIMULATED = (
    "The paper's column is of the real SDME, which was never published. These clips are simulated with its class "
    "counts and agreement rates: other data, so the two cannot be compared number by number."
)


def reproduce(
    table: str,
    folder: Path,
    out: Path,
    *,
    models: Sequence[str] | None = None,
    seeds: int = 5,
    settings: Settings | None = None,
    workers: int | None = None,
    paper: str | None = None,
    epochs: int | None = None,
    command: str = "",
) -> PaperTable:
    """Train what the table needs on the data set in ``folder`` (finished runs below ``out`` are skipped) and make it.

    models: None takes the paper's. paper: whose column stands beside ours (mosei, sims, sdme or none); None goes by
    the data set's name. epochs: table 4 alone, exactly so many of each model, to time them and nothing else.
    """
    if table not in TABLES:
        raise unknown("table", table, TABLES)
    if epochs is not None and table != "table4":
        raise InputError(f"--epochs is for table4; for {table} say --set epochs={epochs}")
    if workers not in (None, 1) and table == "table4":
        raise InputError(f"table4 trains {TIMED_ALONE}; leave --workers out")
    settings = settings or Settings()
    data = read_dataset(folder)
    if not data.task.classes:
        raise InputError(f"the paper's tables are of classes, and {folder} has scores only")
    column, notes = paper_column(table, data, paper)
    names = MODELS_OF[table] if models is None else models
    if table == "table4":
        runs = _train_alone(folder, data, names, seeds, settings if epochs is None else timed(settings, epochs), out)
        made = timing_table(data.name, runs, column, fixed_epochs=epochs is not None)
    else:
        train_models(folder, names, seeds, settings, out, workers=workers)
        made = score_table(table, read_results(out, names), column)
    return replace(made, notes=(*notes, *made.notes), command=command)


def timed(settings: Settings, epochs: int) -> Settings:
    """Exactly ``epochs`` for every model: no early stop, no second training."""
    fixed = {"epochs": epochs, "patience": epochs, "refit": False}
    tables = {m: {k: v for k, v in keys.items() if k not in fixed} for m, keys in settings.per_model.items()}
    return Settings({**settings.common, **fixed}, tables)


def _train_alone(
    folder: Path, data: Dataset, names: Sequence[str], seeds: int, settings: Settings, out: Path
) -> list[Run]:
    """All runs, one after the other; every model begins in a new process, so that none finds another's warm."""
    plan_experiments(data, names, seeds, settings)  # a setting that no model has is refused before the first trains
    trained = [train_models(folder, [n], seeds, _own(settings, n), out, workers=1) for n in names]
    return [t.run for runs in trained for t in runs]


def _own(settings: Settings, name: str) -> Settings:
    known = {*TRAINING_KEYS, *options_of(name.partition("@")[0])}
    return replace(settings, common={k: v for k, v in settings.common.items() if k in known})


def paper_column(table: str, data: Dataset, asked: str | None) -> tuple[str | None, list[str]]:
    """Which numbers of the paper belong beside those on ``data``, and what must be said of that."""
    if asked is not None and asked not in (*COLUMNS, "none"):
        raise unknown("data set of the paper", asked, (*COLUMNS, "none"))
    if asked == "none":
        return None, []
    if table == "table4":
        if asked not in (None, "mosei"):
            raise InputError(f"the paper timed on MOSEI alone, not on {COLUMNS[str(asked)]}; say --paper mosei or none")
        return "mosei", []
    named = recognised(data.name)
    column = asked or named
    if column is None:
        return None, [f"{data.name} is none of the paper's data sets, so no number of the paper stands beside ours."]
    if not _fits(column, data.task):
        wanted = "five classes" if column == "sdme" else "the classes negative, neutral, positive"
        text = f"the paper's numbers on {COLUMNS[column]} are of {wanted}, and {data.name} has {len(data.task.classes)}"
        if asked:
            raise InputError(f"{text} ({', '.join(data.task.classes)}); say --paper none")
        return None, [f"No number of the paper stands beside ours: {text}."]
    if (data.path / "truth.parquet").exists():
        return column, [SIMULATED if column == "sdme" else f"The clips are simulated and are not {COLUMNS[column]}."]
    if column != named:
        return column, [f"Whether {data.name} is the paper's {COLUMNS[column]} was said with --paper and not checked."]
    return column, []


def recognised(name: str) -> str | None:
    """The paper's data set that is called so, or None. CH-SIMS v2 is another data set than CH-SIMS."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    return None if "v2" in words else next((c for c, known in NAMES.items() if words & known), None)


def _fits(column: str, task: Task) -> bool:
    return len(task.classes) == 5 if column == "sdme" else task.classes == SENTIMENT
