"""A folder of media becomes a data set, whatever is broken in it and however often the work is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from moodal.data.store import read_dataset
from moodal.extraction.extract import Options, extract_media
from moodal.extraction.items import Item
from moodal.extraction.ledger import Failures
from moodal.extraction.manifest import read_manifest
from moodal.extraction.pool import Outcome
from moodal.extraction.work import Job, cut_items, extract_source, lines_of, transcriber
from moodal.features.audio import audio_features
from moodal.files import sha256
from moodal.media.decode import Probe
from moodal.media.transcripts import Line
from moodal.types import InputError, Segment

RATE_HZ = 22_050
SOUND = Options({"audio": "audio33"}, workers=1)


def sound(path: Path, seconds: float, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ)).astype(np.float32)
    soundfile.write(path, 0.1 * noise, RATE_HZ, subtype="FLOAT")


def content(folder: Path) -> dict[str, str]:
    """The data set's own bytes."""
    return {p.relative_to(folder).as_posix(): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extract") / "media"
    for k in range(6):
        sound(folder / f"{k}.wav", 0.3 + 0.1 * k, k)
    rows = [f"{k}.wav,{'sad' if k % 2 else 'happy'},actor-{k // 2}" for k in range(6)]
    (folder.parent / "labels.csv").write_text("\n".join(["video,label,speaker", *rows]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def whole(media: Path) -> Path:
    """An undisturbed extraction with one worker."""
    target = media.parent / "whole"
    extract_media(media, target, replace(SOUND, workers=1, labels=media.parent / "labels.csv", split_by="speaker"))
    return target


def test_features_are_the_extractors_own_and_labels_are_the_tables(media: Path, whole: Path) -> None:
    data = read_dataset(whole)
    assert [u.id for u in data.utterances] == ["0", "1", "2", "3", "4", "5"]
    assert [u.label for u in data.utterances] == ["happy", "sad"] * 3
    assert [u.group for u in data.utterances] == ["actor-0", "actor-0", "actor-1", "actor-1", "actor-2", "actor-2"]
    audio = data.batch.inputs["audio"]
    for k, clip in enumerate(audio.values.split(audio.lengths.tolist())):
        samples, _ = soundfile.read(media / f"{k}.wav", dtype="float32")
        np.testing.assert_allclose(clip.numpy(), audio_features(samples), atol=1e-3)
    assert json.loads((whole / "features/audio/spec.json").read_text())["name"] == "audio33"


def test_the_number_of_workers_and_the_second_time_change_no_byte(media: Path, whole: Path, tmp_path: Path) -> None:
    options = replace(SOUND, workers=3, labels=media.parent / "labels.csv", split_by="speaker")
    extract_media(media, tmp_path / "whole", options)
    assert content(tmp_path / "whole") == content(whole)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "whole.parts").glob("*.npz")}
    extract_media(media, tmp_path / "whole", options)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "whole.parts").glob("*.npz")} == before
    assert content(tmp_path / "whole") == content(whole)


def test_a_killed_extraction_goes_on_to_the_same_bytes(media: Path, whole: Path, tmp_path: Path) -> None:
    target = tmp_path / "whole"
    command = [sys.executable, "-m", "moodal", "extract", str(media), str(target), "--text", "none", "--vision", "none"]
    command += ["--labels", str(media.parent / "labels.csv"), "--split-by", "speaker", "--workers", "1"]
    for parts in (1, 3):  # killed once some are done
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and len(list(target.with_name("whole.parts").glob("*.npz"))) < parts:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        assert not target.exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert content(target) == content(whole)


