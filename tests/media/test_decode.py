"""Pictures and sound come at the times at which a player shows them, and broken files end, one way or the other."""

import contextlib
import gc
import logging
import os
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import librosa
import numpy as np
import pytest
import soundfile
from tests.media.conftest import SOUND_HZ, every, grey, pattern, tone

from moodal.media import MediaError, container, decode, seeking
from moodal.media.decode import probe, read_audio, read_frames, stream_audio
from moodal.media.sound import SYNC_S
from moodal.types import InputError, Segment

DATA = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))


def times(frames):
    return [f.time_s for f in frames]


def index_of(frame):
    """Which frame of ``pattern`` it is, modulo 11."""
    return int(np.argmin([abs(frame.rgb.mean() - grey(i)) for i in range(11)]))


def loud_from(samples, rate_hz, level=0.1):
    """When the sound begins, in seconds."""
    return float(np.argmax(np.abs(samples) > level)) / rate_hz


def open_files():
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.add(str(link.readlink()))
    return found


# Times


def test_a_frame_has_the_time_at_which_it_is_shown_whatever_the_rate(make_video):
    shown = [0.0, 0.04, 0.05, 0.3, 0.31, 1.0, 2.5]
    frames = list(read_frames(make_video("a.mkv", shown)))
    assert times(frames) == shown
    assert [index_of(f) for f in frames] == list(range(7))


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_avi_knows_no_time_of_showing_and_its_pictures_still_come_in_order(tmp_path, codec):
    """It stores when pictures are decoded; with B-frames that is another order."""
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt, video.options = 64, 48, "yuv420p", {"bf": "2", "threads": "1"}
        for i in range(60):
            frame = av.VideoFrame.from_ndarray(pattern(i, 64, 48))
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    frames = list(read_frames(path))
    assert times(frames) == pytest.approx(every(60))
    assert np.abs(np.array([f.rgb.mean() for f in frames]) - [grey(i) for i in range(60)]).max() < 40
    assert times(read_frames(path, segment=Segment(1.5, 2.0))) == pytest.approx(every(60)[38:50])


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.avi"])
def test_every_container_gives_every_frame(make_video, name):
    frames = list(read_frames(make_video(name, every(30))))
    assert times(frames) == pytest.approx(every(30), abs=1e-6)
    assert [index_of(f) for f in frames] == [i % 11 for i in range(30)]


def test_of_each_interval_the_first_frame_is_taken_and_none_is_repeated(make_video):
    shown = [0.0, 0.04, 0.12, 0.16, 0.55, 0.58, 0.61]
    assert times(read_frames(make_video("a.mkv", shown), rate_hz=10)) == [0.0, 0.12, 0.55, 0.61]


def test_an_interval_begins_where_a_rounded_timestamp_says(make_video):
    """24 frames per second in whole milliseconds: every second frame, though 83 ms is before 1 / 12 s."""
    shown = [round(i / 24, 3) for i in range(24)]
    assert times(read_frames(make_video("a.mkv", shown), rate_hz=12)) == shown[::2]


def test_a_rate_above_the_files_own_changes_nothing(make_video):
    path = make_video("a.mkv", every(10))
    assert times(read_frames(path, rate_hz=1000)) == times(read_frames(path))


@pytest.mark.parametrize("offset_s", [0.0, 5.0, 1000.0])
@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
def test_times_count_from_the_beginning_of_the_file_and_keep_sound_and_picture_together(make_video, name, offset_s):
    click = np.zeros(2 * SOUND_HZ, np.float32)
    click[SOUND_HZ:] = tone(1.0)
    path = make_video(name, [offset_s + t for t in every(50)], sound=[(offset_s, click)])
    frames, sound = list(read_frames(path)), read_audio(path)
    # some files begin with the empty lead-in of their audio encoder (1024 samples)
    lead_in_s = probe(path).video.start_s
    assert lead_in_s < 1e-3 or lead_in_s == pytest.approx(1024 / SOUND_HZ, abs=1e-3)
    assert times(frames) == pytest.approx([lead_in_s + t for t in every(50)], abs=2e-3)
    assert loud_from(sound, 22_050) - frames[25].time_s == pytest.approx(0.0, abs=3e-3)


