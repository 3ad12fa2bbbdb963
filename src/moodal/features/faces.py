"""Faces in frames: a detector, a mesh of 468 points, and a tracker that follows one face through a video.

The two networks are BlazeFace (full range) and Face Mesh, run by LiteRT on one thread; what stands before and after
them is here. Points are in pixels of the frame: x to the right, y down, z away from the camera, all in the same unit,
z counted from somewhere inside the head.

Bazarevsky et al., 2019, https://arxiv.org/abs/1907.05047; Kartynnik et al., 2019, https://arxiv.org/abs/1907.06724.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from moodal.features.model_files import DETECTOR, MESH, ModelFile, read_model
from moodal.types import InputError

if TYPE_CHECKING:
    from moodal.media.decode import Frame

NUM_POINTS = 468
RIGHT_EYE_OUTER, RIGHT_EYE_INNER, LEFT_EYE_INNER, LEFT_EYE_OUTER = 33, 133, 362, 263  # the person's own left and right

DETECTOR_SIDE = 192  # pixels; the detector's input is square
GRID = 48  # and its output a grid of candidates, one per cell
SAME_HIT_IOU = 0.3  # candidates that overlap more are one face
MAX_CANDIDATES = 64  # per frame, the best; bounds what a hostile picture can cost

MESH_SIDE = 192
CROP_SCALE = 1.5  # the mesh wants some room around the face: side of the crop over side of the face

# To be a face at all, both networks must be fairly sure; to remain the followed one, less is enough. Lettering and
# blurred lights reach 0.6 at either, hardly ever at both; a real face that turns or blinks falls to 0.25 at the first.
FIND_SCORE, KEEP_SCORE = 0.5, 0.2  # of the detector
FIND_CONFIDENCE, KEEP_CONFIDENCE = 0.8, 0.5  # of the mesh
MAX_MISSES = 2  # looks in a row in which the detector sees nothing where the followed face is

LOOK_EVERY_S = 0.5  # while one face is followed, the detector looks at the whole frame this often
SAME_FACE_IOU = 0.3  # a face whose box overlaps less with the one before is another face
REMEMBERED_S = 1.0  # a face that comes back to its place within this time is the same face
TAKEOVER = 2.0  # another face must have this many times the area, in two looks in a row, to be followed instead
MAX_FACES = 16  # that are counted in one look, the largest
MIN_ALIKE = 0.35  # correlation with the frame before; less is a cut (seen: talk 0.6, a shaky camera 0.5, cuts 0.25)

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the frame; it may reach beyond the frame."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        return max(self.right - self.left, 0.0) * max(self.bottom - self.top, 0.0)

    def iou(self, other: Box) -> float:
        """Intersection over union, 0 to 1."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        shared = max(width, 0.0) * max(height, 0.0)
        return shared / max(self.area + other.area - shared, 1e-9)


