"""The one training loop: AdamW, early stopping on valid, a checkpoint from which every epoch can be done again.

Whatever is drawn at random in an epoch depends on (seed, phase, epoch) alone, and the checkpoint holds everything
else, so a run that was killed continues to the same bits as one that was not.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from moodal import metrics
from moodal.batch import Batch
from moodal.config import TrainingSettings
from moodal.experiment import load_tensors, save_tensors
from moodal.models import FusionModel, Output
from moodal.types import InputError, WorkError

CHECKPOINT_EVERY_S = 5.0
EVALUATION_BATCH = 64  # as in training: more takes more memory than a step of training does
Progress = Callable[[int, int, float], None]  # epoch, epochs at most, valid score


@dataclass
class State:
    """Where training stands after ``epoch`` epochs. ``history`` has one row per epoch."""

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    done: bool = False
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Fitted:
    """A trained model's best epoch, its history, and the seconds spent in the epochs of this process."""

    best_epoch: int
    history: list[dict[str, float]]
    epoch_seconds: list[float]


def fit_network(
    model: FusionModel,
    train: Batch,
    valid: Batch | None,
    settings: TrainingSettings,
    seed: int,
    checkpoint: Path | None = None,
    *,
    phase: str = "select",
    where: str = "",
    progress: Progress | None = None,
) -> Fitted:
    """Train ``model`` in place. With ``valid`` it ends with the weights of the best epoch; without, with the last.

    train, valid: raw features. The standardisation must have been fitted. ``where`` names the run in an error.
    """
    train, prepared_valid = _bare(model.prepare(train)), None if valid is None else model.prepare(valid)
    model.begin(train)
    optimizer = torch.optim.AdamW(model.param_groups(settings.lr, settings.weight_decay), fused=True)
    model.label_smoothing = settings.label_smoothing
    average = copy.deepcopy(model) if settings.ema else None
    best = {k: v.clone() for k, v in (average or model).state_dict().items()}
    state = State()
    if checkpoint is not None and checkpoint.exists():
        state = _restore(checkpoint, model, average, optimizer, best)
    seconds: list[float] = []
    saved_at = time.monotonic()
    while not state.done:
        began = time.perf_counter()
        losses = _train_epoch(model, average, optimizer, train, settings, (seed, phase, state.epoch), where)
        seconds.append(time.perf_counter() - began)
        state.epoch += 1
        judged = average or model
        score = 0.0 if prepared_valid is None else _score(judged, prepared_valid, settings.select)
        if not math.isfinite(score):
            raise WorkError(f"{where}: {settings.select} on valid is not finite after epoch {state.epoch}")
        state.history.append({"epoch": state.epoch, **losses, "valid": score})
        if prepared_valid is None or score > state.best_score:
            state.best_score, state.best_epoch = score, state.epoch
            best = {k: v.clone() for k, v in judged.state_dict().items()}
        waited = state.epoch - state.best_epoch
        state.done = state.epoch >= settings.epochs or (prepared_valid is not None and waited >= settings.patience)
        if progress is not None:
            progress(state.epoch, settings.epochs, score)
        if checkpoint is not None and (state.done or time.monotonic() - saved_at > CHECKPOINT_EVERY_S):
            _save(checkpoint, model, average, optimizer, best, state)
            saved_at = time.monotonic()
    model.load_state_dict(best)
    return Fitted(state.best_epoch, state.history, seconds)


def predict(model: FusionModel, batch: Batch) -> Output:
    """The model's output for every utterance, in evaluation mode, a slice at a time; embeddings are left out."""
    model.eval()
    batch = model.prepare(batch)
    with torch.inference_mode():
        parts = [model.fuse(batch.select(rows)) for rows in torch.split(torch.arange(len(batch)), EVALUATION_BATCH)]
    return Output(
        torch.cat([p.logits for p in parts]),
        {},
        {m: torch.cat([p.unimodal_logits[m] for p in parts]) for m in parts[0].unimodal_logits},
        None if parts[0].relevance is None else torch.cat([p.relevance for p in parts if p.relevance is not None]),
    )


