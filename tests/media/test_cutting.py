"""A cut clip is the segment itself: its pictures and sound at their times, and nothing that was not asked for."""

import os
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from tests.media.conftest import SOUND_HZ, every, grey, tone

from moodal.media import MediaError
from moodal.media.cutting import Piece, cut, cut_segments
from moodal.media.decode import probe, read_audio, read_frames
from moodal.types import InputError, Segment

TICK = 2 / 90_000
CLIPS = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "clips"


def brightness(path: Path) -> list[float]:
    return [float(f.rgb.mean()) for f in read_frames(path)]


def times(path: Path) -> list[float]:
    return [f.time_s for f in read_frames(path)]


def streams(path: Path) -> list[str]:
    with av.open(path) as container:
        return [s.type for s in container.streams]


def lasts_s(path: Path) -> float:
    with av.open(path) as container:
        return container.duration / av.time_base


def burst(at_s: float, seconds: float) -> np.ndarray:
    """Silence, but for 50 ms of a loud tone."""
    samples = np.zeros(round(seconds * SOUND_HZ), np.float32)
    first = round(at_s * SOUND_HZ)
    samples[first : first + SOUND_HZ // 20] = tone(0.05, 2000.0)
    return samples


def onset_s(path: Path) -> float:
    loud = np.abs(read_audio(path, rate_hz=48_000)) > 0.2
    return float(np.argmax(loud)) / 48_000


def test_pictures_are_those_of_the_segment_at_their_times(make_video, tmp_path):
    video = make_video("a.mkv", every(50), gop=30)
    cut(video, Segment(0.4, 1.2), tmp_path / "clip.mp4", pictures=True, sound=False)
    np.testing.assert_allclose(times(tmp_path / "clip.mp4"), every(20), atol=TICK)
    np.testing.assert_allclose(brightness(tmp_path / "clip.mp4"), [grey(i) for i in range(10, 30)], atol=4)
    assert lasts_s(tmp_path / "clip.mp4") == pytest.approx(0.8, abs=0.001)


def test_an_uneven_rate_stays_uneven(make_video, tmp_path):
    shown = [0.0, 0.04, 0.2, 0.21, 0.5, 0.9, 0.933, 1.4]
    video = make_video("a.mkv", shown)
    cut(video, Segment(0.0, 1.5), tmp_path / "clip.mp4", pictures=True, sound=False)
    np.testing.assert_allclose(times(tmp_path / "clip.mp4"), shown, atol=TICK)
    assert lasts_s(tmp_path / "clip.mp4") == pytest.approx(1.5, abs=0.001)  # the last stands to the end


def test_sound_is_heard_when_it_was(make_video, tmp_path):
    video = make_video("a.mkv", every(75), sound=[(0.0, burst(1.5, 3.0))])
    pieces = [Piece(tmp_path / "a.m4a", False, True), Piece(tmp_path / "f.mp4", True, True)]
    assert list(cut_segments(video, [(Segment(1.0, 2.5), pieces)])) == [["", ""]]
    assert onset_s(tmp_path / "a.m4a") == pytest.approx(0.5, abs=0.002)
    assert onset_s(tmp_path / "f.mp4") == pytest.approx(0.5, abs=0.002)
    assert lasts_s(tmp_path / "a.m4a") == pytest.approx(1.5, abs=0.001)


def test_what_was_not_asked_for_is_not_in_the_file(make_video, tmp_path):
    video = make_video("a.mp4", every(30), sound=[(0.0, tone(1.2))], captions=[(0.1, 1.0, "secret")])
    pieces = [
        Piece(tmp_path / "a.m4a", False, True),
        Piece(tmp_path / "v.mp4", True, False),
        Piece(tmp_path / "f.mp4", True, True),
    ]
    assert list(cut_segments(video, [(Segment(0.2, 1.0), pieces)])) == [["", "", ""]]
    assert [streams(p.target) for p in pieces] == [["audio"], ["video"], ["video", "audio"]]
    assert not any(b"secret" in p.target.read_bytes() for p in pieces)


def test_silent_and_whole_clip_show_the_very_same_pictures(make_video, tmp_path):
    video = make_video("a.mkv", every(30), sound=[(0.0, tone(1.2))])
    pieces = [Piece(tmp_path / "v.mp4", True, False), Piece(tmp_path / "f.mp4", True, True)]
    list(cut_segments(video, [(Segment(0.2, 1.0), pieces)]))
    alone, whole = ([f.rgb for f in read_frames(p.target)] for p in pieces)
    assert len(alone) == 20
    np.testing.assert_array_equal(np.stack(alone), np.stack(whole))


def test_the_file_tells_nothing_about_where_it_came_from(make_video, tmp_path):
    video = make_video("Episode One.mp4", every(10))
    with av.open(video) as source, av.open(tmp_path / "named.mp4", "w") as out:
        out.metadata["title"] = "The Angry Episode"
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    cut(tmp_path / "named.mp4", Segment(0.0, 0.4), tmp_path / "clip.mp4", pictures=True, sound=False)
    with av.open(tmp_path / "clip.mp4") as clip:
        assert clip.metadata.keys() <= {"major_brand", "minor_version", "compatible_brands"}
    assert b"Angry" not in (tmp_path / "clip.mp4").read_bytes()


def test_it_plays_before_it_is_all_there(make_video, tmp_path):
    video = make_video("a.mkv", every(30), sound=[(0.0, tone(1.2))])
    for name, pictures in (("a.m4a", False), ("f.mp4", True)):
        cut(video, Segment(0.0, 1.0), tmp_path / name, pictures=pictures, sound=True)
        said = (tmp_path / name).read_bytes()
        assert said.index(b"moov") < said.index(b"mdat")


@pytest.mark.parametrize("size", [(65, 49), (63, 47), (17, 9)])
def test_odd_sizes_become_even(make_video, tmp_path, size):
    width, height = size
    video = tmp_path / "odd.mkv"
    with av.open(video, "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 90 + i, np.uint8), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    cut(video, Segment(0.0, 0.2), tmp_path / "clip.mp4", pictures=True, sound=False)
    made = probe(tmp_path / "clip.mp4").video
    assert made is not None
    assert made.width_px % 2 == made.height_px % 2 == 0
    assert abs(made.width_px - width) <= 1 and abs(made.height_px - height) <= 1  # noqa: PT018


def test_large_pictures_become_smaller_and_small_ones_stay(make_video, tmp_path):
    large, small = make_video("l.mkv", every(3), size=(1280, 720)), make_video("s.mkv", every(3), size=(64, 48))
    cut(large, Segment(0.0, 0.1), tmp_path / "l.mp4", pictures=True, sound=False)
    cut(small, Segment(0.0, 0.1), tmp_path / "s.mp4", pictures=True, sound=False)
    assert next(read_frames(tmp_path / "l.mp4")).rgb.shape == (480, 854, 3)
    assert next(read_frames(tmp_path / "s.mp4")).rgb.shape == (48, 64, 3)


def test_a_tall_picture_is_no_higher_than_a_wide_one(make_video, tmp_path):
    video = make_video("t.mkv", every(3), size=(720, 1280))
    cut(video, Segment(0.0, 0.1), tmp_path / "t.mp4", pictures=True, sound=False)
    assert next(read_frames(tmp_path / "t.mp4")).rgb.shape == (480, 270, 3)


def test_colours_survive(make_video, tmp_path):
    colour = np.array([200, 60, 40], np.uint8)
    video = make_video("c.mkv", every(5), draw=lambda i, w, h: np.broadcast_to(colour, (h, w, 3)).copy())
    before = next(read_frames(video)).rgb.mean((0, 1))
    cut(video, Segment(0.0, 0.2), tmp_path / "c.mp4", pictures=True, sound=False)
    np.testing.assert_allclose(next(read_frames(tmp_path / "c.mp4")).rgb.mean((0, 1)), before, atol=4)


def test_sound_that_ends_before_the_pictures_is_followed_by_silence(make_video, tmp_path):
    video = make_video("a.mkv", every(50), sound=[(0.0, tone(1.0))])
    cut(video, Segment(0.5, 1.8), tmp_path / "f.mp4", pictures=True, sound=True)
    heard = read_audio(tmp_path / "f.mp4", rate_hz=48_000)
    assert np.abs(heard[: 48_000 // 3]).max() > 0.3
    assert np.abs(heard[int(0.6 * 48_000) :]).max() < 0.01
    assert lasts_s(tmp_path / "f.mp4") == pytest.approx(1.3, abs=0.001)


def test_before_pictures_that_come_late_it_is_black(make_video, tmp_path):
    video = make_video("a.mkv", [0.6, 0.64, 0.68], sound=[(0.0, tone(1.0))])
    cut(video, Segment(0.0, 0.72), tmp_path / "f.mp4", pictures=True, sound=True)
    np.testing.assert_allclose(times(tmp_path / "f.mp4"), [0.0, 0.6, 0.64, 0.68], atol=TICK)
    assert brightness(tmp_path / "f.mp4")[0] < 5


def test_a_first_picture_within_the_segment_stands_from_its_start(make_video, tmp_path):
    video = make_video("a.mkv", every(20))
    cut(video, Segment(0.05, 0.4), tmp_path / "v.mp4", pictures=True, sound=False)
    np.testing.assert_allclose(times(tmp_path / "v.mp4")[:3], [0.0, 0.07, 0.11], atol=TICK)


def test_a_clip_without_sound_gives_its_pictures_and_says_what_is_missing(make_video, tmp_path):
    video = make_video("a.mkv", every(20))
    pieces = [
        Piece(tmp_path / "a.m4a", False, True),
        Piece(tmp_path / "v.mp4", True, False),
        Piece(tmp_path / "f.mp4", True, True),
    ]
    ((audio, vision, full),) = cut_segments(video, [(Segment(0.0, 0.5), pieces)])
    assert "there is no sound" in audio
    assert vision == ""
    assert full == audio
    assert [p.target.exists() for p in pieces] == [False, True, False]
    with pytest.raises(MediaError, match=r"0\.000 to 0\.500 s: there is no sound"):
        cut(video, Segment(0.0, 0.5), tmp_path / "b.m4a", pictures=False, sound=True)


def test_several_segments_in_one_reading_are_the_same_as_each_alone(make_video, tmp_path):
    video = make_video("a.avi", every(60), sound=[(0.0, tone(2.4))])
    segments = [Segment(0.2, 0.6), Segment(0.5, 1.0), Segment(1.4, 2.0)]
    orders = [(s, [Piece(tmp_path / f"{i}.mp4", True, True)]) for i, s in enumerate(segments)]
    assert list(cut_segments(video, orders)) == [[""], [""], [""]]
    for i, segment in enumerate(segments):
        cut(video, segment, tmp_path / "alone.mp4", pictures=True, sound=True)
        assert (tmp_path / "alone.mp4").read_bytes() == (tmp_path / f"{i}.mp4").read_bytes()


def test_nothing_is_left_beside_the_clip(make_video, tmp_path):
    video, out = make_video("a.mkv", every(10)), tmp_path / "out"
    out.mkdir()
    cut(video, Segment(0.0, 0.4), out / "v.mp4", pictures=True, sound=False)
    with pytest.raises(MediaError):
        cut(video, Segment(5.0, 6.0), out / "w.mp4", pictures=True, sound=False)
    assert [p.name for p in out.iterdir()] == ["v.mp4"]


def test_a_file_that_is_no_video_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(MediaError, match=r"a\.mp4"):
        cut(tmp_path / "a.mp4", Segment(0.0, 1.0), tmp_path / "v.mp4", pictures=True, sound=False)


def test_neither_pictures_nor_sound_is_a_mistake(tmp_path):
    with pytest.raises(InputError, match="neither pictures nor sound"):
        cut(tmp_path / "a.mp4", Segment(0.0, 1.0), tmp_path / "v.mp4", pictures=False, sound=False)


def test_no_gap_between_packets(make_video, tmp_path):
    """What a player sums up: every picture lasts until the next."""
    video = make_video("a.mkv", [0.0, 0.04, 0.3, 0.31])
    cut(video, Segment(0.0, 0.5), tmp_path / "v.mp4", pictures=True, sound=False)
    with av.open(tmp_path / "v.mp4") as container:
        packets = [p for p in container.demux() if p.dts is not None]
        assert all(a.pts + a.duration == b.pts for a, b in pairwise(packets))


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["friday.mp4", "single_face.mp4", "no_face.mp4", "Input-00002.mp4"])
def test_real_clips_keep_their_times_and_their_sound(name, tmp_path):
    video = CLIPS / name
    if not video.is_file():
        pytest.skip(f"{video} is not there; set MOODAL_DATA")
    segment = Segment(0.503, 1.7)
    pieces = [Piece(tmp_path / "a.m4a", False, True), Piece(tmp_path / "f.mp4", True, True)]
    assert list(cut_segments(video, [(segment, pieces)])) == [["", ""]]
    shown = [f.time_s - segment.start_s for f in read_frames(video, segment=segment)]
    np.testing.assert_allclose(times(tmp_path / "f.mp4"), [0.0, *shown[1:]], atol=TICK)
    heard = read_audio(video, rate_hz=48_000, segment=segment)
    for piece in pieces:
        again = read_audio(piece.target, rate_hz=48_000)
        num = min(len(heard), len(again))
        lags = {
            lag: np.corrcoef(heard[200 : num - 200], again[200 + lag : num - 200 + lag])[0, 1] for lag in range(-99, 99)
        }
        best = max(lags, key=lags.__getitem__)
        assert abs(best) <= 1  # sample, of 48,000 a second
        assert lags[best] > 0.95
