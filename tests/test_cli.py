"""The commands as a user types them: what they print, how they end, and what they leave behind when they refuse.

Every command is a process of its own. Most are forked from one that has imported everything, which saves seconds each.
"""

import csv
import json
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from moodal.data.simulate import simulate_sdme

SERVER = """
import json, os, resource, sys
import moodal.benchmark.dataset_figures, moodal.benchmark.report, moodal.cli, moodal.data.inspection, moodal.data.mmsa
import moodal.recipes.importing, moodal.training.plan
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(asked["cwd"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for fd in (1, 2):
            os.dup2(os.open(asked["files"][fd - 1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), fd)
        if asked["most_bytes"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (asked["most_bytes"], resource.RLIM_INFINITY))
        sys.argv = ["moodal", *asked["argv"]]
        try:
            moodal.cli.main()
        except SystemExit as e:
            sys.stdout.flush()
            os._exit(e.code)  # half a second sooner than by the way of all the libraries
        os._exit(99)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self):
        """The one object on stdout of a command that went well and had nothing to warn of."""
        assert (self.code, self.err) == (0, "")
        assert self.out.count("\n") == 1
        return json.loads(self.out)


class Shell:
    def __init__(self, files):
        self.files = [str(files / "out"), str(files / "err")]
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, cwd, *argv, most_bytes=None):
        asked = {"cwd": str(cwd), "argv": [str(a) for a in argv], "files": self.files, "most_bytes": most_bytes}
        self.server.stdin.write(json.dumps(asked) + "\n")
        self.server.stdin.flush()
        code = int(self.server.stdout.readline())
        return Done(code, *(Path(f).read_text() for f in self.files))


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    made = Shell(tmp_path_factory.mktemp("shell"))
    yield made
    made.server.stdin.close()
    made.server.wait()
    made.server.stdout.close()


@pytest.fixture
def moodal_in(shell, tmp_path):
    """Runs a command in an empty folder."""
    return lambda *argv, **options: shell.run(tmp_path, *argv, **options)


def tree(folder):
    """Every file below ``folder`` with its content."""
    return {p.relative_to(folder): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.fixture
def refused(moodal_in, tmp_path):
    """A command must end with 2, one line on stderr that matches, nothing on stdout, and change no file."""

    def run(message, *argv, **options):
        before = tree(tmp_path)
        done = moodal_in(*argv, **options)
        assert done.code == 2
        assert done.out == ""
        assert done.err.startswith("moodal: ")
        assert done.err.count("\n") == 1
        assert "Traceback" not in done.err
        assert re.search(message, done.err), done.err
        assert tree(tmp_path) == before
        return done

    return run


@pytest.fixture(scope="module")
def sdme(tmp_path_factory):
    path = tmp_path_factory.mktemp("sdme") / "sdme"
    simulate_sdme(path, clips=100)
    return path


@pytest.fixture
def data(sdme, tmp_path):
    """A data set that may be harmed."""
    shutil.copytree(sdme, tmp_path / "data")
    return tmp_path / "data"


ARRAYS = {
    "id": np.array([f"u{i}" for i in range(20)]),
    "label": np.array(["calm", "angry"] * 10),
    "split": np.repeat(["train", "valid", "test"], [12, 4, 4]),
    "audio": np.arange(60, dtype=np.float32).reshape(20, 3),
}
FIELDS = [x for name in ARRAYS for x in ("--field", f"{name}={name}")]


@pytest.fixture
def npz(tmp_path):
    """Writes an npz with some arrays changed."""

    def write(**change):
        np.savez(tmp_path / "corpus.npz", **{**ARRAYS, **change})

    return write


@pytest.fixture(scope="module")
def demo(shell, tmp_path_factory):
    """``moodal demo``, small, and the folder it ran in."""
    folder = tmp_path_factory.mktemp("demo")
    done = shell.run(folder, "demo", "--clips", "100", "--seeds", "1", "--workers", "1", "--out", "it", "--json")
    return folder, done


# The way in


def test_version_help_and_a_usage_error_through_a_new_interpreter(moodal):
    version = moodal("--version")
    assert (version.returncode, version.stderr) == (0, "")
    assert re.fullmatch(r"moodal \d+\.\d+\.\d+\n", version.stdout)
    bad = moodal("train", "--sedes", "3")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert re.fullmatch(r"moodal: No such option: --sedes .*--seeds.*\n", bad.stderr)


def test_without_arguments_the_help_is_shown(moodal_in):
    bare, asked = moodal_in(), moodal_in("--help")
    assert (bare.code, bare.out, bare.err) == (0, asked.out, "")
    for command in ("demo", "simulate", "import", "inspect", "train", "compare", "report"):
        assert re.search(rf"^  {command} ", asked.out, re.M)
        own = moodal_in(command, "--help")
        assert (own.code, own.err) == (0, "")
        assert "--json" in own.out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'"),
        (["train"], "Missing argument 'DIR'"),
        (["train", "x", "--bogus"], "No such option: --bogus"),
        (["train", "x", "--seeds", "many"], "Invalid value for '--seeds'"),
        (["train", "x", "--workers", "0"], "Invalid value for '--workers'"),
        (["train", "x", "--set"], "Option '--set' requires an argument"),
        (["train", "x", "y"], "unexpected extra argument"),
    ],
)
def test_wrong_usage(refused, argv, message):
    refused(message, *argv)


def test_debug_shows_the_traceback_and_changes_nothing_else(moodal_in):
    plain = moodal_in("train", "nowhere")
    for argv in (["--debug", "train", "nowhere"], ["train", "nowhere", "--debug"]):
        done = moodal_in(*argv)
        assert (done.code, done.out) == (plain.code, "")
        assert done.err.startswith("Traceback (most recent call last):")
        assert done.err.endswith(plain.err)


def test_a_reader_that_goes_away_is_no_error(sdme):
    code = "from moodal.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "inspect", sdme], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait()


# What each command says


def test_simulate(moodal_in, tmp_path):
    said = moodal_in("simulate", "made", "--clips", 60, "--seed", 3, "--hard", "--json").json
    assert (said["path"], said["clips"], said["seed"], said["difficulty"]) == ("made", 60, 3, 1.5)
    assert 0 < said["bayes_accuracy"]["all"] <= 1
    done = moodal_in("simulate", "made", "--clips", 60, "--overwrite")
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(r"made: 60 clips; exact Bayes accuracy 0\.\d{3} \(alone: text .*\)\n", done.out)
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_inspect(moodal_in, sdme, tmp_path):
    said = moodal_in("inspect", sdme, "--json").json
    assert said.keys() >= {"utterances", "splits", "classes", "dims", "missing", "agreement", "leakage"}
    assert (said["utterances"], said["dims"]) == (100, {"text": 96, "audio": 33, "vision": 35})
    done = moodal_in("inspect", sdme, "--picture", "it.png")
    assert (done.code, done.err) == (0, "")
    assert "100 utterances, 5 classes" in done.out
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")


def test_import_npz(moodal_in, npz, tmp_path):
    npz()
    said = moodal_in("import", "corpus.npz", "made", *FIELDS, "--json").json
    assert said.keys() >= {"path", "name", "task", "counts", "notes"}
    assert said["counts"]["splits"] == {"train": 12, "valid": 4, "test": 4}
    (tmp_path / "corpus.npz").rename(tmp_path / "corpus.bin")
    done = moodal_in("import", "corpus.bin", "again", "--format", "npz", "--name", "toy", *FIELDS)
    assert (done.code, done.err) == (0, "")
    assert done.out == "again: toy, 20 utterances; look at it with moodal inspect again\n"


def test_import_table(moodal_in, tmp_path):
    with (tmp_path / "corpus.csv").open("w", newline="") as f:
        rows = csv.writer(f)
        rows.writerow(["clip", "mood", "split"])
        rows.writerows([f"u{i}", i % 2, ARRAYS["split"][i]] for i in range(20))
    np.save(tmp_path / "sound.npy", ARRAYS["audio"])
    options = [
        "--field",
        "id=clip",
        "--field",
        "label=mood",
        "--features",
        "audio=sound.npy",
        "--classes",
        "calm,angry",
    ]
    said = moodal_in("import", "corpus.csv", "made", *options, "--json").json
    assert said["task"]["classes"] == ["calm", "angry"]
    assert said["counts"]["classes"] == {"calm": 10, "angry": 10}


def mmsa_part(split):
    rng = np.random.default_rng(len(split))
    return {
        **{m: rng.normal(size=(4, 3, d)).astype(np.float32) for m, d in (("text", 4), ("audio", 3), ("vision", 2))},
        "audio_lengths": [1, 2, 3, 3],
        "vision_lengths": [3, 2, 1, 1],
        "regression_labels": np.array([-1.0, 0.0, 0.4, 1.0], np.float32),
        "id": [f"{split}{i}$_$0" for i in range(4)],
        "raw_text": np.array([f"words {i}" for i in range(4)], dtype=object),
    }


def test_import_mmsa(moodal_in, tmp_path):
    content = {split: mmsa_part(split) for split in ("train", "valid", "test")}
    (tmp_path / "corpus.pkl").write_bytes(pickle.dumps(content, 4))
    done = moodal_in("import", "corpus.pkl", "made", "--json")
    assert done.code == 0
    assert json.loads(done.out)["counts"]["utterances"] == 12
    assert all("corpus.pkl" in line for line in done.err.splitlines())  # warnings say of what they are


def test_demo_needs_nothing_and_ends_with_a_report(demo):
    folder, done = demo
    said = done.json
    assert said.keys() >= {"dataset", "protocol", "rows", "paired"}
    assert {"model", "metric", "split", "mean", "std", "low", "high", "num_runs"} <= said["rows"][0].keys()
    assert {"model", "against", "metric", "difference", "low", "high", "p"} <= said["paired"][0].keys()
    assert {r["num_runs"] for r in said["rows"]} == {1}
    assert {r["model"] for r in said["rows"]} == {p.name for p in (folder / "it/runs").iterdir() if p.is_dir()} - {
        "report"
    }
    assert {"mre", "mre_baseline", "lmf", "lda", "text_only"} <= {r["model"] for r in said["rows"]}
    assert (folder / "it/runs/report/report.html").is_file()
    assert all((folder / f).is_file() for f in said["files"])


def test_another_size_of_the_demo_is_another_demo(demo, shell):
    folder, _ = demo
    done = shell.run(folder, "demo", "--clips", "200", "--out", "it")
    assert done.code == 2
    assert done.err == "moodal: it/sdme holds 100 clips, not 200; say --clips 100, or choose another --out\n"


def settings_of(run):
    """The command line of a finished run's settings."""
    asked = json.loads((run / "experiment.json").read_text())
    return [x for k, v in {**asked["options"], **asked["training"]}.items() for x in ("--set", f"{k}={v}")]


