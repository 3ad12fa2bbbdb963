"""One picture of a data set: how many of what, what one modality alone tells, what is missing, and who disagrees.

The disagreement row is the paper's Figure 4 (c, d): the utterance's label against the modality's own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from moodal.files import write_atomic
from moodal.labels.drawing import FAINT, INK, MODALITY_COLOURS, draw_confusion, put_legend, said_share, tidy
from moodal.types import MODALITIES, SPLITS

PART_COLOURS = {"train": "#56B4E9", "valid": "#CC79A7", "test": "#D55E00", "none": "#999999", "folds": "#999999"}


def dataset_figure(path: Path, report: dict[str, Any], file: Path) -> None:
    """Draw what ``inspect_dataset`` reported of the data set folder ``path`` to ``file`` (.png, .pdf or .svg)."""
    figure = draw_dataset(path, report)
    kind = file.suffix.lstrip(".") or "png"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, lambda partial: figure.savefig(partial, format=kind, dpi=130))


def draw_dataset(path: Path, report: dict[str, Any]) -> Any:
    """The matplotlib figure, one to three rows of panels, on an Agg canvas of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    modalities = [m for m in MODALITIES if m in report["dims"]]
    vary = any(v["min"] < v["max"] for v in report["lengths"].values())
    num_rows = 1 + vary + bool(report["agreement"])
    figure = Figure(figsize=(13, 3.9 * num_rows + 0.7), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    FigureCanvasAgg(figure)
    figure.suptitle(_title(path, report, vary), x=0.012, ha="left", fontsize=13, color=INK)
    rows = iter(figure.subplots(num_rows, 3, squeeze=False))
    first = next(rows)
    _draw_classes(first[0], report)
    _draw_alone(first[1], report, modalities)
    _draw_missing(first[2], report, modalities)
    for ax, m in zip(next(rows) if vary else (), MODALITIES, strict=False):
        _draw_lengths(ax, report, m)
    for ax, m in zip(next(rows, ()), MODALITIES, strict=False):
        _draw_agreement(ax, report, m)
    return figure


def _title(path: Path, report: dict[str, Any], vary: bool) -> str:
    parts = [f"{name} {n}" for name, n in report["splits"].items() if name != "none"]
    if report["folds"]:
        parts.append(f"{len(report['folds'])} folds")
    name = report["name"] if report["name"] == path.name else f"{report['name']} ({path.name})"
    title = " · ".join([name, f"{report['utterances']} utterances", *([", ".join(parts)] if parts else [])])
    if vary or not report["dims"]:
        return title
    sizes = ", ".join(f"{m} {v['max']} × {report['dims'][m]}" for m, v in report["lengths"].items())
    return f"{title}\nsteps × features, the same in every clip: {sizes}"


def _draw_classes(ax: Any, report: dict[str, Any]) -> None:
    """Horizontal bars stacked by split; for scores, negative, zero and positive."""
    if report["classes"]:
        counts, title = report["classes"], "Utterances per class"
    elif report["scores"]:
        signs = ("negative", "zero", "positive")
        counts = {s: {c: v[c] for c in signs} for s, v in report["scores"].items()}
        title = "Utterances by the sign of their score"
    else:
        return _say(ax, "Utterances per class", "nothing is labelled")
    classes = list(next(iter(counts.values())))
    left = np.zeros(len(classes))
    for s, of_class in counts.items():
        width = np.array([of_class[c] for c in classes], dtype=float)
        ax.barh(classes, width, left=left, height=0.7, color=PART_COLOURS[s], edgecolor="white", label=_said(s))
        left += width
    for i, total in enumerate(left):
        ax.annotate(f"{total:.0f}", (total, i), (4, 0), textcoords="offset points", va="center", color=INK)
    ax.set_xlim(0, left.max() * 1.15 or 1)
    ax.invert_yaxis()
    tidy(ax, title, grid="x")
    if len(counts) > 1:
        put_legend(ax, len(counts))
    return None


def _draw_alone(ax: Any, report: dict[str, Any], modalities: list[str]) -> None:
    """Accuracy of the probe per modality, with the constant answer and, where known, the limit."""
    title = "One modality alone: linear probe on clip means"
    alone = {m: report["alone"][m] for m in modalities if report["alone"].get(m)}
    if not alone:
        return _say(ax, title, "not measured: too few labelled clips")
    parts = [s for s in (*SPLITS, "folds") if any(s in a for a in alone.values())]
    _grouped_bars(ax, {m: {s: a[s] for s in parts if s in a} for m, a in alone.items()}, parts, said_share)
    base = report["baseline"]
    if report["task"]["classes"] and base:
        worth = base["splits"].get("test", next(iter(base["splits"].values())))
        _reference(ax, worth, f"always {base['constant']!r} {said_share(worth)}", "--")
    if report["bayes_accuracy"] is not None:
        _reference(ax, report["bayes_accuracy"], f"best possible {said_share(report['bayes_accuracy'])}", "-")
    ax.set_ylim(0, 1.1)
    ax.set_yticks(np.arange(0, 1.01, 0.2))
    ax.set_ylabel("accuracy (train: cross-validated)" if "train" in parts else "accuracy")
    tidy(ax, title, grid="y")
    put_legend(ax, 3)
    return None


def _draw_missing(ax: Any, report: dict[str, Any], modalities: list[str]) -> None:
    title = "Missing, share of utterances"
    missing = report["missing"]
    if not any(missing[m]["all"] for m in modalities):
        return _say(ax, title, "nothing is missing of\n" + ", ".join(modalities))
    parts = list(report["splits"])
    shares = {m: {s: missing[m]["splits"][s] / report["splits"][s] for s in parts} for m in modalities}
    _grouped_bars(ax, shares, parts, _percent)
    ax.set_ylim(0, 1.15 * max(v for of_part in shares.values() for v in of_part.values()))
    ax.yaxis.set_major_formatter(lambda v, _: f"{100 * v:.3g}%")
    tidy(ax, title, grid="y")
    if len(parts) > 1:
        put_legend(ax, len(parts))
    return None


def _draw_lengths(ax: Any, report: dict[str, Any], modality: str) -> None:
    title = f"Steps per clip: {modality}"
    if modality not in report["lengths"]:
        return _say(ax, title, f"this data set has no {modality}")
    lengths, hop_s = report["lengths"][modality], report["extractors"][modality]["hop_s"]
    dim = report["dims"][modality]
    if lengths["min"] == lengths["max"]:
        steps = f"{lengths['max']} step" + ("s" if lengths["max"] > 1 else "")
        return _say(ax, title, f"every clip has {steps}\nof {dim} features")
    seconds = f" = {lengths['median'] * hop_s:.2g} s" if hop_s else ""
    edges, counts = np.array(lengths["histogram"]["edges"]), np.array(lengths["histogram"]["counts"])
    ax.bar(
        edges[:-1], counts, np.diff(edges), align="edge", color=MODALITY_COLOURS[modality], edgecolor="white", lw=0.4
    )
    ax.axvline(lengths["median"], color=INK, lw=1.2, ls="--")
    ax.set_xlim(edges[0], edges[-1])
    ax.set_xlabel(f"steps of {dim} features, median {lengths['median']:g}{seconds}")
    ax.set_ylabel("utterances")
    tidy(ax, title, grid="y")
    return None


def _draw_agreement(ax: Any, report: dict[str, Any], modality: str) -> None:
    """Label against own label; for scores, sign against own sign."""
    by_label = report["agreement"].get("with_label", {}).get(modality)
    by_score = report["agreement"].get("scores", {}).get(modality)
    name = modality.capitalize()
    if by_label:
        title = f"{name} agrees in {by_label['all']:.0%}"
        classes = report["task"]["classes"]
        draw_confusion(ax, report["agreement"]["confusion"][modality], classes, classes, title)
        ax.set(xlabel=f"{modality}'s own label", ylabel="label of the full clip")
    elif by_score:
        known = by_score["correlation"] is not None
        correlation = f" (correlation {by_score['correlation']:.2f})" if known else ""
        title = f"{name} has the same sign in {by_score['same_sign']:.0%}"
        signs = ["negative", "zero", "positive"]
        draw_confusion(ax, by_score["confusion"], signs, signs, title)
        ax.set(xlabel=f"{modality}'s own score{correlation}", ylabel="score of the full clip")
    else:
        _say(ax, f"{name} and the full clip", f"nobody labelled {modality} alone")


def _grouped_bars(ax: Any, values: dict[str, dict[str, float]], parts: list[str], form: Callable[[float], str]) -> None:
    """One group per modality, one bar per part, the number above each."""
    width = 0.8 / len(parts)
    for i, s in enumerate(parts):
        at = [g + (i - (len(parts) - 1) / 2) * width for g, v in enumerate(values.values()) if s in v]
        height = [v[s] for v in values.values() if s in v]
        bars = ax.bar(at, height, width * 0.94, color=PART_COLOURS[s], label=_said(s))
        ax.bar_label(bars, [form(h) for h in height], padding=2, fontsize=8, color=INK)
    ax.set_xticks(range(len(values)), list(values))


def _reference(ax: Any, height: float, said: str, style: str) -> None:
    ax.axhline(height, color=INK, lw=1.1, ls=style, label=said, zorder=0)


def _say(ax: Any, title: str, text: str) -> None:
    """A panel without numbers says so in words, so that an empty one is never a question."""
    ax.set_title(title, loc="left", fontsize=11, color=INK)
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=INK, fontsize=11)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_color(FAINT)


def _said(split: str) -> str:
    return {"none": "no split", "folds": "over the folds"}.get(split, split)


def _percent(share: float) -> str:
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"
