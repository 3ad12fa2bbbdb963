"""A run that is killed again and again ends in the same bits as one that was left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moodal.config import Settings
from moodal.data.store import read_dataset
from moodal.experiment import Run
from moodal.training.plan import plan_experiments, train_models
from moodal.training.runs import train_run

RESULT = ("model.safetensors", "config.json", "predictions.parquet", "history.json", "report.json")
needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc to see who works for whom")

# Starts once, then forks a fresh child per attempt (a new interpreter would spend four seconds on imports each time).
# A child that may die has either a moment, after which the parent sends SIGKILL, or the number of a file operation
# in the run folder, before which it sends SIGKILL to itself.
FORKS = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from moodal.config import Settings
from moodal.data.store import read_dataset
from moodal.experiment import Run
from moodal.training import loop
from moodal.training.plan import plan_experiments
from moodal.training.runs import train_run

dataset, root, settings, seed = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])
loop.CHECKPOINT_EVERY_S = -1.0  # after every epoch
run = Run.of(root, plan_experiments(read_dataset(dataset), ["mre"], 1, Settings(settings))[0])
torch.optim.AdamW(torch.nn.Linear(1, 1).parameters()).zero_grad()  # imports what a first step imports

def die_before(operation):
    seen = 0
    def hook(event, args):
        nonlocal seen
        if event in ("open", "os.rename", "os.remove") and str(root) in str(args[0]):
            seen += 1
            if seen == operation:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

random.seed(seed)
kills = 0
while True:
    operation = random.randint(1, 30) if kills % 2 else None
    child = os.fork()
    if not child:
        if operation:
            die_before(operation)
        train_run(dataset, run)
        os._exit(0)
    if not operation and kills < 8:
        time.sleep(random.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status):
        break
    kills += 1
print(json.dumps({"kills": kills, "status": os.waitstatus_to_exitcode(status)}))
"""


def names_in(folder):
    return sorted(p.name for p in folder.iterdir())


def contents(path, names=RESULT):
    return {name: (path / name).read_bytes() for name in names}


def test_killed_at_random_moments_it_ends_in_the_same_bits(tmp_path, toy):
    settings = {"epochs": 6, "patience": 4, "batch_size": 16, "lr": 0.01, "ema": 0.5, "refit": True}
    undisturbed = Run.of(tmp_path / "calm", plan_experiments(read_dataset(toy), ["mre"], 1, Settings(settings))[0])
    train_run(toy, undisturbed)
    command = [sys.executable, "-c", FORKS, toy, tmp_path / "killed", json.dumps(settings), "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["status"] == 0
    assert found["kills"] >= 5
    killed = tmp_path / "killed/mre/seed-0"
    assert contents(killed) == contents(undisturbed.path)
    # the child that came last may have found the report and nothing to do, so the next command tidies up
    trained = train_models(toy, ["mre"], 1, Settings(settings), tmp_path / "killed")
    assert trained[0].skipped
    assert names_in(killed) == names_in(undisturbed.path)


def workers_of(pid):
    """The training processes of a command (its resource tracker is none)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        if int(fields[1]) == pid and fields[0] != "Z" and b"spawn_main" in command:
            found.append(int(stat.parent.name))
    return found


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, *, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@needs_proc
def test_two_workers_of_a_killed_command_end_with_it_and_the_next_command_goes_on(tmp_path, toy):
    """First Ctrl-C, then the kill of one worker, then the kill of the command; then it is left alone."""
    settings = {"epochs": "40", "patience": "40", "refit": "true", "batch_size": "4"}
    options = [x for k, v in settings.items() for x in ("--set", f"{k}={v}")]
    entry = "from moodal.cli import main; main()"
    command = [sys.executable, "-c", entry, "train", toy, "--out", "runs", *options]
    runs = tmp_path / "runs"

    def start(seeds, workers):
        return subprocess.Popen(
            [*command, "--seeds", str(seeds), "--workers", str(workers)],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # a shell that started the tests in the background has Ctrl-C ignored, and so do all its descendants
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def disturb(how, size=1):
        for file in runs.glob("mre/seed-*/progress.json"):
            file.unlink()
        process = start(size, size)
        wait_until(lambda: list(runs.glob("mre/seed-*/progress.json")))
        workers = workers_of(process.pid)
        assert len(workers) == size
        how(process, workers)
        out, err = process.communicate(timeout=30)
        wait_until(lambda: not any(map(is_running, workers)), seconds=5)
        assert out == ""
        return process.returncode, err

    code, err = disturb(lambda process, _: os.killpg(process.pid, signal.SIGINT))
    assert (code, err) == (130, "moodal: interrupted; the same command continues where it stopped\n")
    code, err = disturb(lambda _, workers: os.kill(workers[0], signal.SIGKILL))
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("moodal: a training process died")
    code, _ = disturb(lambda process, _: process.kill(), size=2)
    assert code == -signal.SIGKILL
    process = start(2, 1)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert out.count("test accuracy") == 2
    for experiment in plan_experiments(read_dataset(toy), ["mre"], 2, Settings(settings)):
        calm = Run.of(tmp_path / "calm", experiment)
        train_run(toy, calm)
        disturbed = runs / calm.path.relative_to(tmp_path / "calm")
        assert contents(disturbed) == contents(calm.path)
        assert names_in(disturbed) == names_in(calm.path)
