"""A ``Comparison`` as tables for terminals, papers, spreadsheets and programs. Nothing is computed here.

CSV and JSON keep fractions as they are; the tables made for people round them, see ``rounding``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from moodal.benchmark.comparison import Comparison, Contrast, better, share_of_gap, yardstick_contrasts
from moodal.benchmark.grids import latex_text, markdown_text
from moodal.benchmark.rounding import PLAIN_UNITS, show, show_p, show_range, show_share
from moodal.metrics import DESCRIPTIONS, HIGHER_IS_BETTER

GAP = "of the gap"
RELEVANCE_NOTE = (
    "Mean over utterances and seeds: how much a model says each modality should count, not how right that modality is."
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One printed score: "75.9 ± 0.6", its interval if it has one, and whether it is the best of its column."""

    text: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One printed row. part: "candidate", "control" or "limit"; flagged: a constant predictor."""

    title: str
    part: str
    cells: tuple[Cell, ...]
    flagged: bool = False


def printed_columns(c: Comparison) -> tuple[str, ...]:
    """What stands above the cells of ``printed_lines``: metrics, and the share of the gap where limits are known."""
    return (*c.shown, GAP) if c.share_of_gap else c.shown


def printed_lines(c: Comparison) -> list[Line]:
    """The rows of every printed table: candidates, controls, and what is known without any model."""
    best = {k: _best_text(c, k) for k in c.shown}
    best_share = show_share(max(c.share_of_gap.values())) if c.share_of_gap else ""
    lines = []
    for name, title in c.titles.items():
        cells = [_cell(c, name, k, best[k]) for k in c.shown]
        if c.share_of_gap:
            share = show_share(c.share_of_gap[name])
            cells.append(Cell(share, best=share == best_share))
        lines.append(Line(title, "control" if name in c.controls else "candidate", tuple(cells), name in c.constant))
    return lines + _limit_lines(c)


def _limit_lines(c: Comparison) -> list[Line]:
    lines = []
    for key, title in limit_titles(c).items():
        known = c.limits.get(key, {})
        if not any(k in known for k in c.shown):
            continue
        cells = [Cell(show(known[k], k) if k in known else "") for k in c.shown]
        if c.share_of_gap:
            share = share_of_gap(known["accuracy"], c.limits)
            cells.append(Cell("" if share is None else show_share(share)))
        lines.append(Line(title, "limit", tuple(cells)))
    return lines


def limit_titles(c: Comparison) -> dict[str, str]:
    """What is known without a model, by its key in ``limits``, from the lowest to the highest."""
    single = c.limits.get("best_single", {}).get("modality", "one modality")
    return {"constant": c.constant_answer, "best_single": f"best possible, {single} alone", "bayes": "best possible"}


def _cell(c: Comparison, name: str, metric: str, best: str) -> Cell:
    row = c.row(name, metric)
    if row is None:
        return Cell("")
    mean = show(row.mean, metric)
    spread = f" ± {show(row.std, metric)}" if row.num_runs > 1 else ""
    return Cell(mean + spread, show_range(row.low, row.high, metric), mean == best)


def _best_text(c: Comparison, metric: str) -> str:
    """The best mean as it is printed, so that what looks equal is marked alike."""
    means = [r.mean for r in c.rows if (r.metric, r.split) == (metric, "test")]
    if not means:
        return ""
    return show((max if HIGHER_IS_BETTER[metric] else min)(means), metric)


def _caption(c: Comparison) -> str:
    units = (
        "in percent"
        if all(k not in PLAIN_UNITS for k in c.shown)
        else "in percent but for " + ", ".join(k for k in c.shown if k in PLAIN_UNITS)
    )
    down = [k for k in c.shown if not HIGHER_IS_BETTER[k]]
    lower = f"; lower is better for {', '.join(down)}" if down else ""
    return f"{c.dataset}, test: {units}{lower}; mean ± standard deviation over seeds, 95 % interval of {c.main}"


def _legend(c: Comparison, best: str, flag: str) -> list[str]:
    """What stands below a table."""
    text = f"{best}: best of the column"
    return [f"{text}; {flag}: one answer to every utterance in some run" if c.constant else text, *gap_notes(c)]


def gap_notes(c: Comparison) -> list[str]:
    """What the last column means; empty where there is none."""
    if not c.share_of_gap:
        return []
    single, best = c.limits["best_single"], c.limits["bayes"]
    return [
        f"{GAP.capitalize()}: percent of the way from the best that any one modality allows ({single['modality']}, "
        f"{show(single['accuracy'], 'accuracy')} % accuracy) to the best possible answer "
        f"({show(best['accuracy'], 'accuracy')} %); negative: below what {single['modality']} alone allows"
    ]


def _grid(c: Comparison) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Header, and (part, cells) per row, the main metric's interval in a column of its own. * is best, ! a constant."""
    header = ["model", f"{c.main} ", "[95 %]", *(f"{k} " for k in printed_columns(c)[1:])]
    body = []
    for line in printed_lines(c):
        texts = [cell.text + ("*" if cell.best else " ") for cell in line.cells]
        title = line.title + (" !" if line.flagged else "")
        body.append((line.part, [title, texts[0], line.cells[0].interval, *texts[1:]]))
    return header, body


