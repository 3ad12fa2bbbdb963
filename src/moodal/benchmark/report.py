"""The report of a runs folder: tables for terminals, papers and spreadsheets, pictures, and one page for people.

report.html is one file: pictures are inside it, nothing is loaded, no script runs; its policy forbids both.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from moodal import __version__
from moodal.benchmark.comparison import Comparison, Contrast, better, yardstick_contrasts
from moodal.benchmark.figures import Picture, draw_figures, save_picture
from moodal.benchmark.printing import (
    Cell,
    Line,
    as_csv,
    as_json,
    as_latex,
    as_markdown,
    as_text,
    gap_notes,
    printed_columns,
    printed_lines,
    relevance_grid,
)
from moodal.benchmark.results import ModelResult, Results
from moodal.benchmark.rounding import show, show_p, show_range
from moodal.config import TRAINING_KEYS, TrainingSettings
from moodal.files import write_atomic, write_json
from moodal.models import options_of

TEMPLATE = Path(__file__).with_name("report.html")
NARROW = ("calibration", "scores")  # pictures that need no full width

RELEVANCE = (
    "Relevance is what a model says, before it fuses them, of how much each modality of an utterance should count. "
    "It is not evidence that a modality is right: computed as the MRE paper prints it, it hardly depends on which "
    "modality is right, and that a model here does better is not claimed on this page."
)
INTENDED_USE = (
    "Made for research on how emotion shows in text, voice and face, on data whose subjects have agreed to it.",
    "A label is what annotators perceived, not what a person feels; a score holds for this data set, its language and "
    "its people, and says nothing of others.",
    "Not for inferring the emotions of people at work or in education: Article 5(1)(f) of the EU AI Act forbids it "
    "(but for medical and safety reasons). Other emotion recognition is high-risk under its Annex III, and the people "
    "exposed to it must be told (Article 50(3)). This is not legal advice.",
)
CAPTIONED = {
    "relevance": ("Relevance of each modality", RELEVANCE),
    "confusion": ("Who is taken for whom", ""),
    "calibration": (
        "Does it know what it knows",
        "A calibrated model that answers with a probability of 70 % is right in 70 % of such answers. "
        "Hollow points rest on fewer than 20 predictions.",
    ),
    "scores": ("Predicted and true scores", ""),
    "training": ("How training went", ""),
}


def write_report(results: Results, comparison: Comparison, folder: Path) -> list[Path]:
    """table.txt, .md, .tex, .csv, comparison.json, figures/*, and report.html, which is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"txt": as_text, "md": as_markdown, "tex": as_latex, "csv": as_csv}
    files = [_write_text(folder / f"table.{ending}", emit(comparison)) for ending, emit in tables.items()]
    write_json(folder / "comparison.json", as_json(comparison))
    files.append(folder / "comparison.json")
    pictures = draw_figures(results, comparison)
    for picture in pictures:
        files += save_picture(picture, folder / "figures")
    embedded = {p.name: (folder / "figures" / f"{p.name}.svg").read_bytes() for p in pictures}
    files.append(_write_text(folder / "report.html", as_html(results, comparison, pictures, embedded)))
    return files


def _write_text(path: Path, text: str) -> Path:
    write_atomic(path, lambda p: p.write_text(text, encoding="utf-8"))
    return path


def as_html(results: Results, comparison: Comparison, pictures: Sequence[Picture], svg: Mapping[str, bytes]) -> str:
    """The page. svg: the bytes of each picture by its name."""
    c = comparison
    headline, *more = c.verdict
    figures = {p.name: _figure(p, svg[p.name]) for p in pictures}
    tables = {"relevance": _relevance_table(c)}
    sections = [
        _section("Scores on test", _score_table(c), figures.pop("forest", "")),
        _differences(c),
        *(_section(*_titled(name), tables.get(name, ""), figure) for name, figure in figures.items()),
        _section("How this was measured", _list(c.protocol)),
        _section("The data", _list(c.notes)) if c.notes else "",
        _section("The models", _model_table(results, c)),
        _section("Do it again", f"<pre>{escape(reproduce_command(results))}</pre>"),
        _section("Intended use", f'<div class="note">{"".join(_paragraph(s) for s in INTENDED_USE)}</div>'),
    ]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{c.dataset}: comparison of {len(c.titles)} models"),
        kicker=escape(_kicker(results, c)),
        headline=escape(headline),
        more="\n".join(_paragraph(s, "more") for s in more),
        sections="\n".join(s for s in sections if s),
        version=escape(__version__),
    )


def _kicker(results: Results, c: Comparison) -> str:
    seeds = sorted({len(m.seeds) for m in results.models})
    runs = f"{seeds[0]} seed{'s' if seeds[0] > 1 else ''}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    num = len(c.titles)
    return f"{c.dataset} · {num} model{'s' if num > 1 else ''} · {runs} · {len(results.ids)} test utterances"


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n" + "\n".join(p for p in parts if p) + "</section>"


def _titled(name: str) -> tuple[str, str]:
    title, text = CAPTIONED[name]
    return title, f"<p>{text}</p>" if text else ""  # our own words, with their own markup


def _paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def _list(sentences: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(s)}</li>" for s in sentences) + "</ul>"


def _figure(picture: Picture, svg: bytes) -> str:
    data = base64.b64encode(svg).decode("ascii")
    kind = ' class="narrow"' if picture.name in NARROW else ""
    said = escape(picture.caption)
    return (
        f'<figure{kind}><img alt="{said}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{said}</figcaption></figure>"
    )


def _score_table(c: Comparison) -> str:
    head = "".join(f"<th>{escape(k)}</th>" for k in printed_columns(c))
    rows, before = [], ""
    for line in printed_lines(c):
        rows.append(_score_row(line, first=bool(before) and line.part != before))
        before = line.part
    key = "In percent, but for nll, mae and corr: mean ± standard deviation over seeds, 95 % interval below. Blue: "
    key += "candidates. Then controls: simple models that a candidate must beat. Last: what is known without a model. "
    key += "Bold: best of the column." + (" †: one answer to every utterance in some run." if c.constant else "")
    table = f"<table><thead><tr><th>model</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    below = "".join(_paragraph(s, "key") for s in (key, *(f"{s}." for s in gap_notes(c))))
    return f'<div class="wide">{table}</div>{below}'


def _relevance_table(c: Comparison) -> str:
    if not c.relevance:
        return ""
    header, rows = relevance_grid(c)
    head = "".join(f"<th>{escape(x)}</th>" for x in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(x)}</td>' for x in cells)}</tr>" for cells in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>{_paragraph("Mean over utterances and seeds.", "key")}'


def _score_row(line: Line, *, first: bool) -> str:
    title = escape(line.title + (" †" if line.flagged else ""))
    kind = line.part + (" first" if first else "")
    return f'<tr class="{kind}"><td>{title}</td>{"".join(_score_cell(cell) for cell in line.cells)}</tr>'


def _score_cell(cell: Cell) -> str:
    interval = f"<small>{escape(cell.interval)}</small>" if cell.interval else ""
    kind = ' class="best"' if cell.best else ""
    return f"<td{kind}>{escape(cell.text)}{interval}</td>"


def _differences(c: Comparison) -> str:
    """The comparisons that the verdict rests on, and all others behind a click."""
    if not c.paired:
        return ""
    shown = yardstick_contrasts(c)
    rest = [x for x in c.paired if x not in shown]
    parts = [_contrast_table(c, shown)]
    if rest:
        more = f"{len(rest)} more: against every control, and in other metrics"
        parts.append(f"<details><summary>{more}</summary>{_contrast_table(c, rest)}</details>")
    return _section("Differences", *parts)


def _contrast_table(c: Comparison, contrasts: Sequence[Contrast]) -> str:
    names = ("difference on test", "metric", "", "95 % interval", "p", "p_holm", "shown")
    head = "".join(f"<th>{escape(x)}</th>" for x in names)
    rows = "".join(_contrast_row(c, x) for x in contrasts)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _contrast_row(c: Comparison, x: Contrast) -> str:
    holm = "" if x.p_holm is None else show_p(x.p_holm)
    words = {1: "better", -1: "worse", 0: "no difference"}
    if x.p_holm is None:
        words = dict.fromkeys(words, "")  # an uncorrected p decides nothing here
    cells = (
        f"{c.titles[x.model]} − {c.titles[x.against]}",
        x.metric,
        show(x.difference, x.metric, sign=True),
        show_range(x.low, x.high, x.metric, sign=True),
        show_p(x.p),
        holm,
        words[better(x)],
    )
    return "<tr>" + "".join(f"<td>{escape(v)}</td>" for v in cells) + "</tr>"


def _model_table(results: Results, c: Comparison) -> str:
    models = {m.name: m for m in results.models}
    names = ("model", "parameters", "epochs", "s per epoch", "s per run", "seeds")
    head = (
        "".join(f"<th>{escape(x)}</th>" for x in names)
        + '<th class="words">settings that differ from the defaults</th>'
    )
    rows = "".join(_model_row(models[name]) for name in c.titles)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    key = "Epochs and seconds are means over runs; 0 epochs: closed form."
    return f'<div class="wide">{table}</div><p class="key">{key}</p>'


def _model_row(m: ModelResult) -> str:
    settings = " ".join(f"{k}={v}" for k, v in _changed(m).items())
    numbers = (
        f"{m.parameters:,}".replace(",", " "),
        f"{m.epochs:.0f}",
        f"{m.seconds_per_epoch:.2f}",
        f"{m.seconds:.2g}" if m.seconds < 10 else f"{m.seconds:.0f}",
        ", ".join(map(str, m.seeds)),
    )
    cells = "".join(f"<td>{escape(x)}</td>" for x in numbers)
    kind = "control" if m.is_control else "candidate"
    return f'<tr class="{kind}"><td>{escape(m.title)}</td>{cells}<td class="words">{escape(settings)}</td></tr>'


def _changed(m: ModelResult) -> dict[str, Any]:
    """Options and training settings other than the defaults."""
    defaults = {**options_of(m.model), **asdict(TrainingSettings())}
    return {k: v for k, v in {**m.options, **m.training}.items() if defaults.get(k) != v}


def reproduce_command(results: Results) -> str:
    """The command line that makes these runs again; one per model where their settings differ."""
    path, out = shlex.quote(results.path), f"--out {shlex.quote(str(results.root))}"
    task = "" if results.task.classes else " --task regression"
    asked = {m.name: _asked(m, results.folds) for m in results.models}
    seeds = {m.name: max(m.seeds) + 1 for m in results.models}
    common = {k: v for settings in asked.values() for k, v in settings.items()}
    fits = all(asked[m.name] == {k: v for k, v in common.items() if k in _settable(m)} for m in results.models)
    if fits and len(set(seeds.values())) == 1:
        names = shlex.quote(",".join(asked))
        return f"moodal compare {path} --models {names} --seeds {max(seeds.values())}{_set(common)}{task} {out}"
    lines = [
        f"moodal train {path} --model {shlex.quote(name)} --seeds {seeds[name]}{_set(settings)}{task} {out}"
        for name, settings in asked.items()
    ]
    return "\n".join([*lines, f"moodal report {shlex.quote(str(results.root))}"])


def _asked(m: ModelResult, folds: int) -> dict[str, Any]:
    """What must be said with --set: neither what the name says (model@key=value) nor what folds bring, a refit."""
    named = {item.partition("=")[0] for item in m.name.partition("@")[2].split("+")}
    asked = {k: v for k, v in _changed(m).items() if k not in named and k != "refit"}
    return asked if m.training["refit"] == (folds > 0) else {**asked, "refit": m.training["refit"]}


def _settable(m: ModelResult) -> set[str]:
    named = {item.partition("=")[0] for item in m.name.partition("@")[2].split("+")}
    return {*options_of(m.model), *TRAINING_KEYS} - named


def _set(settings: Mapping[str, Any]) -> str:
    return "".join(f" --set {shlex.quote(f'{k}={v}')}" for k, v in settings.items())
