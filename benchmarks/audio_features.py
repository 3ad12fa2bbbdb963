"""CPU time of the 33 audio features beside librosa's three calls, on real speech.

    python benchmarks/audio_features.py [FOLDER] [--clips 4] [--rounds 3]

FOLDER holds FLAC or WAV files; without it the RAVDESS speech under MOODAL_DATA. They are read one after the other and
cut into clips of 2, 3, 5 and 10 seconds. Both sides run in one thread, in turn, on the same clips, after one round that
is not counted (librosa compiles, ours builds its filters); what counts is the fastest round, in CPU seconds, so that a
busy machine does not decide. The last columns are the largest differences anywhere in these clips.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import threadpoolctl

from moodal.features.audio import SAMPLE_RATE_HZ, audio_features, read_audio

SECONDS = (2, 3, 5, 10)
DATA = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=DATA / "ravdess" / "audio16k")
    parser.add_argument("--clips", type=int, default=4, help="clips of each length")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    speech = read_speech(asked.folder, asked.clips * max(SECONDS))
    with threadpoolctl.threadpool_limits(1):
        rows = [measure(speech, seconds, asked.clips, asked.rounds) for seconds in SECONDS]
    print(json.dumps(rows, indent=1) if asked.json else table(rows))


def read_speech(folder: Path, seconds: int) -> np.ndarray:
    """So many seconds from the files of ``folder``, one from every stretch of it (neighbours are one speaker)."""
    files = sorted([*folder.glob("*.flac"), *folder.glob("*.wav")])
    if not files:
        raise SystemExit(f"{folder} has no FLAC or WAV file; name a folder that has")
    stride = max(len(files) // seconds, 1)  # a file lasts more than a second
    parts: list[np.ndarray] = []
    for file in files[::stride]:
        parts.append(read_audio(file))
        if sum(map(len, parts)) >= seconds * SAMPLE_RATE_HZ:
            return np.concatenate(parts)
    raise SystemExit(f"{folder} holds less than {seconds} seconds of sound; ask for fewer --clips")


def librosa_features(y: np.ndarray) -> np.ndarray:
    """The three calls of the field's published extractors."""
    zcr = librosa.feature.zero_crossing_rate(y, hop_length=512)
    mfcc = librosa.feature.mfcc(y=y, sr=SAMPLE_RATE_HZ, hop_length=512, htk=True)
    chroma = librosa.feature.chroma_cqt(y=y, sr=SAMPLE_RATE_HZ, hop_length=512)
    return np.concatenate([zcr, mfcc, chroma]).T


def measure(speech: np.ndarray, seconds: int, num_clips: int, rounds: int) -> dict[str, Any]:
    samples = seconds * SAMPLE_RATE_HZ
    clips = [speech[i * samples : (i + 1) * samples] for i in range(num_clips)]
    ours, theirs = ([f(y) for y in clips] for f in (audio_features, librosa_features))
    difference = np.max([np.abs(a - b).max(0) for a, b in zip(ours, theirs, strict=True)], axis=0)  # (33,)
    fastest = {"ours": np.inf, "librosa": np.inf}
    for _ in range(rounds):
        fastest["librosa"] = min(fastest["librosa"], cpu_seconds(librosa_features, clips))
        fastest["ours"] = min(fastest["ours"], cpu_seconds(audio_features, clips))
    return {
        "clip_s": seconds,
        "ours_ms_per_s": 1000 * fastest["ours"] / (num_clips * seconds),
        "librosa_ms_per_s": 1000 * fastest["librosa"] / (num_clips * seconds),
        "ratio": fastest["librosa"] / fastest["ours"],
        "times_real_time": num_clips * seconds / fastest["ours"],
        "zcr": float(difference[0]),
        "mfcc": float(difference[1:21].max()),
        "chroma": float(difference[21:].max()),
    }


def cpu_seconds(function: Callable[[np.ndarray], np.ndarray], clips: list[np.ndarray]) -> float:
    start = time.process_time()
    for y in clips:
        function(y)
    return time.process_time() - start


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["clip   librosa      ours         ratio  real time   largest difference: zcr, mfcc, chroma"]
    lines += [
        f"{r['clip_s']:3d} s  {r['librosa_ms_per_s']:5.1f} ms/s  {r['ours_ms_per_s']:5.2f} ms/s   x{r['ratio']:4.1f}  "
        f"x{r['times_real_time']:4.0f}       {r['zcr']:.0e}  {r['mfcc']:.0e}  {r['chroma']:.0e}"
        for r in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # librosa's, about silence
    main()