def test_a_broken_file_is_in_the_ledger_and_the_rest_goes_on(
    media: Path, tmp_path: Path, moodal: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    folder = tmp_path / "media"
    sound(folder / "good.wav", 0.3, 0)
    (folder / "bad.wav").write_bytes(b"RIFF" + bytes(200))
    done = moodal("extract", folder, tmp_path / "out", "--text", "none", "--vision", "none", "--json")
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert (said["done"], said["failed"]) == (1, 1)
    assert "bad.wav" in said["problems"][0]["note"]
    ledger = pq.read_table(said["ledger"]).to_pylist()
    assert [(row["id"], row["stage"], row["status"]) for row in ledger] == [
        ("bad", "file", "failed"),
        ("good", "audio", "done"),
    ]
    assert [u.id for u in read_dataset(tmp_path / "out").utterances] == ["good"]


def test_a_broken_side_car_costs_the_words_alone(tmp_path: Path) -> None:
    sound(tmp_path / "media/a.wav", 0.3, 0)
    (tmp_path / "media/a.srt").write_text("1\n00:00:09,000 -> never\nwords\n", encoding="utf-8")
    found = extract_media(
        tmp_path / "media", tmp_path / "out", replace(SOUND, extractors={"text": "minilm", "audio": "audio33"})
    )
    assert [(e.stage, e.status) for e in found.entries] == [("text", "failed"), ("audio", "done")]
    assert "a.srt" in found.entries[0].note


def test_a_new_file_costs_only_itself(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    sound(folder / "a.wav", 0.3, 0)
    extract_media(folder, tmp_path / "out", SOUND)
    (first,) = (tmp_path / "out.parts").glob("*.npz")
    before = first.stat().st_mtime_ns
    sound(folder / "b.wav", 0.3, 1)
    extract_media(folder, tmp_path / "out", SOUND)
    assert first.stat().st_mtime_ns == before
    assert [u.id for u in read_dataset(tmp_path / "out").utterances] == ["a", "b"]


def test_a_file_that_keeps_failing_is_left_alone_until_asked(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    sound(folder / "a.wav", 0.3, 0)
    (folder / "b.wav").write_bytes(b"no sound")
    tries = [extract_media(folder, tmp_path / "out", SOUND).entries[-1] for _ in range(4)]
    assert [(e.status, e.tries) for e in tries] == [("failed", 1), ("failed", 2), ("skipped", 3), ("skipped", 3)]
    again = extract_media(folder, tmp_path / "out", replace(SOUND, retry=True)).entries[-1]
    assert (again.status, again.tries) == ("failed", 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options({"audio": "audio34"}), "no extractor called 'audio34'; did you mean 'audio33'"),
        (Options({}), "nothing to extract"),
        (replace(SOUND, cut="lines"), "--cut must be one of auto, whole, transcript, got 'lines'"),
        (replace(SOUND, limit_s=float("nan")), "--time-limit must be above 0 s, got nan"),
        (replace(SOUND, split_by="sex"), "no column in media called 'sex'"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(
    media: Path, tmp_path: Path, options: Options, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        extract_media(media, tmp_path / "out", options)
    assert not os.listdir(tmp_path)


def test_when_nothing_at_all_could_be_read_it_says_so(
    tmp_path: Path, moodal: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media/a.wav").write_bytes(b"no sound")
    done = moodal("extract", tmp_path / "media", tmp_path / "out", "--text", "none", "--vision", "none", "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, said["done"], said["failed"], said["path"]) == (1, 0, 1, None)
    assert "nothing could be extracted from" in done.stderr
    assert "a.wav" in done.stderr
    assert Path(said["ledger"]).exists()
    assert not (tmp_path / "out").exists()


def test_what_was_skipped_is_still_missing(
    tmp_path: Path, moodal: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    sound(tmp_path / "media/a.wav", 0.3, 0)
    (tmp_path / "media/b.wav").write_bytes(b"no sound")
    for _ in range(3):
        extract_media(tmp_path / "media", tmp_path / "out", SOUND)
    done = moodal("extract", tmp_path / "media", tmp_path / "out", "--text", "none", "--vision", "none", "--json")
    assert (done.returncode, json.loads(done.stdout)["skipped"]) == (1, 1)


def test_the_result_of_another_folder_is_not_replaced(tmp_path: Path) -> None:
    for name in ("one", "two"):
        sound(tmp_path / name / "a.wav", 0.3, 0)
    extract_media(tmp_path / "one", tmp_path / "out", SOUND)
    with pytest.raises(InputError, match="exists already; choose another folder, or say --overwrite"):
        extract_media(tmp_path / "two", tmp_path / "out", SOUND)


def test_a_folder_that_is_something_else_is_refused_before_any_work(media: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").touch()
    (tmp_path / "file").touch()
    for name in ("out", "file"):
        with pytest.raises(InputError, match="exists already; choose another folder, or say --overwrite"):
            extract_media(media, tmp_path / name, SOUND)
    with pytest.raises(InputError, match="names no folder to make"):
        extract_media(media, tmp_path / "..", SOUND)
    assert sorted(os.listdir(tmp_path)) == ["file", "out"]


def test_face_models_that_cannot_be_had_are_missed_before_any_work(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOODAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MOODAL_FACE_MODELS", str(tmp_path / "nowhere"))
    options = replace(SOUND, extractors={"audio": "audio33", "vision": "au_proxy"})
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.mp4").touch()
    with pytest.raises(InputError, match="MOODAL_FACE_MODELS is"):
        extract_media(tmp_path / "clips", tmp_path / "out", options)
    assert not (tmp_path / "out.parts").exists()
    extract_media(media, tmp_path / "out", options)  # sound needs none
    assert read_dataset(tmp_path / "out").modalities == ("audio",)


def test_a_stage_that_failed_is_tried_again_like_a_file(tmp_path: Path) -> None:
    file = tmp_path / "media/a.mkv"
    sound(tmp_path / "media/b.wav", 0.3, 0)
    video_with_sound(file)
    file.write_bytes(file.read_bytes().replace(b"A_PCM/INT/LIT", b"A_PCM/INT/LIX"))
    tries = [extract_media(tmp_path / "media", tmp_path / "out", SOUND).entries for _ in range(3)]
    assert [(e[0].stage, e[0].status, e[0].tries) for e in tries] == [
        ("audio", "failed", 1),
        ("audio", "failed", 2),
        ("audio", "skipped", 3),
    ]
    assert all(e[1].status == "done" for e in tries)
    for again in (True, False):  # what was forgotten is forgotten for good
        entry = extract_media(tmp_path / "media", tmp_path / "out", replace(SOUND, retry=again)).entries[0]
        assert (entry.status, entry.tries) == ("failed", 1 if again else 2)


def test_a_part_that_was_damaged_is_made_again(tmp_path: Path) -> None:
    sound(tmp_path / "media/a.wav", 0.3, 0)
    extract_media(tmp_path / "media", tmp_path / "out", SOUND)
    before = content(tmp_path / "out")
    (part,) = (tmp_path / "out.parts").glob("*.npz")
    part.write_bytes(part.read_bytes()[:200])
    (part.parent / f".{part.name}.partial-1").touch()  # left by a process that was killed
    extract_media(tmp_path / "media", tmp_path / "out", SOUND)
    assert content(tmp_path / "out") == before
    assert not list(part.parent.glob(".*"))


def test_failures_survive_a_torn_line_and_any_file_name(tmp_path: Path) -> None:
    failures = Failures(tmp_path / "failures.jsonl")
    failures.record("a", "line\u2028break\udcff.wav", "first")
    with failures.path.open("ab") as f:
        f.write(b'\n{"key": "\xc3')
    failures.record("a", "a.wav", "second")
    failures.record("b", "b.wav", "third")
    failures.forget(["b"])
    again = Failures(failures.path)
    assert (again.tries("a"), again.last("a"), again.tries("b")) == (2, "second", 0)


def test_a_full_disk_ends_the_command_and_blames_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound(tmp_path / "media/a.wav", 0.3, 0)
    job = Job(read_manifest(tmp_path / "media").sources[0], {"audio": "audio33"}, tmp_path / "gone/part.npz")
    assert "part.npz could not be written: No such file" in extract_source(job)
    blamed = Outcome(job, "the disk is full")
    monkeypatch.setattr("moodal.extraction.extract.run_jobs", lambda *args, **kwargs: iter([blamed]))
    with pytest.raises(InputError, match="the disk is full"):
        extract_media(tmp_path / "media", tmp_path / "out", SOUND)
    assert not (tmp_path / "out.parts/failures.jsonl").exists()


def test_parts_of_a_cut_file_have_its_label_and_another_file_has_its_own(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 61, 0)
    rows = ["video,label,text,start_s,end_s", "a.wav,sad,,,", "a.wav,happy,mine,1,2"]
    (tmp_path / "clips.csv").write_text("\n".join(rows), encoding="utf-8")
    extract_media(tmp_path / "clips.csv", tmp_path / "out", SOUND)
    found = [(u.id, u.label, u.text) for u in read_dataset(tmp_path / "out").utterances]
    assert found == [
        ("a_000_000", "sad", None),
        ("a_000_001", "sad", None),
        ("a_000_002", "sad", None),
        ("a_001", "happy", "mine"),
    ]


def test_columns_of_labels_without_a_label_are_no_labels(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 0.3, 0)
    (tmp_path / "clips.csv").write_text("video,label\na.wav,\n", encoding="utf-8")
    found = extract_media(tmp_path / "clips.csv", tmp_path / "out", SOUND)
    assert found.notes == ("nobody has labelled it yet: its classes are a proposal",)


def video_with_sound(path: Path) -> None:
    """Two seconds of grey pictures and noise."""
    import av

    with av.open(str(path), "w") as container:
        pictures, noise = container.add_stream("mpeg4", rate=10), container.add_stream("pcm_s16le", rate=RATE_HZ)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        for k in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * k, np.uint8), "rgb24")
            frame.pts = k
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        samples = np.random.default_rng(0).integers(-3000, 3000, (1, 2 * RATE_HZ)).astype(np.int16)
        block = av.AudioFrame.from_ndarray(samples, "s16", "mono")
        block.sample_rate = RATE_HZ
        container.mux([*noise.encode(block), *noise.encode(None)])


# How a file is cut

LINES = (Line(0.5, 2.0, "One.", "A"), Line(2.0, 4.0, "Two.", "A"), Line(70.0, 72.0, "Three.", "B"))


def probe_of(duration_s: float) -> Probe:
    return Probe(duration_s, None, None)


def test_a_short_file_is_one_utterance_with_all_its_words() -> None:
    assert cut_items([Item("a")], probe_of(5), LINES[:2], "auto") == [(Item("a", None, "One. Two."), "A")]


def test_a_long_file_is_cut_by_its_transcript_or_into_equal_spans() -> None:
    by_lines = cut_items([Item("a")], probe_of(75), LINES, "auto")
    assert [(i.id, i.segment, i.text, s) for i, s in by_lines] == [
        ("a_000", Segment(0.5, 2), "One.", "A"),
        ("a_001", Segment(2, 4), "Two.", "A"),
        ("a_002", Segment(70, 72), "Three.", "B"),
    ]
    spans = [i.segment for i, _ in cut_items([Item("a")], probe_of(75), (), "auto")]
    assert spans == [Segment(0, 25), Segment(25, 50), Segment(50, 75)]
    assert cut_items([Item("a")], probe_of(75), (), "whole") == [(Item("a"), None)]


def test_a_given_segment_stays_and_gets_the_lines_whose_middle_lies_in_it() -> None:
    item = Item("a", Segment(1, 3))
    assert cut_items([item], probe_of(75), LINES, "transcript") == [(Item("a", Segment(1, 3), "One."), "A")]
    own = Item("a", Segment(1, 3), "Mine.")
    assert cut_items([own], probe_of(75), LINES, "auto") == [(own, None)]


def test_a_file_with_words_of_its_own_stays_whole() -> None:
    assert cut_items([Item("a", None, "Mine.")], probe_of(75), LINES, "auto") == [(Item("a", None, "Mine."), None)]


def test_a_header_that_promises_years_is_not_believed() -> None:
    assert len(cut_items([Item("a")], probe_of(1e12), (), "auto")) == 24 * 3600 / 30


@pytest.mark.parametrize("names", [("happy", "sad", "angry"), ("3", "5", "9")])
def test_a_class_that_only_a_broken_file_has_stays_a_class(tmp_path: Path, names: tuple[str, ...]) -> None:
    """The numbers are names here, not positions in the list of classes."""
    rows = ["video,label"]
    for k, name in enumerate(names):
        sound(tmp_path / "media" / f"{k}.wav", 0.3, k)
        rows.append(f"{k}.wav,{name}")
    (tmp_path / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    options = replace(SOUND, labels=tmp_path / "labels.csv")
    extract_media(tmp_path / "media", tmp_path / "whole", options)
    last = tmp_path / "media" / "2.wav"
    good, _ = last.read_bytes(), last.write_bytes(b"RIFF" + bytes(100))
    extract_media(tmp_path / "media", tmp_path / "less", options)
    whole, less = read_dataset(tmp_path / "whole"), read_dataset(tmp_path / "less")
    assert less.task == whole.task
    assert [u.label for u in less.utterances] == [u.label for u in whole.utterances][:2]
    last.write_bytes(good)


def test_a_speaker_of_a_transcript_is_another_one_in_another_video(tmp_path: Path) -> None:
    for k in range(2):
        sound(tmp_path / "media" / f"{k}.wav", 1.0, k)
        lines = "WEBVTT\n\n00:00.000 --> 00:00.400\n<v SPEAKER_00>Yes.\n\n00:00.500 --> 00:00.900\n<v SPEAKER_01>No.\n"
        (tmp_path / "media" / f"{k}.vtt").write_text(lines, encoding="utf-8")
    extract_media(tmp_path / "media", tmp_path / "data", replace(SOUND, cut="transcript"))
    utterances = read_dataset(tmp_path / "data").utterances
    assert [u.speaker for u in utterances] == ["SPEAKER_00", "SPEAKER_01"] * 2
    assert [u.group for u in utterances] == ["0.wav"] * 2 + ["1.wav"] * 2


def test_an_extractor_of_another_modality_is_refused_before_any_work(media: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--vision audio33: that one reads audio"):
        extract_media(media, tmp_path / "out", Options({"vision": "audio33"}))
    assert not list(tmp_path.iterdir())


class Whisper:
    """In place of the real one, whose weights are not here: it says how loud each second is."""

    def __init__(self, model: str, **settings: object) -> None:
        if model != "tiny":
            raise ValueError(f"no model {model}")

    def transcribe(self, samples: np.ndarray, language: str | None) -> tuple[list[SimpleNamespace], None]:
        heard = [x for x in np.split(samples, range(16_000, len(samples), 16_000)) if len(x) == 16_000]
        words = ("loud" if np.abs(x).max() > 0.2 else "soft" for x in heard)
        return [SimpleNamespace(start=float(k), end=k + 1.0, text=word) for k, word in enumerate(words)], None


def test_speech_without_a_transcript_is_written_down_where_a_model_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", type("faster_whisper", (), {"WhisperModel": Whisper}))
    monkeypatch.setattr("moodal.extraction.work.ASR_BLOCK_S", 2.0)  # so that blocks follow each other
    tone = 0.1 * np.sin(2 * np.pi * 300 * np.arange(5 * RATE_HZ) / RATE_HZ)
    tone[3 * RATE_HZ :] *= 5
    soundfile.write(tmp_path / "a.wav", tone, RATE_HZ)
    transcriber.cache_clear()
    try:
        lines, problem = lines_of(tmp_path / "a.wav", "tiny")
        words = ["soft", "soft", "soft", "loud", "loud"]
        assert (problem, [(x.start_s, x.text) for x in lines]) == ("", list(enumerate(words)))
        (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nWritten.\n")
        assert [x.text for x in lines_of(tmp_path / "a.wav", "tiny")[0]] == ["Written."]
        with pytest.raises(InputError, match="there is no Whisper model 'huge'"):
            extract_media(tmp_path, tmp_path.parent / "out", replace(SOUND, asr="huge"))
    finally:
        transcriber.cache_clear()
