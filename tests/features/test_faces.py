"""Faces in real clips: found, followed, counted, lost when they leave; and nothing where there is none."""

from itertools import pairwise

import numpy as np
import pytest
from tests.features.conftest import DATA, NO_MODELS, on_clips

from moodal.features.faces import (
    LEFT_EYE_OUTER,
    LOOK_EVERY_S,
    NUM_POINTS,
    RIGHT_EYE_OUTER,
    Box,
    Face,
    FaceDetector,
    FaceMesh,
    FaceTracker,
    track_faces,
)
from moodal.features.head import straighten
from moodal.media.decode import Frame, read_frames

MOUTH_LEFT, MOUTH_RIGHT, NOSE_TIP, CHIN = 291, 61, 4, 152


def frames_of(name, rate_hz=10):
    return list(read_frames(DATA / "clips" / name, rate_hz=rate_hz))


@pytest.fixture(scope="module")
def smile():
    """A man to the camera, who smiles from 0.6 s to 2.4 s; then letters and a sky."""
    return frames_of("face_noface.mov")


@pytest.fixture(scope="module")
def portraits(smile):
    """Square pictures of three people."""
    man = smile[2].rgb[:, 210:750]
    return man, frames_of("d18.mp4", 1)[0].rgb, frames_of("d11.mp4", 1)[0].rgb


def scene(*placed, height=360, width=640, ground=0):
    """Pictures, each as (picture, left, top, side), before a wall of large grey blocks, one wall per ``ground``."""
    import cv2

    blocks = np.random.default_rng(ground).integers(40, 160, (6, 8), dtype=np.uint8)
    wall = cv2.resize(blocks, (width, height), interpolation=cv2.INTER_NEAREST)
    canvas = np.repeat(wall[..., None], 3, axis=2)
    for picture, left, top, side in placed:
        canvas[top : top + side, left : left + side] = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return canvas


def film(*parts):
    """Ten frames per second: each part is (picture, number of frames)."""
    pictures = [picture for picture, count in parts for _ in range(count)]
    return [Frame(i / 10, picture) for i, picture in enumerate(pictures)]


@pytest.mark.parametrize(
    ("other", "iou"),
    [((0, 0, 10, 10), 1.0), ((5, 0, 15, 10), 1 / 3), ((10, 0, 20, 10), 0.0), ((20, 20, 10, 10), 0.0)],
    ids=["same", "half", "beside", "inside out"],
)
def test_overlap_of_boxes(other, iou):
    assert Box(0, 0, 10, 10).iou(Box(*other)) == pytest.approx(iou)
    assert Box(*other).iou(Box(0, 0, 10, 10)) == pytest.approx(iou)


def test_the_eye_distance_of_a_turned_head_is_that_in_space():
    points = np.zeros((NUM_POINTS, 3))
    points[LEFT_EYE_OUTER] = (30, 0, 40)
    assert Face(points, 1.0).eye_distance_px == pytest.approx(50)


@NO_MODELS
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (37, 211), (1080, 1920)])
def test_empty_pictures_of_any_size_hold_no_face(size):
    tracker = FaceTracker()
    for value in (0, 128, 255):
        seen = tracker.see(Frame(0.0, np.full((*size, 3), value, np.uint8)))
        assert (seen.face, seen.num_faces) == (None, 0)


@NO_MODELS
def test_noise_holds_no_face():
    rng = np.random.default_rng(0)
    frames = [Frame(i / 10, rng.integers(0, 256, (180, 320, 3), dtype=np.uint8)) for i in range(5)]
    assert [s.num_faces for s in track_faces(frames)] == [0] * 5


