"""What was acknowledged survives: killed writers, killed servers, full disks."""

import resource
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager

import pytest
from sqlalchemy import select, text
from tests.annotation.conftest import work

from moodal.annotation.accounts import people
from moodal.annotation.answers import Answer
from moodal.annotation.database import open_database
from moodal.annotation.protocol import Assignment, next_assignment, save_answer
from moodal.annotation.schema import AnswerRow, AssignmentRow
from moodal.types import InputError

CLIENTS, ACKNOWLEDGED = 50, 100
LABELS_FOREVER = """
import sys, threading
from moodal.annotation.accounts import people
from moodal.annotation.answers import Answer
from moodal.annotation.database import open_database
from moodal.annotation.protocol import Assignment, next_assignment, save_answer

db = open_database(sys.argv[1])

def label(person):
    while isinstance(dealt := next_assignment(db, person), Assignment):
        answer = Answer("happy", "weak", None, f"{person.id} {dealt.id}")
        save_answer(db, person, dealt.id, answer)
        sys.stdout.write(f"{dealt.id} {person.id}\\n")  # one write: lines of two threads do not mix
        sys.stdout.flush()

for person in people(db):
    threading.Thread(target=label, args=(person,)).start()
"""


def killed_while_labelling(url, kill):
    """(assignment, person) of what fifty threads of a process had acknowledged when ``kill(process)`` struck."""
    command = [sys.executable, "-c", LABELS_FOREVER, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(ACKNOWLEDGED)]
        kill(process)
        lines += process.stdout.readlines()
        process.wait()
    # the last line may be cut off
    return [tuple(map(int, line.split())) for line in lines if line.endswith("\n")]


def check_nothing_is_lost(url, acknowledged):
    assert len(acknowledged) >= ACKNOWLEDGED
    db = open_database(url)
    a = AssignmentRow
    with db.read() as session:
        answers = session.execute(
            select(a.id, a.person_id, AnswerRow.comment).join(AnswerRow, AnswerRow.assignment_id == a.id)
        ).all()
        seats = session.execute(select(a.clip, a.condition, a.seat)).all()
        if db.is_sqlite:
            assert session.scalar(text("PRAGMA integrity_check")) == "ok"
            assert not session.execute(text("PRAGMA foreign_key_check")).all()
    kept = Counter((assignment, person) for assignment, person, _ in answers)
    assert set(acknowledged) <= set(kept)
    assert set(kept.values()) == {1}
    assert all(comment == f"{person} {assignment}" for assignment, person, comment in answers)
    assert len(set(seats)) == len(seats)
    person = next(p for p in people(db) if p.role == "annotator")
    dealt = next_assignment(db, person)  # and work goes on
    assert isinstance(dealt, Assignment)
    save_answer(db, person, dealt.id, Answer("neutral"))
    db.close()


def test_a_writer_that_is_killed_loses_nothing_it_acknowledged(url, database, project):
    project(database, clips=400, crew=CLIENTS)
    database.close()
    check_nothing_is_lost(url, killed_while_labelling(url, lambda process: process.send_signal(signal.SIGKILL)))


def test_a_server_that_is_killed_loses_nothing_it_acknowledged(own_server, project):
    url = own_server.new_database()
    db = open_database(url)
    project(db, clips=400, crew=CLIENTS)
    acknowledged = killed_while_labelling(url, lambda process: own_server.kill())
    own_server.start()
    check_nothing_is_lost(url, acknowledged)
    with db.read() as session:  # a connection from before the crash is found to be dead, and replaced
        assert session.scalar(text("SELECT 1")) == 1
    db.close()


def test_a_server_that_stops_is_one_sentence(own_server, project):
    db = open_database(own_server.new_database())
    crew = project(db, clips=4)
    dealt = next_assignment(db, crew[0])
    own_server.stop("fast")
    with pytest.raises(InputError, match=r"PostgreSQL server at .* cannot be used") as refused:
        save_answer(db, crew[0], dealt.id, Answer("neutral"))
    assert "\n" not in str(refused.value)
    own_server.start()
    save_answer(db, crew[0], dealt.id, Answer("neutral"))
    db.close()


@contextmanager
def no_room(num_bytes):
    """No file may grow beyond this, as on a disk without room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_sentence_and_loses_nothing(sqlite, project):
    person, *_ = project(sqlite, clips=300)
    kept = []

    def label_on():
        while True:
            dealt = next_assignment(sqlite, person)
            save_answer(sqlite, person, dealt.id, Answer("invalid", reason="x" * 2000))
            kept.append(dealt.id)

    full = "the disk is full: nothing more was written to .*one.sqlite"
    with no_room(400_000), pytest.raises(InputError, match=full):
        label_on()
    with sqlite.read() as session:
        answered = select(AssignmentRow.id).where(AssignmentRow.answer_id.is_not(None)).order_by(AssignmentRow.id)
        assert list(session.scalars(answered)) == kept
        assert session.scalar(text("PRAGMA integrity_check")) == "ok"
    assert kept
    assert len(work(sqlite, person, 3)) == 3  # with room again, it goes on
