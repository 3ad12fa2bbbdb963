"""Labels out and in again, whole or not at all."""

import csv
import json

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.annotation.conftest import dice, join, make_clips, work

from moodal.annotation.accounts import people
from moodal.annotation.answers import Answer
from moodal.annotation.database import open_database, sqlite_url
from moodal.annotation.exchange import (
    COLUMNS,
    export_label_studio,
    export_votes,
    import_label_studio,
    import_votes,
    read_cell,
    written_cell,
)
from moodal.annotation.lead import GoldLabel, adjudicate, set_gold
from moodal.annotation.lead_pages import read_gold
from moodal.annotation.protocol import Finished, next_assignment, prepare, project_settings
from moodal.annotation.settings import AnnotationSettings
from moodal.annotation.votes import read_votes_of, seconds_of
from moodal.labels.votes import read_votes
from moodal.types import InputError

ANSWERS = [
    Answer("neutral"),
    Answer("happy", "strong", None, "=HYPERLINK(1)", 1.25),
    Answer("compound", None, None, 'both, "so"\nto speak', 3.0),
    Answer("invalid", None, "@two voices", "'-quoted 悲", 0.1),
]


def votes_of(db):
    with db.read() as session:
        votes = list(read_votes_of(session))
    return sorted((v.clip, v.condition, v.annotator, v.round, str(v.answer), v.at_s) for v in votes)


@pytest.fixture
def labelled(database, project, clock):
    """A project with every kind of answer, and with votes of every round."""
    crew = project(database, clips=8, crew=4, qualification=1, qualification_share=0.0)
    lead = join(database, "=lead", "lead")
    set_gold(database, lead, [GoldLabel("clip-0000", c, "happy") for c in ("audio", "vision", "full")])
    rng = dice(0)

    def say(_):
        clock.pass_(minutes=0.123)
        return rng.choice(ANSWERS)

    for person in crew:
        work(database, person, 6, say)
    some = next(v for v in votes_of(database) if v[3] == "main")
    adjudicate(database, lead, some[0], some[1], Answer("sad", "weak", None, "after all"))
    assert {v[3] for v in votes_of(database)} == {"qualification", "main", "adjudication"}
    return database


@pytest.fixture
def empty(tmp_path):
    """Another project with the same clips."""
    db = open_database(sqlite_url(tmp_path / "empty.sqlite"))
    prepare(db, make_clips(8), AnnotationSettings(qualification=1, qualification_share=0.0))
    yield db
    db.close()


@pytest.mark.parametrize(
    ("name", "export", "take"),
    [
        ("votes.csv", export_votes, import_votes),
        ("votes.parquet", export_votes, import_votes),
        ("studio.json", export_label_studio, import_label_studio),
    ],
)
def test_what_goes_out_comes_in_again_without_loss(labelled, empty, tmp_path, name, export, take):
    file = tmp_path / name
    export(labelled, file)
    assert take(empty, file) == len(votes_of(labelled))
    assert votes_of(empty) == votes_of(labelled)
    again = tmp_path / f"again-{name}"
    export(empty, again)
    if name.endswith("json"):
        assert json.loads(again.read_text()) == json.loads(file.read_text())


def test_the_table_is_the_table_of_votes_that_everybody_reads(labelled, tmp_path):
    for name in ("votes.csv", "votes.parquet"):
        num = export_votes(labelled, tmp_path / name)
        votes = read_votes(tmp_path / name)
        assert len(votes.label) == num
        assert set(votes.conditions) == {"audio", "vision"}
    assert pq.read_table(tmp_path / "votes.parquet").column_names == list(COLUMNS)


