"""Extractors by name: what they share, how they are recorded, and what is said when one cannot be had."""

import subprocess
import sys

import numpy as np
import pytest

from moodal.data.store import FeatureSpec
from moodal.features.extractor import EXTRACTORS, Features, create_extractor, identity_hash, licences
from moodal.types import MODALITIES, InputError


def features(values, times_s):
    return Features(np.asarray(values, np.float32), np.asarray(times_s, np.float64))


def test_features_have_a_time_for_every_step():
    assert not features(np.zeros((2, 3)), [0.0, 0.1]).is_missing
    with pytest.raises(ValueError, match="2 steps need as many float64 times"):
        features(np.zeros((2, 3)), [0.0])
    with pytest.raises(ValueError, match="of float32"):
        Features(np.zeros((1, 3), np.float32), np.zeros(1, np.float32))


@pytest.mark.parametrize("values", [np.zeros(3, np.float32), np.zeros((1, 3))])
def test_features_are_two_dimensional_and_single_precision(values):
    with pytest.raises(ValueError, match=r"features are \(T, D\) float32"):
        Features(values, np.zeros(len(values)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_are_numbers(bad):
    with pytest.raises(ValueError, match="NaN or inf"):
        features([[0.0, bad]], [0.0])


def test_a_missing_modality_keeps_its_width_and_says_why():
    nothing = Features.missing(35, "no face")
    assert nothing.is_missing
    assert nothing.values.shape == (0, 35)
    assert nothing.note == "no face"


@pytest.mark.parametrize("name", ["audio33", "audio33-librosa"])
def test_an_extractor_is_made_by_its_name(name):
    extractor = create_extractor(name)
    assert extractor.name == name
    assert extractor.modality == EXTRACTORS[name].modality == "audio"
    assert len(extractor.columns) == extractor.dim == 33


def test_the_identity_is_what_a_data_set_records():
    identity = create_extractor("audio33").identity()
    assert FeatureSpec(**identity).as_dict()["hash"] == identity_hash(identity)


def test_what_changes_the_features_changes_the_hash():
    first, other = (create_extractor(name).identity() for name in ("audio33", "audio33-librosa"))
    assert identity_hash(first) == identity_hash(create_extractor("audio33").identity())
    assert identity_hash(first) != identity_hash(other)
    assert identity_hash(first) != identity_hash({**first, "version": "0"})
    assert identity_hash(first) != identity_hash({**first, "settings": {**first["settings"], "hop": 256}})


def test_a_misspelt_extractor_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="no extractor called 'audio3'; did you mean 'audio33'"):
        create_extractor("audio3")


@pytest.mark.parametrize("spec", ["bert", "bert:", "hf-audio"])
def test_an_extractor_that_needs_a_model_asks_for_one(spec):
    with pytest.raises(InputError, match=r"needs a model: say (bert|hf-audio):FOLDER or"):
        create_extractor(spec)


def test_an_argument_where_none_belongs_is_refused():
    with pytest.raises(InputError, match="audio33 takes nothing after its name, got 'audio33:librosa'"):
        create_extractor("audio33:librosa")


def test_unknown_options_are_refused_with_those_there_are():
    with pytest.raises(InputError, match="extractor audio33 has no options, got 'preset'"):
        create_extractor("audio33", preset="librosa")
    with pytest.raises(InputError, match="no option of extractor minilm called 'special_token'; did you mean"):
        create_extractor("minilm", special_token=False)
    with pytest.raises(InputError, match="There are: layer"):
        create_extractor("hf-audio:anything", source="other")


def test_licences_have_a_row_for_every_extractor():
    rows = {row.name.removesuffix(":MODEL"): row for row in licences()}
    assert rows.keys() == EXTRACTORS.keys()
    assert {row.modality for row in rows.values()} == set(MODALITIES)
    assert {name for name, row in rows.items() if row.commercial == "no"} == {"openface"}
    assert {name for name, row in rows.items() if row.commercial == "unknown"} == {"bert", "hf-audio"}
    assert rows["audio33"].available
    assert all(row.available != bool(row.fix) for row in rows.values())


def test_an_absent_package_is_named_by_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    row = next(row for row in licences() if row.name == "minilm")
    assert not row.available
    assert row.fix == "pip install 'moodal[text]'"


def test_face_models_that_were_not_fetched_yet_are_said(monkeypatch, tmp_path):
    pytest.importorskip("ai_edge_litert", reason="needs the video extra")
    monkeypatch.setenv("MOODAL_CACHE", str(tmp_path))
    row = next(row for row in licences() if row.name == "au_proxy")
    assert not row.available
    assert "MOODAL_FACE_MODELS" in row.fix


def test_openface_is_there_when_its_program_is(monkeypatch, tmp_path):
    pytest.importorskip("cv2", reason="needs the video extra")

    def row():
        return next(row for row in licences() if row.name == "openface")

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("OPENFACE_BIN", raising=False)
    assert "there is no FeatureExtraction on PATH" in row().fix
    program = tmp_path / "elsewhere" / "FeatureExtraction"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("OPENFACE_BIN", str(program))
    assert row().available


def test_naming_the_extractors_loads_none_of_their_libraries():
    code = "from moodal.features.extractor import licences; licences(); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "librosa", "scipy", "transformers", "cv2", "av"} & set(done.stdout.split())
