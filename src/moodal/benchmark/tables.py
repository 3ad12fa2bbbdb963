"""What a benchmark finds: means, intervals, paired comparisons, and the verdict in words. ``printing`` prints it.

Scores stay fractions in a ``Comparison``; only sentences round them.
Two choices keep the verdict honest. The yardstick is the control with the best *test* score, chosen in hindsight, which
favours the control. The candidate is the one with the best *valid* score, so that the test set has not chosen it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moodal import metrics
from moodal.benchmark import statistics
from moodal.benchmark.results import ModelResult, Results
from moodal.benchmark.rounding import PLAIN_UNITS, show, show_p, show_range
from moodal.metrics import DESCRIPTIONS, HIGHER_IS_BETTER
from moodal.types import InputError, Task, unknown

ALPHA = 0.05
RESAMPLES_PER_COMPARISON = 200  # Holm multiplies the smallest p by the family; fewer draws could never get below ALPHA
FEW_GROUPS = 10
ABLATIONS_OF = {"mre": ("mre_baseline", "mre_rs", "mre_cnce")}
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
    the same of every utterance; limits: metric scores of "bayes", "best_single" and "constant", where known;
    share_of_gap: by model, empty where limits are not known; relevance: mean on test, by model and modality.
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
    test = [r for r in rows if (r.metric, r.split) == ("accuracy", "test")]
    return {r.model: share for r in test if (share := share_of_gap(r.mean, limits)) is not None}


def share_of_gap(accuracy: float, limits: Mapping[str, Mapping[str, Any]]) -> float | None:
    """How far from the best single modality's limit (0) to the best possible answer (1); None without such a gap."""
    best, single = (limits.get(k, {}).get("accuracy") for k in ("bayes", "best_single"))
    if best is None or single is None or best <= single:
        return None
    return float((accuracy - single) / (best - single))


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
        score = f"{row.title} reaches {show(row.mean, c.main)} {_unit(c.main)} {show_range(row.low, row.high, c.main)}"
        if control is None:
            return f"{score}. No control was run, so nothing says how good that is."
        return f"The best control, {score}. No candidate was run."
    contrast = next(
        x for x in c.paired if (x.model, x.against, x.metric, x.family) == (candidate, control, c.main, "controls")
    )
    a, b = c.titles[candidate], c.titles[control]
    size = f"{_size(contrast.difference, c.main)} {show_range(*_magnitudes(contrast), c.main)}, {_p_words(contrast)}"
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
        f"{c.titles[x.model]} {show(x.difference, c.main, sign=True)} {show_range(x.low, x.high, c.main)} "
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


def _p_words(contrast: Contrast) -> str:
    p, name = (contrast.p, "p") if contrast.p_holm is None else (contrast.p_holm, "p_holm")
    return f"{name} {show_p(p)}" if p < 0.001 else f"{name} = {show_p(p)}"


def _unit(metric: str) -> str:
    return metric if metric in PLAIN_UNITS else f"% {metric}"


def _size(difference: float, metric: str) -> str:
    kind = "of" if metric in PLAIN_UNITS else "points of"
    return f"{show(abs(difference), metric)} {kind} {metric}"
