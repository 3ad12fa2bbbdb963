"""OpenFace's tables in both styles, and a program in its place that works, fails, hangs, or writes nothing."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from moodal.features.openface import AU_COLUMNS, OpenFace, find_openface, read_openface
from moodal.types import InputError, WorkError

DATA = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
NEW = ["frame", "face_id", "timestamp", "confidence", "success", *AU_COLUMNS]


def table(path, rows, header=NEW, comma=","):
    """rows: (frame, face, time, confidence, success, value of all 35)."""
    lines = [comma.join(header)]
    for frame, face, time_s, confidence, success, value in rows:
        known = {"frame": frame, "face_id": face, "timestamp": time_s, "confidence": confidence, "success": success}
        lines.append(comma.join(str(known.get(name, value)) for name in header))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_35_columns_are_17_intensities_then_18_presences():
    assert len(AU_COLUMNS) == len(set(AU_COLUMNS)) == 35
    assert [c[-2:] for c in AU_COLUMNS] == ["_r"] * 17 + ["_c"] * 18
    assert {c[:4] for c in AU_COLUMNS[17:]} - {c[:4] for c in AU_COLUMNS[:17]} == {"AU28"}


@pytest.mark.corpus
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}")
@pytest.mark.parametrize("name", ["EmoInfer_default.csv", "pyfeat_OpenFace_Test.csv"])
def test_real_tables_of_both_styles_read_as_pandas_does(name):
    import pandas as pd

    path = DATA / "openface" / name
    frame = pd.read_csv(path, skipinitialspace=True)
    kept = frame[(frame["success"] == 1) & (frame["confidence"] >= 0.7)]
    features = read_openface(path)
    assert len(features.values) == len(kept) > 50
    np.testing.assert_allclose(features.values, kept[list(AU_COLUMNS)], atol=1e-6)
    np.testing.assert_allclose(features.times_s, kept["timestamp"], atol=1e-9)


@pytest.mark.parametrize(("without", "comma"), [((), ","), (("face_id",), ", ")], ids=["new", "old"])
def test_columns_are_found_by_name(tmp_path, without, comma):
    header = [name for name in reversed([*NEW, "pose_Rx"]) if name not in without]
    path = table(tmp_path / "t.csv", [(1, 0, 0.0, 0.9, 1, 2.5), (2, 0, 0.04, 0.9, 1, 0.5)], header, comma)
    features = read_openface(path)
    assert features.values.tolist() == [[2.5] * 35, [0.5] * 35]
    assert features.times_s.tolist() == [0.0, 0.04]
    assert features.note == ""


def test_values_stand_in_the_order_of_the_columns(tmp_path):
    values = {name: i / 10 for i, name in enumerate(AU_COLUMNS)}
    shuffled = sorted(AU_COLUMNS)
    header = ["frame", "timestamp", "confidence", "success", *shuffled]
    line = [1, 0.0, 1, 1, *(values[name] for name in shuffled)]
    (tmp_path / "t.csv").write_text(", ".join(header) + "\n" + ", ".join(map(str, line)))
    np.testing.assert_allclose(read_openface(tmp_path / "t.csv").values[0], np.arange(35) / 10, atol=1e-6)


def test_rows_without_a_sure_face_are_left_out(tmp_path):
    rows = [(1, 0, 0.0, 0.9, 1, 1), (2, 0, 0.1, 0.9, 0, 1), (3, 0, 0.2, 0.6, 1, 1), (4, 0, 0.3, 0.9, 1, "-nan(ind)")]
    features = read_openface(table(tmp_path / "t.csv", rows))
    assert features.times_s.tolist() == [0.0]
    assert features.note == "3 of 4 rows left out"
    assert read_openface(tmp_path / "t.csv", min_confidence=0.5).times_s.tolist() == [0.0, 0.2]


def test_no_sure_face_is_missing_and_not_zeros(tmp_path):
    features = read_openface(table(tmp_path / "t.csv", [(1, 0, 0.0, 0.1, 0, 0)]))
    assert features.is_missing
    assert features.values.shape == (0, 35)
    assert "no face" in features.note


def test_of_several_faces_the_one_with_most_usable_rows_is_taken(tmp_path):
    rows = [(n, face, n / 10, 0.9 if face == 2 else 0.3, 1, face) for n in range(5) for face in (0, 2)]
    rows += [(9, 0, 0.9, 0.9, 1, 0)]
    path = table(tmp_path / "t.csv", rows)
    features = read_openface(path)
    assert set(features.values.ravel()) == {2}
    assert len(features.values) == 5
    assert features.note == "face 2 of 2"
    assert len(read_openface(path, face_id=0).values) == 1
    with pytest.raises(InputError, match="has no face 1; there are: 0, 2"):
        read_openface(path, face_id=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks 39 of OpenFace's columns, e.g. 'frame'"),
        (",".join(n for n in NEW if n != "AU28_c"), "lacks 1 of OpenFace's columns, e.g. 'AU28_c'"),
        (",".join(NEW) + "\n1,0,0.0,0.9", "line 2: AU01_r is no number; the table is damaged or cut off"),
        (",".join(NEW) + "\n1,0,soon,0.9,1" + ",1" * 35, "line 2: timestamp is no number"),
        (",".join(NEW) + "\n1.5,0,0,0.9,1" + ",1" * 35, "line 2: frame is no whole number"),
        (",".join(NEW) + "\ninf,0,0,0.9,1" + ",1" * 35, "line 2: frame is no whole number"),
        ("a" * 200_000, "is no table of OpenFace's: field larger than field limit"),
        (b"\xff\xfe\x00", "is no table of OpenFace's"),
    ],
    ids=["empty", "no AU28", "cut off", "word", "fraction", "infinite", "one long line", "no text"],
)
def test_a_damaged_table_is_named(tmp_path, text, message):
    (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        read_openface(tmp_path / "t.csv")


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_openface(tmp_path / "t.csv")


class Shown:
    """A frame, as the decoder gives it."""

    def __init__(self, time_s):
        self.time_s = time_s
        self.rgb = np.full((48, 64, 3), 100, np.uint8)


FRAMES = [Shown(t) for t in (0.0, 0.5, 0.7)]
WORKING = f"""
import argparse, pathlib
p = argparse.ArgumentParser()
for name in ("-fdir", "-out_dir", "-of"):
    p.add_argument(name, required=True)
