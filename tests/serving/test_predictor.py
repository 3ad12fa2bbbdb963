"""From media to an answer by a run of our own: what is read, what is refused, what is said when nothing can be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from moodal.config import Settings
from moodal.extraction.extract import Options, extract_media
from moodal.serving.card import model_card, save_pretrained
from moodal.serving.files import write_prediction
from moodal.serving.predictor import PRIOR_NOTE, SLICE, UNCALIBRATED, Predictor
from moodal.serving.saved import read_saved
from moodal.training.plan import train_models
from moodal.types import InputError

RATE_HZ = 22_050


def sound(path: Path, label: str, seed: int, seconds: float = 0.5) -> Path:
    """Happy is a high tone and sad a low one, in noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    tone = np.sin(2 * np.pi * (1500 if label == "happy" else 200) * t)
    noise = np.random.default_rng(seed).standard_normal(len(t))
    soundfile.write(path, (0.1 * tone + 0.01 * noise).astype(np.float32), RATE_HZ, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two models on a data set of sounds that ``moodal extract`` has made."""
    folder = tmp_path_factory.mktemp("predict")
    rows = ["video,label,speaker"]
    for k in range(48):
        label = ("happy", "sad")[k % 2]
        sound(folder / "media" / f"{k:02d}.wav", label, k)
        rows.append(f"{k:02d}.wav,{label},actor-{k // 2 % 12:02d}")
    (folder / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    options = Options({"audio": "audio33"}, workers=1, labels=folder / "labels.csv", split_by="speaker")
    extract_media(folder / "media", folder / "data", options)
    settings = Settings({"epochs": 15, "hidden": 8, "batch_size": 8})
    train_models(folder / "data", ["lf_dnn"], 2, settings, folder / "runs", workers=1)
    train_models(folder / "data", ["lda_product"], 1, Settings({}), folder / "runs", workers=1)
    return folder / "runs"


def test_a_trained_run_names_what_it_was_trained_to_name(runs: Path, tmp_path: Path) -> None:
    predictor = Predictor.from_pretrained(runs / "lda_product" / "seed-0")
    for k, label in enumerate(("happy", "sad", "happy")):
        said = predictor.predict(sound(tmp_path / f"{k}.wav", label, 1000 + k))
        (segment,) = said.segments
        assert segment.emotion == label
        assert sum(segment.probabilities.values()) == pytest.approx(1)
        assert segment.relevance == {"text": 0.0, "audio": 1.0, "vision": 0.0}
        assert set(segment.unimodal) == {"audio"}
        assert segment.notes["vision"] == "the model does not read it"
        assert said.duration_s == pytest.approx(0.5, abs=0.01)


def test_several_runs_of_a_model_answer_with_their_mean(runs: Path, tmp_path: Path) -> None:
    file = sound(tmp_path / "a.wav", "sad", 1)
    each = [Predictor.from_pretrained(runs / "lf_dnn" / f"seed-{s}").predict(file) for s in (0, 1)]
    both = Predictor.from_pretrained(runs / "lf_dnn").predict(file)
    p = [x.segments[0].probabilities["sad"] for x in each]
    assert both.segments[0].probabilities["sad"] == pytest.approx(sum(p) / 2)
    assert p[0] != p[1]
    assert "the mean of 2 runs of lf_dnn" in both.notes[0]


def test_probabilities_are_divided_by_the_temperature_of_the_run(runs: Path, tmp_path: Path) -> None:
    """A run whose temperature is lost says so, and answers with the bare softmax."""
    bare = tmp_path / "bare"
    shutil.copytree(runs / "lf_dnn" / "seed-0", bare)
    config = json.loads((bare / "config.json").read_text())
    heat = config.pop("temperature")
    (bare / "config.json").write_text(json.dumps(config))
    file = sound(tmp_path / "a.wav", "sad", 1)
    raw = Predictor.from_pretrained(bare).predict(file)
    cooked = Predictor.from_pretrained(runs / "lf_dnn" / "seed-0").predict(file)
    assert UNCALIBRATED in raw.notes
    assert UNCALIBRATED not in cooked.notes
    p, q = raw.segments[0].probabilities, cooked.segments[0].probabilities
    assert np.log(p["sad"] / p["happy"]) / heat == pytest.approx(np.log(q["sad"] / q["happy"]), rel=1e-4)


def test_segments_of_a_table_are_predicted_one_by_one(runs: Path, tmp_path: Path) -> None:
    low, _ = soundfile.read(sound(tmp_path / "low.wav", "sad", 1, 1.0))
    high, _ = soundfile.read(sound(tmp_path / "high.wav", "happy", 2, 1.0))
    soundfile.write(tmp_path / "both.wav", np.concatenate([low, high]), RATE_HZ)
    (tmp_path / "cut.csv").write_text("start_s,end_s,text\n0,1,first\n1,2,\n")
    said = Predictor.from_pretrained(runs / "lda_product").predict(tmp_path / "both.wav", segments=tmp_path / "cut.csv")
    assert [(s.start_s, s.end_s, s.text, s.emotion) for s in said.segments] == [
        (0.0, 1.0, "first", "sad"),
        (1.0, 2.0, None, "happy"),
    ]


def test_what_is_less_probable_than_asked_for_is_withheld(runs: Path, tmp_path: Path) -> None:
    predictor, file = Predictor.from_pretrained(runs / "lf_dnn"), sound(tmp_path / "a.wav", "sad", 1)
    best = max(predictor.predict(file).segments[0].probabilities.values())
    silent = predictor.predict(file, min_confidence=best + 1e-6).segments[0]
    assert (silent.emotion, silent.abstained) == (None, True)
    assert "was asked for" in silent.because
    assert silent.likeliest == ("sad", pytest.approx(best))
    assert not predictor.predict(file, min_confidence=best - 1e-6).segments[0].abstained


def test_what_is_unlike_all_it_was_trained_on_is_not_named(runs: Path, tmp_path: Path) -> None:
    noise = 0.9 * np.sign(np.random.default_rng(0).standard_normal(RATE_HZ))
    soundfile.write(tmp_path / "storm.wav", noise, RATE_HZ)
    segment = Predictor.from_pretrained(runs / "lf_dnn").predict(tmp_path / "storm.wav").segments[0]
    assert segment.abstained
    assert segment.because == "audio is unlike anything the model was trained on"
    assert "unlike anything the model was trained on" in segment.notes["audio"]


def test_an_extractor_with_other_settings_is_refused(runs: Path) -> None:
    with pytest.raises(
        InputError, match=r"was trained on audio features of audio33 2 with other settings than audio33-lib"
    ):
        Predictor.from_pretrained(runs / "lf_dnn", {"audio": "audio33-librosa"})
    with pytest.raises(InputError, match=r"does not read vision; it reads audio"):
        Predictor.from_pretrained(runs / "lf_dnn", {"vision": "au_proxy"})
    with pytest.raises(InputError, match=r"nothing to look at: every modality that it reads is none"):
        Predictor.from_pretrained(runs / "lf_dnn", {"audio": "none"})


def test_features_that_cannot_be_made_of_a_video_are_refused(runs: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    shutil.copytree(runs / "lf_dnn" / "seed-0", foreign)
    config = json.loads((foreign / "config.json").read_text())
    config["features"]["audio"]["name"] = "mmsa"
    (foreign / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        InputError, match=r"audio features of .* were made by 'mmsa', which cannot be run on a video here"
    ):
        Predictor.from_pretrained(foreign)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nowhere", r"there is no run folder nowhere; train one"),
        ("owner/no-such-model", r"the model hub gave no model of that name"),
    ],
)
def test_where_there_is_no_model_it_says_so(where: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=message):
        Predictor.from_pretrained(where)


def test_a_folder_of_several_models_or_of_none_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds runs of lda_product, lf_dnn; name the folder of one"):
        Predictor.from_pretrained(runs)
    with pytest.raises(InputError, match=r"holds no saved model"):
        Predictor.from_pretrained(tmp_path)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(runs / "lf_dnn" / "seed-0", unfinished)
    (unfinished / "report.json").unlink()
    with pytest.raises(InputError, match=r"holds 1 unfinished runs"):
        Predictor.from_pretrained(unfinished)


@pytest.mark.parametrize("content", ["{}", '{"model": "mre", "dims": 3, "task": {}, "options": {}}', "[1]", "not json"])
def test_a_config_that_is_none_is_one_sentence(runs: Path, tmp_path: Path, content: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs / "lf_dnn" / "seed-0", folder)
    (folder / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json"):
        Predictor.from_pretrained(folder)


def test_what_is_saved_for_others_predicts_the_same_and_says_what_it_is_for(runs: Path, tmp_path: Path) -> None:
    target = save_pretrained(runs / "lf_dnn" / "seed-0", tmp_path / "model")
    assert sorted(p.name for p in target.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    file = sound(tmp_path / "a.wav", "sad", 1)
    mine, theirs = (Predictor.from_pretrained(f).predict(file) for f in (runs / "lf_dnn" / "seed-0", target))
    assert mine.segments == theirs.segments
    card = (target / "README.md").read_text()
    report = json.loads((runs / "lf_dnn" / "seed-0" / "report.json").read_text())
    assert f"| accuracy | {report['scores']['test']['accuracy']:.4f} |" in card
    assert "at work or in education" in card
    assert "| audio | audio33 | 2 | Apache-2.0 |" in card
    with pytest.raises(InputError, match=r"holds 2 runs; name one"):
        save_pretrained(runs / "lf_dnn", tmp_path / "other")


def test_a_card_without_a_report_claims_no_score(runs: Path, tmp_path: Path) -> None:
    target = save_pretrained(runs / "lf_dnn" / "seed-0", tmp_path / "model")
    assert "Not known" in model_card(read_saved(target)[0])


def test_the_command_prints_what_the_contract_names(
    runs: Path, tmp_path: Path, moodal: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    file = sound(tmp_path / "a.wav", "happy", 5)
    done = moodal("predict", file, "--model", runs / "lda_product", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {"video", "model", "segments"} <= said.keys()
    wanted = {"start_s", "end_s", "text", "emotion", "probabilities", "relevance", "unimodal", "missing", "abstained"}
    assert wanted <= said["segments"][0].keys()
    assert said["segments"][0]["emotion"] == "happy"
    assert sorted(Path(f).suffix for f in said["files"]) == [".csv", ".json", ".png", ".vtt"]
    assert all(Path(f).stat().st_size for f in said["files"])
    again = moodal("predict", tmp_path / "none.mp4", "--model", runs / "lda_product")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)


def broken_picture(path: Path, seconds: float = 12.0) -> Path:
    """A sound that can be read, and a picture of which no packet can."""
    with av.open(str(path), "w") as out:
        picture = out.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 64
        voice = out.add_stream("aac", rate=RATE_HZ, layout="mono")
        for k in range(round(seconds * 10)):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), k % 200, np.uint8), format="rgb24")
            for packet in picture.encode(frame):
                zero = av.Packet(bytes(packet.size))
                zero.pts, zero.dts, zero.time_base, zero.stream = packet.pts, packet.dts, packet.time_base, picture
                out.mux(zero)
        tone = 0.1 * np.sin(2 * np.pi * 200 * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)
        for k in range(0, len(tone) - 1024, 1024):
            heard = av.AudioFrame.from_ndarray(
                tone[None, k : k + 1024].astype(np.float32), format="fltp", layout="mono"
            )
            heard.sample_rate, heard.pts = RATE_HZ, k
            out.mux(voice.encode(heard))
        out.mux(voice.encode(None))
    return path


@pytest.mark.parametrize("cut", ["auto", "whole", "speech", "shots"])
def test_a_picture_that_cannot_be_read_costs_only_itself(runs: Path, tmp_path: Path, cut: str) -> None:
    said = Predictor.from_pretrained(runs / "lf_dnn").predict(broken_picture(tmp_path / "b.mp4"), cut=cut)
    assert said.segments
    assert all(s.unimodal for s in said.segments)
    assert said.cuts_s == ()


def test_an_extractor_of_another_modality_is_refused(runs: Path) -> None:
    for source in (runs / "lf_dnn", "prior"):
        with pytest.raises(InputError, match=r"--audio lexicon: that one reads text"):
            Predictor.from_pretrained(source, {"audio": "lexicon"})
        with pytest.raises(InputError, match=r"no modality called 'voice'"):
            Predictor.from_pretrained(source, {"voice": "audio33"})
    with pytest.raises(InputError, match=r"--text minilm: the prior needs the column compound"):
        Predictor.from_pretrained("prior", {"text": "minilm"})


@pytest.mark.parametrize("heat", ["hot", [1], 0, -1, float("nan"), float("inf"), True])
def test_a_temperature_that_calibrates_nothing_is_refused(runs: Path, tmp_path: Path, heat: object) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs / "lf_dnn" / "seed-0", folder)
    config = json.loads((folder / "config.json").read_text()) | {"temperature": heat}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"the temperature is no number that calibrates"):
        Predictor.from_pretrained(folder)


def test_runs_that_differ_in_more_than_their_seed_are_not_averaged(runs: Path, tmp_path: Path) -> None:
    for name, hidden in (("a", 8), ("b", 16)):
        shutil.copytree(runs / "lf_dnn" / "seed-0", tmp_path / name)
        file = tmp_path / name / "experiment.json"
        file.write_text(file.read_text().replace('"hidden": 8', f'"hidden": {hidden}'))
    with pytest.raises(InputError, match=r"differ in more than seed and fold"):
        Predictor.from_pretrained(tmp_path)


def test_the_prior_says_with_every_prediction_that_nobody_trained_it(tmp_path: Path) -> None:
    said = Predictor.from_pretrained("prior", {"vision": "none", "text": "none"}).predict(
        sound(tmp_path / "a.wav", "sad", 1)
    )
    assert said.notes == (PRIOR_NOTE, UNCALIBRATED)


def test_of_two_classes_a_half_is_no_answer(runs: Path, tmp_path: Path) -> None:
    """One of the two always has that much."""
    predictor = Predictor.from_pretrained(runs / "lf_dnn")
    assert predictor._least(None) > 0.5


def test_many_segments_are_judged_as_few_at_a_time(runs: Path, tmp_path: Path) -> None:
    file = sound(tmp_path / "a.wav", "happy", 3, 4.0)
    rows = [f"{k * 0.05},{k * 0.05 + 0.5}" for k in range(SLICE + 5)]
    (tmp_path / "cut.csv").write_text("\n".join(["start_s,end_s", *rows]))
    predictor = Predictor.from_pretrained(runs / "lf_dnn")
    said = predictor.predict(file, segments=str(tmp_path / "cut.csv"))
    assert len(said.segments) == SLICE + 5
    (tmp_path / "last.csv").write_text("\n".join(["start_s,end_s", rows[-1]]))
    alone = predictor.predict(file, segments=tmp_path / "last.csv").segments[0]
    for name, p in alone.probabilities.items():
        assert said.segments[-1].probabilities[name] == pytest.approx(p, abs=1e-6)


def test_a_name_that_is_no_utf8_can_be_written_down(runs: Path, tmp_path: Path) -> None:
    file = sound(tmp_path / "a.wav", "sad", 1)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.wav"))
    file.rename(odd)
    said = Predictor.from_pretrained(runs / "lda_product").predict(odd)
    assert [f.exists() for f in write_prediction(said, odd, tmp_path / "out")] == [True] * 4


def test_where_nothing_can_be_written_it_is_said_before_the_work(
    runs: Path, tmp_path: Path, moodal: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "out").write_text("a file")
    done = moodal("predict", tmp_path / "none.mp4", "--model", runs / "lda_product", "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (2, f"moodal: {tmp_path / 'out'} is a file; --out wants a folder\n")
