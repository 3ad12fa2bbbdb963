"""Action-unit proxies: what the geometry of 468 face points can say about the 35 action-unit columns of OpenFace.

**They are proxies, not OpenFace's action units**: no certified coder set their scales, points do not see wrinkles and
bulges, and the mesh moves neighbouring parts together. The columns have OpenFace's names and order, so that models for
the 35 fit; a data set must not hold both kinds, and a paper must not call these OpenFace's.

How a number comes about. The head is straightened (``head``), so that lengths are in eye distances, outer corner to
outer corner, and turning the head changes little. Lengths are averaged into ``MEASURES``; an action unit's *signal* is
a weighted sum of them, the second and third weight taking out what a smile or an open jaw does to the same points:

    intensity = min(max((signal - neutral) / unit, 0), 5)

``unit`` is fixed, so that the noise of a neutral clip stays small instead of being stretched over the scale. The
``neutral`` is this person's relaxed face: a low quantile of the signal over the clip, held within the range that
relaxed faces have, because a clip that smiles from beginning to end holds no relaxed face. A presence is an intensity
of 1 or more.

What can be relied on, seen on the development clips (strong acted and spoken expressions of nine people):
mouth and lids, 12 25 26 45 and mostly 06 15 17; brows, 01 02 04, when the head does not nod. Plausible, hardly seen:
05 07 20 23. Weak, more a rest of smile and jaw than a sight of their own: 09 10 14 28.
Known error: when the head lifts by 10 degrees, 05 falls by 1 to 2, 45 rises by about 1, 04 06 12 15 by about half (the
lids do follow; the rest is the mesh's). A turn to the side does less. See the tests for bounds on exact points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from moodal.features.extractor import Features
from moodal.features.faces import Face, FaceTracker
from moodal.features.head import straighten
from moodal.features.model_files import FACE_MODELS
from moodal.features.openface import AU_COLUMNS, INTENSITIES, PRESENCES
from moodal.types import InputError

if TYPE_CHECKING:
    from moodal.media.decode import Frame

Array = npt.NDArray[Any]

# Besides the 35: the pose, which is expressive itself and the main disturbance of the proxies; and what tells how far a
# step can be believed, the mesh's confidence and how many pixels there were (below 30 or so the lids are a blur).
HEAD_COLUMNS = ("yaw_deg", "pitch_deg", "roll_deg")
QUALITY_COLUMNS = ("confidence", "eye_distance_px")
COLUMNS = AU_COLUMNS + HEAD_COLUMNS + QUALITY_COLUMNS
MAX_INTENSITY = 5.0
PRESENT = 1.0  # intensity from which a presence is 1

# Distances in space between two points, averaged; in eye distances.
_DISTANCES: dict[str, tuple[tuple[int, int], ...]] = {
    "brow_inner": ((107, 133), (55, 133), (336, 362), (285, 362)),  # from the inner corner of the eye
    "brow_outer": ((70, 33), (46, 33), (300, 263), (276, 263)),  # from the outer corner of the eye
    "brow_gap": ((107, 336), (55, 285)),
    "eye_open": ((159, 145), (158, 153), (160, 144), (386, 374), (385, 380), (387, 373)),
    "cheek": ((50, 33), (280, 263), (205, 33), (425, 263)),  # from the outer corner of the eye
    "nostril": ((98, 133), (327, 362), (129, 133), (358, 362)),  # from the inner corner of the eye
    "corner_eye": ((61, 33), (291, 263)),  # corner of the mouth to outer corner of the eye
    "mouth_width": ((61, 291),),
    "mouth_open": ((82, 87), (13, 14), (312, 317)),
    "lip_nose": ((2, 0), (2, 37), (2, 267)),
    "lip_chin": ((17, 152), (17, 199)),
    "lips_thick": ((0, 13), (37, 82), (267, 312), (14, 17), (87, 84), (317, 314)),
    "jaw": ((2, 152),),  # base of the nose to the tip of the chin
}
# How much lower the second point lies than the first, averaged.
_DROPS: dict[str, tuple[tuple[int, int], ...]] = {
    "upper_lid": ((159, 33), (159, 133), (158, 33), (158, 133), (386, 263), (386, 362), (385, 263), (385, 362)),
    "lower_lid": ((33, 145), (133, 145), (33, 153), (133, 153), (263, 374), (362, 374), (263, 380), (362, 380)),
    "corner_drop": ((13, 61), (13, 291), (14, 61), (14, 291)),
}
# How much further back the second point lies than the first, averaged.
_DEPTHS: dict[str, tuple[tuple[int, int], ...]] = {"corner_depth": ((2, 61), (2, 291))}
MEASURES = (*_DISTANCES, *_DROPS, *_DEPTHS)


@dataclass(frozen=True, slots=True)
class Signal:
    """One action unit: ``weights`` of the measures, ``unit`` eye distances per step of intensity,
    ``relaxed`` the range that holds a neutral face's signal, ``quantile`` of a clip that is taken as neutral."""

    weights: Mapping[str, float]
    unit: float
    relaxed: tuple[float, float]
    quantile: float = 0.25


