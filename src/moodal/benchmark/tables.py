"""The table of a benchmark: means, intervals, paired comparisons, and the verdict in words.

Scores stay fractions in a ``Comparison`` and in its JSON and CSV; only the tables made for people round them.
Two choices keep the verdict honest. The yardstick is the control with the best *test* score, chosen in hindsight, which
favours the control. The candidate is the one with the best *valid* score, so that the test set has not chosen it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moodal import metrics
from moodal.benchmark import statistics
from moodal.benchmark.results import ModelResult, Results
from moodal.metrics import DESCRIPTIONS, HIGHER_IS_BETTER
from moodal.types import InputError, Task, unknown

ALPHA = 0.05
RESAMPLES_PER_COMPARISON = 200  # Holm multiplies the smallest p by the family; fewer draws could never get below ALPHA
FEW_GROUPS = 10
ABLATIONS_OF = {"mre": ("mre_baseline", "mre_rs", "mre_cnce")}
PLAIN_UNITS = ("nll", "mae", "corr")  # all other metrics are shares, printed in percent
NO_INTERVAL = ("ece",)  # a sum of absolute values is larger on any resample, so the interval would lie too high
SHOWN = {
    "classification": ("accuracy", "f1_weighted", "f1_macro", "nll"),
    "sentiment": ("accuracy", "f1_weighted", "acc2_has0", "f1_has0", "nll"),
    "regression": ("mae", "corr", "acc2_has0", "f1_has0", "mult_acc2", "mult_f1", "acc7"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One score of one model. ``low`` and ``high`` bound the 95 % interval; None on valid, where models were chosen."""

    model: str
    title: str
    is_control: bool
    metric: str
    split: str
    mean: float
    std: float
    low: float | None
    high: float | None
    num_runs: int


@dataclass(frozen=True, slots=True)
class Contrast:
    """``model`` minus ``against`` on test, whichever way is better.

    family: "controls" (candidate against control) or "ablations" (variant against the full model); p_holm: corrected
    within the family, for the main metric only; p_runs: of the trained models at hand, see ``statistics.Paired``.
    """

    model: str
    against: str
    family: str
    metric: str
    difference: float
    low: float
    high: float
    p: float
    p_runs: float
    p_holm: float | None


@dataclass(frozen=True)
class Comparison:
    """All that a report says of ``Results``, in numbers and in sentences.

    titles: by model name, candidates before controls; shown: metrics of the printed tables, the main one first;
    best_candidate (by valid) and best_control (by test): by metric; constant: name -> seeds (or folds of them) that say
    the same of every utterance; limits: metric scores of "bayes", "best_single" and "constant", where known.
    """

    dataset: str
    task: Task
    titles: Mapping[str, str]
    controls: tuple[str, ...]
    shown: tuple[str, ...]
    rows: tuple[Row, ...]
    paired: tuple[Contrast, ...]
    best_candidate: Mapping[str, str]
    best_control: Mapping[str, str]
    limits: Mapping[str, Mapping[str, Any]]
    constant_answer: str
    share_of_gap: Mapping[str, float]
    relevance: Mapping[str, Mapping[str, float]]
    constant: Mapping[str, tuple[int, ...]]
    verdict: tuple[str, ...]
    protocol: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def main(self) -> str:
        """The metric that decides: accuracy, or the mean absolute error of scores."""
        return main_metric(self.task)

    def row(self, model: str, metric: str, split: str = "test") -> Row | None:
        """The one row of this model, metric and split; None where the metric is not defined on these utterances."""
        return next((r for r in self.rows if (r.model, r.metric, r.split) == (model, metric, split)), None)


def main_metric(task: Task) -> str:
    return "accuracy" if task.classes else "mae"


