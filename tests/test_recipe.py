"""From raw episodes to a trained model, one command after the other, on real faces and voices.

Four people label: one in a real browser, by keys, the others as scripts over the HTTP API. Each judges a clip by the
one thing that sound, silent pictures and the full clip have in common: its length.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pyarrow.parquet as pq
import pytest
from tests.screening.joined import joined

DATA = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
CLIPS = DATA / "clips"
FACES = ("WDA_KatieHill_000", "d11", "Pose_Source-00473", "Audio_Source-00086")  # each looks ahead and speaks
SHORT_S, LONG_S = 1.6, 2.0
PASSWORD = "correct horse battery"  # noqa: S105
PEOPLE = ("Ada", "Ben", "Cleo", "Dan")
CHROMIUM = os.environ.get("MOODAL_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not CLIPS.is_dir(), reason=f"no real clips in {CLIPS}; set MOODAL_DATA"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; name one in MOODAL_CHROMIUM"),
]


@pytest.fixture(scope="module")
def episodes(tmp_path_factory) -> SimpleNamespace:
    """Two episodes of one name and one that is broken; each good one has short and long stretches, none twice."""
    root = tmp_path_factory.mktemp("raw") / "Folgen"
    stretches = [(CLIPS / f"{FACES[0]}.mp4", s, s + LONG_S if k % 2 else s + SHORT_S) for k, s in enumerate((0, 2, 4))]
    stretches += [(CLIPS / f"{FACES[1]}.mp4", s, s + SHORT_S if k % 2 else s + LONG_S) for k, s in enumerate((0, 3, 6))]
    stretches += [(CLIPS / f"{FACES[2]}.mp4", s, s + LONG_S if k % 2 else s + SHORT_S) for k, s in enumerate((0, 2, 4))]
    stretches += [(CLIPS / f"{FACES[3]}.mp4", s, s + SHORT_S if k % 2 else s + LONG_S) for k, s in enumerate((0, 2.5))]
    cuts = {}
    for number, name in enumerate(("eins", "zwei", "drei")):
        (root / name).mkdir(parents=True)
        cuts[f"{name}/ep.mp4"] = joined(stretches[number::3], root / name / "ep.mp4", size=(240, 240))
    (root / "broken.mp4").write_bytes(b"not a video")
    return SimpleNamespace(root=root, cuts=cuts)


@pytest.fixture(scope="module")
def ran(episodes, tmp_path_factory) -> SimpleNamespace:
    """Every command of the recipe, in order, as a user types it."""
    work = tmp_path_factory.mktemp("recipe")
    folder, data, runs = work / "recipe", work / "data", work / "runs"

    def moodal(*words: object, code: int = 0) -> dict:
        done = subprocess.run(
            [sys.executable, "-m", "moodal", *map(str, words), "--json"],
            capture_output=True, text=True, timeout=300, check=False, cwd=work,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    found = SimpleNamespace(folder=folder, data=data)
    found.shots = moodal("shots", episodes.root, folder, code=1)  # one file is broken, and said to be
    found.screen = moodal("screen", folder, "--set", "max_voice_distance=0.6")
    with serving(folder, work) as address:
        label_everything(address, lambda *words: moodal("annotate", folder, *words, "--address", address)["link"])
    found.agreement = moodal("agreement", folder)
    found.balance = moodal("balance", folder, "--set", "num_classes=2", "--set", "neutral_multiple=none")
    found.statistics = moodal("statistics", folder)
    found.export = moodal("export", folder, data, "--folds", 3, "--text", "none")
    found.train = moodal("train", data, "--model", "lda", "--seeds", 1, "--out", runs)
    return found


@contextmanager
def serving(folder: Path, work: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "moodal", "annotate", str(folder), "--port", "0", "--json"]
    with (work / "server.txt").open("w+") as said:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, cwd=work)
        assert server.stdout
        line = server.stdout.readline()
        try:
            assert line, (work / "server.txt").read_text()
            yield json.loads(line)["address"]
        finally:
            server.terminate()
            server.communicate(timeout=30)


def label_everything(address: str, invite) -> None:
    from playwright.sync_api import sync_playwright

    with ExitStack() as stack:
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(30_000)
        page.goto(invite("--invite", PEOPLE[0]))
        page.fill("input[name=password]", PASSWORD)
        page.fill("input[name=again]", PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: "invitation" not in url)
        scripts = [stack.enter_context(script(address, invite("--invite", name), name)) for name in PEOPLE[1:]]
        while any([by_keys(page, address), *[by_script(client) for client in scripts]]):
            pass
        browser.close()


@contextmanager
def script(address: str, link: str, name: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=30) as client:
        form = client.get(link)
        fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form.text))
        client.post(link, data={**fields, "password": PASSWORD, "again": PASSWORD}, headers={"Origin": address})
        client.cookies.clear()  # from here on with the token alone
        said = client.post("/api/sign-in", json={"name": name, "password": PASSWORD}).raise_for_status().json()
        client.headers["Authorization"] = f"Bearer {said['token']}"
        yield client


def by_script(client: httpx.Client) -> bool:
    """Label what is there; whether there was anything."""
    said = client.get("/api/next").raise_for_status().json()
    if said["state"] != "clip":
        return False
    clip = said["assignment"]
    is_long = clip["duration_s"] > (SHORT_S + LONG_S) / 2
    answer = {"label": "happy", "intensity": "strong"} if is_long else {"label": "neutral"}
    client.post("/api/answer", json={"assignment": clip["id"], "seconds": 2.0, **answer}).raise_for_status()
    return True


def by_keys(page, address: str) -> bool:
    page.goto(f"{address}/label")
    if not page.locator("#player").count():
        return False
    page.wait_for_function("document.getElementById('player').duration > 0")
    is_long = page.evaluate("document.getElementById('player').duration") > (SHORT_S + LONG_S) / 2
    before = page.locator("input[name=assignment]").first.get_attribute("value")
    for key in ("2", "s", "Enter") if is_long else ("1", "Enter"):
        page.keyboard.press(key)
    page.wait_for_function(
        "b => document.querySelector('input[name=assignment]')?.value !== b && document.readyState === 'complete'",
        arg=before,
    )
    return True


def test_shots_are_the_joined_stretches_to_the_picture(ran, episodes):
    shots = pq.read_table(ran.folder / "shots.parquet").to_pylist()
    starts = {v: [s["first_frame"] for s in shots if s["video"] == v and s["number"]] for v in episodes.cuts}
    assert starts == {v: [c.frame for c in cuts] for v, cuts in episodes.cuts.items()}
    assert ran.shots["failed"] == 1
    assert "broken.mp4" in ran.shots["problems"][0]["video"]


def test_clips_of_speaking_faces_pass(ran):
    assert ran.screen["num_shots"] == ran.screen["num_clips"] == 11
    assert ran.screen["passed"] >= 9, ran.screen["reasons"]
    assert (ran.folder / "screening.html").is_file()


def test_everything_that_passed_has_two_labels_of_each_kind_and_no_person_met_a_clip_twice_before_the_full_pass(ran):
    votes = pq.read_table(ran.folder / "votes.parquet").to_pylist()
    assert len(votes) == 2 * 3 * ran.screen["passed"]
    assert len({(v["clip"], v["condition"], v["annotator"]) for v in votes}) == len(votes)
    single = [(v["clip"], v["annotator"]) for v in votes if v["condition"] != "full"]
    assert len(set(single)) == len(single)
    assert {v["annotator"] for v in votes} == set(PEOPLE)


def test_people_who_judge_alike_agree_in_every_condition(ran):
    assert [c["condition"] for c in ran.agreement["conditions"]] == ["audio", "vision", "full"]
    assert all(c["percent"]["value"] == 1.0 for c in ran.agreement["conditions"])
    assert ran.agreement["consistency"]["share"]["value"] == 1.0


def test_the_data_set_has_what_people_said_of_each_modality_and_keeps_episodes_whole(ran):
    rows = pq.read_table(ran.data / "utterances.parquet").to_pylist()
    assert len(rows) == ran.balance["kept"] == ran.export["utterances"]
    for row in rows:
        said = "happy" if row["end_s"] - row["start_s"] > (SHORT_S + LONG_S) / 2 else "neutral"
        assert row["label"] == row["label_audio"] == row["label_vision"] == said
        assert row["intensity"] == ("strong" if said == "happy" else None)
        assert row["group"] == row["video"].removesuffix(".mp4")
    assert len({(row["group"], row["fold"]) for row in rows}) == 3
    assert {row["group"] for row in rows} == {"eins/ep", "zwei/ep", "drei/ep"}


def test_a_model_is_trained_and_tested_on_every_fold(ran):
    assert len(ran.train["runs"]) == 3
    assert all((ran.data.parent / run["path"] / "report.json").is_file() for run in ran.train["runs"])


def test_the_page_of_statistics_counts_what_was_kept(ran):
    assert (ran.folder / "statistics" / "statistics.html").is_file()
    assert str(ran.statistics).count("happy")