def test_a_spreadsheet_runs_nothing_of_it(labelled, tmp_path):
    export_votes(labelled, tmp_path / "votes.csv")
    with (tmp_path / "votes.csv").open(newline="") as f:
        cells = [cell for row in csv.reader(f) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert {"'=HYPERLINK(1)", "'@two voices", "''-quoted 悲", "'=lead"} <= set(cells)


@given(st.text(st.sampled_from("'=+-@\t\r a"), max_size=6))
def test_harmless_cells_read_back_equal(text):
    written = written_cell(text)
    assert not written.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert read_cell(written) == text


def test_people_of_imported_votes_cannot_sign_in_and_take_no_clips(labelled, empty, tmp_path):
    export_votes(labelled, tmp_path / "votes.csv")
    import_votes(empty, tmp_path / "votes.csv")
    assert {(p.active, p.accepted) for p in people(empty)} == {(False, False)}


def test_work_goes_on_where_imported_labels_end(sqlite, project, tmp_path):
    crew = project(sqlite, clips=2, crew=2, conditions=("audio",))
    write(tmp_path, ["clip-0000", "audio", "person 0", "sad"], ["clip-0001", "audio", "somebody else", "sad"])
    import_votes(sqlite, tmp_path / "votes.csv")
    for person in crew:
        work(sqlite, person)
    assert [v[:3] for v in votes_of(sqlite)] == [
        ("clip-0000", "audio", "person 0"),
        ("clip-0000", "audio", "person 1"),
        ("clip-0001", "audio", "person 0"),
        ("clip-0001", "audio", "somebody else"),
    ] or len({v[2] for v in votes_of(sqlite) if v[0] == "clip-0001"}) == 2
    assert isinstance(next_assignment(sqlite, crew[0]), Finished)


def write(folder, *rows, columns=("clip", "condition", "annotator", "label")):
    with (folder / "votes.csv").open("w", newline="") as f:
        csv.writer(f).writerows([columns, *rows])


GOOD = ["clip-0000", "audio", "Ada", "sad"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (["clip-0001", "audio", "Ada", "joy"], "row 2: no label called 'joy'"),
        (["clip-9999", "audio", "Ada", "sad"], "row 2: there is no clip called 'clip-9999'"),
        (["clip-0001", "smell", "Ada", "sad"], "row 2: no condition called 'smell'"),
        (["clip-0001", "text", "Ada", "sad"], "row 2: no condition called 'text'"),
        (GOOD, "row 2: Ada has already labelled clip-0000 in audio"),
        (["clip-0000", "audio", " aDA", "happy"], "row 2: .*aDA has already labelled clip-0000"),
        (["clip-0001", "audio", "", "sad"], "row 2 has no annotator"),
        (["clip-0001", "audio", "A\x01", "sad"], "row 2: a name has 1 to 100 visible"),
        (["clip-0001", "audio"], "row 2 has another number of cells"),
        (["clip-0001", "audio", "Ada", "sad", "more"], "row 2 has another number of cells"),
    ],
)
def test_a_row_that_cannot_be_is_named_and_nothing_is_taken(sqlite, project, tmp_path, row, said):
    project(sqlite, crew=0)
    write(tmp_path, GOOD, row)
    with pytest.raises(InputError, match=said) as refused:
        import_votes(sqlite, tmp_path / "votes.csv")
    assert "\n" not in str(refused.value)
    assert votes_of(sqlite) == []
    assert people(sqlite) == []


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("intensity", "very", "no intensity called 'very'"),
        ("seconds", "soon", "'soon' is no number of seconds"),
        ("seconds", "-1", "between 0 and"),
        ("seconds", "inf", "between 0 and"),
        ("at", "yesterday", "no time in ISO 8601"),
        ("round", "final", "no round called 'final'"),
        ("count", "3", "stands for several votes"),
    ],
)
def test_a_cell_that_cannot_be_is_named(sqlite, project, tmp_path, column, value, said):
    project(sqlite, crew=0)
    write(tmp_path, [*GOOD, value], columns=("clip", "condition", "annotator", "label", column))
    with pytest.raises(InputError, match=f"row 1: .*{said}.*; nothing was imported"):
        import_votes(sqlite, tmp_path / "votes.csv")


def test_a_clip_takes_no_more_labels_than_it_has_seats(sqlite, project, tmp_path):
    project(sqlite, crew=0)
    write(tmp_path, *(["clip-0000", "audio", name, "sad"] for name in ("A", "B", "C")))
    with pytest.raises(InputError, match="row 3: clip-0000 has all its 2 labels in audio"):
        import_votes(sqlite, tmp_path / "votes.csv")
    assert votes_of(sqlite) == []


def test_importing_twice_is_refused_as_doubles(labelled, empty, tmp_path):
    export_votes(labelled, tmp_path / "votes.csv")
    import_votes(empty, tmp_path / "votes.csv")
    before = votes_of(empty)
    with pytest.raises(InputError, match="has already labelled"):
        import_votes(empty, tmp_path / "votes.csv")
    assert votes_of(empty) == before