@dataclass(frozen=True, slots=True)
class Detection:
    """A candidate face: its box (chin to forehead), the eyes (x, y), and the detector's score, 0 to 1."""

    box: Box
    right_eye: tuple[float, float]
    left_eye: tuple[float, float]
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face of one frame. points: (468, 3) pixels; ``confidence``: that a face is there, 0.5 to 1."""

    points: Array
    confidence: float

    @property
    def box(self) -> Box:
        """Around the points: chin to hairline."""
        (left, top), (right, bottom) = self.points[:, :2].min(0), self.points[:, :2].max(0)
        return Box(float(left), float(top), float(right), float(bottom))

    @property
    def eye_distance_px(self) -> float:
        """Between the outer corners of the eyes, in space: a turned head keeps it."""
        return float(np.linalg.norm(self.points[LEFT_EYE_OUTER] - self.points[RIGHT_EYE_OUTER]))


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """What was seen in one frame. ``face`` is the one that is followed, None where there is none.

    ``num_faces`` counts those of the last look (``LOOK_EVERY_S``); faces in profile, blurred and tiny ones are often
    missed. ``track`` numbers the faces followed so far, from 0. A face out of sight for less than ``REMEMBERED_S``
    keeps its number; one that comes back later, or behind a cut, has a new one: nobody is recognised.
    """

    time_s: float
    face: Face | None
    num_faces: int
    track: int


class FaceDetector:
    """Finds all faces of a frame that are larger than about a twentieth of its longer side."""

    def __init__(self) -> None:
        self._network = _Network(DETECTOR)
        cells = (np.arange(GRID) + 0.5) / GRID
        self._centres = np.stack(np.meshgrid(cells, cells), -1).reshape(-1, 1, 2)  # (GRID^2, 1, 2) as (x, y), 0 to 1

    def __call__(self, rgb: Array, min_score: float = FIND_SCORE) -> list[Detection]:
        """rgb: (H, W, 3) uint8. The best first."""
        square, scale, margin = _letterbox(rgb)
        values, logits = self._network(square / np.float32(127.5) - 1)
        scores = _sigmoid(logits.reshape(-1))
        found = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
        found = found[scores[found] >= min_score]
        # per candidate (x, y) of: centre relative to the cell, size, and six points relative to the cell
        pairs = values.reshape(-1, 8, 2)[found].astype(float) / DETECTOR_SIDE
        pairs[:, 0] += self._centres[found, 0]
        pairs[:, 2:] += self._centres[found]
        corners = np.stack([pairs[:, 0] - pairs[:, 1] / 2, pairs[:, 0] + pairs[:, 1] / 2], 1)
        spots = np.concatenate([corners, pairs[:, 2:4]], 1)  # (n, 4, 2): two corners, right eye, left eye
        pixels = (spots * DETECTOR_SIDE - margin) / scale
        return _merged([_detection(p, float(s)) for p, s in zip(pixels, scores[found], strict=True)])


class FaceMesh:
    """Places 468 points on the face in a crop, and says whether there is one."""

    def __init__(self) -> None:
        self._network = _Network(MESH)

    def at(self, rgb: Array, found: Detection | Face) -> Face | None:
        """The face where the detector, or the frame before, saw one; None when there is none after all."""
        import cv2

        to_frame = _crop(found)  # (2, 3)
        # corners of pixels count as whole numbers here; OpenCV counts their middles
        shifted = np.column_stack([to_frame[:, :2], to_frame[:, :2] @ (0.5, 0.5) + to_frame[:, 2] - 0.5])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        crop = cv2.warpAffine(rgb, shifted, (MESH_SIDE, MESH_SIDE), flags=flags, borderMode=cv2.BORDER_CONSTANT)
        points, logit = self._network(crop / np.float32(255))
        confidence = float(_sigmoid(logit.reshape(-1))[0])
        if not (confidence >= KEEP_CONFIDENCE and np.isfinite(points).all()):
            return None
        local = points.reshape(NUM_POINTS, 3).astype(float)
        xy = local[:, :2] @ to_frame[:, :2].T + to_frame[:, 2]
        z = local[:, 2] * np.hypot(*to_frame[:, 0])
        return Face(np.column_stack([xy, z]), confidence)


class FaceTracker:
    """Follows one face from frame to frame: the largest at first, then that one as long as it stays.

    The mesh of one frame says where to look in the next, at half the cost of a detection. The detector looks at the
    whole frame when the face is lost, and every ``LOOK_EVERY_S`` to count the others; one that has twice the area in
    two looks in a row takes over. Behind a cut of the film everything starts anew: the face may be another one in the
    same place.
    """

    def __init__(self) -> None:
        self.detector, self.mesh = FaceDetector(), FaceMesh()
        self.reset()

    def reset(self) -> None:
        """Forget what was seen: the next frame is of another video."""
        self._face: Face | None = None  # the followed one, as it was last seen
        self._seen_s = self._looked_s = -np.inf
        self._in_sight = False
        self._misses = 0
        self._rival: Face | None = None
        self._num_faces = 0
        self._track = -1
        self._thumbnail: Array | None = None  # of the frame before

    def see(self, frame: Frame) -> Sighting:
        """The next frame of the video, in order of time."""
        if self._is_cut(frame.rgb):
            self._face, self._rival = None, None
        face = self._follow(frame.rgb)
        if face is None or frame.time_s - self._looked_s >= LOOK_EVERY_S:
            face = self._look(frame, face)
        self._in_sight = face is not None
        if face is not None:
            self._face, self._seen_s = face, frame.time_s
        return Sighting(frame.time_s, face, self._num_faces, max(self._track, 0))

    def _is_cut(self, rgb: Array) -> bool:
        before, self._thumbnail = self._thumbnail, _thumbnail(rgb)
        return before is not None and float((before * self._thumbnail).sum()) < MIN_ALIKE

    def _follow(self, rgb: Array) -> Face | None:
        """The followed face, if it is still where it was in the frame before."""
        if self._face is None or not self._in_sight:
            return None
        face = self.mesh.at(rgb, self._face)
        return face if face is not None and _same(face, self._face) else None

    def _look(self, frame: Frame, followed: Face | None) -> Face | None:
        """Counts the faces, and chooses the one to follow from here on."""
        seen = self.detector(frame.rgb, KEEP_SCORE)
        followed = self._confirmed(followed, seen)
        others = self._others(frame.rgb, seen, followed)
        self._looked_s = frame.time_s
        self._num_faces = len(others) + (followed is not None)
        largest = max(others, key=lambda f: f.box.area, default=None)
        if followed is None:
            return self._back(others, frame.time_s) or self._turn_to(largest)
        if largest is None or largest.box.area < TAKEOVER * followed.box.area:
            self._rival = None
        elif self._rival is not None and _same(largest, self._rival):
            return self._turn_to(largest)
        else:
            self._rival = largest  # it must be there at the next look, too
        return followed

    def _confirmed(self, followed: Face | None, seen: Sequence[Detection]) -> Face | None:
        """The followed face, unless the detector has seen nothing there for ``MAX_MISSES`` looks."""
        if followed is None or any(_same(followed, d) for d in seen):
            self._misses = 0
            return followed
        self._misses += 1
        return followed if self._misses < MAX_MISSES else None

    def _others(self, rgb: Array, seen: Sequence[Detection], followed: Face | None) -> list[Face]:
        """The faces besides the followed one: found by the detector, and confirmed by the mesh."""
        faces: list[Face] = [] if followed is None else [followed]
        candidates = sorted((d for d in seen if d.score >= FIND_SCORE), key=lambda d: -d.box.area)
        for candidate in candidates[:MAX_FACES]:
            face = self.mesh.at(rgb, candidate)
            if face is not None and face.confidence >= FIND_CONFIDENCE and not any(_same(face, f) for f in faces):
                faces.append(face)
        return faces if followed is None else faces[1:]

    def _back(self, faces: Sequence[Face], now_s: float) -> Face | None:
        """The followed face, where it was out of sight for a moment."""
        if self._face is None or now_s - self._seen_s > REMEMBERED_S:
            return None
        return next((f for f in faces if _same(f, self._face)), None)

    def _turn_to(self, face: Face | None) -> Face | None:
        self._rival, self._misses = None, 0
        self._track += face is not None
        return face


def track_faces(frames: Iterable[Frame]) -> Iterator[Sighting]:
    """One sighting per frame of a video, as the frames come."""
    tracker = FaceTracker()
    return map(tracker.see, frames)


class _Network:
    """A model and its outputs, in the order of their size, largest first. One thread, so equal input, equal output."""

    def __init__(self, model: ModelFile) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as e:
            raise InputError("faces need the video extra; run: pip install 'moodal[video]'") from e
        # A session of its own for each: an interpreter may serve one caller at a time.
        self._interpreter = Interpreter(model_content=read_model(model), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        outputs = sorted(self._interpreter.get_output_details(), key=lambda d: -int(np.prod(d["shape"])))
        self._outputs = [d["index"] for d in outputs]

    def __call__(self, image: Array) -> list[Array]:
        """image: (side, side, 3) float32"""
        self._interpreter.set_tensor(self._input, image[None])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(i) for i in self._outputs]


def _thumbnail(rgb: Array) -> Array:
    """(16, 16) of the green channel, mean 0 and length 1: the product of two, summed, is their correlation."""
    rows, columns = ((np.arange(64) * size // 64) for size in rgb.shape[:2])
    small = rgb[np.ix_(rows, columns, [1])].astype(float).reshape(16, 4, 16, 4).mean((1, 3))
    small -= small.mean()
    length = float(np.linalg.norm(small))
    flat: Array = np.full((16, 16), 1 / 16)  # a picture without any contrast is like another such one
    return small / length if length > 1.0 else flat


def _letterbox(rgb: Array) -> tuple[Array, float, Array]:
    """The frame in the middle of a black square of ``DETECTOR_SIDE``; how much smaller, and the margin (x, y)."""
    import cv2

    height, width = rgb.shape[:2]
    scale = DETECTOR_SIDE / max(height, width)
    inner_w, inner_h = max(round(width * scale), 1), max(round(height * scale), 1)
    left, top = (DETECTOR_SIDE - inner_w) // 2, (DETECTOR_SIDE - inner_h) // 2
    square = np.zeros((DETECTOR_SIDE, DETECTOR_SIDE, 3), np.float32)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    square[top : top + inner_h, left : left + inner_w] = cv2.resize(rgb, (inner_w, inner_h), interpolation=how)
    return square, scale, np.array([left, top])


def _detection(spots: Array, score: float) -> Detection:
    """spots: (4, 2) corners of the box and the eyes, in pixels of the frame."""
    (left, top), (right, bottom), right_eye, left_eye = spots.tolist()
    return Detection(Box(left, top, right, bottom), tuple(right_eye), tuple(left_eye), score)


def _merged(candidates: Iterable[Detection]) -> list[Detection]:
    """Of candidates that overlap, the mean, weighted by score; best first."""
    left = sorted(candidates, key=lambda d: -d.score)
    merged = []
    while left:
        best = left[0]
        same = [d for d in left if d is best or d.box.iou(best.box) >= SAME_HIT_IOU]
        left = [d for d in left if d not in same]
        spots = [[(d.box.left, d.box.top), (d.box.right, d.box.bottom), d.right_eye, d.left_eye] for d in same]
        mean = np.average(np.array(spots), axis=0, weights=[d.score for d in same])
        merged.append(_detection(mean, best.score))
    return merged


def _crop(found: Detection | Face) -> Array:
    """(2, 3) from the mesh's crop to the frame: a square around the face, turned so that the eyes are level."""
    if isinstance(found, Face):
        right_eye, left_eye = found.points[RIGHT_EYE_OUTER, :2], found.points[LEFT_EYE_OUTER, :2]
    else:
        right_eye, left_eye = np.array(found.right_eye), np.array(found.left_eye)
    box = found.box
    side = CROP_SCALE * max(box.right - box.left, box.bottom - box.top)
    across, down = left_eye - right_eye
    angle = np.arctan2(down, across)
    turn = side / MESH_SIDE * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([box.left + box.right, box.top + box.bottom]) / 2
    return np.column_stack([turn, middle - turn @ (MESH_SIDE / 2, MESH_SIDE / 2)])


def _same(a: Face, b: Face | Detection) -> bool:
    return a.box.iou(b.box) >= SAME_FACE_IOU


def _sigmoid(x: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-np.clip(x.astype(float), -80, 80)))
    return result