p.add_argument("-aus", action="store_true", required=True)
p.add_argument("-q", action="store_true")
a = p.parse_args()
pictures = sorted(pathlib.Path(a.fdir).iterdir())
with open(pathlib.Path(a.out_dir) / (a.of + ".csv"), "w") as f:
    print(*{NEW!r}, sep=",", file=f)
    for n, picture in enumerate(pictures, 1):
        assert picture.read_bytes()[:2] == b"\\xff\\xd8"
        print(n, 0, n / 30, 0.9, int(n != 2), *([n] * 35), sep=",", file=f)
"""


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Puts a small Python program where OpenFace is looked for."""

    def install(code):
        path = tmp_path / "bin dir; $(x)" / "FeatureExtraction"  # a name that a shell would trip over
        path.parent.mkdir()
        path.write_text(f"#!{sys.executable}\n{code}")
        path.chmod(0o755)
        monkeypatch.setenv("OPENFACE_BIN", str(path))
        return path

    return install


def test_the_program_gets_the_frames_and_its_table_gets_their_times(program):
    program(WORKING)
    features = OpenFace()(FRAMES)
    assert features.values.tolist() == [[1.0] * 35, [3.0] * 35]
    assert features.times_s.tolist() == [0.0, 0.7]
    assert features.note == "1 of 3 rows left out"


