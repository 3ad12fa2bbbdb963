"""Segments are what was asked for, by time, inside the video, none too long, with the words that are said in them."""

import logging
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.media.conftest import every, tone
from tests.media.test_shots import scenes
from tests.media.test_speech import quiet, voice

from moodal.media.decode import Probe, probe
from moodal.media.transcripts import Line, read_transcript
from moodal.serving.segments import divide_at_cuts, find_segments, read_segments
from moodal.types import InputError, Segment

DATA = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
LINES = (Line(0.5, 2.0, "hello", "Ann"), Line(2.5, 4.0, "well, hello", "Bob"))


def spans(cuts):
    return [(item.segment.start_s, item.segment.end_s) for item, _ in cuts]


def cut(video, how="auto", lines=()):
    return find_segments(video, probe(video), lines, how)


@pytest.fixture
def short(make_video):
    """4 s, two shots, nobody speaks."""
    return make_video("short.mkv", every(100), sound=[(0.0, quiet(4))], draw=scenes(50))


@pytest.fixture
def long(make_video):
    """24 s at 5 pictures a second: shots of 9 s and 15 s, somebody speaks from 8 s on, over the cut."""
    sound = np.concatenate([quiet(8), voice(3), quiet(13)])
    return make_video("long.mkv", every(120, 5.0), sound=[(0.0, sound)], draw=scenes(45))


def test_a_short_video_is_one_segment(short):
    ((item, speaker),) = cut(short)
    assert (item.id, item.segment.start_s, item.text, speaker) == ("short", 0.0, None, None)
    assert item.segment.end_s == pytest.approx(4.0, abs=0.05)


def test_a_transcript_is_one_segment_per_line(short):
    cuts = cut(short, lines=LINES)
    assert spans(cuts) == [(0.5, 2.0), (2.5, 4.0)]
    assert [(item.id, item.text, who) for item, who in cuts] == [
        ("short_000", "hello", "Ann"),
        ("short_001", "well, hello", "Bob"),
    ]
    assert spans(cut(short, "transcript", LINES)) == spans(cuts)


def test_lines_after_the_end_are_left_out_and_said(short, caplog):
    with caplog.at_level(logging.WARNING):
        cuts = cut(short, lines=(*LINES, Line(3.5, 9.0, "over the end"), Line(7.0, 8.0, "never said")))
    assert spans(cuts)[2:] == [(3.5, pytest.approx(4.0, abs=0.05))]
    assert "1 of 4 lines lie after its end" in caplog.text


def test_without_any_line_of_its_own_a_transcript_is_as_good_as_none(short):
    assert len(cut(short, lines=(Line(50.0, 51.0, "of another film"),))) == 1
    with pytest.raises(InputError, match="no line of its transcript lies within it; cut it by speech"):
        cut(short, "transcript", (Line(50.0, 51.0, "of another film"),))


def test_a_transcript_that_is_wanted_and_not_there_is_an_error(short):
    with pytest.raises(InputError, match="has no transcript to cut it by"):
        cut(short, "transcript")


def test_whole_is_whole_however_long_and_has_all_the_words(long):
    ((item, speaker),) = cut(long, "whole", LINES)
    assert item.segment.end_s == pytest.approx(24, abs=0.3)
    assert (item.text, speaker) == ("hello well, hello", None)


def test_speech_is_divided_at_a_cut(long):
    found = spans(cut(long))
    assert [start for start, _ in found] == [pytest.approx(8, abs=0.4), pytest.approx(9, abs=0.01)]
    assert found[0][1] == found[1][0]
    assert found == spans(cut(long, "speech"))


def test_without_speech_shots_are_segments_and_long_ones_are_divided(make_video):
    video = make_video("a.mkv", every(120, 5.0), sound=[(0.0, tone(24))], draw=scenes(45))
    assert [start for start, _ in spans(cut(video))] == pytest.approx([0, 9, 16.5], abs=0.2)
    assert spans(cut(video)) == spans(cut(video, "shots"))


def test_without_picture_and_speech_spans_are_equal(make_video):
    video = make_video("a.mkv", sound=[(0.0, tone(24))])
    found = spans(cut(video))
    assert [end - start for start, end in found] == pytest.approx([8, 8, 8], abs=0.05)


def test_what_is_asked_for_and_not_there_is_said(make_video, caplog):
    silent = make_video("a.mkv", every(60, 5.0), draw=scenes(30))
    with caplog.at_level(logging.WARNING):
        assert len(cut(silent, "speech")) == 2
        assert len(cut(make_video("b.mkv", sound=[(0.0, tone(3))]), "shots")) == 1
    assert "nobody speaks; it is cut by its shots" in caplog.text
    assert "there is no picture" in caplog.text


def test_a_number_is_a_length_and_a_short_rest_belongs_to_the_last(long):
    assert spans(cut(long, "5"))[:4] == [(0, 5), (5, 10), (10, 15), (15, 20)]
    last = spans(cut(long, "11.9"))[-1]
    assert last == (11.9, pytest.approx(24, abs=0.3))


