"""Speed and memory of ``moodal extract``, and whether it can be killed at any moment, on a folder of real clips.

    python benchmarks/extraction.py --part speed CLIPS_FOLDER
    python benchmarks/extraction.py --part memory CLIPS_FOLDER [--minutes 40]
    python benchmarks/extraction.py --part kills CLIPS_FOLDER [--moments 20] [--clips 60] [--seed 0]
    python benchmarks/extraction.py --part mutations CLIPS_FOLDER [--clips 200] [--seed 0]

**speed**: the default extraction (text minilm, audio33, au_proxy) of the folder with two workers, from the command's
start to its end: seconds of media per second, and per second of processor time, which a busy machine does not change.

**memory**: the largest process of the default extraction, of 10 seconds of video and of ``--minutes`` of it. Both are
the folder's first 224 x 224 clip (else its first), its packets repeated.

**kills**: small clips cut from the folder's are extracted with two workers (sound and face), and the command is killed
with SIGKILL at a random moment and run again to its end, ``--moments`` times. Each data set must be, byte by byte, that
of an extraction nobody disturbed.

**mutations**: copies of the folder's files with bits flipped, ends cut off or beginnings of another file, extracted
with two workers: every one must be in the ledger, and no process may die or hang.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pyarrow.parquet as pq

from moodal.extraction.manifest import media_files
from moodal.files import sha256
from moodal.media.decode import probe, read_audio, read_frames
from moodal.types import Segment

SHORT_S = 10.0
GAP_S = 0.2  # between the repetitions: timestamps of decoding begin before zero
LONGEST_WAIT_S = 0.3  # after a file is done: as long as a small one takes
TINY_S, TINY_PX, TINY_HZ = 0.6, 160, 16_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="CLIPS_FOLDER")
    parser.add_argument("--part", choices=("speed", "memory", "kills", "mutations"), required=True)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--clips", type=int, help="kills: 60; mutations: 200")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moodal-benchmark-") as work:
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "speed": lambda: speed(asked.folder, Path(work)),
            "memory": lambda: memory(asked.folder, Path(work), 60 * asked.minutes),
            "kills": lambda: kills(asked.folder, Path(work), asked.clips or 60, asked.moments, asked.seed),
            "mutations": lambda: mutations(asked.folder, Path(work), asked.clips or 200, asked.seed),
        }
        print(json.dumps(parts[asked.part](), indent=1))


@dataclass(frozen=True)
class Cost:
    """Of a command with all its processes; ``peak_mb`` is that of the largest one."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def extract(media: Path, target: Path, *options: str, moment: tuple[int, float] | None = None) -> Cost | None:
    """Run the command; None where it was killed before its end: ``moment`` says after how many files, and how many
    seconds after that."""
    command = [sys.executable, "-m", "moodal", "extract", str(media), str(target), "--workers", "2", *options]
    with (target.parent / "said.txt").open("ab") as said:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=said, stderr=said)
        if moment:
            while num_done(target) < moment[0] and not _has_ended(process.pid):
                time.sleep(0.005)
            time.sleep(moment[1])
            os.kill(process.pid, signal.SIGKILL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode == -signal.SIGKILL:
        return None
    if process.returncode:
        raise SystemExit((target.parent / "said.txt").read_text(encoding="utf-8")[-2000:])
    return Cost(time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6)


def num_done(target: Path) -> int:
    return len(list(target.with_name(f"{target.name}.parts").glob("*.npz")))


def _has_ended(pid: int) -> bool:
    """Without asking for what ``wait4`` is to tell."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


# Speed


def speed(folder: Path, work: Path) -> dict[str, Any]:
    media_s = sum(probe(file).duration_s or 0.0 for file in media_files(folder))
    cost = extract(folder, work / "out")
    assert cost
    return {
        "files": len(media_files(folder)),
        "media_s": round(media_s, 1),
        "wall_s": round(cost.wall_s, 1),
        "cpu_s": round(cost.cpu_s, 1),
        "media_s_per_s": round(media_s / cost.wall_s, 2),
        "media_s_per_cpu_s": round(media_s / cost.cpu_s, 2),
    }


# Memory


def memory(folder: Path, work: Path, long_s: float) -> dict[str, Any]:
    videos = [(file, found) for file in media_files(folder) if (found := probe(file)).video]
    fitting = [file for file, found in videos if found.video and found.video.width_px == found.video.height_px == 224]
    clip = (fitting or [file for file, _ in videos])[0]
    found: dict[str, Any] = {"clip": clip.name}
    for name, seconds in (("short", SHORT_S), ("long", long_s)):
        (work / name).mkdir()
        repeat(clip, work / name / "video.mp4", seconds)
        cost = extract(work / name, work / f"{name}-out")
        assert cost
        found[name] = {
            "media_s": round(probe(work / name / "video.mp4").duration_s or 0.0, 1),
            "peak_mb": round(cost.peak_mb),
            "cpu_s": round(cost.cpu_s, 1),
        }
    return {**found, "ratio": round(found["long"]["peak_mb"] / found["short"]["peak_mb"], 3)}


def repeat(clip: Path, target: Path, seconds: float) -> None:
    """The packets of ``clip``, one time after the other; nothing is decoded."""
    with av.open(str(target), "w") as out, av.open(str(clip)) as first:
        streams = {
            s.index: out.add_stream_from_template(s) for s in (*first.streams.video[:1], *first.streams.audio[:1])
        }
        length_s = (first.duration or 0) / av.time_base + GAP_S
        for turn in range(max(1, round(seconds / length_s))):
            with av.open(str(clip)) as again:
                for packet in again.demux([again.streams[i] for i in streams]):
                    if packet.dts is not None and packet.pts is not None:
                        shift = round(turn * length_s / packet.time_base)
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = streams[packet.stream_index]
                        out.mux(packet)


# Kills


def kills(folder: Path, work: Path, num_clips: int, num_moments: int, seed: int) -> dict[str, Any]:
    (work / "media").mkdir()
    make_tiny_clips(folder, work / "media", num_clips)
    return kill_at_moments(work / "media", work, num_moments, seed, ["--text", "none"])


def make_tiny_clips(folder: Path, target: Path, count: int) -> None:
    """Small pieces from everywhere in the clips; of files without pictures, sound alone."""
    files = media_files(folder)
    for k in range(count):
        file = files[k % len(files)]
        start_s = (0.7 * (k // len(files))) % max(0.1, (probe(file).duration_s or 0.0) - TINY_S)
        segment = Segment(start_s, start_s + TINY_S)
        frames = list(read_frames(file, rate_hz=10, segment=segment, max_side_px=TINY_PX))
        write_clip(target / f"{k:03d}.mkv", frames, read_audio(file, rate_hz=TINY_HZ, segment=segment))


def write_clip(path: Path, frames: Sequence[Any], samples: Any) -> None:
    with av.open(str(path), "w") as out:
        video = out.add_stream("mjpeg", rate=10) if frames else None
        audio = out.add_stream("pcm_s16le", rate=TINY_HZ, layout="mono")
        if video:
            height, width = (side // 2 * 2 for side in frames[0].rgb.shape[:2])
            video.width, video.height, video.pix_fmt = width, height, "yuvj420p"
        for k, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame.rgb[:height, :width].copy(), "rgb24")
            picture.pts = k
            out.mux(video.encode(picture))
        if len(samples):
            block = av.AudioFrame.from_ndarray(
                (samples[None] * 32767).clip(-32768, 32767).astype("int16"), "s16", "mono"
            )
            block.sample_rate = TINY_HZ
            out.mux(audio.encode(block))
        for stream in (video, audio):
            if stream:
                out.mux(stream.encode(None))


def kill_at_moments(media: Path, work: Path, num_moments: int, seed: int, options: Sequence[str]) -> dict[str, Any]:
    """How many of so many killed and finished extractions are those of one that was left alone."""
    (work / "whole").mkdir()
    undisturbed = extract(media, work / "whole" / "set", *options)
    assert undisturbed
    expected = content(work / "whole" / "set")
    chance = random.Random(seed)  # noqa: S311 - no secret
    num_files, identical, killed, done = len(media_files(media)), 0, 0, []
    for k in range(num_moments):
        target = work / f"killed-{k}" / "set"
        target.parent.mkdir()
        moment = (
            chance.randint(0, num_files),
            chance.uniform(0.0, LONGEST_WAIT_S),
        )  # all of them: it is being put together
        killed += extract(media, target, *options, moment=moment) is None
        done.append(num_done(target))
        extract(media, target, *options)
        identical += content(target) == expected
        print(f"killed {moment[1]:.3f} s after file {moment[0]}, when {done[-1]} were done", file=sys.stderr)
    return {
        "files": num_files,
        "undisturbed_s": round(undisturbed.wall_s, 1),
        "moments": num_moments,
        "killed_before_the_end": killed,
        "files_done_when_killed": done,
        "identical": identical,
    }


def mutations(folder: Path, work: Path, count: int, seed: int) -> dict[str, Any]:
    originals, rng = [p.read_bytes() for p in media_files(folder)], random.Random(seed)  # noqa: S311 (no secret)
    names = [p.suffix for p in media_files(folder)]
    (work / "media").mkdir()
    for k in range(count):
        which = rng.randrange(len(originals))
        mutated = mutate(originals[which], rng.choice(originals), ("flip", "cut", "header")[k % 3], rng)
        (work / "media" / f"{k:03d}{names[which]}").write_bytes(mutated)
    command = [sys.executable, "-m", "moodal", "extract", str(work / "media"), str(work / "data"), "--workers", "2"]
    began = time.perf_counter()
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)
    rows = pq.read_table(said["ledger"]).to_pylist()
    bad = sorted({r["note"] for r in rows if "process died" in r["note"] or "time limit" in r["note"]})
    return {
        "files": count,
        "in_ledger": len({r["video"] for r in rows}),
        "unreadable": len({r["video"] for r in rows if r["stage"] == "file"}),
        "died_or_hung": bad,
        "exit_code": done.returncode,
        "wall_s": round(time.perf_counter() - began, 1),
    }


def mutate(content: bytes, other: bytes, how: str, rng: random.Random) -> bytes:
    """Fifty bits flipped, the end cut off anywhere, or the first 512 bytes those of another file."""
    if how == "cut":
        return content[: rng.randrange(1, len(content))]
    if how == "header":
        return other[:512] + content[512:]
    mutable = bytearray(content)
    for _ in range(50):
        mutable[rng.randrange(len(mutable))] ^= 1 << rng.randrange(8)
    return bytes(mutable)


def content(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of a data set."""
    return {p.relative_to(folder).as_posix(): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}


if __name__ == "__main__":
    main()
