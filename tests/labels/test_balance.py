"""From labels to a balanced set: every clip that is left out says why, and the same seed gives the same bytes."""

import io
import json
from collections import Counter
from dataclasses import replace

import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from moodal.data.clips import Clip, read_clips, write_clips
from moodal.labels.balance import PAPER_MULTIPLE, STAGES, BalanceSettings, balance
from moodal.labels.table import labels_settings, read_labels
from moodal.types import InputError

COLUMNS = ("clip", "condition", "annotator", "label", "intensity", "reason")
PLAIN = BalanceSettings(rule="none", neutral_multiple=None)


def votes(clip, *labels, condition="full", intensity="", reason=""):
    return [(clip, condition, f"p{k}", label, intensity, reason) for k, label in enumerate(labels)]


@pytest.fixture
def many(write_votes):
    """300 neutral clips, 40 happy, 30 sad (half of them strong), 20 angry, two of three people agreeing on sad ones."""
    rows = []
    for k in range(300):
        rows += votes(f"n{k:03d}", "neutral", "neutral")
    for k in range(40):
        rows += votes(f"h{k:02d}", "happy", "happy")
    for k in range(30):
        rows += votes(f"s{k:02d}", "sad", "sad", "neutral", intensity="strong" if k % 2 else "weak")
    for k in range(20):
        rows += votes(f"a{k:02d}", "angry", "angry")
    return write_votes(rows, COLUMNS)


def run(source, tmp_path, settings):
    made = balance(source, settings, target=tmp_path / "labels.parquet")
    return made, {r.clip: r for r in read_labels(made.path)}


def test_every_clip_says_where_and_why_it_was_left_out(write_votes, tmp_path):
    rows = [
        *votes("good", "happy", "happy"),
        *votes("good2", "sad", "sad"),
        *votes("alone", "happy"),
        *votes("tie", "happy", "sad"),
        *votes("mixed", "compound", "compound"),
        *votes("broken", "invalid", "invalid", reason="two faces"),
        *votes("unseen", "happy", "happy", condition="audio"),
    ]
    made, found = run(write_votes(rows, COLUMNS), tmp_path, PLAIN)
    assert {c for c, r in found.items() if r.kept} == {"good", "good2"}
    assert {c: (r.stage, r.why) for c, r in found.items() if not r.kept} == {
        "alone": ("votes", "it has 1 vote and needs 2"),
        "tie": ("majority", "no label has most of its 2 votes"),
        "mixed": ("compound", "most people saw more than one emotion"),
        "broken": ("invalid", "most people called it invalid: two faces"),
        "unseen": ("votes", "nobody labelled the full clip"),
    }
    assert found["unseen"].label_audio == "happy"
    assert made.clips - sum(made.funnel.values()) == made.kept == 2
    assert tuple(made.funnel) == STAGES


@pytest.mark.parametrize(
    ("rule", "kept"),
    [("none", 30), ("confidence", 0), ("intensity", 15), ("either", 15), ("both", 0)],
)
def test_what_is_not_sure_enough_goes_and_neutral_needs_no_intensity(many, tmp_path, rule, kept):
    made, found = run(many, tmp_path, BalanceSettings(rule=rule, neutral_multiple=None))
    assert made.classes["sad"]["kept"] == kept
    assert made.classes["neutral"]["kept"] == 300
    if rule == "either":
        assert found["s00"].stage == "confidence"
        assert found["s00"].why == "it is not strong, and its label has 67% of its votes, less than 75%"
        assert found["s01"].kept


def test_only_the_largest_classes_stay(many, tmp_path):
    made, found = run(many, tmp_path, replace(PLAIN, num_classes=3))
    assert {c: n["kept"] for c, n in made.classes.items()} == {"neutral": 300, "happy": 40, "sad": 30, "angry": 0}
    assert (found["a00"].stage, found["a00"].why) == ("classes", "its class is none of the 3 largest")
    assert found["a00"].label == "angry"


def test_neutral_is_cut_to_the_papers_share_of_the_largest_other_class(many, tmp_path):
    made, found = run(many, tmp_path, BalanceSettings(rule="none"))
    assert made.classes["neutral"] == {"labelled": 300, "sure": 300, "kept": 24, "cap": 24}
    assert round(1312 * PAPER_MULTIPLE) == 795
    left = next(r for r in found.values() if r.stage == "cap")
    assert left.why == "neutral was cut from 300 to 24 clips, and it was not drawn"
    made, _ = run(many, tmp_path, BalanceSettings(rule="none", neutral_multiple=2.0))
    assert made.classes["neutral"]["kept"] == 80
    made, _ = run(many, tmp_path, BalanceSettings(rule="none", caps={"neutral": 7, "happy": 10}))
    assert [made.classes[c]["kept"] for c in ("neutral", "happy", "sad")] == [7, 10, 30]


def test_the_same_seed_gives_the_same_bytes_and_another_one_other_clips(many, tmp_path):
    settings = BalanceSettings(rule="none")
    first = balance(many, settings, target=tmp_path / "1.parquet").path.read_bytes()
    assert balance(many, settings, target=tmp_path / "2.parquet").path.read_bytes() == first
    other = balance(many, replace(settings, seed=1), target=tmp_path / "3.parquet").path
    kept = [{r.clip for r in read_labels(p) if r.kept} for p in (tmp_path / "1.parquet", other)]
    assert len(kept[0]) == len(kept[1])
    assert kept[0] != kept[1]


