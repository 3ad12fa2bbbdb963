"""Speed and memory of training at CH-SIMS size, beside the field's reference package. Run by ``make bench``.

What it prints, all from one run on one machine, same data, same batch, same threads, ours and theirs in turn:
seconds per epoch, the share of the machine's measured matrix-product peak that the products of the real (unpadded)
steps come to, and peak memory. The reference package needs its own environment (BENCH_PEER: its python; BENCH_PEER_RUN:
the script that drives it; BENCH_PICKLE: the pickle); where these are absent, ours is measured alone on data made here.
Models that take it minutes per epoch are measured over some batches, which stand for the epoch. Text is fixed in all.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {"text": (39, 768), "audio": (400, 33), "vision": (55, 709)}  # longest, dim
COUNTS = {"train": 1368, "valid": 456, "test": 457}
BATCH = 64
# ours, in the order of the table; the reference has all but MRE, whose yardstick is its LMF. Its MISA reads as many
# steps of audio and vision as the text has, 24 on average: the first ones. Ours reads all, or 24 averages over all.
MODELS = ("mre", "lmf", "ef_lstm", "mfn", "graph_mfn", "self_mm", "tfn", "misa", "misa@max_steps=24", "mult")
SLOW = {"graph_mfn": 8, "tfn": 6, "misa": 6, "mult": 4}  # reference: measured over so many batches; ours: one epoch
SCORES = ("self_mm",)  # the reference trains it on scores only


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2, help="how often ours and theirs take turns")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a child: model name
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one, asked.data, asked.threads, asked.epochs)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(Path(folder), asked.models.split(","), asked.threads, asked.epochs, asked.rounds)
    print(json.dumps(rows, indent=1) if asked.json else table(rows, asked.threads))


def compare(folder: Path, models: list[str], threads: int, epochs: int, rounds: int) -> list[dict[str, Any]]:
    """Rows of the table: each measured ``rounds`` times in turn (slow ones once), the median kept."""
    pickle, data = os.environ.get("BENCH_PICKLE"), folder / "data"
    if pickle:
        moodal("import", pickle, data, "--format", "mmsa")
        file_mb = Path(pickle).stat().st_size / 1e6
    else:
        make_data(data)
        file_mb = sum(n * length * dim * 4 for n in COUNTS.values() for length, dim in SHAPES.values()) / 1e6
    peer = os.environ.get("BENCH_PEER")
    found: dict[str, list[dict[str, Any]]] = {}
    for turn in range(rounds):
        for model in models:
            name = model.partition("@")[0]
            if turn and name in SLOW:
                continue
            print(f"round {turn + 1}: {model}", file=sys.stderr)
            found.setdefault(model, []).append(child(model, data, threads, 1 if name in SLOW else epochs))
            if peer and pickle and model == name != "mre":
                found.setdefault(f"reference {name}", []).append(run_peer(peer, pickle, name, threads, epochs))
    return [median_row(name, runs, file_mb) for name, runs in found.items()]


def child(model: str, data: Path, threads: int, epochs: int) -> dict[str, Any]:
    """One measurement in a process of its own, so that memory is its alone."""
    command = [sys.executable, __file__, "--one", model, "--data", str(data)]
    command += ["--threads", str(threads), "--epochs", str(epochs)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return dict(json.loads(done.stdout))


def run_peer(python: str, pickle: str, model: str, threads: int, epochs: int) -> dict[str, Any]:
    command = [python, os.environ["BENCH_PEER_RUN"], "--model", model, "--data", pickle, "--no-valid"]
    command += ["--batch-size", str(BATCH), "--epochs", str(epochs), "--threads", str(threads)]
    command += ["--max-batches", str(SLOW[model] + 3)] if model in SLOW else []  # it leaves out the first three
    command += ["--mode", "regression"] if model in SCORES else []
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    run = found["runs"][0]
    whole = run.get("train_seconds_per_epoch")
    epoch_s = float(np.median(whole[1:] or whole)) if whole else run["epoch_seconds_from_median"]
    return {"epoch_s": epoch_s, "peak_mb": found["peak_rss_mib"] * 1.048576}


def measure(asked: str, data: Path, threads: int, epochs: int) -> dict[str, Any]:
    """Train a model, or a variant of it, for some epochs; seconds of each, the products' operations, the machine's
    peak, memory."""
    from moodal.config import TrainingSettings, parse_assignments, split_settings
    from moodal.data.store import read_dataset
    from moodal.models import create_model, options_of
    from moodal.training.loop import fit_network
    from moodal.training.processes import training_numerics
    from moodal.training.runs import load, split_rows

    began = time.perf_counter()
    model_name, _, variant = asked.partition("@")
    options, _ = split_settings(parse_assignments(variant.split("+") if variant else []), options_of(model_name))
    task = "regression" if model_name in SCORES else "classification"
    dataset = read_dataset(data, verify=False, task=task)
    model = create_model(model_name, dataset.dims, dataset.task, **options)
    train = load(dataset, model).select(split_rows(dataset, None)["train"])
    loaded = time.perf_counter() - began
    model.fit_standardisation(train)
    train = model.prepare(train)
    warm = model_name not in SLOW
    settings = TrainingSettings(epochs=epochs + warm, batch_size=BATCH, threads=threads)
    with training_numerics(threads):
        fitted = fit_network(model, train, None, settings, seed=0)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    found = {
        "epoch_s": float(np.median(fitted.epoch_seconds[warm:])),
        "load_s": loaded,
        "peak_mb": peak_mb,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    if model_name in ("mre", "lmf"):
        steps = int(train.inputs["text"].lengths.sum())
        with training_numerics(threads):
            found |= {"products": products(model, steps, len(train)), "peak_flops": matrix_peak()}
    return found


def products(model: Any, text_steps: int, utterances: int) -> float:
    """Floating-point operations of an epoch's matrix products over real steps, forward and backward.

    A weight (out, in) costs 2 out in per row forward, as much for its own gradient, and as much again for its
    input's, which the first layer of an encoder does not need. The few of attention and losses are left out.
    """
    total = 0.0
    for name, weight in model.named_parameters():
        if weight.dim() != 2:
            continue
        rows = text_steps if ".lstm." in name else utterances
        first = name.endswith("weight_ih") or ".layers.1.weight" in name
        total += (2 if first else 3) * 2.0 * weight.numel() * rows
    return total


def matrix_peak(size: int = 2048) -> float:
    """Measured operations per second of a large float32 product with the threads that are set."""
    import torch

    a, b = torch.randn(size, size), torch.randn(size, size)
    _ = a @ b
    times = []
    for _ in range(5):
        began = time.perf_counter()
        _ = a @ b
        times.append(time.perf_counter() - began)
    return float(2.0 * size**3 / min(times))


def median_row(name: str, runs: list[dict[str, Any]], file_mb: float) -> dict[str, Any]:
    middle = {k: float(np.median([r[k] for r in runs])) for k in runs[0]}
    share = middle["products"] / middle["peak_flops"] / middle["epoch_s"] if "products" in middle else None
    fastest = min(r["epoch_s"] for r in runs)
    return {
        "model": name,
        **middle,
        "fastest_epoch_s": fastest,
        "share_of_peak": share,
        "memory_to_file": middle["peak_mb"] / file_mb,
    }


def make_data(folder: Path) -> None:
    """Random features of CH-SIMS's shapes with lengths like a real file's (a quarter of the longest, and more)."""
    from moodal.data.store import FeatureSpec, new_dataset
    from moodal.types import Task, Utterance

    rng = np.random.default_rng(0)
    names = ("negative", "neutral", "positive")
    splits = [s for s, n in COUNTS.items() for _ in range(n)]
    ids = [f"clip-{i}" for i in range(len(splits))]
    with new_dataset(folder) as out:
        for m, (longest, dim) in SHAPES.items():
            lengths = rng.integers(longest // 4, longest + 1, len(ids))
            clips = (rng.standard_normal((n, dim), dtype=np.float32) for n in lengths)
            out.write_features(FeatureSpec("random", "1", m, dim), ids, clips)
        rows = [
            Utterance(id=i, split=s, label=names[k % 3], score=k % 3 - 1.0)
            for k, (i, s) in enumerate(zip(ids, splits, strict=True))
        ]
        out.finish(rows, Task(names, -1.0, 1.0), name="sims-shaped")


def moodal(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "moodal", *map(str, arguments)], check=True, capture_output=True)


def table(rows: list[dict[str, Any]], threads: int) -> str:
    """Ours beside the reference's: times, "faster" (the reference's time over ours), memory in MB and in files."""
    by_name = {r["model"]: r for r in rows}
    peak = max(r.get("peak_flops", 0.0) for r in rows)
    lines = [
        f"CH-SIMS size: {COUNTS['train']} clips, text 39 x 768, audio 400 x 33, vision 55 x 709, batch {BATCH}, "
        f"{threads} threads; matrix-product peak {peak / 1e9:.0f} GFLOP/s",
        f"{'':18s} {'s/epoch':>8s} {'fastest':>8s} {'of peak':>8s} {'peak MB':>8s} {'x file':>7s}   "
        f"{'reference':>9s} {'peak MB':>8s} {'faster':>7s} {'x MRE':>7s}",
    ]
    for r in rows:
        if r["model"].startswith("reference"):
            continue
        share = "" if r["share_of_peak"] is None else f"{100 * r['share_of_peak']:.0f} %"
        line = (
            f"{r['model']:18s} {r['epoch_s']:8.3f} {r['fastest_epoch_s']:8.3f} {share:>8s} {r['peak_mb']:8.0f} "
            f"{r['memory_to_file']:7.2f}   "
        )
        theirs = by_name.get(f"reference {'lmf' if r['model'] == 'mre' else r['model'].partition('@')[0]}")
        if theirs:
            line += f"{theirs['epoch_s']:9.3f} {theirs['peak_mb']:8.0f} {theirs['epoch_s'] / r['epoch_s']:7.2f} "
        if "mre" in by_name:
            line += f"{r['epoch_s'] / by_name['mre']['epoch_s']:7.1f}".rjust(8 if theirs else 34)
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
