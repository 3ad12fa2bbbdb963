"""The statistics of a data set: the simulated SDME has the paper's Table 2, and the page holds all it shows."""

import csv
import json
import math
import os
import re
from pathlib import Path

import pytest
from matplotlib.image import imread

from moodal.data.simulate import TABLE, simulate_sdme
from moodal.labels.balance import balance
from moodal.labels.labelled import read_labelled
from moodal.labels.statistics import StatisticsOptions, label_statistics, statistics_of
from moodal.types import InputError

DATA = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
QUICK = StatisticsOptions(samples=50)


@pytest.fixture(scope="module")
def sdme(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdme")
    simulate_sdme(folder / "data")
    return label_statistics(folder / "data", folder / "page", QUICK), folder / "page"


def test_the_simulated_sdme_has_the_papers_table(sdme):
    found = {r.name: (r.full, r.agree["vision"], r.agree["audio"]) for r in sdme[0].rows}
    assert found == TABLE
    whole = sdme[0].all_row
    assert (whole.full, whole.agree["vision"], whole.agree["audio"]) == (3667, 3382, 2492)


def test_rates_without_neutral_are_those_of_the_table(sdme):
    emotional = [row for name, row in TABLE.items() if name != "neutral"]
    for m, k in (("vision", 1), ("audio", 2)):
        assert sdme[0].rates[m] == pytest.approx(sum(r[k] for r in emotional) / sum(r[0] for r in emotional))
        assert sdme[0].mean_rates[m] == pytest.approx(sum(r[k] / r[0] for r in emotional) / 4)
    assert sdme[0].rates["vision"] == pytest.approx(0.9022, abs=5e-5)
    assert sdme[0].rates["audio"] == pytest.approx(0.5912, abs=5e-5)


def test_counts_and_confusions_fit_together(sdme):
    s = sdme[0]
    assert s.classes == s.labels == ("neutral", "happy", "sad", "angry", "anxious")
    for m in s.modalities:
        assert [sum(row) for row in s.confusion[m]] == [r.full for r in s.rows]
        assert [row[k] for k, row in enumerate(s.confusion[m])] == [r.agree[m] for r in s.rows]
        assert [sum(row[k] for row in s.confusion[m]) for k in range(5)] == [s.counts[c][m] for c in s.labels]
    assert [s.counts[c]["full"] for c in s.labels] == [r.full for r in s.rows]


def test_facts_are_those_of_the_data(sdme):
    facts = {f.name: f.value for f in sdme[0].facts}
    assert facts["clips"] == 3667
    assert facts["groups"] == 306
    assert facts["mean_duration_s"] == pytest.approx(3.36, abs=0.05)
    assert facts["share_under_5_s"] > 0.9
    assert "annotators" not in facts  # nobody labelled it, and no row says so
    assert "final_consistency" not in facts


def test_tables_figure_and_page_are_there(sdme):
    s, page = sdme
    assert sorted(p.name for p in page.iterdir()) == [
        "figure4.png", "figure4.svg", "statistics.html", "statistics.json", "table1.csv", "table2.csv",
    ]  # fmt: skip
    rows = list(csv.reader((page / "table2.csv").read_text(encoding="utf-8").splitlines()))
    assert rows[0][:3] == ["class", "full", "vision agrees"]
    assert rows[2][:4] == ["happy", "705", "697", "153"]
    said = json.loads((page / "statistics.json").read_text(encoding="utf-8"))
    assert said["table1"]["clips"] == 3667
    assert said["table2"][-1]["agree"]["audio"] == 2492
    assert str(page) not in (page / "statistics.json").read_text(encoding="utf-8")
    assert imread(page / "figure4.png").shape[1] == 1725
    assert any("page:" in line for line in s.lines())


def test_the_page_loads_nothing_and_runs_nothing(sdme):
    html = (sdme[1] / "statistics.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in html
    assert "<script" not in html
    assert not re.search(r"(?:src|href)=\"(?!data:)", html)
    for part in ("1,137", "86.66 %", "90.22 % of vision labels", "SDME simulated"):
        assert part in html


def test_the_same_data_give_the_same_files(sdme, tmp_path):
    source = sdme[1].parent / "data"
    label_statistics(source, tmp_path / "again", QUICK)
    for file in sdme[1].iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_of_votes_only_clips_with_one_winner_count(write_votes):
    said = {"a": ("sad", "sad", "sad"), "b": ("happy", "happy", "sad"), "c": ("happy", None, "happy"), "d": (None,) * 3}
    rows = []
    for clip, (full, audio, vision) in said.items():
        for shown, label in (("full", full), ("audio", audio), ("vision", vision)):
            pair = (label, label) if label else ("happy", "sad")
            rows += [(clip, shown, person, x) for person, x in zip(("anna", "ben"), pair, strict=True)]
    s = statistics_of(read_labelled(write_votes(rows)), QUICK)
    found = {r.name: (r.full, r.known["audio"], r.agree["audio"], r.agree["vision"]) for r in s.rows}
    assert found == {"happy": (2, 1, 1, 1), "sad": (1, 1, 1, 1)}
    facts = {f.name: f.value for f in s.facts}
    assert (facts["clips"], facts["annotators"], facts["votes"]) == (3, 2, 24)
    assert facts["final_consistency"] == pytest.approx(8 / 12)
    assert s.durations_s is None


def test_a_balanced_recipe_folder_shows_what_was_kept(make_recipe, tmp_path):
    folder = make_recipe(episodes=3, clips=6)
    balance(folder)
    s = label_statistics(folder, tmp_path / "page", QUICK)
    facts = {f.name: f.value for f in s.facts}
    assert (facts["clips"], facts["groups"], facts["annotators"]) == (18, 3, 2)
    assert facts["mean_duration_s"] == pytest.approx(0.3, abs=1e-6)
    assert s.classes == ("happy", "sad", "angry")
    assert s.labels == ("happy", "sad", "angry", "neutral")  # what the sound alone is called is no class here
    assert {r.name: r.agree["audio"] for r in s.rows} == {"happy": 3, "sad": 3, "angry": 3}
    assert s.counts["neutral"] == {"full": 0, "audio": 9}
    html = (tmp_path / "page" / "statistics.html").read_text(encoding="utf-8")
    assert "How far people agree" in html


def test_without_single_modalities_there_is_still_a_page(write_votes, tmp_path):
    path = write_votes([("a", "full", p, "sad") for p in "xy"])
    s = label_statistics(path, tmp_path / "page", QUICK)
    assert s.modalities == ()
    assert "Nobody labelled a modality alone" in (tmp_path / "page" / "statistics.html").read_text(encoding="utf-8")
    json.dumps(s.as_dict(), allow_nan=False)


def test_names_cannot_break_out_of_the_page(write_votes, tmp_path):
    evil = "<script>alert(1)</script>$x$"
    rows = [
        (clip, shown, p, label)
        for clip, label in (("a", evil), ("b", "b"))
        for shown in ("full", "audio")
        for p in "xy"
    ]
    label_statistics(write_votes(rows), tmp_path / "page", QUICK)
    html = (tmp_path / "page" / "statistics.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_what_has_no_classes_or_no_full_labels_is_refused(write_votes, make_recipe, tmp_path):
    with pytest.raises(InputError, match="no votes on the full clips"):
        label_statistics(write_votes([("a", "audio", "x", "sad")]), tmp_path / "page")
    with pytest.raises(InputError, match="on no full clip has one label most votes"):
        label_statistics(write_votes([("a", "full", p, label) for p, label in ("xa", "yb")]), tmp_path / "page")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; name a folder"):
        label_statistics(write_votes([("a", "full", "x", "sad")]), tmp_path / "file")


@pytest.mark.corpus
def test_crema_d_as_a_page(tmp_path):
    path = DATA / "crema_d" / "tabulatedVotes.csv.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not there; set MOODAL_DATA")
    s = statistics_of(read_labelled(path), QUICK)
    assert s.all_row.full == 7022
    assert (s.all_row.agree["vision"], s.all_row.agree["audio"]) == (5346, 3775)
    assert s.rates["audio"] == pytest.approx(0.4436, abs=5e-5)
    assert not math.isnan(s.rates["vision"])
