"""Experiments in, finished run folders out: one after the other or several at a time, whatever stops them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from moodal import metrics
from moodal.batch import Batch
from moodal.config import TrainingSettings
from moodal.data.store import Dataset, read_dataset
from moodal.experiment import Experiment, Run, save_model
from moodal.files import write_atomic, write_json
from moodal.models import FusionModel, Output, create_model
from moodal.training.loop import Fitted, fit_network, predict, random_seed
from moodal.training.processes import POLL_S, training_numerics, worker_pool
from moodal.types import SPLITS, InputError, WorkError

log = logging.getLogger(__name__)
OnChange = Callable[[int, list[Run]], None]  # how many runs are done, which are under way
_LOADED: dict[Hashable, Batch] = {}  # a worker trains many runs of one data set; at most one entry


def train_all(
    dataset: Path, root: Path, experiments: Sequence[Experiment], *, workers: int = 1, on_change: OnChange | None = None
) -> list[Run]:
    """Every experiment's run below ``root``; finished ones are skipped. ``on_change`` hears how far it is.

    All folders are checked before any work starts. A run that fails stops the rest; what was finished stays.
    """
    runs = [Run.of(root, e) for e in experiments]
    todo = [run for run in runs if not run.is_done]
    for run in runs:
        if run.is_done:
            run.clear_leftovers()
    size = max(1, min(workers, len(todo)))
    with worker_pool(size) as submit:
        waiting: dict[Future[None], Run] = {submit(train_run, dataset, run, size): run for run in todo}
        while waiting:
            if on_change:
                on_change(len(runs) - len(waiting), [run for run in waiting.values() if run.progress_file.exists()])
            finished, _ = wait(waiting, timeout=POLL_S, return_when=FIRST_COMPLETED)
            for future in finished:
                del waiting[future]
                future.result()
    return runs


def train_run(dataset: Path, run: Run, workers: int = 1) -> None:
    """Train, predict valid and test, score, save; the report comes last. Continues what a killed run left.

    workers: how many runs are trained at the same time; noted beside the seconds, which mean less the more there are.
    """
    with training_numerics(run.experiment.training.threads):
        _train_run(dataset, run, workers)


def _train_run(dataset: Path, run: Run, workers: int) -> None:
    experiment = run.experiment
    data = cached_dataset(dataset, experiment.task)
    if data.fingerprint != experiment.fingerprint:
        raise InputError(f"{dataset} has changed since the experiment was made; start it again")
    rows = split_rows(data, experiment.fold)
    run.begin()
    began, cpu_began = time.perf_counter(), time.process_time()
    model = _new_model(data, experiment)
    batch = load(data, model)
    train = _standardised(model, batch.select(rows["train"]))
    valid = model.prepare(batch.select(rows["valid"]))
    fitted = _fit(model, run, train, valid)
    outputs = {"valid": predict(model, valid)}
    if experiment.training.refit:
        fitted = _refit(model, data, batch, rows, run, fitted)
    outputs["test"] = predict(model, batch.select(rows["test"]))  # once, with the final weights
    for split, output in outputs.items():
        if not output.logits.isfinite().all():
            name = data.utterances[int(rows[split][~output.logits.isfinite().all(1)][0])].id
            raise WorkError(f"{run.path}: the prediction for {name} ({split}) is not finite; look at its features")
    save_model(run.path, model, experiment, data.features, _temperature(data, rows["valid"], outputs["valid"]))
    spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}
    _save(run, data, rows, model, fitted, outputs, {**spent, "workers": workers})


def _new_model(data: Dataset, experiment: Experiment) -> FusionModel:
    torch.manual_seed(random_seed(experiment.seed, "weights"))
    return create_model(experiment.model, data.dims, data.task, data.columns, **experiment.options)


def load(data: Dataset, model: FusionModel) -> Batch:
    """Every utterance of ``data`` as ``model.pool`` leaves it; kept for the next model that pools in the same way."""
    how = tuple((m, model.pooling[m], model.max_steps) for m in model.modalities)
    key = (data.path, data.fingerprint, data.task, how, type(model).word_aligned)
    if key not in _LOADED:
        _LOADED.clear()  # before reading: two at once may not fit
        kept_last = sorted(model.modalities, key=lambda m: model.pooling[m] == "none")
        _LOADED[key] = model.pool(data.read(kept_last, model.reduce))
    return _LOADED[key]


def split_rows(data: Dataset, fold: int | None) -> dict[str, Tensor]:
    """Positions of train, valid and test. Fold k is tested on fold k and validated on fold k + 1."""
    if fold is None:
        rows = {s: data.index(split=s) for s in SPLITS}
    else:
        if data.num_folds < 3:
            raise InputError(f"{data.path} has {data.num_folds} folds; train, valid and test need three or more")
        valid = (fold + 1) % data.num_folds
        rest = [data.index(fold=k) for k in range(data.num_folds) if k not in (fold, valid)]
        train = torch.sort(torch.cat(rest)).values
        rows = {"train": train, "valid": data.index(fold=valid), "test": data.index(fold=fold)}
    for split, index in rows.items():
        if not len(index):
            raise InputError(
                f"{data.path} has no labelled utterances in {split}; import it with --split-by or --folds-by"
            )
        classes = torch.unique(data.labels[index]).tolist() if data.task.classes else []
        for c, name in enumerate(data.task.classes):
            if c not in classes and (fold is None or split == "train"):
                raise InputError(f"class {name!r} has no example in {split}; every class needs some in every split")
    return rows


def _standardised(model: FusionModel, train: Batch) -> Batch:
    """Fit the standardisation on ``train`` and apply it: what comes back takes the place of what came in."""
    model.fit_standardisation(train)
    return model.prepare(train)


def _fit(
    model: FusionModel, run: Run, train: Batch, valid: Batch | None, settings: TrainingSettings | None = None
) -> Fitted:
    """The closed form or the network, on prepared rows."""
    if model.closed_form:
        model.fit(train, run.experiment.seed)
        return Fitted(0, [], [])
    phase = "refit" if valid is None else "select"
    return fit_network(
        model,
        train,
        valid,
        settings or run.experiment.training,
        run.experiment.seed,
        run.path / f"checkpoint-{phase}.safetensors",
        phase=phase,
        where=str(run.path),
        progress=run.show_progress,
    )


def _refit(
    model: FusionModel, data: Dataset, batch: Batch, rows: Mapping[str, Tensor], run: Run, fitted: Fitted
) -> Fitted:
    """Train again from the start on train + valid, for as many epochs as valid chose."""
    chosen = replace(run.experiment.training, epochs=max(1, fitted.best_epoch))
    model.load_state_dict(_new_model(data, run.experiment).state_dict())
    both = _standardised(model, batch.select(torch.cat([rows["train"], rows["valid"]])))
    again = _fit(model, run, both, None, chosen)
    return Fitted(fitted.best_epoch, fitted.history, fitted.epoch_seconds + again.epoch_seconds)


def _save(
    run: Run,
    data: Dataset,
    rows: Mapping[str, Tensor],
    model: FusionModel,
    fitted: Fitted,
    outputs: Mapping[str, Output],
    spent: Mapping[str, float],
) -> None:
    table = pa.concat_tables([_prediction_table(s, data, rows[s], outputs[s], model) for s in ("valid", "test")])
    write_atomic(run.predictions_file, lambda p: pq.write_table(table, p, compression="zstd"))
    write_json(run.path / "history.json", fitted.history)
    if fitted.epoch_seconds or not (run.path / "timing.json").exists():
        per_epoch = float(np.mean(fitted.epoch_seconds)) if fitted.epoch_seconds else 0.0
        timing = {**spent, "seconds_per_epoch": per_epoch, "threads": run.experiment.training.threads}
        write_json(run.path / "timing.json", {**timing, "torch": torch.__version__})
    write_json(run.report_file, _report(run, data, rows, model, fitted, outputs))
    run.clear_leftovers()


def _report(
    run: Run,
    data: Dataset,
    rows: Mapping[str, Tensor],
    model: FusionModel,
    fitted: Fitted,
    outputs: Mapping[str, Output],
) -> dict[str, Any]:
    labels = {s: data.labels[rows[s]].numpy() for s in outputs}
    scores = {s: metrics.scores(o.logits.numpy(), labels[s], model.task) for s, o in outputs.items()}
    test = outputs["test"]
    relevance = None if test.relevance is None else test.relevance.double().mean(0).tolist()
    return {
        "experiment": run.experiment.hash,
        "utterances": {s: len(i) for s, i in rows.items()},
        "best_epoch": fitted.best_epoch,
        "epochs": len(fitted.history),
        "parameters": num_parameters(model),
        "scores": scores,
        "constant": bool(data.task.classes) and metrics.constant_prediction(test.logits.numpy().argmax(1)),
        "mean_relevance": None if relevance is None else dict(zip(model.modalities, relevance, strict=True)),
    }


def num_parameters(model: FusionModel) -> int:
    """Trainable numbers; for a closed-form model, the fitted ones."""
    trained = sum(p.numel() for p in model.parameters())
    standardisation = 2 * sum(model.dims.values())
    return trained or sum(b.numel() for b in model.buffers()) - standardisation


def _temperature(data: Dataset, rows: Tensor, output: Output) -> float | None:
    """Fitted on valid, like everything that is chosen; scores have none."""
    if not data.task.classes:
        return None
    return metrics.fit_temperature(output.logits.numpy(), data.labels[rows].numpy())


def _prediction_table(split: str, data: Dataset, rows: Tensor, output: Output, model: FusionModel) -> pa.Table:
    """One row per utterance: id, split, group, label, logits, relevance, unimodal logits; float32 as the model said."""
    chosen = [data.utterances[i] for i in rows.tolist()]
    names = list(model.task.classes) or ["score"]
    columns: dict[str, Any] = {
        "id": [u.id for u in chosen],
        "split": [split] * len(chosen),
        "group": [u.group or u.id for u in chosen],
        "label": [u.label for u in chosen] if model.task.classes else pa.array([u.score for u in chosen], pa.float64()),
    }
    if model.task.classes:
        columns["predicted"] = [names[i] for i in output.logits.argmax(1).tolist()]
    columns |= {f"logit_{n}": output.logits[:, i].numpy() for i, n in enumerate(names)}
    if output.relevance is not None:
        columns |= {f"relevance_{m}": output.relevance[:, i].numpy() for i, m in enumerate(model.modalities)}
    for m, logits in output.unimodal_logits.items():
        columns |= {f"unimodal_{m}_{n}": logits[:, i].numpy() for i, n in enumerate(names)}
    return pa.table(columns)


@lru_cache(maxsize=1)
def cached_dataset(path: Path, task: str) -> Dataset:
    """The data set in ``path``: a worker trains many runs of one, and its files are checked once."""
    return read_dataset(path, task=task)
