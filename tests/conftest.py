"""What several test files share."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# the same examples every time, and no clock: a test that fails on a busy machine says nothing
settings.register_profile("moodal", deadline=None, derandomize=True)
settings.load_profile("moodal")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def moodal() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the real command line: ``moodal("train", folder, cwd=..., preexec_fn=...)``."""

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from moodal.cli import main; main()", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)

    return run
