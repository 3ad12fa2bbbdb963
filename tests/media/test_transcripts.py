"""Every word that is said is found with its time, and a broken file names its line."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.media.conftest import every

from moodal.media.transcripts import FasterWhisper, Line, read_transcript, transcript_source
from moodal.types import InputError

DATA = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))

SRT = """1
00:00:01,000 --> 00:00:02,500
Hello,
<i>world</i>!

2
00:00:03,000 --> 00:00:04,000
{\\an8}42

3
00:01:05,250 --> 01:00:00,000
I <3 you

after it
"""

VTT = """WEBVTT - a title

STYLE
::cue { color: red }

intro
00:01.000 --> 00:02.500 line:80%
<v.loud Ann Lee>Hello,</v>
<c.yellow>world</c> &amp; <00:01.500>all

NOTE
nobody says this

7
00:00:03.000 --> 00:00:04.000
<v Ann>One <v Bob>Two
"""

ASS = """[Script Info]
Title: Dialogue: no

[V4+ Styles]
Format: Name, Fontname
Style: Default,Arial

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Comment: 0,0:00:00.00,0:00:09.00,Default,,0,0,0,,nobody says this
Dialogue: 0,0:00:01.00,0:00:02.50,Default,Ann,0,0,0,,{\\i1}Hello{\\i0},\\Nworld, and all
Dialogue: 0,0:00:03.00,0:00:04.00,Default,,0,0,0,,{\\p1}m 0 0 l 10 10{\\p0}
"""

CSV = 'start_s,end_s,text,speaker\n1,2.5,"Hello, ""world""",Ann\n3,4,two,\n'


@pytest.fixture
def video(tmp_path):
    """A file that is only looked at beside."""
    path = tmp_path / "Überraschung.clip.mp4"
    path.write_bytes(b"")
    return path


def beside(video, suffix, text, encoding="utf-8"):
    path = video.with_suffix(suffix)
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("suffix", "text", "lines"),
    [
        (".srt", SRT, [(1, 2.5, "Hello, world!", None), (3, 4, "42", None), (65.25, 3600, "I <3 you after it", None)]),
        (".vtt", VTT, [(1, 2.5, "Hello, world & all", "Ann Lee"), (3, 4, "One Two", None)]),
        (".ass", ASS, [(1, 2.5, "Hello, world, and all", "Ann")]),
        (".csv", CSV, [(1, 2.5, 'Hello, "world"', "Ann"), (3, 4, "two", None)]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_what_is_said_when_and_by_whom(video, suffix, text, lines, ending):
    path = beside(video, suffix, text.replace("\n", ending))
    assert read_transcript(video) == tuple(Line(*line) for line in lines)
    assert transcript_source(video) == str(path)


def test_a_transcript_without_a_speaker_column(video):
    beside(video, ".csv", "start_s, end_s, text\n0, 1, hm\n")
    assert read_transcript(video) == (Line(0.0, 1.0, "hm"),)


def test_lines_are_sorted_and_may_overlap(video):
    beside(video, ".csv", "start_s,end_s,text\n5,6,c\n0,9,a\n0,2,b\n")
    assert [x.text for x in read_transcript(video)] == ["b", "a", "c"]


def test_lines_in_which_nothing_is_said_are_left_out(video):
    beside(video, ".srt", "1\n00:00:01,000 --> 00:00:02,000\n\n2\n00:00:03,000 --> 00:00:03,000\nno time\n")
    assert read_transcript(video) == ()
    beside(video, ".srt", "")
    assert read_transcript(video) == ()


def test_the_first_kind_of_file_is_taken(video):
    beside(video, ".csv", CSV)
    beside(video, ".vtt", VTT)
    path = beside(video, ".SRT", SRT)
    assert transcript_source(video) == str(path)


def test_a_table_of_something_else_is_no_transcript(make_video):
    """OpenFace writes its columns beside the video, under the same name."""
    video = make_video("a.mp4", every(3))
    beside(video, ".csv", "frame, timestamp, confidence, AU01_r\n1,0.0,0.98,0.3\n")
    assert read_transcript(video) == ()
    assert transcript_source(video) is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("suffix", [".vtt", ".csv"])
def test_the_encoding_is_utf_8_or_what_the_file_says(video, suffix, encoding):
    said = "Das heißt 日本."
    start = {".vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\n", ".csv": "start_s,end_s,text\n1,2,"}[suffix]
    beside(video, suffix, f"{start}{said}\n", encoding)
    assert read_transcript(video) == (Line(1.0, 2.0, "Das heißt 日本."),)


SRT_HEAD = "1\n00:00:01,000 --> 00:00:02,000\nHi\n\n"


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        (".srt", SRT_HEAD + "2\n00:00:03,000 -> 00:00:04,000\nHo\n", "line 6: expected 00:00:01,000 -->"),
        (".srt", SRT_HEAD + "2\n00:00:03,000 --> 00:00:xx,000\nHo\n", "line 6: expected 00:00:01,000 -->"),
        (".srt", SRT_HEAD + "2\n00:00:73,000 --> 00:01:20,000\nHo\n", "line 6: expected 00:00:01,000 -->"),
        (".srt", SRT_HEAD + "2\n00:00:03,000 --> 00:00:02,000\nHo\n", "line 6: ends at 2 s, before its start at 3 s"),
        (".srt", "<html>no</html>", "line 1: no line like 00:00:01,000"),
        (".vtt", SRT, "line 1: a WebVTT file begins with WEBVTT"),
        (".vtt", "WEBVTT\n\n00:01.000 --> 2\nHi\n", "line 3: expected"),
        (".ass", SRT, r"line 1: no \[Events\]"),
        (".ass", ASS + "Dialogue: 0,soon,0:00:02.50,Default,Ann,0,0,0,,Hi\n", "line 13: expected the fields layer"),
        (".ass", ASS + "Dialogue: 0,0:00:01.00\n", "line 13: expected the fields layer"),
        (".csv", "start_s,text\n1,a\n", "line 1: no column end_s; there are start_s, text"),
        (".csv", "start_s,end_s,text\n1,2,a\n3,later,b\n", "line 3: .* from 0, got '3' and 'later'"),
        (".csv", "start_s,end_s,text\nnan,2,a\n", "line 2: start_s and end_s must be seconds"),
        (".csv", "start_s,end_s,text\n-1,2,a\n", "line 2: start_s and end_s must be seconds"),
        (".csv", "start_s,end_s,text\n3,2,a\n", "line 2: ends at 2 s, before its start at 3 s"),
        (".csv", "start_s,end_s,text\n1,2,a, b\n", "line 2: another number of values than columns"),
        (".csv", "start_s,end_s,text\n1,2\n", "line 2: another number of values than columns"),
        (".csv", f"start_s,end_s,text\n1,2,{'a' * 200_000}\n", "line 2: field larger than field limit"),
        (".srt", SRT_HEAD + "2\n\0", "line 6: a zero byte; if it is UTF-16, save it as UTF-8"),
    ],
)  # fmt: skip
def test_a_broken_file_names_its_line(video, suffix, text, message):
    path = beside(video, suffix, text)
    with pytest.raises(InputError, match=message) as error:
        read_transcript(video)
    assert str(error.value).startswith(f"{path}, line ")


