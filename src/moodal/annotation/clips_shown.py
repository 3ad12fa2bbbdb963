"""Which file somebody may see or hear now. Its path comes from the database, never from a request."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from moodal.annotation.accounts import Person
from moodal.annotation.cut import SHOWS, media_path
from moodal.annotation.database import Database
from moodal.annotation.schema import AssignmentRow, ClipRow
from moodal.data.clips import Clip


def held_media(db: Database, media: Path, person: Person, assignment_id: int) -> Path | None:
    """The file of an assignment that ``person`` holds, or went back to; a lead sees all. None: there is nothing."""
    with db.read() as session:
        found = session.execute(
            select(AssignmentRow, ClipRow)
            .join(ClipRow, ClipRow.number == AssignmentRow.clip)
            .where(AssignmentRow.id == assignment_id)
        ).one_or_none()
    if found is None:
        return None
    assignment, clip = found
    is_open = assignment.answer_id is None or assignment.reopened_at_s is not None
    if not (person.is_lead or (assignment.person_id == person.id and is_open)):
        return None
    return _file(media, clip, assignment.condition)


def any_media(db: Database, media: Path, clip_id: str, condition: str) -> Path | None:
    """The file of any clip, for a lead."""
    clip = _row(db, clip_id)
    return _file(media, clip, condition) if clip else None


def clip_of(db: Database, clip_id: str) -> Clip | None:
    """A clip of the project by its name."""
    row = _row(db, clip_id)
    return _clip(row) if row else None


def _row(db: Database, clip_id: str) -> ClipRow | None:
    with db.read() as session:
        return session.scalar(select(ClipRow).where(ClipRow.id == clip_id))


def _file(media: Path, row: ClipRow, condition: str) -> Path | None:
    if condition not in SHOWS:
        return None
    path = media_path(media, _clip(row), condition)
    return path if path.is_file() else None


def _clip(row: ClipRow) -> Clip:
    return Clip(row.id, row.video, row.episode, row.start_s, row.end_s, text=row.text, speaker=row.speaker)
