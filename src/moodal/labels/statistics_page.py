"""The statistics as one page: pictures are inside it, nothing is loaded, no script runs; its policy forbids both."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from moodal import __version__
from moodal.agreement import wilson
from moodal.labels.estimates import Estimate
from moodal.labels.report import AgreementReport
from moodal.labels.report_lines import fraction, span
from moodal.labels.statistics import ClassRow, LabelStatistics, percent, sentences
from moodal.labels.statistics_figures import caption

TEMPLATE = Path(__file__).with_name("statistics.html")
FACTS = {
    "total_duration_s": "total duration",
    "mean_duration_s": "mean duration",
    "share_under_5_s": "under 5 seconds",
    "labelled_separately": "labelled separately",
    "largest_class_share": "largest class",
    "largest_class_share_before": "largest class before balancing",
    "final_consistency": "final consistency",
    "groups": "groups (episodes, speakers)",
}


def as_html(s: LabelStatistics) -> str:
    """The page; the picture is read from the folder that it was saved to."""
    svg = next(f for f in s.files if f.suffix == ".svg").read_bytes()
    said = sentences(s)
    sections = [
        _section("The data set", _facts(s)),
        _section("Class by class", _classes(s), *(f"<p>{escape(x)}</p>" for x in said[1:])),
        _section("Durations and labels" if s.durations_s else "Labels", _figure(s, svg)),
        _agreement(s.agreement) if s.agreement else "",
        _section("Notes", "<ul>" + "".join(f"<li>{escape(n)}</li>" for n in s.notes) + "</ul>") if s.notes else "",
    ]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{s.name}: statistics of the labels"),
        kicker=escape(f"{s.name} · {s.kind} · {s.all_row.full:,} clips · {len(s.classes)} classes"),
        headline=escape(said[0] if said else f"{s.all_row.full:,} clips with a label of the full clip."),
        sections="\n".join(x for x in sections if x),
        version=escape(__version__),
    )


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, last: bool = False) -> str:
    """Cells are HTML already; ``last``: the last row sums up the others."""
    head = "".join(f"<th>{escape(c)}</th>" for c in header)
    body = ""
    for k, row in enumerate(rows):
        mark = ' class="sum"' if last and k == len(rows) - 1 else ""
        body += f"<tr{mark}>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>"
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _facts(s: LabelStatistics) -> str:
    names = [FACTS.get(f.name, f.name.replace("alpha_", "Krippendorff's alpha, ").replace("_", " ")) for f in s.facts]
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(f.text)}</dd>" for name, f in zip(names, s.facts, strict=True))
    return f"<dl>{rows}</dl>"


def _classes(s: LabelStatistics) -> str:
    header = ["class", "full clip", *(f"{m} agrees" for m in s.modalities)]
    rows = [[escape(r.name), f"{r.full:,}", *(_agreeing(r, m) for m in s.modalities)] for r in (*s.rows, s.all_row)]
    if not s.modalities:
        return _table(header, rows, last=True) + '<p class="key">Nobody labelled a modality alone.</p>'
    partly = any(r.known[m] < r.full for r in s.rows for m in s.modalities)
    key = "Clips whose modality alone was called what the full clip is called; below, the share and its 95 % interval."
    key += (
        " Where a modality alone has no label of its own (a tie, say), the clip does not count in the share." * partly
    )
    return _table(header, rows, last=True) + f'<p class="key">{escape(key)}</p>'


def _agreeing(r: ClassRow, modality: str) -> str:
    share = r.rate(modality)
    if math.isnan(share):
        return "-"
    low, high = wilson(r.agree[modality], r.known[modality])
    of = f" of {r.known[modality]:,}" if r.known[modality] < r.full else ""
    return f"{r.agree[modality]:,}{of}<small>{percent(share)} <span>[{100 * low:.1f}, {100 * high:.1f}]</span></small>"


def _figure(s: LabelStatistics, svg: bytes) -> str:
    data, said = base64.b64encode(svg).decode(), escape(caption(s))
    return (
        f'<figure><img src="data:image/svg+xml;base64,{data}" alt="{said}">'
        f"<figcaption>{said} Rows of the matrices add up to 1.</figcaption></figure>"
    )


def _agreement(r: AgreementReport) -> str:
    header = ["shown", "clips", "votes", "one winner", "two people agree", "Krippendorff's alpha", "Fleiss' kappa"]
    rows = []
    for c in r.conditions:
        counts = [f"{n:,}" for n in (c.clips, c.votes, c.one_winner)]
        rows.append([escape(c.condition), *counts, *(_with_interval(e) for e in (c.percent, c.alpha, c.fleiss))])
    key = f"Intervals: {r.options.confidence:.0%}, from {r.options.samples:,} resamples of the clips."
    if any(c.fleiss_is != "Fleiss" for c in r.conditions):
        key += " Fleiss' kappa is Gwet's generalisation: clips have different numbers of votes."
    return _section(
        "How far people agree",
        _table(header, rows),
        f'<p class="key">{escape(key)}</p>',
        _between(r),
    )


def _with_interval(e: Estimate) -> str:
    if math.isnan(e.value) or math.isnan(e.low):
        return escape(fraction(e.value))
    return f"{fraction(e.value)}<small>[{fraction(e.low)}, {fraction(e.high)}]</small>"


def _between(r: AgreementReport) -> str:
    """What people see in one condition against another, in sentences."""
    lines = [
        f"<li>{b.first} and {b.second} have the same winner on {b.same:,} of {b.clips:,} clips: {span(b.share)}</li>"
        for b in r.between_all
        if b.clips
    ]
    lines += [
        f"<li>where {f.first} and {f.second} disagree ({f.clips:,} clips), the full clip follows {f.second} in "
        f"{span(f.share_second)} and {f.first} in {span(f.share_first)}</li>"
        for f in r.follows
        if f.clips
    ]
    if not lines:
        return ""
    said = f"Of the {r.in_all:,} clips on which one label wins in every condition:"
    return f"<h3>Between conditions</h3><p>{said}</p><ul>{''.join(lines)}</ul>"
