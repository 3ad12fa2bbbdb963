"""One board per open database, read once and then kept up to date."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from moodal.annotation.board import STATE, Board
from moodal.annotation.database import Database
from moodal.annotation.schema import ClipRow, Gold, Project
from moodal.annotation.settings import CONDITIONS, settings_from_json
from moodal.types import InputError


@contextmanager
def following_board(db: Database, session: Session) -> Iterator[Board]:
    """The board of a database, brought up to what ``session`` sees, for this thread alone.

    To be used before the session writes: what a transaction undoes, the board would still believe.
    """
    with db.memory_lock:
        state = session.execute(STATE).one()
        board = db.memory.get("board")
        if not isinstance(board, Board) or board.revision != state.revision:
            board = db.memory["board"] = read_board(session)
        board.refresh(session, state)
        yield board


def read_board(session: Session) -> Board:
    """The board of a project, empty of people; InputError when nothing was prepared."""
    project = session.get(Project, 1)
    if project is None:
        raise InputError("nothing is prepared here yet; run: moodal annotate DIR")
    settings = settings_from_json(project.settings)
    n = project.num_clips
    has_text = np.zeros(n, bool)
    has_text[list(session.scalars(select(ClipRow.number).where(ClipRow.text.is_not(None), ClipRow.text != "")))] = True
    gold: dict[str, list[int]] = {}
    for clip, condition in session.execute(select(Gold.clip, Gold.condition).order_by(Gold.clip)):
        gold.setdefault(condition, []).append(clip)
    needed = np.zeros((len(CONDITIONS), n), np.uint8)
    for c in settings.conditions:
        needed[CONDITIONS.index(c)] = settings.labels_per_clip * (has_text if c == "text" else np.ones(n, bool))
    for clips in gold.values():
        needed[:, clips] = 0
    return Board(settings, project.revision, needed, {c: np.array(clips) for c, clips in gold.items()})
