"""What is measured of media with known contents, and how thresholds make numbers of it."""

import numpy as np
import pytest
from tests.features.conftest import DATA, on_clips
from tests.media.conftest import SOUND_HZ, every, tone

from moodal.data.clips import Clip
from moodal.screening.judging import FACE, FACES, FRONTAL, LENGTH, SPEECH, judge, with_faces
from moodal.screening.measures import STEP_S, compare, hear, look, measure, show
from moodal.screening.parts import Job, Parts, read_part, write_part
from moodal.screening.settings import ScreenSettings


def job(file, spans, stage="sound", rate_hz=4.0):
    return Job(stage, file, file.name, tuple(spans), file.with_suffix(".npz"), rate_hz)


def test_loudness_is_in_decibels_of_full_scale_at_its_time(make_video):
    file = make_video("a.mov", every(50), sound=[(0.0, tone(1.0)), (1.0, np.zeros(SOUND_HZ, np.float32))])
    found = hear(job(file, [(0, 0)]))[0]
    loudness = found["loudness"].astype(float)
    assert found["has_sound"].tolist() == [True]
    np.testing.assert_allclose(loudness[4:16], 20 * np.log10(0.5) - 10 * np.log10(2), atol=0.3)  # a sine of 0.5
    assert (loudness[22:] <= -90).all()
    assert len(loudness) == round(2 / STEP_S) - 1


def test_sound_in_blocks_is_measured_as_one_run(make_video):
    sound = [(0.0, np.linspace(0.01, 0.9, 25 * SOUND_HZ, dtype=np.float32) * tone(25.0) * 2)]
    found = hear(job(make_video("a.mov", sound=sound), [(0, 0)]))[0]["loudness"].astype(float)
    assert len(found) == round(25 / STEP_S) - 1
    assert (np.diff(found[2:-2]) > -0.1).all()  # louder and louder, without a step at 10 s


def test_a_video_without_sound_says_so(make_video):
    found = hear(job(make_video("a.mp4", every(10)), [(0, 0)]))[0]
    assert found["has_sound"].tolist() == [False]
    assert len(found["speech"]) == len(found["loudness"]) == 0


def test_pictures_are_compared_at_shares_of_the_clip(make_video):
    file = make_video("a.mp4", every(50), draw=lambda i, w, h: np.full((h, w, 3), 5 * i, np.uint8))
    first, second, beyond = (r["grey"] for r in compare(job(file, [(0.0, 1.0), (1.0, 2.0), (5.0, 6.0)])))
    np.testing.assert_allclose(first.mean((1, 2)), [12.5, 37.5, 62.5, 87.5, 112.5], atol=9)
    np.testing.assert_allclose(second.mean((1, 2)) - first.mean((1, 2)), 125, atol=9)
    assert beyond.shape == (0, 16, 16)


def test_thumbnails_are_small_jpegs_from_the_middle(make_video):
    import cv2

    file = make_video("a.mp4", every(25), size=(320, 180), draw=lambda i, w, h: np.full((h, w, 3), 10 * i, np.uint8))
    whole, only, beyond = show(job(file, [(0.0, 1.0), (0.0, 0.04), (7.0, 8.0)]))
    picture = cv2.imdecode(whole["jpeg"], cv2.IMREAD_COLOR)
    assert picture.shape == (96, 171, 3)
    assert abs(picture.mean() - 130) < 8
    assert cv2.imdecode(only["jpeg"], cv2.IMREAD_COLOR).mean() < 8  # the clip's only picture is its first
    assert len(beyond["jpeg"]) == 0


@on_clips
def test_a_face_is_seen_while_it_is_there():
    looks = look(job(DATA / "clips" / "face_noface.mov", [(0.0, 6.4)]))[0]
    seen = looks["times_s"][looks["faces"][:, 0].astype(int)]
    assert seen.min() < 0.3
    assert 2.0 < seen.max() < 2.5
    assert np.abs(looks["faces"][:, 2]).max() < 10  # straight into the camera


@on_clips
def test_a_head_turned_by_half_is_not_measured_as_frontal():
    """The first mesh says 18 to 30 degrees; anybody sees about 50."""
    looks = look(job(DATA / "clips" / "Input-00002.mp4", [(0.0, 1.9)]))[0]
    assert np.median(np.abs(looks["faces"][:, 2])) > 38


