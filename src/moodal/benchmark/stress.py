"""What is left of trained models when their test clips get worse: every finished run predicts every corruption.

Severity 0 is what the runs saved when they were trained. A clip is predicted again only where its input has changed
since the severity before, and only by models that read the changed modality; both are exact, because no model lets
clips see each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moodal import metrics
from moodal.batch import Batch, Ragged
from moodal.benchmark import statistics
from moodal.benchmark.comparison import main_metric
from moodal.benchmark.corruptions import CORRUPTIONS, Setting, corrupt, deviation_of
from moodal.benchmark.results import Array, ModelResult, Results, read_results
from moodal.benchmark.tables import NO_INTERVAL
from moodal.data.store import Dataset, read_dataset
from moodal.experiment import load_model
from moodal.files import read_json
from moodal.metrics import HIGHER_IS_BETTER
from moodal.models import FusionModel
from moodal.training.loop import predict, random_seed
from moodal.training.processes import training_numerics
from moodal.training.runs import split_rows
from moodal.types import InputError, Task, WorkError, unknown

REFERENCE = "mre"
CONTROLS = ("text_only", "audio_only", "vision_only", "late_average")
METRICS = {"classification": ("accuracy", "f1_weighted", "nll", "ece"), "regression": ("mae", "corr")}
ALL = "all"  # the subset of all modalities
RESAMPLES = 1000
CHECKED = 16  # clips a loaded model predicts again, to see that it is the one that was saved
TOLERANCE = 1e-3  # of its logits, relative to the largest: batches of other sizes round otherwise
THREADS = 2  # runs that predict at the same time

Condition = tuple[str, str, int]  # corruption, subset, severity
OnChange = Callable[[int, int, str], None]  # how many conditions are done, of how many, which is under way


@dataclass(frozen=True, slots=True)
class StressRow:
    """One metric of one model under one condition; ``low`` and ``high`` bound the 95 % interval (None for ece)."""

    model: str
    corruption: str
    modalities: str
    severity: int
    metric: str
    mean: float
    std: float
    low: float | None
    high: float | None
    num_runs: int


@dataclass(frozen=True, slots=True)
class StressSummary:
    """One model. ``mean``, ``area`` and the differences are of the main metric; see ``StressReport.protocol``.

    worst_at: corruption, modalities and severity of ``worst``; retention: mean / clean; area: of every corruption's
    curve; ece, nll and aurc (area under the risk-coverage curve) clean and as a mean over corruptions, None for
    scores; difference: mean corrupted score minus that of ``against``, None for the reference itself.
    """

    model: str
    title: str
    is_control: bool
    metric: str
    clean: float
    mean: float
    worst: float
    worst_at: tuple[str, str, int]
    retention: float | None
    area: Mapping[str, float]
    clean_ece: float | None
    mean_ece: float | None
    clean_nll: float | None
    mean_nll: float | None
    clean_aurc: float | None
    mean_aurc: float | None
    against: str | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class StressReport:
    """What a stress test found. rows: every model, corruption, subset of modalities, severity and metric.

    titles: by model, candidates before controls; levels: what each severity of a corruption means.
    """

    dataset: str
    task: Task
    num_clips: int
    titles: Mapping[str, str]
    controls: tuple[str, ...]
    levels: Mapping[str, Mapping[int, float]]
    rows: tuple[StressRow, ...]
    summary: tuple[StressSummary, ...]
    protocol: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def main(self) -> str:
        return main_metric(self.task)

    @property
    def subsets(self) -> tuple[str, ...]:
        """Each modality alone, and all."""
        return tuple(dict.fromkeys(r.modalities for r in self.rows))

    def curve(self, model: str, corruption: str, modalities: str, metric: str) -> dict[int, float]:
        """Mean by severity; empty where there is none."""
        wanted = (model, corruption, modalities, metric)
        return {r.severity: r.mean for r in self.rows if (r.model, r.corruption, r.modalities, r.metric) == wanted}

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` prints: fractions, never rounded, never NaN."""
        return {
            "dataset": self.dataset,
            "protocol": " ".join(self.protocol),
            "rows": [asdict(r) for r in self.rows],
            "summary": [{**asdict(s), "worst_at": list(s.worst_at)} for s in self.summary],
            "metric": self.main,
            "num_clips": self.num_clips,
            "titles": dict(self.titles),
            "controls": list(self.controls),
            "levels": {name: {str(s): v for s, v in by.items()} for name, by in self.levels.items()},
            "notes": list(self.notes),
        }


