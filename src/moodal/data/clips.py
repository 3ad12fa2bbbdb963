"""The folder of the recipe, from raw videos to labels: which shots there are, and which of them are clips to label.

DIR/recipe.json says where the videos are; DIR/shots.parquet has one row per shot, DIR/clips.parquet one per shot that
was screened, with what was measured and why it fell. Readable without us, like every table of ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moodal.files import fingerprint, read_json, write_atomic, write_json
from moodal.types import InputError

FORMAT = 1
PRINTS = b"moodal.videos"  # in a table's metadata: the fingerprint of each video that its times are of
KINDS = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}


@dataclass(frozen=True, slots=True)
class Shot:
    """A stretch of one video between two cuts, ``start_s <= t < end_s`` on the file's own clock.

    ``episode``: the video's name without its ending, unique in the folder; ``id`` is the episode and the shot's number.
    ``first_frame`` and ``last_frame`` count the pictures of the video in the order they are shown, both belong to the
    shot. ``confidence``: of the cut at its beginning, 0 to 1; None at the start of the video.
    """

    id: str
    video: str
    episode: str
    number: int
    start_s: float
    end_s: float
    first_frame: int
    last_frame: int
    confidence: float | None
    detector: str


@dataclass(frozen=True, slots=True)
class Clip:
    """A shot, or the stretch of speech in it, that was screened. What a filter never came to measure is None.

    ``passed``: every filter; else ``reason`` is the name of the first that it did not pass and ``detail`` a sentence.
    """

    id: str
    video: str
    episode: str
    start_s: float
    end_s: float
    text: str | None = None
    speaker: str | None = None
    loudness_db: float | None = None  # of the loudest tenth of a second, full scale is 0
    duplicate_of: str | None = None
    speech_share: float | None = None  # of its time
    voice_distance: float | None = None  # between the two most different parts of its speech; one speaker's is small
    face_share: float | None = None  # of its time, in which just one face is seen
    frontal_share: float | None = None  # of its time, in which just one face is seen and looks ahead
    faces_share: float | None = None  # of its time, in which more than one is seen
    faces: float | None = None  # the mean of how many are seen
    yaw_deg: float | None = None  # the median, left and right alike
    pitch_deg: float | None = None
    face_height: float | None = None  # of the picture's, the median
    passed: bool = False
    reason: str | None = None
    detail: str | None = None

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


def write_recipe(folder: Path, videos: Path) -> None:
    """Begin a recipe folder for the media in ``videos``."""
    write_json(folder / "recipe.json", {"format": FORMAT, "videos": str(videos.resolve())})


def recipe_videos(folder: Path) -> Path:
    """Where the media of a recipe folder are."""
    if not (folder / "recipe.json").is_file():
        raise InputError(
            f"{folder} is no folder of the recipe (it has no recipe.json); begin with: moodal shots VIDEOS {folder}"
        )
    videos = begun_with(folder)
    if videos is None:
        raise InputError(
            f"{folder / 'recipe.json'} does not say where the videos are; mend it with: moodal shots VIDEOS {folder}"
        )
    return videos


def begun_with(folder: Path) -> Path | None:
    """``recipe_videos``; None where recipe.json is absent or damaged, which ``write_recipe`` mends."""
    path = folder / "recipe.json"
    try:
        said = read_json(path)
    except InputError:
        return None
    if isinstance(said, dict) and said.get("format", FORMAT) != FORMAT:
        raise InputError(f"{path} is not of this version of moodal; choose another folder")
    videos = said.get("videos") if isinstance(said, dict) else None
    return Path(videos) if isinstance(videos, str) else None


def there_are_videos(folder: Path) -> Path:
    """``recipe_videos``, refused where that folder is gone: without it every video would seem to be broken."""
    videos = recipe_videos(folder)
    if not videos.is_dir():
        raise InputError(
            f"the videos of {folder} were in {videos}, which is no folder; bring it back, or say where they are now: "
            f"moodal shots VIDEOS {folder}"
        )
    return videos


def changed_videos(table: Path, videos: Path, names: Iterable[str]) -> list[str]:
    """Which of ``names``, relative to ``videos``, are other files than those whose times ``table`` (shots.parquet or
    clips.parquet) has; one that is gone is not among them, nor one that the table does not know."""
    known = video_prints(table)
    there = ((name, known[name], fingerprint(videos / name)) for name in dict.fromkeys(names) if known.get(name))
    return [name for name, before, now in there if now and now != before]


def video_prints(table: Path) -> dict[str, str]:
    """The fingerprint that each video had when ``table`` was made; empty where it does not say."""
    try:
        metadata = pq.read_schema(table).metadata or {}
        found = json.loads(metadata.get(PRINTS, b"{}"))
    except (pa.ArrowException, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_shots(folder: Path, shots: Sequence[Shot], prints: Mapping[str, str] | None = None) -> None:
    """``prints``: of each video, the fingerprint of the file that the times are of."""
    _write(folder / "shots.parquet", shots, Shot, prints)


def read_shots(folder: Path) -> list[Shot]:
    """The shots of a recipe folder, in the order of videos and times."""
    return _read(folder / "shots.parquet", Shot, f"moodal shots VIDEOS {folder}")


def write_clips(folder: Path, clips: Sequence[Clip], prints: Mapping[str, str] | None = None) -> None:
    """``prints``: as in ``write_shots``."""
    _write(folder / "clips.parquet", clips, Clip, prints)


def read_clips(folder: Path) -> list[Clip]:
    """Every clip of a recipe folder that was screened, those that fell too."""
    return _read(folder / "clips.parquet", Clip, f"moodal screen {folder}")


def _write(path: Path, rows: Sequence[Any], kind: Any, prints: Mapping[str, str] | None) -> None:
    schema = _schema(kind)
    if prints:
        schema = schema.with_metadata({PRINTS: json.dumps(prints, sort_keys=True)})
    table = pa.Table.from_pylist([asdict(r) for r in rows], schema=schema)
    write_atomic(path, lambda partial: pq.write_table(table, partial, compression="zstd"))


def _schema(kind: Any) -> pa.Schema:
    return pa.schema([(f.name, KINDS[str(f.type).split(" | ")[0]]) for f in fields(kind)])


def _read(path: Path, kind: Any, command: str) -> list[Any]:
    if not path.is_file():
        raise InputError(f"{path} is not there yet; run: {command}")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as e:
        raise InputError(f"{path} cannot be read as a Parquet table ({e}); run again: {command}") from e
    if table.schema.names != _schema(kind).names:
        raise InputError(f"{path} has other columns than this version of moodal writes; run again: {command}")
    return [kind(**row) for row in table.to_pylist()]
