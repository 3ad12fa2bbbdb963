"""How far people agree about the clips: within each condition, person by person, and between conditions.

Between conditions a clip counts where one label has most votes ("one winner") in each of those that are compared.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from moodal.agreement import (
    FLEISS_KAPPA,
    PERCENT_AGREEMENT,
    alpha_statistic,
    has_equal_votes,
    wilson,
)
from moodal.labels.consensus import winners
from moodal.labels.estimates import AgreementOptions, Estimate, estimates_of
from moodal.labels.people import PersonAgreement, mean_cohen, people_of
from moodal.labels.votes import ROUNDS, Array, Votes, read_votes, tally
from moodal.types import MODALITIES, InputError

__all__ = ["AgreementOptions", "AgreementReport", "Between", "ConditionAgreement", "Follows", "measure_agreement"]


@dataclass(frozen=True, slots=True)
class ConditionAgreement:
    """``clips``: with a vote; ``units``: with two or more; ``people``: None where nobody is named.

    ``fleiss_is``: whose. ``cohen``: the mean over ``cohen_pairs`` pairs of people who share clips enough.
    ``intensity``: ordinal alpha among votes that say one, ``intensity_units`` clips. ``seconds``: a vote took, the
    median.
    """

    condition: str
    clips: int
    units: int
    votes: int
    people: int | None
    one_winner: int
    unanimous: int
    percent: Estimate
    alpha: Estimate
    fleiss: Estimate
    fleiss_is: str
    cohen: Estimate | None
    cohen_pairs: int
    intensity: Estimate | None
    intensity_units: int
    seconds: float | None
    labels: dict[str, int]


@dataclass(frozen=True, slots=True)
class Between:
    """Clips with one winner in both conditions. ``confusion``: (L, L), row: label of the first."""

    first: str
    second: str
    clips: int
    same: int
    share: Estimate
    confusion: list[list[int]]


@dataclass(frozen=True, slots=True)
class Follows:
    """Clips on which two single modalities disagree: whose label the full clip has. One winner in all three."""

    first: str
    second: str
    clips: int
    as_first: int
    as_second: int
    as_neither: int
    share_first: Estimate
    share_second: Estimate


@dataclass(frozen=True, slots=True)
class Consistency:
    """Units (a clip in a condition) with two or more votes on which all agree: at first, and after adjudication."""

    units: int
    at_first: int
    adjudicated: int
    final: int
    share_at_first: Estimate
    share: Estimate


@dataclass(frozen=True)
class AgreementReport:
    """All of it. ``in_all``: clips with one winner in every condition; ``between_all`` is of these."""

    name: str
    labels: tuple[str, ...]
    options: AgreementOptions
    conditions: tuple[ConditionAgreement, ...]
    people: tuple[PersonAgreement, ...]
    between: tuple[Between, ...]
    in_all: int
    between_all: tuple[Between, ...]
    follows: tuple[Follows, ...]
    consistency: Consistency
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is not defined is null."""
        found: dict[str, Any] = _without_nan({f.name: _plain(getattr(self, f.name)) for f in fields(self)})
        return found

    def lines(self) -> list[str]:
        """The report in sentences and columns."""
        from moodal.labels.report_lines import report_lines

        return report_lines(self)


def measure_agreement(source: Path, options: AgreementOptions | None = None) -> AgreementReport:
    """Read the votes in ``source`` (see ``read_votes``) and measure."""
    o = options or AgreementOptions()
    return agreement_of(read_votes(source, o.labels, o.intensities), o)


def agreement_of(votes: Votes, options: AgreementOptions | None = None) -> AgreementReport:
    """Main votes only, but for ``consistency``: those of qualification and adjudication are not independent."""
    o = options or AgreementOptions()
    shown = tuple(c for c in votes.conditions if len(votes.where(c)))
    if not shown:
        raise InputError(f"{votes.name} has no votes of the main round, and only these are independent")
    won = {c: winners(votes.counts(c)) for c in shown}
    everywhere = np.all([w >= 0 for w in won.values()], axis=0)
    restricted = {c: np.where(everywhere, w, -1) for c, w in won.items()}
    singles = [c for c in MODALITIES if c in shown]
    return AgreementReport(
        name=votes.name,
        labels=votes.labels,
        options=o,
        conditions=tuple(_condition(votes, c, o) for c in shown),
        people=tuple(p for c in shown for p in people_of(votes, c, o)),
        between=tuple(_between(votes, won, a, b, o) for a, b in combinations(shown, 2)),
        in_all=int(everywhere.sum()),
        between_all=tuple(_between(votes, restricted, a, b, o) for a, b in combinations(shown, 2)),
        follows=tuple(_follows(won, a, b, o) for a, b in combinations(singles, 2)) if "full" in shown else (),
        consistency=_consistency(votes, o),
        notes=votes.notes,
    )


