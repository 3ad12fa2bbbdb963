"""How long a stress test takes per model, all corruptions, subsets and severities of the suite.

    python benchmarks/stress.py [--clips 3667] [--seeds 5] [--models mre,lf_dnn,mult]

SDME is simulated (3,667 clips leave 550 test clips) and every model trained for one epoch, because how well it was
trained does not matter here. Then each is tested by itself. Seconds are printed as they were, and for 1,000 test clips.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from moodal.benchmark.stress import StressReport, stress_models
from moodal.config import TrainingSettings
from moodal.data.simulate import simulate_sdme
from moodal.data.store import Dataset, read_dataset
from moodal.experiment import Experiment, Run
from moodal.files import write_json
from moodal.training.runs import train_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=3667)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--models", default="mre,lf_dnn,late_average,text_only,lda")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sdme"
        simulate_sdme(path, clips=asked.clips)
        for name in asked.models.split(","):
            measure(path, Path(folder) / name, name, asked.seeds)


def measure(path: Path, root: Path, name: str, seeds: int) -> None:
    data = read_dataset(path)
    train(data, root, name, seeds)
    began, cpu = time.perf_counter(), time.process_time()
    report = stress_models(root, [name])
    wall, spent = time.perf_counter() - began, time.process_time() - cpu
    scale = 1000 / report.num_clips
    print(
        f"{name}: {seeds} seeds, {report.num_clips} test clips, {conditions(report)} conditions: {wall:.1f} s "
        f"({spent:.1f} s of CPU); for 1,000 clips {scale * wall:.0f} s ({scale * spent:.0f} s of CPU)",
        flush=True,
    )


def train(data: Dataset, root: Path, name: str, seeds: int) -> None:
    root.mkdir()
    task = {"classes": list(data.task.classes), "low": 0.0, "high": 0.0}
    facts = {"name": data.name, "path": str(data.path), "fingerprint": data.fingerprint, "task": task, "folds": 0}
    write_json(root / "benchmark.json", facts)
    for seed in range(seeds):
        settings = TrainingSettings(epochs=1)
        experiment = Experiment(name, name, data.name, data.fingerprint, seed, training=settings)
        train_run(data.path, Run.of(root, experiment))


def conditions(report: StressReport) -> int:
    return len({(r.corruption, r.modalities, r.severity) for r in report.rows if r.severity > 0})


if __name__ == "__main__":
    main()