def test_what_a_stage_measures_is_on_the_disk_as_it_was(tmp_path):
    spans = [(0.0, 1.5), (1.5, 3.25)]
    records = [
        {"times_s": np.arange(3.0), "faces": np.ones((2, 4), np.float32)},
        {"times_s": np.arange(0.0), "faces": np.zeros((0, 4), np.float32)},
    ]
    write_part(tmp_path / "k.a.npz", spans, records)
    found = read_part(tmp_path / "k.a.npz")
    assert list(found) == spans
    for span, record in zip(spans, records, strict=True):
        for name, values in record.items():
            np.testing.assert_array_equal(found[span][name], values)
            assert found[span][name].dtype == values.dtype


def test_a_damaged_part_is_as_good_as_none(tmp_path):
    write_part(tmp_path / "k.a.npz", [(0.0, 1.0)], [{"x": np.arange(1000)}])
    write_part(tmp_path / "k.b.npz", [(1.0, 2.0)], [{"x": np.arange(9)}])
    raw = (tmp_path / "k.a.npz").read_bytes()
    (tmp_path / "k.a.npz").write_bytes(raw[: len(raw) // 2])
    assert list(Parts(tmp_path).read("k")) == [(1.0, 2.0)]


def test_a_part_that_cannot_be_written_is_no_fault_of_the_file(make_video, tmp_path):
    file = make_video("a.mp4", every(5))
    said = measure(Job("thumbnails", file, "a.mp4", ((0.0, 0.2),), tmp_path / "nowhere" / "x.npz"))
    assert "could not be written" in said


CLIP = Clip("c", "v.mp4", "v", 10.0, 14.0)


def seen(*faces, count=16):
    """Four looks a second; faces: (look, height, yaw, pitch)."""
    return {"times_s": 10 + np.arange(count) / 4, "faces": np.array(faces, np.float32).reshape(-1, 4)}


def test_shares_are_of_the_clips_time():
    faces = [(k, 0.5, 0, 0) for k in range(8)] + [(k, 0.4, 60, 0) for k in (6, 7, 8, 9)]
    found = with_faces(CLIP, seen(*faces), ScreenSettings())
    assert found.face_share == pytest.approx(8 / 16)  # 0 to 5 alone, 6 and 7 with another, 8 and 9 the other alone
    assert found.faces_share == pytest.approx(2 / 16)
    assert found.frontal_share == pytest.approx(6 / 16)
    assert found.faces == pytest.approx(12 / 16)
    assert found.yaw_deg == 0
    assert found.face_height == pytest.approx(0.5)


def test_a_small_face_is_not_counted():
    faces = [(k, 0.5, 0, 0) for k in range(16)] + [(k, 0.09, 0, 0) for k in range(16)]
    assert with_faces(CLIP, seen(*faces), ScreenSettings()).faces_share == 0
    assert with_faces(CLIP, seen(*faces), ScreenSettings(min_face_height=0.05)).faces_share == 1


@pytest.mark.parametrize(("yaw", "pitch", "share"), [(-35, 30, 1), (36, 0, 0), (0, -31, 0)])
def test_ahead_is_within_both_angles(yaw, pitch, share):
    found = with_faces(CLIP, seen(*((k, 0.5, yaw, pitch) for k in range(16))), ScreenSettings())
    assert (found.face_share, found.frontal_share) == (1, share)


def test_pictures_that_end_early_do_not_stand_for_the_rest():
    found = with_faces(CLIP, seen(*((k, 0.5, 0, 0) for k in range(4)), count=4), ScreenSettings())
    assert found.face_share == pytest.approx((0.75 + 1.0) / 4)  # the last one counts for a second


def test_a_clip_without_pictures_has_no_face():
    found = with_faces(CLIP, seen(count=0), ScreenSettings())
    assert (found.face_share, found.faces_share, found.yaw_deg) == (0, 0, None)
    assert judge(found, [FACES, FACE, FRONTAL], ScreenSettings()).reason == "face"


def test_the_first_filter_that_stops_a_clip_is_its_reason_with_both_numbers():
    clip = Clip("c", "v.mp4", "v", 0.0, 0.6, speech_share=0.12)
    found = judge(clip, [LENGTH, SPEECH], ScreenSettings())
    assert (found.reason, found.detail) == ("length", "0.60 s long, less than 1.00 s")
    found = judge(clip, [SPEECH, LENGTH], ScreenSettings())
    assert (found.reason, found.detail) == ("speech", "speech for 12 % of its time, less than 30 %")


def test_a_number_at_the_threshold_passes_and_one_that_is_not_there_is_not_judged():
    assert judge(Clip("c", "v", "v", 0.0, 1.0), [LENGTH, SPEECH], ScreenSettings()).reason is None
    assert (
        judge(Clip("c", "v", "v", 0.0, 15.001), [LENGTH], ScreenSettings()).detail == "15.001 s long, more than 15.00 s"
    )
