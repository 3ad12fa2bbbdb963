"""Whether ``moodal screen`` finds what it is to find, on clips whose truth is known, and what it costs.

    python benchmarks/screening.py --part voices DATA_FOLDER
    python benchmarks/screening.py --part truth DATA_FOLDER [--seed 0] [--keep FOLDER]
    python benchmarks/screening.py --part cost DATA_FOLDER [--minutes 4]

DATA_FOLDER holds ``clips/`` (the real clips of the tests) and ``ravdess/audio16k/`` (actor: last number of a name).

**voices**: the distance of voices on RAVDESS, without pictures: how well it tells apart takes of one actor and of two,
and clips with one voice and with two. The threshold is chosen on actors 1 to 12 (the best mean of both rates) and
reported on 13 to 24; both halves hold as many women as men.

**truth**: an episode of clips that should pass or fall for one known reason each, with the voices of actors 13 to 24,
and a second one with worse copies of some of them; per filter, how many of those it stopped it should have stopped
(precision), and how many of those it should have stopped it did (recall).

**cost**: two films made of the real clips at 1280 x 720, screened by two workers with thresholds that let everything
through to the last filter, and with the default ones: times real time by the clock and by processor time, and the
largest process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import soundfile

from moodal.data.clips import Shot, read_clips, write_recipe, write_shots
from moodal.features.voices import embed, mel_power, voice_distance, voice_points
from moodal.media.decode import read_audio, read_frames
from moodal.media.speech import WINDOW, Network
from moodal.screening.screen import screen_clips
from moodal.screening.settings import ScreenSettings

Array = npt.NDArray[Any]
RATE_HZ = 16_000
CHOSEN, REPORTED = range(1, 13), range(13, 25)  # actors
HEADS = ("Pose_Source-00473", "WDA_KatieHill_000", "d11", "Pose_Source-620900105", "d18")  # look ahead, mostly


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA_FOLDER")
    parser.add_argument("--part", choices=("voices", "truth", "cost"), required=True)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="keep the recipe folder there, to look at its page")
    parser.add_argument("--json", action="store_true", help="numbers only")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moodal-benchmark-") as work:
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "voices": lambda: voices(asked.data / "ravdess" / "audio16k", asked.seed),
            "truth": lambda: truth(asked.data, asked.keep or Path(work), asked.seed),
            "cost": lambda: cost(asked.data / "clips", Path(work), 60 * asked.minutes),
        }
        found = parts[asked.part]()
    print(json.dumps(found, indent=None if asked.json else 1))


# Voices


@dataclass(frozen=True)
class Take:
    """One sentence of one actor; ``speech``: its samples without the pauses."""

    actor: int
    emotion: int
    speech: Array


def takes(folder: Path, actors: Sequence[int]) -> list[Take]:
    """The first repetition of each sentence and emotion; those with less than a second of speech are left out."""
    found = []
    for file in sorted(folder.glob("*.flac")):
        _, _, emotion, _, _, repetition, actor = map(int, file.stem.split("-"))
        if actor in actors and repetition == 1:
            samples = soundfile.read(file, dtype="float32")[0]
            speaks = np.repeat(Network()(samples) >= 0.5, WINDOW)[: len(samples)]
            found.append(Take(actor, emotion, samples[speaks]))
    return [t for t in found if len(t.speech) >= RATE_HZ]


def voices(folder: Path, seed: int) -> dict[str, Any]:
    halves = [takes(folder, CHOSEN), takes(folder, REPORTED)]
    measured = [_spoken(half, np.random.default_rng(seed)) for half in halves]
    threshold = _best_threshold(measured[0])
    return {
        "takes": [len(h) for h in halves],
        "auroc_of_takes": _auroc_of_takes(halves[1]),
        "threshold_chosen_on_actors_1_to_12": round(threshold, 3),
        "auroc_one_voice_against_two": round(_auroc(*_one_and_two(measured[1])), 3),
        "falls_on_actors_13_to_24": {
            kind: {
                "clips": len(d),
                "fall": round(float(np.mean(d > threshold)), 3),
                "median": round(float(np.median(d)), 3),
            }
            for kind, d in measured[1].items()
        },
        "by_default_threshold": {
            kind: round(float(np.mean(d > ScreenSettings().max_voice_distance)), 3) for kind, d in measured[1].items()
        },
    }


def _auroc_of_takes(half: Sequence[Take]) -> dict[str, float]:
    """Of 1 less the cosine of the first 1 s of two takes, for two actors against one."""
    width = RATE_HZ // 160
    points = np.concatenate([embed(mel_power(t.speech)[None, :width]) for t in half])
    rows, columns = np.triu_indices(len(half), 1)
    distance = (1 - points @ points.T)[rows, columns]
    actor, emotion = np.array([t.actor for t in half]), np.array([t.emotion for t in half])
    same = actor[rows] == actor[columns]
    other_mood = same & (emotion[rows] != emotion[columns])
    same_sex = actor[rows] % 2 == actor[columns] % 2
    return {
        "all": round(_auroc(distance[same], distance[~same]), 3),
        "one_actor_in_two_emotions": round(_auroc(distance[other_mood], distance[~same]), 3),
        "two_actors_of_one_sex": round(_auroc(distance[same], distance[~same & same_sex]), 3),
    }


def _spoken(half: Sequence[Take], rng: np.random.Generator, count: int = 60) -> dict[str, Array]:
    """Distances of clips made of these takes, by what they are made of."""
    by_actor = defaultdict(list)
    for take in half:
        by_actor[take.actor].append(take)
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(count):
        for kind, samples in _made(by_actor, rng):
            found[kind].append(voice_distance(voice_points(samples)))
    return {kind: np.nan_to_num(np.array(values), nan=0.0) for kind, values in found.items()}  # nothing to tell: passes


def _made(by_actor: dict[int, list[Take]], rng: np.random.Generator) -> Iterator[tuple[str, Array]]:
    a, b = rng.choice(sorted(by_actor), 2, replace=False)
    mine = [by_actor[a][k] for k in rng.permutation(len(by_actor[a]))]
    first, other = mine[0], by_actor[b][rng.integers(len(by_actor[b]))]
    like = [t for t in mine[1:] if t.emotion == first.emotion] or mine[1:2]
    unlike = [t for t in mine[1:] if t.emotion != first.emotion]
    x, y = first.speech, other.speech
    yield "one: one sentence", x
    yield "one: two sentences, one emotion", np.concatenate([x, like[0].speech])
    yield "one: two sentences, two emotions", np.concatenate([x, unlike[0].speech])
    yield "one: six sentences", np.concatenate([t.speech for t in mine[:6]])
    yield "two: one after the other", np.concatenate([x, y])
    yield "two: half a sentence each", np.concatenate([x[: len(x) // 2], y[len(y) // 2 :]])
    yield "two: four and two sentences", np.concatenate([*(t.speech for t in mine[:4]), y, y])
    shortest = min(len(x), len(y))
    yield "both at once", x[:shortest] + y[:shortest]


def _one_and_two(measured: dict[str, Array]) -> tuple[Array, Array]:
    both = [np.concatenate([v for k, v in measured.items() if k.startswith(kind)]) for kind in ("one:", "two:")]
    return both[0], both[1]


def _best_threshold(measured: dict[str, Array]) -> float:
    one, two = _one_and_two(measured)
    tried = np.unique(np.concatenate([one, two]).round(2))
    return float(max(tried, key=lambda t: np.mean(one <= t) + np.mean(two > t)))


def _auroc(low: Array, high: Array) -> float:
    """How often one of ``high`` is above one of ``low``."""
    ranks = np.searchsorted(np.sort(low), high, "left") + np.searchsorted(np.sort(low), high, "right")
    return float(ranks.mean() / 2 / len(low))


# Truth


@dataclass(frozen=True)
class Piece:
    """A clip to be: ``rgb`` at 25 pictures a second, ``samples`` at 16 kHz; ``reason``: why it must fall, "" if not."""

    kind: str
    reason: str
    rgb: list[Array]
    samples: Array


def truth(data: Path, work: Path, seed: int) -> dict[str, Any]:
    videos = work / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    made = list(_pieces(data, rng))
    pieces = [made[k] for k in rng.permutation(len(made))]
    copied = [replace(p, kind=f"copy of: {p.kind}", reason="duplicate") for p in pieces if p.reason in ("", "voice")][
        :12
    ]
    new = [p for p in pieces if p.reason == "face"]  # between the copies, so that they begin elsewhere
    shots = [*_film(videos / "e1.mp4", pieces, 20, 0)]
    mixed = [p for k, c in enumerate(copied) for p in ([c, new[k]] if k < len(new) else [c])]
    mixed = [p if p.reason == "duplicate" else replace(p, kind=f"copy of: {p.kind}", reason="duplicate") for p in mixed]
    shots += _film(videos / "e2.mp4", mixed, 33, 32_000)
    write_recipe(work, videos)
    write_shots(work, shots)
    screen_clips(work, ScreenSettings(), workers=2)
    found, wanted = read_clips(work), [*pieces, *mixed]
    table = Counter((w.kind, w.reason or "passed", c.reason or "passed") for w, c in zip(wanted, found, strict=True))
    filters = sorted({w.reason for w in wanted} | {c.reason or "" for c in found})
    return {
        "clips": len(found),
        "filters": {
            f or "passed": _quality(f, [w.reason for w in wanted], [c.reason or "" for c in found]) for f in filters
        },
        "kinds": [f"{n} x {kind}: {want}, was {got}" for (kind, want, got), n in sorted(table.items())],
    }


def _quality(reason: str, wanted: Sequence[str], found: Sequence[str]) -> dict[str, Any]:
    hits = sum(w == f == reason for w, f in zip(wanted, found, strict=True))
    said, should = found.count(reason), wanted.count(reason)
    return {
        "should": should,
        "precision": round(hits / said, 3) if said else None,
        "recall": round(hits / should, 3) if should else None,
    }


def _pieces(data: Path, rng: np.random.Generator) -> Iterator[Piece]:
    clips = data / "clips"
    heads = [_pictures(clips / f"{n}.mp4") for n in HEADS]
    by_actor = defaultdict(list)
    for take in takes(data / "ravdess" / "audio16k", REPORTED):
        by_actor[take.actor].append(take)

    def head() -> list[Array]:
        return heads[rng.integers(len(heads))]

    for _ in range(24):
        made = dict(_made(by_actor, rng))
        yield Piece("one voice", "", head(), made["one: two sentences, one emotion"])
        yield Piece("two voices, one after the other", "voice", head(), made["two: one after the other"])
    for _ in range(8):
        made = dict(_made(by_actor, rng))
        voice = made["one: two sentences, one emotion"]
        yield Piece("two voices at once", "voice", head(), made["both at once"])
        yield Piece("two faces side by side", "faces", _beside(head(), head()), voice)
        yield Piece("no face", "face", _pictures(clips / "no_face.mp4"), voice)
        yield Piece("the face leaves after a quarter", "face", _pictures(clips / "face_noface.mov", 1.6, 5.2), voice)
        yield Piece("the face leaves after three quarters", "", _pictures(clips / "face_noface.mov", 0.2, 3.1), voice)
        yield Piece("a head turned by half", "frontal", _pictures(clips / "Input-00002.mp4", 0.0, 1.9), voice)
        yield Piece("silence", "silence", head(), np.zeros(3 * RATE_HZ, np.float32))
        yield Piece("noise, nobody speaks", "speech", head(), _noise(3.0, rng))
        yield Piece("too short", "length", head()[:15], voice)
    yield Piece("too long", "length", head(), np.concatenate([t.speech for t in by_actor[13]])[: 20 * RATE_HZ])
    yield Piece("single_face.mp4, near silent", "silence", *_whole(clips / "single_face.mp4"))
    yield Piece("d18.mp4, a silent track", "silence", *_whole(clips / "d18.mp4"))


def _whole(file: Path) -> tuple[list[Array], Array]:
    return _pictures(file), read_audio(file, rate_hz=RATE_HZ)


def _noise(seconds: float, rng: np.random.Generator) -> Array:
    return (0.05 * rng.standard_normal(round(seconds * RATE_HZ))).astype(np.float32)


def _pictures(file: Path, start_s: float = 0.0, end_s: float = 1e9) -> list[Array]:
    """(360, 640, 3), the whole picture with black beside it; about 25 a second."""
    return [_boxed(f.rgb, 640, 360) for f in read_frames(file, rate_hz=25) if start_s <= f.time_s < end_s]


def _boxed(rgb: Array, width: int, height: int) -> Array:
    scale = min(width / rgb.shape[1], height / rgb.shape[0])
    size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
    box = np.zeros((height, width, 3), np.uint8)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    box[top : top + size[1], left : left + size[0]] = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return box


def _beside(a: list[Array], b: list[Array]) -> list[Array]:
    return [
        np.hstack([_boxed(x[:, 140:500], 320, 360), _boxed(y[:, 140:500], 320, 360)])
        for x, y in zip(a, b, strict=False)
    ]


def _film(
    file: Path, pieces: Sequence[Piece], crf: int, bit_rate: int, size: tuple[int, int] = (640, 360)
) -> list[Shot]:
    """Pieces one after the other; pictures go to and fro until the sound ends. The shots, whose ids count."""
    shots, frame, played = [], 0, 0
    with av.open(f"file:{file}", "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.options = {"preset": "veryfast", "crf": str(crf), "threads": "2"}
        audio = out.add_stream("aac", rate=RATE_HZ, layout="mono")
        if bit_rate:
            audio.bit_rate = bit_rate
        for number, piece in enumerate(pieces):
            count = len(piece.rgb) if piece.kind == "too short" else max(25, round(25 * len(piece.samples) / RATE_HZ))
            there_and_back = [*piece.rgb, *piece.rgb[-2:0:-1]] or piece.rgb
            start = frame
            for k in range(count):
                rgb = there_and_back[k % len(there_and_back)]
                picture = av.VideoFrame.from_ndarray(rgb if rgb.shape[1::-1] == size else _boxed(rgb, *size), "rgb24")
                picture.pts, picture.time_base = frame, Fraction(1, 25)
                out.mux(video.encode(picture))
                frame += 1
            wanted = frame * RATE_HZ // 25 - played
            samples = np.pad(piece.samples[:wanted], (0, max(0, wanted - len(piece.samples))))
            for first in range(0, wanted, 1024):
                part = np.ascontiguousarray(np.clip(samples[None, first : first + 1024], -1, 1), np.float32)
                sound = av.AudioFrame.from_ndarray(part, "fltp", "mono")
                sound.sample_rate, sound.pts, sound.time_base = RATE_HZ, played, Fraction(1, RATE_HZ)
                out.mux(audio.encode(sound))
                played += part.shape[1]
            id_ = f"{file.stem}_{number:04d}"
            shots.append(
                Shot(id_, file.name, file.stem, number, start / 25, frame / 25, start, frame - 1, None, "made")
            )
        out.mux(video.encode(None))
        out.mux(audio.encode(None))
    return shots


# Cost

THROUGH = ["min_loudness_db=-99", "min_speech_share=0", "min_face_share=0", "max_faces_share=1", "duplicates=false"]
RUN = """
import json, resource, sys
from pathlib import Path
from moodal.config import read_options
from moodal.screening.screen import screen_clips
from moodal.screening.settings import ScreenSettings
if __name__ == "__main__":
    settings = read_options(ScreenSettings, "screen", None, sys.argv[2:])
    said = screen_clips(Path(sys.argv[1]), settings, workers=2).as_dict()
    workers_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    own_kb = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])  # ru_maxrss is the parent's, too
    print(json.dumps({**said, "workers_kb": workers_kb, "own_kb": own_kb}))
