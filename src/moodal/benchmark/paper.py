"""The tables of the MRE paper made again: comparison (3), training time (4), ablation (5), its numbers beside ours.

Zhang et al. 2023, arXiv 2302.01555. Its numbers are data (``paper.toml``); they are printed and never computed with,
but for the ratios of table 4. ``paper_printing`` prints.

"Accuracy" and "F1" follow the paper. Where the classes are negative, neutral and positive they are of two classes,
positive against the rest (its MOSEI and SIMS columns); elsewhere of all classes (its SDME column).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moodal import metrics
from moodal.benchmark import statistics
from moodal.benchmark.comparison import Contrast, Row
from moodal.benchmark.results import ModelResult, Results, read_results
from moodal.benchmark.rounding import show
from moodal.benchmark.tables import RESAMPLES_PER_COMPARISON
from moodal.config import TRAINING_KEYS, Settings
from moodal.data.store import Dataset, read_dataset
from moodal.experiment import Run
from moodal.metrics import DESCRIPTIONS, SENTIMENT
from moodal.models import MODELS, options_of
from moodal.training.plan import plan_experiments, train_models
from moodal.types import InputError, Task, unknown

TABLES = {"table3": "comparison with other models", "table4": "training time", "table5": "ablation of the two losses"}
MODELS_OF = {
    "table3": ("tfn", "lmf", "ef_lstm", "mfn", "graph_mfn", "mult", "misa", "mre"),
    "table4": ("mult", "misa", "mre"),
    "table5": ("mre_baseline", "mre_rs", "mre_cnce", "mre"),
}
COLUMNS = {"mosei": "MOSEI", "sims": "SIMS", "sdme": "SDME"}
NAMES = {"mosei": {"mosei", "cmumosei"}, "sdme": {"sdme"}, "sims": {"sims", "chsims"}}
REFERENCE = "mre"
TIMED = ("seconds_per_epoch", "epochs", "seconds", "parameters")
RESAMPLES = 2000
SHARED_BELOW = 0.8  # of the processor's time; what a run waits for the disk stays well above

TIMED_ALONE = (
    "one run at a time, each model in a process of its own (so --workers is 1: runs at the same time slow each other "
    "down, and their seconds would say nothing)"
)
COLLAPSED = (
    "The paper's EF-LSTM on SIMS (69.37 / 56.82) is a collapsed model: these are exactly the scores of calling none of "
    "the 457 test clips positive (317 of them are not)."
)
SIMULATED = (
    "The paper's column is of the real SDME, which was never published. These clips are simulated with its class "
    "counts and agreement rates: other data, so the two cannot be compared number by number."
)


@dataclass(frozen=True, slots=True)
class PaperScore:
    """One number of the paper, beside our row ``model``: a fraction, or seconds (which have no ``std``)."""

    model: str
    metric: str
    mean: float
    std: float | None


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long as ``against`` a model trains: per epoch, in total, and in the paper."""

    model: str
    against: str
    seconds_per_epoch: float | None
    seconds: float | None
    paper: float | None


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper, ours and theirs.

    column: whose numbers of the paper stand beside ours (a key of ``COLUMNS``), None for nobody's; shown: metrics in
    the order of the columns; titles: by model, in the order of the rows; collapsed: model -> seeds that decide the same
    way for every test utterance; paired: in every shown metric, corrected (Holm) in the first.
    """

    table: str
    dataset: str
    column: str | None
    shown: tuple[str, ...]
    titles: Mapping[str, str]
    rows: tuple[Row, ...]
    paper: tuple[PaperScore, ...]
    paired: tuple[Contrast, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    collapsed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    protocol: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    command: str = ""

    def row(self, model: str, metric: str) -> Row | None:
        return next((r for r in self.rows if (r.model, r.metric) == (model, metric)), None)

    def paper_score(self, model: str, metric: str) -> PaperScore | None:
        return next((p for p in self.paper if (p.model, p.metric) == (model, metric)), None)


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


# Whose column.


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


# Scores: tables 3 and 5.


def score_table(table: str, results: Results, column: str | None, *, resamples: int = RESAMPLES) -> PaperTable:
    """Accuracy and F1 of finished runs by the paper's protocol, and each model against MRE."""
    shown = protocol_metrics(results.task)
    groups = results.groups if len(np.unique(results.groups)) > 1 else np.array(results.ids, dtype=np.str_)
    paired = _against_reference(table, results, shown, groups, resamples)
    collapsed = {m.name: seeds for m in results.models if (seeds := collapsed_seeds(m, results.task))}
    printed = numbers()[table]
    theirs = [
        PaperScore(m.name, metric, *(round(x / 100, 6) for x in printed[m.model][column][key]))
        for m in results.models
        for metric, key in zip(shown, ("accuracy", "f1"), strict=True)
        if column is not None and m.model in printed
    ]
    return PaperTable(
        table,
        results.dataset,
        column,
        shown,
        {m.name: m.title for m in results.models},
        tuple(_row(m, results, k, groups, resamples) for m in results.models for k in shown),
        tuple(theirs),
        paired,
        collapsed=collapsed,
        protocol=_score_protocol(results, shown, len(np.unique(groups)), paired, resamples),
        notes=tuple(_score_notes(table, results, shown, column, paired, collapsed)),
    )