def stress_models(
    runs: Path,
    models: Sequence[str] | None = None,
    corruptions: Sequence[str] | None = None,
    severities: Sequence[int] | None = None,
    max_clips: int | None = None,
    on_change: OnChange | None = None,
) -> StressReport:
    """Every seed and fold of ``models`` (None: all that are finished) and of the controls, on corrupted test clips.

    severities: those of each corruption that are asked for, besides 0; max_clips: so many test clips, chosen by a hash
    of their ids.
    """
    plan = _plan(corruptions, severities)
    results = read_results(runs, _with_controls(runs, models))
    data = _dataset(results)
    kept = _chosen_clips(results.ids, max_clips)
    outputs = _Predictions(results, data, kept, plan, on_change).run()
    return _report(results, kept, plan, outputs)


def _plan(corruptions: Sequence[str] | None, severities: Sequence[int] | None) -> dict[str, tuple[int, ...]]:
    """The severities of each corruption, 0 among them."""
    names = list(CORRUPTIONS) if corruptions is None else list(dict.fromkeys(corruptions))
    for name in names:
        if name not in CORRUPTIONS:
            raise unknown("corruption", name, CORRUPTIONS)
    known = {name: range(1, len(CORRUPTIONS[name].levels)) for name in names}
    wanted = None if severities is None else {int(s) for s in severities} - {0}
    most = max((len(r) for r in known.values()), default=0)
    if not names or wanted == set() or any(not 1 <= s <= most for s in wanted or ()):
        raise InputError(
            f"a stress test needs corruptions and severities from 1 to {most or 5}, got {list(severities or ())} for "
            f"{', '.join(names) or 'no corruption'}"
        )
    plan = {name: (0, *(s for s in r if wanted is None or s in wanted)) for name, r in known.items()}
    return {name: s for name, s in plan.items() if len(s) > 1}


def _with_controls(runs: Path, models: Sequence[str] | None) -> list[str] | None:
    if models is None:
        return None
    there = [c for c in CONTROLS if c not in models and any((runs / c).glob("seed-*/**/report.json"))]
    return [*dict.fromkeys(models), *there]


def _dataset(results: Results) -> Dataset:
    """The data set that the runs were trained on, unchanged."""
    path = Path(results.path)
    if not path.exists():
        raise InputError(
            f"{results.root} was trained on {path}, which does not exist here; a stress test needs its features"
        )
    data = read_dataset(path, task=results.task.kind)
    if any(read_json(f)["fingerprint"] != data.fingerprint for _, _, f in _run_files(results, "experiment.json")):
        raise InputError(f"{path} has changed since {results.root} was trained on it; train the runs again")
    return data


def _run_files(results: Results, name: str) -> Iterator[tuple[ModelResult, int | None, Path]]:
    """(model, fold, file) of every run."""
    for model in results.models:
        for seed in model.seeds:
            for fold in range(results.folds) if results.folds else [None]:
                yield model, fold, _run_folder(results, model.name, seed, fold) / name


def _run_folder(results: Results, name: str, seed: int, fold: int | None) -> Path:
    folder = results.root / name / f"seed-{seed}"
    return folder if fold is None else folder / f"fold-{fold}"


