"""A shot begins with its first picture, at the time at which that is shown."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.media.conftest import every, tone

from moodal.media.shots import find_shots
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


@pytest.mark.parametrize("detector", ["adaptive", "content"])
def test_each_cut_begins_a_shot(make_video, detector):
    shots = find_shots(make_video("a.mp4", every(100), draw=scenes(30, 60)), detector=detector)
    assert starts(shots) == pytest.approx([0.0, 1.2, 2.4])


def test_shots_follow_on_and_end_with_the_last_picture(make_video):
    shots = find_shots(make_video("a.mp4", every(100), draw=scenes(30, 60)))
    assert [s.end_s for s in shots[:-1]] == starts(shots[1:])
    assert shots[-1].end_s == pytest.approx(4.0)


def test_a_cut_is_where_the_picture_is_shown_whatever_the_rate(make_video):
    shown = [*every(30, 25.0), *(1.2 + t for t in every(20, 10.0)), *(3.2 + t for t in every(60, 50.0))]
    shots = find_shots(make_video("a.mkv", shown, draw=scenes(40, 80)))
    assert starts(shots) == pytest.approx([0.0, shown[40], shown[80]])
    assert shots[-1].end_s == pytest.approx(3.2 + 60 / 50)


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
def test_the_cuts_of_a_real_film_are_found():
    found = find_shots(DATA / "clips" / "short_hamilton_clip.mp4")
    assert starts(found) == pytest.approx([0.844, 1.511, 2.846, 3.580, 7.884], abs=0.001)
    assert len(find_shots(DATA / "clips" / "Input-00002.mp4")) == 1
