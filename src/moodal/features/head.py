"""The head without its face: how it is turned, and the points of the mesh as if it looked straight ahead.

Seventeen points on bone and bridge of the nose hardly move with expression. The similarity transform that lays them on
a fixed reference undoes position, size and rotation of the head. Coordinates as in ``faces``: x right, y down, z away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Where they are in the mean face of ten people in the development clips, made symmetric; the outer corners of the eyes
# are one unit apart, the origin is between them, and the line from hairline (10) to chin (152) is upright.
_PAIRS = {  # right and left; x is the left one's
    (33, 263): (0.500, 0.000, 0.000),  # outer corners of the eyes
    (133, 362): (0.195, 0.012, -0.063),  # inner corners
    (114, 343): (0.153, 0.135, -0.204),  # sides of the nose
    (117, 346): (0.579, 0.189, -0.014),  # cheekbones
    (127, 356): (0.772, 0.102, 0.539),  # before the ears
}
_MIDDLE = {  # down the nose, from between the eyes to its base; x is 0
    168: (-0.073, -0.238),
    6: (0.012, -0.293),
    197: (0.089, -0.357),
    195: (0.159, -0.423),
    5: (0.234, -0.492),
    4: (0.330, -0.529),
    2: (0.495, -0.349),
}
RIGID = np.array([point for pair in _PAIRS for point in pair] + list(_MIDDLE))
REFERENCE = np.array(
    [(side * x, y, z) for x, y, z in _PAIRS.values() for side in (-1, 1)] + [(0.0, y, z) for y, z in _MIDDLE.values()]
)


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the head looks, in degrees; all 0: straight into the camera.

    yaw: positive when the nose points to the right of the picture. pitch: positive when it points up. roll: positive
    when the head leans clockwise as seen in the picture.
    """

    yaw: float
    pitch: float
    roll: float


def straighten(points: Array) -> tuple[Array, Pose]:
    """points: (468, 3) -> the same in units of the eye distance on a head that looks straight ahead, and its pose.

    Least squares over ``RIGID``: Umeyama, 1991, https://doi.org/10.1109/34.88573. A rotated, moved or scaled head gives
    the same answer to rounding; how well a real one does depends on how true the mesh's z is.
    """
    rigid = points[RIGID]
    centre, target = rigid.mean(0), REFERENCE.mean(0)
    a, b = rigid - centre, REFERENCE - target
    u, stretch, vt = np.linalg.svd(b.T @ a)
    handed = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])  # a rotation, never a reflection
    to_front = (u * handed) @ vt
    scale = (stretch * handed).sum() / max((a**2).sum(), 1e-12)
    return scale * (points - centre) @ to_front.T + target, _pose(to_front.T)


def _pose(rotation: Array) -> Pose:
    """rotation: (3, 3) from the straight head to the real one: first it leans, then it nods, then it turns."""
    x, y, z = rotation @ (0.0, 0.0, -1.0)  # where the nose points
    yaw, pitch = np.arctan2(x, -z), np.arctan2(-y, np.hypot(x, z))
    level = np.array([np.cos(yaw), 0.0, np.sin(yaw)])  # where its right-to-left axis would point without any roll
    across = rotation @ (1.0, 0.0, 0.0)
    down = np.cross(level, (x, y, z))
    roll = np.arctan2(across @ down, across @ level)
    return Pose(*(float(np.degrees(angle)) for angle in (yaw, pitch, roll)))