def _chosen_clips(ids: Sequence[str], max_clips: int | None) -> npt.NDArray[np.int64]:
    """Positions in ``ids``, in order."""
    if max_clips is None or max_clips >= len(ids):
        return np.arange(len(ids))
    if max_clips < 2:
        raise InputError(f"a stress test needs two clips or more, got max_clips={max_clips}")
    by_chance = sorted(range(len(ids)), key=lambda i: random_seed("stress", ids[i]))
    return np.array(sorted(by_chance[:max_clips]))


# Predictions.


@dataclass(frozen=True)
class _Run:
    """A loaded model and what it said of the clean clips of its fold: (n, C)."""

    name: str
    seed: int
    model: FusionModel
    clean: Array


class _Predictions:
    """All conditions of all runs; ``run`` gives (R, N, C) by model and condition, clips in the order of ``kept``."""

    def __init__(
        self,
        results: Results,
        data: Dataset,
        kept: npt.NDArray[np.int64],
        plan: Mapping[str, Sequence[int]],
        on_change: OnChange | None,
    ) -> None:
        self.results, self.data, self.kept, self.plan = results, data, kept, plan
        self.position = {results.ids[i]: k for k, i in enumerate(kept.tolist())}  # id -> column of the outputs
        self.folds: list[int | None] = list(range(results.folds)) if results.folds else [None]
        self.rows = {fold: split_rows(data, fold) for fold in self.folds}
        self.clean = {m.name: m.outputs[:, kept].astype(np.float32) for m in results.models}
        self.outputs: dict[str, dict[Condition, Any]] = {m.name: {} for m in results.models}
        self.on_change = on_change
        self.done = 0
        self.total = len(self.folds) * sum(len(s) - 1 for s in plan.values())

    def run(self) -> dict[str, dict[Condition, Any]]:
        tests = self._tests()
        with training_numerics(1), ThreadPoolExecutor(THREADS, initializer=_same_numerics) as pool:
            for fold in self.folds:
                if len(tests[fold].donors):
                    self._fold(fold, tests.pop(fold), pool)
        return self.outputs

    def _tests(self) -> dict[int | None, Setting]:
        """The raw test clips of every fold, with the deviations of its training split. One modality is read at a time,
        and of it only the test clips are kept."""
        tests = {
            fold: rows["test"][[self.data.utterances[i].id in self.position for i in rows["test"].tolist()]]
            for fold, rows in self.rows.items()
        }
        inputs: dict[int | None, dict[str, Ragged]] = {fold: {} for fold in self.folds}
        deviation: dict[int | None, dict[str, Tensor]] = {fold: {} for fold in self.folds}
        for m in self.data.modalities:
            x = self.data.read([m]).inputs[m]
            for fold, index in tests.items():
                deviation[fold][m] = deviation_of(x.select(self.rows[fold]["train"]))
                chosen = x.select(index)
                inputs[fold][m] = Ragged(chosen.values, chosen.lengths)
        names = [u.id for u in self.data.utterances]
        return {
            fold: Setting(
                deviation[fold],
                Batch(inputs[fold], self.data.labels[index], ids=[names[i] for i in index.tolist()]),
                self.results.task,
            )
            for fold, index in tests.items()
        }

    def _fold(self, fold: int | None, setting: Setting, pool: ThreadPoolExecutor) -> None:
        batch = setting.donors
        columns = np.array([self.position[i] for i in batch.ids])
        runs = [
            _loaded(_run_folder(self.results, m.name, seed, fold), m.name, i, self.clean[m.name][i, columns], batch)
            for m in self.results.models
            for i, seed in enumerate(m.seeds)
        ]
        clean = _Reduced(batch)
        for name, severities in self.plan.items():
            before = batch
            said = {subset: [run.clean for run in runs] for subset in self._subsets(name)}
            for severity in severities[1:]:
                if self.on_change:
                    self.on_change(self.done, self.total, f"{name}, severity {severity}")
                after = corrupt(batch, name, self.data.modalities, severity, setting)
                changed = {m: differs(before.inputs[m], x) for m, x in after.inputs.items()}
                reduced = _Reduced(after)
                for subset, of in self._subsets(name).items():
                    jobs = [
                        pool.submit(_predicted, run.model, clean, reduced, of, changed, outputs)
                        for run, outputs in zip(runs, said[subset], strict=True)
                    ]
                    said[subset] = [job.result() for job in jobs]
                    self._keep((name, subset, severity), runs, said[subset], columns)
                before = after
                self.done += 1

    def _subsets(self, corruption: str) -> dict[str, tuple[str, ...]]:
        """Each modality alone and all together; protocols of the field are for all."""
        every = {ALL: self.data.modalities}
        if CORRUPTIONS[corruption].jointly or len(self.data.modalities) == 1:
            return every
        return {**{m: (m,) for m in self.data.modalities}, **every}

    def _keep(
        self, condition: Condition, runs: Sequence[_Run], said: Sequence[Array], columns: npt.NDArray[np.int64]
    ) -> None:
        for run, outputs in zip(runs, said, strict=True):
            if not np.isfinite(outputs).all():
                name, subset, severity = condition
                raise WorkError(
                    f"{run.name}: a prediction is not finite under {name} of {subset}, severity {severity}; "
                    "look at its features, or leave that corruption out"
                )
            whole = self.outputs[run.name].setdefault(condition, np.empty_like(self.clean[run.name]))
            whole[run.seed, columns] = outputs


