"""RAVDESS speech: 24 actors say two fixed sentences with eight emotions (CC BY-NC-SA 4.0).

The sentences carry no emotion, so text is a control: a model that trusts it is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from moodal.data.store import FeatureSpec, new_dataset
from moodal.features import audio as audio33
from moodal.features.text import TextEncoder
from moodal.recipes.arrays import check_rows, check_values, read_arrays
from moodal.types import InputError, Task, Utterance

ARRAYS = ("ids", "actor", "emotion", "emotion_names", "statement", "statement_text", "au_mean", "au_names")
LICENCE = "CC BY-NC-SA 4.0"
SOURCE = "RAVDESS (Livingstone and Russo 2018, https://doi.org/10.1371/journal.pone.0196391), speech"
SUFFIXES = (".flac", ".wav")
Array = npt.NDArray[Any]


def import_ravdess(
    npz: Path,
    target: Path,
    *,
    audio: Path | None = None,
    overwrite: bool = False,
    folds: int = 6,
    preset: str = "field",
    encoder: str | None = None,
) -> None:
    """Make the data set folder ``target``: token states, 33 numbers per audio frame, 35 action-unit means (one step).

    ``audio`` is the folder with a FLAC or WAV file per clip, ``audio16k`` beside ``npz`` unless given. Folds are blocks
    of actors in the order of their numbers; odd actors are men and even ones women, so even blocks balance the sexes.
    ``encoder`` is the path of a ``TextEncoder``.
    """
    x = read_arrays(npz, ARRAYS)
    check_rows(npz, {name: x[name] for name in ("ids", "actor", "emotion", "statement", "au_mean")})
    check_values(npz, "emotion", x["emotion"], range(len(x["emotion_names"])))
    check_values(npz, "statement", x["statement"], range(1, 1 + len(x["statement_text"])))
    ids = [str(name) for name in x["ids"]]
    sounds = _sound_files(ids, npz.parent / "audio16k" if audio is None else audio)
    fold_of = actor_folds(x["actor"].tolist(), folds)
    utterances = _utterances(ids, x, fold_of)
    with new_dataset(target, overwrite=overwrite) as out:
        text = TextEncoder(encoder)
        out.write_features(FeatureSpec(**text.spec()), ids, text.encode([u.text for u in utterances], ids))
        frames = _progress(_frames(sounds, preset), len(ids), "audio")
        out.write_features(FeatureSpec(**audio33.spec(preset)), ids, frames)
        out.write_features(_au_spec(x["au_names"]), ids, (row[None] for row in x["au_mean"]))
        out.finish(
            utterances,
            Task(tuple(str(name) for name in x["emotion_names"])),
            name="ravdess",
            licence=LICENCE,
            source=SOURCE,
            notes=_notes(len(ids), sum(s is None for s in sounds), folds),
        )


def actor_folds(actors: Sequence[int], folds: int) -> dict[int, int]:
    """The fold of each actor: blocks of neighbouring numbers, as equal as they can be."""
    order = sorted(set(actors))
    if not 2 <= folds <= len(order):
        raise InputError(f"folds must be 2 to {len(order)}, the number of actors, got {folds}")
    return {actor: i * folds // len(order) for i, actor in enumerate(order)}


def _utterances(ids: Sequence[str], x: dict[str, Array], fold_of: dict[int, int]) -> list[Utterance]:
    emotions, sentences = x["emotion_names"], x["statement_text"]
    return [
        Utterance(
            id=name,
            speaker=f"actor-{actor:02d}",
            group=f"actor-{actor:02d}",
            text=str(sentences[statement - 1]),
            label=str(emotions[emotion]),
            fold=fold_of[actor],
        )
        for name, actor, statement, emotion in zip(
            ids, x["actor"].tolist(), x["statement"].tolist(), x["emotion"].tolist(), strict=True
        )
    ]


def _sound_files(ids: Sequence[str], folder: Path) -> list[Path | None]:
    """The sound of each clip. Its name begins with 03 (audio only) where the id begins with 01 (audio and video)."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder} with the clips' sound; name the one that has it (audio)")
    found = [_first(folder / f"03{name[2:]}{suffix}" for suffix in SUFFIXES) for name in ids]
    if not any(found):
        raise InputError(f"{folder} has no sound of these clips; {ids[0]} would be 03{ids[0][2:]}.flac or .wav")
    return found


def _first(paths: Iterable[Path]) -> Path | None:
    return next((p for p in paths if p.is_file()), None)


def _frames(sounds: Iterable[Path | None], preset: str) -> Iterator[Array | None]:
    """Audio features, None where there is no file. One process: a second one costs as much to start as it saves."""
    for path in sounds:
        yield None if path is None else audio33.audio_features(audio33.read_audio(path), preset)


def _au_spec(names: Array) -> FeatureSpec:
    return FeatureSpec(
        name="openface-au-mean",
        version="2",
        modality="vision",
        dim=len(names),
        licence="OpenFace 2: academic, non-commercial",
        columns=tuple(str(name) for name in names),
        settings={"pooled": "mean over the clip"},
    )


def _notes(num_clips: int, num_silent: int, folds: int) -> list[str]:
    return [
        "Two fixed sentences: text carries no information about the emotion and serves as a control.",
        f"{folds} folds by actor, in blocks of neighbouring actor numbers; odd are men, even are women.",
        "Vision is one step per clip: the mean of 35 OpenFace action units.",
        f"Audio is missing for {num_silent} of {num_clips} clips (no sound file).",
    ]


def _progress(items: Iterator[Array | None], total: int, what: str) -> Iterator[Array | None]:
    """The same items, with a bar on stderr when somebody can see it."""
    from rich.console import Console
    from rich.progress import track

    yield from track(
        items, what, total=total, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    )
