"""What a paper says of its data set: counts (Table 1), how far each modality agrees class by class (Table 2), Figure 4.

Zhang et al. 2023, arXiv 2302.01555; METHOD.md section 8 has the paper's own numbers.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from moodal.agreement import wilson
from moodal.files import write_atomic, write_json
from moodal.labels.estimates import AgreementOptions
from moodal.labels.labelled import Labelled, read_labelled
from moodal.labels.report import AgreementReport, agreement_of
from moodal.labels.report_lines import aligned, fraction
from moodal.labels.votes import INTENSITIES, tally
from moodal.types import InputError

SHORT_S = 5.0  # "most clips are under five seconds"
NEUTRAL = "neutral"
SHOWN = ("vision", "audio", "text")  # the paper's order of columns


@dataclass(frozen=True)
class StatisticsOptions:
    """``labels``, ``intensities``: see ``read_votes``; ``neutral``: the class that the mean rate leaves out."""

    labels: tuple[str, ...] | None = None
    intensities: tuple[str, ...] = INTENSITIES
    neutral: str = NEUTRAL
    samples: int = 1000
    seed: int = 0
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class Fact:
    """A row of Table 1: ``value`` for machines, ``text`` for people."""

    name: str
    value: float | int | str
    text: str


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A row of Table 2. ``known``: clips of the class that people labelled by the modality alone; ``agree``: alike."""

    name: str
    full: int
    known: Mapping[str, int]
    agree: Mapping[str, int]

    def rate(self, modality: str) -> float:
        """NaN where nobody labelled the modality."""
        return self.agree[modality] / self.known[modality] if self.known[modality] else math.nan


