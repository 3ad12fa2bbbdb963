"""How long people wait for their next clip: 100,000 clips, 50 people, in the middle of the project.

    python benchmarks/annotation_queue.py [--database URL] [--clips N] [--people N] [--given N] [--labels N]

Labels that are already there are taken in as a table; then people ask and answer, one after the other, and then all at
once from 50 threads. Prints one line of JSON: milliseconds of wall time at the median and at 95 %, and of CPU.
"""

import argparse
import json
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from moodal.annotation.accounts import Person, invite, people
from moodal.annotation.answers import Answer
from moodal.annotation.database import Database, open_database, sqlite_url
from moodal.annotation.following import following_board
from moodal.annotation.overview import compute_overview
from moodal.annotation.protocol import Assignment, next_assignment, prepare, save_answer
from moodal.annotation.settings import AnnotationSettings
from moodal.annotation.votes import Vote, keep_votes
from moodal.data.clips import Clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database", help="postgresql+psycopg://...; default: a new SQLite file")
    for name, default in (("clips", 100_000), ("people", 50), ("given", 100_000), ("labels", 2000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        db = open_database(asked.database or sqlite_url(Path(folder) / "annotation.sqlite"))
        found = {"database": db.engine.dialect.name, "clips": asked.clips, "people": asked.people}
        found |= fill(db, asked.clips, asked.people, asked.given)
        found["first_next_s"] = seconds(lambda: next_assignment(db, people(db)[0]))
        found |= {"one_by_one": ask(db, people(db), asked.labels)}
        found |= {"at_once": ask_at_once(db, people(db), asked.labels)}
        found["overview_s"] = seconds(lambda: compute_overview(db))
        db.close()
    print(json.dumps(found))


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return round(time.perf_counter() - start, 2)


def fill(db: Database, num_clips: int, num_people: int, given: int) -> dict[str, float]:
    """Clips, people, and the labels that they have given so far, each to the people whom the board means for it."""
    settings = AnnotationSettings()
    clips = [Clip(f"clip-{i:06d}", f"{i // 500}.mp4", f"{i // 500}", 0.0, 2.5) for i in range(num_clips)]
    prepared = seconds(lambda: prepare(db, clips, settings))
    for i in range(num_people):
        invite(db, f"person {i}", "annotator")
    votes, dice = [], random.Random(0)  # noqa: S311
    with db.read() as session, following_board(db, session) as board:
        for person in people(db):
            for condition in settings.single:
                mine = np.flatnonzero(board.share(board.people[person.id], condition))
                for clip in mine[: given // (2 * num_people)].tolist():
                    answer = Answer(dice.choice(settings.emotions), "weak", seconds=dice.random() * 5)
                    votes.append(Vote(clips[clip].id, condition, person.name, answer, dice.random(), "main"))
    return {"prepare_s": prepared, "given": len(votes), "import_s": seconds(lambda: keep_votes(db, votes))}


def ask(db: Database, crew: list[Person], num: int) -> dict[str, list[float]]:
    """50 % and 95 % of the milliseconds of ``num`` labels."""
    dice, wall, cpu = random.Random(1), [], []  # noqa: S311
    for _ in range(num):
        person, times, work = dice.choice(crew), [time.perf_counter()], [time.process_time()]
        dealt = next_assignment(db, person)
        times.append(time.perf_counter())
        work.append(time.process_time())
        assert isinstance(dealt, Assignment)
        save_answer(db, person, dealt.id, Answer("happy", "weak"))
        wall.append([times[1] - times[0], time.perf_counter() - times[1]])
        cpu.append([work[1] - work[0], time.process_time() - work[1]])
    names = ("next_ms", "save_ms", "next_cpu_ms", "save_cpu_ms")
    return {name: percentiles(column) for name, column in zip(names, np.hstack([wall, cpu]).T, strict=True)}


def ask_at_once(db: Database, crew: list[Person], num: int) -> dict[str, object]:
    """The same from as many threads as there are people, none of whom stops to look at a clip."""
    each = max(1, num // len(crew))

    def label(person: Person) -> list[list[float]]:
        times = []
        for _ in range(each):
            start = time.perf_counter()
            dealt = next_assignment(db, person)
            middle = time.perf_counter()
            assert isinstance(dealt, Assignment)
            save_answer(db, person, dealt.id, Answer("sad", "weak"))
            times.append([middle - start, time.perf_counter() - middle])
        return times

    start = time.perf_counter()
    with ThreadPoolExecutor(len(crew)) as pool:
        times = np.concatenate(list(pool.map(label, crew)))
    per_second = round(each * len(crew) / (time.perf_counter() - start), 1)
    return {"next_ms": percentiles(times[:, 0]), "save_ms": percentiles(times[:, 1]), "labels_per_s": per_second}


def percentiles(values: np.ndarray) -> list[float]:
    return [round(float(v) * 1000, 1) for v in np.quantile(values, [0.5, 0.95])]


if __name__ == "__main__":
    main()
