"""What a benchmark found, as numbers and sentences: the types that ``tables`` fills and everything else prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moodal.metrics import HIGHER_IS_BETTER
from moodal.types import Task

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """One score of one model. ``low`` and ``high`` bound the 95 % interval; None on valid, where models were chosen."""

    model: str
    title: str
    is_control: bool
    metric: str
    split: str
    mean: float
    std: float
    low: float | None
    high: float | None
    num_runs: int


@dataclass(frozen=True, slots=True)
class Contrast:
    """``model`` minus ``against`` on test, whichever way is better.

    family: "controls" (candidate against control) or "ablations" (variant against the full model); p_holm: corrected
    within the family, for the main metric only; p_runs: of the trained models at hand, see ``statistics.Paired``.
    """

    model: str
    against: str
    family: str
    metric: str
    difference: float
    low: float
    high: float
    p: float
    p_runs: float
    p_holm: float | None


@dataclass(frozen=True)
class Comparison:
    """All that a report says of ``Results``, in numbers and in sentences.

    titles: by model name, candidates before controls; shown: metrics of the printed tables, the main one first;
    best_candidate (by valid) and best_control (by test): by metric; constant: name -> seeds (or folds of them) that say
    the same of every utterance; limits: metric scores of "bayes", "best_single" and "constant", where known;
    share_of_gap: by model, empty where limits are not known; relevance: mean on test, by model and modality.
    """

    dataset: str
    task: Task
    titles: Mapping[str, str]
    controls: tuple[str, ...]
    shown: tuple[str, ...]
    rows: tuple[Row, ...]
    paired: tuple[Contrast, ...]
    best_candidate: Mapping[str, str]
    best_control: Mapping[str, str]
    limits: Mapping[str, Mapping[str, Any]]
    constant_answer: str
    share_of_gap: Mapping[str, float]
    relevance: Mapping[str, Mapping[str, float]]
    constant: Mapping[str, tuple[int, ...]]
    verdict: tuple[str, ...]
    protocol: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def main(self) -> str:
        """The metric that decides: accuracy, or the mean absolute error of scores."""
        return main_metric(self.task)

    def row(self, model: str, metric: str, split: str = "test") -> Row | None:
        """The one row of this model, metric and split; None where the metric is not defined on these utterances."""
        return next((r for r in self.rows if (r.model, r.metric, r.split) == (model, metric, split)), None)


def main_metric(task: Task) -> str:
    return "accuracy" if task.classes else "mae"


def better(contrast: Contrast) -> int:
    """1 if ``model`` is shown to be better, -1 if ``against`` is, 0 if no difference is shown."""
    p = contrast.p if contrast.p_holm is None else contrast.p_holm
    if p >= ALPHA:
        return 0
    return 1 if (contrast.difference > 0) == HIGHER_IS_BETTER[contrast.metric] else -1


def yardstick_contrasts(comparison: Comparison) -> list[Contrast]:
    """The main metric's comparisons that the verdict rests on: every candidate with the best control, and ablations."""
    control = comparison.best_control.get(comparison.main)
    return [
        c
        for c in comparison.paired
        if c.metric == comparison.main and (c.family == "ablations" or c.against == control)
    ]


def share_of_gap(accuracy: float, limits: Mapping[str, Mapping[str, Any]]) -> float | None:
    """How far from the best single modality's limit (0) to the best possible answer (1); None without such a gap."""
    best, single = (limits.get(k, {}).get("accuracy") for k in ("bayes", "best_single"))
    if best is None or single is None or best <= single:
        return None
    return float((accuracy - single) / (best - single))
