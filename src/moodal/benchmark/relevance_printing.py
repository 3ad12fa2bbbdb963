"""A ``RelevanceReport`` for terminals, Markdown and one page for people. Nothing is computed here, only rounded."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from moodal import __version__
from moodal.benchmark import grids
from moodal.benchmark.figures import Picture, save_picture
from moodal.benchmark.grids import Grid
from moodal.benchmark.relevance_figures import draw_relevance_figures
from moodal.benchmark.relevance_probes import NOISE, OTHER, SILENCE
from moodal.benchmark.relevance_report import ALWAYS, HIGHEST, LOWEST, RANDOM, RelevanceReport, Response
from moodal.benchmark.relevance_statistics import Estimate
from moodal.benchmark.report import TEMPLATE
from moodal.benchmark.rounding import show, show_range
from moodal.files import write_atomic, write_json

PLAIN = "corr"  # printed with decimals; "accuracy" stands for what is printed in percent
REMOVED = {
    "none": "nothing",
    LOWEST: "lowest",
    RANDOM: "random",
    HIGHEST: "highest",
    ALWAYS: "lowest on average",
}
TITLES = {
    "signal": "Is relevance higher where a modality is right?",
    "response": "Does it fall when a modality is spoilt?",
    "deletion": "Can what it calls irrelevant be spared?",
    "exchange": "What if the relevances of two modalities changed places?",
    "agreement": "Where modalities agree, and where they conflict",
}
KEYS = {
    "signal": "AUROC and exact: chance is 0.5, and higher is better. Spearman, with how wrong the modality alone is: "
    "lower is better. Noise: mean rank correlation of relevance with the strength, lower is better. Another class: "
    "percent of utterances whose relevance falls.",
    "response": "Mean relevance on the utterances that each column concerns; noise in standard deviations. For "
    "silence a model must say 0.",
    "deletion": "The score without one modality of each utterance, in percent where it is accuracy; the last columns "
    "say how much less it costs to remove the lowest: above 0 is better.",
    "exchange": "Log-loss of the model's answers to each modality alone, weighted by relevance, and how much more it "
    "is with the highest and lowest weight exchanged, or all weights equal: above 0 is better.",
    "agreement": "Accuracy in percent.",
}


def as_text(report: RelevanceReport) -> str:
    """For a terminal."""
    blocks = [f"{TITLES[name]}\n\n{grids.as_text(grid)}\n{KEYS[name]}" for name, grid in tables(report).items()]
    notes = "\n".join(f"- {s}" for s in (*report.protocol, *report.notes))
    return "\n\n".join([*blocks, "\n".join(report.verdict), notes]) + "\n"


def as_markdown(report: RelevanceReport) -> str:
    """As GitHub shows it."""
    blocks = [
        f"## {TITLES[name]}\n\n{grids.as_markdown(grid)}\n\n{KEYS[name]}" for name, grid in tables(report).items()
    ]
    said = "\n".join(f"- {grids.markdown_text(s)}" for s in report.verdict)
    notes = "\n".join(f"- {grids.markdown_text(s)}" for s in (*report.protocol, *report.notes))
    title = f"# {grids.markdown_text(report.dataset)}: does relevance deserve its name?"
    return "\n\n".join([title, said, *blocks, notes]) + "\n"


def write_relevance(report: RelevanceReport, folder: Path) -> list[Path]:
    """table.txt, table.md, relevance.json, figures/*, and relevance.html, one file that loads nothing, at last."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [_write(folder / "table.txt", as_text(report)), _write(folder / "table.md", as_markdown(report))]
    write_json(folder / "relevance.json", report.as_dict())
    files.append(folder / "relevance.json")
    pictures = draw_relevance_figures(report)
    for picture in pictures:
        files += save_picture(picture, folder / "figures")
    embedded = {p.name: (folder / "figures" / f"{p.name}.svg").read_bytes() for p in pictures}
    return [*files, _write(folder / "relevance.html", as_html(report, pictures, embedded))]


def _write(path: Path, text: str) -> Path:
    write_atomic(path, lambda p: p.write_text(text, encoding="utf-8"))
    return path


# Tables.


def tables(report: RelevanceReport) -> dict[str, Grid]:
    """Every table that has a row, by the name of its picture."""
    makers: dict[str, Callable[[RelevanceReport], Grid]] = {
        "signal": _signal,
        "response": _response,
        "deletion": _deletion,
        "exchange": _exchange,
        "agreement": _agreement,
    }
    grids_ = {name: make(report) for name, make in makers.items()}
    return {name: grid for name, grid in grids_.items() if grid.rows}


def _signal(report: RelevanceReport) -> Grid:
    falls = {(r.model, r.modality): r.falls for r in report.response if r.condition == OTHER}
    noise = {(r.model, r.modality): r.spearman for r in report.monotone}
    header = ["model", "modality", "AUROC [95 %]", "exact", "Spearman", "noise", "another class"]
    rows = [
        [
            report.titles[r.model],
            r.modality,
            _with_range(r.auroc, PLAIN),
            _one(r.oracle_auroc, PLAIN),
            _with_range(r.spearman, PLAIN),
            _with_range(noise.get((r.model, r.modality)), PLAIN),
            _with_range(falls.get((r.model, r.modality)), "accuracy"),
        ]
        for r in report.rows
    ]
    return _without_empty(header, rows)


def _response(report: RelevanceReport) -> Grid:
    kinds = list(dict.fromkeys((r.condition, r.strength) for r in report.response))
    found: dict[tuple[str, str], dict[tuple[str, float | None], Response]] = {}
    for r in report.response:
        found.setdefault((r.model, r.modality), {})[r.condition, r.strength] = r
    rows = [
        [report.titles[model], modality, *(_with_range(of[k].mean, PLAIN) if k in of else "" for k in kinds)]
        for (model, modality), of in found.items()
    ]
    return Grid(["model", "modality", *(condition_title(*k) for k in kinds)], rows)


def condition_title(condition: str, strength: float | None) -> str:
    """What a table and a picture call it."""
    if condition == NOISE:
        return f"noise {strength:g}"
    return {OTHER: "another class", SILENCE: "silence"}.get(condition, "as it is")


def _deletion(report: RelevanceReport) -> Grid:
    models = dict.fromkeys(r.model for r in report.deletion)
    header = ["model", *REMOVED.values(), *(f"lowest against {REMOVED[k]}" for k in (RANDOM, ALWAYS))]
    rows = []
    for model in models:
        found = {r.removed: r for r in report.deletion if r.model == model}
        metric = found["none"].metric
        saved = [_with_range(found[k].saved, metric, sign=True) for k in (RANDOM, ALWAYS)]
        rows.append([report.titles[model], *(_one(found[k].mean, metric) for k in REMOVED), *saved])
    return Grid(header, rows)


def _exchange(report: RelevanceReport) -> Grid:
    rows = [
        [
            report.titles[r.model],
            _with_range(r.loss, PLAIN),
            _with_range(r.exchanged, PLAIN, sign=True),
            _with_range(r.equal, PLAIN, sign=True),
        ]
        for r in report.exchange
    ]
    return Grid(["model", "nll weighted by relevance", "exchanged", "equal weights"], rows)


def _agreement(report: RelevanceReport) -> Grid:
    found: dict[str, dict[str, str]] = {}
    sizes: dict[str, int] = {}
    for r in report.agreement:
        found.setdefault(report.titles[r.model], {})[r.subset] = _with_range(r.mean, "accuracy")
        sizes[r.subset] = r.num_clips
    header = ["model", *(f"{subset} ({n} utterances)" for subset, n in sizes.items())]
    return Grid(header, [[title, *(cells.get(s, "") for s in sizes)] for title, cells in found.items()])


def _without_empty(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Grid:
    """Only the columns in which something stands."""
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    return Grid([header[i] for i in kept], [[row[i] for i in kept] for row in rows])


def _one(e: Estimate | None, metric: str) -> str:
    return "" if e is None else show(e.value, metric)


def _with_range(e: Estimate | None, metric: str, *, sign: bool = False) -> str:
    return "" if e is None else f"{show(e.value, metric, sign=sign)} {show_range(e.low, e.high, metric, sign=sign)}"


# The page.


def as_html(report: RelevanceReport, pictures: Sequence[Picture], svg: Mapping[str, bytes]) -> str:
    """The page. svg: the bytes of each picture by its name."""
    drawn = {p.name: _figure(p, svg[p.name]) for p in pictures}
    sections = [
        _section(TITLES[name], drawn.get(name, ""), _table(grid), f'<p class="key">{escape(KEYS[name])}</p>')
        for name, grid in tables(report).items()
    ]
    sections.append(_section("How this was measured", _list(report.protocol)))
    if report.notes:
        sections.append(_section("Notes", _list(report.notes)))
    headline, *more = report.verdict
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{report.dataset}: relevance"),
        kicker=escape(f"{report.dataset} · does relevance deserve its name?"),
        headline=escape(headline),
        more="\n".join(f'<p class="more">{escape(s)}</p>' for s in more),
        sections="\n".join(sections),
        version=escape(__version__),
    )


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n" + "\n".join(p for p in parts if p) + "</section>"


def _list(sentences: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(s)}</li>" for s in sentences) + "</ul>"


def _figure(picture: Picture, svg: bytes) -> str:
    data, said = base64.b64encode(svg).decode("ascii"), escape(picture.caption)
    return f'<figure><img alt="{said}" src="data:image/svg+xml;base64,{data}"><figcaption>{said}</figcaption></figure>'


def _table(grid: Grid) -> str:
    head = "".join(f"<th>{escape(x)}</th>" for x in grid.header)
    rows = "".join(f'<tr class="candidate">{"".join(map(_cell, row))}</tr>' for row in grid.rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cell(text: str) -> str:
    """The interval in a line of its own."""
    value, bracket, rest = text.partition(" [")
    return f"<td>{escape(value)}<small>[{escape(rest)}</small></td>" if bracket else f"<td>{escape(text)}</td>"
