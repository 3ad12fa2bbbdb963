"""Files hold all of a prediction, and others read them."""

import csv
import io
import json

import pandas
import pytest
from tests.serving.predictions import CLASSES, happy, of, scored, unsure

from moodal.media.transcripts import read_transcript, transcript_source
from moodal.serving.files import as_captions, as_csv, write_captions, write_prediction
from moodal.types import InputError


def rows(prediction):
    return list(csv.DictReader(io.StringIO(as_csv(prediction))))


def test_captions_say_what_was_felt_and_said():
    assert as_captions(of(happy(), unsure(), notes=("untrained",))) == (
        "WEBVTT\n\nNOTE emotions by moodal, model prior\n\nNOTE untrained\n\n"
        "00:00:00.000 --> 00:00:02.000\n<v Ann>[happy 72%] how nice\n\n"
        "00:00:02.000 --> 00:00:03.500\n[unsure]\n"
    )


def test_captions_come_back_as_they_were_whatever_was_said(tmp_path):
    words = 'a < b && <b>c</b> --> "d"\n\nNOTE no comment\n00:00:01.000 --> 00:00:02.000'
    video = tmp_path / "a.mp4"
    video.touch()
    write_captions(of(happy(text=words, speaker="A <&> B"), unsure(3725.5, 3726.25)), tmp_path / "a.vtt")
    first, second = read_transcript(video)
    assert first.text == f"[happy 72%] {' '.join(words.split())}"
    assert first.speaker == "A <&> B"
    assert (second.start_s, second.end_s, second.text) == (3725.5, 3726.25, "[unsure]")


def test_a_cue_lasts_and_cues_are_in_order(tmp_path):
    text = as_captions(of(unsure(5.0001, 5.0002), unsure(1.0, 2.0)))
    assert text.index("00:00:01.000") < text.index("00:00:05.000 --> 00:00:05.001")


def test_the_table_has_a_row_per_segment_and_rounds_nothing():
    first, second = rows(of(happy(1 / 3, 2.0), unsure()))
    assert float(first["start_s"]) == 1 / 3
    assert (first["emotion"], first["probability"], first["p_sad"]) == ("happy", "0.72", "0.08")
    assert (first["relevance_audio"], first["alone_vision"], first["alone_vision_p"]) == ("0.6", "sad", "0.6")
    assert (second["emotion"], second["abstained"], second["missing"]) == ("", "True", "text vision")
    assert (second["alone_text"], second["note_vision"]) == ("", "no face in 38 frames")


def test_a_table_of_scores_has_scores():
    (row,) = rows(of(scored(-0.5), classes=()))
    assert (row["score"], row["alone_text"], row["alone_audio"]) == ("-0.5", "-0.25", "-0.25")
    assert not {"emotion", "p_happy", "alone_text_p"} & row.keys()


def test_the_table_is_the_same_with_and_without_rows():
    assert as_csv(of()).splitlines()[0] == as_csv(of(happy())).splitlines()[0]


def test_words_with_commas_quotes_and_line_breaks_stay_one_cell():
    words = 'one, "two"\nthree'
    assert rows(of(happy(text=words)))[0]["text"] == words


def test_a_folder_gets_all_files_and_none_is_taken_for_a_transcript(tmp_path):
    video = tmp_path / "a.mp4"
    video.touch()
    files = write_prediction(of(happy(), unsure()), None, tmp_path)
    assert [f.name for f in files] == [f"a.emotions.{kind}" for kind in ("json", "csv", "vtt", "png")]
    assert sorted(tmp_path.iterdir()) == sorted([video, *files])
    assert json.loads(files[0].read_text())["segments"][1]["abstained"] is True
    assert list(pandas.read_csv(files[1])["emotion"].fillna("")) == ["happy", ""]
    assert {f"p_{c}" for c in CLASSES} <= set(pandas.read_csv(files[1]).columns)
    assert files[3].read_bytes().startswith(b"\x89PNG")
    video.unlink()
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(Exception, match="could not be opened"):  # nothing beside it: it looks inside
        transcript_source(tmp_path / "a.wav")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="is a file; --out wants a folder"):
        write_prediction(of(happy()), None, tmp_path / "out")
