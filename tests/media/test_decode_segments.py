"""Many segments of one file cost about one pass over it, and each is bit for bit what reading it alone gives."""

import logging

import numpy as np
import pytest
from tests.media.conftest import every, grey, tone

from moodal.media import MediaError, segments
from moodal.media.decode import AudioReader, FrameReader, read_audio, read_frames
from moodal.types import Segment

NAMES = ["a.mp4", "a.mkv", "a.ts", "a.avi"]
# neighbours, a near and a far one, overlapping ones, one in another, one twice, the whole, one after the end
CUTS = [(0.1, 1.0), (1.0, 1.9), (3.0, 3.5), (14.0, 16.0), (15.0, 17.0), (15.2, 15.4), (15.2, 15.4), None, (90.0, 91.0)]
SEGMENTS = [Segment(*cut) if cut else None for cut in CUTS]
ORDERS = [(7, 0, 1, 2, 3, 4, 5, 6, 8), (8, 5, 1, 7, 0, 3, 6, 2, 4)]


@pytest.fixture
def openings(monkeypatch):
    """Where the passes that were opened began, in seconds."""
    found, really = [], segments.opened_at

    def counted(path, kind, start_s, num_threads):
        found.append(start_s)
        return really(path, kind, start_s, num_threads)

    monkeypatch.setattr(segments, "opened_at", counted)
    return found


def film(make_video, name, **options):
    noise = np.random.default_rng(0).normal(0, 0.1, 20 * 44_100).astype(np.float32)
    return make_video(name, every(500), sound=[(0.0, noise)], **options)


def same_frames(one, other):
    one, other = list(one), list(other)
    assert [f.time_s for f in one] == [f.time_s for f in other]
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.rgb, b.rgb)
    return len(one)


@pytest.mark.parametrize(("gop", "order"), [(12, ORDERS[0]), (250, ORDERS[1])])
@pytest.mark.parametrize("name", NAMES)
def test_pictures_of_many_segments_are_those_of_each_alone(make_video, name, gop, order):
    path = film(make_video, name, gop=gop)
    with FrameReader(path, SEGMENTS, rate_hz=10, max_side_px=32) as reader:
        num = {
            k: same_frames(reader.read(k), read_frames(path, rate_hz=10, max_side_px=32, segment=SEGMENTS[k]))
            for k in order
        }
    assert [num[k] for k in range(8)] == [9, 9, 5, 20, 20, 2, 2, 200]
    assert num[8] == 0


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", NAMES)
def test_sound_of_many_segments_is_that_of_each_alone(make_video, name, order):
    path = film(make_video, name)
    with AudioReader(path, SEGMENTS) as reader:
        for k in order:
            alone = read_audio(path, segment=SEGMENTS[k])
            np.testing.assert_array_equal(reader.read(k), alone)
            assert len(alone) > 4_000 or k == 8


def test_what_follows_closely_is_read_in_one_pass_and_what_is_far_is_sought(make_video, openings):
    cuts = [Segment(k, k + 0.9) for k in (0, 1, 2, 4, 12, 13, 16, 18)]
    for name, expected in (("a.mp4", [0.0, 12.0]), ("a.avi", [0.0])):
        with FrameReader(film(make_video, name), cuts) as reader:
            for k in range(len(cuts)):
                assert len(list(reader.read(k))) in (22, 23)
        assert openings == expected
        openings.clear()


def test_sound_without_an_index_is_read_in_one_pass(make_video, openings):
    path = film(make_video, "a.avi")
    with AudioReader(path, SEGMENTS[:6]) as reader:
        assert all(len(reader.read(k)) for k in range(6))
    assert openings == [0.1]


def test_a_segment_that_nobody_reads_to_its_end_costs_the_next_nothing(make_video, openings):
    path = film(make_video, "a.mp4")
    with FrameReader(path, [Segment(1, 5), Segment(2, 3), Segment(5, 6)]) as reader:
        first = reader.read(0)
        next(first)
        assert same_frames(reader.read(1), read_frames(path, segment=Segment(2, 3))) == 25
        assert list(first) == []
        assert len(list(reader.read(2))) == 25
    assert openings == [1, 2]  # the second is the test's own


