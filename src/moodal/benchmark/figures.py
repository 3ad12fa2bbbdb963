"""The pictures of a benchmark. Every function returns a matplotlib figure; ``write_figures`` saves them as PNG and SVG.

Candidates are blue, controls grey, in every picture; modalities and classes have shades, not a rainbow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from moodal import metrics
from moodal.benchmark.comparison import Comparison, Row
from moodal.benchmark.printing import limit_titles
from moodal.benchmark.results import Array, ModelResult, Results
from moodal.benchmark.rounding import PLAIN_UNITS, show
from moodal.files import read_json, write_atomic
from moodal.metrics import HIGHER_IS_BETTER
from moodal.types import MODALITIES

# Okabe and Ito's colours: told apart by people who see red and green alike, and in grey print
CANDIDATE, CONTROL = "#0072B2", "#767676"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MODALITY_COLOURS = {"text": "#0072B2", "audio": "#E69F00", "vision": "#009E73"}
INK, FAINT = "#222222", "#D9D9D9"
DARK_CELL = 0.6  # a share above this has a dark cell, so its number is white
BINS = 10  # of the calibration curve
FEW = 20  # predictions; a bin with fewer says little and is drawn hollow
DPI = 150
WIDE_NAMES = 40  # letters; class names that are longer together stand aslant
PLAIN_TEXT = {"text.parse_math": False}  # a dollar sign in a name is a dollar sign, not a formula


@dataclass(frozen=True)
class Picture:
    """A drawn figure, the name of its files, and what it shows, in words, for those who cannot see it."""

    name: str
    figure: Figure
    caption: str


def draw_figures(results: Results, comparison: Comparison) -> list[Picture]:
    """Every picture that these results have data for."""
    makers: tuple[Callable[[Results, Comparison], Picture | None], ...] = (
        draw_forest,
        draw_relevance,
        draw_confusion,
        draw_calibration,
        draw_scores,
        draw_training,
    )
    with rc_context(PLAIN_TEXT):
        return [picture for make in makers if (picture := make(results, comparison)) is not None]


def save_picture(picture: Picture, folder: Path) -> list[Path]:
    """``folder/<name>.png`` and ``.svg``; the same figure gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{picture.name}.{kind}" for kind in ("png", "svg")]
    for file in files:
        write_atomic(file, partial(_save, picture.figure, file.suffix[1:]))
    return files


def write_figures(results: Results, comparison: Comparison, folder: Path) -> list[Path]:
    """All pictures as PNG and SVG below ``folder``."""
    return [file for picture in draw_figures(results, comparison) for file in save_picture(picture, folder)]


def _save(figure: Figure, kind: str, file: Path) -> None:
    with rc_context({**PLAIN_TEXT, "svg.hashsalt": "moodal"}):  # else ids inside the SVG are random
        figure.savefig(file, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)