def test_a_file_may_begin_before_zero(make_video):
    shown = [t - 0.4 for t in every(25)]
    path = make_video("a.mkv", shown, sound=[(-0.4, tone(1.0))], options={"avoid_negative_ts": "disabled"})
    with av.open(str(path)) as raw:
        assert raw.start_time < 0
    assert times(read_frames(path)) == pytest.approx(every(25), abs=2e-3)
    assert len(read_audio(path)) == pytest.approx(22_050, abs=30)


def test_the_picture_may_begin_after_the_sound(make_video):
    path = make_video("a.mkv", [0.5 + t for t in every(10)], sound=[(0.0, tone(1.0))])
    assert probe(path).video.start_s == 0.5
    assert times(read_frames(path))[0] == 0.5


# Pictures


def corner(index, width, height):
    """White at the top left, black elsewhere."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[: height // 2, : width // 2] = 255
    return rgb


def with_matrix(path, a, b, c, d):
    """Writes a display matrix into the header of an mp4."""
    raw = bytearray(path.read_bytes())
    at = raw.index(b"tkhd") + 44
    raw[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(raw))
    return path


@pytest.mark.parametrize(
    ("matrix", "degrees", "white", "shape"),
    [
        ((1, 0, 0, 1), 0, (0, 0), (48, 64)),
        ((0, 1, -1, 0), 90, (0, 1), (64, 48)),
        ((-1, 0, 0, -1), 180, (1, 1), (48, 64)),
        ((0, -1, 1, 0), 270, (1, 0), (64, 48)),
        ((-1, 0, 0, 1), 0, (0, 1), (48, 64)),  # a mirrored front camera
    ],
)
def test_a_frame_stands_upright(make_video, matrix, degrees, white, shape):
    path = with_matrix(make_video("a.mp4", every(3), draw=corner), *matrix)
    frame = next(read_frames(path))
    assert frame.rgb.shape == (*shape, 3)
    assert frame.rgb.flags["C_CONTIGUOUS"]
    h, w = shape
    quarters = frame.rgb.mean(2).reshape(2, h // 2, 2, w // 2).mean((1, 3))  # (2, 2)
    assert np.unravel_index(quarters.argmax(), (2, 2)) == white
    video = probe(path).video
    assert (video.rotation_deg, video.width_px, video.height_px) == (degrees, 64, 48)


@pytest.mark.parametrize(("side", "shape"), [(32, (24, 32, 3)), (64, (48, 64, 3)), (500, (48, 64, 3)), (1, (1, 1, 3))])
def test_the_longer_side_is_made_smaller_never_larger(make_video, side, shape):
    frame = next(read_frames(make_video("a.mkv", every(2)), max_side_px=side))
    assert frame.rgb.shape == shape
    assert frame.rgb.mean() == pytest.approx(grey(0), abs=3)


def test_a_rotated_frame_keeps_to_its_longer_side(make_video):
    path = with_matrix(make_video("a.mp4", every(2)), 0, 1, -1, 0)
    assert next(read_frames(path, max_side_px=32)).rgb.shape == (32, 24, 3)


def test_narrow_pixels_become_square(make_video):
    assert next(read_frames(make_video("a.mkv", every(2), aspect=Fraction(3, 2)))).rgb.shape == (48, 96, 3)


def test_colours_are_red_green_blue(make_video):
    def red(index, width, height):
        return np.full((height, width, 3), (200, 30, 60), np.uint8)

    rgb = next(read_frames(make_video("a.mkv", every(2), draw=red))).rgb
    assert rgb.mean((0, 1)) == pytest.approx([200, 30, 60], abs=6)


def test_one_frame_is_a_video(make_video):
    assert times(read_frames(make_video("a.mp4", [0.0]))) == [0.0]


def test_threads_change_no_pixel(make_video):
    path = make_video("a.mp4", every(40))
    for one, two in zip(read_frames(path), read_frames(path, num_threads=2), strict=True):
        assert one.time_s == two.time_s
        np.testing.assert_array_equal(one.rgb, two.rgb)


def test_frames_outlive_the_file(make_video):
    frames = list(read_frames(make_video("a.mkv", every(12))))
    before = [f.rgb.copy() for f in frames]
    list(read_frames(make_video("b.mkv", every(30), draw=corner)))
    for frame, rgb in zip(frames, before, strict=True):
        np.testing.assert_array_equal(frame.rgb, rgb)


def test_no_picture_is_kept_until_the_garbage_is_collected(make_video):
    """100 pictures of a large video are more than a gigabyte."""
    path = make_video("a.mkv", every(100), sound=[(0.0, tone(4.0))])
    gc.collect()
    gc.disable()
    try:
        for _ in read_frames(path):
            pass
        read_audio(path)
        # type, not isinstance: objects of other libraries warn when asked for their class
        kept = [x for x in gc.get_objects() if type(x) in (av.VideoFrame, av.AudioFrame, av.Packet)]
    finally:
        gc.enable()
    assert len(kept) < 10


def test_a_file_without_pictures_has_no_frames(make_video):
    path = make_video("a.mkv", sound=[(0.0, tone(0.5))])
    assert list(read_frames(path)) == []
    assert probe(path).video is None


def test_cover_art_is_no_video(tmp_path):
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as out:
        sound = out.add_stream("aac", rate=SOUND_HZ, layout="mono")
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(pattern(3, 64, 48))
        frame.pts, frame.time_base = 0, Fraction(1, 1)
        out.mux(cover.encode(frame))
        out.mux(cover.encode(None))
        for first in range(0, SOUND_HZ, 1024):
            piece = av.AudioFrame.from_ndarray(tone(1.0)[None, first : first + 1024], "fltp", "mono")
            piece.rate, piece.pts, piece.time_base = SOUND_HZ, first, Fraction(1, SOUND_HZ)
            out.mux(sound.encode(piece))
        out.mux(sound.encode(None))
    with av.open(str(path)) as raw:
        assert len(raw.streams.video) == 1
    assert probe(path).video is None
    assert list(read_frames(path)) == []
    assert len(read_audio(path)) > 20_000


# Sound


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_U8", "FLOAT", "DOUBLE"])
def test_sound_is_what_librosa_loads(tmp_path, subtype):
    path = tmp_path / "a.wav"
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, (30_000, 2))
    soundfile.write(path, noise, 48_000, subtype=subtype)
    stored = soundfile.read(path, dtype="float32")[0].mean(1)
    expected = librosa.resample(stored, orig_sr=48_000, target_sr=22_050, res_type="soxr_hq")  # librosa.load's
    np.testing.assert_allclose(read_audio(path), expected[:13_781], atol=2e-6)  # librosa rounds up to whole samples


def test_a_tone_keeps_its_pitch_and_its_level(make_video):
    sound = read_audio(make_video("a.mp4", sound=[(0.0, tone(1.0, 1000.0))]), rate_hz=16_000)[4_000:12_000]
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    assert spectrum.argmax() * 2 == 1000
    assert np.abs(sound).max() == pytest.approx(0.5, abs=0.02)


def test_silence_stands_where_the_file_has_no_sound(make_video):
    path = make_video("a.mkv", every(75), sound=[(0.0, tone(1.0)), (2.0, tone(1.0))])
    sound = read_audio(path)
    assert len(sound) == pytest.approx(3 * 22_050, abs=30)
    assert np.abs(sound[:22_000]).max() > 0.4
    assert not sound[22_100:44_000].any()
    assert loud_from(sound[22_100:], 22_050) + 22_100 / 22_050 == pytest.approx(2.0, abs=2e-3)


def test_sound_that_starts_late_is_late(make_video):
    path = make_video("a.mkv", every(50), sound=[(1.3, tone(0.5))])
    sound = read_audio(path)
    assert loud_from(sound, 22_050) == pytest.approx(1.3, abs=2e-3)
    assert len(sound) / 22_050 == pytest.approx(1.8, abs=2e-3)
    assert probe(path).audio.start_s == pytest.approx(1.3, abs=2e-3)


def test_sound_that_comes_twice_is_heard_once(make_video):
    """Two seconds of sound, of which 0.2 s overlap: the file says that it ends at 1.8 s."""
    path = make_video("a.mkv", sound=[(0.0, tone(1.0)), (0.8, tone(1.0))])
    assert len(read_audio(path)) / 22_050 == pytest.approx(1.8, abs=SYNC_S)


def test_a_silent_file_is_silent_and_a_file_without_sound_is_empty(make_video):
    silent = read_audio(make_video("a.mkv", every(5), sound=[(0.0, np.zeros(SOUND_HZ, np.float32))]))
    assert len(silent) == 22_050
    assert not silent.any()
    none = read_audio(make_video("b.mkv", every(5)))
    assert none.shape == (0,)
    assert none.dtype == np.float32


def test_samples_that_are_no_numbers_become_silence_and_are_logged(tmp_path, caplog):
    path = tmp_path / "a.wav"
    sound = tone(0.5, rate_hz=22_050)
    sound[[100, 200, 300]] = np.nan, np.inf, 1e30
    soundfile.write(path, sound, 22_050, subtype="FLOAT")
    with caplog.at_level(logging.WARNING):
        read = read_audio(path)
    assert np.isfinite(read).all()
    assert np.abs(read).max() < 1
    assert "samples that are no sound" in caplog.text


def test_blocks_are_the_whole_in_pieces(make_video):
    path = make_video("a.mkv", sound=[(0.0, tone(1.0)), (2.0, tone(0.7))])
    blocks = list(stream_audio(path, rate_hz=16_000, block_s=0.5))
    assert [t for t, _ in blocks] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert [len(x) for _, x in blocks[:-1]] == [8_000] * 5
    np.testing.assert_array_equal(np.concatenate([x for _, x in blocks]), read_audio(path, rate_hz=16_000))


# Segments


@pytest.mark.parametrize("gop", [12, 250])
@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.avi", "a.ts"])
def test_a_segment_is_a_piece_of_the_whole(make_video, name, gop):
    path = make_video(name, every(200), sound=[(0.0, tone(8.0, 3.0))], gop=gop)
    whole, sound = list(read_frames(path)), read_audio(path)
    for start_s, end_s in [(0.0, 0.5), (0.3, 1.0), (1.5, 1.6), (4.01, 5.0), (7.5, 20.0)]:
        segment = Segment(start_s, end_s)
        expected = [f for f in whole if start_s <= f.time_s < end_s]
        read = list(read_frames(path, segment=segment))
        assert times(read) == times(expected)
        for one, two in zip(read, expected, strict=True):
            np.testing.assert_array_equal(one.rgb, two.rgb)
        piece = sound[round(start_s * 22_050) : round(end_s * 22_050)]
        got = read_audio(path, segment=segment)
        assert len(got) == pytest.approx(len(piece), abs=30 if end_s > 8 else 0)
        # 3 Hz: a millisecond is 0.01 of its amplitude; matroska rounds times to one
        np.testing.assert_allclose(got[: len(piece)], piece[: len(got)], atol=0.012)


def test_segments_share_no_frame_and_lose_none(make_video):
    path = make_video("a.mkv", [0.0, 0.999, 1.0, 1.001, 1.999, 2.0])
    parts = [times(read_frames(path, segment=Segment(a, b))) for a, b in ((0, 1), (1, 2), (2, 3))]
    assert parts == [[0.0, 0.999], [1.0, 1.001, 1.999], [2.0]]


def test_a_segment_after_the_end_is_empty(make_video):
    path = make_video("a.mp4", every(50), sound=[(0.0, tone(2.0))])
    assert list(read_frames(path, segment=Segment(60, 70))) == []
    assert read_audio(path, segment=Segment(60, 70)).shape == (0,)


def test_a_segment_before_the_sound_is_silent(make_video):
    path = make_video("a.mkv", every(100), sound=[(3.0, tone(1.0))])
    sound = read_audio(path, segment=Segment(1.5, 2.5))
    assert len(sound) == 22_050
    assert not sound.any()


def test_an_index_that_lies_is_not_believed(make_video, monkeypatch):
    """A seek that lands too late would lose the beginning of the segment, and nobody would notice."""
    path = make_video("a.mkv", every(200), sound=[(0.0, tone(8.0))])
    expected = times(read_frames(path, segment=Segment(5, 6)))
    monkeypatch.setattr(seeking, "PREROLL_S", -1.5)  # every seek aims 1.5 s too far
    assert times(read_frames(path, segment=Segment(5, 6))) == expected
    assert len(expected) == 25


# Files and names


def test_probe_tells_what_is_there(make_video):
    path = make_video("a.mkv", every(50), sound=[(0.0, tone(2.0))], size=(96, 64))
    found = probe(path)
    assert found.duration_s == pytest.approx(2.0, abs=0.05)
    assert found.video == decode.VideoStream(96, 64, 25.0, 0, "h264", 0.0)
    assert found.audio == decode.AudioStream(SOUND_HZ, 1, "pcm_s16le", 0.0)
    assert found.subtitles == ()


@pytest.mark.parametrize("name", ["Überraschung 日本.mkv", "-i.mkv", "a:b%03d.mkv", "concat:a|b.mkv"])
def test_any_name_is_only_a_name(make_video, monkeypatch, name):
    path = make_video("plain.mkv", every(5))
    path.rename(path.with_name(name))
    monkeypatch.chdir(path.parent)
    assert len(list(read_frames(Path(name)))) == 5


def test_a_file_is_closed_however_the_reading_ends(make_video, tmp_path):
    path = make_video("a.mkv", every(50), sound=[(0.0, tone(2.0))])
    for make in (read_frames, stream_audio):
        reading = make(path)
        next(reading)
        assert str(path) in open_files()
        del reading
        assert str(path) not in open_files()
    list(read_frames(path))
    read_audio(path)
    probe(path)
    next(read_frames(path, segment=Segment(1.5, 2.0)))
    bad = tmp_path / "bad.mkv"
    bad.write_bytes(path.read_bytes()[:300])
    with pytest.raises(MediaError):
        list(read_frames(bad))
    assert not open_files() & {str(path), str(bad)}


def test_nothing_is_opened_before_the_first_item_is_asked_for(make_video):
    path = make_video("a.mkv", every(5))
    reading = read_frames(path)
    assert str(path) not in open_files()
    assert next(reading).time_s == 0.0


@pytest.mark.parametrize("read", [probe, read_frames, read_audio, stream_audio])
def test_a_file_that_is_not_there_is_the_users_mistake(tmp_path, read):
    with pytest.raises(InputError, match=r"nothing\.mp4 does not exist"):
        read(tmp_path / "nothing.mp4")
    with pytest.raises(InputError, match="is no file"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (read_frames, {"rate_hz": 0}, "a number above 0"),
        (read_frames, {"rate_hz": float("nan")}, "a number above 0"),
        (read_frames, {"max_side_px": 0}, "max_side_px must be 1 or more"),
        (read_frames, {"num_threads": 0}, "num_threads must be 1 or more"),
        (read_audio, {"rate_hz": 10}, "the audio rate must be a whole number of 1000"),
        (read_audio, {"rate_hz": 22050.5}, "the audio rate must be a whole number"),
        (stream_audio, {"block_s": -1.0}, "a number above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(make_video, function, options, message):
    with pytest.raises(InputError, match=message):
        function(make_video("a.mkv", every(2)), **options)


def test_reading_without_pyav_says_what_to_install():
    code = "import sys; sys.modules['av'] = None\nimport moodal.media\nimport moodal.media.decode"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "InputError: reading video needs PyAV; install it: pip install 'moodal[video]'" in done.stderr


def test_the_package_alone_is_light():
    code = "import sys, moodal.media\nassert not {'av', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# Broken and hostile files


def test_what_is_no_media_is_refused(tmp_path):
    for name, raw in {"empty.mp4": b"", "text.mp4": b"hello\n" * 100, "zeros.mkv": bytes(10_000)}.items():
        path = tmp_path / name
        path.write_bytes(raw)
        with pytest.raises(MediaError, match=rf"{name} could not be opened as a video or a sound file"):
            probe(path)


def test_a_playlist_does_not_lead_to_other_files(make_video, tmp_path):
    make_video("secret.ts", every(10))
    playlists = {
        "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "a.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "b.mp4": "ffconcat version 1.0\nfile secret.ts\n",
        "c.txt": "hello\n",
    }
    for name, text in playlists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(MediaError, match="could not be opened"):
            probe(tmp_path / name)


def test_a_picture_that_is_too_large_is_refused(make_video, monkeypatch):
    path = make_video("a.mkv", every(5), sound=[(0.0, tone(0.2))])
    monkeypatch.setattr(container, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(MediaError, match="its pictures are 64 x 48, more than 3071 pixels"):
        list(read_frames(path))
    assert probe(path).video.width_px == 64
    assert len(read_audio(path)) > 4_000
    monkeypatch.setattr(seeking, "refuse", lambda path, stream: None)  # a header that understates it
    with pytest.raises(MediaError, match="nothing of its video could be decoded"):
        list(read_frames(path))


def test_more_sound_than_an_array_should_hold_is_refused(make_video, monkeypatch):
    path = make_video("a.mkv", sound=[(0.0, tone(0.5)), (130.0, tone(0.5))])
    monkeypatch.setattr(decode, "MAX_READ_S", 100.0)
    with pytest.raises(InputError, match="give a segment, or read it with stream_audio"):
        read_audio(path)
    assert sum(len(x) for _, x in stream_audio(path)) == pytest.approx(130.5 * 22_050, abs=30)


def test_a_time_that_cannot_be_is_left_out(make_video, caplog):
    path = make_video("a.mkv", [0.0, 0.1, 0.2, 90_000.0], sound=[(0.0, tone(0.3)), (90_000.0, tone(0.1))])
    with caplog.at_level(logging.WARNING):
        assert times(read_frames(path)) == [0.0, 0.1, 0.2]
        assert len(read_audio(path)) == pytest.approx(0.3 * 22_050, abs=30)
    assert "a picture at 90000.000 s after one at 0.200 s" in caplog.text
    assert "sound at 90000.000 s" in caplog.text


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.avi", "a.ts"])
def test_a_truncated_file_ends_with_what_is_left_or_with_an_error(make_video, name, caplog):
    options = {"movflags": "faststart"} if name == "a.mp4" else {}
    path = make_video(name, every(50), sound=[(0.0, tone(2.0))], options=options)
    raw = path.read_bytes()
    whole, counts = times(read_frames(path)), []
    for share in (0.02, 0.3, 0.5, 0.7, 0.85):
        path.write_bytes(raw[: int(len(raw) * share)])
        try:
            found = times(read_frames(path))
        except MediaError:
            found = []
        assert found == pytest.approx(whole[: len(found)])
        counts.append(len(found))
    assert counts == sorted(counts)
    assert counts[0] < counts[-1] < 50
    assert counts[-1] > 30


def test_a_header_without_the_rest_is_an_error(make_video):
    path = make_video("a.mp4", every(20), sound=[(0.0, tone(0.8))], options={"movflags": "faststart"})
    raw = path.read_bytes()
    path.write_bytes(raw[: raw.index(b"mdat") + 4])
    for read in (read_frames, stream_audio):
        with pytest.raises(MediaError, match=r"a\.mp4: nothing of its"):
            list(read(path))


def test_pictures_without_a_decoder_are_an_error_and_the_sound_is_read(make_video):
    path = make_video("a.mkv", every(20), sound=[(0.0, tone(0.8))])
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XXX"))
    assert probe(path).video == decode.VideoStream(0, 0, 25.0, 0, "unknown", 0.0)
    with pytest.raises(MediaError, match=r"a\.mkv: there is no decoder for its video"):
        list(read_frames(path))
    assert len(read_audio(path)) == pytest.approx(0.8 * 22_050, abs=30)
    path.write_bytes(path.read_bytes().replace(b"A_PCM/INT/LIT", b"A_XXX/INT/LIT"))
    assert probe(path).audio == decode.AudioStream(0, 0, "unknown", 0.0)
    with pytest.raises(MediaError, match="there is no decoder for its audio"):
        read_audio(path)


def test_a_subtitle_stream_that_is_not_there(make_video):
    path = make_video("a.mkv", every(5))
    with pytest.raises(MediaError, match="there is no subtitle stream 0"):
        list(decode.read_subtitles(path, 0))


def test_damage_is_skipped_counted_and_logged(make_video, caplog):
    path = make_video("a.mkv", every(100), gop=10)
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 2
    raw[middle : middle + 60] = bytes(60)
    path.write_bytes(bytes(raw))
    with caplog.at_level(logging.WARNING):
        found = times(read_frames(path))
    assert 30 < len(found) < 100
    assert f"{path}: " in caplog.text
    assert "damaged pieces were left out; the first: " in caplog.text


MUTATE = """
import logging, random, resource, sys
from pathlib import Path
from moodal.media import MediaError
from moodal.media.decode import FrameReader, probe, read_audio, stream_audio
from moodal.types import Segment
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
logging.disable()
ends = {"whole": 0, "refused": 0}
for source in sys.argv[1:]:
    raw = Path(source).read_bytes()
    broken = Path(source).with_stem("broken")
    for seed in range(20):
        random.seed(seed)
        bad = bytearray(raw)
        for _ in range(random.choice((1, 5, 50))):
            at = random.randrange(len(bad))
            bad[at : at + random.choice((1, 4))] = random.randbytes(random.choice((1, 4)))
        broken.write_bytes(bytes(bad))
        try:
            probe(broken)
            with FrameReader(broken, [None, Segment(0.5, 1.0), Segment(1.0, 2.0)], max_side_px=32) as reader:
                frames = max(sum(1 for _ in reader.read(k)) for k in range(3))
            sound = sum(len(samples) for _, samples in stream_audio(broken))
            read_audio(broken, segment=Segment(1.5, 3.0))
            assert frames <= 400, frames
            assert sound <= 24 * 3600 * 22050, sound
            ends["whole"] += 1
        except MediaError as e:
            assert "broken" in str(e)
            ends["refused"] += 1