@on_clips
def test_the_points_lie_where_the_parts_of_the_face_are(smile):
    rgb = smile[2].rgb
    (found,) = FaceDetector()(rgb)
    face = FaceMesh().at(rgb, found)
    assert face.points.shape == (NUM_POINTS, 3)
    assert face.confidence > 0.99
    by_eye = {  # read off the enlarged picture
        RIGHT_EYE_OUTER: (361, 249),
        LEFT_EYE_OUTER: (509, 241),
        MOUTH_RIGHT: (405, 370),
        MOUTH_LEFT: (484, 364),
        CHIN: (448, 444),
    }
    for point, (x, y) in by_eye.items():
        assert np.hypot(*(face.points[point, :2] - (x, y))) < 8
    nose, left, right = face.points[NOSE_TIP], face.points[LEFT_EYE_OUTER], face.points[RIGHT_EYE_OUTER]
    assert right[0] < nose[0] < left[0]  # the person's right is on the picture's left
    assert nose[2] < min(left[2], right[2])  # and the nose is nearer
    assert found.box.iou(face.box) > 0.6
    assert np.hypot(*np.subtract(found.right_eye, face.points[RIGHT_EYE_OUTER, :2])) < 40


@on_clips
def test_the_points_move_with_the_picture(portraits):
    """Shifted, made smaller, leaned over, mirrored: the same face."""
    import cv2

    man = portraits[0]
    shown = {
        "large": scene((man, 0, 0, 360), width=360),
        "shifted": scene((man, 200, 0, 360)),
        "small": scene((man, 20, 30, 180)),
        "mirrored": scene((man[:, ::-1], 0, 0, 360), width=360),
    }
    lean = cv2.getRotationMatrix2D((180, 180), -25, 1)  # OpenCV counts angles the other way round
    shown["leaning"] = cv2.warpAffine(shown["large"], lean, (360, 360))
    seen = {name: FaceTracker().see(Frame(0.0, picture)).face.points for name, picture in shown.items()}
    large = seen["large"]
    tolerance = 0.03 * 360 / 2
    assert np.abs(seen["shifted"] - (200, 0, 0) - large)[:, :2].mean() < tolerance / 2
    assert np.abs((seen["small"] - (20, 30, 0)) * 2 - large)[:, :2].mean() < tolerance
    assert np.abs(seen["leaning"][:, :2] - (large[:, :2] @ lean[:, :2].T + lean[:, 2])).mean() < tolerance
    pose = {name: straighten(points)[1] for name, points in seen.items()}
    assert pose["leaning"].roll - pose["large"].roll == pytest.approx(25, abs=3)
    assert pose["mirrored"].yaw == pytest.approx(-pose["large"].yaw, abs=4)
    assert pose["mirrored"].pitch == pytest.approx(pose["large"].pitch, abs=4)
    for angle in ("yaw", "pitch", "roll"):
        assert getattr(pose["small"], angle) == pytest.approx(getattr(pose["large"], angle), abs=4)


@on_clips
def test_no_face_gives_nothing():
    """A sky, and letters that each network alone takes for faces."""
    sightings = list(track_faces(frames_of("no_face.mp4")))
    assert len(sightings) == 40
    assert {(s.face, s.num_faces) for s in sightings} == {(None, 0)}


@on_clips
def test_a_face_is_lost_when_it_leaves(smile):
    sightings = list(track_faces(smile))
    leaves_s = 2.4
    assert all(s.face is not None and s.num_faces == 1 for s in sightings if s.time_s < leaves_s - 0.05)
    assert all(s.face is None and s.num_faces == 0 for s in sightings if s.time_s > leaves_s + 0.05)
    assert {s.track for s in sightings} == {0}


@on_clips
@pytest.mark.parametrize(
    "name", ["Input-00002.mp4", "Pose_Source-620900105.mp4", "Audio_Source-00086.mp4", "single_face.mp4"]
)
def test_a_talking_head_is_followed_from_end_to_end(name):
    sightings = list(track_faces(frames_of(name)))
    assert all(s.face is not None and s.num_faces == 1 and s.track == 0 for s in sightings)
    for before, after in pairwise(s.face.box for s in sightings):
        assert before.iou(after) > 0.5


@on_clips
def test_several_faces_are_counted():
    """A stage; from 1.5 s a blurred listener in profile; from 3.6 s the singer alone; from 7.9 s the audience."""
    sightings = list(track_faces(frames_of("short_hamilton_clip.mp4")))
    shots = [[s for s in sightings if start <= s.time_s < end] for start, end in pairwise((0, 1.45, 3.55, 7.85, 99))]
    stage, listener, singer, audience = shots
    assert {s.num_faces for s in stage} == {s.num_faces for s in singer} == {1}
    assert all(s.face is None for s in listener)
    assert max(s.num_faces for s in audience) >= 2
    tracks = [{s.track for s in shot if s.face} for shot in (stage, singer, audience)]
    assert tracks[0] == {0}
    assert tracks[1] == {1}
    assert min(tracks[2]) == 2  # although a face of the audience is where the singer's was


