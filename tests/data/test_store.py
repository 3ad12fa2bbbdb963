"""The data set folder: what goes in comes out, and what is not whole, not listed or not honest is refused."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from moodal.data.store import (
    COLUMNS,
    ROWS_PER_GROUP,
    FeatureSpec,
    check_utterances,
    new_dataset,
    read_dataset,
    read_info,
    read_utterances,
    shared_groups,
)
from moodal.types import InputError, Task, Utterance

TASK = Task(("no", "yes"), -1.0, 1.0)
U = Utterance(
    id="v1_0",
    video="v1",
    start_s=0.5,
    end_s=2.25,
    speaker="Zoë",
    text="so, “yes”\n",
    label="yes",
    score=0.2,
    modality_labels={"text": "no", "vision": "yes"},
    modality_scores={"audio": -1.0},
    split="train",
    group="v1",
)
UTTERANCES = [U, replace(U, id="b", split="valid", group="v2"), Utterance("a", label="no", fold=None, split="test")]


def names_in(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def write(tmp_path):
    """A data set of text (2 features) in ``tmp_path/set``; ``clips`` default to one step per utterance."""

    def run(utterances=UTTERANCES, clips=None, *, ids=None, task=TASK, shards=None, name="set"):
        with new_dataset(tmp_path / name) as out:
            ids = [u.id for u in utterances] if ids is None else ids
            clips = [np.full((1, 2), i) for i in range(len(ids))] if clips is None else clips
            spec = FeatureSpec("made", "1", "text", 2)
            for k, part in enumerate(shards or [slice(None)]):
                out.write_features(spec, ids[part], clips[part], file=f"part-{k}.parquet")
            out.finish(utterances, task, name="made up", licence="CC0-1.0", notes=["by hand"], extra={"protocol": 7})
        return tmp_path / name

    return run


@pytest.fixture
def edit():
    """Changes dataset.json by a function of its content."""

    def run(folder, change):
        info = json.loads((folder / "dataset.json").read_text())
        change(info)
        (folder / "dataset.json").write_text(json.dumps(info))

    return run


# What goes in comes out


def test_utterances_come_back_field_by_field(write):
    assert list(read_utterances(write())) == UTTERANCES


def test_intensities_come_back_and_without_them_the_table_has_the_columns_it_always_had(write):
    told = [replace(U, intensity="strong"), replace(U, id="b")]
    folder = write(told)
    assert list(read_utterances(folder)) == told
    assert pq.read_schema(folder / "utterances.parquet").names == [*COLUMNS.names, "intensity"]
    assert pq.read_schema(write(name="without") / "utterances.parquet").names == COLUMNS.names


def test_features_come_back_bit_by_bit(write):
    rng = np.random.default_rng(0)
    num = 2 * ROWS_PER_GROUP + 3
    utterances = [Utterance(f"u{i}", label=TASK.classes[i % 2]) for i in range(num)]
    clips = [rng.normal(size=(rng.integers(0, 5), 2)).astype(np.float32) for _ in range(num)]
    clips[1] = None
    x = read_dataset(write(utterances, clips)).batch.inputs["text"]
    assert x.lengths.tolist() == [0 if c is None else len(c) for c in clips]
    assert torch.equal(x.values, torch.from_numpy(np.concatenate([c for c in clips if c is not None])))


def test_clips_may_come_one_by_one(write):
    generated = (np.full((1, 2), i) for i in range(3))
    assert read_dataset(write(clips=[*generated])).batch.inputs["text"].values[:, 0].tolist() == [0, 1, 2]


def test_rows_in_another_order_find_their_utterance(write):
    data = read_dataset(write(ids=["a", "v1_0", "b"], clips=[np.full((n, 2), n) for n in (1, 2, 3)]))
    assert list(data.batch.ids) == ["v1_0", "b", "a"]
    assert data.batch.inputs["text"].lengths.tolist() == [2, 3, 1]
    assert data.batch.inputs["text"].values[:, 0].tolist() == [2, 2, 3, 3, 3, 1]


def test_an_utterance_without_a_row_lacks_the_modality(write):
    x = read_dataset(write(ids=["a", "v1_0"])).batch.inputs["text"]
    assert x.lengths.tolist() == [1, 0, 1]
    assert x.values[:, 0].tolist() == [1, 0]


def test_several_shards_are_one_modality(write):
    data = read_dataset(write(shards=[slice(0, 2), slice(2, 3)]))
    assert data.batch.inputs["text"].values[:, 0].tolist() == [0, 1, 2]


def test_labels_become_numbers_and_none_becomes_none(write):
    some = [U, replace(U, id="b", label=None, score=None, modality_labels={}), replace(U, id="c", label="no")]
    data = read_dataset(write(some))
    assert data.batch.labels.tolist() == [1, -1, 0]
    assert {m: y.tolist() for m, y in data.batch.modality_labels.items()} == {"text": [0, -1, 0], "vision": [1, -1, 1]}
    assert data.index().tolist() == [0, 2]
    assert data.index(split="train", label="no").tolist() == [2]


def test_groups_are_numbers_where_every_utterance_has_one(write):
    named = [replace(u, group=g) for u, g in zip(UTTERANCES, "xyx", strict=True)]
    assert read_dataset(write(named)).batch.groups.tolist() == [0, 1, 0]
    assert read_dataset(write(name="other")).batch.groups is None  # the third has none


def test_folds_are_counted(write):
    assert read_dataset(write()).num_folds == 0
    folded = [replace(u, split=None, fold=i) for i, u in enumerate(UTTERANCES)]
    assert read_dataset(write(folded, name="folded")).num_folds == 3


def test_pandas_reads_it_without_us(write):
    folder = write()
    table = pd.read_parquet(folder / "utterances.parquet")
    assert table["id"].tolist() == ["v1_0", "b", "a"]
    assert table["text"][0] == U.text
    assert table["label_text"].isna().tolist() == [False, False, True]
    features = pd.read_parquet(folder / "features/text/part-0.parquet")
    assert {"id", "features"} <= set(features.columns)
    assert [np.stack(x).tolist() for x in features["features"]] == [[[i, i]] for i in range(3)]


def test_dataset_json_counts_and_hashes(write):
    folder = write()
    info = read_info(folder)
    assert info["counts"] == {
        "utterances": 3,
        "splits": {"train": 1, "valid": 1, "test": 1},
        "classes": {"yes": 2, "no": 1},
        "present": {"text": 3},
    }
    assert (info["name"], info["licence"], info["notes"], info["protocol"]) == ("made up", "CC0-1.0", ["by hand"], 7)
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert info["files"].keys() == files - {"dataset.json"}
    for name, digest in info["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_the_hash_of_a_spec_is_of_all_that_changes_the_features():
    spec = FeatureSpec("mel", "1", "audio", 4, 0.01, settings={"fft": 512})
    assert spec.as_dict()["hash"] == FeatureSpec("mel", "1", "audio", 4, 0.01, settings={"fft": 512}).as_dict()["hash"]
    for change in ({"version": "2"}, {"dim": 5}, {"hop_s": 0.02}, {"settings": {"fft": 256}}, {"columns": ("a",)}):
        assert replace(spec, **change).as_dict()["hash"] != spec.as_dict()["hash"]
    stated = spec.as_dict()
    digest = stated.pop("hash")
    assert digest == hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def test_the_fingerprint_is_of_content_and_task(write, edit):
    first = read_dataset(write()).fingerprint
    assert read_dataset(write(name="copy")).fingerprint == first
    assert read_dataset(write(clips=[np.ones((1, 2))] * 3, name="features")).fingerprint != first
    assert read_dataset(write(task=Task(("yes", "no"), -1, 1), name="task")).fingerprint != first
    folder = write(name="note")
    edit(folder, lambda info: info.update(notes=["another note"]))
    assert read_dataset(folder).fingerprint == first


# Classes or scores


def test_a_data_set_with_classes_and_scores_can_be_either(write):
    scored = [replace(u, score=s) for u, s in zip(UTTERANCES, (0.2, None, -1.0), strict=True)]
    folder = write(scored)
    assert read_dataset(folder).task == TASK
    data = read_dataset(folder, task="regression")
    assert data.task == Task(low=-1.0, high=1.0)
    torch.testing.assert_close(data.batch.labels, torch.tensor([0.2, float("nan"), -1.0]), equal_nan=True)
    assert data.index().tolist() == [0, 2]
    assert data.batch.modality_labels == {}


def test_without_a_stated_interval_scores_span_their_own(write):
    scored = [replace(u, score=s, modality_scores={}) for u, s in zip(UTTERANCES, (2.0, 5.0, 3.0), strict=True)]
    data = read_dataset(write(scored, task=Task(("no", "yes"))), task="regression")
    assert data.task == Task(low=2.0, high=5.0)


@pytest.mark.parametrize(
    ("utterances", "task", "kind", "message"),
    [
        ([Utterance("a", label="no")], Task(("no", "yes")), "regression", "has classes but no scores"),
        ([Utterance("a", score=0.5)], Task(low=0, high=1), "classification", "is labelled with scores only"),
        (UTTERANCES, TASK, "regresion", "no task called 'regresion'; did you mean 'regression'"),
    ],
)
def test_a_task_that_the_labels_do_not_serve_is_refused(write, utterances, task, kind, message):
    with pytest.raises(InputError, match=message):
        read_dataset(write(utterances, task=task), task=kind)


# What is refused on the way in


@pytest.mark.parametrize(
    ("utterances", "message"),
    [
        ([], "there are no utterances"),
        ([U, U], "utterance id 'v1_0' stands 2 times; ids must be unique"),
        ([replace(U, id="")], "1 of 1 utterances have no id; every one needs one"),
        ([replace(U, label="maybe")], "utterance v1_0: label 'maybe' is out of range; classes: no, yes"),
        ([replace(U, modality_labels={"text": "maybe"})], "label 'maybe' is out of range"),
        ([replace(U, score=float("nan"))], "label nan is out of range"),
        ([replace(U, split="dev")], "no split called 'dev'"),
    ],
)
def test_utterances_that_nothing_should_start_from(write, tmp_path, utterances, message):
    with pytest.raises(InputError, match=message):
        check_utterances(utterances, TASK)
    with pytest.raises(InputError, match=message):
        write(utterances, ids=["v1_0"])
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("score", [-1.01, 1.5, float("inf")])
def test_scores_outside_the_interval(score):
    with pytest.raises(InputError, match=f"utterance a: label {score} is out of range; scores go -1.0 to 1.0"):
        check_utterances([Utterance("a", score=score)], Task(low=-1.0, high=1.0))


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([np.ones((1, 2))] * 2, "text: 2 clips for 3 utterances; they must be as many"),
        ([np.ones((1, 2))] * 4, "text: 4 clips for 3 utterances; they must be as many"),
        ([np.ones((1, 2)), np.ones((1, 3)), None], r"utterance b: text has shape \(1, 3\), expected \(steps, 2\)"),
        ([None, np.ones(2), None], r"utterance b: text has shape \(2,\), expected \(steps, 2\)"),
        ([np.ones((2, 2)), np.array([[0, 0], [0, np.nan]]), None], "utterance b: text holds NaN; clean the features"),
        ([None, np.zeros((0, 2)), np.full((1, 2), -np.inf)], "utterance a: text holds inf; clean the features"),
        ([None, None, np.zeros((0, 2))], "text is empty: no utterance has a single step of it"),
    ],
)
def test_features_that_nothing_should_start_from(write, tmp_path, clips, message):
    with pytest.raises(InputError, match=message):
        write(clips=clips)
    assert names_in(tmp_path) == []


def test_a_writer_that_was_not_finished_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match=r"finish\(\) was never called"), new_dataset(tmp_path / "set") as out:
        out.write_features(FeatureSpec("made", "1", "text", 2), ["a"], [np.ones((1, 2))])
    assert names_in(tmp_path) == []


# What is refused on the way out


def shorten(folder):
    file = folder / "features/text/part-0.parquet"
    file.write_bytes(file.read_bytes()[:-1])


def relabel(folder):
    table = pd.read_parquet(folder / "utterances.parquet")
    table["label"] = "yes"
    table.to_parquet(folder / "utterances.parquet")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (shorten, r"part-0.parquet has changed since it was written \(its SHA-256 differs\)"),
        (relabel, r"utterances.parquet has changed since it was written"),
        (lambda f: (f / "features/text/part-0.parquet").unlink(), "part-0.parquet is missing; dataset.json lists it"),
        (lambda f: (f / "dataset.json").unlink(), "set is not a data set folder: it has no dataset.json"),
        (lambda f: (f / "dataset.json").write_text("{"), "dataset.json is not valid JSON"),
        (lambda f: (f / "dataset.json").write_text("[]"), "dataset.json is not of format 1"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(write, harm, message):
    folder = write()
    harm(folder)
    with pytest.raises(InputError, match=message):
        read_dataset(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i["files"].update({"../x": "00"}), r"names \.\./x, which lies outside the data set folder"),
        (lambda i: i["files"].update({"/etc/hostname": "00"}), "names /etc/hostname, which lies outside"),
        (lambda i: i.update(format=2), "is not of format 1; import the data set again"),
        (lambda i: i.pop("task"), "is not of format 1"),
        (lambda i: i.update(files=[]), "is not of format 1"),
        (lambda i: i["task"].pop("classes"), "states no usable task"),
        (lambda i: i["task"].update(classes=["no", "maybe"]), "label 'yes' is out of range; classes: no, maybe"),
    ],
)
def test_a_dataset_json_that_was_tampered_with_is_refused(write, edit, change, message):
    folder = write()
    edit(folder, change)
    with pytest.raises(InputError, match=message):
        read_dataset(folder)


def test_a_link_out_of_the_folder_is_refused(write, tmp_path):
    folder = write()
    (folder / "utterances.parquet").rename(tmp_path / "elsewhere.parquet")
    (folder / "utterances.parquet").symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(InputError, match="which lies outside the data set folder"):
        read_dataset(folder)


@pytest.mark.parametrize("ids", [["v1_0", "b", "stranger"], ["v1_0", "b", "b"]])
def test_foreign_and_double_rows_are_refused(write, ids):
    folder = write(ids=ids, clips=[np.ones((1, 2))] * 3)
    with pytest.raises(InputError, match=r"is not in utterances.parquet, or stands twice"):
        _ = read_dataset(folder).batch


def test_a_file_that_nobody_listed_is_no_part_of_the_data_set(write):
    """Else a shard or a modality could be slipped in that no hash covers."""
    folder, other = write(), write(name="other", ids=["b"], clips=[np.full((1, 2), 9)])
    (other / "features/text/part-0.parquet").rename(folder / "features/text/part-1.parquet")
    (folder / "features/vision").mkdir()
    (folder / "features/vision/spec.json").write_text("{}")
    data = read_dataset(folder)
    assert data.batch.dims == {"text": 2}
    assert data.batch.inputs["text"].values[:, 0].tolist() == [0, 1, 2]


def test_only_modalities_that_are_there_can_be_asked_for(write):
    folder = write()
    assert list(read_dataset(folder, modalities=["text"]).batch.inputs) == ["text"]
    with pytest.raises(InputError, match="no modality called 'texts'; did you mean 'text'"):
        read_dataset(folder, modalities=["texts"])


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist"):
        read_dataset(tmp_path / "nowhere")


# Leakage


def test_shared_groups_are_counted_by_pair_of_splits():
    def make(split, groups):
        return [Utterance(f"{split}{i}", split=split, group=g.strip() or None) for i, g in enumerate(groups)]

    found = shared_groups([*make("train", "aab "), *make("valid", "bc"), *make("test", "ccbd ")])
    assert found == {  # an utterance without a group shares nothing
        "train/valid": {"groups": 1, "of": 2, "utterances": 1},
        "train/test": {"groups": 1, "of": 3, "utterances": 1},
        "valid/test": {"groups": 2, "of": 3, "utterances": 3},
    }
    assert shared_groups([*make("train", "ab"), *make("test", "cd")]) == {}


def test_parquet_holds_no_row_group_larger_than_it_says(write):
    num = ROWS_PER_GROUP + 1
    folder = write([Utterance(f"u{i}", label="no") for i in range(num)])
    file = pq.ParquetFile(folder / "features/text/part-0.parquet")
    assert [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)] == [ROWS_PER_GROUP, 1]


def test_overwriting_replaces_a_data_set_and_nothing_else(tmp_path):
    clips, spec = [np.ones((1, 2), np.float32)], FeatureSpec("x", "1", "audio", 2)

    def make(folder):
        with new_dataset(folder, overwrite=True) as out:
            out.write_features(spec, [U.id], clips)
            out.finish([U], TASK, name="new")

    table, home, empty, data = (tmp_path / n for n in ("clips.csv", "home", "empty", "data"))
    table.write_text("id,label")
    home.mkdir()
    empty.mkdir()
    (home / "thesis.txt").write_text("three years")
    for folder in (table, home):
        with pytest.raises(InputError, match=f"{folder} is not a data set folder, so --overwrite leaves it alone"):
            make(folder)
    for folder in (empty, data, data):
        make(folder)
    (data / "clips.csv").write_text("id,label")
    with pytest.raises(InputError, match=r"clips.csv is not part of the data set, and --overwrite would delete it"):
        make(data)
    assert table.read_text() == (data / "clips.csv").read_text() == "id,label"
    assert (home / "thesis.txt").read_text() == "three years"
