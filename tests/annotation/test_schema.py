"""The tables: what they refuse by themselves, whoever writes."""

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from moodal.annotation.schema import AnswerRow, AssignmentRow, Base, Person

ROW = {"clip": 0, "condition": "audio", "round": "main", "attempt": 0, "seat": 0, "person_id": 1, "claimed_at_s": 0.0}


def add(db, kind, **values):
    with db.write() as session:
        session.execute(insert(kind), [values])


def test_a_seat_is_taken_once_and_a_person_has_one_of_a_clip(database, project):
    project(database)
    add(database, AssignmentRow, **ROW)
    for taken in ({"person_id": 2}, {"seat": 1}):
        with pytest.raises(IntegrityError):
            add(database, AssignmentRow, **{**ROW, **taken})
    for free in ({"person_id": 2, "seat": 1}, {"condition": "vision"}, {"clip": 1}):
        add(database, AssignmentRow, **{**ROW, **free})


def test_gold_clips_have_no_seats_and_may_be_tried_again(database, project):
    project(database)
    gold = {**ROW, "round": "qualification", "seat": None}
    for free in ({}, {"person_id": 2}, {"attempt": 1}):
        add(database, AssignmentRow, **{**gold, **free})
    with pytest.raises(IntegrityError):
        add(database, AssignmentRow, **gold)


def test_nothing_points_at_what_is_not_there(database, project):
    project(database)
    for wrong in ({"clip": 99}, {"person_id": 99}):
        with pytest.raises(IntegrityError):
            add(database, AssignmentRow, **{**ROW, **wrong})
    with pytest.raises(IntegrityError):
        add(database, AnswerRow, assignment_id=99, person_id=1, label="happy", at_s=0.0)


def test_two_people_have_two_names(database, project):
    project(database)
    with pytest.raises(IntegrityError):
        add(database, Person, name="X", key="person 0", role="annotator", active=True, created_at_s=0.0)


def test_numbers_of_rows_are_never_given_again(database, project):
    """Readers go on from the last number that they saw."""
    project(database)
    with database.write() as session:
        session.add(row := AssignmentRow(**ROW))
        session.flush()
        first = row.id
        session.delete(row)
    with database.write() as session:
        session.add(row := AssignmentRow(**ROW))
        session.flush()
        assert row.id > first


def test_times_are_kept_to_the_microsecond(database, project):
    project(database)
    add(database, AssignmentRow, **{**ROW, "claimed_at_s": 1_800_000_000.123457})
    with database.read() as session:
        assert session.get(AssignmentRow, 1).claimed_at_s == 1_800_000_000.123457


def test_every_name_of_the_schema_fits_postgresql():
    names = [c.name for t in Base.metadata.tables.values() for c in (*t.constraints, *t.indexes) if c.name]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 for name in names)