def test_files_that_are_none_are_refused(sqlite, project, tmp_path):
    project(sqlite)
    for name, content, said in (
        ("a.csv", b"x,y\n1,2\n", "has no column 'clip'"),
        ("b.csv", b"\xff\xfe\x00", "cannot be read as CSV"),
        ("c.csv", b'clip,condition,annotator,label\n"open', "cannot be read as CSV"),
        ("d.parquet", b"no parquet", "cannot be read as a Parquet table"),
        ("e.txt", b"", r"\.csv or \.parquet"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=said):
            import_votes(sqlite, tmp_path / name)
    for name in ("no.csv", "no.parquet"):
        with pytest.raises(InputError, match="does not exist"):
            import_votes(sqlite, tmp_path / name)
    with pytest.raises(InputError, match=r"\.csv or \.parquet"):
        export_votes(sqlite, tmp_path / "votes.xlsx")


def test_a_foreign_label_studio_export_is_read(sqlite, project, tmp_path):
    """As Label Studio itself writes it: people by number, its own names of controls, skipped tasks."""
    project(sqlite, crew=0)
    choice = {"id": "x1", "from_name": "emotion", "to_name": "video", "type": "choices", "origin": "manual"}
    task = {
        "id": 7,
        "data": {"clip": "clip-0003", "condition": "audio"},
        "annotations": [
            {
                "id": 1,
                "completed_by": 4,
                "result": [{**choice, "value": {"choices": ["sad"]}}],
                "was_cancelled": False,
                "ground_truth": False,
                "created_at": "2026-01-02T03:04:05.678901Z",
                "lead_time": 4.5,
            },
            {"id": 2, "completed_by": 5, "result": [], "was_cancelled": True},
        ],
        "predictions": [],
        "project": 1,
    }
    (tmp_path / "ls.json").write_text(json.dumps([task]))
    assert import_label_studio(sqlite, tmp_path / "ls.json") == 1
    at = 1767323045.678901
    assert votes_of(sqlite) == [
        ("clip-0003", "audio", "annotator 4", "main", str(Answer("sad", None, None, None, 4.5)), at)
    ]


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ({"no": "list"}, "is no list of tasks"),
        ([{"data": {"condition": "audio"}, "annotations": []}], "task 1: its data has no 'clip'"),
        ([{"data": {"clip": "clip-0000"}, "annotations": []}], "task 1: its data has no 'condition'"),
        ([{}], "task 1 is not what Label Studio writes"),
        ([17], "task 1 is not what Label Studio writes"),
        (
            [{"data": {"clip": "clip-0000", "condition": "audio"}, "annotations": [{"completed_by": 1}]}],
            "task 1 is not",
        ),
        (
            [{"data": {"clip": "clip-0000", "condition": "audio"}, "annotations": [{"completed_by": 1, "result": []}]}],
            "no choice called 'label'",
        ),
    ],
)
def test_a_label_studio_file_that_cannot_be_is_one_sentence(sqlite, project, tmp_path, tasks, said):
    project(sqlite, crew=0)
    (tmp_path / "ls.json").write_text(json.dumps(tasks))
    with pytest.raises(InputError, match=said):
        import_label_studio(sqlite, tmp_path / "ls.json")
    assert people(sqlite) == []


def test_a_project_without_labels_is_an_empty_table(sqlite, project, tmp_path):
    project(sqlite)
    assert export_votes(sqlite, tmp_path / "votes.csv") == 0
    assert export_label_studio(sqlite, tmp_path / "ls.json") == 0
    assert json.loads((tmp_path / "ls.json").read_text()) == []
    assert project_settings(sqlite) == AnnotationSettings()


@pytest.mark.parametrize("value", [10**400, [2.0], {"s": 2}])
def test_a_time_that_is_no_number_is_one_sentence(value):
    with pytest.raises(InputError, match="no number of seconds"):
        seconds_of(value)


def test_gold_is_read_as_votes_are_written():
    (gold,) = read_gold(b"clip,condition,label\n'-intro_0001,audio,sad\n")
    assert gold.clip_id == "-intro_0001"
