"""Rows of words as tables for terminals, Markdown and LaTeX. What they say is decided elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: the first column and the last ``words`` ones are words, the others numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 0


def as_text(grid: Grid) -> str:
    """Aligned columns; words to the left, numbers to the right."""
    lines = [grid.header, *grid.rows]
    widths = [max(len(row[i]) for row in lines) for i in range(len(grid.header))]
    padded = [
        [x.rjust(w) if _is_number(grid, i) else x.ljust(w) for i, (x, w) in enumerate(zip(row, widths, strict=True))]
        for row in lines
    ]
    head, *body = ["  ".join(cells).rstrip() for cells in padded]
    return "\n".join([head, "─" * (sum(widths) + 2 * (len(widths) - 1)), *body])


def as_markdown(grid: Grid) -> str:
    """As GitHub shows it, every sign with a meaning of its own escaped."""
    sides = ["--:" if _is_number(grid, i) else "---" for i in range(len(grid.header))]
    lines = [map(markdown_text, grid.header), sides, *(map(markdown_text, row) for row in grid.rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def as_latex(grid: Grid, caption: str) -> str:
    r"""A booktabs table; needs ``\usepackage{booktabs}``."""
    columns = "".join("r" if _is_number(grid, i) else "l" for i in range(len(grid.header)))
    # braces, because a cell that begins with [ after \\ would be read as a length
    head, *body = [" & ".join(f"{{{latex_text(x)}}}" for x in row) + r" \\" for row in (grid.header, *grid.rows)]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def markdown_text(text: str) -> str:
    """``text`` with every sign that has a meaning in Markdown escaped."""
    for sign in "\\|*_<>`[]":
        text = text.replace(sign, f"\\{sign}")
    return text


def _is_number(grid: Grid, column: int) -> bool:
    return 0 < column < len(grid.header) - grid.words


LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "†": r"$\dagger$",
}


def latex_text(text: str) -> str:
    """``text`` with every character that LaTeX would take as a command made plain."""
    return "".join(LATEX.get(sign, sign) for sign in text)
