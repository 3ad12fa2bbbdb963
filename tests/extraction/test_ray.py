"""On a cluster as on one machine: the same bytes, whichever node, file or command dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.extraction.test_extract import sound, video_with_sound

from moodal.extraction.extract import Options, extract_media
from moodal.extraction.pool import DIED, LATE, RAISED
from moodal.extraction.ray_engine import Actor, Site, ray_cluster
from moodal.files import read_json
from moodal.types import InputError

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs the ray extra")
SOUND = Options({"audio": "audio33"}, workers=2)
ON_RAY = replace(SOUND, engine="ray")
COMMAND = """
import sys
from pathlib import Path
from moodal.extraction.extract import Options, extract_media
extract_media(Path(sys.argv[1]), Path(sys.argv[2]), Options({"audio": "audio33"}, workers=2, engine="ray"))
"""


def misbehave(job: str) -> str:
    if job == "hang":
        time.sleep(600)
    if job == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job == "raise":
        raise ValueError("two\nlines")
    if job == "where":
        return f"{Path.cwd()} {os.environ.get('OMP_NUM_THREADS')} {os.environ.get('MOODAL_CACHE')}"
    return job.upper()


def families(root: int) -> list[int]:
    """The process, and all that descend from it."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid", "--no-headers"], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    found = [root]
    for parent in found:
        found += [pid for pid, ppid in pairs if ppid == parent]
    return found


def is_connected() -> bool:
    import ray

    return bool(ray.is_initialized())


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of two nodes with one processor each, that RAY_ADDRESS names."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        settings = {"num_cpus": 1, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=settings)
        cluster.add_node(**settings)
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray") / "media"
    for k in range(8):
        sound(folder / f"{k}.wav", 0.3 + 0.1 * k, k)
    video_with_sound(folder / "film.mkv")
    (folder / "poison.wav").write_bytes(b"RIFF" + bytes(200))
    return folder


@pytest.fixture(scope="module")
def alone(media: Path) -> Path:
    """What this machine makes of it."""
    extract_media(media, media.parent / "out", SOUND)
    return media.parent / "out"


def ledger(target: Path, *columns: str) -> list[dict[str, Any]]:
    return pq.read_table(target.with_name(f"{target.name}.parts") / "ledger.parquet", columns=list(columns)).to_pylist()


def assert_same(target: Path, alone: Path) -> None:
    """All bytes of the data set, what the ledger says of every file, and nothing that was half written."""
    assert read_json(target / "dataset.json")["files"] == read_json(alone / "dataset.json")["files"]
    columns = ("video", "id", "stage", "status", "note", "steps")
    assert ledger(target, *columns) == ledger(alone, *columns)
    assert len(list(target.with_name(f"{target.name}.parts").glob("*.npz"))) == 9


@pytest.mark.usefixtures("nodes")
def test_every_job_has_one_outcome_whatever_the_others_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOODAL_CACHE", "/models")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    started: list[str] = []
    jobs = ["a", "hang", "crash", "raise", "where", "b"]
    with ray_cluster(tmp_path, [], None) as cluster:
        assert cluster.num_cpus == 2
        outcomes = cluster.run_jobs(
            misbehave, jobs, workers=2, limit_s=lambda j: 3.0 if j == "hang" else 120.0, on_start=started.append
        )
        found = {o.job: (o.value, o.kind, o.problem) for o in outcomes}
    assert started == jobs
    assert found == {
        "a": ("A", "", ""),
        "b": ("B", "", ""),
        "hang": (None, LATE, "took longer than its time limit, and was stopped"),
        "crash": (None, DIED, "its process died (SIGSEGV)"),
        "raise": (None, RAISED, "ValueError: two lines"),
        "where": (f"{Path.cwd()} None /models", "", ""),
    }
    assert not is_connected()
    assert not os.listdir(tmp_path)


@pytest.mark.usefixtures("nodes")
def test_an_actor_that_does_not_stop_what_is_late_is_stopped_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moodal.extraction.ray_engine.GRACE_S", -300.0)  # it would stop it after 301 s
    with ray_cluster(tmp_path, [], None) as cluster:
        outcomes = cluster.run_jobs(misbehave, ["hang", "a"], workers=1, limit_s=lambda j: 301 if j == "hang" else 900)
        assert [(o.job, o.kind) for o in outcomes] == [("hang", LATE), ("a", "")]


@pytest.mark.usefixtures("nodes")
def test_a_node_that_does_not_see_the_files_is_said_in_a_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"the Ray node .* does not see .*absent.wav; media and results must lie on"),
        ray_cluster(tmp_path, [tmp_path / "absent.wav"], None) as cluster,
    ):
        list(cluster.run_jobs(misbehave, ["a"], workers=1, limit_s=lambda j: 60.0))


def test_a_node_with_another_moodal_is_said_in_a_sentence() -> None:
    assert "the command is 0.0.0; install the same on both" in Actor().settle(misbehave, Site("/", {}, (), "0.0.0"))


@pytest.mark.usefixtures("nodes")
def test_a_killed_command_goes_on_to_the_same_bytes(media: Path, alone: Path, tmp_path: Path) -> None:
    target, parts = tmp_path / "out", tmp_path / "out.parts"
    with subprocess.Popen([sys.executable, "-c", COMMAND, media, target]) as process:
        while process.poll() is None and len(list(parts.glob("*.npz"))) < 2:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not target.exists()
    before = {p: p.stat().st_mtime_ns for p in parts.glob("*.npz")}
    assert 2 <= len(before) < 9
    extract_media(media, target, ON_RAY)
    assert before.items() <= {p: p.stat().st_mtime_ns for p in parts.glob("*.npz")}.items()
    assert_same(target, alone)


def test_a_dead_node_costs_nothing_but_time(nodes: Any, media: Path, alone: Path, tmp_path: Path) -> None:
    (node,) = nodes.worker_nodes
    victims = []

    def kill_a_node_at_work(done: int, total: int, under_way: str) -> None:
        if done and not victims and len(under_way.split("  ")) == 2:
            victims.extend(families(node.all_processes["raylet"][0].process.pid))
            for pid in victims:
                os.kill(pid, signal.SIGKILL)

    extract_media(media, tmp_path / "out", ON_RAY, on_change=kill_a_node_at_work)
    assert len(victims) > 2  # with its worker, and the worker's own process
    assert_same(tmp_path / "out", alone)
    assert max(row["tries"] for row in ledger(tmp_path / "out", "tries")) == 2  # the file that was lost with it


def test_without_an_address_there_is_a_cluster_of_its_own_and_it_ends(
    media: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    extract_media(media, tmp_path / "out", ON_RAY)
    assert_same(tmp_path / "out", alone)
    assert not is_connected()


def test_where_no_cluster_answers_it_is_said_at_once(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match=r"no connection to the Ray cluster at RAY_ADDRESS=127.0.0.1:1: .*refused"):
        extract_media(media, tmp_path / "out", ON_RAY)
    assert not list((tmp_path / "out.parts").iterdir())


def test_what_cannot_be_done_is_refused_before_any_work(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="no engine called 'rai'; did you mean 'ray'"):
        extract_media(media, tmp_path / "out", replace(SOUND, engine="rai"))
    monkeypatch.setattr("moodal.extraction.ray_engine.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"run: pip install 'moodal\[ray\]'"):
        extract_media(media, tmp_path / "out", ON_RAY)
    assert not os.listdir(tmp_path)