def test_the_order_of_the_votes_decides_nothing(many, tmp_path):
    first = run(many, tmp_path, BalanceSettings(rule="none"))[1]
    head, *rows = many.read_text().splitlines()
    many.write_text("\n".join([head, *reversed(rows)]))
    assert run(many, tmp_path, BalanceSettings(rule="none"))[1] == first


def test_what_is_drawn_is_spread_over_the_episodes(make_recipe):
    folder = make_recipe(episodes=4, clips=9)
    made = balance(folder, BalanceSettings(caps={"happy": 8, "sad": 2}))
    kept = [r for r in read_labels(folder) if r.kept]
    assert set(Counter(r.group for r in kept if r.label == "happy").values()) == {2}
    assert set(Counter(r.group for r in kept if r.label == "sad").values()) == {1}
    assert made.groups == 4


def test_a_recipe_folder_has_a_row_for_every_clip_in_order_also_for_those_that_were_screened_out(make_recipe):
    folder = make_recipe()
    clips = read_clips(folder)
    clips[0] = replace(clips[0], passed=False, reason="face", detail="two faces in .9 of its time")
    unseen = Clip("episode9_0000", "episode9.wav", "episode9", 0.0, 1.0, passed=True)
    write_clips(folder, [*clips, unseen])
    made = balance(folder)
    rows = read_labels(folder)
    assert [r.clip for r in rows] == [c.id for c in (*clips, unseen)]
    assert (rows[0].stage, rows[0].why, rows[0].kept) == ("screening", "two faces in .9 of its time", False)
    assert (rows[-1].stage, rows[-1].why, rows[-1].group) == ("votes", "nobody labelled it", "episode9")
    assert (rows[1].label, rows[1].label_audio, rows[1].intensity, rows[1].kept) == ("sad", "neutral", "strong", True)
    assert made.path == folder / "labels.parquet"
    assert made.kept == len(clips) - 1


def test_the_file_says_how_it_was_made(make_recipe):
    folder = make_recipe()
    balance(folder, BalanceSettings(seed=3))
    assert labels_settings(folder)["settings"]["seed"] == 3
    assert len(labels_settings(folder)["votes_sha256"]) == 64


def test_the_result_is_json_and_lines(many, tmp_path):
    made, _ = run(many, tmp_path, BalanceSettings(rule="none"))
    said = json.loads(json.dumps(made.as_dict(), allow_nan=False))
    assert said["funnel"]["cap"] == {"left_out": 276, "left": 114}
    lines = "\n".join(made.lines())
    for part in ("cap", "276", "neutral", "114 of 390 clips"):
        assert part in lines


def test_too_few_classes_are_noted(many, tmp_path):
    made, _ = run(many, tmp_path, BalanceSettings(rule="none", num_classes=9))
    assert made.notes == ("only 4 classes are left, and 9 were asked for",)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"caps": {"hapy": 3}}, "no class called 'hapy'; did you mean 'happy'"),
        ({"rule": "sometimes"}, "no rule called 'sometimes'"),
        ({"num_classes": 1}, "two classes or more"),
        ({"confident": 75}, "between 0 and 1, got 75"),
        ({"caps": {"happy": 0}}, "the cap of happy must be at least 1"),
        ({"neutral_multiple": float("nan")}, "neutral_multiple must be above 0"),
        ({"seed": -1}, "seed must be 0 or more"),
    ],
)
def test_settings_that_mean_nothing_are_refused(many, tmp_path, settings, sentence):
    with pytest.raises(InputError, match=sentence):
        run(many, tmp_path, BalanceSettings(**settings))


def test_what_cannot_be_balanced_is_refused(write_votes, make_recipe, tmp_path):
    with pytest.raises(InputError, match="no votes on the full clips"):
        run(write_votes(votes("a", "sad", "sad", condition="audio"), COLUMNS), tmp_path, PLAIN)
    with pytest.raises(InputError, match="no vote says an intensity"):
        run(write_votes(votes("a", "sad", "sad"), COLUMNS), tmp_path, BalanceSettings(rule="both"))
    with pytest.raises(InputError, match="say which file the labels go to with --out"):
        balance(write_votes(votes("a", "sad", "sad"), COLUMNS))
    folder = make_recipe()
    write_clips(folder, read_clips(folder)[1:])
    with pytest.raises(InputError, match=r"votes for 'episode0_0000', and clips\.parquet has no such clip"):
        balance(folder)


def test_labels_that_are_not_there_or_not_ours_are_refused(tmp_path):
    with pytest.raises(InputError, match="run: moodal balance"):
        read_labels(tmp_path)
    (tmp_path / "labels.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match="cannot be read as a Parquet table"):
        read_labels(tmp_path)


def test_labels_never_take_the_place_of_the_votes(make_recipe):
    folder = make_recipe()
    before = (folder / "votes.csv").read_bytes()
    with pytest.raises(InputError, match=r"give it a name that ends in \.parquet"):
        balance(folder, target=folder / "votes.csv")
    (folder / "votes.csv").unlink()
    pq.write_table(pyarrow.csv.read_csv(io.BytesIO(before)), folder / "votes.parquet")
    with pytest.raises(InputError, match="holds the votes"):
        balance(folder, target=folder / "votes.parquet")


def test_a_source_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist"):
        balance(tmp_path / "nowhere")
