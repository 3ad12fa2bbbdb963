"""A prediction as files: one picture, JSON, a table, captions.

None has the video's own name, so that they can lie beside it: captions of that name would be read as its transcript.
"""

from __future__ import annotations

import csv
import io
import os
from html import escape
from pathlib import Path
from typing import Any

from moodal.files import disk_errors, write_atomic, write_json
from moodal.serving.prediction import SegmentPrediction, VideoPrediction, plain
from moodal.types import MODALITIES, InputError

MARK = "emotions"  # clip.mp4 -> clip.emotions.json


def write_prediction(prediction: VideoPrediction, video: Path | None, folder: Path) -> list[Path]:
    """<name>.emotions.json, .csv, .vtt and .png in ``folder``, in this order. video: where its pictures are."""
    from moodal.serving.timeline import draw_timeline

    make_folder(folder)
    stem = Path(prediction.video).stem
    files = {kind: folder / f"{stem}.{MARK}.{kind}" for kind in ("json", "csv", "vtt", "png")}
    write_json(files["json"], prediction.as_dict())
    write_csv(prediction, files["csv"])
    write_captions(prediction, files["vtt"])
    draw_timeline(prediction, video, files["png"])
    return list(files.values())


def make_folder(folder: Path) -> None:
    """Where the files go; refused where they could not be written."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; --out wants a folder")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise InputError(f"nothing can be written into {folder}; choose another --out")


def write_captions(prediction: VideoPrediction, path: Path) -> None:
    """WebVTT: what was felt, and what was said. Players show it over the video."""
    _write(path, as_captions(prediction))


def write_csv(prediction: VideoPrediction, path: Path) -> None:
    """One row per segment; see ``as_csv``."""
    _write(path, as_csv(prediction))


def _write(path: Path, text: str) -> None:
    write_atomic(path, lambda p: p.write_text(text, encoding="utf-8", newline=""))


def as_captions(prediction: VideoPrediction) -> str:
    """``[happy 72%] words``, ``[unsure] words`` where it abstained; who speaks, where that is known."""
    cues = [_cue(s) for s in sorted(prediction.segments, key=lambda s: (s.start_s, s.end_s))]
    about = [f"emotions by moodal, model {prediction.model}", *prediction.notes]
    comments = [f"NOTE {escape(plain(note), quote=False)}\n" for note in about]  # "-->" may not stand there
    return "\n".join(["WEBVTT\n", *comments, *cues])


def _cue(s: SegmentPrediction) -> str:
    start = round(s.start_s * 1000)
    end = max(start + 1, round(s.end_s * 1000))  # in milliseconds; a cue that lasts none is not shown
    voice = f"<v {escape(plain(s.speaker), quote=False)}>" if plain(s.speaker) else ""
    said = escape(f"[{plain(s.answer())}] {plain(s.text)}".strip(), quote=False)
    return f"{_clock(start)} --> {_clock(end)}\n{voice}{said}\n"


def _clock(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:03d}"


def as_csv(prediction: VideoPrediction) -> str:
    """Columns: the segment; the answer; ``p_<class>``; ``relevance_<modality>``; ``alone_<modality>``, its class, and
    ``alone_<modality>_p``, how probable it finds that (regression: its score); ``note_<modality>``; ``model``. Nothing
    is rounded.
    """
    rows = [{**_row(s, prediction.classes), "model": prediction.model} for s in prediction.segments]
    names = [*_row(SegmentPrediction(0.0, 1.0), prediction.classes), "model"]
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _row(s: SegmentPrediction, classes: tuple[str, ...]) -> dict[str, Any]:
    best = s.likeliest
    row: dict[str, Any] = {"start_s": s.start_s, "end_s": s.end_s, "text": s.text, "speaker": s.speaker}
    row |= {"emotion": s.emotion, "probability": best and best[1]} if classes else {"score": s.score}
    row |= {"abstained": s.abstained, "because": s.because, "missing": " ".join(s.missing)}
    row |= {f"p_{c}": s.probabilities.get(c) for c in classes}
    row |= {f"relevance_{m}": s.relevance.get(m) for m in MODALITIES}
    for m in MODALITIES:
        name, value = s.alone(m) or (None, None)
        row |= {f"alone_{m}": name, f"alone_{m}_p": value} if classes else {f"alone_{m}": value}
    return row | {f"note_{m}": s.notes.get(m) for m in MODALITIES}
