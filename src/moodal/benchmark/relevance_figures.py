"""The pictures of a ``RelevanceReport``: one per question, modalities in their colours, chance as a line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from moodal.benchmark.figures import CANDIDATE, CONTROL, FAINT, INK, MODALITY_COLOURS, PLAIN_TEXT, Picture
from moodal.benchmark.relevance_probes import NOISE, OTHER
from moodal.benchmark.relevance_report import ALWAYS, EXACT, HIGHEST, LOWEST, RANDOM, RelevanceReport, Response, Row
from moodal.benchmark.relevance_statistics import Estimate

COLUMNS = 3  # panels side by side
BAND = 0.26  # between the modalities of one model, where a model is one unit high
SUBSETS = {"agree": CANDIDATE, "conflict": "#D55E00"}
REMOVALS = {
    LOWEST: ("lowest relevance", CANDIDATE, "o"),
    ALWAYS: ("lowest on average", "#56B4E9", "s"),
    RANDOM: ("random", CONTROL, "D"),
    HIGHEST: ("highest relevance", "#D55E00", "^"),
}


def draw_relevance_figures(report: RelevanceReport) -> list[Picture]:
    """Every picture that this report has data for."""
    makers: tuple[Callable[[RelevanceReport], Picture | None], ...] = (
        draw_signal,
        draw_response,
        draw_deletion,
        draw_agreement,
    )
    with rc_context(PLAIN_TEXT):
        return [picture for make in makers if (picture := make(report)) is not None]


def draw_signal(report: RelevanceReport) -> Picture | None:
    """AUROC, and the rank correlation with how wrong the modality alone is: a dot and an interval each."""
    panels: list[tuple[str, float, Callable[[Row], Estimate | None]]] = []
    if any(r.auroc for r in report.rows):
        panels.append(("AUROC: higher where the modality is right", 0.5, lambda r: r.auroc))
    if any(r.spearman for r in report.rows):
        panels.append(("Spearman with the loss of the modality alone", 0.0, lambda r: r.spearman))
    if not panels:
        return None
    models = list(dict.fromkeys(r.model for r in report.rows))
    figure = _figure(5.2 * len(panels), 1.5 + 0.85 * len(models))
    for ax, (title, chance, value) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for r in report.rows:
            y = models.index(r.model) + BAND * (list(MODALITY_COLOURS).index(r.modality) - 1)
            _interval(ax, value(r), y, MODALITY_COLOURS[r.modality])
            if chance and r.oracle_auroc is not None:
                ax.plot(r.oracle_auroc.value, y, "D", ms=6, mfc="white", mec=MODALITY_COLOURS[r.modality], mew=1.4)
        ax.axvline(chance, color=INK, lw=1, ls=":")
        ax.set_yticks(
            range(len(models)), [report.titles[m] for m in models] if ax.get_subplotspec().colspan.start == 0 else []
        )
        ax.set_ylim(len(models) - 0.5, -0.5)
        low = 0 if chance else -1
        ax.set_xlim(low, 1)
        ax.set_xticks(np.linspace(low, 1, 5))
        _tidy(ax, title, "x")
    _modality_key(figure, report, exact=any(r.oracle_auroc for r in report.rows))
    said = "; ".join(f"{report.titles[r.model]}, {r.modality}: {r.auroc.value:.2f}" for r in report.rows if r.auroc)
    caption = "Whether relevance is higher where the modality is right; dots with 95 % intervals, dotted: chance"
    return Picture("signal", figure, f"{caption}. {f'AUROC: {said}.' if said else ''}".strip())


def draw_response(report: RelevanceReport) -> Picture | None:
    """Mean relevance as it is, under rising noise, and with features of another class; a panel per model."""
    models = list(dict.fromkeys(r.model for r in report.response))
    if not models:
        return None
    columns = min(COLUMNS, len(models))
    rows = -(-len(models) // columns)
    figure = _figure(max(6.0, 4.2 * columns), 3.3 * rows + 0.7)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    top = max(r.mean.high for r in report.response if r.mean is not None)
    strengths = sorted({r.strength for r in report.response if r.strength is not None})
    ticks = ["0", *(f"{s:g}" for s in strengths), "another\nclass"]
    for ax, model in zip(axes, models, strict=False):
        for m, colour in MODALITY_COLOURS.items():
            found = [r for r in report.response if (r.model, r.modality) == (model, m)]
            _draw_path(ax, [r for r in found if r.condition in ("none", NOISE)], colour)
            other = next((r.mean for r in found if r.condition == OTHER), None)
            if other is not None:
                at = len(strengths) + 1 + BAND * (list(MODALITY_COLOURS).index(m) - 1)
                ax.plot([at, at], [other.low, other.high], color=colour, lw=2)
                ax.plot(at, other.value, "o", color=colour, ms=6)
        ax.set_xticks(range(len(ticks)), ticks)
        ax.axvline(len(strengths) + 0.5, color=FAINT, lw=1)
        ax.set_ylim(0, 1.08 * top)
        ax.set_xlabel("noise, standard deviations", fontsize=10, loc="left")
        _tidy(ax, report.titles[model], "y")
    for ax in axes[len(models) :]:
        ax.set_visible(False)
    figure.supylabel("mean relevance", fontsize=10)
    _modality_key(figure, report)
    caption = (
        "Mean relevance of a modality with rising noise in it, and with features of another class, with 95 % "
        "intervals; the others are as they are."
    )
    return Picture("response", figure, caption)


def _draw_path(ax: Any, found: Sequence[Response], colour: str) -> None:
    means = [r.mean for r in found]
    if not means or any(e is None for e in means):
        return
    there = [e for e in means if e is not None]
    x = np.arange(len(there))
    ax.fill_between(x, [e.low for e in there], [e.high for e in there], color=colour, alpha=0.18, lw=0)
    ax.plot(x, [e.value for e in there], "o-", color=colour, lw=1.8, ms=5)


def draw_deletion(report: RelevanceReport) -> Picture | None:
    """What it costs to remove a modality, by how it is chosen."""
    found = [r for r in report.deletion if r.cost is not None]
    if not found:
        return None
    models = list(dict.fromkeys(r.model for r in found))
    metric = found[0].metric
    scale = 100 if metric == "accuracy" else 1
    figure = _figure(8.5, 1.7 + 0.95 * len(models))
    ax = figure.subplots()
    for r in found:
        _, colour, marker = REMOVALS[r.removed]
        y = models.index(r.model) + 0.2 * (list(REMOVALS).index(r.removed) - 1.5)
        _interval(ax, r.cost, y, colour, marker, scale)
    ax.axvline(0, color=INK, lw=1, ls=":")
    ax.set_yticks(range(len(models)), [report.titles[m] for m in models])
    ax.set_ylim(len(models) - 0.5, -0.5)
    ax.set_xlabel(f"cost of removing one modality, {'points of accuracy' if scale == 100 else metric}", fontsize=10)
    _tidy(ax, "", "x")
    points = [
        Line2D([], [], color=colour, marker=marker, lw=2, label=title) for title, colour, marker in REMOVALS.values()
    ]
    figure.legend(handles=points, loc="outside lower center", ncols=4, frameon=False, fontsize=10)
    caption = (
        f"How much worse {metric} gets when each utterance loses one modality: relevance means something where the "
        "lowest costs less than a random one, and than the one that is lowest on average."
    )
    return Picture("deletion", figure, caption)


def draw_agreement(report: RelevanceReport) -> Picture | None:
    """Accuracy where modalities agree and where they conflict, a line per model."""
    if not report.agreement:
        return None
    models = sorted(dict.fromkeys(r.model for r in report.agreement), key=lambda name: -_conflict(report, name))
    figure = _figure(8.5, 1.5 + 0.36 * len(models))
    ax = figure.subplots()
    for r in report.agreement:
        y = models.index(r.model) + 0.12 * (-1 if r.subset == "agree" else 1)
        _interval(ax, r.mean, y, SUBSETS[r.subset], scale=100, hollow=r.model == EXACT)
    ax.set_yticks(range(len(models)), [report.titles[m] for m in models])
    ax.set_ylim(len(models) - 0.5, -0.5)
    ax.set_xlabel("accuracy, %", fontsize=10)
    _tidy(ax, "", "x")
    sizes = {r.subset: r.num_clips for r in report.agreement}
    points = [
        Line2D([], [], color=SUBSETS[s], marker="o", lw=2, label=f"{s}: {n} utterances") for s, n in sizes.items()
    ]
    figure.legend(handles=points, loc="outside lower center", ncols=2, frameon=False, fontsize=10)
    caption = "Accuracy where modalities agree and where they conflict, best on conflict on top, with 95 % intervals."
    return Picture("agreement", figure, caption)


def _conflict(report: RelevanceReport, model: str) -> float:
    found = [r.mean.value for r in report.agreement if (r.model, r.subset) == (model, "conflict") and r.mean]
    return found[0] if found else 0.0


# What all of them share.


def _interval(
    ax: Any, e: Estimate | None, y: float, colour: str, marker: str = "o", scale: float = 1, *, hollow: bool = False
) -> None:
    if e is None:
        return
    ax.plot([scale * e.low, scale * e.high], [y, y], color=colour, lw=2, solid_capstyle="butt")
    ax.plot(scale * e.value, y, marker, ms=6.5, color=colour, mfc="white" if hollow else colour, mew=1.4)


def _modality_key(figure: Figure, report: RelevanceReport, *, exact: bool = False) -> None:
    used = [m for m in MODALITY_COLOURS if any(r.modality == m for r in report.rows)]
    points = [Line2D([], [], color=MODALITY_COLOURS[m], marker="o", lw=2, label=m) for m in used]
    if exact:
        points.append(Line2D([], [], color=INK, marker="D", mfc="white", lw=0, label=EXACT))
    figure.legend(handles=points, loc="outside lower center", ncols=4, frameon=False, fontsize=10)


def _figure(width_in: float, height_in: float) -> Figure:
    figure = Figure(figsize=(width_in, height_in), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    FigureCanvasAgg(figure)
    return figure


def _tidy(ax: Any, title: str, grid: str) -> None:
    if title:
        ax.set_title(title, loc="left", fontsize=11, color=INK)
    ax.grid(axis=grid, color=FAINT, lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#999999")
    ax.tick_params(length=0, labelsize=10)
