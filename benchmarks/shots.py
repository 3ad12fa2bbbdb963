"""How well and how fast shots are found: real clips joined into episodes whose cuts are known to the picture.

    python -m benchmarks.shots CLIPS_FOLDER [--part accuracy] [--detectors transnet adaptive] [--seed 0] [--json]
    python -m benchmarks.shots CLIPS_FOLDER --part memory [--minutes 40] [--detectors transnet] [--json]

**accuracy**: stretches of the folder's clips in which there is no cut (by eye, see STRETCHES), in a random order in
which none follows one of the same camera, joined at several sizes and rates, two of them variable, and once with
dissolves. Recall and precision count a cut as found at exactly its picture, and at that or a neighbour; a dissolve, at
any of its pictures or the one after. Nothing was chosen by these numbers: the thresholds are the detectors' own. The
processor time includes decoding.

**memory**: the process of one detector on an episode of ``--minutes`` at 10 pictures per second, its packets repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.extraction import repeat
from tests.screening.joined import Cut, Piece, joined

from moodal.media.decode import probe
from moodal.media.shots import DETECTORS, FoundShot, detect_shots

STRETCHES = (
    ("Audio_Source-00086.mp4", 0.0, 5.2),
    ("Input-00002.mp4", 0.0, 5.0),
    ("Pose_Source-00473.mp4", 0.0, 6.3),
    ("Pose_Source-620900105.mp4", 0.0, 4.3),
    ("WDA_KatieHill_000.mp4", 0.0, 8.0),
    ("d11.mp4", 0.0, 9.0),
    ("d18.mp4", 0.0, 7.2),
    ("friday.mp4", 0.0, 6.1),
    ("no_face.mp4", 0.0, 3.9),
    ("single_face.mp4", 0.0, 2.4),
    ("short_hamilton_clip.mp4", 1.55, 3.55),  # between its own cuts: three cameras
    ("short_hamilton_clip.mp4", 3.62, 7.85),
    ("short_hamilton_clip.mp4", 7.92, 9.95),
)
PIECES = 25  # of an episode
SHORTEST_S, LONGEST_S = 0.6, 3.0
MEMORY_FPS = 10


@dataclass(frozen=True)
class Episode:
    name: str
    fps: float | Sequence[float]
    size: tuple[int, int]
    blend: int = 0


EPISODES = (
    Episode("224x224, 25 Hz", 25, (224, 224)),
    Episode("320x240, 29.97 Hz", 30_000 / 1001, (320, 240)),
    Episode("640x360, 23.976 Hz", 24_000 / 1001, (640, 360)),
    Episode("426x240, variable (30, 15, 24 Hz)", (30, 15, 24), (426, 240)),
    Episode("180x320, variable (50, 25, 10 Hz)", (50, 25, 10), (180, 320)),
    Episode("320x240, 25 Hz, dissolves of 12", 25, (320, 240), 12),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="CLIPS_FOLDER")
    parser.add_argument("--part", choices=("accuracy", "memory"), default="accuracy")
    parser.add_argument("--detectors", nargs="+", choices=list(DETECTORS), default=list(DETECTORS))
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moodal-benchmark-") as work:
        if asked.part == "memory":
            rows = list(memory(asked.folder, Path(work), asked.detectors, 60 * asked.minutes, asked.seed))
        else:
            rows = list(accuracy(asked.folder, Path(work), asked.detectors, asked.seed))
    if asked.json:
        print(json.dumps(rows, indent=1))
    else:
        print(table(rows))


# Accuracy


def accuracy(folder: Path, work: Path, detectors: Sequence[str], seed: int) -> Iterator[dict[str, Any]]:
    """A row for each detector and episode, and one for all episodes with hard cuts."""
    made = [make(folder, work / f"{k}.mp4", episode, seed + k) for k, episode in enumerate(EPISODES)]
    for detector in detectors:
        total: list[tuple[list[Cut], list[int]]] = []
        for k, (episode, cuts) in enumerate(zip(EPISODES, made, strict=True)):
            began = time.process_time()
            shots = detect_shots(work / f"{k}.mp4", detector=detector)
            cpu_s = time.process_time() - began
            found = [s.first_frame for s in shots[1:]]
            if not episode.blend:
                total.append((cuts, found))
            yield {"detector": detector, "episode": episode.name, **scores([(cuts, found)]), **cost(shots, cpu_s)}
        yield {"detector": detector, "episode": "all hard cuts", **scores(total)}


def make(folder: Path, target: Path, episode: Episode, seed: int) -> list[Cut]:
    pieces = script(folder, random.Random(seed))  # noqa: S311 - no secret
    return joined(pieces, target, fps=episode.fps, size=episode.size, blend=episode.blend, sound=False)


def script(folder: Path, chance: random.Random) -> list[Piece]:
    """Random stretches, of which none follows one of the same camera."""
    pieces: list[Piece] = []
    before = None
    for _ in range(PIECES):
        name, first_s, last_s = before = chance.choice([s for s in STRETCHES if s != before])
        length_s = min(chance.uniform(SHORTEST_S, LONGEST_S), last_s - first_s)
        start_s = chance.uniform(first_s, last_s - length_s)
        pieces.append((folder / name, start_s, start_s + length_s))
    return pieces


def scores(episodes: Sequence[tuple[list[Cut], list[int]]]) -> dict[str, Any]:
    num_true = sum(len(cuts) for cuts, _ in episodes)
    num_found = sum(len(found) for _, found in episodes)
    row: dict[str, Any] = {"cuts": num_true, "found": num_found}
    for name, slack in (("exact", 0), ("near", 1)):
        hits = sum(num_hits(cuts, found, slack) for cuts, found in episodes)
        row[f"recall_{name}"] = round(hits / num_true, 3)
        row[f"precision_{name}"] = round(hits / num_found, 3) if num_found else None
    return row


def num_hits(cuts: Sequence[Cut], found: Sequence[int], slack: int) -> int:
    """Cuts that were found, each by one of its own."""
    left = list(found)
    hits = 0
    for cut in cuts:
        allowed = range(cut.frame - cut.blend - slack, cut.frame + slack + 1)
        match = next((f for f in left if f in allowed), None)
        if match is not None:
            left.remove(match)
            hits += 1
    return hits


def cost(shots: Sequence[FoundShot], cpu_s: float) -> dict[str, float]:
    pictures, seconds = shots[-1].last_frame + 1, shots[-1].segment.end_s - shots[0].segment.start_s
    return {"pictures_per_cpu_s": round(pictures / cpu_s, 1), "cpu_s_per_video_s": round(cpu_s / seconds, 3)}


# Memory


def memory(folder: Path, work: Path, detectors: Sequence[str], seconds: float, seed: int) -> Iterator[dict[str, Any]]:
    make(folder, work / "short.mp4", Episode("short", MEMORY_FPS, (224, 224)), seed)
    repeat(work / "short.mp4", work / "long.mp4", seconds)
    for detector in detectors:
        for name in ("short", "long"):
            video = work / f"{name}.mp4"
            code = "import sys; from pathlib import Path; from moodal.media.shots import detect_shots\n"
            code += "print(len(detect_shots(Path(sys.argv[1]), detector=sys.argv[2])))"
            process = subprocess.Popen([sys.executable, "-c", code, str(video), detector], stdout=subprocess.PIPE)
            assert process.stdout
            said = process.stdout.read()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0
            yield {
                "detector": detector,
                "video_s": round(probe(video).duration_s or 0.0, 1),
                "shots": int(said),
                "peak_mb": round(used.ru_maxrss * 1024 / 1e6),
                "cpu_s": round(used.ru_utime + used.ru_stime, 1),
            }


def table(rows: Sequence[dict[str, Any]]) -> str:
    columns = list(rows[0])
    cells = [columns, *([str(row.get(c, "")) for c in columns] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(columns))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


if __name__ == "__main__":
    main()
