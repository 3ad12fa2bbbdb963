"""The pictures of a stress test: a curve per model and corruption, and what every model keeps of its clean score.

Candidates have colours and solid lines; controls are grey, and shade, dashes and marks tell them apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from moodal.benchmark.corruptions import CORRUPTIONS
from moodal.benchmark.figures import CONTROL, DARK_CELL, FAINT, INK, LINES, PLAIN_TEXT, Picture
from moodal.benchmark.rounding import PLAIN_UNITS, show
from moodal.benchmark.stress import ALL, StressReport
from moodal.metrics import HIGHER_IS_BETTER

COLUMNS = 3
GREYS = ("#333333", CONTROL, "#A6A6A6")
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 2)))
MARKS = ("o", "s", "^", "D", "v", "P", "p")


def draw_stress(report: StressReport) -> list[Picture]:
    """The curves of every subset of modalities, all of them together first, and the table of means as a map."""
    subsets = [*(s for s in report.subsets if s == ALL), *(s for s in report.subsets if s != ALL)]
    with rc_context(PLAIN_TEXT):
        return [draw_kept(report), *(draw_curves(report, subset) for subset in subsets)]


def draw_curves(report: StressReport, subset: str) -> Picture:
    """The main metric against severity: a panel per corruption of ``subset``, a line per model, one scale for all."""
    metric, styles = report.main, line_styles(report)
    names = [n for n in report.levels if report.curve(next(iter(styles)), n, subset, metric)]
    columns = min(COLUMNS, len(names))
    lines = -(-len(names) // columns)
    figure = _figure(1.2 + 3.5 * columns, 1.1 + 3.2 * lines + 0.24 * -(-len(styles) // columns))
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for ax in grid.flat[len(names) :]:
        ax.set_visible(False)
    for ax, name in zip(grid.flat, names, strict=False):
        _panel(ax, report, name, subset, styles)
    for row in grid:
        row[0].set_ylabel(_axis(metric), fontsize=10)
    handles = [Line2D([], [], label=report.titles[m], **style) for m, style in styles.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=max(2, columns), frameon=False, fontsize=10)
    said = "all modalities corrupted together" if subset == ALL else f"{subset} corrupted, the others left alone"
    title = said[0].upper() + said[1:]
    figure.suptitle(f"{report.dataset}: {said}", x=0.01, ha="left", fontsize=12, color=INK)
    caption = (
        f"{title}: test {metric} of {len(styles)} models against severity, a panel per corruption, mean over seeds. "
        "Candidates in colour with solid lines, controls grey."
    )
    return Picture(f"stress_{subset}", figure, caption)


def line_styles(report: StressReport) -> dict[str, dict[str, Any]]:
    """By model. After as many candidates as there are colours the dashes change."""
    found: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(n for n in report.titles if n not in report.controls):
        dash, colour = divmod(i, len(LINES))
        style = {"color": LINES[colour], "ls": DASHES[dash % len(DASHES)], "marker": MARKS[i % len(MARKS)]}
        found[name] = {**style, "lw": 2.0, "ms": 5, "zorder": 3}
    for i, name in enumerate(report.controls):
        style = {
            "color": GREYS[i % len(GREYS)],
            "ls": DASHES[1 + i % (len(DASHES) - 1)],
            "marker": MARKS[i % len(MARKS)],
        }
        found[name] = {**style, "mfc": "white", "lw": 1.4, "ms": 4.5, "zorder": 2}
    return {name: found[name] for name in report.titles}


def _panel(ax: Any, report: StressReport, name: str, subset: str, styles: dict[str, dict[str, Any]]) -> None:
    scale = 1 if report.main in PLAIN_UNITS else 100
    for model, style in styles.items():
        curve = report.curve(model, name, subset, report.main)
        ax.plot(range(len(curve)), [scale * v for v in curve.values()], **style)
    levels = list(report.levels[name].values())
    ax.set_xticks(range(len(levels)), [f"{x:g}" for x in levels])
    ax.set_title(CORRUPTIONS[name].title, loc="left", fontsize=11, color=INK)
    ax.set_xlabel(CORRUPTIONS[name].unit, fontsize=9)
    ax.grid(color=FAINT, lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#999999")
    ax.tick_params(length=0, labelsize=9)


def draw_kept(report: StressReport) -> Picture:
    """A map: the main metric, clean, of each corruption over its severities, and the mean of these."""
    metric, names = report.main, list(report.levels)
    models = list(report.titles)
    cells = np.array([[s.clean, *(_mean(report, s.model, n) for n in names), s.mean] for s in report.summary])
    figure = _figure(3.6 + 0.95 * cells.shape[1], 2.0 + 0.38 * len(models))
    ax = figure.subplots()
    low, high = float(cells.min()), max(float(cells.max()), float(cells.min()) + 1e-9)
    better = HIGHER_IS_BETTER[metric]
    ax.imshow(cells, cmap="Blues" if better else "Oranges", vmin=low - 0.1 * (high - low), vmax=high, aspect="auto")
    for i, j in np.ndindex(cells.shape):
        share = (cells[i, j] - low) / (high - low)
        colour = "white" if share > DARK_CELL else INK
        ax.text(j, i, show(float(cells[i, j]), metric), ha="center", va="center", fontsize=10, color=colour)
    titles = ["clean", *(CORRUPTIONS[n].title for n in names), "mean"]
    ax.set_xticks(range(len(titles)), titles, rotation=35, ha="left", rotation_mode="anchor")
    ax.xaxis.tick_top()
    ax.set_yticks(range(len(models)), [report.titles[m] for m in models])
    for tick, model in zip(ax.get_yticklabels(), models, strict=True):
        tick.set_color("#444444" if model in report.controls else INK)
        tick.set_fontweight("normal" if model in report.controls else "bold")
    for x in (0.5, len(titles) - 1.5):
        ax.axvline(x, color="white", lw=4)
    ax.tick_params(length=0, labelsize=10)
    ax.spines[:].set_visible(False)
    said = ", ".join(f"{s.title} {show(s.clean, metric)} to {show(s.mean, metric)}" for s in report.summary)
    caption = (
        f"Mean test {metric} over severities and subsets of modalities, per corruption. From clean to the mean over "
        f"corruptions: {said}."
    )
    return Picture("stress_kept", figure, caption)


def _mean(report: StressReport, model: str, corruption: str) -> float:
    """Over subsets of modalities, and in each over severities above 0."""
    curves = [report.curve(model, corruption, subset, report.main) for subset in report.subsets]
    return float(np.mean([np.mean([v for s, v in c.items() if s > 0]) for c in curves if c]))


def _axis(metric: str) -> str:
    return f"test {metric}" + ("" if metric in PLAIN_UNITS else ", %")


def _figure(width_in: float, height_in: float) -> Figure:
    figure = Figure(figsize=(width_in, height_in), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    FigureCanvasAgg(figure)
    return figure
