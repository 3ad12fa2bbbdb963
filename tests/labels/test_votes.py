"""Votes come in as they were given, from every kind of table, and what cannot be meant is refused by its row."""

import gzip
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from moodal.labels.votes import CONDITIONS, ROUNDS, read_votes
from moodal.types import InputError

DATA = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
ALL = ("clip", "condition", "annotator", "label", "intensity", "reason", "seconds", "round")
ROWS = [
    ("c2", "full", "anna", "happy", "strong", "", "3.5", "main"),
    ("c2", "full", "ben", "sad", "weak", "", "2", "main"),
    ("c2", "full", "carl", "happy", "", "", "", "adjudication"),
    ("c1", "audio", "anna", "invalid", "", "no voice", "1", "main"),
    ("c1", "vision", "anna", "happy", "", "", "", ""),
]
CREMA_D = """"","A","D","F","H","N","S","fileName","numResponses"
"100001",0,0,0,1,10,0,"1001_IEO_NEU_XX",11
"200001",0,0,0,0,9,0,"1001_IEO_NEU_XX",9
"300001",2,0,0,6,2,0,"1001_IEO_NEU_XX",10
"300002",0,0,3,0,0,3,"1002_IEO_FEA_XX",6
"""


def test_every_vote_is_there_with_what_was_said(write_votes):
    v = read_votes(write_votes(ROWS, ALL))
    assert v.clips == ("c2", "c1")
    assert v.labels == ("happy", "sad", "invalid")  # the paper's order, special answers last
    assert v.emotions == ("happy", "sad")
    assert v.annotators == ("anna", "ben", "carl")
    assert v.conditions == ("audio", "vision", "full")
    assert [v.labels[k] for k in v.label] == ["happy", "sad", "happy", "invalid", "happy"]
    assert [CONDITIONS[k] for k in v.condition] == ["full", "full", "full", "audio", "vision"]
    assert v.intensity.tolist() == [1, 0, -1, -1, -1]
    assert [ROUNDS[k] for k in v.round] == ["main", "main", "adjudication", "main", "main"]
    assert [v.reasons[k] if k >= 0 else None for k in v.reason] == [None, None, None, "no voice", None]
    np.testing.assert_array_equal(v.seconds, [3.5, 2, np.nan, 1, np.nan])


def test_counts_are_of_one_condition_and_of_the_main_round(write_votes):
    v = read_votes(write_votes(ROWS, ALL))
    assert v.counts("full").tolist() == [[1, 1, 0], [0, 0, 0]]
    assert v.counts("full", ("main", "adjudication")).tolist() == [[2, 1, 0], [0, 0, 0]]
    assert v.counts("audio").tolist() == [[0, 0, 0], [0, 0, 1]]


def test_the_kind_of_file_does_not_matter(write_votes, tmp_path):
    plain = write_votes(ROWS, ALL)
    packed, parquet = tmp_path / "packed.csv.gz", tmp_path / "votes.parquet"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    strings = pa.csv.ConvertOptions(
        column_types={**dict.fromkeys(ALL, pa.string()), "seconds": pa.float64()}, null_values=[""]
    )
    pq.write_table(pa.csv.read_csv(plain, convert_options=strings), parquet)
    first = read_votes(plain)
    for other in (write_votes(ROWS, ALL, "votes.tsv"), packed, parquet):
        v = read_votes(other)
        assert (v.clips, v.labels, v.annotators) == (first.clips, first.labels, first.annotators)
        for field in ("clip", "condition", "annotator", "label", "intensity", "round", "count", "seconds"):
            np.testing.assert_array_equal(getattr(v, field), getattr(first, field))


def test_a_row_may_stand_for_many_unknown_people(write_votes):
    columns = ("clip", "condition", "label", "count")
    v = read_votes(
        write_votes([("c1", "full", "sad", 7), ("c1", "full", "happy", ""), ("c1", "full", "sad", 2)], columns)
    )
    assert v.annotators == ()
    assert dict(zip(v.labels, v.counts("full")[0].tolist(), strict=True)) == {"happy": 1, "sad": 9}


def test_a_name_that_looks_like_a_number_is_a_name(write_votes):
    v = read_votes(write_votes([("007", "full", "1", "happy"), ("7", "full", "01", "happy")]))
    assert (v.clips, v.annotators) == (("007", "7"), ("1", "01"))


