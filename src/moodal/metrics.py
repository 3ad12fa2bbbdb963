"""Metrics: pure functions of what is true and what was predicted, in float64, never rounded.

Every metric is a function of sums over utterances: of a confusion matrix, of losses, of the moments behind a
correlation. A ``Measure`` keeps the two halves apart, so that a score on any resample of the utterances is a weighted
sum of the same terms, and thousands of resamples are one matrix product.

Undefined values: the correlation of a constant is 0.0 (it tells nothing about the truth, and NaN is not JSON); a metric
for which no utterance counts, such as Non0 where everything is neutral, is left out of the dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moodal.types import InputError, Task

Array = NDArray[Any]
Coding = Callable[[Array, Array], tuple[Array, Array]]

SENTIMENT = ("negative", "neutral", "positive")
ECE_BINS = 15

DESCRIPTIONS = {
    "accuracy": "share of utterances whose largest logit is the true class",
    "f1_weighted": "mean of the classes' F1, weighted by how many utterances truly have the class",
    "f1_macro": "plain mean of the F1 of the classes that are true or predicted somewhere",
    "balanced_accuracy": "plain mean of the recall of the classes that are true somewhere",
    "nll": "mean negative log-likelihood of the true class, in nats",
    "ece": f"expected calibration error of the top class's probability, {ECE_BINS} bins of equal width",
    "acc2_has0": (
        "two-class accuracy on all utterances; classes: positive against the rest, the neutral logit is dropped; "
        "scores: zero or more against less than zero"
    ),
    "f1_has0": "F1 weighted by true support, of the same two classes as acc2_has0",
    "acc2_non0": "two-class accuracy, positive against negative, on utterances that are not truly neutral (or zero)",
    "f1_non0": "F1 weighted by true support, of the same two classes and utterances as acc2_non0",
    "mmsa_acc2_non0": "Non0 accuracy as the MMSA package computes it: wrong, no positive utterance can count as right",
    "mmsa_f1_non0": "Non0 weighted F1 as the MMSA package computes it: wrong in the same way as mmsa_acc2_non0",
    "mae": "mean absolute error; on the interval [-1, 1] predictions are clipped to it first",
    "corr": "Pearson correlation, 0 if the prediction is constant; on [-1, 1] predictions are clipped to it first",
    "acc7": "share of utterances where true and predicted score, clipped to [-3, 3], round to the same integer",
    "acc5": "share of utterances where true and predicted score, clipped to [-2, 2], round to the same integer",
    "mult_acc2": "two-class accuracy of scores in [-1, 1]: above zero against zero or less",
    "mult_f1": "F1 weighted by true support, of the same two classes as mult_acc2",
    "mult_acc3": "three-class accuracy of scores in [-1, 1], cut at -0.1 and 0.1",
    "mult_acc5": "five-class accuracy of scores in [-1, 1], cut at -0.7, -0.1, 0.1 and 0.7",
}
HIGHER_IS_BETTER = {name: name not in ("nll", "ece", "mae") for name in DESCRIPTIONS}


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric: what every utterance contributes, and what the sum of the contributions means.

    terms: outputs (..., N, C), y (N,) -> (..., N, K); score: summed terms (..., K) -> (...), NaN where undefined.
    """

    terms: Callable[[Array, Array], Array]
    score: Callable[[Array], Array]

    def __call__(self, outputs: Array, y: Array) -> Array:
        """outputs (..., N, C), y (N,) -> (...)."""
        return self.score(self.terms(outputs, y).sum(-2))


def scores(outputs: ArrayLike, y: ArrayLike, task: Task) -> dict[str, float]:
    """Every metric of the task. outputs: (N, C) logits, for regression (N, 1) or (N,) scores; y: (N,)."""
    z, true = as_arrays(outputs, y, task)
    found = {name: float(measure(z, true)) for name, measure in measures(task).items()}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def classification_scores(logits: ArrayLike, y: ArrayLike, classes: Sequence[str]) -> dict[str, float]:
    """Every metric of a classification. logits: (N, C); y: (N,), positions in ``classes``."""
    return scores(logits, y, Task(tuple(classes)))


