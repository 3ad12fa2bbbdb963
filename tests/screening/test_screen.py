"""From shots to clips: every shot has a row that says why it fell, and nothing is measured twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.features.conftest import DATA, NO_CLIPS, NO_MODELS, on_clips
from tests.media.conftest import SOUND_HZ, every
from tests.screening.joined import joined

from moodal.data.clips import Shot, changed_videos, read_clips, read_shots, write_recipe, write_shots
from moodal.features.model_files import CACHE_VARIABLE, VOICE_VARIABLE, VOICES, models_installed
from moodal.files import fingerprint, only_one
from moodal.screening.screen import screen_clips
from moodal.screening.settings import ScreenSettings
from moodal.types import InputError

needs_voices = pytest.mark.skipif(
    not (models_installed(VOICES) or os.environ.get(VOICE_VARIABLE)),
    reason=f"the voice model is not in the cache, and {VOICE_VARIABLE} names no wheel",
)


def noise(seconds, seed, level=0.2):
    """Louder and softer, as no two sounds are alike."""
    rng = np.random.default_rng(seed)
    steps = np.repeat(rng.uniform(0.1, 1, round(8 * seconds) + 1), SOUND_HZ // 8)[: round(seconds * SOUND_HZ)]
    return (level * steps * rng.standard_normal(len(steps))).astype(np.float32)


def drawing(seed):
    def draw(index, width, height):
        rng = np.random.default_rng([seed, index // 10])
        return np.kron(rng.integers(0, 255, (6, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))

    return draw


def shots_of(name, *edges):
    stem = Path(name).stem
    return [
        Shot(f"{stem}_{k:04d}", name, stem, k, a, b, 0, 0, None, "made") for k, (a, b) in enumerate(pairwise(edges))
    ]


@pytest.fixture
def recipe(tmp_path):
    """``recipe(shots)``: the folder, for the media in ``tmp_path``."""

    def make(shots):
        folder = tmp_path / "recipe"
        folder.mkdir(exist_ok=True)
        write_recipe(folder, tmp_path)
        write_shots(folder, shots)
        return folder

    return make


def reasons(folder):
    return {c.id: c.reason for c in read_clips(folder)}


def test_each_shot_has_a_row_with_the_first_reason_why_it_fell(make_video, recipe):
    quiet = np.zeros(2 * SOUND_HZ, np.float32)
    sound = np.concatenate([noise(2.0, 0), quiet, noise(1.0, 1)])
    make_video("a.mp4", every(125), sound=[(0.0, sound)], draw=drawing(0))
    folder = recipe(shots_of("a.mp4", 0.0, 2.0, 4.0, 4.4, 5.0))
    result = screen_clips(folder, ScreenSettings(), workers=1)
    assert reasons(folder) == {"a_0000": "speech", "a_0001": "silence", "a_0002": "length", "a_0003": "length"}
    first, second, *_ = read_clips(folder)
    assert first.detail == "speech for 0 % of its time, less than 30 %"
    assert first.speech_share == 0
    assert -30 < first.loudness_db < -5
    assert second.loudness_db < -80
    assert first.face_share is second.face_share is first.voice_distance is None  # never came to be measured
    assert result.reasons == {"length": 2, "silence": 1, "speech": 1}
    assert (result.num_shots, result.num_clips, result.passed, result.is_whole) == (4, 4, 0, True)
    assert json.loads(json.dumps(result.as_dict()))["reasons"] == result.reasons
    assert result.lines()[0] == "0 of 4 clips passed (0%), 0.0 min to label"
    assert result.page.read_text().startswith("<!doctype html>")


def test_a_video_without_sound_falls_for_want_of_speech(make_video, recipe):
    make_video("mute.mp4", every(50), draw=drawing(0))
    folder = recipe(shots_of("mute.mp4", 0.0, 2.0))
    assert screen_clips(folder, ScreenSettings(), workers=1).is_whole
    (clip,) = read_clips(folder)
    assert (clip.reason, clip.detail) == ("speech", "its video has no sound")


def test_the_same_sound_and_pictures_are_kept_once_in_whichever_video_they_come(make_video, recipe):
    titles = noise(2.0, 0)
    for name, seed in (("a.mp4", 1), ("b.mkv", 2)):
        own = noise(2.0 if seed == 1 else 2.2, seed)
        start = 0 if seed == 1 else 55

        def draw(index, width, height, start=start, seed=seed):
            inside = index - start
            return drawing(9)(inside, width, height) if 0 <= inside < 50 else drawing(seed)(index, width, height)

        sound = np.concatenate([titles, own] if seed == 1 else [own, 0.7 * titles])
        make_video(name, every(100 if seed == 1 else 105), sound=[(0.0, sound)], draw=draw)
    folder = recipe([*shots_of("a.mp4", 0.0, 2.0, 4.0), *shots_of("b.mkv", 0.0, 2.2, 4.2)])
    screen_clips(folder, ScreenSettings(), workers=1)
    assert reasons(folder) == {"a_0000": "speech", "a_0001": "speech", "b_0000": "speech", "b_0001": "duplicate"}
    copy = read_clips(folder)[3]
    assert (copy.duplicate_of, copy.detail) == ("a_0000", "sounds and looks the same as a_0000")
    screen_clips(folder, ScreenSettings(duplicates=False), workers=1)
    assert set(reasons(folder).values()) == {"speech"}


def test_a_video_that_is_gone_and_one_that_is_broken_cost_only_their_own_clips(make_video, recipe, tmp_path):
    make_video("a.mp4", every(50), sound=[(0.0, noise(2.0, 0))], draw=drawing(0))
    (tmp_path / "broken.mp4").write_bytes(b"no video at all" * 100)
    names = ("gone.mp4", "a.mp4", "broken.mp4")
    folder = recipe([s for name in names for s in shots_of(name, 0.0, 2.0)])
    result = screen_clips(folder, ScreenSettings(), workers=1)
    assert reasons(folder) == {"gone_0000": "unreadable", "a_0000": "speech", "broken_0000": "unreadable"}
    assert not result.is_whole
    assert "gone.mp4 does not exist" in result.problems["gone.mp4"]
    assert "could not be opened" in result.problems["broken.mp4"]
    assert read_clips(folder)[0].detail == result.problems["gone.mp4"]
    assert "2 videos could not be read" in result.page.read_text()
    ledger = pq.read_table(folder / "screen.parts" / "ledger.parquet").to_pylist()
    assert {(e["video"], e["stage"], e["status"]) for e in ledger} >= {
        ("gone.mp4", "sound", "failed"),
        ("a.mp4", "sound", "done"),
    }


def test_a_video_that_failed_too_often_waits_for_retry_and_one_that_is_back_does_not(make_video, recipe, tmp_path):
    folder = recipe(shots_of("a.mp4", 0.0, 2.0))
    for _ in range(4):
        screen_clips(folder, ScreenSettings(), workers=1)
    tried = (folder / "screen.parts" / "failures.jsonl").read_text()
    assert tried.count("does not exist") == 3
    screen_clips(folder, ScreenSettings(), workers=1, retry=True)
    assert (folder / "screen.parts" / "failures.jsonl").read_text().count("does not exist") == 4
    make_video("a.mp4", every(50), sound=[(0.0, noise(2.0, 0))], draw=drawing(0))
    assert screen_clips(folder, ScreenSettings(), workers=1).is_whole


def test_names_in_any_script_and_a_video_of_one_picture(make_video, recipe):
    make_video("第 1 集 <b>&é.mp4", every(50), sound=[(0.0, noise(2.0, 0))], draw=drawing(0))
    make_video("one.mp4", [0.0])
    folder = recipe([*shots_of("第 1 集 <b>&é.mp4", 0.0, 2.0), *shots_of("one.mp4", 0.0, 0.04)])
    result = screen_clips(folder, ScreenSettings(), workers=1)
    assert reasons(folder) == {"第 1 集 <b>&é_0000": "speech", "one_0000": "length"}
    page = result.page.read_text()
    assert "第 1 集 &lt;b&gt;&amp;é_0000" in page
    assert "<b>&é" not in page


def test_another_threshold_measures_nothing_again(make_video, recipe, tmp_path):
    make_video("a.mp4", every(100), sound=[(0.0, noise(4.0, 0))], draw=drawing(0))
    folder = recipe(shots_of("a.mp4", 0.0, 2.0, 4.0))
    screen_clips(folder, ScreenSettings(), workers=1)
    parts = {p.name: p.stat().st_mtime_ns for p in (folder / "screen.parts").glob("*.npz")}
    seen = []
    screen_clips(
        folder, ScreenSettings(min_s=2.5, min_speech_share=0.6), workers=1, on_change=lambda *a: seen.append(a)
    )
    assert reasons(folder) == {"a_0000": "length", "a_0001": "length"}
    assert {p.name: p.stat().st_mtime_ns for p in (folder / "screen.parts").glob("*.npz")} == parts
    assert seen == []
    make_video("a.mp4", every(100), sound=[(0.0, noise(4.0, 5, 0.0005))], draw=drawing(0))  # it is another video now
    screen_clips(folder, ScreenSettings(), workers=1)
    assert set(reasons(folder).values()) == {"silence"}


def test_progress_is_shown_stage_by_stage(make_video, recipe):
    for k in range(2):
        make_video(f"v{k}.mp4", every(50), sound=[(0.0, noise(2.0, k))], draw=drawing(k))
    folder = recipe([s for k in range(2) for s in shots_of(f"v{k}.mp4", 0.0, 2.0)])
    seen = []
    screen_clips(folder, ScreenSettings(), workers=1, on_change=lambda *a: seen.append(a))
    assert seen[0] == (0, 2, "sound: v0.mp4")
    assert (2, 2, "") in seen
    assert any(under_way.startswith("thumbnails: ") for _, _, under_way in seen)


def test_two_screenings_of_one_folder_do_not_mix(recipe):
    folder = recipe(shots_of("a.mp4", 0.0, 2.0))
    (folder / "screen.parts").mkdir()
    with only_one(folder / "screen.parts"), pytest.raises(InputError, match="another moodal is at work"):
        screen_clips(folder, ScreenSettings())


def test_a_folder_that_is_no_recipe_or_has_no_shots_is_refused(tmp_path, recipe):
    with pytest.raises(InputError, match="is no folder of the recipe"):
        screen_clips(tmp_path, ScreenSettings())
    with pytest.raises(InputError, match="holds no shots"):
        screen_clips(recipe([]), ScreenSettings())


def test_words_beside_the_video_come_along(make_video, recipe, tmp_path):
    make_video("a.mp4", every(100), sound=[(0.0, noise(4.0, 0))], draw=drawing(0))
    (tmp_path / "a.vtt").write_text("WEBVTT\n\n00:00.500 --> 00:01.500\n<v Ann>Who is there?\n")
    folder = recipe(shots_of("a.mp4", 0.0, 2.0, 4.0))
    result = screen_clips(folder, ScreenSettings(), workers=1)
    assert [(c.text, c.speaker) for c in read_clips(folder)] == [("Who is there?", "Ann"), (None, None)]
    (tmp_path / "a.vtt").write_text("WEBVTT\n\n00:00.500 --> 00:00.100\nBack in time\n")
    result = screen_clips(folder, ScreenSettings(), workers=1)
    assert any("a.mp4 has no words" in n for n in result.notes)
    assert [c.reason for c in read_clips(folder)] == ["speech", "speech"]


def test_killed_at_any_moment_the_result_is_the_same(make_video, recipe, tmp_path):
    videos = [f"v{k}.mp4" for k in range(6)]
    for k, name in enumerate(videos):
        make_video(name, every(50), sound=[(0.0, noise(2.0, k))], draw=drawing(k))
    folder = recipe([s for name in videos for s in shots_of(name, 0.0, 1.0, 2.0)])
    screen_clips(folder, ScreenSettings(), workers=1)
    undisturbed = [(folder / name).read_bytes() for name in ("clips.parquet", "screening.html")]
    code = (
        "from pathlib import Path\nfrom moodal.screening.screen import screen_clips\n"
        "from moodal.screening.settings import ScreenSettings\n"
        f"if __name__ == '__main__': screen_clips(Path({str(folder)!r}), ScreenSettings(), workers=2)\n"
    )
    (tmp_path / "run.py").write_text(code)
    for parts_then in (1, 4):
        shutil.rmtree(folder / "screen.parts")
        process = subprocess.Popen([sys.executable, str(tmp_path / "run.py")], stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list((folder / "screen.parts").glob("*.npz"))) < parts_then:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        screen_clips(folder, ScreenSettings(), workers=1)
        assert [(folder / name).read_bytes() for name in ("clips.parquet", "screening.html")] == undisturbed


def real(name):
    return DATA / "clips" / name


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Real clips one after the other: the folder of the video, and the shots."""
    if not real("d11.mp4").is_file():
        pytest.skip(f"no real data at {DATA}")
    folder = tmp_path_factory.mktemp("film")
    names = ("WDA_KatieHill_000.mp4", "no_face.mp4", "Pose_Source-00473.mp4", "d18.mp4", "WDA_KatieHill_000.mp4")
    cuts = joined([real(n) for n in names], folder / "e.mp4", size=(320, 320))
    return folder, shots_of("e.mp4", 0.0, *(c.time_s for c in cuts), cuts[-1].time_s + 8.0)