def test_words_are_those_said_in_the_middle_of_a_segment(short):
    cuts = cut(short, "2", LINES)
    assert [(item.text, who) for item, who in cuts] == [("hello", "Ann"), ("well, hello", "Bob")]


@pytest.mark.parametrize("how", ["0", "0.1", "-5", "nan", "inf", "1e9", "words", ""])
def test_what_cannot_cut_is_refused(short, how):
    with pytest.raises(InputError, match="or a number of seconds from"):
        cut(short, how)


def test_too_many_segments_are_refused(short):
    with pytest.raises(InputError, match="more than 10000; make them longer"):
        find_segments(short, Probe(86_000.0, None, None), (), "1")


def test_a_file_that_does_not_say_how_long_it_is_is_measured(short):
    found = probe(short)
    ((item, _),) = find_segments(short, Probe(None, found.video, found.audio), (), "whole")
    assert item.segment.end_s == pytest.approx(4.0, abs=0.05)


# Speech and cuts


def divided(speech, *cuts):
    edges = [0.0, *cuts, 100.0]
    found = divide_at_cuts([Segment(*s) for s in speech], [Segment(a, b) for a, b in pairwise(edges)])
    return [(s.start_s, s.end_s) for s in found]


def test_pieces_lie_in_one_shot():
    assert divided([(1, 5), (6, 9)], 3.0, 7.0) == [(1, 3), (3, 5), (6, 7), (7, 9)]


def test_a_short_piece_joins_its_neighbour_in_the_same_shot():
    assert divided([(1, 3.2), (3.7, 6)], 3.0) == [(1, 3), (3.0, 6)]


def test_of_two_neighbours_in_the_shot_it_joins_the_longer():
    assert divided([(1, 2), (2.4, 2.7), (3.1, 6)]) == [(1, 2), (2.4, 6)]


def test_without_a_neighbour_in_its_shot_it_stays_with_its_sentence():
    assert divided([(1, 3.2)], 3.0) == [(1, 3.2)]
    assert divided([(1, 3.2), (9, 12)], 3.0) == [(1, 3.2), (9, 12)]


def test_a_word_alone_stays_alone():
    assert divided([(1, 1.3), (5, 7)]) == [(1, 1.3), (5, 7)]


@given(
    st.lists(st.floats(0.05, 8), min_size=2, max_size=24),
    st.lists(st.floats(0.1, 99), max_size=12, unique=True).map(sorted),
)
def test_divided_speech_is_in_order_and_nothing_of_it_is_lost(lengths, cuts):
    edges = np.cumsum(lengths).tolist()
    speech = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False) if a < b]
    found = divided(speech, *cuts)
    assert all(a < b for a, b in found)
    assert all(a[1] <= b[0] for a, b in pairwise(found))
    for start, end in speech:
        assert any(a <= start and b > start for a, b in found)
        assert any(a < end and b >= end for a, b in found)


# Tables


def test_given_segments_are_read_by_time(tmp_path):
    table = tmp_path / "said.csv"
    table.write_text('start_s,end_s,text,speaker\n3,4.5,"well, ""hello""",Bob\n0,2.25,,\n', encoding="utf-8")
    first, second = read_segments(table, LINES)
    assert (first[0].segment, first[0].text, first[1]) == (Segment(0, 2.25), "hello", "Ann")
    assert (second[0].segment, second[0].text, second[1]) == (Segment(3, 4.5), 'well, "hello"', "Bob")


def test_words_that_look_like_numbers_stay_words(tmp_path):
    table = tmp_path / "said.tsv"
    table.write_text("start_s\tend_s\ttext\n0\t1\t007\n", encoding="utf-8")
    assert read_segments(table)[0][0].text == "007"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("start_s,text\n0,a\n", "no columns start_s and end_s; it has 'start_s', 'text'"),
        ("start_s,end_s\n0,1\n2,1\n", "row 2: start_s 2 and end_s 1 are no segment"),
        ("start_s,end_s\n0,nan\n", "row 1: .* are no segment"),
        ("start_s,end_s\n0,\n", "row 1: .* are no segment"),
        ("start_s,end_s\n0,1e9\n", "no video lasts longer than"),
        ("start_s,end_s\n", "has no rows"),
    ],
)
def test_a_table_that_gives_no_segments_is_refused(tmp_path, text, said):
    table = tmp_path / "said.csv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_segments(table)


@pytest.mark.corpus
@pytest.mark.skipif(not (DATA / "clips").exists(), reason="no real data here")
def test_real_clips_are_cut_as_they_are():
    clips = DATA / "clips"
    assert len(cut(clips / "friday.mp4", lines=read_transcript(clips / "friday.mp4"))) == 5
    assert len(cut(clips / "short_hamilton_clip.mp4")) == 5  # 10.02 s: cuts divide what is sung
    assert len(cut(clips / "Audio_Source-681600002.mp3")) == 3  # 3 s, a pause, 10.5 s in two
    assert len(cut(clips / "d18.mp4")) == 1
