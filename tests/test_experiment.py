"""Run folders: what was asked, whether it is done, and the model in it."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from moodal.config import TrainingSettings
from moodal.experiment import Experiment, Run, load_model, load_tensors, save_model, save_tensors
from moodal.files import write_json
from moodal.models import MODELS, create_model
from moodal.types import InputError, Task

TASK = Task(("no", "yes"))
DIMS = {"text": 4, "audio": 3}
FEATURES = {m: {"name": "made by hand", "dim": dim} for m, dim in DIMS.items()}
EXPERIMENT = Experiment("mre", "mre", "toy", "f00d", seed=3, options={"hidden": 8})


def test_the_folder_is_name_seed_and_fold(tmp_path):
    assert Run.of(tmp_path, EXPERIMENT).path == tmp_path / "mre/seed-3"
    assert Run.of(tmp_path, replace(EXPERIMENT, fold=2)).path == tmp_path / "mre/seed-3/fold-2"


def test_a_run_is_done_when_its_report_is_there(tmp_path):
    run = Run.of(tmp_path, EXPERIMENT)
    assert not run.path.exists()  # asking makes nothing
    run.begin()
    assert not run.is_done
    write_json(run.report_file, {"epochs": 3})
    assert run.is_done
    assert run.report() == {"epochs": 3}
    assert run.timing() == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "beef"}, "fingerprint is f00d there and beef now"),
        ({"options": {"hidden": 9}}, "options.hidden is 8 there and 9 now"),
        ({"options": {"hidden": 8, "rank": 2}}, "options.rank is None there and 2 now"),
        ({"options": {}}, "options.hidden is 8 there and None now"),
        ({"training": TrainingSettings(lr=0.5)}, "training.lr is 0.001 there and 0.5 now"),
        ({"task": "regression"}, "task is classification there and regression now"),
    ],
)
def test_a_folder_of_another_experiment_is_refused(tmp_path, change, message):
    Run.of(tmp_path, EXPERIMENT).begin()
    other = replace(EXPERIMENT, **change)
    assert other.hash != EXPERIMENT.hash
    with pytest.raises(InputError, match=rf"seed-3 holds another experiment \({message}\); choose another --out"):
        Run.of(tmp_path, other)
    assert Run.of(tmp_path, replace(other, seed=4)).path.name == "seed-4"


def test_the_same_experiment_is_recognised_after_a_trip_through_json(tmp_path):
    Run.of(tmp_path, EXPERIMENT).begin()
    run = Run.of(tmp_path, Experiment(**{**vars(EXPERIMENT), "options": {"hidden": 8}}))
    stated = json.loads(run.experiment_file.read_text())
    assert stated["seed"] == 3
    assert stated["training"]["epochs"] == 100


@pytest.mark.parametrize("name", [n for n in MODELS if n not in ("vision_only", "prior")])
def test_a_saved_model_is_the_same_model(tmp_path, name):
    torch.manual_seed(0)
    model = create_model(name, DIMS, TASK)
    with torch.no_grad():
        for buffer in model.buffers():
            buffer.add_(1)
    save_model(tmp_path, model, replace(EXPERIMENT, model=name, options={}), FEATURES)
    again = load_model(tmp_path)
    assert not again.training
    assert again.task == TASK
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])


def test_a_model_without_all_its_weights_is_not_loaded(tmp_path):
    save_model(tmp_path, create_model("mre", DIMS, TASK), replace(EXPERIMENT, options={}), FEATURES)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(dict(list(weights.items())[1:]), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"does not fit its config.json: .* has the shape of nothing"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model.safetensors does not exist; train the run again"):
        load_model(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match=r"config.json does not exist"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dims": {"text": -1, "audio": 3}}, "dims must be whole numbers above 0"),
        ({"dims": {"text": 10**13, "audio": 3}}, "does not fit its config.json"),
        ({"options": {"hidden": 10**6}}, "does not fit its config.json"),
        ({"options": {"hidden": 10**9}}, "is not the config of a moodal model"),
        ({"options": {"hidden": "wide"}}, "is not the config of a moodal model"),
        ({"task": {"classes": [1, 2, 3], "low": 0, "high": 0}}, "classes must be a list of names"),
        ({"task": {"classes": "abc", "low": 0, "high": 0}}, "classes must be a list of names"),
        ({"model": "lmf"}, "does not fit its config.json"),
        ({"model": "nobody"}, "no model called 'nobody'"),
    ],
)
def test_a_config_that_asks_for_something_else_is_refused_before_memory_is_taken(tmp_path, change, message):
    save_model(tmp_path, create_model("mre", DIMS, TASK), replace(EXPERIMENT, model="mre", options={}), FEATURES)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=message):
        load_model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"junk" * 100, b"\xff" * 8 + b"{}"])
def test_weights_that_are_none_are_refused(tmp_path, content):
    save_model(tmp_path, create_model("mre", DIMS, TASK), replace(EXPERIMENT, model="mre", options={}), FEATURES)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as weights"):
        load_model(tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    model = create_model("mre", DIMS, TASK)
    with torch.no_grad():
        next(model.parameters())[0] = float("nan")
    save_model(tmp_path, model, replace(EXPERIMENT, model="mre", options={}), FEATURES)
    with pytest.raises(InputError, match="is not finite"):
        load_model(tmp_path)


def test_tensors_and_their_state_are_one_file(tmp_path):
    tensors = {"a": torch.arange(6).reshape(2, 3).t(), "n": torch.tensor(3)}
    save_tensors(tmp_path / "x", tensors, {"epoch": 2, "best": None, "rows": [0.1]})
    found, state = load_tensors(tmp_path / "x")
    assert state == {"epoch": 2, "best": None, "rows": [0.1]}
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[k], v) for k, v in tensors.items())
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_progress_is_for_eyes_only_and_goes_away(tmp_path):
    run = Run.of(tmp_path, EXPERIMENT)
    run.begin()
    run.show_progress(3, 10, -0.5)
    assert json.loads(run.progress_file.read_text()) == {"epoch": 3, "epochs": 10, "valid": -0.5}
    assert not run.is_done
    run.clear_leftovers()
    assert [p.name for p in run.path.iterdir()] == ["experiment.json"]
