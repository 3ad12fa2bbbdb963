"""Files are whole or not there: writers that fail, processes that are killed, disks that are full."""

import errno
import hashlib
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moodal.data.store import read_dataset
from moodal.files import fingerprint, new_folder, read_json, sha256, write_atomic, write_json
from moodal.types import InputError

CLIPS = ("--clips", "300")


def tree(folder: Path) -> dict[str, str]:
    """The hash of every file below ``folder``, hidden ones included."""
    return {p.relative_to(folder).as_posix(): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A small simulated data set, made once; copy it before harming it."""
    from moodal.data.simulate import simulate_sdme

    folder = tmp_path_factory.mktemp("simulated") / "sdme"
    simulate_sdme(folder, clips=300)
    return folder


def test_sha256_is_of_the_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"moodal" * 100_000)
    assert sha256(tmp_path / "file") == hashlib.sha256(b"moodal" * 100_000).hexdigest()


def test_a_fingerprint_is_of_the_content_and_of_no_path_or_time(tmp_path):
    content = bytes(range(256)) * 2000
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "c").write_bytes(content[:256_000] + b"?" + content[256_001:])  # as long, another middle
    (tmp_path / "d").write_bytes(content + b"?")
    prints = [fingerprint(tmp_path / name) for name in ("a", "b", "c", "d")]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    assert fingerprint(tmp_path / "nowhere") == fingerprint(tmp_path) == ""


def test_what_was_written_is_read_again(tmp_path):
    value = {"text": "Gefühl 情感", "list": [1, 2.5, None, True]}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_json_that_is_absent_or_broken_is_named(tmp_path):
    with pytest.raises(InputError, match=r"x\.json does not exist"):
        read_json(tmp_path / "x.json")
    for content in (b'{"half": ', b"\xff\xfe", b""):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(InputError, match=r"x\.json is not valid JSON"):
            read_json(tmp_path / "x.json")


def test_a_writer_that_fails_in_the_middle_leaves_the_old_file(tmp_path):
    file = tmp_path / "model"
    file.write_text("old")

    def fails(path: Path) -> None:
        path.write_text("half of the n")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_atomic(file, fails)
    assert tree(tmp_path) == {"model": hashlib.sha256(b"old").hexdigest()}


def test_a_folder_that_may_not_be_written_is_named_with_the_file_that_was_wanted(tmp_path):
    def fails(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with pytest.raises(InputError, match=r"/labels\.parquet cannot be written: Permission denied"):
        write_atomic(tmp_path / "labels.parquet", fails)


def test_a_block_that_fails_leaves_the_old_folder(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "old").write_text("old")
    before = tree(tmp_path)

    def fails() -> None:
        with new_folder(tmp_path / "data", overwrite=True) as folder:
            (folder / "new").write_text("new")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fails()
    assert tree(tmp_path) == before


def test_a_folder_that_is_there_is_not_overwritten_unasked(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "old").write_text("old")
    with pytest.raises(InputError, match="exists already"), new_folder(tmp_path / "data"):
        pass
    with new_folder(tmp_path / "data", overwrite=True) as folder:
        (folder / "new").write_text("new")
    assert [*tree(tmp_path)] == ["data/new"]


def test_an_empty_folder_may_be_filled_and_its_parents_are_made(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "a" / "b"):
        with new_folder(path) as folder:
            (folder / "new").write_text("new")
        assert [*tree(path)] == ["new"]


def test_a_file_in_the_way_is_no_folder(tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(InputError, match="exists already"), new_folder(tmp_path / "data"):
        pass


HALF = """
import sys, time
from pathlib import Path
from moodal.files import fingerprint, new_folder, write_atomic

def half(path):
    path.write_text("half of the n")
    print("half", flush=True)
    time.sleep(60)

target = Path(sys.argv[2])
if sys.argv[1] == "file":
    write_atomic(target, half)
else:
    with new_folder(target, overwrite=True) as folder:
        half(folder / "dataset.json")
"""


def killed_half_way(kind: str, target: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HALF, kind, str(target)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    file = tmp_path / "report.json"
    write_json(file, {"old": True})
    killed_half_way("file", file)
    assert read_json(file) == {"old": True}
    write_json(file, {"new": True})
    assert read_json(file) == {"new": True}


def test_a_killed_writer_leaves_no_file_where_there_was_none(tmp_path):
    killed_half_way("file", tmp_path / "report.json")
    assert not (tmp_path / "report.json").exists()


def test_a_killed_process_leaves_no_folder_and_its_remains_do_not_return(tmp_path):
    killed_half_way("folder", tmp_path / "data")
    assert not (tmp_path / "data").exists()
    with new_folder(tmp_path / "data") as folder:
        (folder / "new").write_text("new")
    assert [*tree(tmp_path)] == ["data/new"]


def test_a_killed_command_leaves_the_old_data_set_and_the_next_one_replaces_it(tmp_path, simulated, moodal):
    data = tmp_path / "sdme"
    shutil.copytree(simulated, data)
    before = tree(data)
    command = (
        f"from moodal.cli import main; import sys; sys.argv[1:] = ['simulate', {str(data)!r}, '--overwrite']; main()"
    )
    with subprocess.Popen([sys.executable, "-c", command]) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".sdme.partial/features/*/*.parquet")):  # it is writing
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline, "it never began to write"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert tree(data) == before
    read_dataset(data)
    done = moodal("simulate", data, *CLIPS, "--seed", 1, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert tree(data) != before
    assert [p.name for p in tmp_path.iterdir()] == ["sdme"]
    read_dataset(data)


def small_files() -> None:
    """In the child: no file may grow beyond 64 kB, so that writing fails as on a disk without room."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))


def test_without_room_the_old_data_set_stays_and_one_sentence_says_why(tmp_path, simulated, moodal):
    data = tmp_path / "sdme"
    shutil.copytree(simulated, data)
    before = tree(tmp_path)
    done = moodal("simulate", data, *CLIPS, "--overwrite", preexec_fn=small_files)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (f"moodal: the disk is full: {data} was not written; free some space and run it again\n")
    assert tree(tmp_path) == before


def test_without_room_an_import_leaves_nothing(tmp_path, moodal):
    import numpy as np

    rows = np.random.default_rng(0).normal(size=(600, 100)).astype(np.float32)
    names = [f"u{i}" for i in range(600)]
    np.savez(tmp_path / "x.npz", name=np.array(names), sound=rows, feeling=np.array(["sad", "glad"] * 300))
    fields = ("--field", "id=name", "--field", "label=feeling", "--field", "audio=sound")
    done = moodal("import", tmp_path / "x.npz", tmp_path / "data", *fields, preexec_fn=small_files)
    assert done.returncode == 2, done.stderr
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


DISK_OF_ONE_MEGABYTE = """
set -e
mount -t tmpfs -o size=1m tmpfs "$1"
"$2" -c 'from moodal.cli import main; main()' simulate "$1/small" --clips 20 >/dev/null
before=$(cd "$1" && find . -type f -exec sha256sum {} + | sort)
set +e
"$2" -c 'from moodal.cli import main; main()' simulate "$1/small" --clips 2000 --overwrite
echo "code $?"
after=$(cd "$1" && find . -type f -exec sha256sum {} + | sort)
[ "$before" = "$after" ] && echo unchanged
"""


def has_private_mounts() -> bool:
    if not shutil.which("unshare"):
        return False
    return subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not has_private_mounts(), reason="this machine lets no user mount a small disk of their own")
def test_a_really_full_disk(tmp_path):
    command = ["unshare", "-rm", "sh", "-c", DISK_OF_ONE_MEGABYTE, "sh", str(tmp_path), sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.splitlines() == ["code 2", "unchanged"], done.stderr
    assert done.stderr == (
        f"moodal: the disk is full: {tmp_path / 'small'} was not written; free some space and run it again\n"
    )


def test_the_sentence_names_the_file_that_was_not_written(tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
    code = limit + "from pathlib import Path; from moodal.files import write_json; import sys\n"
    code += "try: write_json(Path(sys.argv[1]), list(range(100)))\nexcept ValueError as e: print(e)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.json")], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith(f"the disk is full: {tmp_path / 'x.json'} was not written"), done.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_left_by_a_kill_at_the_very_end_is_in_nobodys_way(tmp_path):
    for name in ("data", ".data.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    with new_folder(tmp_path / "data", overwrite=True) as folder:
        (folder / "file").write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
    assert (tmp_path / "data/file").read_text() == "new"