def test_names_that_look_like_formulas_come_back_as_they_were(write_votes):
    v = read_votes(write_votes([("'-clip", "full", "'=anna", "happy"), ("''-clip", "full", "o'brien", "happy")]))
    assert v.clips == ("-clip", "'-clip")
    assert v.annotators == ("=anna", "o'brien")


def test_gold_clips_may_be_answered_twice_and_whoever_labelled_may_adjudicate(write_votes):
    again = [("c1", "full", "anna", "happy", r) for r in ("qualification", "qualification", "main", "adjudication")]
    assert len(read_votes(write_votes(again, (*ALL[:4], "round"))).label) == 4


def test_a_table_in_other_words_may_have_other_labels(write_votes):
    v = read_votes(write_votes([("c1", "full", "anna", "joy"), ("c2", "full", "anna", "grief")]))
    assert v.labels == ("grief", "joy")
    v = read_votes(write_votes([("c1", "full", "anna", "joy")]), labels=("joy", "grief"))
    assert v.labels == ("joy", "grief")


def test_a_recipe_folder_has_its_votes_or_says_how_to_get_them(write_votes, tmp_path):
    folder = write_votes([("c1", "full", "anna", "happy")], name="recipe/votes.csv").parent
    assert read_votes(folder).clips == ("c1",)
    (folder / "votes.csv").unlink()
    with pytest.raises(InputError, match="have its clips labelled with: moodal annotate"):
        read_votes(folder)
    (folder / "annotation.sqlite").touch()
    with pytest.raises(InputError, match=r"has a labelling project and no table of votes; write it: .* --export "):
        read_votes(folder)


def test_crema_d_is_known_by_its_columns(tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text(CREMA_D, encoding="utf-8")
    v = read_votes(path)
    assert v.labels == ("neutral", "happy", "sad", "angry", "fearful", "disgusted")
    assert v.groups == ("1001", "1002")
    assert v.counts("audio").tolist() == [[10, 1, 0, 0, 0, 0], [0] * 6]
    assert v.counts("vision").tolist() == [[9, 0, 0, 0, 0, 0], [0] * 6]
    assert v.counts("full").tolist() == [[2, 6, 0, 2, 0, 0], [0, 0, 3, 0, 3, 0]]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"300002"', '"400002"', r"row 4: no condition called 'row id 4...'"),
        ('"300002"', '"300001"', None),
        ("0,0,3,0,0,3", "0,0,3,0,0,-3", "row 4 has a negative count"),
        ("0,0,3,0,0,3", "0,0,3,0,0,2", "row 4 has votes that do not add up to numResponses"),
        ("0,0,3,0,0,3", "0,0,3.5,0,0,2.5", "row 4 has a count that is no number of votes"),
        ("0,0,3,0,0,3", "inf,0,3,0,0,3", "row 4 has a count that is no number of votes"),
        ("1002_IEO_FEA_XX", "1001_IEO_NEU_XX", "row 4 has the votes of a clip and a condition that stood there before"),
        ('"fileName"', '"clip"', "has no column 'condition'"),
        ('"",', '"label",', "columns of a votes table and of CREMA-D's"),
    ],
)
def test_broken_counts_are_refused_by_their_row(tmp_path, old, new, sentence):
    path = tmp_path / "counts.csv"
    path.write_text(CREMA_D.replace(old, new), encoding="utf-8")
    if sentence is None:
        assert len(read_votes(path).clips) == 2
        return
    with pytest.raises(InputError, match=sentence):
        read_votes(path)


GOOD = ("c1", "full", "anna", "happy")


