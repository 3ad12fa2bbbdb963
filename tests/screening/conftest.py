"""Episodes with known cuts; see ``joined``."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.media.conftest import make_video
from tests.screening.joined import Cut, joined

__all__ = ["make_video"]


@pytest.fixture
def episode(tmp_path: Path) -> Callable[..., tuple[Path, list[Cut]]]:
    """``episode("a.mp4", clips, fps=25, ...)``: its file in ``tmp_path``, and its cuts."""

    def make(name: str, clips: list, **options: object) -> tuple[Path, list[Cut]]:
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target, joined(clips, target, **options)

    return make
