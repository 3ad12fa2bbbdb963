"""What every model is: ``prepare`` (fixed by the training set) and ``fuse`` (learned), batch in, ``Output`` out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moodal.batch import Batch, Ragged
from moodal.types import MODALITIES, InputError, Task

POOLINGS: dict[str, tuple[Callable[[Ragged], Tensor], ...]] = {
    "none": (),
    "mean": (Ragged.mean,),
    "mean_std": (Ragged.mean, Ragged.std),
    "course": (*(partial(Ragged.third, which=i) for i in range(3)), Ragged.std, Ragged.change),
}
STANDARDISATIONS = ("scale", "whiten", "whiten_within")
ROWS_PER_FEATURE = 2  # with fewer, whitening makes directions of mere noise as large as all others


@dataclass(frozen=True)
class Output:
    """What a model says about B utterances.

    logits: (B, C), one column for regression; embeddings: (B, ...) by name; unimodal_logits: (B, C) by modality;
    relevance: (B, M) in the order of the model's modalities, rows sum to 1 where a softmax made them.
    A missing modality has relevance 0.
    """

    logits: Tensor
    embeddings: Mapping[str, Tensor] = field(default_factory=dict)
    unimodal_logits: Mapping[str, Tensor] = field(default_factory=dict)
    relevance: Tensor | None = None


class FusionModel(nn.Module):
    """A model of the zoo. Subclasses implement ``fuse``; training may call three hooks.

    ``*_pooling`` says what a modality is reduced to before anything is learned: "none" (all steps), "mean", "mean_std",
    or "course", how it goes along time: the means of its thirds, its deviation, and that of its changes. ``max_steps``:
    where steps are kept, more than so many are averaged over as many equal spans, because attention costs the square of
    them. ``standardise``: "scale" gives every feature mean 0 and deviation 1;
    "whiten" also removes the correlations within a pooled modality (Ledoit-Wolf covariance; sequences are scaled);
    "whiten_within" those around each class's own mean (the same as "whiten" for scores). All are fitted on the training
    split and live in buffers, so a loaded model takes raw features.
    """

    is_control: ClassVar[bool] = False  # a yardstick, not a candidate: tables compare against it
    closed_form: ClassVar[bool] = False  # has ``fit`` and is not trained by gradient
    reads_columns: ClassVar[bool] = False  # takes ``columns``: what each number of a step is called, by modality
    word_aligned: ClassVar[bool] = False  # reads one step of every modality per word: ``Batch.aligned`` before ``fuse``
    label_smoothing: float = 0.0  # set by training, for whatever part of the model is trained on labels

    def __init__(
        self,
        dims: Mapping[str, int],
        task: Task,
        *,
        text_pooling: str = "none",
        audio_pooling: str = "mean",
        vision_pooling: str = "mean",
        max_steps: int = 100_000,
        standardise: str = "whiten_within",
    ) -> None:
        super().__init__()
        if standardise not in STANDARDISATIONS:
            raise InputError(f"standardise must be one of {', '.join(STANDARDISATIONS)}, got {standardise!r}")
        pooling = {"text": text_pooling, "audio": audio_pooling, "vision": vision_pooling}
        self.task, self.standardise, self.max_steps = task, standardise, max_steps
        self.memory: dict[str, Tensor] = {}  # what training keeps between steps; in checkpoints, not in a saved model
        self.modalities = tuple(m for m in MODALITIES if m in dims)
        self.pooling = {m: pooling[m] for m in self.modalities}
        for m, how in pooling.items():
            if how not in POOLINGS:
                raise InputError(f"pooling of {m} must be one of {', '.join(POOLINGS)}, got {how!r}")
        self.dims = {m: dims[m] * max(1, len(POOLINGS[self.pooling[m]])) for m in self.modalities}
        self.whitened = {m: standardise != "scale" and self.pooling[m] != "none" for m in self.modalities}
        for m, dim in self.dims.items():
            self.register_buffer(f"mean_{m}", torch.zeros(dim))
            self.register_buffer(f"scale_{m}", torch.eye(dim) if self.whitened[m] else torch.ones(dim))

    def reduce(self, modality: str, x: Ragged) -> Ragged:
        """One modality as ``pooling`` says: one step per present utterance, or all of them up to ``max_steps``."""
        if self.pooling[modality] == "none":
            return x.resampled(x.lengths.clamp(max=self.max_steps))
        return _pooled(x, self.pooling[modality])

    def pool(self, batch: Batch) -> Batch:
        """Every modality reduced, and aligned to words where the model reads them so."""
        if batch.stage == "raw":
            batch = replace(
                batch, inputs={m: self.reduce(m, batch.inputs[m]) for m in self.modalities}, stage="reduced"
            )
        if batch.stage == "reduced":
            batch = replace(batch.aligned() if self.word_aligned else batch, stage="pooled")
        return batch

    def fit_standardisation(self, train: Batch) -> None:
        """Mean and scale of every pooled feature over the real steps of the training split."""
        within = train.labels if self.standardise == "whiten_within" and self.task.classes else None
        for m, x in self.pool(train).inputs.items():
            mean, deviation = _moments(x.values)
            labels = None if within is None else within[x.owner]
            scale = _whitening(x.values, mean, deviation, labels) if self.whitened[m] else 1 / deviation
            self.get_buffer(f"mean_{m}").copy_(mean)
            self.get_buffer(f"scale_{m}").copy_(scale)

    def prepare(self, batch: Batch) -> Batch:
        """Pool and standardise: what is fixed once the training split is known, and so needs doing only once."""
        if batch.stage == "prepared":
            return batch
        standard = {m: Ragged(self._standard(m, x.values), x.lengths) for m, x in self.pool(batch).inputs.items()}
        return replace(batch, inputs=standard, stage="prepared")

    def _standard(self, modality: str, x: Tensor) -> Tensor:
        centred, scale = x - self.get_buffer(f"mean_{modality}"), self.get_buffer(f"scale_{modality}")
        out: Tensor = centred @ scale if self.whitened[modality] else centred.mul_(scale)
        return out

    def fuse(self, batch: Batch) -> Output:
        """The learned part. ``batch`` has gone through ``prepare``."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Output:
        """Raw features in, ``Output`` out."""
        return self.fuse(self.prepare(batch))

    def task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy over classes, or the mean absolute error of a score."""
        if self.task.classes:
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return F.l1_loss(logits[:, 0], labels)

    def extra_losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Further losses by name, already weighted; they are added to the task loss."""
        return {}

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, object]]:
        """What the optimizer gets: every parameter exactly once."""
        return [{"params": list(self.parameters()), "lr": lr, "weight_decay": weight_decay}]

    def begin(self, train: Batch) -> None:
        """Called once before the first epoch with the prepared training set (Self-MM fills its ``memory`` here)."""

    def after_step(self, output: Output, batch: Batch, epoch: int) -> None:
        """Called after each optimizer step (Self-MM renews its labels here)."""

    def fit(self, train: Batch, seed: int) -> None:
        """Closed-form models: set all weights from the training split. ``train`` holds raw features."""
        raise NotImplementedError


