"""Opening, migrating and refusing databases."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from moodal.annotation.database import open_database, sqlite_url
from moodal.annotation.schema import Base, Project
from moodal.types import InputError, WorkError


def test_the_migrations_make_the_tables_of_the_schema(empty_url):
    db = open_database(empty_url)
    with db.read() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    db.close()


def test_opening_again_changes_nothing(empty_url):
    first = open_database(empty_url)
    with first.write() as session:
        session.add(Project(id=1, settings="{}", created_at_s=0.5))
    first.close()
    again = open_database(empty_url)
    with again.read() as session:
        assert session.get(Project, 1).created_at_s == 0.5
    again.close()


def test_several_may_open_a_new_database_at_once(empty_url):
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: open_database(empty_url), range(4)))
    for db in opened:
        db.close()


def test_sqlite_is_set_up_to_lose_nothing(sqlite):
    with sqlite.read() as session:
        found = {p: session.scalar(text(f"PRAGMA {p}")) for p in ("journal_mode", "synchronous", "foreign_keys")}
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_postgresql_is_tested_with_its_safeties_on(server):
    db = open_database(server.new_database())
    with db.read() as session:
        assert [session.scalar(text(f"SHOW {s}")) for s in ("fsync", "synchronous_commit")] == ["on", "on"]
    db.close()


def test_what_fails_in_the_middle_is_undone(database):
    def half():
        with database.write() as session:
            session.add(Project(id=1, settings="{}", created_at_s=0.0))
            session.flush()
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        half()
    with database.read() as session:
        assert session.get(Project, 1) is None


def test_writers_take_turns(database):
    with database.write() as session:
        session.add(Project(id=1, settings="{}", num_clips=0, created_at_s=0.0))

    def add(_):
        with database.write() as session:
            project = session.get(Project, 1)
            project.num_clips += 1

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(add, range(64)))
    with database.read() as session:
        assert session.get(Project, 1).num_clips == 64


def test_two_servers_on_one_database_take_turns_too(url):
    one, two = open_database(url), open_database(url)
    with one.write() as session:
        session.add(Project(id=1, settings="{}", num_clips=0, created_at_s=0.0))

    def add(db):
        with db.write() as session:
            session.get(Project, 1).num_clips += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, [one, two] * 16))
    with two.read() as session:
        assert session.get(Project, 1).num_clips == 32
    one.close()
    two.close()


def test_a_reader_sees_one_moment(database):
    with database.write() as session:
        session.add(Project(id=1, settings="{}", num_clips=0, created_at_s=0.0))
    with database.read() as reader:
        assert reader.scalar(text("SELECT num_clips FROM project")) == 0
        with database.write() as session:
            session.get(Project, 1).num_clips = 5
        assert reader.scalar(text("SELECT num_clips FROM project")) == 0


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("what", "cannot be read; expected sqlite:///FILE"),
        ("mysql://localhost/x", "'mysql' is no kind of database that moodal knows"),
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
        ("sqlite:////nowhere/at/all/a.sqlite", "there is no folder /nowhere/at/all"),
    ],
)
def test_addresses_that_cannot_be_are_refused(url, said):
    with pytest.raises(InputError, match=said):
        open_database(url)


def test_a_server_that_is_not_there_is_one_sentence_without_the_password():
    with pytest.raises(InputError, match=r"PostgreSQL server at 127\.0\.0\.1/x cannot be used") as refused:
        open_database("postgresql+psycopg://me:secret@127.0.0.1:1/x")
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_database_that_is_not_on_the_server_is_named(server):
    with pytest.raises(InputError, match='database "nothing" does not exist'):
        open_database(server.url("nothing"))


def test_without_the_driver_the_line_that_installs_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InputError, match=r"pip install 'moodal\[postgres\]'"):
        open_database("postgresql+psycopg://me@127.0.0.1:1/x")


def test_a_newer_database_is_refused(database, url):
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(InputError, match=r"written by a newer moodal \(its tables are '9999'\)"):
        open_database(url)


def test_a_database_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE recipes (id INTEGER)")
    connection.close()
    with pytest.raises(InputError, match="belongs to something else \\(it has a table 'recipes'\\)"):
        open_database(sqlite_url(path))


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("no database at all" * 100)
    with pytest.raises(InputError, match=r"notes\.txt is no SQLite database"):
        open_database(sqlite_url(tmp_path / "notes.txt"))


def test_a_lock_of_another_process_is_one_sentence(sqlite, monkeypatch):
    path = sqlite.engine.url.database
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with sqlite.read() as session:
        session.execute(text("SELECT 1"))
    monkeypatch.setattr("moodal.annotation.database.BUSY_MS", 50)
    other = open_database(sqlite_url(path))
    with pytest.raises(WorkError, match="another process holds"), other.write():
        pass
    holder.close()
    other.close()


def test_paths_with_odd_signs_are_paths(tmp_path):
    folder = tmp_path / "100% ?a#b ü"
    folder.mkdir()
    open_database(sqlite_url(folder / "annotation.sqlite")).close()
    assert (folder / "annotation.sqlite").is_file()


def test_a_latin_1_database_is_refused(server):
    import psycopg

    where = dict(host="127.0.0.1", port=server.port, user=server.user, autocommit=True)  # noqa: C408
    with psycopg.connect(dbname="postgres", **where) as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(InputError, match="keeps text as LATIN1"):
        open_database(server.url("latin"))


def test_opening_does_not_load_torch(tmp_path):
    code = (
        "import sys; from moodal.annotation.database import open_database;"
        f"open_database({sqlite_url(tmp_path / 'a.sqlite')!r}); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
