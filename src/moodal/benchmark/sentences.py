"""The verdict and the protocol of a comparison in words. Only sentences round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from moodal.benchmark import statistics
from moodal.benchmark.comparison import Comparison, Contrast, better, main_metric
from moodal.benchmark.results import ModelResult, Results
from moodal.benchmark.rounding import PLAIN_UNITS, show, show_p, show_range
from moodal.metrics import DESCRIPTIONS, HIGHER_IS_BETTER
from moodal.types import InputError

FEW_GROUPS = 10


def with_verdict(c: Comparison) -> Comparison:
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


def protocol_of(
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