def test_train_skips_what_is_finished(demo, shell):
    folder, _ = demo
    command = ["train", "it/sdme", "--seeds", 1, "--out", "it/runs", *settings_of(folder / "it/runs/mre/seed-0")]
    (row,) = shell.run(folder, *command, "--json").json["runs"]
    assert {"path", "seed", "epochs", "seconds_per_epoch", "parameters", "skipped"} <= row.keys()
    assert (row["path"], row["seed"], row["skipped"]) == ("it/runs/mre/seed-0", 0, True)
    done = shell.run(folder, *command)
    assert re.fullmatch(r"it/runs/mre/seed-0: skipped \(done before\), \d+ epochs, test accuracy .*\n", done.out)
    assert done.err == ""


def test_compare_of_finished_runs_is_their_report(demo, shell):
    folder, _ = demo
    names = ["--models", "mre_baseline, mre"]
    settings = settings_of(folder / "it/runs/mre/seed-0")
    compared = shell.run(
        folder, "compare", "it/sdme", *names, "--seeds", 1, "--out", "it/runs", *settings, "--json"
    ).json
    assert list(dict.fromkeys(r["model"] for r in compared["rows"])) == ["mre_baseline", "mre"]
    reported = shell.run(folder, "report", "it/runs", *names, "--json").json
    assert reported == compared


