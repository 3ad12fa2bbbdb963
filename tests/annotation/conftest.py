"""Labelling projects for tests: on an SQLite file and on a real PostgreSQL server, with people and clips."""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from moodal.annotation import accounts
from moodal.annotation.accounts import Person, accept, invite, people
from moodal.annotation.answers import Answer
from moodal.annotation.database import Database, open_database, sqlite_url
from moodal.annotation.protocol import Assignment, next_assignment, prepare, save_answer
from moodal.annotation.settings import AnnotationSettings
from moodal.data.clips import Clip

PASSWORD = "correct horse battery"  # noqa: S105 - of people who exist for a test
KINDS = ("sqlite", "postgresql")


@pytest.fixture(autouse=True)
def quick_passwords(monkeypatch):
    """Argon2 with little memory: its strength is argon2's business, and it would be most of the time of these tests."""
    monkeypatch.setattr(accounts, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, *, minutes: float = 0, days: float = 0) -> None:
        self.now += minutes * 60 + days * 86_400


@dataclass
class Server:
    """A PostgreSQL server of our own."""

    port: int
    folder: Path
    user: str
    bin: Path

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{self.user}@127.0.0.1:{self.port}/{database}"

    def new_database(self, template: str = "template1") -> str:
        import psycopg

        name = f"t{uuid.uuid4().hex}"
        with psycopg.connect(host="127.0.0.1", port=self.port, user=self.user, dbname="postgres", autocommit=True) as c:
            c.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def start(self) -> None:
        self._pg_ctl("start", "-w", "-l", str(self.folder / "log"), "-o", f"-p {self.port} -c unix_socket_directories=")

    def stop(self, mode: str = "fast") -> None:
        self._pg_ctl("stop", "-w", "-m", mode)

    def kill(self) -> None:
        """As when the power fails: no process of it ends in order."""
        main = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        children = subprocess.run(["pgrep", "-P", str(main)], capture_output=True, text=True, check=False).stdout
        everybody = (main, *map(int, children.split()))
        for pid in everybody:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(_is_running(pid) for pid in everybody):  # what is left of them holds the shared memory
            time.sleep(0.01)
        # where nobody buries the dead (process 1 of a container), their numbers still look alive to the next server
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def _pg_ctl(self, *arguments: str) -> None:
        command = [str(self.bin / "pg_ctl"), "-D", str(self.folder / "data"), *arguments]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        done = subprocess.run(command, check=False, cwd="/", **quiet, **_as_postgres())
        assert done.returncode == 0, f"{arguments[0]}: {(self.folder / 'log').read_text()[-1000:]}"


def _is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _as_postgres() -> dict[str, object]:
    """PostgreSQL refuses to run as root."""
    return {"user": "postgres", "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}} if os.getuid() == 0 else {}


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed here (no /usr/lib/postgresql/*/bin/initdb)")
    pytest.importorskip("psycopg", reason="the postgres extra is not installed")
    if os.getuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    return found[-1].parent


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def make_server() -> Server:
    """A fresh server with everything that keeps data safe switched on, as it comes."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="moodal-pg-"))
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
    server = Server(_free_port(), folder, "postgres", programs)
    options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    command = [str(programs / "initdb"), "-D", str(folder / "data"), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **_as_postgres())
    server.start()
    return server


@contextmanager
def running_server() -> Iterator[Server]:
    made = make_server()
    try:
        yield made
    finally:
        with suppress(AssertionError):  # it may have been stopped
            made.stop("immediate")
        shutil.rmtree(made.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server, started once."""
    with running_server() as made:
        yield made


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A PostgreSQL server that may be harmed."""
    with running_server() as made:
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=KINDS)
def empty_url(request, tmp_path) -> str:
    """The address of a database of each kind in which there is nothing yet."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "annotation.sqlite")
    return request.getfixturevalue("server").new_database()


@pytest.fixture(scope="session")
def blank_file(tmp_path_factory) -> Path:
    """An SQLite file with all tables and no rows, made once: making them is most of the time of a short test."""
    path = tmp_path_factory.mktemp("blank") / "annotation.sqlite"
    open_database(sqlite_url(path)).close()
    return path


@pytest.fixture(scope="session")
def blank_template(server) -> str:
    """The same in PostgreSQL: the name of a database to copy."""
    url = server.new_database()
    open_database(url).close()
    return url.rsplit("/", 1)[1]


@pytest.fixture(params=KINDS)
def url(request, tmp_path) -> str:
    """The address of a database of each kind that has its tables."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("blank_file"), tmp_path / "annotation.sqlite")
        return sqlite_url(tmp_path / "annotation.sqlite")
    return request.getfixturevalue("server").new_database(request.getfixturevalue("blank_template"))


@pytest.fixture
def database(url, clock) -> Iterator[Database]:
    """An open database of each kind, with a clock of its own."""
    db = open_database(url, clock=clock)
    yield db
    db.close()


@pytest.fixture
def sqlite(tmp_path, clock, blank_file) -> Iterator[Database]:
    """An open SQLite database, for what does not depend on the kind."""
    shutil.copy(blank_file, tmp_path / "one.sqlite")
    db = open_database(sqlite_url(tmp_path / "one.sqlite"), clock=clock)
    yield db
    db.close()


def make_clips(num: int, *, text: str | None = None, prefix: str = "clip") -> list[Clip]:
    return [
        Clip(f"{prefix}-{i:04d}", f"videos/{i // 10}.mp4", f"{i // 10}", float(i), i + 2.5, text=text, passed=True)
        for i in range(num)
    ]


@pytest.fixture
def project() -> Callable[..., list[Person]]:
    """Fills a database: ``project(database, clips=10, crew=4, seed=3)`` -> its annotators."""

    def fill(
        db: Database, *, clips: int = 10, crew: int = 4, text: str | None = None, **settings: object
    ) -> list[Person]:
        prepare(db, make_clips(clips, text=text), AnnotationSettings(**settings))
        for i in range(crew):
            invite(db, f"person {i}", "annotator")
        return [p for p in people(db) if p.role == "annotator"]

    return fill


def dice(seed: int) -> random.Random:
    """Chance that repeats itself."""
    return random.Random(seed)  # noqa: S311 - nothing secret


def join(db: Database, name: str, role: str) -> Person:
    """Somebody who has accepted an invitation."""
    return accept(db, invite(db, name, role), PASSWORD)


def work(db: Database, person: Person, num: int = 1_000_000, say: Callable[[Assignment], Answer] | None = None) -> list:
    """A person labels up to ``num`` clips, until there are none; what he got, and last why he stopped."""
    got: list = []
    while len(got) < num:
        dealt = next_assignment(db, person)
        got.append(dealt)
        if not isinstance(dealt, Assignment):
            break
        save_answer(db, person, dealt.id, say(dealt) if say else Answer("neutral"))
    return got