def compare_results(
    results: Results, *, metrics_shown: Sequence[str] | None = None, resamples: int = 2000
) -> Comparison:
    """Scores, intervals, differences and the verdict of all models in ``results``.

    metrics_shown: columns of the printed tables after the main metric; None takes those the field reports.
    """
    task, main = results.task, main_metric(results.task)
    shown = _shown(task, metrics_shown)
    models = sorted(results.models, key=lambda m: m.is_control)  # stable: each part stays in the order of the zoo
    groups, fallback = _groups(results)
    rows = _rows(results, models, shown, groups, resamples)
    controls = tuple(m.name for m in models if m.is_control)
    candidates = tuple(m.name for m in models if not m.is_control)
    deciding = [k for k in (main, _second_metric(task)) if any(r.metric == k for r in rows)]
    best_candidate = {k: _best(rows, candidates, k, "valid") for k in deciding if candidates}
    best_control = {k: _best(rows, controls, k, "test") for k in deciding if controls}
    paired = _all_paired(results, candidates, controls, deciding, groups, resamples)
    answer, constant_scores = _constant_answer(results)
    limits = {**results.limits, "constant": constant_scores}
    comparison = Comparison(
        dataset=results.dataset,
        task=task,
        titles={m.name: m.title for m in models},
        controls=controls,
        shown=shown,
        rows=rows,
        paired=paired,
        best_candidate=best_candidate,
        best_control=best_control,
        limits=limits,
        constant_answer=answer,
        share_of_gap=_share_of_gap(rows, results.limits),
        relevance={m.name: _mean_relevance(m) for m in models if m.relevance is not None},
        constant={m.name: seeds for m in models if (seeds := _constant_seeds(m, task))},
        verdict=(),
        protocol=_protocol(results, models, shown, groups, resamples, fallback, paired, best_candidate, best_control),
        notes=results.notes,
    )
    return _with_verdict(comparison)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """What ``--json`` prints: fractions, never rounded, never NaN."""
    rows = [{**asdict(r), "control": r.is_control} for r in comparison.rows]
    for row in rows:
        del row["is_control"]
    return {
        "dataset": comparison.dataset,
        "protocol": " ".join(comparison.protocol),
        "rows": rows,
        "paired": [asdict(c) for c in comparison.paired],
        "verdict": " ".join(comparison.verdict),
        "main_metric": comparison.main,
        "metrics": {k: DESCRIPTIONS[k] for k in dict.fromkeys(r.metric for r in comparison.rows)},
        "best_candidate": dict(comparison.best_candidate),
        "best_control": dict(comparison.best_control),
        "limits": {k: dict(v) for k, v in comparison.limits.items()},
        "share_of_gap": dict(comparison.share_of_gap),
        "relevance": {k: dict(v) for k, v in comparison.relevance.items()},
        "constant": {k: list(v) for k, v in comparison.constant.items()},
        "notes": list(comparison.notes),
    }


# Scores.


def _shown(task: Task, asked: Sequence[str] | None) -> tuple[str, ...]:
    known = metrics.measures(task)
    for name in asked or ():
        if name not in known:
            raise unknown("metric", name, known)
    kind = "sentiment" if task.classes == metrics.SENTIMENT else task.kind
    wanted = SHOWN[kind] if asked is None else (main_metric(task), *asked)
    return tuple(dict.fromkeys(name for name in wanted if name in known))


def _second_metric(task: Task) -> str:
    return "f1_weighted" if task.classes else "corr"


def _groups(results: Results) -> tuple[npt.NDArray[np.str_], bool]:
    """What is drawn together, and whether utterances had to stand in for groups because there is only one."""
    alone = len(np.unique(results.groups)) < 2
    return (np.array(results.ids, dtype=np.str_) if alone else results.groups), alone


