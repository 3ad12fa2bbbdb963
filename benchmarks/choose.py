"""Compare settings on validation splits only: how the defaults and the demo's settings were chosen.

    python benchmarks/choose.py DIR [DIR ...] --model mre --try "lr=0.001 rank=4" --try "lr=0.003 rank=16"

One run per setting, data set and fold (seed 100, which no report uses); test is never predicted. Prints accuracy and
log-loss on valid, averaged. ``--refit`` (folds only) judges what a report with a refit does, without its test fold:
the number of epochs is chosen on fold k + 1, then train and that fold together are fitted and fold k + 2, held out
from both, is scored.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from moodal import metrics
from moodal.config import parse_assignments, split_settings
from moodal.data.store import Dataset, read_dataset
from moodal.models import FusionModel, create_model, options_of
from moodal.training.loop import fit_network, predict, random_seed
from moodal.training.processes import training_numerics
from moodal.training.runs import load, split_rows

SEED = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", default="mre")
    parser.add_argument("--try", dest="tries", action="append", default=None, metavar="'KEY=VALUE ...'")
    parser.add_argument("--refit", action="store_true")
    asked = parser.parse_args()
    sets = [read_dataset(f) for f in asked.folders]
    for text in asked.tries or [""]:
        scores = [
            (refit if asked.refit else validate)(asked.model, text, d, k)
            for d in sets
            for k in (range(d.num_folds) if d.num_folds else [None])
        ]
        accuracy, nll, epochs = np.mean(scores, axis=0)
        print(
            f"{asked.model} {text or '(defaults)'}: accuracy {accuracy:.4f}, nll {nll:.4f}, {epochs:.0f} epochs",
            flush=True,
        )


def validate(name: str, text: str, data: Dataset, fold: int | None) -> tuple[float, float, float]:
    """Accuracy and log-loss on valid, and the best epoch, of one run that never sees test."""
    rows = split_rows(data, fold)
    return score(*fit(name, text, data, rows["train"], rows["valid"]), data, rows["valid"])


def refit(name: str, text: str, data: Dataset, fold: int) -> tuple[float, float, float]:
    """The same on a fold that is neither trained on nor chosen by, after a refit on train and valid."""
    rows = split_rows(data, fold)
    held_out = data.index(fold=(fold + 2) % data.num_folds)
    train = rows["train"][~torch.isin(rows["train"], held_out)]
    _, epochs = fit(name, text, data, train, rows["valid"])
    both = torch.cat([train, rows["valid"]])
    model, _ = fit(name, text, data, both, None, max(1, epochs))
    return score(model, epochs, data, held_out)


def fit(
    name: str, text: str, data: Dataset, rows: Tensor, valid: Tensor | None, epochs: int | None = None
) -> tuple[FusionModel, int]:
    """A model fitted on ``rows``, and its best epoch on ``valid`` or, without, its last."""
    options, settings = split_settings(parse_assignments(text.split()), options_of(name))
    settings = settings if epochs is None else replace(settings, epochs=epochs)
    torch.manual_seed(random_seed(SEED, "weights"))
    model = create_model(name, data.dims, data.task, **options)
    batch = load(data, model)
    train = batch.select(rows)
    model.fit_standardisation(train)
    with training_numerics(1):
        if model.closed_form:
            model.fit(train, SEED)
            return model, 0
        judged = None if valid is None else batch.select(valid)
        phase = "refit" if valid is None else "select"
        return model, fit_network(model, train, judged, settings, SEED, phase=phase).best_epoch


def score(model: FusionModel, epochs: int, data: Dataset, rows: Tensor) -> tuple[float, float, float]:
    logits = predict(model, load(data, model).select(rows)).logits.numpy()
    found = metrics.classification_scores(logits, data.labels[rows].numpy(), data.task.classes)
    return found["accuracy"], found["nll"], float(epochs)


if __name__ == "__main__":
    main()