def _same_numerics() -> None:
    """A new thread does not inherit how its parent computes."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


class _Reduced:
    """A raw batch as models' ``reduce`` leaves it; what two models reduce alike is reduced once."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.found: dict[tuple[str, str, int], Ragged] = {}

    def __call__(self, model: FusionModel, modality: str) -> Ragged:
        pooling = model.pooling[modality]
        key = (modality, pooling, model.max_steps if pooling == "none" else 0)
        if key not in self.found:
            self.found[key] = model.reduce(modality, self.batch.inputs[modality])
        return self.found[key]


def _loaded(folder: Path, name: str, seed: int, clean: Array, batch: Batch) -> _Run:
    """The model in a run folder, which must say of the first clips what it said when it was trained."""
    model = load_model(folder)
    strangers = [m for m in model.modalities if m not in batch.inputs]
    if strangers:
        raise InputError(f"{folder} reads {strangers[0]}, which the data set does not have; train it again")
    first = torch.arange(min(CHECKED, len(batch)))
    again = predict(model, batch.select(first)).logits.numpy()
    if not np.allclose(again, clean[: len(first)], rtol=0, atol=TOLERANCE * max(1.0, float(np.abs(clean).max()))):
        raise InputError(f"{folder}: the saved model no longer gives the predictions beside it; train the run again")
    return _Run(name, seed, model, clean)


def _predicted(
    model: FusionModel,
    clean: _Reduced,
    corrupted: _Reduced,
    modalities: Sequence[str],
    changed: Mapping[str, Tensor],
    outputs: Array,
) -> Array:
    """``outputs`` of the severity before, and new ones for the clips that have changed in what the model reads."""
    hit = [m for m in model.modalities if m in modalities]
    rows = torch.nonzero(sum((changed[m].long() for m in hit), torch.zeros(len(clean.batch), dtype=torch.int64)))[:, 0]
    if not len(rows):
        return outputs
    inputs = {m: (corrupted if m in hit else clean)(model, m).select(rows) for m in model.modalities}
    new = outputs.copy()
    new[rows.numpy()] = predict(model, Batch(inputs, stage="reduced")).logits.numpy()
    return new


def differs(a: Ragged, b: Ragged) -> Tensor:
    """(B,) bool: whether an utterance's steps are not the same, bit for bit."""
    found = a.lengths != b.lengths
    alike = torch.nonzero(~found)[:, 0]
    x, y = a.select(alike), b.select(alike)
    other = (x.values != y.values).any(1)
    found[alike[x.owner[other]]] = True
    return found


