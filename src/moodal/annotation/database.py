"""One database for one labelling project: SQLite in the recipe's folder, or PostgreSQL for a lab.

Writers take turns (a lock inside the process and BEGIN IMMEDIATE on SQLite, an advisory lock on PostgreSQL), so the
numbers of rows grow in the order in which they are committed, and whoever reads may go on from the last he saw.
Whatever ``write()`` has left without an error is on the disk.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Any

from alembic.command import upgrade
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Executable, Row, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from moodal.types import InputError, WorkError

MIGRATIONS = Path(__file__).with_name("migrations")
BUSY_MS = 30_000  # how long a writer waits for another process
POOL = 10
LOCK = 0x6D6F6F64616C  # "moodal": the advisory lock of writers
log = logging.getLogger(__name__)


@dataclass
class Database:
    """An open database. ``clock`` tells the time in seconds since 1970; ``memory`` holds what is computed once."""

    engine: Engine
    clock: Callable[[], float] = time.time
    memory: dict[str, Any] = field(default_factory=dict)
    memory_lock: Any = field(default_factory=threading.RLock)
    overview_lock: threading.Lock = field(default_factory=threading.Lock)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one moment of the database."""
        with _sentences(self.engine.url), Session(self._reader, expire_on_commit=False) as session:
            yield session

    def ask(self, question: Executable, **values: Any) -> Row[Any] | None:
        """The one row that answers a question, if any: cheaper than a session, for what every request asks."""
        with _sentences(self.engine.url), self._asker.connect() as connection:
            return connection.execute(question, values).one_or_none()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that writes alone; it is committed at the end of the block, or undone when the block fails."""
        made = Session(self._writer, expire_on_commit=False)
        with self._turn, _sentences(self.engine.url), made as session, session.begin():
            session.connection()  # begins, and on SQLite waits for its turn among processes
            if not self.is_sqlite:
                session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            yield session

    @cached_property
    def _reader(self) -> Engine:
        level = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        return self.engine.execution_options(**level)

    @cached_property
    def _asker(self) -> Engine:
        """Of one question: it sees one moment without a transaction."""
        return self.engine if self.is_sqlite else self.engine.execution_options(isolation_level="AUTOCOMMIT")

    @cached_property
    def _writer(self) -> Engine:
        return self.engine.execution_options(writes=True)

    def close(self) -> None:
        self.engine.dispose()


def open_database(url: str, *, clock: Callable[[], float] = time.time) -> Database:
    """The database at ``url``, with its tables brought to this version.

    ``sqlite:///relative/or//absolute/path`` or ``postgresql+psycopg://name:password@host/database``.
    """
    parsed = _parse(url)
    with _sentences(parsed):
        engine = _sqlite(parsed) if parsed.get_backend_name() == "sqlite" else _postgresql(parsed)
        database = Database(engine, clock)
        try:
            _migrate(database)
        except BaseException:
            database.close()
            raise
    return database


def sqlite_url(path: Path) -> str:
    """The address of an SQLite file."""
    return URL.create("sqlite", database=str(path)).render_as_string()


def _parse(url: str) -> URL:
    wanted = "expected sqlite:///FILE or postgresql+psycopg://NAME:PASSWORD@HOST/DATABASE"
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InputError(f"the database address cannot be read; {wanted}") from None
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in {"sqlite", "sqlite+pysqlite", "postgresql+psycopg"}:
        raise InputError(f"{parsed.drivername!r} is no kind of database that moodal knows; {wanted}")
    if parsed.get_backend_name() == "sqlite" and (not parsed.database or ":memory:" in parsed.database):
        raise InputError(f"the database must be a file, so that labels survive; {wanted}")
    return parsed


def _sqlite(url: URL) -> Engine:
    assert url.database is not None
    folder = Path(url.database).parent
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder} for the database; make it first")
    engine = create_engine(
        url,
        connect_args={"timeout": BUSY_MS / 1000, "check_same_thread": False},
        pool_size=POOL,
        max_overflow=100,
    )
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # the driver would begin by itself, and too late
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", f"busy_timeout = {BUSY_MS}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _postgresql(url: URL) -> Engine:
    try:
        import psycopg  # noqa: F401 - only to see whether it is there
    except ImportError as e:
        raise InputError("PostgreSQL needs the postgres extra; run: pip install 'moodal[postgres]'") from e
    engine = create_engine(
        url, connect_args={"connect_timeout": 10, "client_encoding": "utf8"}, pool_size=POOL, max_overflow=40
    )
    event.listen(engine, "checkout", _refuse_closed)
    return engine


def _refuse_closed(connection: Any, *_: object) -> None:
    """A server that was restarted is found again. One that went has closed the line, or said so on it: that can be seen
    without asking, which would take a quarter of the time of a short read."""
    with DefaultSelector() as selector:
        selector.register(connection.fileno(), EVENT_READ)
        if selector.select(timeout=0):
            raise InvalidatePoolError


def _migrate(database: Database) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    with database.read() as session:
        if not database.is_sqlite and (code := session.scalar(text("SHOW server_encoding"))) != "UTF8":
            raise InputError(f"this database keeps text as {code}; make one with: CREATE DATABASE ... ENCODING 'UTF8'")
        if _version(session.connection(), script) == script.get_current_head():
            return
    with database.write() as session:  # alone: two servers may start at the same time
        connection = session.connection()
        _version(connection, script)
        config.attributes["connection"] = connection
        upgrade(config, "head")


def _version(connection: Connection, script: ScriptDirectory) -> str | None:
    version = MigrationContext.configure(connection).get_current_revision()
    known = {s.revision for s in script.walk_revisions()}
    if version is not None and version not in known:
        raise InputError(f"this database was written by a newer moodal (its tables are {version!r}); update moodal")
    if version is None and (tables := inspect(connection).get_table_names()):
        raise InputError(f"this database belongs to something else (it has a table {tables[0]!r}); choose another")
    return version


@contextmanager
def _sentences(url: URL) -> Iterator[None]:
    """What a database says, as one sentence of ours."""
    try:
        yield
    except PoolTimeout as e:
        raise WorkError("the database is too busy; try again in a moment") from e
    except DBAPIError as e:
        raise _sentence(url, e) from e


def _sentence(url: URL, error: DBAPIError) -> Exception:
    said = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
    where = url.database if url.get_backend_name() == "sqlite" else f"{url.host or 'local'}/{url.database}"
    state = getattr(error.orig, "sqlstate", None)
    if state == "53100" or any(
        s in said for s in ("disk is full", "disk I/O error", "No space left", "File too large")
    ):
        return InputError(f"the disk is full: nothing more was written to {where}; free some space and try again")
    if "file is not a database" in said:
        return InputError(f"{where} is no SQLite database; choose another file")
    if "unable to open" in said or "readonly database" in said:
        return InputError(f"{where} cannot be opened for writing ({said})")
    if "locked" in said:
        return WorkError(f"another process holds {where}; try again in a moment")
    if url.get_backend_name() != "sqlite" and (error.connection_invalidated or state is None or state[:2] in _REFUSED):
        return InputError(
            f"the PostgreSQL server at {where} cannot be used ({said}); is it running, is the name right?"
        )
    return error


_REFUSED = {"08", "28", "3D", "57"}  # connection, password, no such database, shut down
