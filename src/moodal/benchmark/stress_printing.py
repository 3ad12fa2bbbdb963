"""A ``StressReport`` as tables for terminals, papers and spreadsheets, and as one page. Nothing is computed here."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from html import escape
from pathlib import Path
from string import Template

from moodal import __version__
from moodal.benchmark.comparison import ALPHA
from moodal.benchmark.corruptions import CORRUPTIONS
from moodal.benchmark.figures import Picture, save_picture
from moodal.benchmark.grids import Grid
from moodal.benchmark.grids import as_markdown as grid_markdown
from moodal.benchmark.grids import as_text as grid_text
from moodal.benchmark.report import INTENDED_USE, TEMPLATE
from moodal.benchmark.rounding import show, show_p, show_range, show_share
from moodal.benchmark.stress import ALL, StressReport, StressRow, StressSummary
from moodal.benchmark.stress_figures import draw_stress
from moodal.files import write_atomic, write_json
from moodal.metrics import HIGHER_IS_BETTER

WHAT = (
    "The test clips were made worse on purpose, and models trained on clean clips answered again. What a lone modality "
    "loses, a model that reads several may make up for; what all lose together, none can."
)


def as_text(report: StressReport) -> str:
    """Aligned columns for a terminal or an e-mail."""
    blocks = [headline(report), _caption(report), grid_text(summary_grid(report)), "Area per corruption"]
    blocks += [grid_text(area_grid(report)), _bullets((*report.protocol, *report.notes))]
    return "\n\n".join(blocks) + "\n"


def as_markdown(report: StressReport) -> str:
    """Tables and protocol as GitHub shows them."""
    blocks = [headline(report), f"{_caption(report)}.", grid_markdown(summary_grid(report)), "Area per corruption:"]
    blocks += [grid_markdown(area_grid(report)), _bullets((*report.protocol, *report.notes))]
    return "\n\n".join(blocks) + "\n"


def as_csv(report: StressReport) -> str:
    """One line per score, as in the JSON: fractions, not rounded; empty where there is no interval."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [f.name for f in fields(StressRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in report.rows)
    return out.getvalue()


def headline(report: StressReport) -> str:
    """The reference, and against it the control that test shows to be the best: a choice that favours the control."""
    mine = next(s for s in report.summary if s.against is None)
    metric = mine.metric
    said = (
        f"{mine.title}: mean {metric} {show(mine.mean, metric)} over all corruptions, {show(mine.clean, metric)} clean."
    )
    controls = [s for s in report.summary if s.is_control and s is not mine]
    if not controls:
        return said
    best = (max if HIGHER_IS_BETTER[metric] else min)(controls, key=lambda s: s.mean)
    return f"{said} {_against(best)}"


def _against(s: StressSummary) -> str:
    assert s.difference is not None
    assert s.p_holm is not None
    shown = "" if s.p_holm < ALPHA else ", so no difference is shown"
    return (
        f"The best control, {s.title}: {show(s.mean, s.metric)} and {show(s.clean, s.metric)}; the means differ by "
        f"{show(s.difference, s.metric, sign=True)} {show_range(s.low, s.high, s.metric, sign=True)}, p "
        f"{show_p(s.p_holm)}{shown}."
    )


def summary_grid(report: StressReport) -> Grid:
    """A row per model: the main metric clean and corrupted, calibration, and the difference to the reference."""
    against = next((s.against for s in report.summary if s.against), None)
    header = ["model", f"clean {report.main}", "mean", "worst", "kept"]
    classes = bool(report.task.classes)
    header += ["nll", "ece", "aurc"] if classes else []
    header += [f"vs {report.titles[against]}", "[95 %]", "p_holm"] if against else []
    rows = []
    for s in report.summary:
        cells = [s.title, show(s.clean, s.metric), show(s.mean, s.metric), show(s.worst, s.metric)]
        cells.append("" if s.retention is None else show_share(s.retention) + " %")
        if classes:
            cells += [_pair(s.clean_nll, s.mean_nll, "nll"), _pair(s.clean_ece, s.mean_ece, "ece")]
            cells.append(_pair(s.clean_aurc, s.mean_aurc, "aurc"))
        if against:
            given = s.difference is not None
            cells.append(show(s.difference, s.metric, sign=True) if s.difference is not None else "")
            cells.append(show_range(s.low, s.high, s.metric, sign=True) if given else "")
            cells.append(show_p(s.p_holm) if s.p_holm is not None else "")
        rows.append(cells)
    header.append("worst at")
    for cells, s in zip(rows, report.summary, strict=True):
        cells.append(condition(s.worst_at))
    return Grid(header, rows, words=1)