@on_clips
@needs_voices
def test_talking_heads_pass_and_the_rest_falls_for_its_reason(film, tmp_path):
    videos, shots = film
    write_recipe(tmp_path, videos)
    write_shots(tmp_path, shots)
    result = screen_clips(tmp_path, ScreenSettings(), workers=1)
    assert list(reasons(tmp_path).values()) == [None, "speech", None, "silence", "duplicate"]
    assert [c.passed for c in read_clips(tmp_path)] == [True, False, True, False, False]
    head = read_clips(tmp_path)[0]
    assert head.face_share > 0.95
    assert head.frontal_share > 0.95
    assert head.voice_distance < 0.3
    assert result.passed == 2
    # the same faces by stricter thresholds, and a clip that comes to be seen now
    parts = set((tmp_path / "screen.parts").glob("*.npz"))
    screen_clips(tmp_path, ScreenSettings(max_pitch_deg=0.01), workers=1)
    assert list(reasons(tmp_path).values()) == ["frontal", "speech", "frontal", "silence", "duplicate"]
    assert set((tmp_path / "screen.parts").glob("*.npz")) == parts
    screen_clips(tmp_path, ScreenSettings(min_speech_share=0.0), workers=1)
    assert list(reasons(tmp_path).values()) == [None, "face", None, "silence", "duplicate"]
    assert len(set((tmp_path / "screen.parts").glob("*.npz")) - parts) == 1  # faces of the clip without one