# Scores.


def _report(
    results: Results,
    kept: npt.NDArray[np.int64],
    plan: Mapping[str, Sequence[int]],
    outputs: Mapping[str, Mapping[Condition, Array]],
) -> StressReport:
    y, task = results.y[kept], results.task
    names = results.groups[kept]
    alone = len(np.unique(names)) < 2
    groups = np.array(results.ids, dtype=np.str_)[kept] if alone else names
    models = sorted(results.models, key=lambda m: m.is_control)
    rows: list[StressRow] = []
    for m in models:
        rows += _rows(m, kept, y, groups, plan, outputs[m.name], task)
    weights = _weights(outputs[models[0].name])
    reference = REFERENCE if any(m.name == REFERENCE for m in models) else models[0].name
    losses = {m.name: _mean_loss(outputs[m.name], y, task, weights) for m in models}
    paired = _paired(losses, reference, groups, task)
    summary = tuple(_summary(m, rows, kept, y, outputs[m.name], task, weights, reference, paired) for m in models)
    controls = tuple(m.name for m in models if m.is_control)
    return StressReport(
        results.dataset,
        task,
        len(kept),
        {m.name: m.title for m in models},
        controls,
        {name: {s: CORRUPTIONS[name].levels[s] for s in severities} for name, severities in plan.items()},
        tuple(rows),
        summary,
        _protocol(results, models, len(kept), len(np.unique(groups)), alone, plan, reference),
        (*results.notes, *_notes(results, models, plan)),
    )


def _rows(
    model: ModelResult,
    kept: npt.NDArray[np.int64],
    y: npt.NDArray[Any],
    groups: npt.NDArray[np.str_],
    plan: Mapping[str, Sequence[int]],
    outputs: Mapping[Condition, Array],
    task: Task,
) -> list[StressRow]:
    """Clean and corrupted, in the order of ``plan``; where nothing has changed, the clean numbers stand again."""
    clean = model.outputs[:, kept]
    measures = metrics.measures(task)

    def scored(said: Array) -> dict[str, tuple[float, float, float | None, float | None]]:
        found = {}
        for metric in METRICS[task.kind]:
            values = np.atleast_1d(measures[metric](said, y))
            low, high = None, None
            if metric not in NO_INTERVAL:
                low, high = statistics.interval(said, y, task, metric, groups, resamples=RESAMPLES)
            std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            found[metric] = float(values.mean()), std, low, high
        return found

    clean_scores = scored(clean)
    as_it_was = clean.astype(np.float32)
    rows = []
    for name, severities in plan.items():
        for subset in dict.fromkeys(c[1] for c in outputs if c[0] == name):
            for severity in severities:
                said = as_it_was if severity == 0 else outputs[name, subset, severity]
                same = severity == 0 or np.array_equal(said, as_it_was)
                numbers = clean_scores if same else scored(said.astype(np.float64))
                rows += [
                    StressRow(model.name, name, subset, severity, metric, *values, len(model.seeds))
                    for metric, values in numbers.items()
                ]
    return rows


def _weights(conditions: Mapping[Condition, Any]) -> dict[Condition, float]:
    """Shares that add up to 1: corruptions count alike, in them subsets of modalities, in these severities."""
    names = {c[0] for c in conditions}
    subsets = {n: {c[1] for c in conditions if c[0] == n} for n in names}
    severities = {(n, s): sum(c[:2] == (n, s) for c in conditions) for n in names for s in subsets[n]}
    return {c: 1 / (len(names) * len(subsets[c[0]]) * severities[c[0], c[1]]) for c in conditions}