def _pooled(x: Ragged, how: str) -> Ragged:
    if how == "none":
        return x
    rows = torch.cat([f(x) for f in POOLINGS[how]], dim=1)
    return Ragged.from_rows(rows, x.lengths > 0)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (1 where constant) of each column, summed in float64 a slice at a time.

    Constant means: next to no deviation for a column of this size, or of this modality, whatever the units.
    """
    if not len(x):
        return torch.zeros(x.shape[1]), torch.ones(x.shape[1])
    mean = torch.stack([c.double().sum(0) for c in torch.split(x, 1024)]).sum(0) / len(x)
    var = torch.stack([(c.double() - mean).square().sum(0) for c in torch.split(x, 1024)]).sum(0) / len(x)
    std = var.sqrt()
    constant = std <= 1e-6 * torch.maximum(mean.abs(), std.median())
    return mean.float(), torch.where(constant, 1.0, std).float()


def _whitening(x: Tensor, mean: Tensor, deviation: Tensor, labels: Tensor | None) -> Tensor:
    """(D, D) W with (x - mean) W uncorrelated: the inverse root of the shrunk covariance of the scaled columns.

    ``labels`` (n,): uncorrelated within the classes, around each class's own mean. With too few rows to tell
    correlation from chance: scaled only.
    """
    if len(x) < ROWS_PER_FEATURE * x.shape[1]:
        return torch.diag(1 / deviation)
    from sklearn.covariance import ledoit_wolf

    scaled = ((x - mean) / deviation).double()
    for label in torch.unique(labels) if labels is not None else ():
        scaled[labels == label] -= scaled[labels == label].mean(0)
    covariance, _ = ledoit_wolf(scaled.numpy(), assume_centered=True)
    values, vectors = torch.linalg.eigh(torch.from_numpy(covariance))
    root = vectors / values.clamp(min=1e-6).sqrt() @ vectors.t()
    weight: Tensor = (root / deviation.double()[:, None]).float()
    return weight