def test_a_video_that_was_replaced_falls_and_the_others_are_screened(make_video, recipe, tmp_path):
    for name, seed in (("a.mp4", 0), ("b.mp4", 1)):
        make_video(name, every(50), sound=[(0.0, noise(2.0, seed))], draw=drawing(seed))
    folder = recipe([*shots_of("a.mp4", 0.0, 2.0), *shots_of("b.mp4", 0.0, 2.0)])
    write_shots(folder, read_shots(folder), {name: fingerprint(tmp_path / name) for name in ("a.mp4", "b.mp4")})
    make_video("a.mp4", every(60), sound=[(0.0, noise(2.4, 2))], draw=drawing(2))
    result = screen_clips(folder, ScreenSettings(), workers=1)
    assert reasons(folder) == {"a_0000": "unreadable", "b_0000": "speech"}
    assert list(result.problems) == ["a.mp4"]
    assert "is another file now than its shots are of; run again: moodal shots" in result.problems["a.mp4"]
    rows = pq.read_table(folder / "screen.parts" / "ledger.parquet").to_pylist()
    assert [(r["video"], r["status"]) for r in rows if r["status"] != "done"] == [("a.mp4", "failed")]
    assert changed_videos(folder / "clips.parquet", tmp_path, ["a.mp4", "b.mp4"]) == ["a.mp4"]