def test_a_table_counts_although_the_exit_code_is_bad(program):
    program(WORKING + "raise SystemExit(3)")
    assert len(OpenFace()(FRAMES).values) == 2


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import sys; sys.exit('Could not load the landmark detector')",
            "ended with 1 and said: Could not load the land",
        ),
        ("", "wrote no table; it ended with 0 and said: nothing"),
        (WORKING.split("    for n")[0], "wrote no table"),  # only the header
    ],
    ids=["fails", "writes nothing", "writes no rows"],
)
def test_a_program_without_a_table_failed_whatever_it_returns(program, code, message):
    program(code)
    with pytest.raises(WorkError, match=message):
        OpenFace()(FRAMES)


def test_a_program_that_hangs_is_stopped_with_its_children(program, tmp_path):
    alive = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(alive)!r}).touch()"
    program(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])")
    before = time.monotonic()
    with pytest.raises(WorkError, match="was not done after 1 s and was stopped"):
        OpenFace(time_limit_s=1.0)(FRAMES)
    assert time.monotonic() - before < 2.5
    time.sleep(max(0, before + 3.6 - time.monotonic()))
    assert not alive.exists()


def test_no_frames_are_missing_and_start_nothing(program):
    program("raise SystemExit('started')")
    assert OpenFace()([]).is_missing


def test_a_file_that_is_no_program_is_named(program):
    program("").write_bytes(b"\x7fELF no program")
    with pytest.raises(InputError, match="could not be started as OpenFace"):
        OpenFace()(FRAMES)


def test_a_program_ends_with_whoever_runs_it_however_that_ends(program, tmp_path):
    """Killed, it cannot stop anything; and the program is often a script around another."""
    pid_file = tmp_path / "pid"
    child = f"import os, pathlib, time; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid())); time.sleep(60)"
    program(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])")
    code = "import sys; sys.path[:0] = sys.argv[1:]\n" + RUN_OPENFACE
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code, *sys.path], env=environment) as caller:
        pid = wait_for(lambda: pid_file.is_file() and pid_file.read_text())
        caller.kill()
    wait_for(lambda: not is_running(int(pid)))


RUN_OPENFACE = """
import numpy as np
from moodal.features.openface import OpenFace
from moodal.media.decode import Frame
OpenFace()([Frame(0.0, np.zeros((8, 8, 3), np.uint8))])
"""


def wait_for(condition):
    """What it says when it is true; a minute is for ever."""
    end_s = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < end_s
        time.sleep(0.02)
    return found


def is_running(pid):
    """A dead one whose parent has not asked yet is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_without_openface_the_sentence_says_where_to_put_it_and_its_licence(monkeypatch):
    monkeypatch.delenv("OPENFACE_BIN", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"no FeatureExtraction on PATH; .*non-commercial.*OPENFACE_BIN.*au_proxy"):
        OpenFace()
    monkeypatch.setenv("OPENFACE_BIN", "/nowhere/FeatureExtraction")
    with pytest.raises(InputError, match="OPENFACE_BIN is '/nowhere/FeatureExtraction', which is no program"):
        OpenFace()


def test_the_program_is_found_on_the_path(program, monkeypatch):
    path = program(WORKING)
    monkeypatch.delenv("OPENFACE_BIN")
    monkeypatch.setenv("PATH", str(path.parent))
    assert find_openface() == path


def test_another_program_is_another_extractor(program):
    path = program(WORKING)
    first = OpenFace().identity()
    path.write_text(path.read_text() + "# version 2")
    second = OpenFace().identity()
    assert first["settings"] != second["settings"]
    assert OpenFace.commercial is False
    assert "non-commercial" in first["licence"]


@pytest.mark.parametrize("rate_hz", [0, -1, 1000, float("nan")])
def test_a_rate_that_makes_no_sense_is_refused(program, rate_hz):
    program(WORKING)
    with pytest.raises(InputError, match="frames per second"):
        OpenFace(rate_hz=rate_hz)
