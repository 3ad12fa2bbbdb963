"""What a benchmark finds: means, intervals, paired comparisons, and the verdict in words. ``printing`` prints it.

Scores stay fractions in a ``Comparison``; only sentences round them.
Two choices keep the verdict honest. The yardstick is the control with the best *test* score, chosen in hindsight, which
favours the control. The candidate is the one with the best *valid* score, so that the test set has not chosen it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from moodal import metrics
from moodal.benchmark import statistics
from moodal.benchmark.comparison import Comparison, Contrast, Row, main_metric, share_of_gap
from moodal.benchmark.results import ModelResult, Results
from moodal.benchmark.sentences import protocol_of, with_verdict
from moodal.metrics import HIGHER_IS_BETTER
from moodal.types import Task, unknown

RESAMPLES_PER_COMPARISON = 200  # Holm multiplies the smallest p by the family; fewer draws could never get below ALPHA
ABLATIONS_OF = {"mre": ("mre_baseline", "mre_rs", "mre_cnce")}
NO_INTERVAL = ("ece",)  # a sum of absolute values is larger on any resample, so the interval would lie too high
SHOWN = {
    "classification": ("accuracy", "f1_weighted", "f1_macro", "nll"),
    "sentiment": ("accuracy", "f1_weighted", "acc2_has0", "f1_has0", "nll"),
    "regression": ("mae", "corr", "acc2_has0", "f1_has0", "mult_acc2", "mult_f1", "acc7"),
}


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
        protocol=protocol_of(results, models, shown, groups, resamples, fallback, paired, best_candidate, best_control),
        notes=results.notes,
    )
    return with_verdict(comparison)


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
