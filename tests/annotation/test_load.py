"""Fifty people label at once and the server is killed: what was acknowledged is there, and nothing is there twice."""

import hashlib
import http.client
import json
import signal
import threading
import time
from collections import Counter
from urllib.parse import urlsplit

from sqlalchemy import select
from tests.annotation.projects import make_clips, open_folder
from tests.annotation.server import start

from moodal.annotation.database import Database
from moodal.annotation.schema import AnswerRow, AssignmentRow, Person, SignIn
from moodal.annotation.settings import AnnotationSettings
from moodal.data.clips import write_clips, write_recipe

PEOPLE, CLIPS, KILLS = 50, 400, 2
SETTINGS = AnnotationSettings(conditions=("text",), labels_per_clip=1)


def make_sessions(db: Database, num: int) -> list[str]:
    """Session tokens of people who need no password."""
    tokens = [f"token-{i}" for i in range(num)]
    now = db.clock()
    with db.write() as session:
        for i, token in enumerate(tokens):
            person = Person(name=f"P{i}", key=f"p{i}", role="annotator", active=True, created_at_s=now)
            session.add(person)
            session.flush()
            digest = hashlib.sha256(token.encode()).hexdigest()
            session.add(SignIn(token_hash=digest, person_id=person.id, created_at_s=now, expires_at_s=now + 1e6))
    return tokens


class Annotator(threading.Thread):
    """Labels what it is given, and keeps asking when nobody answers. ``kept``: what the server said was saved."""

    def __init__(self, token: str, where: list[str]) -> None:
        super().__init__(daemon=True)
        self.token, self.where = token, where
        self.kept: dict[int, str] = {}
        self.problems: list[str] = []
        self.is_done = False

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, dict]:
        while True:
            connection = http.client.HTTPConnection(urlsplit(self.where[0]).netloc, timeout=60)
            try:
                headers = {"authorization": f"Bearer {self.token}"}
                connection.request(method, path, None if body is None else json.dumps(body), headers)
                response = connection.getresponse()
                return response.status, json.loads(response.read())
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)  # it was killed, or is not there again yet
            finally:
                connection.close()

    def run(self) -> None:
        while True:
            status, said = self.ask("GET", "/api/next")
            if status != 200 or said["state"] != "clip":
                self.problems += [] if status == 200 else [str(said)]
                break
            number = said["assignment"]["id"]
            label = SETTINGS.emotions[(number * 7 + len(self.kept)) % 8]
            answer = {"assignment": number, "label": label, "intensity": "weak"}
            status, said = self.ask("POST", "/api/answer", answer)
            if status != 200:
                self.problems.append(str(said))
                break
            self.kept[number] = label
        self.is_done = True


def test_a_killed_server_loses_no_label_that_it_acknowledged(tmp_path):
    folder = tmp_path / "recipe"
    folder.mkdir()
    write_recipe(folder, tmp_path)
    write_clips(folder, make_clips(CLIPS))
    db = open_folder(folder)
    tokens = make_sessions(db, PEOPLE)
    process, address = start(folder, SETTINGS)
    where = [address]
    crew = [Annotator(token, where) for token in tokens]
    for annotator in crew:
        annotator.start()
    for kill in range(KILLS):
        while sum(len(a.kept) for a in crew) < CLIPS * (kill + 1) // (KILLS + 1):
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        process, where[0] = start(folder, SETTINGS)
    for annotator in crew:
        annotator.join(timeout=120)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert out.endswith("ended\n"), err  # Ctrl-C is a way to end, not a failure
    assert process.returncode == 0
    assert all(a.is_done for a in crew)
    assert [p for a in crew for p in a.problems] == []
    with db.read() as session:
        rows = session.execute(select(AnswerRow.assignment_id, AnswerRow.label)).all()
        seats = session.execute(select(AssignmentRow.clip, AssignmentRow.seat, AssignmentRow.answer_id)).all()
    db.close()
    kept = {number: label for a in crew for number, label in a.kept.items()}
    assert sum(len(a.kept) for a in crew) == len(kept) == CLIPS
    assert dict(rows) == kept
    assert set(Counter(number for number, _ in rows).values()) == {1}
    assert len({(clip, seat) for clip, seat, _ in seats}) == len(seats) == CLIPS
    assert all(answer for *_, answer in seats)
