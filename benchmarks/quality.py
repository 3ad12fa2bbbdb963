"""Accuracy beside the field's reference package: same data, its hyper-parameters, as many epochs, five seeds.

    BENCH_PEER=.venv/peer/bin/python BENCH_PEER_RUN=../shared/bench/peer.py BENCH_PICKLE=build/sims.pkl \\
        python benchmarks/quality.py --models lmf,mfn --out build/quality

Both train for the same number of epochs and keep the one with the lowest loss on valid; test is scored once. What the
reference gave is kept in OUT/reference-MODEL.json and not measured again; our runs are a runs folder. Self-MM, which
the reference trains on scores only, is compared by which side of zero the score is on. An epoch of the slow models
takes the reference minutes, so they get fewer. MulT takes it six: give BENCH_PICKLE the variant ``mosei-aligned`` of
the same script (50 steps of every modality instead of 400 of audio) and another --out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

EPOCHS = {"lmf": 15, "ef_lstm": 25, "mfn": 10, "graph_mfn": 8, "self_mm": 10, "tfn": 2, "misa": 3, "mult": 3}
SEEDS = 5
SCORES = ("self_mm",)
SETTINGS = Path(__file__).with_suffix(".toml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(EPOCHS))
    parser.add_argument("--out", type=Path, default=Path("build/quality"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    data = asked.out / "data"
    if not data.exists():
        moodal("import", os.environ["BENCH_PICKLE"], data, "--format", "mmsa")
    print(f"{'model':10s} {'epochs':>6s}  {'ours':>13s} {'reference':>13s}")
    for name in asked.models.split(","):
        (ours, spread), (theirs, their_spread) = ours_of(name, data, asked.out), reference_of(name, asked.out)
        verdict = "as good or better" if ours >= theirs - max(spread, their_spread) else "below"
        print(
            f"{name:10s} {EPOCHS[name]:6d}  {ours:.3f} ± {spread:.3f} {theirs:.3f} ± {their_spread:.3f}  {verdict}",
            flush=True,
        )


def ours_of(name: str, data: Path, out: Path) -> tuple[float, float]:
    """Mean and population deviation over seeds, as the reference prints them."""
    epochs = ("--set", f"epochs={EPOCHS[name]}", "--set", f"patience={EPOCHS[name]}")
    task = ("--task", "regression") if name in SCORES else ()
    runs = out / ("runs-scores" if name in SCORES else "runs")
    moodal("train", data, "--model", name, "--seeds", SEEDS, "--config", SETTINGS, *epochs, *task, "--out", runs)
    reports = [json.loads(p.read_text()) for p in sorted((runs / name).glob("seed-*/report.json"))]
    metric = "mult_acc2" if name in SCORES else "accuracy"
    return spread_of([r["scores"]["test"][metric] for r in reports])


def reference_of(name: str, out: Path) -> tuple[float, float]:
    """The same of the reference, from its own seeds; three classes, or which side of zero a score is on."""
    kept = out / f"reference-{name}.json"
    if not kept.exists():
        command = [
            os.environ["BENCH_PEER"],
            os.environ["BENCH_PEER_RUN"],
            "--model",
            name,
            "--epochs",
            str(EPOCHS[name]),
        ]
        command += ["--data", os.environ["BENCH_PICKLE"], "--threads", "1"]
        command += ["--seeds", *(str(1111 + i) for i in range(SEEDS))]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        kept.write_text(done.stdout, encoding="utf-8")
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    metric = "Has0_acc_2" if name in SCORES else "acc"
    return spread_of([r["test_best_valid"][metric] for r in found["runs"]])


def spread_of(values: list[float]) -> tuple[float, float]:
    return statistics.mean(values), statistics.pstdev(values)


def moodal(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "moodal", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
