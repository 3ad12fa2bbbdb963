"""Tables 3 and 5 of the MRE paper: accuracy and F1 by its protocol, and each model against MRE.

"Accuracy" and "F1" follow the paper. Where the classes are negative, neutral and positive they are of two classes,
positive against the rest (its MOSEI and SIMS columns); elsewhere of all classes (its SDME column).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from moodal import metrics
from moodal.benchmark import statistics
from moodal.benchmark.comparison import Contrast, Row
from moodal.benchmark.paper_table import (
    MISA_TEXT,
    REFERENCE,
    SELF_MM_CLASSES,
    PaperScore,
    PaperTable,
    count,
    mean_and_std,
    numbers,
)
from moodal.benchmark.results import ModelResult, Results
from moodal.benchmark.rounding import show
from moodal.benchmark.tables import RESAMPLES_PER_COMPARISON
from moodal.metrics import DESCRIPTIONS, SENTIMENT
from moodal.types import Task

RESAMPLES = 2000

COLLAPSED = (
    "The paper's EF-LSTM on SIMS (69.37 / 56.82) is a collapsed model: these are exactly the scores of calling none of "
    "the 457 test clips positive (317 of them are not)."
)


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
        if column is not None and m.name in printed
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
    seeds = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else count(counts[0], "seed")
    spread = "mean ± standard deviation (n - 1) over them" if counts != [1] else "so nothing is known of another's"
    folds = f", {results.folds} folds pooled" if results.folds else ""
    again = ", after training again on train + valid" if any(m.training.get("refit") for m in results.models) else ""
    drawn = "seeds and groups together" if counts != [1] else "groups, for the one run at hand"
    pairs = len({(c.model, c.against) for c in paired})
    family = f"; p_holm is corrected over the {count(pairs, 'comparison')} in accuracy" if pairs else ""
    return (
        f"Ours: {n} test utterances{f' in {num_groups} groups' if num_groups < n else ''}{folds}; {seeds} per model, "
        f"{spread}. Epochs were chosen on valid only, and test was predicted once per run{again}.",
        f"[low, high]: 95 % intervals, percentiles of {resamples} bootstrap resamples of {drawn}. Differences are of "
        f"the same utterances and the same resamples{family}.",
        f"Accuracy ({shown[0]}): {DESCRIPTIONS[shown[0]]}. F1 ({shown[1]}): {DESCRIPTIONS[shown[1]]}.",
        "Each model has its defaults where the command says nothing, and these were not searched with equal effort; "
        "settings that moodal tune found are.",
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
    if column is not None and any(m.model == "misa" for m in results.models):
        yield MISA_TEXT
    if results.task.classes and any(m.model == "self_mm" for m in results.models):
        yield SELF_MM_CLASSES
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
