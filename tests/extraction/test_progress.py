"""The bar shows file names as they are."""

from __future__ import annotations

import io
import sys

import pytest

from moodal.terminal import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_name_in_brackets_is_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "200")
    with progress_bar("files") as move:
        assert move
        move(1, 2, "a[/b].wav  [bold]c.mp4")
    assert "a[/b].wav  [bold]c.mp4" in sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_where_nobody_looks_there_is_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress_bar("files") as move:
        assert move is None