def _mean_loss(
    outputs: Mapping[Condition, Array], y: npt.NDArray[Any], task: Task, weights: Mapping[Condition, float]
) -> Array:
    """(R, N) how often a clip's corruptions are answered wrong, or how far off its scores are."""
    total = sum(w * _loss(outputs[c].astype(np.float64), y, task) for c, w in weights.items())
    return np.asarray(total, np.float64)


def _loss(said: Array, y: npt.NDArray[Any], task: Task) -> Array:
    """(R, N) whose mean over clips is 1 - accuracy, or the mae."""
    if task.classes:
        return np.asarray(said.argmax(-1) != y, np.float64)
    return np.asarray(metrics.measures(task)["mae"].terms(said, y)[..., 0])


def _paired(
    losses: Mapping[str, Array], reference: str, groups: npt.NDArray[np.str_], task: Task
) -> dict[str, tuple[float, float, float, float, float]]:
    """By model: difference of the mean corrupted score to the reference's, its interval, p, and p after Holm."""
    others = [name for name in losses if name != reference]
    # a mean over clips is the mean absolute error against zero: intervals and p are those of every other table
    zero, plain = np.zeros(losses[reference].shape[1]), Task(low=0.0, high=2.0)
    tests = [
        statistics.paired(
            losses[name][..., None], losses[reference][..., None], zero, plain, "mae", groups, resamples=2 * RESAMPLES
        )
        for name in others
    ]
    corrected = statistics.holm([t.p for t in tests]) if tests else []
    found = {}
    for name, t, p_holm in zip(others, tests, corrected, strict=True):
        difference, low, high = (-t.difference, -t.high, -t.low) if task.classes else (t.difference, t.low, t.high)
        found[name] = (difference, low, high, t.p, p_holm)
    return found


def _summary(
    model: ModelResult,
    rows: Sequence[StressRow],
    kept: npt.NDArray[np.int64],
    y: npt.NDArray[Any],
    outputs: Mapping[Condition, Array],
    task: Task,
    weights: Mapping[Condition, float],
    reference: str,
    paired: Mapping[str, tuple[float, float, float, float, float]],
) -> StressSummary:
    metric = main_metric(task)
    mine = [r for r in rows if r.model == model.name]
    of = {
        k: {(r.corruption, r.modalities, r.severity): r.mean for r in mine if r.metric == k} for k in METRICS[task.kind]
    }

    def clean(k: str) -> float | None:
        return next(v for c, v in of[k].items() if c[2] == 0) if k in of else None

    def mean(k: str) -> float | None:
        return sum(w * of[k][c] for c, w in weights.items()) if k in of else None

    main_clean, main_mean = clean(metric), mean(metric)
    assert main_clean is not None
    assert main_mean is not None
    corrupted = {c: v for c, v in of[metric].items() if c[2] > 0}
    worst_at = (min if HIGHER_IS_BETTER[metric] else max)(corrupted, key=lambda c: corrupted[c])
    difference, low, high, p, p_holm = paired.get(model.name, (None,) * 5)
    curve = model.outputs[:, kept]
    return StressSummary(
        model.name,
        model.title,
        model.is_control,
        metric,
        main_clean,
        main_mean,
        corrupted[worst_at],
        worst_at,
        main_mean / main_clean if main_clean else None,
        _areas(of[metric]),
        clean("ece"),
        mean("ece"),
        clean("nll"),
        mean("nll"),
        aurc(curve, y) if task.classes else None,
        sum(w * aurc(outputs[c], y) for c, w in weights.items()) if task.classes else None,
        None if model.name == reference else reference,
        difference,
        low,
        high,
        p,
        p_holm,
    )


def _areas(scores: Mapping[Condition, float]) -> dict[str, float]:
    """Area under each corruption's curve from severity 0 to its highest, as a share of that width: the mean height by
    the trapezoid rule. Averaged over the subsets of modalities."""
    found: dict[str, list[float]] = {}
    for name, subset in dict.fromkeys((c[0], c[1]) for c in scores):
        points = sorted((c[2], v) for c, v in scores.items() if c[:2] == (name, subset))
        x, height = (np.array(v, np.float64) for v in zip(*points, strict=True))
        found.setdefault(name, []).append(float((height[1:] + height[:-1]) @ np.diff(x) / 2 / (x[-1] - x[0])))
    return {name: float(np.mean(v)) for name, v in found.items()}