def regression_scores(pred: ArrayLike, true: ArrayLike, low: float, high: float) -> dict[str, float]:
    """Every metric of scores in [low, high]. [-3, 3] and [-1, 1] have their own, as MOSI and SIMS are reported."""
    return scores(pred, true, Task(low=low, high=high))


def measures(task: Task) -> dict[str, Measure]:
    """The metrics that this task has, by name."""
    return _class_measures(task.classes) if task.classes else _score_measures(task.low, task.high)


def as_arrays(outputs: ArrayLike, y: ArrayLike, task: Task) -> tuple[Array, Array]:
    """outputs (..., N, C) as float64 and y (N,), refused where no metric could be right."""
    z, true = np.asarray(outputs, np.float64), np.asarray(y)
    if not task.classes and z.shape == true.shape:
        z = z[..., None]
    if true.ndim != 1 or z.ndim < 2 or z.shape[-2:] != (len(true), task.num_outputs):
        raise InputError(
            f"metrics need y (N,) and outputs (N, {task.num_outputs}) for this task, got {true.shape} and {z.shape}"
        )
    if not len(true):
        raise InputError("metrics need at least one utterance, got none")
    if not np.isfinite(z).all():
        raise InputError("the outputs hold NaN or inf, so the model has failed; look for the first bad loss")
    if not task.classes:
        if not np.isfinite(true).all():
            raise InputError("the true scores hold NaN or inf; leave utterances without a score out")
        return z, true.astype(np.float64)
    if true.dtype.kind not in "iu" or true.min() < 0 or true.max() >= len(task.classes):
        raise InputError(
            f"true classes must be integers from 0 to {len(task.classes) - 1}, got {true.dtype} from "
            f"{true.min()} to {true.max()}; leave utterances without a label out"
        )
    return z, true.astype(np.int64)


