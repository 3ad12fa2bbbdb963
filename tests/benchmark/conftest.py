"""Run folders as training leaves them, with predictions that are made up: what a model says is then known."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moodal import metrics
from moodal.experiment import Experiment
from moodal.files import write_json
from moodal.models import MODELS, options_of
from moodal.types import MODALITIES, Task

EMOTIONS = Task(("neutral", "happy", "sad"))


class RunsFolder:
    """A runs folder of ``num`` test utterances (and 20 valid ones) in groups of three; ``add`` puts models into it."""

    def __init__(self, root, task=EMOTIONS, *, num=60, folds=0, groups=None, limits=None, notes=(), seed=0):
        self.root, self.task, self.folds = root, task, folds
        self.rng = np.random.default_rng(seed)
        self.ids = [f"u{i:03d}" for i in range(num)]
        self.groups = groups or [f"g{i // 3}" for i in range(num)]
        if task.classes:
            self.y = self.rng.permutation(np.arange(num) % len(task.classes))
        else:
            self.y = np.round(self.rng.uniform(task.low, task.high, num) * 5) / 5
        classes = {"classes": list(task.classes), "low": task.low, "high": task.high}
        facts = {"name": "made up", "path": "data/made up", "fingerprint": "f0", "task": classes, "folds": folds}
        write_json(root / "benchmark.json", {**facts, "limits": limits or {}, "notes": list(notes)})

    def outputs(self, right):
        """(N, C) that are right in about this share of the utterances; for scores, the smaller the noisier."""
        n = len(self.ids)
        if not self.task.classes:
            return self.y[:, None] + self.rng.normal(0, 1.01 - right, (n, 1))
        logits = self.rng.normal(size=(n, len(self.task.classes)))
        said = np.where(self.rng.random(n) < right, self.y, self.rng.integers(len(self.task.classes), size=n))
        logits[np.arange(n), said] = logits.max(1) + 1
        return logits

    def add(self, name, right=0.7, *, seeds=(0, 1, 2), valid=None, relevance=False, **change):
        """Runs of a model; returns their (R, N, C) outputs. change: outputs, options, training, ids, y, fingerprint."""
        given = change.get("outputs")
        made = np.stack([self.outputs(right) if given is None else given[i] for i in range(len(seeds))])
        made = made.astype(np.float32)
        for seed, outputs in zip(seeds, made, strict=True):
            for fold in range(self.folds) if self.folds else [None]:
                rows = [i for i in range(len(self.ids)) if fold is None or self._fold(i) == fold]
                self._write(name, seed, fold, outputs, rows, valid if valid is not None else right, relevance, change)
        return made.astype(np.float64)

    def _fold(self, i):
        return sorted(set(self.groups)).index(self.groups[i]) % self.folds

    def _write(self, name, seed, fold, outputs, rows, valid, relevance, change):
        model = change.get("model", name.partition("@")[0])
        options = {**(options_of(model) if model in MODELS else {}), **change.get("options", {})}
        experiment = Experiment(name, model, "made up", change.get("fingerprint", "f0"), seed, fold, options=options)
        asked = experiment.as_dict()
        asked["training"] |= change.get("training", {})
        path = self.root / name / f"seed-{seed}" / ("" if fold is None else f"fold-{fold}")
        path.mkdir(parents=True)
        write_json(path / "experiment.json", asked)
        y = change.get("y", self.y)
        ids = change.get("ids", self.ids)
        order = self.rng.permutation(rows)  # nobody promises an order
        table = self._table(
            [ids[i] for i in order], [self.groups[i] for i in order], y[order], outputs[order], relevance
        )
        away = table.set_column(1, "split", pa.array(["valid"] * len(order)))
        pq.write_table(pa.concat_tables([away, table]), path / "predictions.parquet")
        main = "accuracy" if self.task.classes else "mae"
        scores = {
            "test": metrics.scores(outputs[rows], y[rows], self.task),
            "valid": {main: valid, "f1_weighted": valid},
        }
        if not self.task.classes:
            scores["valid"] = {"mae": 1 - valid, "corr": valid}
        write_json(path / "report.json", {"scores": scores, "parameters": 1234, "epochs": 3, "best_epoch": 2})
        write_json(path / "timing.json", {"seconds": 2.0, "seconds_per_epoch": 0.5})
        history = [{"epoch": e, "task": 1.0 / e, "valid": -1.0 / e} for e in range(1, 4 + seed)]
        write_json(path / "history.json", change.get("history", history))

    def _table(self, ids, groups, y, outputs, relevance):
        names = list(self.task.classes) or ["score"]
        columns = {"id": ids, "split": ["test"] * len(ids), "group": groups}
        if self.task.classes:
            columns |= {"label": [names[c] for c in y], "predicted": [names[c] for c in outputs.argmax(1)]}
        else:
            columns["label"] = pa.array(y, pa.float64())
        columns |= {f"logit_{c}": outputs[:, i] for i, c in enumerate(names)}
        if relevance:
            shares = self.rng.dirichlet((4, 2, 1), len(ids)).astype(np.float32)
            columns |= {f"relevance_{m}": shares[:, i] for i, m in enumerate(MODALITIES)}
            columns |= {f"unimodal_{m}_{c}": outputs[:, i] for m in MODALITIES for i, c in enumerate(names)}
        return pa.table(columns)


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Makes runs folders, each a new one: ``runs()``, ``runs(task, folds=3)``."""

    def make(task=EMOTIONS, **options):
        return RunsFolder(tmp_path_factory.mktemp("runs"), task, **options)

    return make


@pytest.fixture
def edit():
    """Changes a JSON file in place."""

    def change(file, **values):
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return change