def _figure(width_in: float, height_in: float) -> Figure:
    figure = Figure(figsize=(width_in, height_in), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    FigureCanvasAgg(figure)
    return figure


def _tidy(ax: Any, title: str = "", grid: str = "both") -> None:
    if title:
        ax.set_title(title, loc="left", fontsize=11, color=INK)
    ax.grid(axis=grid, color=FAINT, lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#999999")
    ax.tick_params(length=0, labelsize=10)


# All models at a glance.


def draw_forest(results: Results, comparison: Comparison) -> Picture:
    """Test score of the main metric with its interval, one line per model, best on top; limits as vertical lines."""
    c, metric = comparison, comparison.main
    rows = [r for r in c.rows if (r.metric, r.split) == (metric, "test")]
    rows.sort(key=lambda r: r.mean, reverse=HIGHER_IS_BETTER[metric])
    scale = 1 if metric in PLAIN_UNITS else 100
    figure = _figure(10, 1.7 + 0.36 * len(rows))
    ax = figure.subplots()
    for i, r in enumerate(rows):
        colour = CONTROL if r.is_control else CANDIDATE
        if r.low is not None and r.high is not None:
            ax.plot([scale * r.low, scale * r.high], [i, i], color=colour, lw=2.2, solid_capstyle="butt")
        flagged = r.model in c.constant
        ax.plot(scale * r.mean, i, "o", ms=7.5, color=colour, mfc="white" if flagged else colour, mew=1.8)
        ax.annotate(
            show(r.mean, metric) + ("" if r.low is None or r.high is None else _interval(r.low, r.high, metric)),
            (1.01, i),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=10,
            color=colour,
            annotation_clip=False,
        )
    ax.set_yticks(range(len(rows)), [r.title + (" (one answer)" if r.model in c.constant else "") for r in rows])
    for tick, r in zip(ax.get_yticklabels(), rows, strict=True):
        tick.set_color("#444444" if r.is_control else CANDIDATE)
        tick.set_fontweight("normal" if r.is_control else "bold")
    ax.set_ylim(len(rows) - 0.4, -0.6)
    _forest_limits(ax, c, scale)
    _tidy(ax, grid="x")
    ax.set_xlabel(f"test {metric}" + ("" if scale == 1 else ", %") + ": mean over seeds and 95 % interval")
    _forest_key(figure, ax, rows)
    leader = rows[0]
    caption = (
        f"Test {metric} of {len(rows)} models with 95 % intervals, best on top: {leader.title} with "
        f"{show(leader.mean, metric)}. Candidates blue, controls grey."
    )
    return Picture("forest", figure, caption)


def _interval(low: float, high: float, metric: str) -> str:
    return f"  [{show(low, metric)}, {show(high, metric)}]"


def _forest_limits(ax: Any, c: Comparison, scale: float) -> None:
    for (key, said), style in zip(limit_titles(c).items(), (":", "--", "-"), strict=True):
        if c.main in c.limits.get(key, {}):
            value = c.limits[key][c.main]
            ax.axvline(scale * value, color=INK, lw=1.1, ls=style, zorder=0, label=f"{said}: {show(value, c.main)}")


def _forest_key(figure: Figure, ax: Any, rows: Sequence[Row]) -> None:
    """Below the axes, where it can hide nothing."""
    kinds = {r.is_control: ("control", CONTROL) if r.is_control else ("candidate", CANDIDATE) for r in rows}
    points = [
        Line2D([], [], color=colour, marker="o", lw=2.2, label=name) for _, (name, colour) in sorted(kinds.items())
    ]
    lines = ax.get_legend_handles_labels()[0]
    figure.legend(handles=[*points, *lines], loc="outside lower center", ncols=3, frameon=False, fontsize=10)


# Relevance.


def draw_relevance(results: Results, comparison: Comparison) -> Picture | None:
    """Mean relevance of each modality on test, and per true class as a small map; None where no model has any."""
    models = [m for m in _ordered(results, comparison) if m.relevance is not None]
    if not models:
        return None
    classes = results.task.classes
    columns = 2 if classes else 1
    figure = _figure(10 if classes else 7, 0.9 + len(models) * (0.55 + 0.42 * len(MODALITIES) * bool(classes)))
    grid = figure.subplots(len(models), columns, squeeze=False, gridspec_kw={"width_ratios": [1, 1.25][:columns]})
    for axes, m in zip(grid, models, strict=True):
        _draw_mean_relevance(axes[0], m)
        if classes:
            _draw_class_relevance(axes[1], m, results)
    grid[-1][0].set_xlabel("mean relevance on test; ticks: single seeds; dots: all alike")
    if classes:
        grid[-1][1].set_xlabel("by true class")
    said = "; ".join(
        f"{m.title}: " + ", ".join(f"{k} {v:.2f}" for k, v in comparison.relevance[m.name].items()) for m in models
    )
    return Picture("relevance", figure, f"Mean relevance of each modality on test. {said}.")


def _draw_mean_relevance(ax: Any, m: ModelResult) -> None:
    assert m.relevance is not None
    per_seed = m.relevance.mean(1)  # (R, M)
    mean = per_seed.mean(0)
    ax.barh(m.modalities, mean, height=0.62, color=[MODALITY_COLOURS[k] for k in m.modalities])
    for i, value in enumerate(mean):
        ax.plot(per_seed[:, i], np.full(len(per_seed), i), "|", color=INK, ms=9, mew=1.1)
        at = ("axes fraction", "data")
        ax.annotate(f"{value:.2f}", (0.99, i), xycoords=at, ha="right", va="center", fontsize=10, color=INK)
    if np.allclose(m.relevance.sum(-1), 1, atol=1e-3):
        ax.axvline(1 / len(m.modalities), color=INK, lw=1, ls=":")  # what a model that does not tell them apart gives
    ax.set_xlim(0, max(0.6, per_seed.max() * 1.25))
    ax.invert_yaxis()
    _tidy(ax, m.title, grid="x")


def _draw_class_relevance(ax: Any, m: ModelResult, results: Results) -> None:
    assert m.relevance is not None
    mean = m.relevance.mean(0)  # (N, M)
    found = [c for c in range(len(results.task.classes)) if (results.y == c).any()]
    cells = np.stack([mean[results.y == c].mean(0) for c in found], axis=1)  # (M, C)
    top = max(2 / len(m.modalities), float(cells.max()))
    ax.imshow(cells, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    for i, j in np.ndindex(cells.shape):
        colour = "white" if cells[i, j] / top > DARK_CELL else INK
        ax.text(j, i, f"{cells[i, j]:.2f}", ha="center", va="center", fontsize=10, color=colour)
    names = [results.task.classes[c] for c in found]
    if sum(map(len, names)) > WIDE_NAMES:
        ax.set_xticks(range(len(found)), names, rotation=30, ha="right", rotation_mode="anchor")
    else:
        ax.set_xticks(range(len(found)), names)
    ax.set_yticks(range(len(m.modalities)), m.modalities)
    _bare(ax)


def _bare(ax: Any) -> None:
    ax.tick_params(length=0, labelsize=10)
    ax.spines[:].set_visible(False)


# Who is taken for whom.


def draw_confusion(results: Results, comparison: Comparison) -> Picture | None:
    """Confusion of the best candidate and of the best control: share of the row, and utterances per run."""
    classes = results.task.classes
    models = _leaders(results, comparison)
    if not classes or not models:
        return None
    n = len(classes)
    side = max(2.9, 0.82 * n)
    figure = _figure(1.4 + len(models) * (side + 0.9), side + 1.3)
    for ax, m in zip(figure.subplots(1, len(models), squeeze=False)[0], models, strict=True):
        counts = np.stack([metrics.confusion(results.y, o.argmax(-1), n) for o in m.outputs]).mean(0)
        totals = counts.sum(1, keepdims=True)
        shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
        for i, j in np.ndindex(shares.shape):
            _confusion_cell(ax, i, j, shares[i, j], counts[i, j])
        names = [f"{c}\n({t:.0f})" for c, t in zip(classes, totals[:, 0], strict=True)]
        ax.set_yticks(range(n), names)
        ax.set_xticks(range(n), classes, rotation=30, ha="right", rotation_mode="anchor")
        ax.set_xlabel("predicted")
        ax.set_ylabel("true")
        ax.set_title(_kind(m), loc="left", fontsize=11, color=CONTROL if m.is_control else CANDIDATE)
        _bare(ax)
    named = " and ".join(m.title for m in models)
    caption = f"Confusion on test of {named}: percent of the true class, and below it utterances (mean over seeds)."
    return Picture("confusion", figure, caption)


def _confusion_cell(ax: Any, i: int, j: int, share: float, count: float) -> None:
    if count == 0:
        return
    colour = "white" if share > DARK_CELL else INK
    ax.text(j, i - 0.12, f"{100 * share:.0f} %", ha="center", va="center", fontsize=11, color=colour)
    ax.text(j, i + 0.24, f"{count:.0f}" if count >= 1 else "< 1", ha="center", va="center", fontsize=8, color=colour)


def _kind(m: ModelResult) -> str:
    return f"{m.title} (best control)" if m.is_control else f"{m.title} (best candidate)"


# Does it know what it knows.


def draw_calibration(results: Results, comparison: Comparison) -> Picture | None:
    """Share right against stated probability of the top class, over all seeds, with how often each is stated."""
    models = _leaders(results, comparison)
    if not results.task.classes or not models:
        return None
    figure = _figure(6.4, 6.4)
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    above.plot([0, 1], [0, 1], color=INK, lw=1, ls="--", label="right as often as it says")
    parts = []
    for m, style in zip(models, ("-", "--"), strict=False):
        colour = CONTROL if m.is_control else CANDIDATE
        stated, right = _confidence(m.outputs, results.y)
        _calibration_curve(above, stated, right, colour, m.title)
        share, edges = np.histogram(stated, np.linspace(0, 1, BINS + 1))
        below.stairs(100 * share / len(stated), edges, baseline=None, color=colour, lw=1.8, ls=style)
        row = comparison.row(m.name, "ece")
        parts.append(f"{m.title} (ece {show(row.mean, 'ece')} %)" if row else m.title)
    above.set_xlim(0, 1)
    above.set_ylim(0, 1)
    above.set_ylabel("share that is right")
    below.set_xlabel("probability the model gives its answer")
    below.set_ylabel("% of answers")
    below.set_ylim(0)
    _tidy(above)
    _tidy(below)
    above.legend(loc="upper left", frameon=False, fontsize=10)
    caption = f"Calibration on test, all seeds together: {' and '.join(parts)}. Below the diagonal is overconfident."
    return Picture("calibration", figure, caption)


def _confidence(logits: Array, y: Any) -> tuple[Array, Any]:
    """(R * N,) probability of the top class, and whether it is right."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    top = (shifted / shifted.sum(-1, keepdims=True)).max(-1)
    return top.ravel(), (logits.argmax(-1) == y).ravel()


def _calibration_curve(ax: Any, stated: Array, right: Any, colour: str, title: str) -> None:
    bins = np.minimum((stated * BINS).astype(int), BINS - 1)
    points = [(stated[bins == b].mean(), right[bins == b].mean(), (bins == b).sum()) for b in np.unique(bins)]
    x, share, count = (np.array(v, dtype=float) for v in zip(*points, strict=True))
    ax.plot(x, share, color=colour, lw=1.8, label=title)
    few = count < FEW
    ax.plot(x[~few], share[~few], "o", color=colour, ms=6)
    ax.plot(x[few], share[few], "o", color=colour, ms=6, mfc="white")


# Scores against scores.


def draw_scores(results: Results, comparison: Comparison) -> Picture | None:
    """Regression: predicted against true score (mean over seeds) of the best candidate and the best control."""
    models = _leaders(results, comparison)
    if results.task.classes or not models:
        return None
    low, high = results.task.low, results.task.high
    figure = _figure(4.6 * len(models) + 0.4, 4.8)
    for ax, m in zip(figure.subplots(1, len(models), squeeze=False)[0], models, strict=True):
        colour = CONTROL if m.is_control else CANDIDATE
        ax.plot([low, high], [low, high], color=INK, lw=1, ls="--")
        ax.plot(results.y, m.outputs[..., 0].mean(0), "o", ms=4, alpha=0.35, mew=0, color=colour)
        ax.set_xlim(low, high)
        ax.set_ylim(low, high)
        ax.set_aspect("equal")
        ax.set_xlabel("true score")
        ax.set_ylabel("predicted, mean over seeds")
        _tidy(ax)
        ax.set_title(_kind(m), loc="left", fontsize=11, color=colour)
    return Picture("scores", figure, f"Predicted against true score: {' and '.join(m.title for m in models)}.")


# How training went.


def draw_training(results: Results, comparison: Comparison) -> Picture | None:
    """The score on valid after each epoch: thin lines are runs, thick ones their mean while all of them train."""
    curves = {m.name: _curves(results.root, m) for m in _ordered(results, comparison) if not m.is_control}
    curves = {name: found for name, found in curves.items() if found}
    if not curves:
        return None
    models = {m.name: m for m in results.models}
    criteria = list(dict.fromkeys(str(models[name].training["select"]) for name in curves))
    figure = _figure(8.5, 4.2 * len(criteria))
    panels = dict(zip(criteria, figure.subplots(len(criteria), 1, squeeze=False)[:, 0], strict=True))
    handles = []
    for i, (name, found) in enumerate(curves.items()):
        ax, colour = panels[str(models[name].training["select"])], LINES[i % len(LINES)]
        shortest = min(len(x) for x in found)
        for x in found:
            ax.plot(range(1, len(x) + 1), x, color=colour, lw=0.8, alpha=0.45)
        mean = np.mean([x[:shortest] for x in found], axis=0)
        best = int(mean.argmin() if _is_loss(str(models[name].training["select"])) else mean.argmax())
        ax.plot(range(1, shortest + 1), mean, color=colour, lw=2.4, marker="o", markevery=[best], ms=8)
        handles.append(Line2D([], [], color=colour, lw=2.4, marker="o", label=models[name].title))
    for criterion, ax in panels.items():
        ax.set_ylabel(f"{criterion} on valid ({'lower' if _is_loss(criterion) else 'higher'} is better)")
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        _tidy(ax)
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    caption = f"Score on valid after each epoch of {', '.join(models[k].title for k in curves)}; "
    caption += "a thin line per run, a thick one for their mean while all of them train, a dot at its best epoch."
    return Picture("training", figure, caption)


def _is_loss(criterion: str) -> bool:
    return criterion in ("nll", "loss")


def _curves(root: Path, m: ModelResult) -> list[list[float]]:
    """Per run (seed, fold) the score on valid by epoch; training maximises, so losses are stored with a minus."""
    sign = -1 if _is_loss(str(m.training["select"])) else 1
    files = [f for s in m.seeds for f in sorted((root / m.name / f"seed-{s}").rglob("history.json"))]
    histories: list[list[Mapping[str, float]]] = [read_json(f) for f in files]
    return [[sign * row["valid"] for row in h if "valid" in row] for h in histories if h]


def _ordered(results: Results, comparison: Comparison) -> Sequence[ModelResult]:
    models = {m.name: m for m in results.models}
    return [models[name] for name in comparison.titles]


def _leaders(results: Results, comparison: Comparison) -> list[ModelResult]:
    """The two models of the verdict."""
    main = comparison.main
    names = (comparison.best_candidate.get(main), comparison.best_control.get(main))
    models = {m.name: m for m in results.models}
    return [models[name] for name in names if name is not None]
