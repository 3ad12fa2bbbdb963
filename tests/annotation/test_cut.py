"""Cutting a folder's clips: all of them once, what fails left out with a sentence, nothing of it made twice."""

import os
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.annotation.projects import CLIP_S, make_clips, make_video

from moodal.annotation.cut import cut_clips, media_path, refuse_without_clips
from moodal.media.decode import probe
from moodal.types import InputError

CONDITIONS = ("text", "audio", "vision", "full")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    make_video(folder / "episode.mp4", 3 * CLIP_S)
    make_video(folder / "silent.mp4", CLIP_S, sound=False)
    (folder / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"nothing" * 50)
    return folder


def test_each_clip_is_there_in_each_condition_and_is_cut_once(videos, tmp_path):
    clips, media, seen = make_clips(3), tmp_path / "media", []
    cuts = cut_clips(videos, clips, CONDITIONS, media, workers=1, on_change=lambda *said: seen.append(said))
    assert cuts.clips == tuple(clips)
    assert not cuts.failed
    assert seen[0][:2] == (0, 3)
    assert seen[-1] == (3, 3, "")
    for clip in clips:
        audio, vision, full = (probe(media_path(media, clip, c)) for c in ("audio", "vision", "full"))
        assert audio.video is None and audio.audio  # noqa: PT018
        assert vision.video and vision.audio is None  # noqa: PT018
        assert full.video and full.audio  # noqa: PT018
    before = {p: p.stat().st_mtime_ns for p in media.rglob("*.m*")}
    again = cut_clips(videos, clips, CONDITIONS, media, workers=1)
    assert again.clips == tuple(clips)
    assert {p: p.stat().st_mtime_ns for p in media.rglob("*.m*")} == before


def test_names_of_files_tell_nothing(videos, tmp_path):
    clip = make_clips(1)[0]
    cut_clips(videos, [clip], ["vision"], tmp_path / "media", workers=1)
    (made,) = (tmp_path / "media" / "vision").iterdir()
    assert "episode" not in str(made.relative_to(tmp_path))


def test_what_fails_is_left_out_and_the_ledger_says_why(videos, tmp_path):
    good = make_clips(1)[0]
    mute = replace(good, id="mute", video="silent.mp4")
    broken = replace(good, id="broken", video="broken.mp4")
    gone = replace(good, id="gone", video="gone.mp4")
    late = replace(good, id="late", start_s=50.0, end_s=51.0)
    cuts = cut_clips(videos, [mute, good, broken, gone, late], CONDITIONS, tmp_path / "media", workers=1)
    assert cuts.clips == (good,)
    rows = pq.read_table(cuts.ledger).to_pylist()
    notes = {(r["id"], r["stage"]): (r["status"], r["note"]) for r in rows}
    assert notes["mute", "vision"][0] == "done"
    assert "there is no sound" in notes["mute", "audio"][1]
    assert "broken.mp4" in notes["broken", "full"][1]
    assert "does not exist" in notes["gone", "full"][1]
    assert "from 50.000 to 51.000 s" in notes["late", "vision"][1]
    assert notes[good.id, "full"] == ("done", "")


def test_what_failed_three_times_is_given_up_until_asked_again(videos, tmp_path):
    broken = replace(make_clips(1)[0], video="broken.mp4")
    for status in ("failed", "failed", "skipped", "skipped"):
        cuts = cut_clips(videos, [broken], ["audio"], tmp_path / "media", workers=1)
        assert cuts.entries[0].status == status
    assert cuts.entries[0].tries == 3
    cuts = cut_clips(videos, [broken], ["audio"], tmp_path / "media", workers=1, retry=True)
    assert cuts.entries[0].tries == 1


def test_a_clip_with_other_borders_is_cut_anew_and_so_is_a_changed_video(videos, tmp_path):
    clip, media = make_clips(1)[0], tmp_path / "media"
    own = tmp_path / "videos"
    own.mkdir()
    make_video(own / "episode.mp4", 2 * CLIP_S)
    cut_clips(own, [clip], ["vision"], media, workers=1)
    longer = replace(clip, end_s=clip.end_s + 0.4)
    cut_clips(own, [longer], ["vision"], media, workers=1)
    duration_s = probe(media_path(media, longer, "vision")).duration_s
    assert duration_s == pytest.approx(CLIP_S + 0.4, abs=0.01)
    path = media_path(media, clip, "vision")
    os.utime(path, (1e9, 1e9))
    cut_clips(own, [clip], ["vision"], media, workers=1)
    assert path.stat().st_mtime > 1e9


def test_what_a_killed_cutting_left_is_swept_away(videos, tmp_path):
    left = tmp_path / "media" / "audio" / ".cut-abc"
    left.mkdir(parents=True)
    (left / "sound.mp4").write_bytes(b"half")
    cut_clips(videos, make_clips(1), ["audio"], tmp_path / "media", workers=1)
    assert not left.exists()


def test_without_a_clip_that_passed_there_is_nothing_to_label(tmp_path):
    with pytest.raises(InputError, match=r"none of the 1 clips in .* passed the screening"):
        refuse_without_clips([replace(make_clips(1)[0], passed=False)], tmp_path)