def test_another_encoding_is_not_guessed(video):
    beside(video, ".srt", SRT_HEAD + "2\n00:00:03,000 --> 00:00:04,000\ncafé\n", "windows-1252")
    with pytest.raises(InputError, match=r"line 7: not UTF-8 \(byte 0xe9\); save it as UTF-8, for example: iconv"):
        read_transcript(video)


def test_a_file_of_that_size_is_no_transcript(video):
    beside(video, ".srt", "a" * (2**24 + 1))
    with pytest.raises(InputError, match="has more than 16 MB; that is no transcript"):
        read_transcript(video)


def test_a_video_that_is_not_there_is_the_users_mistake(tmp_path):
    for function in (read_transcript, transcript_source):
        with pytest.raises(InputError, match=r"nothing\.mp4 does not exist"):
            function(tmp_path / "nothing.mp4")


@pytest.mark.parametrize("suffix", [".srt", ".vtt", ".ass", ".csv"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_in_a_file_it_is_lines_or_a_refusal(make_video, suffix, data):
    path = (make_video("a.mp4", every(1))).with_suffix(suffix)
    whole = {".srt": SRT, ".vtt": VTT, ".ass": ASS, ".csv": CSV}[suffix].encode()
    at = data.draw(st.integers(0, len(whole)))
    words = st.text(max_size=8).map(str.encode) | st.sampled_from([b"-->", b"{", b'"', b"<"])
    noise = data.draw(st.binary(max_size=8) | words)
    path.write_bytes(whole[:at] + noise + whole[at + len(noise) :])
    with contextlib.suppress(InputError):
        assert all(0 <= x.start_s < x.end_s and x.text for x in read_transcript(path.with_suffix(".mp4")))


def test_hostile_markup_takes_no_time(video):
    for text in ("<a" * 500_000, "{\\" * 500_000, "<v " * 500_000, "{\\p1}" * 300_000):
        beside(video, ".vtt", f"WEBVTT\n\n00:01.000 --> 00:02.000\n{text}\n")
        assert len(read_transcript(video)) <= 1
        beside(video, ".ass", f"{ASS}Dialogue: 0,0:00:05.00,0:00:06.00,Default,,0,0,0,,{text}\n")
        assert len(read_transcript(video)) <= 2
        video.with_suffix(".ass").unlink()
        video.with_suffix(".vtt").unlink()


def test_simple_files_are_read_as_pysubs2_reads_them(video):
    pysubs2 = pytest.importorskip("pysubs2")
    events = [
        pysubs2.SSAEvent(start=i * 1500, end=i * 1500 + 1234, text=f"Line {i}\\N{{\\i1}}two{{\\i0}}") for i in range(9)
    ]
    expected = tuple(Line(i * 1.5, (i * 1500 + 1234) / 1000, f"Line {i} two") for i in range(9))
    subs = pysubs2.SSAFile()
    subs.events = events
    for suffix in (".srt", ".vtt", ".ass"):
        path = video.with_suffix(suffix)
        subs.save(str(path))
        read = read_transcript(video)
        assert [x.text for x in read] == [x.text for x in expected]
        tick = 0.01 if suffix == ".ass" else 1e-9
        for one, two in zip(read, expected, strict=True):
            assert (one.start_s, one.end_s) == pytest.approx((two.start_s, two.end_s), abs=tick)
        path.unlink()


# Inside the video


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mov_text"), ("a.mkv", "srt")])
@pytest.mark.parametrize("offset_s", [0.0, 3.0])
def test_subtitles_inside_the_file(make_video, name, codec, offset_s):
    captions = [
        (offset_s + 0.4, offset_s + 1.2, "{\\i1}Hello,{\\i0}\\Nworld é"),
        (offset_s + 1.6, offset_s + 1.9, "two"),
    ]
    video = make_video(name, [offset_s + t for t in every(75)], captions=captions)
    lines = read_transcript(video)
    assert [(x.text, x.speaker) for x in lines] == [("Hello, world é", None), ("two", None)]
    assert [(x.start_s, x.end_s) for x in lines] == [pytest.approx(t, abs=2e-3) for t in ((0.4, 1.2), (1.6, 1.9))]
    assert transcript_source(video) == f"subtitle stream 1 ({codec}) of {video}"


def test_a_file_beside_goes_before_subtitles_inside(make_video):
    video = make_video("a.mkv", every(25), captions=[(0.1, 0.5, "inside")])
    beside(video, ".csv", "start_s,end_s,text\n0,1,beside\n")
    assert [x.text for x in read_transcript(video)] == ["beside"]


def test_no_words_anywhere(make_video):
    video = make_video("a.mkv", every(5))
    assert read_transcript(video) == ()
    assert transcript_source(video) is None


def test_a_file_beside_needs_no_decoder(video):
    beside(video, ".vtt", VTT)
    code = (
        "import sys; sys.modules['av'] = None\nfrom pathlib import Path\n"
        f"from moodal.media.transcripts import read_transcript\nassert len(read_transcript(Path({str(video)!r}))) == 2"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Words from sound


def test_writing_down_speech_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(InputError, match="install it: pip install faster-whisper"):
        FasterWhisper("tiny")


class Whisper:
    """Stands for a model, which nobody may download in a test: the calls are those of faster-whisper 1.2."""

    def __init__(self, model, *, device, compute_type, cpu_threads, local_files_only):
        assert local_files_only, "nothing is downloaded"
        if model == "absent":
            raise OSError("cannot find the files in the local cache")

    def transcribe(self, samples, *, language):
        said = [(0.0, 1.0, " Hello"), (1.0, 2.0, " "), (2.0, 3.0, " world")]
        return (type("Segment", (), dict(zip(("start", "end", "text"), s, strict=True))) for s in said), None


@pytest.fixture
def whisper(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_whisper", type("faster_whisper", (), {"WhisperModel": Whisper}))


def test_words_from_sound(whisper):
    write_down = FasterWhisper("tiny")
    assert write_down(np.zeros(16_000, np.float32), 16_000) == (Line(0.0, 1.0, "Hello"), Line(2.0, 3.0, "world"))
    assert write_down(np.zeros(0, np.float32), 16_000) == ()
    with pytest.raises(InputError, match="needs sound at 16000 Hz, got 22050"):
        write_down(np.zeros(10, np.float32), 22_050)


def test_a_model_that_is_not_here_is_not_fetched(whisper):
    with pytest.raises(InputError, match="there is no Whisper model 'absent' on this machine; give a folder with one"):
        FasterWhisper("absent")


# Real file


@pytest.mark.corpus
def test_the_film_with_captions_beside_it():
    video = DATA / "clips" / "friday.mp4"
    if not video.is_file():
        pytest.skip(f"{video} is not there; set MOODAL_DATA")
    lines = read_transcript(video)
    assert len(lines) == 5
    assert lines[0] == Line(0.0, 0.999, "Hildy!")
    assert lines[2] == Line(1.5, 2.999, "Tell me, is the lord of the universe in?")
    assert transcript_source(video) == str(video.with_suffix(".vtt"))