def _pair(clean: float | None, mean: float | None, metric: str) -> str:
    return "" if clean is None or mean is None else f"{show(clean, metric)} → {show(mean, metric)}"


def condition(at: tuple[str, str, int]) -> str:
    """ "swap, text, severity 5"."""
    name, subset, severity = at
    return f"{name}, {'all modalities' if subset == ALL else subset}, severity {severity}"


def area_grid(report: StressReport) -> Grid:
    """A row per model, a column per corruption: the mean height of its curve."""
    rows = [[s.title, *(show(s.area[n], s.metric) for n in report.levels)] for s in report.summary]
    return Grid(["model", *report.levels], rows)


def level_grid(report: StressReport) -> Grid:
    """What the severities of every corruption mean."""
    rows = [
        [CORRUPTIONS[n].title, n, CORRUPTIONS[n].unit, " · ".join(f"{s}: {v:g}" for s, v in by.items())]
        for n, by in report.levels.items()
    ]
    return Grid(["corruption", "name", "what is counted", "severities"], rows, words=3)


def _caption(report: StressReport) -> str:
    plain = "in percent but for nll" if report.task.classes else "in the units of the scores"
    arrows = "; clean → mean over corruptions" if report.task.classes else "; lower is better"
    return f"{report.dataset}, {report.num_clips} test clips: {plain}{arrows}"


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {s}" for s in sentences)


# Files.


def write_stress(report: StressReport, folder: Path) -> list[Path]:
    """table.txt, .md, .csv, stress.json, figures/*, and report.html, which is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"txt": as_text, "md": as_markdown, "csv": as_csv}
    files = [_write_text(folder / f"table.{ending}", emit(report)) for ending, emit in tables.items()]
    write_json(folder / "stress.json", report.as_dict())
    files.append(folder / "stress.json")
    pictures = draw_stress(report)
    for picture in pictures:
        files += save_picture(picture, folder / "figures")
    return [*files, _write_text(folder / "report.html", as_html(report, pictures, folder / "figures"))]


def _write_text(path: Path, text: str) -> Path:
    write_atomic(path, lambda p: p.write_text(text, encoding="utf-8"))
    return path


def as_html(report: StressReport, pictures: Sequence[Picture], folder: Path) -> str:
    """The page: one file that loads nothing. folder: where the pictures lie as SVG."""
    kept, *curves = (_figure(p, (folder / f"{p.name}.svg").read_bytes()) for p in pictures)
    sections = [
        _section("What is kept", _table(summary_grid(report)), _key(_caption(report)), kept),
        _section("Curves", *curves),
        _section("Area per corruption", _table(area_grid(report)), _key("The mean height of a curve.")),
        _section("What was done to the clips", f"<p>{escape(WHAT)}</p>", _table(level_grid(report))),
        _section("How this was measured", _list(report.protocol)),
        _section("The data", _list(report.notes)) if report.notes else "",
        _section("Intended use", f'<div class="note">{"".join(f"<p>{escape(s)}</p>" for s in INTENDED_USE)}</div>'),
    ]
    num = len(report.titles)
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{report.dataset}: stress test of {num} models"),
        kicker=escape(f"{report.dataset} · stress test of {num} models · {report.num_clips} test utterances"),
        headline=escape(headline(report)),
        more="",
        sections="\n".join(s for s in sections if s),
        version=escape(__version__),
    )


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n" + "\n".join(parts) + "</section>"


def _figure(picture: Picture, svg: bytes) -> str:
    data, said = base64.b64encode(svg).decode("ascii"), escape(picture.caption)
    return f'<figure><img alt="{said}" src="data:image/svg+xml;base64,{data}"><figcaption>{said}</figcaption></figure>'


def _table(grid: Grid) -> str:
    words = len(grid.header) - grid.words
    kinds = [' class="words"' if i >= words else "" for i in range(len(grid.header))]
    head = "".join(f"<th{k}>{escape(x)}</th>" for k, x in zip(kinds, grid.header, strict=True))
    rows = ("".join(f"<td{k}>{escape(x)}</td>" for k, x in zip(kinds, cells, strict=True)) for cells in grid.rows)
    body = "".join(f"<tr>{cells}</tr>" for cells in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _key(text: str) -> str:
    return f'<p class="key">{escape(text)}</p>'


def _list(sentences: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(s)}</li>" for s in sentences) + "</ul>"