@pytest.mark.parametrize(
    ("format_", "sign"),
    [("text", "report: it/runs/report/report.html\n"), ("markdown", "|"), ("latex", r"\begin{tabular}"), ("csv", ",")],
)
def test_report_prints_what_was_asked_and_nothing_else(demo, shell, format_, sign):
    folder, _ = demo
    done = shell.run(folder, "report", "it/runs", "--models", "lda,lda_product", "--format", format_)
    assert (done.code, done.err) == (0, "")
    assert sign in done.out
    assert ("report.html" in done.out) == (format_ == "text")


# Bad input


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "mree"], "no model called 'mree'; did you mean 'mre'"),
        (["--model", "mre@hiden=3"], "no setting called 'hiden'; did you mean 'hidden'"),
        (["--set", "epoch=3"], "no setting called 'epoch'; did you mean 'epochs'"),
        (["--set", "epochs"], "need KEY=VALUE, got 'epochs'"),
        (["--set", "epochs=ten"], "epochs needs a value like 100, got 'ten'"),
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--task", "regression"], "has classes but no scores; it cannot be used for regression"),
        (["--config", "nowhere.toml"], "nowhere.toml does not exist"),
        (["--config", "folder"], "folder: Is a directory"),
        (["--config", "bad.toml"], "bad.toml is not valid TOML"),
        (["--config", "unknown.toml"], "no setting called 'epoch'; did you mean 'epochs'"),
        (["--config", "table.toml"], "no setting called 'hiden'; did you mean 'hidden'"),
        (["--config", "model.toml"], "no model called 'mree'; did you mean 'mre'"),
        (["--out", "bad.toml"], "bad.toml is a file, but a folder is needed there"),
    ],
)
def test_train_refuses_before_anything_is_written(refused, sdme, tmp_path, argv, message):
    (tmp_path / "folder").mkdir()
    for name, text in {
        "bad": "epochs = = 3",
        "unknown": "epoch = 3",
        "table": "[mre]\nhiden = 3",
        "model": "[mree]\nhidden = 3",
    }.items():
        (tmp_path / f"{name}.toml").write_text(text)
    refused(message, "train", sdme, *argv)


