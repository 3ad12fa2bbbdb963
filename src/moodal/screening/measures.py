"""What is measured of a video and of its clips, in a process of its own: a file in, a part out.

Five stages, each once per video: its sound, pictures to compare with other clips, the faces, the voices, and small
pictures for the page. What they write is raw enough that no threshold can change it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moodal.media import MediaError
from moodal.media.decode import AudioReader, Frame, FrameReader, probe, stream_audio
from moodal.media.speech import find_speech
from moodal.media.transcripts import read_transcript
from moodal.screening.parts import Array, Job, Record, write_part
from moodal.types import InputError, Segment

if TYPE_CHECKING:
    from moodal.features.faces import Face, FaceDetector, FaceMesh

VERSIONS = {"sound": 1, "pictures": 1, "faces": 1, "voices": 1, "thumbnails": 1}  # another number: measured anew

SOUND_HZ = 16_000
BIN_S = 0.1  # of sound that has one loudness
STEP_S = 0.05  # between two of them, half over each other
NUM_BANDS = 16  # of the sound's outline, between 200 Hz and 6 kHz
QUIET_DB = -100.0  # and anything below
SHORT_PAUSE_S = 0.2  # longer ones are noted

COMPARED = (0.1, 0.3, 0.5, 0.7, 0.9)  # of a clip's time: the pictures by which two are compared
COMPARED_PX = 16
COMPARED_HZ = 10.0

FACE_SIDE_PX = 640  # as in extraction
TURNED_DEG, SETTLED_DEG, MAX_GOES = 10.0, 3.0, 4  # when the pose of a face is looked at again, and how often
THUMBNAIL_PX = 96  # high
JPEG_QUALITY = 70


def measure(job: Job) -> str:
    """Write ``job.part``; why that was not possible, or "". What is wrong with the file itself is raised."""
    records = STAGES[job.stage](job)
    try:
        write_part(job.part, job.spans, records)
    except OSError as e:
        return f"{job.part} could not be written: {e.strerror or e}"
    except InputError as e:  # the disk is full
        return str(e)
    return ""


def hear(job: Job) -> list[Record]:
    """Of the whole file: loudness in dB and outline in bands every ``STEP_S``, when somebody speaks, the words."""
    has_sound = probe(job.file).audio is not None
    loudness, bands = _outline(job.file) if has_sound else (np.zeros(0), np.zeros((0, NUM_BANDS)))
    speech = find_speech(job.file, min_pause_s=SHORT_PAUSE_S) if has_sound else ()
    lines, problem = _lines(job.file)
    said = json.dumps({"lines": lines, "problem": problem}).encode()
    return [
        {
            "has_sound": np.array([has_sound]),
            "loudness": loudness.astype(np.float16),
            "bands": np.clip(-2 * bands, 0, 200).astype(np.uint8),  # half decibels below full scale
            "speech": np.array([(s.start_s, s.end_s) for s in speech], np.float64).reshape(-1, 2),
            "said": np.frombuffer(said, np.uint8),
        }
    ]


def _outline(file: Path) -> tuple[Array, Array]:
    """Decibels of full scale: (T,) of each bin, (T, NUM_BANDS) of its bands."""
    size, step = round(BIN_S * SOUND_HZ), round(STEP_S * SOUND_HZ)
    bands = _bands(size)
    window = np.hanning(size).astype(np.float32)
    loudness, outline, rest = [np.zeros(0)], [np.zeros((0, NUM_BANDS))], np.zeros(0, np.float32)
    for _, samples in stream_audio(file, rate_hz=SOUND_HZ):
        heard = np.concatenate([rest, samples])
        if len(heard) < size:
            rest = heard
            continue
        bins = np.lib.stride_tricks.sliding_window_view(heard, size)[::step]
        rest = heard[len(bins) * step :]
        loudness.append(_db((bins**2).mean(1)))
        outline.append(_db(np.abs(np.fft.rfft(bins * window, axis=1)) ** 2 @ bands.T / size**2))
    return np.concatenate(loudness), np.concatenate(outline)


def _bands(size: int) -> Array:
    """(NUM_BANDS, size // 2 + 1): 1 where a frequency belongs to the band."""
    edges = np.geomspace(200, 6000, NUM_BANDS + 1)
    hz = np.arange(size // 2 + 1) * SOUND_HZ / size
    found: Array = ((hz >= edges[:-1, None]) & (hz < edges[1:, None])).astype(np.float32)
    return found


def _db(power: Array) -> Array:
    found: Array = 10 * np.log10(np.maximum(power, 10 ** (QUIET_DB / 10)))
    return found


def _lines(file: Path) -> tuple[list[list[Any]], str]:
    """The transcript, or what is wrong with it, which costs the words only."""
    try:
        return [[x.start_s, x.end_s, x.text, x.speaker] for x in read_transcript(file)], ""
    except (InputError, MediaError) as e:
        return [], str(e)


def compare(job: Job) -> list[Record]:
    """Of each span: (len(COMPARED), COMPARED_PX, COMPARED_PX) small grey pictures, at the same moments of any copy."""
    found: list[Record] = []
    with FrameReader(job.file, _segments(job), rate_hz=COMPARED_HZ, max_side_px=128) as reader:
        for number, (start_s, end_s) in enumerate(job.spans):
            small = [(f.time_s, _grey(f)) for f in reader.read(number)]
            moments = [start_s + share * (end_s - start_s) for share in COMPARED]
            near = [min(small, key=lambda s, m=m: abs(s[0] - m))[1] for m in moments] if small else []  # type: ignore[misc]
            found.append({"grey": np.array(near, np.uint8).reshape(-1, COMPARED_PX, COMPARED_PX)})
    return found


def _grey(frame: Frame) -> Array:
    import cv2

    grey = cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (COMPARED_PX, COMPARED_PX), interpolation=cv2.INTER_AREA), np.uint8)


