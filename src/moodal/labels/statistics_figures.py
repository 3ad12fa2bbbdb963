"""The paper's Figure 4: how long clips are, how many have each label by what was shown, and who is taken for whom."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from moodal.files import write_atomic
from moodal.labels.drawing import INK, MODALITY_COLOURS, draw_confusion, tidy
from moodal.labels.statistics import SHORT_S, LabelStatistics

COLOURS = {"full": "#666666", **MODALITY_COLOURS}
STEP_S = 0.5  # of the histogram
LONGEST = 0.995  # share of the clips that the histogram shows one by one; the rest is in its last bar
MAX_BARS = 60
LETTERS = "abcdef"  # of the panels


def save_figure(s: LabelStatistics, folder: Path) -> list[Path]:
    """figure4.png and figure4.svg; the same numbers give the same bytes."""
    from matplotlib import rc_context

    with rc_context({"text.parse_math": False, "svg.hashsalt": "moodal"}):
        figure = draw_statistics(s)
        files = [folder / "figure4.png", folder / "figure4.svg"]
        for file in files:
            kind = file.suffix[1:]
            write_atomic(file, partial(_save, figure, kind))
    return files


def _save(figure: Any, kind: str, file: Path) -> None:
    figure.savefig(file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)


def draw_statistics(s: LabelStatistics) -> Any:
    """The matplotlib figure: two panels a row, a panel only for what is known."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    panels: list[Callable[[Any, str], None]] = [partial(_draw_counts, s)]
    if s.durations_s:
        panels.insert(0, partial(_draw_durations, s))
    wide = len(panels) == 1  # the counts have a row of their own
    panels += [partial(_draw_modality, s, m) for m in s.modalities]
    num_rows = -(-(len(panels) + wide) // 2)
    engine = ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.14)
    figure = Figure(figsize=(11.5, 4.3 * num_rows), layout=engine)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(num_rows, 2)
    for k, draw in enumerate(panels):
        place = k + (wide and k > 0)
        ax = figure.add_subplot(grid[place // 2, slice(None) if wide and k == 0 else place % 2])
        draw(ax, LETTERS[k])
    return figure


def caption(s: LabelStatistics) -> str:
    """In words, for those who cannot see it."""
    letters = iter(LETTERS)
    said = [f"({next(letters)}) how long the clips are"] if s.durations_s else []
    said.append(f"({next(letters)}) clips per label, by what people were shown")
    said += [
        f"({next(letters)}) each row a class of the full clip, and what people called its {m}" for m in s.modalities
    ]
    return f"{s.name}: {'; '.join(said)}."


def _draw_durations(s: LabelStatistics, ax: Any, letter: str) -> None:
    x = np.array(s.durations_s)
    last = max(STEP_S, float(np.quantile(x, LONGEST)))
    step = STEP_S * max(1, -(-last // (STEP_S * MAX_BARS)))
    edges = np.arange(0.0, last + step, step)
    counts, _ = np.histogram(np.minimum(x, edges[-1] - step / 2), edges)
    ax.bar(edges[:-1], counts, step, align="edge", color="#0072B2", edgecolor="white", lw=0.5)
    ax.axvline(x.mean(), color=INK, lw=1.2, ls="--")
    ax.annotate(
        f"mean {x.mean():.2f} s\n{100 * (x < SHORT_S).mean():.0f} % under {SHORT_S:g} s",
        (x.mean(), 1.0),
        (6, -4),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="top",
        color=INK,
        fontsize=9,
    )
    beyond = int((x >= edges[-1]).sum())
    ax.set_xlabel("seconds" + (f"; the last bar holds {beyond} longer ones" if beyond else ""))
    ax.set_ylabel("clips")
    ax.set_xlim(0, edges[-1])
    ax.set_ylim(0, counts.max() * 1.12)
    tidy(ax, f"({letter}) Duration of the clips", grid="y")


def _draw_counts(s: LabelStatistics, ax: Any, letter: str) -> None:
    """A group of bars per label, one bar per condition."""
    shown = ("full", *s.modalities)
    width = 0.82 / len(shown)
    most = max(n for of in s.counts.values() for n in of.values())
    few = len(s.labels) * len(shown) <= 18
    for k, condition in enumerate(shown):
        at = np.arange(len(s.labels)) + (k - (len(shown) - 1) / 2) * width
        heights = [s.counts[label][condition] for label in s.labels]
        bars = ax.bar(at, heights, width * 0.94, color=COLOURS[condition], label=condition)
        if few:
            ax.bar_label(bars, [f"{h}" for h in heights], padding=2, fontsize=7, color=INK)
    slanted = {} if len(s.labels) < 6 else {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(range(len(s.labels)), list(s.labels), **slanted)
    ax.set_ylim(0, most * 1.22)  # room for the legend
    ax.set_ylabel("clips")
    tidy(ax, f"({letter}) Clips per label, by what was shown", grid="y")
    ax.legend(loc="upper right", ncols=len(shown), frameon=False, fontsize=9)


def _draw_modality(s: LabelStatistics, modality: str, ax: Any, letter: str) -> None:
    title = f"({letter}) What people call the {modality} alone"
    draw_confusion(ax, s.confusion[modality], s.classes, s.labels, title)
    ax.set(xlabel=f"label of the {modality}", ylabel="label of the full clip")