def protocol_metrics(task: Task) -> tuple[str, str]:
    """What the paper calls accuracy and F1 where these classes are predicted."""
    return ("acc2_has0", "f1_has0") if task.classes == SENTIMENT else ("accuracy", "f1_weighted")


def collapsed_seeds(model: ModelResult, task: Task) -> tuple[int, ...]:
    """Seeds that decide the same way for every utterance, by the classes that the table's accuracy counts."""
    z = model.outputs  # (R, N, C)
    said = z[..., 2] > z[..., 0] if task.classes == SENTIMENT else z.argmax(-1)
    flags = [c or metrics.constant_prediction(x) for c, x in zip(model.constant, said, strict=True)]
    return tuple(s for s, flag in zip(model.seeds, flags, strict=True) if flag)


def _row(m: ModelResult, results: Results, metric: str, groups: npt.NDArray[np.str_], resamples: int) -> Row:
    values = [s[metric] for s in results.scores(m)]
    low, high = statistics.interval(m.outputs, results.y, results.task, metric, groups, resamples=resamples)
    mean, std = mean_and_std(values)
    return Row(m.name, m.title, m.is_control, metric, "test", mean, std, low, high, len(values))


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """The deviation has n - 1 in the denominator, and is 0 for one value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _against_reference(
    table: str, results: Results, shown: Sequence[str], groups: npt.NDArray[np.str_], resamples: int
) -> tuple[Contrast, ...]:
    """MRE minus each model, and in the ablation each variant minus MRE; Holm over the first metric."""
    models = {m.name: m for m in results.models}
    if REFERENCE not in models:
        return ()
    others = [name for name in models if name != REFERENCE]
    pairs = [(n, REFERENCE) if table == "table5" else (REFERENCE, n) for n in others]
    draws = max(resamples, RESAMPLES_PER_COMPARISON * len(pairs))
    found = []
    for metric in shown:
        tests = [
            statistics.paired(
                models[a].outputs, models[b].outputs, results.y, results.task, metric, groups, resamples=draws
            )
            for a, b in pairs
        ]
        corrected: Sequence[float | None] = [None] * len(tests)
        if metric == shown[0]:
            corrected = statistics.holm([t.p for t in tests])
        found += [
            Contrast(a, b, table, metric, t.difference, t.low, t.high, t.p, t.p_runs, p_holm)
            for (a, b), t, p_holm in zip(pairs, tests, corrected, strict=True)
        ]
    return tuple(found)


def _score_protocol(
    results: Results, shown: tuple[str, ...], num_groups: int, paired: Sequence[Contrast], resamples: int
) -> tuple[str, ...]:
    n, counts = len(results.ids), sorted({len(m.seeds) for m in results.models})
    seeds = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else _count(counts[0], "seed")
    spread = "mean ± standard deviation (n - 1) over them" if counts != [1] else "so nothing is known of another's"
    folds = f", {results.folds} folds pooled" if results.folds else ""
    again = ", after training again on train + valid" if any(m.training.get("refit") for m in results.models) else ""
    drawn = "seeds and groups together" if counts != [1] else "groups, for the one run at hand"
    pairs = len({(c.model, c.against) for c in paired})
    family = f"; p_holm is corrected over the {_count(pairs, 'comparison')} in accuracy" if pairs else ""
    return (
        f"Ours: {n} test utterances{f' in {num_groups} groups' if num_groups < n else ''}{folds}; {seeds} per model, "
        f"{spread}. Epochs were chosen on valid only, and test was predicted once per run{again}.",
        f"[low, high]: 95 % intervals, percentiles of {resamples} bootstrap resamples of {drawn}. Differences are of "
        f"the same utterances and the same resamples{family}.",
        f"Accuracy ({shown[0]}): {DESCRIPTIONS[shown[0]]}. F1 ({shown[1]}): {DESCRIPTIONS[shown[1]]}.",
    )


def _score_notes(
    table: str,
    results: Results,
    shown: tuple[str, str],
    column: str | None,
    paired: Sequence[Contrast],
    collapsed: Mapping[str, Sequence[int]],
) -> Iterable[str]:
    if (table, column) == ("table3", "sims"):
        yield COLLAPSED
    if collapsed:
        titles = {m.name: m.title for m in results.models}
        who = [f"{titles[name]} (seed {', '.join(map(str, seeds))})" for name, seeds in collapsed.items()]
        yield f"One class for every test utterance, so nothing was learned there: {'; '.join(who)}."
    answer, scores = _constant_answer(results, shown)
    values = " and ".join(f"{show(scores[k], k)} {name}" for k, name in zip(shown, ("accuracy", "F1"), strict=True))
    yield f"Saying {answer} of every utterance reaches {values} here."
    if not paired and len(results.models) > 1:
        yield "MRE is not in the table, so no differences to it were tested."
    yield from results.notes


def _constant_answer(results: Results, shown: tuple[str, str]) -> tuple[str, dict[str, float]]:
    """The one answer to every utterance that is right most often, in the classes of the table, and its scores."""
    classes = results.task.classes
    logits = np.eye(len(classes))[:, None].repeat(len(results.y), 1)  # (C answers, N, C)
    found = [metrics.scores(z, results.y, results.task) for z in logits]
    best = max(range(len(classes)), key=lambda c: found[c][shown[0]])
    if classes == SENTIMENT:
        return "'positive'" if best == 2 else "'not positive'", found[best]
    return repr(classes[best]), found[best]


# Seconds: table 4.


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


def timing_table(dataset: str, runs: Sequence[Run], column: str | None, *, fixed_epochs: bool = False) -> PaperTable:
    """Seconds per epoch and in total, epochs and parameters of finished runs, and how many times MRE's they are."""
    models: dict[str, list[Run]] = {}
    for run in runs:
        models.setdefault(run.experiment.name, []).append(run)
    titles = {name: _title(found[0]) for name, found in models.items()}
    rows = tuple(row for name, found in models.items() for row in _timing_rows(name, titles[name], found))
    printed = numbers()["table4"]
    of = {name: found[0].experiment.model for name, found in models.items()}
    theirs = [
        PaperScore(name, "seconds", printed[model][column]["seconds"], None)
        for name, model in of.items()
        if column is not None and model in printed
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
    count = len({r.experiment.seed for r in runs})
    torch = sorted({str(r.timing().get("torch", "unknown")) for r in runs})
    stop = (
        "Every model was trained for the same number of epochs, to be timed: these runs are no result."
        if fixed_epochs
        else "Every model stopped when its score on valid had stopped rising, or at the most epochs allowed."
    )
    sentences = [
        f"Ours: {TIMED_ALONE}; {_count(count, 'seed')}, {' or '.join(map(str, sorted(sizes)))} utterances per batch, "
        f"{' or '.join(_count(n, 'thread') for n in sorted(threads))}, torch {' and '.join(torch)} on the CPU.",
        f"Seconds are of the passes over train alone: neither reading nor validating nor testing. {stop}",
    ]
    if column is not None:
        sentences.append(
            "The paper's seconds are of MOSEI on its authors' machine: only the ratios can be set beside ours."
        )
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


def numbers() -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """What the paper prints: table -> model -> data set -> {"accuracy": [mean, std], ..} in percent, or seconds."""
    found: dict[str, Any] = tomllib.loads(
        resources.files("moodal.benchmark").joinpath("paper.toml").read_text(encoding="utf-8")
    )
    return found


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("s" if n != 1 else "")