def shorten(data):
    file = data / "features/audio/part-0.parquet"
    file.write_bytes(file.read_bytes()[:-4])


@pytest.mark.parametrize("command", ["train", "inspect"])
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (shorten, r"audio/part-0.parquet has changed since it was written \(its SHA-256 differs\)"),
        (lambda d: (d / "features/vision/part-0.parquet").unlink(), "vision/part-0.parquet is missing"),
        (lambda d: (d / "utterances.parquet").unlink(), "utterances.parquet is missing"),
        (lambda d: (d / "dataset.json").unlink(), "data is not a data set folder: it has no dataset.json"),
        (lambda d: (d / "dataset.json").write_text("{"), "dataset.json is not valid JSON"),
    ],
)
def test_a_harmed_data_set_is_refused(refused, data, command, harm, message):
    harm(data)
    refused(message, command, "data")


@pytest.mark.parametrize("command", ["train", "inspect", "compare"])
def test_a_missing_folder(refused, command):
    refused("nowhere does not exist", command, "nowhere")


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


class Harmless:
    pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"train": Evil()}), "system"),
        (pickle.dumps({"train": Harmless()}), "Harmless"),
        (pickle.dumps({"train": mmsa_part("train")})[:-100], "corpus.pkl"),
        (b"", "corpus.pkl"),
        (pickle.dumps([1, 2]), "corpus.pkl"),
    ],
)
def test_a_pickle_that_is_more_or_less_than_data(refused, tmp_path, content, message):
    (tmp_path / "corpus.pkl").write_bytes(content)
    refused(message, "import", "corpus.pkl", "made")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": ARRAYS["label"][:-1]}, "label has 19 values for 20 utterances; they must be as many"),
        ({"audio": ARRAYS["audio"][:-1]}, "audio has 19 rows for 20 utterances"),
        ({"audio": np.where(ARRAYS["audio"] >= 40, np.nan, ARRAYS["audio"])}, "utterance u13: audio holds NaN"),
        ({"audio": np.where(ARRAYS["audio"] >= 30, np.inf, ARRAYS["audio"])}, "utterance u10: audio holds inf"),
        ({"audio": np.zeros((20, 0, 3))}, "audio is empty"),
        ({"label": np.arange(20) - 1}, "utterance u0: label -1 is out of range"),
        ({"id": np.array(["u0"] * 20)}, "utterance id 'u0' stands 20 times"),
        ({"split": np.array(["dev"] * 20)}, "no split called 'dev'"),
    ],
)
def test_arrays_that_cannot_be_a_data_set(refused, npz, change, message):
    npz(**change)
    refused(message, "import", "corpus.npz", "made", *FIELDS)


def test_a_missing_file_and_a_folder_that_is_taken(refused, npz, tmp_path):
    refused("nowhere.npz does not exist", "import", "nowhere.npz", "made")
    npz()
    (tmp_path / "made").mkdir()
    (tmp_path / "made/mine").write_text("keep me")
    refused("made exists already; choose another folder, or say --overwrite", "import", "corpus.npz", "made", *FIELDS)
    refused("corpus.npz is a file, but a folder is needed", "simulate", "corpus.npz/made", "--clips", "60")