"""


def cost(clips: Path, work: Path, film_s: float) -> dict[str, Any]:
    names = ("short_hamilton_clip", "WDA_KatieHill_000", "friday", "d11", "Input-00002", "Pose_Source-00473", "no_face")
    pieces = [Piece(n, "", *_whole(clips / f"{n}.mp4")) for n in names]
    videos = work / "videos"
    videos.mkdir()
    shots = []
    for film in ("a.mp4", "b.mp4"):
        some: list[Piece] = []
        while sum(len(p.samples) for p in some) < film_s * RATE_HZ:
            some.append(pieces[len(some) % len(pieces)])
        shots += _film(videos / film, some, 23, 0, (1280, 720))
    media_s = sum(s.end_s - s.start_s for s in shots)
    found: dict[str, Any] = {"media_s": round(media_s), "shots": len(shots)}
    for name, settings in (("all_filters_on_every_clip", THROUGH), ("default", ["duplicates=false"])):
        recipe = work / name
        recipe.mkdir()
        write_recipe(recipe, videos)
        write_shots(recipe, shots)
        found[name] = _run(recipe, settings, media_s)
    return found


def _run(recipe: Path, settings: Sequence[str], media_s: float) -> dict[str, Any]:
    script = recipe / "run.py"
    script.write_text(RUN, encoding="utf-8")
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, str(script), str(recipe), *settings], stdout=subprocess.PIPE)
    assert process.stdout
    said = json.loads(process.stdout.read())
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall_s, cpu_s = time.monotonic() - began, used.ru_utime + used.ru_stime
    return {
        "passed": said["passed"],
        "wall_s": round(wall_s, 1),
        "cpu_s": round(cpu_s, 1),
        "times_real_time": round(media_s / wall_s, 1),
        "times_real_time_of_two_free_cores": round(media_s / (cpu_s / 2), 1),
        "largest_worker_mb": round(said["workers_kb"] * 1024 / 1e6),
        "command_itself_mb": round(said["own_kb"] * 1024 / 1e6),
    }


if __name__ == "__main__":
    main()