def as_text(c: Comparison) -> str:
    """Aligned columns for a terminal or an e-mail."""
    header, body = _grid(c)
    blocks = [_caption(c), _aligned(header, body), "\n".join(_legend(c, "*", "!"))]
    contrasts = yardstick_contrasts(c)
    if contrasts:
        blocks.append(_aligned(*_contrast_grid(c, contrasts)))
    if c.relevance:
        names, rows = relevance_grid(c)
        blocks += [_aligned(names, [("candidate", cells) for cells in rows]), RELEVANCE_NOTE]
    verdict = "\n".join(c.verdict)
    notes = "\n".join(f"- {s}" for s in (*c.protocol, *c.notes))
    return "\n\n".join([*blocks, verdict, notes]) + "\n"


def _aligned(header: Sequence[str], body: Sequence[tuple[str, Sequence[str]]]) -> str:
    """First column to the left, the rest to the right, a rule between parts."""
    widths = [max(len(row[i]) for row in (header, *(cells for _, cells in body))) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [x.ljust(w) if i == 0 else x.rjust(w) for i, (x, w) in enumerate(zip(cells, widths, strict=True))]
        return "  ".join(padded).rstrip()

    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    lines, before = [line(header)], ""
    for part, cells in body:
        if part != before:
            lines.append(rule)
        lines.append(line(cells))
        before = part
    return "\n".join(lines)


def _contrast_grid(c: Comparison, contrasts: Sequence[Contrast]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    header = ["difference on test", f"{c.main}", *CONTRAST_COLUMNS]
    return header, [(x.family, contrast_cells(x, c.titles)) for x in contrasts]


CONTRAST_COLUMNS = ("[95 %]", "p", "p_holm", "shown")


def contrast_cells(x: Contrast, titles: Mapping[str, str]) -> list[str]:
    """Who against whom, the difference, and ``CONTRAST_COLUMNS``."""
    words = {1: "better", -1: "worse", 0: "no difference"}
    return [
        f"{titles[x.model]} − {titles[x.against]}",
        show(x.difference, x.metric, sign=True),
        show_range(x.low, x.high, x.metric, sign=True),
        show_p(x.p),
        "" if x.p_holm is None else show_p(x.p_holm),
        words[better(x)],
    ]


def relevance_grid(c: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the models that have relevance, by modality; empty cells where a model does not use one."""
    modalities = list(dict.fromkeys(m for shares in c.relevance.values() for m in shares))
    rows = [
        [c.titles[name], *(f"{shares[m]:.2f}" if m in shares else "" for m in modalities)]
        for name, shares in c.relevance.items()
    ]
    return ["relevance on test", *modalities], rows


def as_markdown(c: Comparison) -> str:
    """Tables, verdict and protocol as GitHub shows them; the best of a column is bold."""
    header = ["model", *(f"{k} [95 %]" if i == 0 else k for i, k in enumerate(printed_columns(c)))]
    lines = []
    for line in printed_lines(c):
        cells = [_markdown_cell(cell, i == 0) for i, cell in enumerate(line.cells)]
        title = markdown_text(line.title) + (" (control)" if line.part == "control" else "")
        title += " †" if line.flagged else ""
        lines.append([f"*{title}*" if line.part == "limit" else title, *cells])
    blocks = [f"{_caption(c)}.", _markdown_table(header, lines), *(f"{s}." for s in _legend(c, "**bold**", "†"))]
    contrasts = yardstick_contrasts(c)
    if contrasts:
        names, body = _contrast_grid(c, contrasts)
        blocks.append(_markdown_table(*_escaped(names, [cells for _, cells in body]), words=1))
    if c.relevance:
        blocks += [_markdown_table(*_escaped(*relevance_grid(c))), RELEVANCE_NOTE]
    said = [markdown_text(" ".join(c.verdict)), "\n".join(f"- {markdown_text(s)}" for s in (*c.protocol, *c.notes))]
    return "\n\n".join([said[0], *blocks, said[1]]) + "\n"


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 0) -> str:
    """Numbers to the right; the first column and the last ``words`` ones to the left."""
    sides = "|---|" + "--:|" * (len(header) - 1 - words) + "---|" * words
    return "\n".join([_markdown_row(header), sides, *map(_markdown_row, rows)])


def _escaped(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    return [markdown_text(x) for x in header], [[markdown_text(x) for x in cells] for cells in rows]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_cell(cell: Cell, with_interval: bool) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return f"{text} {cell.interval}".strip() if with_interval else text


def as_latex(c: Comparison) -> str:
    r"""A booktabs table; needs ``\usepackage{booktabs}``."""
    header = ["", *(k + (" [95 %]" if i == 0 else "") for i, k in enumerate(printed_columns(c)))]
    lines = [" & ".join(latex_text(x) for x in header) + r" \\"]
    before = ""
    for line in printed_lines(c):
        if line.part != before:
            lines.append(r"\midrule")
        before = line.part
        cells = [_latex_cell(cell, i == 0) for i, cell in enumerate(line.cells)]
        lines.append(" & ".join([latex_text(line.title + (" †" if line.flagged else "")), *cells]) + r" \\")
    caption = "".join(f"{s}. " for s in (_caption(c), *_legend(c, "Bold", "†"))).rstrip()
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex_cell(cell: Cell, with_interval: bool) -> str:
    text = latex_text(cell.text)
    text = rf"\textbf{{{text}}}" if cell.best else text
    # braces, because a row that begins with [ is read as the length of the \\ before it
    return f"{text} {{{latex_text(cell.interval)}}}" if with_interval and cell.interval else text


def as_csv(c: Comparison) -> str:
    """One line per score, as in the JSON: fractions, not rounded; empty where there is no interval."""
    out = io.StringIO()
    names = ("model", "title", "is_control", "metric", "split", "mean", "std", "low", "high", "num_runs")
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in c.rows)
    return out.getvalue()


def as_json(comparison: Comparison) -> dict[str, Any]:
    """What ``--json`` prints: fractions, never rounded, never NaN."""
    rows = [{**asdict(r), "control": r.is_control} for r in comparison.rows]
    for row in rows:
        del row["is_control"]
    return {
        "dataset": comparison.dataset,
        "protocol": " ".join(comparison.protocol),
        "rows": rows,
        "paired": [asdict(c) for c in comparison.paired],
        "verdict": " ".join(comparison.verdict),
        "main_metric": comparison.main,
        "metrics": {k: DESCRIPTIONS[k] for k in dict.fromkeys(r.metric for r in comparison.rows)},
        "best_candidate": dict(comparison.best_candidate),
        "best_control": dict(comparison.best_control),
        "limits": {k: dict(v) for k, v in comparison.limits.items()},
        "share_of_gap": dict(comparison.share_of_gap),
        "relevance": {k: dict(v) for k, v in comparison.relevance.items()},
        "constant": {k: list(v) for k, v in comparison.constant.items()},
        "notes": list(comparison.notes),
    }


EMITTERS: dict[str, Callable[[Comparison], str]] = {
    "text": as_text,
    "markdown": as_markdown,
    "latex": as_latex,
    "csv": as_csv,
}