# Ranges: the mean over the relaxed faces of nine people in the development clips, plus and minus 1 standard deviation
# (mouth and cheeks) or 1.5 (the rest). Units: the largest movement seen in the same clips is 3 to 5 steps. Weights of
# jaw and mouth: regressed on the clips in which people speak.
SIGNALS: dict[str, Signal] = {
    "AU01": Signal({"brow_inner": 1.0}, 0.012, (0.255, 0.315)),
    "AU02": Signal({"brow_outer": 1.0}, 0.012, (0.16, 0.22)),
    "AU04": Signal({"brow_inner": -1.0, "brow_gap": -0.5}, 0.012, (-0.50, -0.395)),
    "AU05": Signal({"upper_lid": 1.0}, 0.008, (0.05, 0.075), 0.5),
    "AU06": Signal({"cheek": -1.0, "jaw": 0.1}, 0.012, (-0.38, -0.345)),
    "AU07": Signal({"lower_lid": -1.0, "eye_open": -0.5}, 0.008, (-0.10, -0.065), 0.5),
    "AU09": Signal({"nostril": -1.0, "corner_eye": 0.45, "jaw": -0.1}, 0.012, (-0.205, -0.16)),
    "AU10": Signal({"lip_nose": -1.0, "corner_eye": 0.18, "jaw": 0.05}, 0.008, (0.008, 0.022)),
    "AU12": Signal({"corner_eye": -1.0, "mouth_width": 0.5, "jaw": 0.4}, 0.050, (-0.28, -0.18)),
    "AU14": Signal({"corner_depth": 1.0, "mouth_width": -0.5, "jaw": -0.1}, 0.015, (-0.19, -0.145)),
    "AU15": Signal({"corner_drop": 1.0, "mouth_open": 0.2}, 0.010, (0.005, 0.025)),
    "AU17": Signal({"lip_chin": -1.0, "mouth_open": -0.4}, 0.020, (-0.38, -0.31)),
    "AU20": Signal({"mouth_width": 1.0, "corner_eye": 1.5, "jaw": -0.75}, 0.050, (1.13, 1.22)),
    "AU23": Signal({"lips_thick": -1.0, "mouth_width": -0.05}, 0.006, (-0.144, -0.126)),
    "AU25": Signal({"mouth_open": 1.0}, 0.040, (0.0, 0.03)),  # of closed lips
    "AU26": Signal({"jaw": 1.0}, 0.050, (0.725, 0.815)),
    "AU28": Signal({"lips_thick": -1.0}, 0.030, (-0.116, -0.098)),
    "AU45": Signal({"eye_open": -1.0}, 0.012, (-0.113, -0.08), 0.5),
}