def aurc(logits: Array, y: npt.NDArray[Any]) -> float:
    """Area under the risk-coverage curve, a mean over runs: the error of the k clips the model is surest of, averaged
    over k = 1..N (Geifman and El-Yaniv, ICLR 2019). logits: (R, N, C). Clips it is equally sure of come in any order,
    so each counts with their mean error."""
    found = []
    for z in np.asarray(logits, np.float64):
        sure = np.exp(z - z.max(-1, keepdims=True))
        confidence = 1 / sure.sum(-1)  # of the top class, whose own term is 1
        values, owner = np.unique(-confidence, return_inverse=True)  # the surest first
        wrong = (z.argmax(-1) != y).astype(np.float64)
        count = np.bincount(owner, minlength=len(values))
        share = np.bincount(owner, weights=wrong) / count
        risk = np.cumsum(np.repeat(share, count)) / np.arange(1, len(y) + 1)
        found.append(risk.mean())
    return float(np.mean(found))


# Words.


def _protocol(
    results: Results,
    models: Sequence[ModelResult],
    clips: int,
    groups: int,
    alone: bool,
    plan: Mapping[str, Sequence[int]],
    reference: str,
) -> tuple[str, ...]:
    unit, main = "utterance" if alone else "group", main_metric(results.task)
    seeds = sorted({len(m.seeds) for m in models})
    folds = f", {results.folds} folds each" if results.folds else ""
    title = next(m.title for m in models if m.name == reference)
    return (
        f"{clips} of {len(results.ids)} test utterances in {groups} {unit}s, raw features corrupted as a hash of each "
        f"id says; models as they were trained, {' to '.join(map(str, seeds))} seeds{folds}.",
        f"Mean: every corruption counts the same, in it every subset of modalities (each alone, and all), in it every "
        f"severity above 0. Worst: the {'lowest' if HIGHER_IS_BETTER[main] else 'highest'} {main} of a single "
        "condition. Retention: mean / clean.",
        "A model that does not read the corrupted modality is not hit: a model of one modality is spared where another "
        "is corrupted alone, and its mean says so.",
        "Area: under a corruption's curve from severity 0 to its highest, by the trapezoid rule, per unit of severity.",
        f"Intervals (95 %) and differences to {title} are of a bootstrap that draws seeds and {unit}s; p is corrected "
        f"over the models (Holm, {max(1, len(models) - 1)}).",
        *(
            [
                "AURC: error among the answers a model is surest of, averaged over how many are answered; lower is "
                "better, and chance is the error itself. ECE and NLL are of the logits as they are, without "
                "temperature."
            ]
            if results.task.classes
            else []
        ),
        *(
            ["Dropped steps are left out; MMSA, TFR-Net and LNLN write zeros in their place."]
            if {"drop_steps", "random_missing"} & plan.keys()
            else []
        ),
    )


def _notes(results: Results, models: Sequence[ModelResult], plan: Mapping[str, Sequence[int]]) -> list[str]:
    there = {m.name for m in models}
    notes = []
    if not there & set(CONTROLS):
        notes.append(
            "No control is among these runs, so nothing says what a simple model would keep; train them with "
            f"moodal compare {results.path} --models {','.join(CONTROLS)} --out {results.root}."
        )
    if REFERENCE not in there:
        notes.append(f"There are no runs of {REFERENCE}; differences are to {models[0].title}.")
    if {"opposite"} & plan.keys() and not results.task.classes:
        notes.append("Another class means, for scores, another side of the middle of the interval.")
    return notes