@pytest.mark.parametrize(
    ("columns", "rows", "sentence"),
    [
        (ALL[:4], [GOOD, ("c1", "ful", "ben", "happy")], "row 2: no condition called 'ful'; did you mean 'full'"),
        (ALL[:4], [GOOD, ("c1", "full", "ben", "hapy")], None),
        (ALL[:4], [GOOD, GOOD], r"row 2: anna votes for c1 in full again \(row 1\)"),
        (ALL[:4], [GOOD, ("c2", "full", "", "happy")], "row 2 names no annotator, and other rows do"),
        (ALL[:4], [GOOD, ("", "full", "ben", "happy")], "row 2 has no clip"),
        (ALL[:4], [GOOD, ("c2", "full", "ben", "")], "row 2 has no label"),
        (ALL[:4], [GOOD, (" c1", "full", "ben", "happy")], "row 2 has the clip ' c1', with a space at an end"),
        (ALL[:4], [GOOD, ("c\x1b[2J", "full", "ben", "happy")], "row 2 has the clip .* which cannot be shown"),
        (ALL[:4], [(f"c{k}", "full", "ben", f"label {k}") for k in range(70)], "70 different labels"),
        (ALL[:3], [GOOD[:3]], "has no column 'label'"),
        (("clip", "condition", "label"), [("c1", "full", "happy")], "has no column 'annotator'"),
        ((*ALL[:4], "intensity"), [(*GOOD, "mild")], "row 1: no intensity called 'mild'"),
        ((*ALL[:4], "round"), [(*GOOD, "final")], "row 1: no round called 'final'"),
        ((*ALL[:4], "count"), [(*GOOD, 2)], "row 1 stands for another number of votes than one"),
        (("clip", "condition", "label", "count"), [("c1", "full", "sad", -1)], "row 1 has a negative count"),
        (("clip", "condition", "label", "count"), [("c1", "full", "sad", 1.5)], "row 1 has a count that is no number"),
        (("clip", "condition", "label", "count"), [("c1", "full", "sad", "x")], "cannot be read as a table"),
        (("clip", "clip", "condition", "label"), [GOOD], "two columns of one name"),
        (ALL[:4], [], "holds no votes"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_row(write_votes, columns, rows, sentence):
    path = write_votes(rows, columns)
    if sentence is None:  # one strange label among one known says nothing; with the set given it does
        assert set(read_votes(path).labels) == {"happy", "hapy"}
        with pytest.raises(InputError, match="row 2: no label called 'hapy'; did you mean 'happy'"):
            read_votes(path, labels=("happy", "sad"))
        return
    with pytest.raises(InputError, match=sentence):
        read_votes(path)


def test_a_slip_among_the_papers_emotions_is_seen(write_votes):
    rows = [(f"c{k}", "full", "anna", label) for k, label in enumerate(("happy", "sad", "neutral", "angri"))]
    with pytest.raises(InputError, match=r"row 4: no label called 'angri'; did you mean 'angry'.*--labels"):
        read_votes(write_votes(rows))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("votes.csv.gz", b"no gzip", "cannot be read"),
        ("votes.csv", b"\xff\xfe\x00", "cannot be read|has no column|UTF-8"),
        ("votes.csv", b"clip,condition,annotator,label\nc1,full,anna,h\xe4ppy\n", "UTF-?8"),
        ("votes.csv", b"", "cannot be read"),
        ("votes.parquet", b"PAR1", "cannot be read"),
        ("votes.xlsx", b"", "a table of votes ends in .csv"),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path, name, content, sentence):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_votes(path)


def test_a_small_file_that_unpacks_to_a_large_one_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr("moodal.labels.cells.MAX_ROWS", 100_000)
    path = tmp_path / "votes.csv.gz"
    path.write_bytes(gzip.compress(b"clip,condition,annotator,label\n" + b"c,full,a,happy\n" * 300_000))
    with pytest.raises(InputError, match="more than 100,000 rows"):
        read_votes(path)


def test_a_place_that_does_not_exist_is_said(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_votes(tmp_path / "nothing.csv")


@pytest.mark.corpus
def test_crema_d_has_the_votes_that_its_authors_count():
    path = DATA / "crema_d" / "tabulatedVotes.csv.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not there; set MOODAL_DATA")
    v = read_votes(path)
    assert len(v.clips) == 7442
    assert len(set(v.groups)) == 91
    assert {c: int(v.counts(c).sum()) for c in v.conditions} == {"audio": 68568, "vision": 71654, "full": 71778}


def test_a_table_of_another_encoding_says_so(tmp_path):
    said = "clip,condition,annotator,label\nc1,full,Zoë,sad\n"
    for encoding in ("utf-16", "latin-1"):
        (tmp_path / "votes.csv").write_bytes(said.encode(encoding))
        with pytest.raises(InputError, match="is not UTF-8; save it with that encoding"):
            read_votes(tmp_path / "votes.csv")
    (tmp_path / "votes.csv").write_bytes(said.encode("utf-8-sig"))
    assert read_votes(tmp_path / "votes.csv").annotators == ("Zoë",)


def test_what_is_wrong_in_a_folder_is_said_of_its_table(write_votes):
    folder = write_votes(
        [("c1", "full", "anna", "happy"), ("c1", "smell", "anna", "sad")], name="recipe/votes.csv"
    ).parent
    with pytest.raises(InputError, match=r"recipe/votes\.csv: row 2: no condition called 'smell'"):
        read_votes(folder)
    assert read_votes(write_votes([("c1", "full", "anna", "happy")], name="recipe/votes.csv").parent).name == "recipe"
