"""Closed-form controls: linear discriminant analysis with shrinkage, and two ways to combine one per modality.

Fitted in a tenth of a second, and better than the networks of our trials on small data: what a network has to beat.
Covariance: Ledoit and Wolf, "Honey, I Shrunk the Sample Covariance Matrix", 2004, through scikit-learn.
Stacking: Wolpert 1992; out-of-fold log-probabilities, so that the combiner sees what each expert says of new people.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moodal.batch import Batch
from moodal.models.base import FusionModel, Output
from moodal.types import InputError, Task

Array = npt.NDArray[np.float64]
OUT_OF_FOLDS = 5


class Discriminant(FusionModel):
    """What the three share: one vector per modality, class means and one covariance in float64 buffers."""

    is_control = True
    closed_form = True

    def __init__(
        self,
        dims: Mapping[str, int],
        task: Task,
        *,
        text_pooling: str = "mean",
        standardise: str = "scale",
        **inputs: Any,
    ) -> None:
        super().__init__(dims, task, text_pooling=text_pooling, standardise=standardise, **inputs)
        if not task.classes:
            raise InputError("discriminant analysis needs classes; for scores choose another model")
        if "none" in self.pooling.values():
            raise InputError("discriminant analysis needs one vector per modality: pooling mean or mean_std, not none")
        self.register_buffer("log_prior", torch.zeros(task.num_outputs, dtype=torch.float64))
        for m, dim in self.dims.items():
            self.register_buffer(f"centres_{m}", torch.zeros(task.num_outputs, dim, dtype=torch.float64))

    def vectors(self, batch: Batch) -> dict[str, Tensor]:
        """(B, D) float64 per modality, zeros where missing. ``batch`` is prepared."""
        return {m: batch.inputs[m].mean().double() for m in self.modalities}

    def labels_of(self, batch: Batch) -> npt.NDArray[np.int64]:
        assert batch.labels is not None
        labels: npt.NDArray[np.int64] = batch.labels.numpy()
        missing = [c for i, c in enumerate(self.task.classes) if i not in labels]
        if missing:
            raise InputError(f"class {missing[0]!r} has no example in the training split; every class needs some")
        self.get_buffer("log_prior").copy_(torch.from_numpy(np.bincount(labels) / len(labels)).log())
        return labels


class LDA(Discriminant):
    """Shrinkage LDA on the concatenation; a missing modality is integrated out: its block of the Gaussian drops out."""

    def __init__(self, dims: Mapping[str, int], task: Task, **options: Any) -> None:
        super().__init__(dims, task, **options)
        width = sum(self.dims.values())
        self.register_buffer("covariance", torch.eye(width, dtype=torch.float64))

    def fit(self, train: Batch, seed: int) -> None:
        batch = self.prepare(train)
        y = self.labels_of(batch)
        x = torch.cat(list(self.vectors(batch).values()), dim=1).numpy()
        there = np.concatenate([np.tile(batch.present[m].numpy()[:, None], d) for m, d in self.dims.items()], axis=1)
        centres, covariance = shrunk_gaussians(x, y, len(self.task.classes), there)
        at = 0
        for m, dim in self.dims.items():
            self.get_buffer(f"centres_{m}").copy_(torch.from_numpy(centres[:, at : at + dim]))
            at += dim
        self.get_buffer("covariance").copy_(torch.from_numpy(covariance))

    def fuse(self, batch: Batch) -> Output:
        x = torch.cat(list(self.vectors(batch).values()), dim=1)
        centres = torch.cat([self.get_buffer(f"centres_{m}") for m in self.modalities], dim=1)
        there = torch.stack([batch.present[m] for m in self.modalities], dim=1)  # (B, M)
        widths = torch.tensor([self.dims[m] for m in self.modalities])
        logits = self.get_buffer("log_prior").expand(len(x), -1).clone()
        for pattern in map(torch.tensor, product([False, True], repeat=len(self.modalities))):
            rows = (there == pattern).all(1)
            if bool(pattern.any()) and bool(rows.any()):
                columns = torch.repeat_interleave(pattern, widths)
                covariance = self.get_buffer("covariance")[columns][:, columns]
                logits[rows] += log_likelihoods(x[rows][:, columns], centres[:, columns], covariance)
        return Output(logits.float())


class LDAProduct(Discriminant):
    """One shrinkage LDA per modality; their evidence multiplies: p(y) prod_m p(y | x_m) / p(y)."""

    def __init__(self, dims: Mapping[str, int], task: Task, **options: Any) -> None:
        super().__init__(dims, task, **options)
        for m, dim in self.dims.items():
            self.register_buffer(f"covariance_{m}", torch.eye(dim, dtype=torch.float64))

    def fit(self, train: Batch, seed: int) -> None:
        batch = self.prepare(train)
        self.fit_experts(batch, self.labels_of(batch))

    def fit_experts(self, batch: Batch, y: npt.NDArray[np.int64]) -> None:
        """Means and covariance of each modality, from the utterances that have it. ``batch`` is prepared."""
        for m, x in self.vectors(batch).items():
            there = batch.present[m].numpy()
            centres, covariance = shrunk_gaussians(x.numpy()[there], y[there], len(self.task.classes))
            self.get_buffer(f"centres_{m}").copy_(torch.from_numpy(centres))
            self.get_buffer(f"covariance_{m}").copy_(torch.from_numpy(covariance))

    def evidence(self, batch: Batch) -> dict[str, Tensor]:
        """log p(x_m | y) up to a constant, (B, C) float64 per modality; 0 where it is missing."""
        x = self.vectors(batch)
        return {
            m: log_likelihoods(x[m], self.get_buffer(f"centres_{m}"), self.get_buffer(f"covariance_{m}"))
            * batch.present[m][:, None]
            for m in self.modalities
        }

    def fuse(self, batch: Batch) -> Output:
        prior, evidence = self.get_buffer("log_prior"), self.evidence(batch)
        total = torch.stack(list(evidence.values())).sum(0) + prior
        return Output(total.float(), {}, {m: (e + prior).float() for m, e in evidence.items()})


class LDAStacking(LDAProduct):
    """Logistic regression on the out-of-fold log-probabilities of one shrinkage LDA per modality.

    The experts' folds keep groups (speakers, videos) whole. A missing modality says what the prior says.
    """

    def __init__(self, dims: Mapping[str, int], task: Task, **options: Any) -> None:
        super().__init__(dims, task, **options)
        classes = task.num_outputs
        self.register_buffer("weight", torch.zeros(classes, classes * len(self.modalities), dtype=torch.float64))
        self.register_buffer("bias", torch.zeros(classes, dtype=torch.float64))

    def fit(self, train: Batch, seed: int) -> None:
        from sklearn.linear_model import LogisticRegressionCV

        batch = self.prepare(train)
        y = self.labels_of(batch)
        folds = folds_of(y, batch, seed)
        held_out = np.zeros((len(y), self.get_buffer("weight").shape[1]))
        for fit_on, apply_to in folds:
            part = batch.select(torch.from_numpy(fit_on))
            self.fit_experts(part, y[fit_on])
            held_out[apply_to] = self.log_probabilities(batch.select(torch.from_numpy(apply_to))).numpy()
        self.fit_experts(batch, y)
        combiner = LogisticRegressionCV(
            Cs=np.logspace(-4, 1, 11),
            cv=folds,
            scoring="neg_log_loss",
            max_iter=2000,
            l1_ratios=(0,),
            use_legacy_attributes=False,
        ).fit(held_out, y)
        weight, bias = combiner.coef_, combiner.intercept_
        if len(weight) == 1:  # two classes have one row: the logit of the second against the first
            weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
        self.get_buffer("weight").copy_(torch.from_numpy(weight))
        self.get_buffer("bias").copy_(torch.from_numpy(bias))

    def log_probabilities(self, batch: Batch) -> Tensor:
        """(B, M C) each expert's log-posterior, side by side."""
        prior = self.get_buffer("log_prior")
        return torch.cat([(e + prior).log_softmax(-1) for e in self.evidence(batch).values()], dim=1)

    def fuse(self, batch: Batch) -> Output:
        prior = self.get_buffer("log_prior")
        logits: Tensor = self.log_probabilities(batch) @ self.get_buffer("weight").t() + self.get_buffer("bias")
        alone = {m: (e + prior).float() for m, e in self.evidence(batch).items()}
        return Output(logits.float(), {}, alone)


