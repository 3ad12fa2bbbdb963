"""The doctor says what is there and how to get the rest, and is right about both."""

from __future__ import annotations

import json
import sys

import pytest

from moodal.cli import main
from moodal.doctor import examine, install
from moodal.features.extractor import EXTRACTORS
from moodal.types import InputError


def test_every_extractor_and_extra_has_a_line_with_its_licence_or_its_cure() -> None:
    found = {c.name: c for c in examine()}
    for name, entry in EXTRACTORS.items():
        check = found[f"extractor {name}:MODEL" if entry.argument else f"extractor {name}"]
        assert entry.code_licence in check.detail
        assert check.ok or check.fix
    assert "commercial use: no" in found["extractor openface"].detail
    assert found["extra video"].ok


def test_what_is_absent_comes_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr("moodal.doctor.PARTS", {"video": ("no_such_module", "reading video")})
    monkeypatch.setenv("MOODAL_CACHE", str(tmp_path))
    found = {c.name: c for c in examine()}
    assert (found["extra video"].ok, found["extra video"].fix) == (False, "pip install 'moodal[video]'")
    assert (found["face models"].ok, found["face models"].fix) == (False, "moodal doctor --install face")
    with pytest.raises(InputError, match="no thing to install called 'faces'; did you mean 'face'"):
        install("faces")


def test_a_folder_of_that_name_is_no_package(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "no_such_module").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("moodal.doctor.PARTS", {"video": ("no_such_module", "reading video")})
    found = {c.name: c for c in examine()}
    assert (found["extra video"].ok, found["extra video"].detail) == (
        False,
        "reading video: no_such_module is not installed",
    )


def test_as_json_it_is_one_object(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["moodal", "doctor", "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert all(set(c) == {"name", "ok", "detail", "fix"} for c in checks)
