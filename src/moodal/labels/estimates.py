"""How agreement is measured, and a number with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moodal.agreement import Statistic, estimates
from moodal.labels.votes import INTENSITIES, Array


@dataclass(frozen=True)
class AgreementOptions:
    """``labels``: those that may occur, in order; ``samples``: resamples of the bootstrap over clips."""

    labels: tuple[str, ...] | None = None
    intensities: tuple[str, ...] = INTENSITIES
    samples: int = 1000
    seed: int = 0
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


def estimates_of(statistics: Sequence[Statistic], data: Array, o: AgreementOptions) -> list[Estimate]:
    found = estimates(statistics, data, seed=o.seed, samples=o.samples, confidence=o.confidence)
    return [Estimate(*numbers) for numbers in found]