def shrunk_gaussians(
    x: Array, y: npt.NDArray[np.int64], classes: int, there: npt.NDArray[np.bool_] | None = None
) -> tuple[Array, Array]:
    """Class means (C, D) and the shared within-class covariance (D, D), shrunk by Ledoit and Wolf's estimate.

    there: (N, D) bool, False where a value is missing; it counts neither for the mean nor for the variance of its
    column. A class without values in a column takes the overall mean.
    """
    from sklearn.covariance import ledoit_wolf

    there = np.ones(x.shape, dtype=bool) if there is None else there
    x = np.where(there, x, 0.0)
    overall = x.sum(0) / np.maximum(there.sum(0), 1)
    members = np.eye(classes)[y].T  # (C, N)
    counts = members @ there  # (C, D)
    centres = np.where(counts > 0, members @ x / np.maximum(counts, 1), overall)
    # a missing deviation is 0, and the others grow for it: the matrix stays positive semidefinite
    within = (x - centres[y]) * there * np.sqrt(len(x) / np.maximum(there.sum(0), 1))
    scale = np.sqrt(np.square(within).mean(0))
    scale[scale == 0] = 1.0
    covariance, _ = ledoit_wolf(within / scale, assume_centered=True)
    return centres, covariance * np.outer(scale, scale) + 1e-9 * np.eye(x.shape[1])


def log_likelihoods(x: Tensor, centres: Tensor, covariance: Tensor) -> Tensor:
    """log N(x; centre_c, covariance) without what all classes share. (B, D), (C, D), (D, D) -> (B, C)."""
    directions = torch.linalg.solve(covariance, centres.t())  # (D, C)
    out: Tensor = x @ directions - 0.5 * (centres * directions.t()).sum(1)
    return out


def folds_of(y: npt.NDArray[np.int64], batch: Batch, seed: int) -> list[tuple[Array, Array]]:
    """Stratified folds that keep groups whole where groups are known."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    count = min(OUT_OF_FOLDS, int(np.bincount(y).min()))  # every fold needs every class
    if count < 2:
        raise InputError("stacking needs two or more examples of every class in the training split")
    groups = None if batch.groups is None else batch.groups.numpy()
    enough = groups is not None and len(np.unique(groups)) >= 2 * count
    kind = StratifiedGroupKFold if enough else StratifiedKFold
    return list(kind(count, shuffle=True, random_state=seed).split(np.zeros(len(y)), y, groups if enough else None))
