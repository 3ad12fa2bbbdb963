"""What ``relevance`` measures, as rows of estimates, and what they come to in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from moodal.benchmark.relevance_probes import OTHER
from moodal.benchmark.relevance_statistics import Estimate
from moodal.benchmark.rounding import show, show_range

EXACT = "exact posterior"  # stands where a model's name stands, for what a simulation knows
LOWEST, RANDOM, HIGHEST, ALWAYS = "lowest", "random", "highest", "lowest_on_average"


@dataclass(frozen=True)
class Row:
    """One modality of one model. auroc: of relevance, for "the modality's own label agrees with the utterance's", and
    oracle_auroc of the exact probability of that; mean: of relevance; spearman: of relevance with the log-loss (for
    scores: the absolute error) of ``unimodal``, an independent model of this modality alone. None: nothing to tell.
    """

    model: str
    modality: str
    auroc: Estimate | None
    oracle_auroc: Estimate | None
    mean: Estimate | None
    spearman: Estimate | None
    unimodal: str | None
    num_clips: int
    num_runs: int


@dataclass(frozen=True)
class Response:
    """Relevance of ``modality`` when this modality is spoilt. condition: "none", "other_class", "noise" of
    ``strength`` (None without noise), "silence"; mean: of relevance; change: its mean difference from that of the same
    clips as they are; falls: the share of clips in which it is lower.
    """

    model: str
    modality: str
    condition: str
    strength: float | None
    mean: Estimate | None
    change: Estimate | None
    falls: Estimate | None
    num_clips: int
    num_runs: int


@dataclass(frozen=True)
class Monotone:
    """Relevance over rising noise, clip by clip. spearman: mean rank correlation with the strength, 0 where relevance
    does not move; share: of clips in which no step up raises relevance."""

    model: str
    modality: str
    spearman: Estimate | None
    share: Estimate | None
    num_runs: int


@dataclass(frozen=True)
class Deletion:
    """The score without one modality of each clip, which is ``removed``: "none", "lowest", "highest" (by relevance),
    "random" (the mean over all), "lowest_on_average" (the one of lowest mean relevance, the same in every clip).

    cost: how much worse than "none", above 0 is worse; saved: by how much the cost of "lowest" is smaller than this.
    """

    model: str
    removed: str
    metric: str
    mean: Estimate | None
    cost: Estimate | None
    saved: Estimate | None
    num_clips: int
    num_runs: int


@dataclass(frozen=True)
class Exchange:
    """Log-loss of the mean of what a model says of each modality alone, weighted by its relevance. exchanged: how much
    more it is when the highest and the lowest relevance of each clip change places; equal: when all count the same.
    Above 0, relevance is worth something."""

    model: str
    loss: Estimate | None
    exchanged: Estimate | None
    equal: Estimate | None
    num_clips: int
    num_runs: int


@dataclass(frozen=True)
class Agreement:
    """Accuracy on a part of the test utterances. subset: "agree" or "conflict"; by: "labels" (each modality's own) or
    "unimodal" (what models of one modality alone predict)."""

    model: str
    subset: str
    by: str
    mean: Estimate | None
    num_clips: int
    num_runs: int


@dataclass(frozen=True)
class RelevanceReport:
    """Everything that was measured; titles: what a table calls each model; notes: what is not measured, and why."""

    dataset: str
    titles: Mapping[str, str]
    rows: tuple[Row, ...]
    response: tuple[Response, ...]
    monotone: tuple[Monotone, ...]
    deletion: tuple[Deletion, ...]
    exchange: tuple[Exchange, ...]
    agreement: tuple[Agreement, ...]
    verdict: tuple[str, ...]
    protocol: tuple[str, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Fractions, never rounded, never NaN. An interval is in ``low`` and ``high``, for all but the first estimate
        of a row with the estimate's name before: ``mean_low``."""
        return {
            "dataset": self.dataset,
            "protocol": " ".join(self.protocol),
            "verdict": " ".join(self.verdict),
            "rows": [_flat(x) for x in self.rows],
            "response": [_flat(x) for x in self.response],
            "monotone": [_flat(x) for x in self.monotone],
            "deletion": [_flat(x) for x in self.deletion],
            "exchange": [_flat(x) for x in self.exchange],
            "agreement": [_flat(x) for x in self.agreement],
            "notes": list(self.notes),
        }


def _flat(row: Any) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for f in fields(row):
        value = getattr(row, f.name)
        if "Estimate" not in str(f.type):
            flat[f.name] = value
            continue
        prefix = "" if "low" not in flat else f"{f.name.removesuffix('_auroc')}_"
        low, high = (None, None) if value is None else (value.low, value.high)
        flat |= {f.name: None if value is None else value.value, f"{prefix}low": low, f"{prefix}high": high}
    return flat


# In words.


@dataclass(frozen=True)
class Question:
    """One question to a model's relevance: an estimate per modality, and which side of ``chance`` is the right one."""

    right: str
    wrong: str
    estimates: Sequence[Estimate]
    chance: float
    above: bool

    @property
    def passed(self) -> int:
        return sum(e.low > self.chance if self.above else e.high < self.chance for e in self.estimates)

    @property
    def failed(self) -> int:
        """In how many modalities the opposite is shown."""
        return sum(e.high < self.chance if self.above else e.low > self.chance for e in self.estimates)

    @property
    def words(self) -> str:
        opposite = f" (in {self.failed} {self.wrong})" if self.failed else ""
        return f"{self.right} in {self.passed} of {len(self.estimates)} modalities{opposite}"


def questions_of(report: RelevanceReport, model: str) -> list[Question]:
    """What can be asked of this model on these data."""
    rows = [r for r in report.rows if r.model == model]
    other = [r.falls for r in report.response if (r.model, r.condition) == (model, OTHER)]
    noise = [r.spearman for r in report.monotone if r.model == model]
    found = (
        Question("higher where a modality is right", "lower", _known(r.auroc for r in rows), 0.5, above=True),
        Question("lower where the modality alone errs", "higher", _known(r.spearman for r in rows), 0.0, above=False),
        Question("lower for most features of another class", "higher", _known(other), 0.5, above=True),
        Question("falling with noise", "rising", _known(noise), 0.0, above=False),
    )
    return [q for q in found if q.estimates]


def _known(estimates: Iterable[Estimate | None]) -> list[Estimate]:
    return [e for e in estimates if e is not None]


def verdict_of(report: RelevanceReport) -> tuple[str, ...]:
    """First how many models pass every test, then a sentence per model."""
    models = list(dict.fromkeys(r.model for r in report.rows))
    passing = [report.titles[m] for m in models if _passes(report, m)]
    of = f"of {len(models)} models" if len(models) > 1 else f"of {report.titles[models[0]]}"
    if len(models) == 1:
        head = f"The relevance {of} {'passes every' if passing else 'does not pass every'} test."
    elif passing:
        head = f"{len(passing)} {of} have a relevance that passes every test: {', '.join(passing)}."
    else:
        head = f"None {of} has a relevance that passes every test."
    return (head, *(_sentence(report, m) for m in models))


def _passes(report: RelevanceReport, model: str) -> bool:
    saved = _saved(report, model, RANDOM)
    return (
        all(q.passed == len(q.estimates) for q in questions_of(report, model)) and saved is not None and saved.low > 0
    )


def _sentence(report: RelevanceReport, model: str) -> str:
    answers = ", ".join(q.words for q in questions_of(report, model))
    random, always = (_saved(report, model, k) for k in (RANDOM, ALWAYS))
    text = f"{report.titles[model]}: relevance is {answers}."
    if random is None or always is None:
        return text
    metric = next(r.metric for r in report.deletion if r.model == model)
    return (
        f"{text} Removing the modality of lowest relevance costs {_less(random, metric)} than a random one, and "
        f"{_less(always, metric)} than the one that is lowest on average."
    )


def _saved(report: RelevanceReport, model: str, removed: str) -> Estimate | None:
    return next((r.saved for r in report.deletion if (r.model, r.removed) == (model, removed)), None)


def _less(saved: Estimate, metric: str) -> str:
    word = "less" if saved.value >= 0 else "more"
    low, high = (saved.low, saved.high) if saved.value >= 0 else (-saved.high, -saved.low)
    unit = "points of " if metric == "accuracy" else "of "
    return f"{show(abs(saved.value), metric)} {unit}{metric} {show_range(low, high, metric)} {word}"
