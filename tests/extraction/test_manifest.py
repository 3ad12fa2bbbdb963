"""Folders and tables of media become utterances, and what cannot be is refused in a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moodal.extraction.items import Item
from moodal.extraction.manifest import read_manifest
from moodal.types import InputError, Segment


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2.mp4", "a.wav", "a.mp4", "notes.txt", ".hidden/x.mp4", "b/.x.mp4", "Ü ß.MKV"):
        file = tmp_path / "media" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    outside = tmp_path / "secret.mp4"
    outside.touch()
    (tmp_path / "media/link.mp4").symlink_to(outside)
    return tmp_path / "media"


def table(folder: Path, text: str, name: str = "clips.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_folder_is_every_media_file_in_it_in_a_fixed_order(folder: Path) -> None:
    found = read_manifest(folder)
    assert [s.video for s in found.sources] == ["a.mp4", "a.wav", "b/2.mp4", "Ü ß.MKV"]
    assert [s.items for s in found.sources] == [(Item(i),) for i in ("a.mp4", "a.wav", "b/2", "Ü ß")]


def test_labels_of_a_folder_are_found_by_file_name(folder: Path) -> None:
    labels = table(folder.parent, "video,label,text,actor\na.wav,sad,no,007\n2,happy,,1\nc.mp4,sad,,2\n")
    found = read_manifest(folder, labels)
    assert found.columns["label"] == {"a.wav": "sad", "b/2": "happy"}
    assert found.sources[1].items == (Item("a.wav", None, "no"),)
    assert found.notes == ("1 rows of clips.csv belong to no file", "2 files have no row in clips.csv")


def test_a_table_gives_segments_in_order_of_time_and_keeps_its_columns(folder: Path) -> None:
    source = table(folder, "video,start_s,end_s,label,text\na.mp4,2.5,4,sad,b\na.mp4,0,2,happy,a\nb/2.mp4,,,sad,\n")
    found = read_manifest(source)
    first, second = found.sources
    assert first.file == folder / "a.mp4"
    assert first.items == (Item("a_001", Segment(0, 2), "a"), Item("a_000", Segment(2.5, 4), "b"))
    assert second.items == (Item("b/2"),)
    assert found.columns == {"label": {"a_000": "sad", "a_001": "happy", "b/2": "sad"}}


def test_the_files_of_a_table_may_lie_elsewhere(folder: Path, tmp_path: Path) -> None:
    elsewhere = table(tmp_path, "video,label\n" + "a.mp4,happy\n", "labels.csv")
    found = read_manifest(elsewhere, root=folder)
    assert [(s.file, s.video) for s in found.sources] == [(folder / "a.mp4", "a.mp4")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.mp4,sad\n", "has no column 'video' with the media files; it has 'file', 'label'"),
        ("video,start_s\na.mp4,1\n", "has one of start_s and end_s; a segment needs both"),
        ("video,start_s,end_s\na.mp4,2,1\n", r"row 1: start_s 2 and end_s 1 are no segment"),
        ("video,start_s,end_s\na.mp4,2,\n", r"row 1: start_s 2 and end_s None are no segment"),
        ("video,id\na.mp4,x\na.wav,x\n", "rows 1 and 2 are both called 'x'"),
        ("video,id\na.mp4,\n", "row 1 has no id"),
        ("video,label\n,sad\n", "row 1 names no video"),
        ("video,start_s,end_s\na.mp4,0,inf\n", "row 1: start_s 0 and end_s inf are no segment .the end is not finite"),
        ("video,id\na.mp4,x \n", "'x ' begins or ends with a space; rename it"),
    ],
)
def test_a_table_that_is_no_manifest_is_refused(folder: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_manifest(table(folder, text))


def test_an_empty_folder_and_labels_of_other_files_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no media file"):
        read_manifest(tmp_path / "empty")
    with pytest.raises(InputError, match=r"no video of .* is a file of .*; the first is 'z.mp4'"):
        read_manifest(folder, table(tmp_path, "video,label\nz.mp4,sad\n"))
    with pytest.raises(InputError, match="neither a column 'id' nor 'video'"):
        read_manifest(folder, table(tmp_path, "file,label\na.mp4,sad\n"))
    with pytest.raises(InputError, match="its labels belong into it"):
        read_manifest(table(folder, "video\na.mp4\n"), table(tmp_path, "video,label\na.mp4,sad\n"))


def test_labels_may_cut_a_file_and_leave_words_to_its_transcript(folder: Path) -> None:
    labels = table(folder.parent, "video,label,text,start_s,end_s\na.wav,sad,,0.5,1\n2,happy,said,,\n")
    found = read_manifest(folder, labels)
    assert found.sources[1].items == (Item("a.wav", Segment(0.5, 1)),)
    assert found.sources[2].items == (Item("b/2", None, "said"),)
    assert set(found.columns) == {"label"}


def test_ids_that_are_no_file_names_leave_it_to_the_column_video(folder: Path) -> None:
    labels = table(folder.parent, "id,video,label\n7,a.wav,sad\n8,b/2.mp4,happy\n")
    assert read_manifest(folder, labels).columns["label"] == {"a.wav": "sad", "b/2": "happy"}


def test_a_name_that_two_files_share_labels_neither(folder: Path) -> None:
    (folder / "c").mkdir()
    (folder / "c/2.mp4").touch()
    with pytest.raises(InputError, match=r"video '2' may be b/2\.mp4 or c/2\.mp4; write it with folder and ending"):
        read_manifest(folder, table(folder.parent, "video,label\n2,sad\n"))
    labels = table(folder.parent, "video,label\nb/2.mp4,sad\nc/2,happy\n")
    assert read_manifest(folder, labels).columns["label"] == {"b/2": "sad", "c/2": "happy"}


def test_no_two_files_have_one_id(folder: Path) -> None:
    (folder / "a.mp4.wav").touch()
    ids = [s.items[0].id for s in read_manifest(folder).sources]
    assert ids == ["a.mp4", "a.mp4.wav", "a.wav", "b/2", "Ü ß"]


def test_a_name_that_is_not_utf8_is_refused(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.wav")).touch()
    with pytest.raises(InputError, match=r"the file name '\\udcff\.wav' is not UTF-8; rename it"):
        read_manifest(folder)


def test_columns_are_refused_when_they_are_none_and_kept_as_names_when_they_divide(folder: Path) -> None:
    labels = table(folder.parent, "video,emotion,actor\na.wav,sad,007\n")
    with pytest.raises(InputError, match="no field of an utterance called 'lable'; did you mean 'label'"):
        read_manifest(folder, labels, {"lable": "emotion"})
    with pytest.raises(InputError, match=r"no column in clips\.csv called 'actr'; did you mean 'actor'"):
        read_manifest(folder, labels, {}, ["actr"])
    found = read_manifest(folder, labels, {"label": "emotion", "label_audio": "emotion"}, ["actor"])
    assert found.columns == {"actor": {"a.wav": "007"}, "label": {"a.wav": "sad"}, "label_audio": {"a.wav": "sad"}}


def test_a_file_is_not_called_like_a_part_of_another(tmp_path: Path) -> None:
    """Were a.mp4 long, its first part would be a_000. The names do not depend on whether it is."""
    for name in ("a.mp4", "a_000.mp4", "a_000_1000.mp4", "a_00.mp4", "b_000.mp4", "a_x01.mp4"):
        (tmp_path / name).touch()
    ids = [s.items[0].id for s in read_manifest(tmp_path).sources]
    assert ids == ["a", "a_00", "a_000.mp4", "a_000_1000.mp4", "a_x01", "b_000"]
    rows = table(tmp_path, "video\na_000.mp4\na.mp4\n")
    assert [s.items[0].id for s in read_manifest(rows).sources] == ["a_000.mp4", "a"]


def test_given_ids_that_parts_would_have_are_refused_before_the_work(tmp_path: Path) -> None:
    rows = table(tmp_path, "video,id\nx.mp4,a\ny.mp4,a_000\n")
    with pytest.raises(InputError, match=r"'a_000' \(y\.mp4\) is called as a part of 'a' \(x\.mp4\) would be"):
        read_manifest(rows)
    for text in (  # what is never cut has no parts
        "video,id,text\nx.mp4,a,words\ny.mp4,a_000,\n",
        "video,id,start_s,end_s\nx.mp4,a,0,1\ny.mp4,a_000,,\n",
    ):
        assert len(read_manifest(table(tmp_path, text)).sources) == 2