def test_a_folder_of_videos_that_is_gone_costs_no_clip(make_video, recipe, tmp_path):
    make_video("a.mp4", every(50), sound=[(0.0, noise(2.0, 0))], draw=drawing(0))
    folder = recipe(shots_of("a.mp4", 0.0, 2.0))
    screen_clips(folder, ScreenSettings(), workers=1)
    before = (folder / "clips.parquet").read_bytes()
    write_recipe(folder, tmp_path / "gone")
    with pytest.raises(InputError, match="say where they are now: moodal shots VIDEOS"):
        screen_clips(folder, ScreenSettings(), workers=1)
    assert (folder / "clips.parquet").read_bytes() == before


def test_where_nothing_passed_nobody_is_sent_to_label(make_video, recipe):
    make_video("mute.mp4", every(50), draw=drawing(0))
    folder = recipe(shots_of("mute.mp4", 0.0, 2.0))
    result = screen_clips(folder, ScreenSettings(), workers=1)
    assert result.next_line(folder) == "nothing is left to be labelled"
    assert replace(result, passed=1).next_line(folder) == f"next: moodal annotate {folder}"


@pytest.mark.corpus
@NO_CLIPS
@NO_MODELS
def test_without_the_voice_model_the_command_stops_unless_told_to_do_without(film, tmp_path, monkeypatch):
    videos, shots = film
    write_recipe(tmp_path, videos)
    write_shots(tmp_path, shots[:1])
    (tmp_path / "cache").mkdir()
    if not os.environ.get(CACHE_VARIABLE):
        (tmp_path / "cache" / "face").symlink_to(Path.home() / ".cache" / "moodal" / "face")
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv(VOICE_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"MOODAL_VOICE_MODEL is .*neither a Resemblyzer==0\.1\.4 wheel"):
        screen_clips(tmp_path, ScreenSettings(), workers=1)
    result = screen_clips(tmp_path, replace(ScreenSettings(), voices=False), workers=1)
    assert result.passed == 1
    assert any("voices were not told apart" in n for n in result.notes)


@on_clips
def test_a_long_shot_becomes_a_clip_per_stretch_of_speech(film, tmp_path):
    videos, shots = film
    write_recipe(tmp_path, videos)
    write_shots(tmp_path, shots[:1])
    settings = ScreenSettings(cut="speech", max_s=5.0, pause_s=0.2, voices=False)
    result = screen_clips(tmp_path, settings, workers=1)
    clips = read_clips(tmp_path)
    assert (result.num_shots, result.num_clips) == (1, len(clips))
    assert len(clips) >= 2
    assert all(c.id == f"e_0000-{round(1000 * c.start_s):07d}" for c in clips)
    assert all(a.end_s <= b.start_s + 0.2 for a, b in pairwise(clips))
    assert any(c.passed for c in clips)
    assert all(c.speech_share > 0.8 for c in clips)