print(ends["whole"], ends["refused"])
"""


def test_sixty_mutations_neither_crash_nor_hang(make_video):
    paths = [make_video(n, every(60), sound=[(0.0, tone(2.4))]) for n in ("a.mp4", "a.mkv", "a.avi")]
    command = [sys.executable, "-c", MUTATE, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    whole, refused = map(int, done.stdout.split())
    assert whole + refused == 60
    assert whole > 20


# Real files

CLIPS = {  # frames, their shape, seconds of sound
    "Audio_Source-00086.mp4": (130, (224, 224), 5.25),
    "Audio_Source-681600002.mp3": (0, None, 14.53),
    "Input-00002.mp4": (126, (224, 224), 5.06),
    "Pose_Source-00473.mp4": (158, (224, 224), 6.34),
    "Pose_Source-620900105.mp4": (108, (224, 224), 4.35),
    "WDA_KatieHill_000.mp4": (200, (512, 512), 8.0),
    "d11.mp4": (225, (512, 512), 9.01),
    "d18.mp4": (216, (480, 480), 7.2),
    "face_noface.mov": (169, (540, 960), 6.4),
    "friday.mp4": (185, (480, 640), 6.15),
    "no_face.mp4": (95, (540, 960), 3.97),
    "short_hamilton_clip.mp4": (275, (360, 640), 10.01),
    "single_face.mp4": (72, (360, 640), 2.42),
}


def clip(name):
    path = DATA / "clips" / name
    if not path.is_file():
        pytest.skip(f"{path} is not there; set MOODAL_DATA")
    return path


@pytest.mark.corpus
@pytest.mark.parametrize("name", CLIPS)
def test_real_clips(name):
    num_frames, shape, sound_s = CLIPS[name]
    path = clip(name)
    frames = list(read_frames(path, max_side_px=96))
    assert len(frames) == num_frames
    assert times(frames) == sorted(set(times(frames)))
    assert len(read_audio(path)) / 22_050 == pytest.approx(sound_s, abs=0.01)
    found = probe(path)
    if shape is None:
        assert found.video is None
    else:
        assert (found.video.height_px, found.video.width_px) == shape
        assert found.duration_s == pytest.approx(frames[-1].time_s, abs=0.12)


@pytest.mark.corpus
def test_a_silent_track_is_silence_not_absence():
    sound = read_audio(clip("d18.mp4"))
    assert len(sound) > 150_000
    assert not sound.any()


@pytest.mark.corpus
def test_the_phone_film_whose_sound_begins_late():
    path = clip("face_noface.mov")
    assert probe(path).audio.start_s == pytest.approx(2.43, abs=0.001)
    sound = read_audio(path)
    assert not sound[: int(2.42 * 22_050)].any()
    assert sound[int(2.44 * 22_050) :].any()
