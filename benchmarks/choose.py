"""Compare settings on validation splits only: how the defaults and the demo's settings were chosen.

    python benchmarks/choose.py DIR [DIR ...] --model mre --try "lr=0.001 rank=4" --try "lr=0.003 rank=16"

One run per setting, data set and fold (seed 100, which no report uses); test is never predicted. Prints accuracy and
log-loss on valid, averaged.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from moodal import metrics
from moodal.config import parse_assignments, split_settings
from moodal.data.store import Dataset, read_dataset
from moodal.models import create_model, options_of
from moodal.training.loop import fit_network, predict, random_seed
from moodal.training.runs import load, split_rows

SEED = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", default="mre")
    parser.add_argument("--try", dest="tries", action="append", default=None, metavar="'KEY=VALUE ...'")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    sets = [read_dataset(f) for f in asked.folders]
    for text in asked.tries or [""]:
        scores = [
            validate(asked.model, text, d, k) for d in sets for k in (range(d.num_folds) if d.num_folds else [None])
        ]
        accuracy, nll, epochs = np.mean(scores, axis=0)
        print(
            f"{asked.model} {text or '(defaults)'}: accuracy {accuracy:.4f}, nll {nll:.4f}, {epochs:.0f} epochs",
            flush=True,
        )


def validate(name: str, text: str, data: Dataset, fold: int | None) -> tuple[float, float, float]:
    """Accuracy and log-loss on valid, and the best epoch, of one run that never sees test."""
    options, settings = split_settings(parse_assignments(text.split()), options_of(name))
    torch.manual_seed(random_seed(SEED, "weights"))
    model = create_model(name, data.dims, data.task, **options)
    rows, batch = split_rows(data, fold), load(data, model)
    train, valid = batch.select(rows["train"]), batch.select(rows["valid"])
    model.fit_standardisation(train)
    epochs = 0
    with threadpool_limits(1):
        if model.closed_form:
            model.fit(train, SEED)
        else:
            epochs = fit_network(model, train, valid, settings, SEED).best_epoch
    assert valid.labels is not None
    found = metrics.classification_scores(predict(model, valid).logits.numpy(), valid.labels.numpy(), data.task.classes)
    return found["accuracy"], found["nll"], float(epochs)


if __name__ == "__main__":
    main()