def test_a_segment_can_be_read_again(make_video):
    path = film(make_video, "a.mp4")
    with FrameReader(path, [Segment(1, 2), Segment(2, 3)]) as pictures, AudioReader(path, [Segment(1, 2)]) as sound:
        assert [len(list(pictures.read(k))) for k in (0, 0, 1, 0)] == [25] * 4
        assert [len(sound.read(0)) for _ in range(2)] == [22_050] * 2


def test_pictures_that_would_wait_too_long_are_read_later(make_video, monkeypatch, openings):
    """A whole film and its hundred lines: the film does not wait for them, nor they in memory for it."""
    path = film(make_video, "a.mp4")
    monkeypatch.setattr(segments, "MAX_HELD_BYTES", 30 * 64 * 48 * 3)
    cuts = [None, *(Segment(k, k + 0.8) for k in range(10))]
    with FrameReader(path, cuts) as reader:
        held = []
        for _ in reader.read(0):
            held.append(reader._reader._pass._held)
        assert max(held) <= 30 * 64 * 48 * 3
        for k in range(1, 11):
            assert same_frames(reader.read(k), read_frames(path, segment=cuts[k])) == 20


def snow(index, width, height):
    return np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)


def damaged(path):
    """Thirty bytes are lost in each of 12 places."""
    raw = bytearray(path.read_bytes())
    for at in np.random.default_rng(1).integers(len(raw) // 4, len(raw) * 9 // 10, 12):
        raw[at : at + 30] = bytes(30)
    path.write_bytes(bytes(raw))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_after_damage_pictures_are_still_those_of_each_alone(make_video, name, caplog):
    path = damaged(make_video(name, every(300), draw=snow, gop=25))
    cuts = [Segment(k / 2, k / 2 + 0.7) for k in range(24)]
    with caplog.at_level(logging.WARNING), FrameReader(path, cuts) as reader:
        num = [same_frames(reader.read(k), read_frames(path, segment=cut)) for k, cut in enumerate(cuts)]
    assert sum(num) > 200
    assert "damaged pieces were left out" in caplog.text


@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.avi"])
def test_after_damage_sound_is_still_that_of_each_alone(make_video, name):
    options = {"audio_codec": "aac"} if name == "a.avi" else {}
    noise = np.random.default_rng(0).normal(0, 0.1, 12 * 44_100).astype(np.float32)
    path = damaged(make_video(name, sound=[(0.0, noise)], **options))
    cuts = [Segment(k / 2, k / 2 + 0.7) for k in range(24)]
    with AudioReader(path, cuts) as reader:
        for k, cut in enumerate(cuts):
            np.testing.assert_array_equal(reader.read(k), read_audio(path, segment=cut))


def test_a_jump_of_the_clock_is_seen_by_each_segment_as_if_it_were_alone(make_video):
    """A picture with a wrong time far ahead would end the segments that it passes."""
    shown = [*every(100), 30.0, *[4.0 + t for t in every(200)]]
    path = make_video("a.mkv", shown, gop=10)
    cuts = [Segment(k / 2, k / 2 + 0.5) for k in range(16)]
    with FrameReader(path, cuts) as reader:
        for k, cut in enumerate(cuts):
            same_frames(reader.read(k), read_frames(path, segment=cut))


def test_each_segment_says_what_is_wrong_with_the_file(make_video):
    path = make_video("a.mkv", every(50))
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XXX"))
    with FrameReader(path, [Segment(0, 1), Segment(1, 2)]) as reader:
        for k in (0, 1):
            with pytest.raises(MediaError, match="there is no decoder for its video"):
                list(reader.read(k))


def test_files_are_closed_with_the_reader(make_video, openings):
    path = film(make_video, "a.mp4")
    with FrameReader(path, SEGMENTS) as reader:
        assert not openings
        assert abs(next(reader.read(3)).rgb.mean() - grey(350)) < 40
        assert reader._reader._pass
    assert reader._reader._pass is None


def test_a_file_without_the_stream_is_empty_for_each(make_video):
    path = make_video("a.mkv", sound=[(0.0, tone(2.0))])
    with FrameReader(path, [Segment(0, 1), None]) as reader:
        assert [list(reader.read(k)) for k in (0, 1)] == [[], []]
