"""The clips and settings of a labelling project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, exists, func, insert, select
from sqlalchemy.orm import Session

from moodal.annotation.database import Database
from moodal.annotation.schema import AssignmentRow, ClipRow, Gold, Project, Returned
from moodal.annotation.settings import AnnotationSettings, check_change, settings_from_json
from moodal.data.clips import Clip
from moodal.types import InputError

COLUMNS = ("id", "video", "episode", "start_s", "end_s", "text", "speaker")


def prepare(db: Database, clips: Sequence[Clip], settings: AnnotationSettings) -> int:
    """Bring the project to these settings and these clips (those that passed); how many were new. Clips that are there
    stay. While nobody was given any, they may change; afterwards a clip under an old name must be the old clip.
    """
    rows = [_columns(clip) for clip in clips]
    _check(rows)
    with db.write() as session:
        project = session.get(Project, 1)
        if project is None:
            project = Project(id=1, settings="", num_clips=0, revision=0, created_at_s=db.clock())
            session.add(project)
        else:
            _check_settings(session, settings_from_json(project.settings), settings)
        added = _add(session, project, rows)
        if added or project.settings != settings.to_json():
            project.settings, project.revision = settings.to_json(), project.revision + 1
        return added


def project_settings(db: Database) -> AnnotationSettings:
    """The settings of the project; InputError before it is prepared."""
    with db.read() as session:
        return settings_of(session)


def settings_of(session: Session) -> AnnotationSettings:
    said = session.scalar(select(Project.settings))
    if said is None:
        raise InputError("nothing is prepared here yet; run: moodal annotate DIR")
    return settings_from_json(said)


def clip_numbers(session: Session) -> dict[str, int]:
    """The number of every clip by its name."""
    return dict(session.execute(select(ClipRow.id, ClipRow.number)).all())


def _columns(clip: Clip) -> dict[str, Any]:
    return {name: getattr(clip, name) for name in COLUMNS}


def _check(rows: list[dict[str, Any]]) -> None:
    seen = set()
    for row in rows:
        if row["id"] in seen:
            raise InputError(f"two clips are called {row['id']!r}; names of clips must differ")
        seen.add(row["id"])
        if not row["id"] or len(row["id"]) > 500:
            raise InputError(f"the name of a clip has 1 to 500 characters, {row['id'][:50]!r} has {len(row['id'])}")
        if any("\0" in value for value in row.values() if isinstance(value, str)):
            raise InputError(f"{row['id']!r}: names and words of a clip hold no NUL characters")
        if not 0 <= row["start_s"] < row["end_s"]:
            raise InputError(f"{row['id']}: need 0 <= start_s < end_s, got {row['start_s']} and {row['end_s']}")


def _check_settings(session: Session, old: AnnotationSettings, new: AnnotationSettings) -> None:
    if old == new:
        return
    a = AssignmentRow
    given = session.execute(select(a.condition, func.count()).group_by(a.condition)).all()
    seats = session.scalar(select(func.max(a.seat)).where(a.round == "main"))
    check_change(old, new, dict(given), 0 if seats is None else seats + 1)
    seen_whole = exists().where(Returned.condition == "full", Returned.round == "main")  # and given back unanswered
    if set(new.single) - set(old.single) and session.scalar(select(seen_whole)):
        raise InputError("no condition can be added: people have already seen full clips")


def _add(session: Session, project: Project, rows: list[dict[str, Any]]) -> int:
    session.flush()
    there = {row.id: row for row in session.execute(select(*(getattr(ClipRow, name) for name in COLUMNS)))}
    changed = [row["id"] for row in rows if row["id"] in there and tuple(row.values()) != tuple(there[row["id"]])]
    if changed:
        if _is_begun(session):
            raise InputError(
                f"the clip {changed[0]!r} is not what it was when labelling began, and {len(changed) - 1} others; "
                "put the old clips.parquet back, or begin a new project in another folder"
            )
        session.execute(delete(ClipRow))
        project.num_clips, there = 0, {}
    new = [row for row in rows if row["id"] not in there]
    first = project.num_clips
    if new:
        session.execute(insert(ClipRow), [{"number": first + i, **row} for i, row in enumerate(new)])
    project.num_clips = first + len(new)
    return len(new)


def _is_begun(session: Session) -> bool:
    begun = exists(select(AssignmentRow.id)) | exists(select(Returned.id)) | exists(select(Gold.clip))
    return bool(session.scalar(select(begun)))
