"""Labels as the JSON that Label Studio writes and reads, https://labelstud.io/guide/export.

One task per clip, condition and round; what we know of the clip is its ``data``. An annotation is one person's answer:
``choices`` for the label and the intensity, ``textarea`` for reason and comment, ``lead_time`` in seconds. The lead's
word is ``ground_truth``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import select

from moodal.annotation.answers import Answer
from moodal.annotation.database import Database
from moodal.annotation.schema import ClipRow
from moodal.annotation.votes import Vote, iso, keep_votes, read_votes_of, seconds_of, time_of
from moodal.files import read_json, write_atomic
from moodal.types import InputError

SHOWN = "clip"  # the name of what is labelled, in the labelling interface
LARGEST = 1 << 30  # bytes; more would not fit into memory once parsed


def export_label_studio(db: Database, file: Path) -> int:
    """Clips and the answers that count as a Label Studio JSON file; how many tasks there are."""
    with db.read() as session:
        clips = {row.id: row for row in session.scalars(select(ClipRow))}
        votes = list(read_votes_of(session))
    votes.sort(key=_place)  # stable: people stay in the order in which they were given the clip
    tasks = [
        _task(number, clips[clip], condition, round_, list(said))
        for number, ((clip, condition, round_), said) in enumerate(groupby(votes, _place), start=1)
    ]
    write_atomic(file, lambda partial: _write(partial, tasks))
    return len(tasks)


def import_label_studio(db: Database, file: Path) -> int:
    """Take the labels of a Label Studio JSON export into the project, all or none; how many there are.

    Each task says in its data which ``clip`` and ``condition`` it is. Of a foreign project the one list of choices is
    taken for the label; annotations that were cancelled (skipped) are left out.
    """
    if file.is_file() and file.stat().st_size > LARGEST:
        raise InputError(f"{file} is larger than 1 GB; export fewer tasks at a time")
    tasks = read_json(file)
    if not isinstance(tasks, list):
        raise InputError(f"{file} is no list of tasks; export it from Label Studio as JSON")
    return keep_votes(db, _votes(file, tasks))


def _place(vote: Vote) -> tuple[str, str, str]:
    return vote.clip, vote.condition, vote.round


def _task(number: int, clip: ClipRow, condition: str, round_: str, votes: list[Vote]) -> dict[str, Any]:
    data = {
        "clip": clip.id,
        "condition": condition,
        "round": round_,
        "video": clip.video,
        "episode": clip.episode,
        "start_s": clip.start_s,
        "end_s": clip.end_s,
        "text": clip.text,
        "speaker": clip.speaker,
    }
    return {"id": number, "data": data, "annotations": [_annotation(v) for v in votes], "predictions": []}


def _annotation(vote: Vote) -> dict[str, Any]:
    a = vote.answer
    result = [_choice("label", a.label)]
    result += [_choice("intensity", a.intensity)] if a.intensity else []
    result += [_words(name, text) for name, text in (("reason", a.reason), ("comment", a.comment)) if text]
    return {
        "completed_by": {"first_name": vote.annotator, "last_name": "", "email": ""},
        "result": result,
        "was_cancelled": False,
        "ground_truth": vote.round == "adjudication",
        "lead_time": a.seconds,
        "created_at": None if vote.at_s is None else iso(vote.at_s),
    }


def _choice(name: str, value: str) -> dict[str, Any]:
    return {"from_name": name, "to_name": SHOWN, "type": "choices", "value": {"choices": [value]}}


def _words(name: str, text: str) -> dict[str, Any]:
    return {"from_name": name, "to_name": SHOWN, "type": "textarea", "value": {"text": [text]}}


def _write(path: Path, tasks: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as f:
        for i, task in enumerate(tasks):
            f.write("[\n" if i == 0 else ",\n")
            f.write(json.dumps(task, ensure_ascii=False, allow_nan=False))
        f.write("\n]\n" if tasks else "[]\n")


def _votes(file: Path, tasks: list[Any]) -> Iterator[Vote]:
    for number, task in enumerate(tasks, start=1):
        where = f"{file.name}: task {number}"
        try:
            yield from _task_votes(task, where)
        except InputError as e:
            raise InputError(f"{where}: {e}; nothing was imported") from e
        except (KeyError, TypeError, AttributeError, IndexError) as e:
            raise InputError(f"{where} is not what Label Studio writes ({e!r}); nothing was imported") from e


def _task_votes(task: dict[str, Any], where: str) -> Iterator[Vote]:
    data = task["data"]
    for name in ("clip", "condition"):
        if not isinstance(data.get(name), str):
            raise InputError(f"its data has no {name!r}")
    for number, said in enumerate(task["annotations"], start=1):
        if said.get("was_cancelled"):
            continue
        at = said.get("created_at")
        round_ = "adjudication" if said.get("ground_truth") else data.get("round") or "main"
        yield Vote(
            clip=data["clip"],
            condition=data["condition"],
            annotator=_annotator(said.get("completed_by")),
            answer=_answer(said),
            at_s=time_of(str(at)) if at else None,
            round=round_,
            where=f"{where}, annotation {number}",
        )


def _annotator(said: Any) -> str:
    """Label Studio names people by a number, or in full."""
    if isinstance(said, dict):
        name = f"{said.get('first_name') or ''} {said.get('last_name') or ''}".strip()
        said = name or said.get("email") or said.get("id")
    if isinstance(said, int):
        return f"annotator {said}"
    if not isinstance(said, str) or not said:
        raise InputError("an annotation does not say who made it (completed_by)")
    return said


def _answer(said: dict[str, Any]) -> Answer:
    result = [r for r in said["result"] if r.get("type") in ("choices", "textarea")]
    choices = {r["from_name"]: _only(r["value"]["choices"]) for r in result if r["type"] == "choices"}
    words = {r["from_name"]: "\n".join(r["value"]["text"]) for r in result if r["type"] == "textarea"}
    others = [name for name in choices if name not in ("label", "intensity")]
    if "label" not in choices and len(others) != 1:
        raise InputError("an annotation has no choice called 'label'")
    return Answer(
        choices.get("label") or choices[others[0]],
        choices.get("intensity"),
        words.get("reason") or None,
        words.get("comment") or None,
        seconds_of(said.get("lead_time")),
    )


def _only(choices: list[str]) -> str:
    if len(choices) != 1 or not isinstance(choices[0], str):
        raise InputError(f"an annotation has {len(choices)} choices where one is needed")
    return choices[0]
