"""What a table of the MRE paper holds, ours and theirs.

Zhang et al. 2023, arXiv 2302.01555. Its numbers are data (``paper.toml``); they are printed and never computed with,
but for the ratios of table 4.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np

from moodal.benchmark.comparison import Contrast, Row

TABLES = {"table3": "comparison with other models", "table4": "training time", "table5": "ablation of the two losses"}
MODELS_OF = {
    "table3": ("tfn", "lmf", "ef_lstm", "mfn", "graph_mfn", "mult", "misa", "mre"),
    "table4": ("mult", "misa", "mre"),
    "table5": ("mre_baseline", "mre_rs", "mre_cnce", "mre"),
}
COLUMNS = {"mosei": "MOSEI", "sims": "SIMS", "sdme": "SDME"}
REFERENCE = "mre"
MISA_TEXT = (
    "Our MISA reads features of the text that were extracted before; in the field's reference package it trains BERT "
    "along with the rest. We do not know which of the two the paper's numbers are of."
)
SELF_MM_CLASSES = (
    "Self-MM is published for scores only; for classes it is extended here (each class a score of its own), so this "
    "row is not its authors'."
)


@dataclass(frozen=True, slots=True)
class PaperScore:
    """One number of the paper, beside our row ``model``: a fraction, or seconds (which have no ``std``)."""

    model: str
    metric: str
    mean: float
    std: float | None


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long as ``against`` a model trains: per epoch, in total, and in the paper."""

    model: str
    against: str
    seconds_per_epoch: float | None
    seconds: float | None
    paper: float | None


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper, ours and theirs.

    column: whose numbers of the paper stand beside ours (a key of ``COLUMNS``), None for nobody's; shown: metrics in
    the order of the columns; titles: by model, in the order of the rows; collapsed: model -> seeds that decide the same
    way for every test utterance; paired: in every shown metric, corrected (Holm) in the first.
    """

    table: str
    dataset: str
    column: str | None
    shown: tuple[str, ...]
    titles: Mapping[str, str]
    rows: tuple[Row, ...]
    paper: tuple[PaperScore, ...]
    paired: tuple[Contrast, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    collapsed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    protocol: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    command: str = ""

    def row(self, model: str, metric: str) -> Row | None:
        return next((r for r in self.rows if (r.model, r.metric) == (model, metric)), None)

    def paper_score(self, model: str, metric: str) -> PaperScore | None:
        return next((p for p in self.paper if (p.model, p.metric) == (model, metric)), None)


def numbers() -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """What the paper prints: table -> model -> data set -> {"accuracy": [mean, std], ..} in percent, or seconds."""
    found: dict[str, Any] = tomllib.loads(
        resources.files("moodal.benchmark").joinpath("paper.toml").read_text(encoding="utf-8")
    )
    return found


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """The deviation has n - 1 in the denominator, and is 0 for one value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def count(n: int, what: str) -> str:
    return f"{n} {what}" + ("s" if n != 1 else "")