def _rows(
    results: Results, models: Sequence[ModelResult], shown: Sequence[str], groups: npt.NDArray[np.str_], resamples: int
) -> tuple[Row, ...]:
    """Every metric of the task; those that the reference package computes wrongly only if they were asked for."""
    names = [k for k in metrics.measures(results.task) if not k.startswith("mmsa_") or k in shown]
    rows = []
    for m in models:
        test = results.scores(m)
        for split, per_seed in (("valid", m.valid), ("test", test)):
            for k in names:
                values = [s[k] for s in per_seed if k in s]
                if len(values) < len(per_seed):
                    continue  # not defined on these utterances, such as Non0 where all are neutral
                low = high = None
                if split == "test" and k not in NO_INTERVAL:
                    low, high = statistics.interval(m.outputs, results.y, results.task, k, groups, resamples=resamples)
                std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
                mean = float(np.mean(values))
                rows.append(Row(m.name, m.title, m.is_control, k, split, mean, std, low, high, len(values)))
    return tuple(rows)


def _best(rows: Sequence[Row], names: Sequence[str], metric: str, split: str) -> str:
    found = [r for r in rows if (r.metric, r.split) == (metric, split) and r.model in names]
    return (max if HIGHER_IS_BETTER[metric] else min)(found, key=lambda r: r.mean).model


def _constant_answer(results: Results) -> tuple[str, dict[str, float]]:
    """The one answer to every utterance that scores best on this test set, in words, and its scores."""
    task, y = results.task, results.y
    if not task.classes:
        middle = float(np.median(y))
        found = metrics.scores(np.full((len(y), 1), middle), y, task)
        return f"always {middle:.2g}", found
    most = int(np.bincount(y, minlength=len(task.classes)).argmax())
    logits = np.tile(np.eye(len(task.classes))[most], (len(y), 1))
    found = metrics.scores(logits, y, task)
    return f"always {task.classes[most]!r}", {k: v for k, v in found.items() if k not in ("nll", "ece")}