def random_seed(*parts: object) -> int:
    """A seed from what it depends on, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big")


def batches(count: int, size: int) -> list[Tensor]:
    """A random order of ``count`` utterances cut into batches; a last batch of one joins the one before."""
    cuts = list(torch.split(torch.randperm(count), size))
    if len(cuts) > 1 and len(cuts[-1]) == 1:
        cuts[-2:] = [torch.cat(cuts[-2:])]
    return cuts


def _train_epoch(
    model: FusionModel,
    average: FusionModel | None,
    optimizer: torch.optim.Optimizer,
    train: Batch,
    settings: TrainingSettings,
    source: tuple[int, str, int],
    where: str,
) -> dict[str, float]:
    """One pass over ``train``; mean of each loss over the batches."""
    torch.manual_seed(random_seed(*source))
    model.train()
    totals: dict[str, float] = {}
    cuts, parameters = batches(len(train), settings.batch_size), list(model.parameters())
    for number, rows in enumerate(cuts, start=1):
        batch = train.select(rows)
        output = model.fuse(batch)
        assert batch.labels is not None
        losses = {"task": model.task_loss(output.logits, batch.labels), **model.extra_losses(output, batch)}
        loss = torch.stack(list(losses.values())).sum()
        values = {k: v.item() for k, v in losses.items()}
        if not math.isfinite(loss.item()):
            parts = ", ".join(f"{k} {v:g}" for k, v in values.items())
            raise WorkError(
                f"{where}: the loss is not finite in epoch {source[2] + 1}, batch {number} of {len(cuts)} ({parts}); "
                "a smaller lr or clip_norm may help"
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        _clip(parameters, settings.clip_norm)
        optimizer.step()
        model.after_step(output, batch, source[2])
        if average is not None:
            _move(average, model, settings.ema, source[2] * len(cuts) + number)
        for k, v in values.items():
            totals[k] = totals.get(k, 0.0) + v / len(cuts)
    return totals


def _clip(parameters: Sequence[Tensor], limit: float) -> None:
    """Shorten all gradients together to ``limit``; where they are shorter already, nothing is touched."""
    gradients: Sequence[Tensor] = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    if norm > limit:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm, foreach=True)


@torch.no_grad()
def _move(average: FusionModel, model: FusionModel, decay: float, step: int) -> None:
    """Exponential moving average of the weights; it starts as their plain mean, so that early steps do not linger."""
    weight = 1 - min(decay, (step - 1) / step)
    for a, b in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if a.is_floating_point():
            a.lerp_(b, weight)
        else:
            a.copy_(b)


def _score(model: FusionModel, valid: Batch, select: str) -> float:
    """What early stopping maximises, on ``valid`` only."""
    assert valid.labels is not None
    output = predict(model, valid)
    if not model.task.classes:
        return -(output.logits[:, 0].double() - valid.labels.double()).abs().mean().item()
    if select == "loss":
        raise InputError("select=loss is for scores; for classes choose nll, accuracy or f1_macro")
    if select == "nll":
        return -F.cross_entropy(output.logits.double(), valid.labels).item()
    scores = metrics.classification_scores(output.logits.numpy(), valid.labels.numpy(), model.task.classes)
    return float(scores[select])


def _bare(batch: Batch) -> Batch:
    """Without what training does not read, so that cutting a batch copies tensors only."""
    return replace(batch, groups=None, ids=(), rows=torch.arange(len(batch)))


def _save(
    path: Path,
    model: FusionModel,
    average: FusionModel | None,
    optimizer: torch.optim.Optimizer,
    best: dict[str, Tensor],
    state: State,
) -> None:
    tensors = {f"model/{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"best/{k}": v for k, v in best.items()}
    tensors |= {f"memory/{k}": v for k, v in model.memory.items()}
    if average is not None:
        tensors |= {f"average/{k}": v for k, v in average.state_dict().items()}
    for number, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{k}": v for k, v in values.items()}
    plain = {**vars(state), "best_score": None if math.isinf(state.best_score) else state.best_score}
    save_tensors(path, tensors, plain)


def _restore(
    path: Path,
    model: FusionModel,
    average: FusionModel | None,
    optimizer: torch.optim.Optimizer,
    best: dict[str, Tensor],
) -> State:
    tensors, saved = load_tensors(path)

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    model.load_state_dict(part("model/"))
    best.update(part("best/"))
    model.memory.update(part("memory/"))
    if average is not None:
        average.load_state_dict(part("average/"))
    moments: dict[int, dict[str, Any]] = {}
    for key, value in part("optimizer/").items():
        number, name = key.split("/")
        moments.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    score = -math.inf if saved["best_score"] is None else saved["best_score"]
    return State(**{**saved, "best_score": score})