def test_a_class_without_examples_in_a_split(refused, npz, moodal_in):
    npz(label=np.array(["calm", "angry"] * 8 + ["calm"] * 4))
    done = moodal_in("import", "corpus.npz", "made", *FIELDS)
    assert (done.code, done.err) == (0, "corpus.npz: test has no example of angry\n")
    refused("class 'angry' has no example in test; every class needs some in every split", "train", "made")


def test_a_picture_of_another_kind(refused, sdme):
    refused("--picture is a .png or .svg file, got it.bmp", "inspect", sdme, "--picture", "it.bmp")


def test_runs_folders_that_cannot_be_reported(refused, demo, sdme, tmp_path):
    folder, _ = demo
    (tmp_path / "empty").mkdir()
    refused("empty is not a runs folder: it has no benchmark.json", "report", "empty")
    refused("nowhere is not a runs folder", "report", "nowhere")
    runs = tmp_path / "runs"
    runs.mkdir()
    shutil.copy(folder / "it/runs/benchmark.json", runs)
    refused("runs holds no finished run; train it first", "report", "runs")
    shutil.copytree(folder / "it/runs/lda", runs / "lda")
    refused("runs holds no finished run of mre; train it first", "report", "runs", "--models", "mre")
    refused("no table format called 'html'", "report", "runs", "--format", "html")
    other = tmp_path / "other"
    simulate_sdme(other, clips=60)
    refused(
        r"runs holds runs on another data set \(SDME simulated as it was in it/sdme\); choose another --out",
        "train", "other", "--out", "runs",
    )  # fmt: skip
    refused(
        r"runs/lda/seed-0 holds another experiment \(options.text_pooling is mean there and mean_std now\)",
        "train", folder / "it/sdme", "--model", "lda", "--set", "text_pooling=mean_std", "--seeds", 1, "--out", "runs",
    )  # fmt: skip


def test_folds_that_are_not_finished_cannot_be_reported(refused, demo, tmp_path):
    """A seed counts when all its folds are there."""
    folder, _ = demo
    runs = tmp_path / "runs"
    runs.mkdir()
    facts = json.loads((folder / "it/runs/benchmark.json").read_text())
    (runs / "benchmark.json").write_text(json.dumps({**facts, "folds": 3}))
    for fold in (0, 2):
        shutil.copytree(folder / "it/runs/lda/seed-0", runs / f"lda/seed-0/fold-{fold}")
    refused("lda: seed 0 has 2 of 3 folds; finish it with the command that began it", "report", "runs")


# Work that fails


def test_a_loss_that_is_not_finite_ends_with_1(moodal_in, sdme, tmp_path):
    settings = ["--set", "lr=1e38", "--set", "clip_norm=1e38", "--set", "batch_size=20"]
    done = moodal_in("train", sdme, "--seeds", "1", "--out", "runs", *settings)
    assert (done.code, done.out) == (1, "")
    where = r"moodal: runs/mre/seed-0: the loss is not finite in epoch \d, batch \d of 4 \(task .*\)"
    assert re.fullmatch(where + "; a smaller lr or clip_norm may help\n", done.err)
    assert not (tmp_path / "runs/mre/seed-0/report.json").exists()


def test_a_full_disk_leaves_the_old_data_set_as_it_was(refused, data):
    for command in (["simulate", "data", "--clips", "100"], ["simulate", "new", "--clips", "100"]):
        message = f"the disk is full: {command[1]} was not written; free some space and run it again"
        refused(message, *command, "--overwrite", most_bytes=100_000)


def test_a_full_disk_in_training_is_one_sentence_and_the_same_command_goes_on(moodal_in, sdme, demo, tmp_path):
    """The limit lets the small files through, not the weights."""
    calm = demo[0] / "it/runs/mre/seed-0"
    command = ["train", sdme, "--seeds", "1", "--out", "runs", "--json", *settings_of(calm)]
    done = moodal_in(*command, most_bytes=30_000)
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(
        r"moodal: the disk is full: runs/mre/seed-0/\S+ was not written; free some space and run it again\n", done.err
    )
    assert not list((tmp_path / "runs").rglob("*.partial*"))
    (row,) = moodal_in(*command).json["runs"]
    assert not row["skipped"]
    for name in ("model.safetensors", "predictions.parquet", "history.json"):
        assert (tmp_path / row["path"] / name).read_bytes() == (calm / name).read_bytes()
    assert {p.name for p in (tmp_path / row["path"]).iterdir()} == {p.name for p in calm.iterdir()}


def test_the_limit_on_bytes_is_not_ours():
    """The tests of full disks limit a forked process; this one must still be able to write."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
