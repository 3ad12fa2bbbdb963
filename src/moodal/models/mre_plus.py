"""MRE+: every modality has an emotion of its own, and relevance is the probability that it is the utterance's.

The idea is the MRE paper's (arXiv 2302.01555: one label, modalities that may not mean it; its Figure 4 c, d are T_m),
taken as a probabilistic model in place of a network. With y the utterance's label and k_m modality m's own:

    p(y, k, x) = p(y) prod_m T_m[y, k_m] N(x_m; mu_m[k_m], Sigma_m),   not all k_m different from y

(or without that last condition, where dropping it is worth its cost out of fold: people may call a clip what neither
face nor voice says), fitted by expectation maximisation (Dempster, Laird, Rubin 1977) on utterance labels alone.
Sigma_m is shrunk as Ledoit and Wolf (2004) do, T_m toward "all agree". Then

    log p(y | x) = log p(y) + sum_m log sum_k T_m[y, k] exp(e_m[k] / tau_m) + log P(some k_m = y | y, x) + const
    r_m = P(k_m = y | x)

with e_m the Gaussian's log-density. How far a modality is to be believed at all is settled on people that the
parameters have not seen (out of fold, groups whole): its temperature tau_m, the share rho_m by which T_m is mixed with
"says nothing", and how strongly T_m is held to agreement. What wins fewer nats there than a parameter costs (Schwarz
1978) is left out: a modality that carries no information says nothing and has a relevance of 1 / C, and where
modalities mean the same, T_m stays agreement. A missing modality's factor drops out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moodal.batch import Batch
from moodal.models.base import Output
from moodal.models.discriminant import Discriminant, folds_of, log_likelihoods
from moodal.types import Task

Array = npt.NDArray[np.float64]
ITERATIONS, CONVERGED = 30, 1e-3  # at most; ended when no probability of an own label moves by more
BEGINNINGS, FIRST_ITERATIONS = 8, 5  # of them, each so far, before one goes on
DISAGREE = 0.02  # of the pseudo-clips that agree, so that no entry of T is ever 0
TEMPERATURES, IGNORED = (0.5, 20.0), (1e-3, 1 - 1e-3)  # where tau and rho may lie


@dataclass(frozen=True, slots=True)
class Assumption:
    """What is taken for granted of own labels. strength: pseudo-clips per class that agree, from inf ("they all mean
    it") to 1 ("let the data say"); some_agree: in every utterance some modality does.

    With it EM begins with the utterances' labels. Without, with clusters of the features: where most utterances of a
    class mean another one, it could not leave their labels.
    """

    strength: float
    some_agree: bool = True


ASSUMPTIONS = (Assumption(np.inf), Assumption(30.0), Assumption(1.0), Assumption(1.0, some_agree=False))


@dataclass(frozen=True)
class Expert:
    """One modality's Gaussians. centres: (C, D); covariance: (D, D); transition: T_m (C, C), rows sum to 1."""

    centres: Array
    covariance: Array
    transition: Array


class MREPlus(Discriminant):
    """A latent label per modality, fitted by EM; relevance is the posterior that a modality's own label agrees."""

    is_control = False

    def __init__(self, dims: Mapping[str, int], task: Task, **options: Any) -> None:
        super().__init__(dims, task, **options)
        classes = task.num_outputs
        self.register_buffer("some_agree", torch.ones(()))  # 1 or 0
        for m, dim in self.dims.items():
            self.register_buffer(f"precision_{m}", torch.eye(dim, dtype=torch.float64))
            self.register_buffer(f"transition_{m}", torch.eye(classes, dtype=torch.float64))
            self.register_buffer(f"temperature_{m}", torch.ones((), dtype=torch.float64))

    def fit(self, train: Batch, seed: int) -> None:
        batch = self.prepare(train)
        x, y, there = self._arrays(batch)
        folds = folds_of(y, batch, seed)
        given, (least, trust) = ASSUMPTIONS[0], _trust(x, y, there, folds, ASSUMPTIONS[0])
        for looser in ASSUMPTIONS[1:]:
            loss, settings = _trust(x, y, there, folds, looser)
            if loss < least - cost_of_a_parameter(len(y)):
                given, least, trust = looser, loss, settings
        experts = fit_experts(x, y, there, self.task.num_outputs, given)
        self.get_buffer("some_agree").fill_(given.some_agree)
        for m, (tau, rho) in zip(self.modalities, trust, strict=True):
            self.get_buffer(f"centres_{m}").copy_(torch.from_numpy(experts[m].centres))
            self.get_buffer(f"precision_{m}").copy_(torch.from_numpy(np.linalg.inv(experts[m].covariance)))
            self.get_buffer(f"transition_{m}").copy_(torch.from_numpy(mixed(experts[m].transition, rho)))
            self.get_buffer(f"temperature_{m}").fill_(tau)

    def _arrays(self, batch: Batch) -> tuple[dict[str, Array], npt.NDArray[np.int64], dict[str, npt.NDArray[np.bool_]]]:
        y = self.labels_of(batch)
        x = {m: v.numpy() for m, v in self.vectors(batch).items()}
        return x, y, {m: p.numpy() for m, p in batch.present.items()}

    def evidence(self, batch: Batch) -> dict[str, Tensor]:
        """log N(x_m; mu_m[k], Sigma_m) / tau_m up to a constant, (B, C) float64 per modality; 0 where it is missing."""
        found = {}
        for m, x in self.vectors(batch).items():
            directions = self.get_buffer(f"precision_{m}") @ self.get_buffer(f"centres_{m}").t()  # (D, C)
            half = 0.5 * (self.get_buffer(f"centres_{m}") * directions.t()).sum(1)
            found[m] = (x @ directions - half) / self.get_buffer(f"temperature_{m}") * batch.present[m][:, None]
        return found

    def fuse(self, batch: Batch) -> Output:
        present = torch.stack([batch.present[m] for m in self.modalities], dim=1)  # (B, M)
        transitions = torch.stack([self.get_buffer(f"transition_{m}") for m in self.modalities])  # (M, C, C)
        evidence = torch.stack(list(self.evidence(batch).values()), dim=1)  # (B, M, C)
        said, agrees = factors(evidence, transitions, present)  # (B, M, C) each
        logits = self.get_buffer("log_prior") + said.sum(1)
        if self.get_buffer("some_agree"):
            logits = logits + some_agrees(agrees, transitions, present).log()
            agrees = (agrees / (1 - (1 - agrees).prod(1, keepdim=True)).clamp(min=1e-12)).clamp(max=1)
        relevance = (logits.softmax(-1)[:, None] * agrees).sum(-1) * present
        prior = self.get_buffer("log_prior")
        alone = {m: (prior + said[:, i]).float() for i, m in enumerate(self.modalities)}
        return Output(logits.float(), {}, alone, relevance.float())


def factors(evidence: Tensor, transitions: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """What each modality says of every y, log sum_k T[y, k] exp(e[k]), and P(k_m = y | y, x_m): (B, M, C) each.

    evidence: (B, M, C); transitions: (M, C, C); present: (B, M). A missing one says 0 and agrees with nothing.
    """
    log_t = transitions.clamp(min=1e-300).log()
    said = torch.logsumexp(log_t + evidence[:, :, None, :], dim=-1)
    own = torch.diagonal(log_t, dim1=1, dim2=2) + evidence
    there = present[:, :, None]
    return torch.where(there, said, 0.0), torch.where(there, (own - said).exp(), 0.0)


def some_agrees(agrees: Tensor, transitions: Tensor, present: Tensor) -> Tensor:
    """(B, C) P(some k_m = y | y, x) over P(some k_m = y | y): what imposing "at least one agrees" multiplies by."""
    before = torch.where(present[:, :, None], torch.diagonal(transitions, dim1=1, dim2=2), 0.0)
    after, prior = 1 - (1 - agrees).prod(1), 1 - (1 - before).prod(1)
    return torch.where(prior > 0, after.clamp(min=1e-12) / prior.clamp(min=1e-12), 1.0)


def cost_of_a_parameter(num: int) -> float:
    """Nats per utterance that it must win over ``num`` of them (Schwarz's criterion)."""
    return 0.5 * float(np.log(num)) / num


def mixed(transition: Array, rho: float) -> Array:
    """T with the share ``rho`` of "says nothing": every own label alike, whatever y is."""
    return (1 - rho) * transition + rho / len(transition)


def fit_experts(
    x: Mapping[str, Array],
    y: npt.NDArray[np.int64],
    there: Mapping[str, npt.NDArray[np.bool_]],
    classes: int,
    assumed: Assumption,
) -> dict[str, Expert]:
    """Expectation maximisation. x: (N, D) per modality; y: (N,); there: (N,) bool."""
    given = np.eye(classes)[y]  # (N, C)
    agree = (1 - DISAGREE) * np.eye(classes) + DISAGREE / classes
    gaussians = {m: _Gaussians(x[m][rows], y[rows], classes) for m, rows in there.items()}
    if not assumed.some_agree:
        return {m: _fit_alone(gaussians[m], y[rows], assumed.strength * agree) for m, rows in there.items()}
    own = dict.fromkeys(x, given)
    experts = {m: Expert(*gaussians[m].maximised(given[there[m]]), agree) for m in x}
    for _ in range(ITERATIONS if np.isfinite(assumed.strength) else 0):
        before, own = own, _own_labels(x, y, there, experts)
        for m, rows in there.items():
            transition = _shares(given[rows].T @ own[m][rows] + assumed.strength * agree)
            experts[m] = Expert(*gaussians[m].maximised(own[m][rows]), transition)
        if max(float(np.abs(own[m] - before[m]).max()) for m in own) < CONVERGED:
            break
    return experts


def _fit_alone(gaussians: _Gaussians, y: npt.NDArray[np.int64], prior: Array) -> Expert:
    """One modality whose own labels nothing but its features and y tell: from the likeliest of several beginnings.

    prior: (C, C) pseudo-clips by utterance label and own label.
    """
    given = np.eye(len(prior))[y]
    begun = (_clusters(gaussians, given, seed) for seed in range(BEGINNINGS))
    tried = [_climbed(gaussians, y, prior, own, FIRST_ITERATIONS) for own in begun]
    return _climbed(gaussians, y, prior, max(tried, key=lambda t: t[2])[1], ITERATIONS)[0]


def _climbed(
    gaussians: _Gaussians, y: npt.NDArray[np.int64], prior: Array, own: Array, iterations: int
) -> tuple[Expert, Array, float]:
    """EM from the own labels ``own``, (N, C): the expert, the own labels, the mean log-likelihood up to a constant."""
    given = np.eye(len(prior))[y]
    for _ in range(iterations):
        before = own
        expert = Expert(*gaussians.maximised(own), _shares(given.T @ own + prior))
        log_p = np.log(expert.transition[y]) + log_density(gaussians.x, expert)  # (N, C)
        total = np.logaddexp.reduce(log_p, axis=1)
        own = np.exp(log_p - total[:, None])
        if float(np.abs(own - before).max()) < CONVERGED:
            break
    return expert, own, float(total.mean()) + gaussians.shared_log_density(expert.covariance)


def _shares(counts: Array) -> Array:
    return np.asarray(counts / counts.sum(1, keepdims=True))


def _clusters(gaussians: _Gaussians, given: Array, seed: int) -> Array:
    """(N, C) of 0 and 1: clusters where the class means lie, each called by the class that it is most typical of.

    E[x | y] = sum_k T[y, k] mu_k, so the class means span what the true means do, where T can be inverted.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.cluster import KMeans

    classes = given.shape[1]
    centres, covariance = gaussians.maximised(given)
    half = np.linalg.cholesky(np.linalg.inv(covariance))  # (D, D): x @ half has unit noise within classes
    spread = np.sqrt(given.mean(0))[:, None] * (centres - gaussians.mean) @ half
    axes = np.linalg.svd(spread, full_matrices=False)[2][: classes - 1]
    shown = (gaussians.x - gaussians.mean) @ half @ axes.T
    found = np.eye(classes)[KMeans(classes, n_init=1, random_state=seed).fit_predict(shown)]
    counts = given.T @ found
    typical = counts / np.sqrt(np.maximum(counts.sum(1, keepdims=True) * counts.sum(0), 1))
    return np.asarray(found[:, linear_sum_assignment(-typical)[1]])


class _Gaussians:
    """What an M-step needs of one modality and does not change: all second moments, and how far they are shrunk."""

    def __init__(self, x: Array, y: npt.NDArray[np.int64], classes: int) -> None:
        from sklearn.covariance import ledoit_wolf_shrinkage

        self.x, self.total, self.mean = x, x.T @ x, x.mean(0)
        given = np.eye(classes)[y]
        residual = x - (given.T @ x / np.maximum(given.sum(0), 1)[:, None])[y]
        scale = np.sqrt(np.square(residual).mean(0))
        self.shrinkage = float(ledoit_wolf_shrinkage(residual / np.where(scale > 0, scale, 1.0), assume_centered=True))

    def maximised(self, own: Array) -> tuple[Array, Array]:
        """Class means (C, D) and shrunk covariance (D, D), with row i in class k to the share own[i, k]."""
        counts = own.sum(0)
        centres = np.where(counts[:, None] > 1e-9, own.T @ self.x / np.maximum(counts, 1e-9)[:, None], self.mean)
        covariance = (self.total - (centres.T * counts) @ centres) / len(self.x)
        scale = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
        correlation = (1 - self.shrinkage) * covariance / np.outer(scale, scale) + self.shrinkage * np.eye(len(scale))
        covariance = correlation * np.outer(scale, scale) + 1e-9 * np.eye(len(scale))
        return centres, covariance

    def shared_log_density(self, covariance: Array) -> float:
        """The mean of what ``log_density`` leaves out because all classes share it, up to a constant."""
        precision = np.linalg.inv(covariance)
        return 0.5 * float(np.linalg.slogdet(precision)[1] - np.sum(self.total * precision) / len(self.x))


def _own_labels(
    x: Mapping[str, Array],
    y: npt.NDArray[np.int64],
    there: Mapping[str, npt.NDArray[np.bool_]],
    experts: Mapping[str, Expert],
) -> dict[str, Array]:
    """The E-step: P(k_m = k | y, x) of every utterance, (N, C) per modality, given that some modality agrees."""
    own, disagrees = {}, {}
    rows = np.arange(len(y))
    for m, e in experts.items():
        log_p = np.log(e.transition[y]) + log_density(x[m], e)
        log_p -= log_p.max(1, keepdims=True)
        p = np.exp(log_p)
        own[m] = p / p.sum(1, keepdims=True)
        disagrees[m] = np.where(there[m], 1 - own[m][rows, y], 1.0)
    for m in own:
        others = np.prod([d for o, d in disagrees.items() if o != m], axis=0) if len(own) > 1 else np.ones(len(y))
        other_labels = np.arange(own[m].shape[1]) != y[:, None]
        p = own[m] * np.where(other_labels, 1 - others[:, None], 1.0)  # disagreeing, some other one has to agree
        own[m] = p / p.sum(1, keepdims=True)
    return own


def log_density(x: Array, expert: Expert) -> Array:
    """(N, C) log N(x; centre_k, covariance) without what all classes share."""
    parts = (torch.from_numpy(part) for part in (x, expert.centres, expert.covariance))
    return np.asarray(log_likelihoods(*parts))


def _trust(
    x: Mapping[str, Array],
    y: npt.NDArray[np.int64],
    there: Mapping[str, npt.NDArray[np.bool_]],
    folds: list[tuple[Array, Array]],
    assumed: Assumption,
) -> tuple[float, list[tuple[float, float]]]:
    """The best log-loss out of fold under this assumption, and each modality's temperature and ignored share there."""
    held_out = [_held_out(x, y, there, fit_on, apply_to, assumed) for fit_on, apply_to in folds]
    return _settled(held_out, len(x))


@dataclass(frozen=True)
class _HeldOut:
    """Utterances that the experts have not seen. evidence: (n, M, C); transitions: (M, C, C); log_prior: (C,)."""

    y: Tensor
    evidence: Tensor
    transitions: Tensor
    present: Tensor
    log_prior: Tensor
    some_agree: bool


def _held_out(
    x: Mapping[str, Array],
    y: npt.NDArray[np.int64],
    there: Mapping[str, npt.NDArray[np.bool_]],
    fit_on: Array,
    apply_to: Array,
    assumed: Assumption,
) -> _HeldOut:
    classes = int(y.max()) + 1
    part = {m: there[m][fit_on] for m in x}
    experts = fit_experts({m: v[fit_on] for m, v in x.items()}, y[fit_on], part, classes, assumed)
    evidence = np.stack([log_density(x[m][apply_to], e) for m, e in experts.items()], axis=1)
    present = np.stack([there[m][apply_to] for m in x], axis=1)
    log_prior = np.log(np.bincount(y[fit_on], minlength=classes) / len(fit_on))
    return _HeldOut(
        torch.from_numpy(y[apply_to]),
        torch.from_numpy(evidence * present[:, :, None]),
        torch.from_numpy(np.stack([e.transition for e in experts.values()])),
        torch.from_numpy(present),
        torch.from_numpy(log_prior),
        assumed.some_agree,
    )


def _settled(parts: list[_HeldOut], modalities: int) -> tuple[float, list[tuple[float, float]]]:
    """Temperatures and ignored shares with the least log-loss over all parts."""
    from scipy.optimize import minimize

    num = sum(len(part.y) for part in parts)

    def loss(flat: Array) -> tuple[float, Array]:
        settings = torch.tensor(flat, requires_grad=True)
        tau, rho = settings[:modalities].exp(), settings[modalities:].sigmoid()
        total = torch.stack([_log_loss(part, tau, rho) for part in parts]).sum() / num
        (gradient,) = torch.autograd.grad(total, settings)
        return total.item(), gradient.numpy()

    lowest, highest = np.log(np.array(IGNORED) / (1 - np.array(IGNORED)))
    bounds = [tuple(np.log(TEMPERATURES))] * modalities + [(lowest, highest)] * modalities
    start = np.concatenate([np.full(modalities, 0.5), np.full(modalities, -1.0)])
    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    for i in range(modalities):  # is it missed?
        without = best.x.copy()
        without[modalities + i] = highest
        held = [*bounds[: modalities + i], (highest, highest), *bounds[modalities + i + 1 :]]
        again = minimize(loss, without, jac=True, method="L-BFGS-B", bounds=held)
        if again.fun < best.fun + 2 * cost_of_a_parameter(num):  # its temperature goes too
            best, bounds = again, held
    tau, rho = np.exp(best.x[:modalities]), 1 / (1 + np.exp(-best.x[modalities:]))
    return float(best.fun), list(zip(tau.tolist(), rho.tolist(), strict=True))


def _log_loss(part: _HeldOut, tau: Tensor, rho: Tensor) -> Tensor:
    classes = part.evidence.shape[2]
    transitions = (1 - rho)[:, None, None] * part.transitions + (rho / classes)[:, None, None]
    said, agrees = factors(part.evidence / tau[:, None], transitions, part.present)
    logits = part.log_prior + said.sum(1)
    if part.some_agree:
        logits = logits + some_agrees(agrees, transitions, part.present).log()
    return torch.nn.functional.cross_entropy(logits, part.y, reduction="sum")