class ActionUnitProxies:
    """The extractor ``au_proxy``: 35 proxies, head pose and quality of the followed face, frame by frame.

    Frames without a face are left out. Should the tracker turn to another person in the middle of a clip, that person
    gets a neutral face of their own. One object serves one thread at a time.
    """

    name = "au_proxy"
    version = "1"
    modality = "vision"
    licence = "Apache-2.0"
    commercial = True
    columns = COLUMNS
    dim = len(COLUMNS)  # 40

    def __init__(self, *, rate_hz: float = 10.0) -> None:
        if not 0 < rate_hz <= 120:
            raise InputError(f"au_proxy takes more than 0 and at most 120 frames per second, got {rate_hz}")
        self.rate_hz = float(rate_hz)
        self.hop_s = 1 / self.rate_hz
        self.settings: dict[str, Any] = {
            "backend": "blazeface-full-range+facemesh-468",
            "rate_hz": self.rate_hz,
            "models": {m.name: m.sha256 for m in FACE_MODELS},
        }
        self._tracker: FaceTracker | None = None  # made at first use: what an extractor is can be told without models

    def identity(self) -> dict[str, Any]:
        """The fields of a data set's ``FeatureSpec``."""
        names = ("name", "version", "modality", "dim", "hop_s", "licence", "columns")
        return {**{n: getattr(self, n) for n in names}, "settings": dict(self.settings)}

    def __call__(self, frames: Iterable[Frame]) -> Features:
        """frames: one clip, in order of time."""
        if self._tracker is None:
            self._tracker = FaceTracker()
        self._tracker.reset()
        times, tracks, measures, others, num_frames = [], [], [], [], 0
        for sighting in map(self._tracker.see, frames):
            num_frames += 1
            if sighting.face is None:
                continue
            straight, pose = straighten(sighting.face.points)
            times.append(sighting.time_s)
            tracks.append(sighting.track)
            measures.append(measure(straight))
            others.append((pose.yaw, pose.pitch, pose.roll, *_quality(sighting.face)))
        if not times:
            return Features.missing(self.dim, f"no face in {num_frames} frames")
        units = _by_person(np.array(measures), np.array(tracks))
        values = np.column_stack([units, others]).astype(np.float32)
        return Features(values, np.array(times, np.float64), _note(len(times), num_frames, len(set(tracks))))


def _tables() -> tuple[Array, Array, Array]:
    """The pairs of all measures, (2, n); which part of each pair's difference counts; and (len(MEASURES), n) means."""
    groups = [*_DISTANCES.values(), *_DROPS.values(), *_DEPTHS.values()]
    pairs = np.array([pair for group in groups for pair in group]).T
    kinds = np.repeat([0, 1, 2], [sum(map(len, t.values())) for t in (_DISTANCES, _DROPS, _DEPTHS)])
    sizes = [len(g) for g in groups]
    means = np.repeat(np.eye(len(groups)), sizes, axis=1) / np.array(sizes)[:, None]
    return pairs, kinds, means


_PAIRS, _KINDS, _MEANS = _tables()
_WEIGHTS = np.array([[s.weights.get(m, 0.0) for m in MEASURES] for s in SIGNALS.values()])


def measure(straight: Array) -> Array:
    """straight: (468, 3) from ``straighten`` -> (len(MEASURES),) in eye distances."""
    difference = straight[_PAIRS[1]] - straight[_PAIRS[0]]
    parts = np.stack([np.linalg.norm(difference, axis=1), difference[:, 1], difference[:, 2]])
    result: Array = _MEANS @ parts[_KINDS, np.arange(len(_KINDS))]
    return result


def action_units(measures: Array) -> Array:
    """measures: (T, len(MEASURES)) of one person in one clip -> (T, 35) proxies in ``AU_COLUMNS``' order."""
    signals = measures @ _WEIGHTS.T  # (T, 18)
    columns = dict(zip(SIGNALS, signals.T, strict=True))
    strength = {name: _intensity(x, SIGNALS[name]) for name, x in columns.items()}
    rows = [strength[c[:4]] for c in INTENSITIES] + [(strength[c[:4]] >= PRESENT) * 1.0 for c in PRESENCES]
    return np.stack(rows, 1)


def _intensity(x: Array, signal: Signal) -> Array:
    neutral = np.clip(np.quantile(x, signal.quantile), *signal.relaxed)
    intensity: Array = np.clip((x - neutral) / signal.unit, 0.0, MAX_INTENSITY)
    return intensity


def _by_person(measures: Array, tracks: Array) -> Array:
    """(T, 35), each track with its own neutral face."""
    units = np.zeros((len(measures), len(AU_COLUMNS)))
    for track in np.unique(tracks):
        units[tracks == track] = action_units(measures[tracks == track])
    return units


def _quality(face: Face) -> tuple[float, float]:
    return face.confidence, face.eye_distance_px


def _note(num_seen: int, num_frames: int, num_tracks: int) -> str:
    parts = [f"a face in {num_seen} of {num_frames} frames"] if num_seen < num_frames else []
    if num_tracks > 1:
        parts.append(f"{num_tracks} faces followed one after the other")
    return "; ".join(parts)
