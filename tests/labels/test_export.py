"""A balanced recipe folder becomes a data set that training takes: whole episodes in a split, intensities included."""

import numpy as np
import pytest
import soundfile

from moodal.data.clips import read_clips, write_clips
from moodal.data.store import read_dataset
from moodal.data.table import read_columns
from moodal.files import fingerprint
from moodal.labels.balance import BalanceSettings, balance
from moodal.labels.export import ExportOptions, export_dataset
from moodal.types import InputError

SOUND = {"audio": "audio33"}


@pytest.fixture
def recipe(make_recipe):
    folder = make_recipe(episodes=3, clips=6)
    balance(folder, BalanceSettings(caps={"sad": 4}))
    return folder


@pytest.fixture(scope="module")
def exported(build_recipe, tmp_path_factory):
    """What was made, where, and from which folder."""
    base = tmp_path_factory.mktemp("export")
    folder = build_recipe(base)
    balance(folder, BalanceSettings(caps={"sad": 4}))
    return export_dataset(folder, base / "data", ExportOptions(SOUND, workers=1)), base / "data", folder


def test_kept_clips_become_utterances_with_all_that_is_known_of_them(exported):
    made, target, recipe = exported
    data = read_dataset(target)
    clips = {c.id: c for c in read_clips(recipe)}
    assert made.classes == {"happy": 6, "sad": 4, "angry": 6}
    assert data.task.classes == ("happy", "sad", "angry")
    assert len(data.utterances) == made.utterances == 16
    for u in data.utterances:
        clip = clips[u.id]
        assert (u.video, u.start_s, u.end_s, u.text) == (clip.video, clip.start_s, clip.end_s, clip.text)
        assert (u.group, u.intensity) == (clip.episode, "strong")
    assert data.batch.inputs["audio"].lengths.min() > 0


def test_no_episode_is_in_two_splits(exported):
    split_of = {}
    for u in read_dataset(exported[1]).utterances:
        assert split_of.setdefault(u.group, u.split) == u.split
    assert set(split_of.values()) == {"train", "valid", "test"}


def test_a_label_that_is_no_class_is_left_empty_and_said(exported):
    made, target, _ = exported
    own = {u.id: u.modality_labels.get("audio") for u in read_dataset(target).utterances}
    assert own["episode0_0000"] == "happy"
    assert own["episode0_0003"] is None  # its sound alone is called neutral
    assert any("labels of audio alone that are none of the classes" in note for note in made.notes)


def test_again_changes_nothing(exported):
    _, target, recipe = exported
    before = {p.name: p.read_bytes() for p in target.rglob("*") if p.is_file()}
    export_dataset(recipe, target, ExportOptions(SOUND, workers=1))
    assert {p.name: p.read_bytes() for p in target.rglob("*") if p.is_file()} == before


def test_the_data_set_of_another_folder_is_not_replaced(recipe, exported):
    with pytest.raises(InputError, match="exists already; choose another folder, or say --overwrite"):
        export_dataset(recipe, exported[1], ExportOptions(SOUND))


def test_a_lost_video_costs_its_own_clips_until_it_is_back_and_another_balance_takes_over(recipe, tmp_path):
    video, options = tmp_path / "videos" / "episode1.wav", ExportOptions(SOUND, workers=1, num_folds=2)
    sound = video.read_bytes()
    video.write_bytes(b"no sound")
    made = export_dataset(recipe, tmp_path / "data", options)
    assert not made.extraction.is_whole
    assert any("could not be read" in line for line in made.lines())
    data = read_dataset(tmp_path / "data")
    assert {u.group for u in data.utterances} == {"episode0", "episode2"}
    assert data.num_folds == 2
    assert all(u.split is None for u in data.utterances)
    video.write_bytes(sound)
    balance(recipe, BalanceSettings())
    export_dataset(recipe, tmp_path / "data", options)
    assert len(read_dataset(tmp_path / "data").utterances) == 18


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
def test_the_labels_alone_are_a_table(recipe, tmp_path, ending):
    file = tmp_path / f"labels{ending}"
    made = export_dataset(recipe, None, ExportOptions(labels_only=file))
    table = read_columns(file)
    assert list(table) == ["id", "video", "start_s", "end_s", "text", "label", "label_audio", "intensity", "group"]
    assert len(table["id"]) == made.utterances == 16
    assert made.extraction is None
    assert "16 utterances of 3 episodes" in made.lines()[0]


def test_too_few_episodes_are_refused_with_the_way_out(make_recipe, tmp_path):
    folder = make_recipe(episodes=2)
    balance(folder)
    with pytest.raises(InputError, match="the clips are of 2; ask for --folds 2"):
        export_dataset(folder, tmp_path / "data", ExportOptions(SOUND))
    with pytest.raises(InputError, match="there can be 2 to 2 folds"):
        export_dataset(folder, tmp_path / "data", ExportOptions(SOUND, num_folds=5))
    assert not (folder / "utterances.parquet").exists()
    one = make_recipe(episodes=1, name="one")
    balance(one)
    with pytest.raises(InputError, match="all clips are of one episode"):
        export_dataset(one, tmp_path / "data", ExportOptions(SOUND))


def test_what_cannot_be_exported_is_refused(recipe, tmp_path):
    with pytest.raises(InputError, match="say which data set folder"):
        export_dataset(recipe, None, ExportOptions(SOUND))
    with pytest.raises(InputError, match="a table ends in"):
        export_dataset(recipe, None, ExportOptions(labels_only=tmp_path / "labels.xlsx"))
    write_clips(recipe, read_clips(recipe)[6:])
    with pytest.raises(InputError, match=r"names 'episode0_0000', which clips\.parquet has not"):
        export_dataset(recipe, tmp_path / "data", ExportOptions(SOUND))
    (recipe / "labels.parquet").unlink()
    with pytest.raises(InputError, match="run: moodal balance"):
        export_dataset(recipe, tmp_path / "data", ExportOptions(SOUND))


def test_overwriting_spares_what_the_data_set_is_made_of(recipe):
    options = ExportOptions(SOUND, overwrite=True, workers=1)
    for target, what in (
        (recipe, "the recipe"),
        (recipe.parent, "the recipe"),
        (recipe.parent / "videos", "its videos"),
    ):
        with pytest.raises(InputError, match=f"holds {what}; choose another folder"):
            export_dataset(recipe, target, options)
    assert (recipe / "clips.parquet").is_file()
    assert len(list((recipe.parent / "videos").iterdir())) == 3


def test_a_video_that_was_replaced_after_the_screening_is_not_cut_where_the_old_one_was(recipe, tmp_path):
    videos = recipe.parent / "videos"
    prints = {p.name: fingerprint(p) for p in videos.iterdir()}
    write_clips(recipe, read_clips(recipe), prints)
    noise = np.random.default_rng(9).standard_normal(40_000).astype(np.float32)
    soundfile.write(videos / "episode1.wav", 0.1 * noise, 22_050)
    with pytest.raises(InputError, match=r"episode1\.wav is another file now than the one that was screened"):
        export_dataset(recipe, tmp_path / "data", ExportOptions(SOUND, workers=1))
    assert export_dataset(recipe, None, ExportOptions(labels_only=tmp_path / "l.csv")).utterances == 16


def test_videos_that_were_moved_are_asked_for(recipe, tmp_path):
    (recipe.parent / "videos").rename(recipe.parent / "moved")
    with pytest.raises(InputError, match="which is no folder; bring it back, or say where they are now: moodal shots"):
        export_dataset(recipe, tmp_path / "data", ExportOptions(SOUND, workers=1))
