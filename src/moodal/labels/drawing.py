"""How pictures of labels look, here and in ``moodal inspect``: colours, axes, a confusion matrix by rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# Okabe and Ito's colours: told apart by people who see red and green alike, and in grey print
MODALITY_COLOURS = {"text": "#0072B2", "audio": "#E69F00", "vision": "#009E73"}
INK, FAINT = "#222222", "#BBBBBB"
DARK_CELL = 0.55  # a share above this has a dark cell, so its number is white


def draw_confusion(
    ax: Any, confusion: Sequence[Sequence[int]], rows: Sequence[str], columns: Sequence[str], title: str
) -> None:
    """Each row adds up to 1; it is empty where the class never occurs."""
    counts = np.array(confusion, dtype=float)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    size = 10 if len(columns) < 7 else 8
    for i, j in np.ndindex(*shares.shape):
        if counts[i].sum():
            colour = "white" if shares[i, j] > DARK_CELL else INK
            ax.text(j, i, said_share(shares[i, j]), ha="center", va="center", color=colour, fontsize=size)
    ax.set_xticks(range(len(columns)), list(columns), rotation=30, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_title(title, loc="left", fontsize=11, color=INK)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def said_share(share: float) -> str:
    """.73, and 1.00"""
    return f"{share:.2f}".removeprefix("0")


def put_legend(ax: Any, columns: int) -> None:
    """Below the axes, where it can hide nothing."""
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=min(columns, 3), frameon=False, fontsize=9)


def tidy(ax: Any, title: str, *, grid: str) -> None:
    """A title at the left, a faint grid behind, no frame."""
    ax.set_title(title, loc="left", fontsize=11, color=INK)
    ax.grid(axis=grid, color=FAINT, lw=0.5, alpha=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(length=0)