def look(job: Job) -> list[Record]:
    """Of each span: when its pictures were looked at, and of each face that was found the number of its look, its
    height (of the picture's), yaw and pitch."""
    found: list[Record] = []
    with FrameReader(job.file, _segments(job), rate_hz=job.rate_hz, max_side_px=FACE_SIDE_PX) as reader:
        for number in range(len(job.spans)):
            times: list[float] = []
            faces: list[tuple[float, ...]] = []
            for frame in reader.read(number):
                faces += [(len(times), *face) for face in _faces(frame)]
                times.append(frame.time_s)
            found.append({"times_s": np.array(times, np.float64), "faces": np.array(faces, np.float32).reshape(-1, 4)})
    return found


def _faces(frame: Frame) -> Iterator[tuple[float, float, float]]:
    """Height, yaw and pitch of each that both networks take for one; the mesh is asked where the detector saw one."""
    from moodal.features.faces import FIND_CONFIDENCE, FIND_SCORE, MAX_FACES, SAME_FACE_IOU

    detector, mesh = _networks()
    known: list[Face] = []
    candidates = sorted(detector(frame.rgb, FIND_SCORE), key=lambda d: -d.box.area)[:MAX_FACES]
    for candidate in candidates:
        face = mesh.at(frame.rgb, candidate)
        if face is None or face.confidence < FIND_CONFIDENCE:
            continue
        if any(face.box.iou(other.box) >= SAME_FACE_IOU for other in known):
            continue
        known.append(face)
        face, yaw, pitch = _settled(mesh, frame, face)
        yield (face.box.bottom - face.box.top) / len(frame.rgb), yaw, pitch


def _settled(mesh: FaceMesh, frame: Frame, face: Face) -> tuple[Face, float, float]:
    """The face, its yaw and its pitch. The detector's box sits askew on a turned head, and the mesh in it is drawn
    towards the front: by half, at 50 degrees. Placed again from its own points it comes right in two or three goes."""
    from moodal.features.head import straighten

    pose = straighten(face.points)[1]
    for _ in range(MAX_GOES if abs(pose.yaw) > TURNED_DEG else 0):
        again = mesh.at(frame.rgb, face)
        if again is None:
            break
        face, before = again, pose
        pose = straighten(face.points)[1]
        if abs(pose.yaw - before.yaw) < SETTLED_DEG:
            break
    return face, pose.yaw, pose.pitch


@lru_cache(maxsize=1)
def _networks() -> tuple[FaceDetector, FaceMesh]:
    """One pair per process."""
    from moodal.features.faces import FaceDetector, FaceMesh

    return FaceDetector(), FaceMesh()


def listen(job: Job) -> list[Record]:
    """Of each span how far apart its voices are; NaN where there is too little speech to tell."""
    from moodal.features.voices import speech_only, voice_distance, voice_points

    found: list[Record] = []
    with AudioReader(job.file, _segments(job), rate_hz=SOUND_HZ) as reader:
        for number, (start_s, end_s) in enumerate(job.spans):
            speech = [s for s in job.speech if s.end_s > start_s and s.start_s < end_s]
            points = voice_points(speech_only(reader.read(number), start_s, speech))
            found.append({"voice_distance": np.array([voice_distance(points)])})
    return found


def show(job: Job) -> list[Record]:
    """Of each span a small picture from its middle, as the bytes of a JPEG; none where there is no picture."""
    middles = [Segment((start + end) / 2, end) for start, end in job.spans]
    with FrameReader(job.file, middles, max_side_px=2 * THUMBNAIL_PX) as reader:
        frames = [next(reader.read(number), None) for number in range(len(middles))]
    with FrameReader(job.file, _segments(job), max_side_px=2 * THUMBNAIL_PX) as reader:
        # a clip's only picture may be its first
        frames = [frame or next(reader.read(number), None) for number, frame in enumerate(frames)]
    return [{"jpeg": np.frombuffer(_jpeg(frame), np.uint8)} for frame in frames]


def _jpeg(frame: Frame | None) -> bytes:
    import cv2

    if frame is None:
        return b""
    height, width = frame.rgb.shape[:2]
    size = (max(1, min(4 * THUMBNAIL_PX, round(width * THUMBNAIL_PX / height))), THUMBNAIL_PX)
    small = cv2.resize(frame.rgb[..., ::-1], size, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())


def _segments(job: Job) -> list[Segment]:
    return [Segment(start, end) for start, end in job.spans]


STAGES: dict[str, Callable[[Job], list[Record]]] = {
    "sound": hear,
    "pictures": compare,
    "faces": look,
    "voices": listen,
    "thumbnails": show,
}