def _condition(votes: Votes, condition: str, o: AgreementOptions) -> ConditionAgreement:
    counts, rows = votes.counts(condition), votes.where(condition)
    total, most = counts.sum(1), counts.max(1, initial=0)
    statistics = {"percent": PERCENT_AGREEMENT, "alpha": alpha_statistic(), "fleiss": FLEISS_KAPPA}
    found = dict(zip(statistics, estimates_of(list(statistics.values()), counts, o), strict=True))
    cohen, pairs = mean_cohen(votes, rows, o)
    strength, num_strength = _intensity(votes, condition, o)
    seconds = votes.seconds[rows][np.isfinite(votes.seconds[rows])]
    return ConditionAgreement(
        condition=condition,
        clips=int((total > 0).sum()),
        units=int((total >= 2).sum()),
        votes=int(total.sum()),
        people=len(np.unique(votes.annotator[rows])) if votes.annotators else None,
        one_winner=int((winners(counts) >= 0).sum()),
        unanimous=int(((total >= 2) & (most == total)).sum()),
        **found,
        fleiss_is="Fleiss" if has_equal_votes(counts) else "Gwet's generalisation of Fleiss",
        cohen=cohen,
        cohen_pairs=pairs,
        intensity=strength,
        intensity_units=num_strength,
        seconds=float(np.median(seconds)) if len(seconds) else None,
        labels=dict(zip(votes.labels, counts.sum(0).tolist(), strict=True)),
    )


def _share(hits: int, total: int, o: AgreementOptions) -> Estimate:
    return Estimate(hits / total if total else math.nan, *wilson(hits, total, o.confidence))


def _intensity(votes: Votes, condition: str, o: AgreementOptions) -> tuple[Estimate | None, int]:
    rows = votes.where(condition)
    rows = rows[votes.intensity[rows] >= 0]
    if not len(rows):
        return None, 0
    shape = (len(votes.clips), len(votes.intensities))
    counts = tally(votes.clip[rows], votes.intensity[rows], votes.count[rows], shape)
    return estimates_of([alpha_statistic("ordinal")], counts, o)[0], int((counts.sum(1) >= 2).sum())


def _between(votes: Votes, won: dict[str, Array], first: str, second: str, o: AgreementOptions) -> Between:
    both = (won[first] >= 0) & (won[second] >= 0)
    a, b = won[first][both], won[second][both]
    size = len(votes.labels)
    confusion = tally(a, b, np.ones(len(a)), (size, size))
    same = int((a == b).sum())
    return Between(first, second, len(a), same, _share(same, len(a), o), confusion.tolist())


def _follows(won: dict[str, Array], first: str, second: str, o: AgreementOptions) -> Follows:
    a, b, full = won[first], won[second], won["full"]
    apart = (a >= 0) & (b >= 0) & (full >= 0) & (a != b)
    num, as_first, as_second = (int(x[apart].sum()) for x in (apart, full == a, full == b))
    neither = num - as_first - as_second
    shares = _share(as_first, num, o), _share(as_second, num, o)
    return Follows(first, second, num, as_first, as_second, neither, *shares)


def _consistency(votes: Votes, o: AgreementOptions) -> Consistency:
    """After adjudication all agree where all adjudicators do, or where nobody had to adjudicate."""
    units = at_first = adjudicated = final = 0
    for c in votes.conditions:
        main, decided = votes.counts(c), votes.counts(c, (ROUNDS[-1],))
        counted = main.sum(1) >= 2
        agree = counted & (main.max(1) == main.sum(1))
        settled = counted & (decided.sum(1) > 0)
        after = np.where(settled, decided.max(1) == decided.sum(1), agree)
        units, at_first = units + int(counted.sum()), at_first + int(agree.sum())
        adjudicated, final = adjudicated + int(settled.sum()), final + int(after.sum())
    return Consistency(units, at_first, adjudicated, final, _share(at_first, units, o), _share(final, units, o))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
