"""A ``PaperTable`` for terminals, papers, spreadsheets and programs: every column says whose numbers it holds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moodal.benchmark import grids
from moodal.benchmark.comparison import Row
from moodal.benchmark.grids import Grid, markdown_text
from moodal.benchmark.paper_table import COLUMNS, REFERENCE, TABLES, PaperScore, PaperTable, Ratio
from moodal.benchmark.printing import CONTRAST_COLUMNS, contrast_cells
from moodal.benchmark.rounding import show, show_range
from moodal.files import write_atomic

WORDS = ("accuracy", "F1")


def caption(t: PaperTable) -> str:
    theirs = f"; paper: {COLUMNS[t.column]}, arXiv 2302.01555" if t.column else ""
    unit = "" if t.table == "table4" else "; in percent"
    return f"Table {t.table[-1]}, {TABLES[t.table]}; ours: {t.dataset}{theirs}{unit}"


def as_text(t: PaperTable) -> str:
    blocks = [caption(t), *map(grids.as_text, _grids(t)), _legend(t), "\n".join(f"- {s}" for s in _said(t))]
    return "\n\n".join(b for b in blocks if b) + "\n"


def as_markdown(t: PaperTable) -> str:
    """A section of a page: heading, the command that made it, tables, what was done."""
    blocks = [
        f"## Table {t.table[-1]} on {markdown_text(t.dataset)}: {TABLES[t.table]}",
        f"```sh\n{t.command}\n```" if t.command else "",
        f"{markdown_text(caption(t))}.",
        *map(grids.as_markdown, _grids(t)),
        markdown_text(_legend(t)),
        "\n".join(f"- {markdown_text(s)}" for s in _said(t)),
    ]
    return "\n\n".join(b for b in blocks if b) + "\n"


def as_latex(t: PaperTable) -> str:
    captions = [f"{caption(t)}. {_legend(t)}".strip(), f"Differences in accuracy to {t.titles.get(REFERENCE, '')}."]
    tables = [grids.as_latex(g, words) for g, words in zip(_grids(t), captions, strict=False)]
    said = [f"% {s}" for s in _said(t)]
    return "\n".join(["% needs \\usepackage{booktabs}", *tables, *said]) + "\n"


def as_csv(t: PaperTable) -> str:
    """One line per number, ours and the paper's: fractions and seconds, not rounded."""
    out = io.StringIO()
    names = ("source", "model", "title", "metric", "split", "mean", "std", "low", "high", "num_runs")
    writer = csv.DictWriter(out, names, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({"source": "ours", **asdict(r)} for r in t.rows)
    writer.writerows({"source": "paper", "title": t.titles[p.model], **asdict(p)} for p in t.paper)
    return out.getvalue()


def as_json(t: PaperTable) -> dict[str, Any]:
    """What ``--json`` prints: fractions and seconds, never rounded."""
    return {
        "table": t.table,
        "dataset": t.dataset,
        "paper_dataset": COLUMNS[t.column] if t.column else None,
        "protocol": " ".join(t.protocol),
        "rows": [asdict(r) for r in t.rows],
        "paired": [asdict(c) for c in t.paired],
        "paper": [asdict(p) for p in t.paper],
        "ratios": [asdict(r) for r in t.ratios],
        "constant": {name: list(seeds) for name, seeds in t.collapsed.items()},
        "notes": list(t.notes),
    }


def write_table(t: PaperTable, folder: Path) -> list[Path]:
    """table3.md, .tex, .csv and .json in ``folder`` (table4, table5)."""
    said = json.dumps(as_json(t), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    made = {"md": as_markdown(t), "tex": as_latex(t), "csv": as_csv(t), "json": said}
    return [_write(folder / f"{t.table}.{ending}", text) for ending, text in made.items()]


def _write(path: Path, text: str) -> Path:
    write_atomic(path, lambda p: p.write_text(text, encoding="utf-8"))
    return path


def _said(t: PaperTable) -> tuple[str, ...]:
    return (*t.protocol, *t.notes)


def _legend(t: PaperTable) -> str:
    return "!: predicts one class for every utterance in some run" if t.collapsed else ""


def _grids(t: PaperTable) -> list[Grid]:
    if t.table == "table4":
        return [_timing_grid(t)]
    return [_score_grid(t), *([_difference_grid(t)] if t.paired else [])]


def _score_grid(t: PaperTable) -> Grid:
    header = ["model"]
    for word in WORDS:
        header += [f"{word}, ours", "[95 %]", *([f"{word}, paper"] if t.column else [])]
    rows = []
    for name, title in t.titles.items():
        cells = [f"{title} !" if name in t.collapsed else title]
        for metric in t.shown:
            row = t.row(name, metric)
            assert row is not None
            spread = f" ± {show(row.std, metric)}" if row.num_runs > 1 else ""
            cells += [show(row.mean, metric) + spread, show_range(row.low, row.high, metric)]
            cells += [_printed(t.paper_score(name, metric))] if t.column else []
        rows.append(cells)
    return Grid(header, rows)


def _printed(score: PaperScore | None) -> str:
    """As the paper prints it, with two decimals."""
    return "" if score is None or score.std is None else f"{100 * score.mean:.2f} ± {100 * score.std:.2f}"


def _difference_grid(t: PaperTable) -> Grid:
    header = ["difference on test, ours", "accuracy", *CONTRAST_COLUMNS]
    return Grid(header, [contrast_cells(c, t.titles) for c in t.paired if c.metric == t.shown[0]], words=1)


def _timing_grid(t: PaperTable) -> Grid:
    header = ["model", "s per epoch, ours", "epochs", "s in total, ours", "parameters"]
    header += ["× MRE per epoch", "× MRE in total"] if t.ratios else []
    header += ["s, paper", *(["× MRE, paper"] if t.ratios else [])] if t.paper else []
    ratios = {r.model: r for r in t.ratios}
    rows = []
    for name, title in t.titles.items():
        per_epoch, epochs, seconds, parameters = (t.row(name, k) for k in t.shown)
        assert epochs is not None
        assert parameters is not None
        cells = [title, _seconds(per_epoch), f"{epochs.mean:.1f}".removesuffix(".0"), _seconds(seconds)]
        cells.append(f"{parameters.mean:,.0f}".replace(",", " "))
        ratio = ratios.get(name, Ratio(name, name, 1.0, 1.0, 1.0))
        if t.ratios:
            cells += [_times(ratio.seconds_per_epoch), _times(ratio.seconds)]
        if t.paper:
            score = t.paper_score(name, "seconds")
            cells += ["" if score is None else f"{score.mean:.2f}"]
            cells += [_times(ratio.paper)] if t.ratios else []
        rows.append(cells)
    return Grid(header, rows)


def _seconds(row: Row | None) -> str:
    if row is None:
        return ""
    return _three_digits(row.mean) + (f" ± {_three_digits(row.std, like=row.mean)}" if row.num_runs > 1 else "")


def _three_digits(value: float, like: float | None = None) -> str:
    """About three digits, and as many decimals as ``like`` would have."""
    size = value if like is None else like
    decimals: Sequence[tuple[float, int]] = ((0.1, 4), (1, 3), (10, 2), (100, 1))
    return f"{value:.{next((d for limit, d in decimals if size < limit), 0)}f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.1f}"
