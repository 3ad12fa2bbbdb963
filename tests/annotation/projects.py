"""A small labelling project with real media, for the tests of its pages."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from argon2 import PasswordHasher

from moodal.annotation import accounts
from moodal.annotation.database import Database, open_database, sqlite_url
from moodal.annotation.settings import AnnotationSettings
from moodal.data.clips import Clip, write_clips, write_recipe

PASSWORD = "correct horse battery"  # noqa: S105
RATE_HZ = 44_100
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # for tests that are not about passwords
CLIP_S = 1.2
SETTINGS = AnnotationSettings(conditions=("text", "audio", "vision", "full"), labels_per_clip=1, gap_clips=0)
WORDS = ("I am so glad you came.", "Leave me <b>alone</b>!", "What was that?", "It is raining.")


def make_video(path: Path, seconds: float, *, sound: bool = True) -> Path:
    """A square that moves over grey, and a tone."""
    with av.open(f"file:{path}", "w") as out:
        video = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "threads": "1"})
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        audio = out.add_stream("aac", rate=RATE_HZ, layout="mono") if sound else None
        for i in range(round(seconds * 25)):
            rgb = np.full((240, 320, 3), 90, np.uint8)
            x = (i * 8) % 260
            rgb[80:140, x : x + 60] = (220, 150, 60)
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio:
            samples = 0.3 * np.sin(2 * np.pi * 330 * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)
            for first in range(0, len(samples), 1024):
                piece = av.AudioFrame.from_ndarray(
                    samples[None, first : first + 1024].astype(np.float32), "fltp", "mono"
                )
                piece.rate, piece.time_base, piece.pts = RATE_HZ, Fraction(1, RATE_HZ), first
                out.mux(audio.encode(piece))
            out.mux(audio.encode(None))
    return path


def make_clips(num: int, *, video: str = "episode.mp4") -> list[Clip]:
    return [
        Clip(
            f"episode_{i:04d}", video, "episode", i * CLIP_S, (i + 1) * CLIP_S, text=WORDS[i % len(WORDS)], passed=True
        )
        for i in range(num)
    ]


def make_folder(root: Path, num: int = 3, *, sound: bool = True) -> Path:
    """A recipe folder whose clips are screened."""
    videos, folder = root / "videos", root / "recipe"
    videos.mkdir()
    folder.mkdir()
    make_video(videos / "episode.mp4", num * CLIP_S, sound=sound)
    write_recipe(folder, videos)
    write_clips(folder, make_clips(num))
    return folder


def open_folder(folder: Path) -> Database:
    return open_database(sqlite_url(folder / "annotation.sqlite"))


def add_people(db: Database, names: Sequence[str], role: str = "annotator") -> list[accounts.Person]:
    """People who have set the same password."""
    return [accounts.accept(db, accounts.invite(db, name, role), PASSWORD) for name in names]