def _share_of_gap(rows: Sequence[Row], limits: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """How much of the way from the best single modality to the best possible answer each model goes."""
    best, single = (limits.get(k, {}).get("accuracy") for k in ("bayes", "best_single"))
    if best is None or single is None or best <= single:
        return {}
    test = [r for r in rows if (r.metric, r.split) == ("accuracy", "test")]
    return {r.model: (r.mean - single) / (best - single) for r in test}


def _mean_relevance(model: ModelResult) -> dict[str, float]:
    assert model.relevance is not None
    return dict(zip(model.modalities, model.relevance.mean((0, 1)).tolist(), strict=True))


def _constant_seeds(model: ModelResult, task: Task) -> tuple[int, ...]:
    said = model.outputs.argmax(-1) if task.classes else model.outputs[..., 0]  # (R, N)
    flags = [c or metrics.constant_prediction(x) for c, x in zip(model.constant, said, strict=True)]
    return tuple(s for s, flag in zip(model.seeds, flags, strict=True) if flag)


# Differences.


def _all_paired(
    results: Results,
    candidates: Sequence[str],
    controls: Sequence[str],
    deciding: Sequence[str],
    groups: npt.NDArray[np.str_],
    resamples: int,
) -> tuple[Contrast, ...]:
    families = {
        "controls": [(a, b) for a in candidates for b in controls],
        "ablations": [
            (v, full) for full, vs in ABLATIONS_OF.items() if full in candidates for v in vs if v in candidates
        ],
    }
    models = {m.name: m for m in results.models}
    found = []
    for family, pairs in families.items():
        for metric in deciding:
            main = metric == deciding[0]
            draws = max(resamples, RESAMPLES_PER_COMPARISON * len(pairs)) if main else resamples
            tests = [
                statistics.paired(
                    models[a].outputs, models[b].outputs, results.y, results.task, metric, groups, resamples=draws
                )
                for a, b in pairs
            ]
            corrected: Sequence[float | None] = statistics.holm([t.p for t in tests]) if main else [None] * len(tests)
            found += [
                Contrast(a, b, family, metric, t.difference, t.low, t.high, t.p, t.p_runs, p_holm)
                for (a, b), t, p_holm in zip(pairs, tests, corrected, strict=True)
            ]
    return tuple(found)


def better(contrast: Contrast) -> int:
    """1 if ``model`` is shown to be better, -1 if ``against`` is, 0 if no difference is shown."""
    p = contrast.p if contrast.p_holm is None else contrast.p_holm
    if p >= ALPHA:
        return 0
    return 1 if (contrast.difference > 0) == HIGHER_IS_BETTER[contrast.metric] else -1


def yardstick_contrasts(comparison: Comparison) -> list[Contrast]:
    """The main metric's comparisons that the verdict rests on: every candidate with the best control, and ablations."""
    control = comparison.best_control.get(comparison.main)
    return [
        c
        for c in comparison.paired
        if c.metric == comparison.main and (c.family == "ablations" or c.against == control)
    ]


# Sentences.


def _with_verdict(c: Comparison) -> Comparison:
    sentences = [_headline(c), *_ablation_sentences(c), *_limit_sentences(c), *_constant_sentences(c)]
    return Comparison(**{**vars(c), "verdict": tuple(sentences)})


def _headline(c: Comparison) -> str:
    candidate, control = c.best_candidate.get(c.main), c.best_control.get(c.main)
    if control is None and candidate is None:
        raise InputError("there is no model to compare")
    if candidate is None or control is None:
        name = candidate or control
        row = c.row(name or "", c.main)
        assert row is not None
        score = f"{row.title} reaches {show(row.mean, c.main)} {_unit(c.main)} {_range(row.low, row.high, c.main)}"
        if control is None:
            return f"{score}. No control was run, so nothing says how good that is."
        return f"The best control, {score}. No candidate was run."
    contrast = next(
        x for x in c.paired if (x.model, x.against, x.metric, x.family) == (candidate, control, c.main, "controls")
    )
    a, b = c.titles[candidate], c.titles[control]
    size = f"{_size(contrast.difference, c.main)} {_range(*_magnitudes(contrast), c.main)}, {_p_words(contrast)}"
    match better(contrast):
        case 1:
            return f"{a} is ahead of the strictest control, {b}, by {size}."
        case -1:
            return f"The control {b} is ahead of {a} by {size}."
    leads = "ahead" if (contrast.difference > 0) == HIGHER_IS_BETTER[c.main] else "behind"
    return f"No difference is shown between {a} and the strictest control, {b}: it is {leads} by {size}."


def _magnitudes(contrast: Contrast) -> tuple[float, float]:
    """The interval of the difference, turned so that its sign is that of the printed size."""
    if contrast.difference >= 0:
        return contrast.low, contrast.high
    return -contrast.high, -contrast.low


def _ablation_sentences(c: Comparison) -> list[str]:
    found = [x for x in c.paired if x.family == "ablations" and x.metric == c.main]
    words = {1: "better", -1: "worse", 0: "no difference shown"}
    parts = [
        f"{c.titles[x.model]} {show(x.difference, c.main, sign=True)} {_range(x.low, x.high, c.main)} "
        f"({words[better(x)]}, {_p_words(x)})"
        for x in found
    ]
    return [f"Against the full {c.titles[found[0].against]}, in {_unit(c.main)}: {'; '.join(parts)}."] if found else []


def _limit_sentences(c: Comparison) -> list[str]:
    bayes = c.limits.get("bayes", {}).get(c.main)
    if bayes is None:
        return []
    text = f"The best possible answer on these utterances reaches {show(bayes, c.main)} {_unit(c.main)}"
    if not c.share_of_gap:
        return [f"{text}."]
    single = show(c.limits["best_single"][c.main], c.main)
    shares = [
        f"{c.titles[k]} {_share_words(c.share_of_gap[k])}"
        for k in (c.best_candidate.get(c.main), c.best_control.get(c.main))
        if k is not None
    ]
    return [f"{text}, and {single} from the best single modality: {' and '.join(shares)}."]


def _share_words(share: float) -> str:
    return f"closes {100 * share:.0f} % of that gap" if share >= 0 else "stays below both"


def _constant_sentences(c: Comparison) -> list[str]:
    return [
        f"{c.titles[k]} gives one answer to every utterance in {_count(len(seeds), 'run')}"
        f" (seed {', '.join(map(str, seeds))}): it has learned nothing there, and its scores are those of a constant."
        for k, seeds in c.constant.items()
    ]


def _protocol(
    results: Results,
    models: Sequence[ModelResult],
    shown: Sequence[str],
    groups: npt.NDArray[np.str_],
    resamples: int,
    fallback: bool,
    paired: Sequence[Contrast],
    best_candidate: Mapping[str, str],
    best_control: Mapping[str, str],
) -> tuple[str, ...]:
    main = main_metric(results.task)
    family = [c for c in paired if c.family == "controls" and c.metric == main]
    return tuple(
        s
        for s in (
            _data_sentence(results, fallback),
            _seeds_sentence(models),
            _selection_sentence(models),
            _interval_sentence(models, len(np.unique(groups)), resamples, classes=bool(results.task.classes)),
            _test_sentence(family, any(c.family == "ablations" for c in paired), main),
            "The verdict compares the candidate that is best on valid with the control that is best on test: chosen in "
            "hindsight, it is the strictest yardstick there is here."
            if best_candidate and best_control
            else "",
            _detectable_sentence(results, groups, best_candidate.get(main), best_control.get(main)),
            "Metrics: " + "; ".join(f"{k} = {DESCRIPTIONS[k]}" for k in shown) + ".",
        )
        if s
    )


def _data_sentence(results: Results, fallback: bool) -> str:
    n, num_groups = len(results.ids), len(np.unique(results.groups))
    text = f"{results.dataset}: {n} test utterances"
    if fallback:
        text += (
            ", all of one group, so single utterances are resampled and every interval is too short if they are alike"
        )
    elif num_groups == n:
        text += ", each its own group"
    else:
        text += f" in {num_groups} groups (what shares a speaker or a video)"
    if results.folds:
        return f"{text}; {results.folds} folds by group, every utterance tested once per seed, folds pooled."
    return f"{text}; fixed splits."


def _seeds_sentence(models: Sequence[ModelResult]) -> str:
    counts = sorted({len(m.seeds) for m in models})
    said = _count(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    if counts == [1]:
        return "1 seed per model: nothing is known of how much another seed would change."
    return f"{said} per model; mean ± standard deviation over seeds (n - 1 in the denominator)."


def _selection_sentence(models: Sequence[ModelResult]) -> str:
    refits = [bool(m.training.get("refit")) for m in models]
    text = "Epochs were chosen on valid only, and test was predicted once per run, with the final weights"
    if all(refits):
        return f"{text}, which were trained again on train + valid for as many epochs as valid had chosen."
    if any(refits):
        names = ", ".join(m.title for m, r in zip(models, refits, strict=True) if r)
        return f"{text}; {names}: trained again on train + valid for as many epochs as valid had chosen."
    return f"{text}."


def _interval_sentence(models: Sequence[ModelResult], num_groups: int, resamples: int, *, classes: bool) -> str:
    text = (
        f"[low, high]: 95 % intervals, percentiles of {resamples} bootstrap resamples of seeds and of whole groups "
        "at the same time: for other seeds and other groups of the same kind, each by itself"
    )
    if min(len(m.seeds) for m in models) == 1:
        text += " (where there is one seed, for that run alone)"
    if num_groups < FEW_GROUPS:
        text += f"; with {num_groups} groups they are too short"
    return f"{text}. ece has none, as its resamples lie too high." if classes else f"{text}."


def _test_sentence(family: Sequence[Contrast], ablations: bool, main: str) -> str:
    if not family and not ablations:
        return ""
    text = (
        "Differences are of the same utterances and the same resamples; p is the larger of two: whether the sign "
        "survives resampling of seeds and groups, and a permutation test that exchanges the models group by group"
    )
    if family:
        text += f"; p_holm is corrected (Holm) over the {_count(len(family), 'comparison')} of every candidate with "
        text += f"every control in {main}"
    if ablations:
        text += "; variants against their full model are a family of their own"
    return f"{text}."


def _detectable_sentence(
    results: Results, groups: npt.NDArray[np.str_], candidate: str | None, control: str | None
) -> str:
    if candidate is None or control is None or not results.task.classes:
        return ""
    models = {m.name: m for m in results.models}
    a, b = models[candidate], models[control]
    d = statistics.discordance(a.outputs, b.outputs, results.y, results.task)
    apart, alike = (statistics.minimal_detectable(n, d) for n in (len(results.ids), len(np.unique(groups))))
    size = f"{100 * apart:.1f} points" + (f" ({100 * alike:.1f} if a group's are all alike)" if alike > apart else "")
    return (
        f"A difference in accuracy between {a.title} and {b.title} below {size} cannot be told from none on "
        f"{len(results.ids)} utterances."
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("s" if n != 1 else "")


# Tables for people: rounded here, and nowhere else.


def show(value: float, metric: str, *, sign: bool = False) -> str:
    """Percent with one decimal for shares, three decimals for the rest."""
    plain = metric in PLAIN_UNITS
    text = f"{value:+.3f}" if plain else f"{100 * value:+.1f}"
    if float(text) == 0:
        text = text.replace("-", "+")  # no minus zero
    return (text if sign else text.removeprefix("+")).replace("-", "−")


def show_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _p_words(contrast: Contrast) -> str:
    p, name = (contrast.p, "p") if contrast.p_holm is None else (contrast.p_holm, "p_holm")
    return f"{name} {show_p(p)}" if p < 0.001 else f"{name} = {show_p(p)}"


def _range(low: float | None, high: float | None, metric: str) -> str:
    return "" if low is None or high is None else f"[{show(low, metric)}, {show(high, metric)}]"


def _unit(metric: str) -> str:
    return metric if metric in PLAIN_UNITS else f"% {metric}"


def _size(difference: float, metric: str) -> str:
    kind = "of" if metric in PLAIN_UNITS else "points of"
    return f"{show(abs(difference), metric)} {kind} {metric}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One printed score: "75.9 ± 0.6", its interval, and whether it is the best of its column."""

    text: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One printed row. part: "candidate", "control" or "limit"; flagged: a constant predictor."""

    title: str
    part: str
    cells: tuple[Cell, ...]
    flagged: bool = False


def printed_lines(c: Comparison) -> list[Line]:
    """The rows of every printed table: candidates, controls, and what is known without any model."""
    best = {k: _best_text(c, k) for k in c.shown}
    lines = []
    for name, title in c.titles.items():
        part = "control" if name in c.controls else "candidate"
        lines.append(Line(title, part, tuple(_cell(c, name, k, best[k]) for k in c.shown), name in c.constant))
    for key, title in limit_titles(c).items():
        known = c.limits.get(key, {})
        if any(k in known for k in c.shown):
            cells = tuple(Cell(show(known[k], k) if k in known else "") for k in c.shown)
            lines.append(Line(title, "limit", cells))
    return lines


def limit_titles(c: Comparison) -> dict[str, str]:
    """What is known without a model, by its key in ``limits``, from the lowest to the highest."""
    single = c.limits.get("best_single", {}).get("modality", "one modality")
    return {"constant": c.constant_answer, "best_single": f"best possible, {single} alone", "bayes": "best possible"}


def _cell(c: Comparison, name: str, metric: str, best: str) -> Cell:
    row = c.row(name, metric)
    if row is None:
        return Cell("")
    mean = show(row.mean, metric)
    spread = f" ± {show(row.std, metric)}" if row.num_runs > 1 else ""
    return Cell(mean + spread, _range(row.low, row.high, metric), mean == best)


def _best_text(c: Comparison, metric: str) -> str:
    """The best mean as it is printed, so that what looks equal is marked alike."""
    means = [r.mean for r in c.rows if (r.metric, r.split) == (metric, "test")]
    if not means:
        return ""
    return show((max if HIGHER_IS_BETTER[metric] else min)(means), metric)


def _caption(c: Comparison) -> str:
    units = (
        "in percent"
        if all(k not in PLAIN_UNITS for k in c.shown)
        else "in percent but for " + ", ".join(k for k in c.shown if k in PLAIN_UNITS)
    )
    down = [k for k in c.shown if not HIGHER_IS_BETTER[k]]
    lower = f"; lower is better for {', '.join(down)}" if down else ""
    return f"{c.dataset}, test: {units}{lower}; mean ± standard deviation over seeds, 95 % interval of {c.main}"


def _legend(c: Comparison, best: str, flag: str) -> str:
    text = f"{best}: best of the column"
    return f"{text}; {flag}: one answer to every utterance in some run" if c.constant else text


def _grid(c: Comparison) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Header, and (part, cells) per row, the main metric's interval in a column of its own. * is best, ! a constant."""
    header = ["model", f"{c.main} ", "[95 %]", *(f"{k} " for k in c.shown[1:])]
    body = []
    for line in printed_lines(c):
        texts = [cell.text + ("*" if cell.best else " ") for cell in line.cells]
        title = line.title + (" !" if line.flagged else "")
        body.append((line.part, [title, texts[0], line.cells[0].interval, *texts[1:]]))
    return header, body


def as_text(c: Comparison) -> str:
    """Aligned columns for a terminal or an e-mail."""
    header, body = _grid(c)
    blocks = [_aligned(header, body)]
    contrasts = yardstick_contrasts(c)
    if contrasts:
        blocks.append(_aligned(*_contrast_grid(c, contrasts)))
    verdict = "\n".join(c.verdict)
    notes = "\n".join(f"- {s}" for s in (*c.protocol, *c.notes))
    return "\n\n".join([_caption(c), blocks[0], _legend(c, "*", "!"), *blocks[1:], verdict, notes]) + "\n"


def _aligned(header: Sequence[str], body: Sequence[tuple[str, Sequence[str]]]) -> str:
    """First column to the left, the rest to the right, a rule between parts."""
    widths = [max(len(row[i]) for row in (header, *(cells for _, cells in body))) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [x.ljust(w) if i == 0 else x.rjust(w) for i, (x, w) in enumerate(zip(cells, widths, strict=True))]
        return "  ".join(padded).rstrip()

    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    lines, before = [line(header)], ""
    for part, cells in body:
        if part != before:
            lines.append(rule)
        lines.append(line(cells))
        before = part
    return "\n".join(lines)


def _contrast_grid(c: Comparison, contrasts: Sequence[Contrast]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    header = ["difference on test", f"{c.main}", "[95 %]", "p", "p_holm", "shown"]
    words = {1: "better", -1: "worse", 0: "no difference"}
    body = [
        (
            x.family,
            [
                f"{c.titles[x.model]} − {c.titles[x.against]}",
                show(x.difference, x.metric, sign=True),
                f"[{show(x.low, x.metric, sign=True)}, {show(x.high, x.metric, sign=True)}]",
                show_p(x.p),
                "" if x.p_holm is None else show_p(x.p_holm),
                words[better(x)],
            ],
        )
        for x in contrasts
    ]
    return header, body


def as_rich(c: Comparison, *, width: int | None = None) -> Any:
    """The table of scores for rich. ``width``: of the terminal; last columns that do not fit are left out."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    header, body = _grid(c)
    widths = [max(len(row[i]) for row in (header, *(cells for _, cells in body))) + 2 for i in range(len(header))]
    fits = [i for i in range(len(header)) if i < 3 or width is None or sum(widths[: i + 1]) + 2 <= width]
    table = Table(box=box.SIMPLE_HEAD, title=_caption(c), title_justify="left", caption=_legend(c, "*", "!"))
    for i in fits:
        table.add_column(header[i].rstrip() if i == 0 else header[i], justify="right" if i else "left", no_wrap=i > 0)
    styles = {"candidate": "bold", "control": "", "limit": "dim"}
    for i, (part, cells) in enumerate(body):
        last = i + 1 == len(body) or body[i + 1][0] != part
        table.add_row(*(Text(cells[k], style=styles[part]) for k in fits), end_section=last)
    return table


def as_markdown(c: Comparison) -> str:
    """Tables, verdict and protocol as GitHub shows them; the best of a column is bold."""
    header = ["model", *(f"{k} [95 %]" if i == 0 else k for i, k in enumerate(c.shown))]
    lines = [_markdown_row(header), "|---|" + "--:|" * len(c.shown)]
    for line in printed_lines(c):
        cells = [_markdown_cell(cell, i == 0) for i, cell in enumerate(line.cells)]
        title = _markdown_text(line.title) + (" (control)" if line.part == "control" else "")
        title += " †" if line.flagged else ""
        lines.append(_markdown_row([f"*{title}*" if line.part == "limit" else title, *cells]))
    blocks = [f"{_caption(c)}.", "\n".join(lines), f"{_legend(c, '**bold**', '†')}."]
    contrasts = yardstick_contrasts(c)
    if contrasts:
        names, body = _contrast_grid(c, contrasts)
        rows = [_markdown_row([_markdown_text(x) for x in cells]) for _, cells in body]
        blocks.append(
            "\n".join([_markdown_row([_markdown_text(x) for x in names]), "|---|" + "--:|" * 4 + "---|", *rows])
        )
    said = [_markdown_text(" ".join(c.verdict)), "\n".join(f"- {_markdown_text(s)}" for s in (*c.protocol, *c.notes))]
    return "\n\n".join([said[0], *blocks, said[1]]) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_cell(cell: Cell, with_interval: bool) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return f"{text} {cell.interval}".strip() if with_interval else text


def _markdown_text(text: str) -> str:
    for sign in "\\|*_<>`[]":
        text = text.replace(sign, f"\\{sign}")
    return text


LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "†": r"$\dagger$",
}


def latex_text(text: str) -> str:
    """``text`` with every character that LaTeX would take as a command made plain."""
    return "".join(LATEX.get(sign, sign) for sign in text)


def as_latex(c: Comparison) -> str:
    r"""A booktabs table; needs ``\usepackage{booktabs}``."""
    header = ["", *(k + (" [95 %]" if i == 0 else "") for i, k in enumerate(c.shown))]
    lines = [" & ".join(latex_text(x) for x in header) + r" \\"]
    before = ""
    for line in printed_lines(c):
        if line.part != before:
            lines.append(r"\midrule")
        before = line.part
        cells = [_latex_cell(cell, i == 0) for i, cell in enumerate(line.cells)]
        lines.append(" & ".join([latex_text(line.title + (" †" if line.flagged else "")), *cells]) + r" \\")
    caption = f"{_caption(c)}. {_legend(c, 'Bold', '†')}."
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * len(c.shown)}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex_cell(cell: Cell, with_interval: bool) -> str:
    text = latex_text(cell.text)
    text = rf"\textbf{{{text}}}" if cell.best else text
    # braces, because a row that begins with [ is read as the length of the \\ before it
    return f"{text} {{{latex_text(cell.interval)}}}" if with_interval and cell.interval else text


def as_csv(c: Comparison) -> str:
    """One line per score, as in the JSON: fractions, not rounded; empty where there is no interval."""
    out = io.StringIO()
    names = ("model", "title", "is_control", "metric", "split", "mean", "std", "low", "high", "num_runs")
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in c.rows)
    return out.getvalue()


EMITTERS: dict[str, Callable[[Comparison], str]] = {
    "text": as_text,
    "markdown": as_markdown,
    "latex": as_latex,
    "csv": as_csv,
}