def fit_temperature(logits: ArrayLike, y: ArrayLike) -> float:
    """T that makes softmax(logits / T) most likely for the labels (Guo et al., "On Calibration of Modern Neural
    Networks", 2017). logits: (N, C); y: (N,) classes. Between 0.05 and 20.

    One more row, of which every class is as true as the others, keeps a few rows that are all right from claiming
    certainty (after Platt, 1999).
    """
    from scipy.optimize import minimize_scalar

    z, labels = np.asarray(logits, np.float64), np.asarray(y)
    doubt = 1 / (len(labels) + 1)

    def loss(log_t: float) -> float:
        log_p = _log_softmax(z / np.exp(log_t))
        right = log_p[np.arange(len(labels)), labels]
        return float(-((1 - doubt) * right + doubt * log_p.mean(-1)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded").x))


def confusion(y: ArrayLike, predicted: ArrayLike, num_classes: int) -> Array:
    """(C, C) counts: rows are the true class, columns the predicted one."""
    cells = np.asarray(y) * num_classes + np.asarray(predicted)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def constant_prediction(predicted: ArrayLike) -> bool:
    """Whether a model says the same of every utterance, i.e. has learned nothing. predicted: (N,) classes or scores."""
    x = np.asarray(predicted, np.float64)
    return len(x) > 1 and bool(np.ptp(x) <= 1e-6)


def _class_measures(classes: tuple[str, ...]) -> dict[str, Measure]:
    n = len(classes)
    found = {
        "accuracy": _counted(_top_class, n, _accuracy),
        "f1_weighted": _counted(_top_class, n, _f1_weighted),
        "f1_macro": _counted(_top_class, n, _f1_macro),
        "balanced_accuracy": _counted(_top_class, n, _mean_recall),
        "nll": _mean(_negative_log_likelihood),
        "ece": _calibration_error(),
    }
    if classes == SENTIMENT:
        found |= {
            "acc2_has0": _counted(_positive_or_not, 2, _accuracy),
            "f1_has0": _counted(_positive_or_not, 2, _f1_weighted),
            "acc2_non0": _counted(_positive_or_negative, 2, _accuracy),
            "f1_non0": _counted(_positive_or_negative, 2, _f1_weighted),
            "mmsa_acc2_non0": _counted(_mmsa_non0, 3, _accuracy),
            "mmsa_f1_non0": _counted(_mmsa_non0, 3, _f1_weighted),
        }
    return found


def _score_measures(low: float, high: float) -> dict[str, Measure]:
    found = {"mae": _mean(_absolute_error), "corr": _correlation()}
    if (low, high) == (-1, 1):
        found |= {
            "mult_acc2": _counted(_binned(0), 2, _accuracy),
            "mult_f1": _counted(_binned(0), 2, _f1_weighted),
            "mult_acc3": _counted(_binned(-0.1, 0.1), 3, _accuracy),
            "mult_acc5": _counted(_binned(-0.7, -0.1, 0.1, 0.7), 5, _accuracy),
        }
        return {name: _clipped(measure, low, high) for name, measure in found.items()}
    if low < 0 < high:
        found |= {
            "acc2_has0": _counted(_at_least_zero, 2, _accuracy),
            "f1_has0": _counted(_at_least_zero, 2, _f1_weighted),
            "acc2_non0": _counted(_above_or_below_zero, 2, _accuracy),
            "f1_non0": _counted(_above_or_below_zero, 2, _f1_weighted),
        }
    if (low, high) == (-3, 3):
        found |= {"acc7": _counted(_rounded(3), 7, _accuracy), "acc5": _counted(_rounded(2), 5, _accuracy)}
    return found


# How utterances are coded: outputs (..., N, C), y (N,) -> true class (N,), predicted class (..., N).
# A true class below zero says that the utterance does not count.


def _top_class(logits: Array, y: Array) -> tuple[Array, Array]:
    return y, logits.argmax(-1)


def _positive_or_not(logits: Array, y: Array) -> tuple[Array, Array]:
    return (y == 2).astype(int), (logits[..., 2] > logits[..., 0]).astype(int)


def _positive_or_negative(logits: Array, y: Array) -> tuple[Array, Array]:
    return np.where(y == 1, -1, y == 2), (logits[..., 2] > logits[..., 0]).astype(int)


def _mmsa_non0(logits: Array, y: Array) -> tuple[Array, Array]:
    """The package's mistake: truth stays 0 or 2 while the prediction is 0 or 1."""
    return np.where(y == 1, -1, y), (logits[..., 2] > logits[..., 0]).astype(int)


def _at_least_zero(outputs: Array, y: Array) -> tuple[Array, Array]:
    return (y >= 0).astype(int), (outputs[..., 0] >= 0).astype(int)


def _above_or_below_zero(outputs: Array, y: Array) -> tuple[Array, Array]:
    return np.where(y == 0, -1, y > 0), (outputs[..., 0] > 0).astype(int)


def _rounded(limit: int) -> Coding:
    """Nearest integer, halves to even, from -limit to limit."""

    def code(outputs: Array, y: Array) -> tuple[Array, Array]:
        true, predicted = (np.round(np.clip(x, -limit, limit)).astype(int) + limit for x in (y, outputs[..., 0]))
        return true, predicted

    return code


def _binned(*cuts: float) -> Coding:
    """Bins that include their upper end."""

    def code(outputs: Array, y: Array) -> tuple[Array, Array]:
        return np.searchsorted(cuts, y, side="left"), np.searchsorted(cuts, outputs[..., 0], side="left")

    return code


# Scores of a confusion matrix: (..., C, C), rows true -> (...).


def _accuracy(counts: Array) -> Array:
    return _ratio(np.trace(counts, axis1=-2, axis2=-1), counts.sum((-2, -1)))


def _f1_weighted(counts: Array) -> Array:
    support = counts.sum(-1)
    return _ratio((support * _f1(counts)).sum(-1), support.sum(-1))


def _f1_macro(counts: Array) -> Array:
    seen = counts.sum(-1) + counts.sum(-2) > 0
    return _ratio(_f1(counts).sum(-1), seen.sum(-1))


def _mean_recall(counts: Array) -> Array:
    support = counts.sum(-1)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    return _ratio(_ratio(hits, support, otherwise=0.0).sum(-1), (support > 0).sum(-1))


def _f1(counts: Array) -> Array:
    """(..., C), 0 for a class that is neither true nor predicted."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    return _ratio(2 * hits, counts.sum(-1) + counts.sum(-2), otherwise=0.0)


def _ratio(a: Array, b: Array, *, otherwise: float = np.nan) -> Array:
    """a / b, and ``otherwise`` where b is 0."""
    return np.asarray(np.divide(a, b, out=np.full(np.shape(a), otherwise), where=np.asarray(b) != 0))


# From codings and losses to measures.


def _counted(code: Coding, num_classes: int, score: Callable[[Array], Array]) -> Measure:
    """A function of the confusion matrix: the terms mark one of its C * C cells."""

    def terms(outputs: Array, y: Array) -> Array:
        true, predicted = code(outputs, y)
        cell = true * num_classes + predicted  # below zero, so no cell at all, where the utterance does not count
        return np.asarray(cell[..., None] == np.arange(num_classes**2), np.float64)

    return Measure(terms, lambda sums: score(sums.reshape(*sums.shape[:-1], num_classes, num_classes)))


def _mean(loss: Callable[[Array, Array], Array]) -> Measure:
    """The mean of a loss (..., N)."""

    def terms(outputs: Array, y: Array) -> Array:
        value = loss(outputs, y)
        return np.stack([value, np.ones_like(value)], -1)

    return Measure(terms, lambda sums: _ratio(sums[..., 0], sums[..., 1]))


def _clipped(measure: Measure, low: float, high: float) -> Measure:
    """The measure of truth and prediction clipped to [low, high]."""
    return Measure(lambda p, y: measure.terms(np.clip(p, low, high), np.clip(y, low, high)), measure.score)


def _absolute_error(outputs: Array, y: Array) -> Array:
    return np.asarray(np.abs(outputs[..., 0] - y))


def _negative_log_likelihood(logits: Array, y: Array) -> Array:
    return np.asarray(-_log_softmax(logits)[..., np.arange(len(y)), y])


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def _calibration_error() -> Measure:
    """sum over bins of |accuracy - confidence| times the bin's share, where confidence is the top probability.

    Bins include their upper end. Both factors share the bin's count, so the sums are of (right - confidence).
    """
    edges = np.linspace(0, 1, ECE_BINS + 1)[1:-1]

    def terms(logits: Array, y: Array) -> Array:
        confidence = np.exp(_log_softmax(logits)).max(-1)  # (..., N)
        gap = (logits.argmax(-1) == y) - confidence
        bins = np.searchsorted(edges, confidence, side="left")[..., None] == np.arange(ECE_BINS)
        return np.concatenate([gap[..., None] * bins, np.ones((*gap.shape, 1))], -1)

    return Measure(terms, lambda sums: _ratio(np.abs(sums[..., :-1]).sum(-1), sums[..., -1]))


def _correlation() -> Measure:
    def terms(outputs: Array, y: Array) -> Array:
        p = outputs[..., 0]
        t = np.broadcast_to(y, p.shape)
        return np.stack([np.ones_like(p), p, t, p * p, t * t, p * t], -1)

    def score(sums: Array) -> Array:
        n, p, t, pp, tt, pt = np.moveaxis(sums, -1, 0)
        var_p, var_t = n * pp - p * p, n * tt - t * t
        varies = (var_p > 1e-12 * n * pp) & (var_t > 1e-12 * n * tt)  # less is rounding of a constant
        product = np.where(varies, var_p * var_t, 0.0)
        return _ratio(n * pt - p * t, np.sqrt(product), otherwise=0.0)

    return Measure(terms, score)