@on_clips
def test_all_faces_of_a_crowd_are_counted_and_the_largest_is_followed(portraits):
    man, second, girl = portraits
    picture = scene((man, 0, 0, 170), (second, 170, 0, 170), (girl, 350, 20, 280), (man, 60, 180, 170))
    (seen,) = track_faces(film((picture, 1)))
    assert seen.num_faces == 4
    assert seen.face.box.left > 350


@on_clips
def test_the_steady_face_is_kept_until_a_much_larger_one_stays(portraits):
    man, second, girl = portraits
    alone = scene((man, 20, 90, 120))
    beside = scene((man, 20, 90, 120), (second, 220, 90, 130))
    much_larger = scene((man, 20, 90, 120), (girl, 280, 60, 220))
    steady = list(track_faces(film((alone, 10), (beside, 15))))
    assert {s.track for s in steady} == {0}
    assert steady[-1].num_faces == 2
    assert steady[-1].face.box.right < 220
    # a look every half second: at 1.0 s it is noticed, at 1.5 s it is still there
    turned = list(track_faces(film((alone, 10), (much_larger, 15))))
    assert [s.track for s in turned] == [0] * 15 + [1] * 10
    assert turned[-1].face.box.left > 280
    passing = list(track_faces(film((alone, 10), (much_larger, 4), (alone, 10), (much_larger, 4), (alone, 10))))
    assert {s.track for s in passing} == {0}
    assert LOOK_EVERY_S == 0.5


@on_clips
def test_a_face_that_is_gone_for_a_moment_is_the_same_and_after_a_while_another(portraits):
    here, nobody = scene((portraits[0], 20, 60, 180)), scene()
    moment = list(track_faces(film((here, 5), (nobody, 5), (here, 5))))
    assert [s.face is not None for s in moment] == [True] * 5 + [False] * 5 + [True] * 5
    assert {s.track for s in moment} == {0}
    a_while = list(track_faces(film((here, 5), (nobody, 15), (here, 5))))
    assert [s.track for s in a_while if s.face] == [0] * 5 + [1] * 5


@on_clips
def test_another_face_in_another_place_is_another_track(portraits):
    man, second, _ = portraits
    sightings = list(track_faces(film((scene((man, 0, 100, 160)), 5), (scene((second, 380, 100, 160)), 5))))
    assert [s.track for s in sightings] == [0] * 5 + [1] * 5
    assert all(s.face is not None for s in sightings)


@on_clips
def test_another_face_in_the_same_place_is_another_track_behind_a_cut(portraits):
    man, second, _ = portraits
    before, behind = scene((man, 100, 60, 200)), scene((second, 100, 60, 200), ground=1)
    sightings = list(track_faces(film((before, 5), (behind, 5))))
    assert [s.track for s in sightings] == [0] * 5 + [1] * 5
    assert all(s.face is not None for s in sightings)


@on_clips
def test_a_tracker_that_was_reset_sees_what_a_new_one_sees(smile):
    tracker = FaceTracker()
    first = [tracker.see(f) for f in smile[:12]]
    tracker.reset()
    again = [tracker.see(f) for f in smile[:12]]
    new = list(track_faces(smile[:12]))
    for a, b, c in zip(first, again, new, strict=True):
        np.testing.assert_array_equal(a.face.points, b.face.points)
        np.testing.assert_array_equal(a.face.points, c.face.points)
        assert a.track == b.track == c.track == 0


@on_clips
def test_looking_seldom_costs_little():
    """What following saves: a mesh per frame, a detection every half second."""
    counted = {"looks": 0}
    tracker = FaceTracker()
    detector = tracker.detector
    tracker.detector = lambda *a: counted.update(looks=counted["looks"] + 1) or detector(*a)
    for frame in frames_of("Pose_Source-00473.mp4")[:50]:
        tracker.see(frame)
    assert 8 <= counted["looks"] <= 10
