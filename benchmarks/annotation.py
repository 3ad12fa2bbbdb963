"""How long somebody who labels waits from one clip to the next, while others label too.

    python benchmarks/annotation.py [--people 50] [--clips 100000] [--think 4] [--seconds 60] [--database URL]
    python benchmarks/annotation.py --cut CLIPS_FOLDER

Makes a project of ``--clips`` clips in a temporary folder (or in the empty database at URL) and starts the real server
in a process of its own. ``--people`` people label at the same time: each posts an answer, follows the redirect and has
the next page to its last byte; that is one time. Then he listens and thinks, ``--think`` seconds on average (the clips
of SDME last 3.4; exponential; 0: he does not, and what is measured is how much the server can do). Clips are not
fetched, their files do not exist.

Client and server share the machine: with ``--think 0`` the times are those of a queue at a full processor. Prints the
median, the 95th and the 99th percentile, pages per second, and the processor time that a page costs the server.

``--cut``: the first four seconds of each video of a folder are cut as sound, silent and whole; seconds of video per
second of processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from moodal.annotation.app import create_app
from moodal.annotation.database import Database, open_database, sqlite_url
from moodal.annotation.protocol import prepare
from moodal.annotation.schema import Person, SignIn
from moodal.annotation.security import form_token_of
from moodal.annotation.serve import AnnotateOptions, listening, run_server
from moodal.annotation.settings import AnnotationSettings
from moodal.data.clips import Clip
from moodal.media.cutting import Piece, cut_segments
from moodal.media.decode import probe
from moodal.types import Segment

WARM_UP_S = 5.0
SETTINGS = AnnotationSettings(gap_clips=200)
ASSIGNMENT = re.compile(rb'name="assignment" value="(\d+)"')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--think", type=float, default=4.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--database", help="of an empty PostgreSQL database; SQLite unless given")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--cut", type=Path, metavar="CLIPS_FOLDER")
    asked = parser.parse_args()
    if asked.cut:
        cut_speed(asked.cut)
        return
    if asked.serve:
        serve(asked.serve)
        return
    with tempfile.TemporaryDirectory() as folder:
        url = asked.database or sqlite_url(Path(folder) / "annotation.sqlite")
        tokens = make_project(url, asked.clips, asked.people)
        server = subprocess.Popen([sys.executable, __file__, "--serve", url], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout
            port = int(server.stdout.readline())
            result = asyncio.run(measure(port, tokens, asked.think, asked.seconds, server.pid))
        finally:
            server.terminate()
            server.wait()
    print(json.dumps({"database": url.partition(":")[0], "people": asked.people, "clips": asked.clips,
                      "think_s": asked.think, **result}))  # fmt: skip


def cut_speed(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        targets = [Path(name) / f for f in ("a.m4a", "v.mp4", "f.mp4")]
        pieces = [Piece(t, p, s) for t, p, s in zip(targets, (False, True, True), (True, False, True), strict=True)]
        total_s = spent_s = 0.0
        for video in sorted(folder.iterdir()):
            found = probe(video) if video.suffix in (".mp4", ".mov") else None
            if found is None or found.video is None or found.audio is None:
                continue
            length_s, begin_s = min(4.0, found.duration_s or 4.0), time.process_time()
            list(cut_segments(video, [(Segment(0.0, length_s), pieces)]))
            cpu_s = time.process_time() - begin_s
            size = f"{found.video.width_px} x {found.video.height_px}"
            print(f"{video.name}: {size}, {length_s / cpu_s:.1f} times real time")
            total_s, spent_s = total_s + length_s, spent_s + cpu_s
        print(f"all: {total_s / spent_s:.1f} times real time")


def make_project(url: str, num_clips: int, num_people: int) -> list[str]:
    db = open_database(url)
    prepare(db, [Clip(f"e{i:06d}", "e.mp4", "e", float(i), i + 3.0) for i in range(num_clips)], SETTINGS)
    tokens = make_sessions(db, num_people)
    db.close()
    return tokens


def make_sessions(db: Database, num: int) -> list[str]:
    """People who are signed in already: passwords cost time on purpose, once a fortnight."""
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


def serve(url: str) -> None:
    options = AnnotateOptions(port=0, database=url)
    with listening(options) as bound:
        app = create_app(open_database(url), Path("none"), per_session_s=1e6, per_address_s=1e6)
        print(bound.getsockname()[1], flush=True)
        run_server(app, bound, options)


async def measure(port: int, tokens: list[str], think_s: float, seconds: float, pid: int) -> dict[str, float]:
    times: list[tuple[float, float]] = []
    begin = time.perf_counter()
    end = begin + WARM_UP_S + seconds
    crew = [asyncio.create_task(label(port, token, think_s, end, times, i)) for i, token in enumerate(tokens)]
    await asyncio.sleep(WARM_UP_S)
    cpu_s, num = cpu_of(pid), len(times)
    await asyncio.gather(*crew)
    cpu_s, num = cpu_of(pid) - cpu_s, len(times) - num
    kept = sorted(1000 * t for at, t in times if at > begin + WARM_UP_S)
    at = {f"p{p}_ms": round(kept[min(len(kept) - 1, len(kept) * p // 100)], 1) for p in (50, 95, 99)}
    return {**at, "max_ms": round(kept[-1], 1), "pages": len(kept), "pages_per_s": round(len(kept) / seconds, 1),
            "server_cpu_ms_per_page": round(1000 * cpu_s / num, 2)}  # fmt: skip


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def label(
    port: int, token: str, think_s: float, end: float, times: list[tuple[float, float]], number: int
) -> None:
    """One person, on one connection that stays open, as a browser's does."""
    chance = random.Random(number)  # noqa: S311 - not a secret
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    cookie = f"host: 127.0.0.1:{port}\r\ncookie: moodal_session={token}\r\n"
    get = f"GET /label HTTP/1.1\r\n{cookie}\r\n".encode()
    await asyncio.sleep(chance.random() * max(think_s, 0.5))
    writer.write(get)
    _, page = await answer_of(reader)
    while time.perf_counter() < end:
        found = ASSIGNMENT.search(page)
        assert found, page
        body = f"token={form_token_of(token)}&assignment={found[1].decode()}&label=happy&intensity=weak&seconds=2.1"
        post = (
            f"POST /answer HTTP/1.1\r\n{cookie}origin: http://127.0.0.1:{port}\r\n"
            f"content-type: application/x-www-form-urlencoded\r\ncontent-length: {len(body)}\r\n\r\n{body}"
        )
        if think_s:
            await asyncio.sleep(chance.expovariate(1 / think_s))
        begin = time.perf_counter()
        writer.write(post.encode())
        status, _ = await answer_of(reader)
        assert status == 303, status
        writer.write(get)
        status, page = await answer_of(reader)
        assert status == 200, status
        times.append((begin, time.perf_counter() - begin))
    writer.close()


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return int(head.split(b" ", 2)[1]), await reader.readexactly(int(length[1]) if length else 0)


if __name__ == "__main__":
    main()