@dataclass(frozen=True)
class LabelStatistics:
    """Everything on the page. ``rates``: the share of agreeing labels by modality, without neutral; ``mean_rates``: the
    mean of the rates of these classes. ``counts``: label -> condition -> clips; ``confusion``: modality -> (C, L), row:
    class of the full clip."""

    name: str
    kind: str
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    facts: tuple[Fact, ...]
    rows: tuple[ClassRow, ...]
    all_row: ClassRow
    rates: Mapping[str, float]
    mean_rates: Mapping[str, float]
    counts: Mapping[str, Mapping[str, int]]
    confusion: Mapping[str, list[list[int]]]
    durations_s: tuple[float, ...] | None
    agreement: AgreementReport | None
    options: StatisticsOptions
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that people labelled alone, in the order of the paper's columns."""
        return tuple(m for m in SHOWN if m in self.confusion)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is not known is null or absent."""
        return {
            "name": self.name,
            "kind": self.kind,
            "classes": list(self.classes),
            "labels": list(self.labels),
            "table1": {f.name: f.value for f in self.facts},
            "table2": [_row_dict(r) for r in (*self.rows, self.all_row)],
            "rate_without_neutral": _defined(self.rates),
            "mean_rate_without_neutral": _defined(self.mean_rates),
            "counts": {label: dict(of) for label, of in self.counts.items()},
            "confusion": dict(self.confusion),
            "agreement": self.agreement.as_dict() if self.agreement else None,
            "options": asdict(self.options),
            "notes": list(self.notes),
            "files": [str(f) for f in self.files],
        }

    def lines(self) -> list[str]:
        """Both tables, and where the page is."""
        facts = aligned([[f.name, f.text] for f in self.facts], left=2)
        page = [f"page: {f}" for f in self.files if f.suffix == ".html"]
        return [*facts, "", *aligned(table2(self)), "", *sentences(self), *page]


def label_statistics(source: Path, out: Path, options: StatisticsOptions | None = None) -> LabelStatistics:
    """Measure what is labelled in ``source`` (see ``read_labelled``) and write tables, figure and page to ``out``."""
    from moodal.labels.statistics_figures import save_figure
    from moodal.labels.statistics_page import as_html

    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder for the page and its tables")
    o = options or StatisticsOptions()
    found = statistics_of(read_labelled(source, o.labels, o.intensities), o)
    out.mkdir(parents=True, exist_ok=True)
    facts = [["", found.name], *([f.name, f.text] for f in found.facts)]
    files = [_write_csv(out / "table1.csv", facts), _write_csv(out / "table2.csv", table2(found))]
    files += save_figure(found, out)
    page = out / "statistics.html"
    found = replace(found, files=(*files, out / "statistics.json", page))
    write_json(out / "statistics.json", found.as_dict() | {"files": [f.name for f in found.files]})
    write_atomic(page, lambda partial: partial.write_text(as_html(found), encoding="utf-8"))
    return found


def statistics_of(labelled: Labelled, options: StatisticsOptions | None = None) -> LabelStatistics:
    """The numbers alone."""
    o, x = options or StatisticsOptions(), labelled
    ask = AgreementOptions(o.labels, o.intensities, o.samples, o.seed, o.confidence)
    agreement = agreement_of(x.votes, ask) if x.votes else None
    rows = tuple(_row(x, name) for name in x.classes)
    emotional = [r for r in rows if r.name != o.neutral]
    alone = [m for m in SHOWN if m in x.single]
    return LabelStatistics(
        name=x.name,
        kind=x.kind,
        classes=x.classes,
        labels=x.labels,
        facts=tuple(_facts(x, agreement)),
        rows=rows,
        all_row=_row(x, None),
        rates={m: _rate(emotional, m) for m in alone},
        mean_rates={m: _mean_rate(emotional, m) for m in alone},
        counts={name: _counts(x, k) for k, name in enumerate(x.labels)},
        confusion={m: _confusion(x, m) for m in x.single},
        durations_s=None if x.duration_s is None else tuple(x.duration_s.tolist()),
        agreement=agreement,
        options=o,
        notes=x.notes,
    )


def _row(x: Labelled, name: str | None) -> ClassRow:
    """One class, or all of them."""
    mine = np.ones(len(x.full), bool) if name is None else x.full == x.labels.index(name)
    known = {m: int((mine & (own >= 0)).sum()) for m, own in x.single.items()}
    agree = {m: int((mine & (own == x.full)).sum()) for m, own in x.single.items()}
    return ClassRow(name or "all", int(mine.sum()), known, agree)


def _rate(rows: Sequence[ClassRow], modality: str) -> float:
    known = sum(r.known[modality] for r in rows)
    return sum(r.agree[modality] for r in rows) / known if known else math.nan


def _mean_rate(rows: Sequence[ClassRow], modality: str) -> float:
    rates = [r.rate(modality) for r in rows if r.known[modality]]
    return float(np.mean(rates)) if rates else math.nan


def _counts(x: Labelled, code: int) -> dict[str, int]:
    """How many clips have this label, by what was shown."""
    own = {m: int((x.single[m] == code).sum()) for m in SHOWN if m in x.single}
    return {"full": int((x.full == code).sum()), **own}


def _confusion(x: Labelled, modality: str) -> list[list[int]]:
    known = x.single[modality] >= 0
    shape = (len(x.classes), len(x.labels))
    counts: list[list[int]] = tally(x.full[known], x.single[modality][known], np.ones(int(known.sum())), shape).tolist()
    return counts


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _facts(x: Labelled, agreement: AgreementReport | None) -> list[Fact]:
    """What is known, and no row for what is not."""
    num = len(x.full)
    facts = [Fact("clips", num, f"{num:,}" + (f" of {x.num_all:,}" if x.num_all and x.num_all > num else ""))]
    for name, count in (("groups", x.num_groups), ("speakers", x.num_speakers)):
        facts += [Fact(name, count, f"{count:,}")] if count else []
    if x.duration_s is not None and num:
        total, mean = float(x.duration_s.sum()), float(x.duration_s.mean())
        short = float((x.duration_s < SHORT_S).mean())
        facts.append(Fact("total_duration_s", total, _hours(total)))
        facts.append(Fact("mean_duration_s", mean, f"{mean:.2f} s, median {np.median(x.duration_s):.2f} s"))
        facts.append(Fact("share_under_5_s", short, percent(short, 1)))
    facts.append(Fact("classes", len(x.classes), f"{len(x.classes)}: {', '.join(x.classes)}"))
    shown = ["full", *(m for m in SHOWN if m in x.single)]
    facts.append(Fact("labelled_separately", ", ".join(shown), ", ".join(shown)))
    facts += _largest(x)
    facts += _of_people(agreement) if agreement else []
    if x.licence and x.licence != "unknown":
        facts.append(Fact("licence", x.licence, x.licence))
    return facts


def _largest(x: Labelled) -> list[Fact]:
    sizes = np.bincount(x.full, minlength=len(x.classes))
    name, share = x.classes[int(sizes.argmax())], float(sizes.max() / sizes.sum())
    facts = [Fact("largest_class_share", share, f"{name} {percent(share, 1)}")]
    if x.of_all:
        most = max(x.of_all, key=lambda c: (x.of_all or {})[c])
        was = x.of_all[most]
        facts.append(Fact("largest_class_share_before", was, f"{most} {percent(was, 1)}, of all clips with a label"))
    return facts


def _of_people(r: AgreementReport) -> list[Fact]:
    votes = sum(c.votes for c in r.conditions)
    per_unit = votes / max(1, sum(c.clips for c in r.conditions))
    facts = [Fact("votes", votes, f"{votes:,}, {per_unit:.2f} per clip and condition")]
    people = [c.people for c in r.conditions if c.people is not None]
    facts += [Fact("annotators", max(people), f"{max(people):,}")] if people else []
    for c in r.conditions:
        if not math.isnan(c.alpha.value):
            facts.append(Fact(f"alpha_{c.condition}", c.alpha.value, fraction(c.alpha.value)))
    whole = r.consistency
    if whole.units:
        said = "after adjudication" if whole.adjudicated else "nothing was adjudicated"
        share = whole.final / whole.units
        facts.append(
            Fact("final_consistency", share, f"{percent(share)} of {whole.units:,} clips and conditions, {said}")
        )
    return facts


def table2(s: LabelStatistics) -> list[list[str]]:
    """Header, a row per class, all of them. A rate is of the clips that people labelled by that modality alone."""
    rows = [["class", "full", *(f"{m} agrees" for m in s.modalities), *(f"{m} rate" for m in s.modalities)]]
    for r in (*s.rows, s.all_row):
        counts = [str(r.agree[m]) for m in s.modalities]
        rows.append([r.name, str(r.full), *counts, *(percent(r.rate(m)) for m in s.modalities)])
    return rows


def sentences(s: LabelStatistics) -> list[str]:
    """How far the modalities agree, in words; neutral, which is easy, is left out."""
    found = [m for m in s.modalities if not math.isnan(s.rates[m])]
    if not found:
        return []
    begin = f"Without {s.options.neutral}, " if s.options.neutral in s.classes else ""
    shares = _listed([f"{percent(s.rates[m])} of {m} labels" for m in found])
    means = ", ".join(f"{m} {percent(s.mean_rates[m])}" for m in found)
    return [f"{begin}{shares} agree with the full clip.", f"Mean of the per-class rates: {means}."]


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def percent(share: float, digits: int = 2) -> str:
    """88.72 %"""
    return "-" if math.isnan(share) else f"{100 * share:.{digits}f} %"


def _defined(rates: Mapping[str, float]) -> dict[str, float | None]:
    return {m: None if math.isnan(r) else r for m, r in rates.items()}


def _row_dict(r: ClassRow) -> dict[str, Any]:
    rates = {
        m: None if not r.known[m] else {"share": r.rate(m), "interval": list(wilson(r.agree[m], r.known[m]))}
        for m in r.known
    }
    return {"class": r.name, "full": r.full, "known": dict(r.known), "agree": dict(r.agree), "rates": rates}


def _write_csv(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomic(path, lambda partial: partial.write_text(text.getvalue(), encoding="utf-8"))
    return path
