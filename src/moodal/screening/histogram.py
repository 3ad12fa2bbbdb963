"""A histogram with its threshold as a small drawing that stands in a page."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

WIDTH, HEIGHT, FOOT, HEAD = 240, 92, 15, 14
BINS = 30


def draw(
    values: Sequence[float], limits: Sequence[tuple[float, bool, str]], ends: tuple[float, float], unit: str
) -> str:
    """SVG. limits: (where, whether what is below it falls, its name); ends: of the axis, which hold what is beyond."""
    low, high = ends
    counts, edges = np.histogram(np.clip(values, low, high), BINS, (low, high))
    tallest = max(int(counts.max(initial=0)), 1)
    floor = HEIGHT - FOOT
    marks = []
    for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
        if not count:
            continue
        middle = (left + right) / 2
        falls = any(middle < at if is_low else middle > at for at, is_low, _ in limits)
        tall = max(1.0, (floor - HEAD) * int(count) / tallest)
        x, wide = _x(left, ends), WIDTH / BINS - 1
        kind = "bar out" if falls else "bar"
        marks.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{floor - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}"/>'
        )
    for at, _, name in limits:
        x = min(max(_x(at, ends), 0.0), float(WIDTH))
        anchor, shift = ("end", -3) if x > WIDTH / 2 else ("start", 3)
        marks.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="{floor}"/>')
        marks.append(
            f'<text class="limit-name" x="{x + shift:.1f}" y="10" text-anchor="{anchor}">{html.escape(name)}</text>'
        )
    foot = HEIGHT - 3
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f'<line class="axis" x1="0" x2="{WIDTH}" y1="{floor}" y2="{floor}"/>{"".join(marks)}'
        f'<text x="0" y="{foot}">{low:g}</text>'
        f'<text x="{WIDTH}" y="{foot}" text-anchor="end">{high:g} {html.escape(unit)}</text></svg>'
    )


def _x(value: float, ends: tuple[float, float]) -> float:
    return WIDTH * (value - ends[0]) / (ends[1] - ends[0])
