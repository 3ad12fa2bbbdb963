"""Table 4 of the MRE paper: what training takes, and how many times MRE's that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from moodal.benchmark.comparison import Row
from moodal.benchmark.paper_table import (
    MISA_TEXT,
    REFERENCE,
    PaperScore,
    PaperTable,
    Ratio,
    count,
    mean_and_std,
    numbers,
)
from moodal.experiment import Run
from moodal.models import MODELS

TIMED = ("seconds_per_epoch", "epochs", "seconds", "parameters")
SHARED_BELOW = 0.8  # of the processor's time; what a run waits for the disk stays well above
TIMED_ALONE = (
    "one run at a time, each model in a process of its own (so --workers is 1: runs at the same time slow each other "
    "down, and their seconds would say nothing)"
)


def timing_table(dataset: str, runs: Sequence[Run], column: str | None, *, fixed_epochs: bool = False) -> PaperTable:
    """Seconds per epoch and in total, epochs and parameters of finished runs, and how many times MRE's they are."""
    models: dict[str, list[Run]] = {}
    for run in runs:
        models.setdefault(run.experiment.name, []).append(run)
    titles = {name: _title(found[0]) for name, found in models.items()}
    rows = tuple(row for name, found in models.items() for row in _timing_rows(name, titles[name], found))
    printed = numbers()["table4"]
    theirs = [
        PaperScore(name, "seconds", printed[name][column]["seconds"], None)
        for name in models
        if column is not None and name in printed  # a variant is not the paper's model
    ]
    made = PaperTable("table4", dataset, column, TIMED, titles, rows, tuple(theirs))
    return replace(
        made,
        ratios=_ratios(made),
        protocol=_timing_protocol(runs, fixed_epochs=fixed_epochs, column=column),
        notes=tuple(_timing_notes(models, titles)),
    )


def _title(run: Run) -> str:
    name, model = run.experiment.name, run.experiment.model
    return MODELS[model].title if name == model else f"{MODELS[model].title} ({name.partition('@')[2] or name})"


def _timing_rows(name: str, title: str, runs: Sequence[Run]) -> list[Row]:
    is_control = MODELS[runs[0].experiment.model].cls.is_control
    facts = [_timing(run) for run in runs]
    rows = []
    for metric in TIMED:
        values = [f[metric] for f in facts if f[metric] is not None]
        if values:
            mean, std = mean_and_std(values)
            rows.append(Row(name, title, is_control, metric, "train", mean, std, None, None, len(values)))
    return rows


def _timing(run: Run) -> dict[str, Any]:
    """Seconds are of the passes over train: all epochs, those after the choice on valid too (refit).

    A run that was killed timed the epochs of its last process only, hence total = epochs x seconds per epoch. What has
    no epochs is timed as a whole.
    """
    report, timing = run.report(), run.timing()
    epochs = report["epochs"]
    if epochs and run.experiment.training.refit:
        epochs += max(1, report["best_epoch"])
    per_epoch = timing["seconds_per_epoch"] if epochs else None
    total = epochs * per_epoch if per_epoch is not None else timing["seconds"]
    return {
        "seconds_per_epoch": per_epoch,
        "epochs": epochs,
        "seconds": total,
        "parameters": report["parameters"],
    }


def _ratios(t: PaperTable) -> tuple[Ratio, ...]:
    if REFERENCE not in t.titles:
        return ()
    ours = {(r.model, r.metric): r.mean for r in t.rows}
    theirs = {(p.model, p.metric): p.mean for p in t.paper}

    def times(means: Mapping[tuple[str, str], float], name: str, metric: str) -> float | None:
        a, b = means.get((name, metric)), means.get((REFERENCE, metric))
        return None if a is None or b is None else a / b

    return tuple(
        Ratio(
            name,
            REFERENCE,
            times(ours, name, "seconds_per_epoch"),
            times(ours, name, "seconds"),
            times(theirs, name, "seconds"),
        )
        for name in t.titles
        if name != REFERENCE
    )


def _timing_protocol(runs: Sequence[Run], *, fixed_epochs: bool, column: str | None) -> tuple[str, ...]:
    sizes, threads = ({getattr(r.experiment.training, k) for r in runs} for k in ("batch_size", "threads"))
    num_seeds = len({r.experiment.seed for r in runs})
    torch = sorted({str(r.timing().get("torch", "unknown")) for r in runs})
    stop = (
        "Every model was trained for the same number of epochs, to be timed: these runs are no result."
        if fixed_epochs
        else "Every model stopped when its score on valid had stopped rising, or at the most epochs allowed."
    )
    sentences = [
        f"Ours: {TIMED_ALONE}; {count(num_seeds, 'seed')}, {' or '.join(map(str, sorted(sizes)))} utterances per "
        f"batch, {' or '.join(count(n, 'thread') for n in sorted(threads))}, torch {' and '.join(torch)} on the CPU.",
        f"Seconds are of the passes over train alone: neither reading nor validating nor testing. {stop}",
    ]
    if column is not None:
        sentences.append(
            "The paper's seconds are of MOSEI on its authors' machine: only the ratios can be set beside ours."
        )
        if any(r.experiment.model == "misa" for r in runs):
            sentences.append(MISA_TEXT)
    return tuple(sentences)


def _timing_notes(models: Mapping[str, Sequence[Run]], titles: Mapping[str, str]) -> Iterable[str]:
    for name, runs in models.items():
        timings = [r.timing() for r in runs]
        crowds = {t.get("workers") for t in timings}
        if crowds - {1, None}:
            yield (
                f"{titles[name]} was trained with up to {max(c for c in crowds if c)} runs at a time: its seconds are "
                "too long; time it again in another --out."
            )
        if None in crowds:
            yield f"{titles[name]}: how many runs were trained at the same time was not noted then."
        wall, cpu = (sum(t.get(k, 0.0) for t in timings) for k in ("seconds", "cpu_seconds"))
        if cpu and cpu < SHARED_BELOW * wall:
            yield (
                f"{titles[name]} had the processor for {100 * cpu / wall:.0f} % of the time: something else was "
                "running, so its seconds are too long."
            )
        if not any(_timing(r)["epochs"] for r in runs):
            yield f"{titles[name]} is of closed form and has no epochs: its seconds are of the whole run."
    for key, words in (("batch_size", "batch sizes"), ("threads", "numbers of threads")):
        if len({getattr(r.experiment.training, key) for runs in models.values() for r in runs}) > 1:
            yield f"The runs have different {words}, so their seconds cannot be compared."
    if REFERENCE not in models:
        yield "MRE is not in the table, so there are no ratios to it."
