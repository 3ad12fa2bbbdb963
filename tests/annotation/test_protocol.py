"""The rules of blind labelling: who gets what, when, and what becomes of the answers."""

from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError
from tests.annotation.conftest import Clock, dice, join, make_clips, work

from moodal.annotation.accounts import deactivate, invite, people
from moodal.annotation.answers import Answer
from moodal.annotation.board import STATE, Board
from moodal.annotation.database import open_database, sqlite_url
from moodal.annotation.exchange import import_votes
from moodal.annotation.following import following_board, read_board
from moodal.annotation.held import PENDING
from moodal.annotation.lead import GoldLabel, adjudicate, decide_qualification, set_gold
from moodal.annotation.protocol import (
    Assignment,
    Finished,
    Waiting,
    next_assignment,
    prepare,
    progress,
    project_settings,
    release,
    save_and_deal,
    save_answer,
    undo,
)
from moodal.annotation.schema import AnswerRow, AssignmentRow
from moodal.annotation.settings import CONDITIONS, AnnotationSettings
from moodal.types import InputError

HAPPY, SAD = Answer("happy", "weak", seconds=2.0), Answer("sad", "strong", seconds=3.0)


def given_labels(db):
    """(clip, condition, person) of every label of the main round."""
    a = AssignmentRow
    with db.read() as session:
        rows = select(a.clip, a.condition, a.person_id).where(a.round == "main", a.answer_id.is_not(None))
        return [tuple(row) for row in session.execute(rows.order_by(a.id))]


def check_complete(db, clips, k, conditions):
    """Each clip has exactly k labels of different people in each condition."""
    by_place = defaultdict(list)
    for clip, condition, person in given_labels(db):
        by_place[clip, condition].append(person)
    assert set(by_place) == {(i, c) for i in range(clips) for c in conditions}
    assert all(len(who) == len(set(who)) == k for who in by_place.values())


# --- a project from beginning to end ---


def test_four_people_label_everything_blindly_and_then_the_full_clips(database, project):
    crew = project(database, clips=12)
    rng, got = dice(1), defaultdict(list)
    waiting = {p.id: None for p in crew}
    while not all(isinstance(w, Finished) for w in waiting.values()):
        person = rng.choice(crew)
        dealt = next_assignment(database, person)
        waiting[person.id] = dealt
        if isinstance(dealt, Assignment):
            save_answer(database, person, dealt.id, HAPPY)
            got[person.id].append((dealt.clip_id, dealt.condition))
        elif isinstance(dealt, Waiting):
            assert dealt.reason == "others"
    check_complete(database, 12, 2, ("audio", "vision", "full"))
    order = given_labels(database)
    last_single = max(i for i, row in enumerate(order) if row[1] != "full")
    assert all(row[1] == "full" for row in order[last_single + 1 :])
    assert last_single == 12 * 4 - 1  # no full clip before all of them
    for mine in got.values():
        singles = [clip for clip, condition in mine if condition != "full"]
        assert len(singles) == len(set(singles)) == 12  # each clip once, in one condition or the other
        assert [c for c, _ in Counter(c for _, c in mine).items()] == list(dict.fromkeys(c for _, c in mine))


def test_a_person_labels_condition_after_condition(sqlite, project):
    crew = project(sqlite, clips=20)
    firsts = set()
    for person in crew:
        conditions = [d.condition for d in work(sqlite, person) if isinstance(d, Assignment)]
        assert len(list(dict.fromkeys(conditions))) == sum(
            1 for i, c in enumerate(conditions) if i == 0 or c != conditions[i - 1]
        )
        firsts.add(conditions[0])
    assert firsts <= {"audio", "vision"}


def test_everybody_gets_about_as_much_of_every_condition(sqlite, project):
    crew = project(sqlite, clips=400, crew=6)
    with sqlite.read() as session, following_board(sqlite, session) as board:
        shares = {(p.id, c): board.share(board.people[p.id], c) for p in crew for c in ("audio", "vision")}
    for c in ("audio", "vision"):
        assert (sum(shares[p.id, c] for p in crew) == 2).all()  # each clip is meant for two people
        assert all(100 < shares[p.id, c].sum() < 170 for p in crew)  # 133 on average
    assert not any((shares[p.id, "audio"] & shares[p.id, "vision"]).any() for p in crew)


def test_orders_are_random_for_each_person_and_the_same_again(tmp_path, project):
    def orders(name, seed):
        db = open_database(sqlite_url(tmp_path / name), clock=Clock())
        crew = project(db, clips=60, seed=seed)
        return [[d.clip_id for d in work(db, p, 8)] for p in crew]

    first, again, other = orders("a", 1), orders("b", 1), orders("c", 2)
    assert first == again
    assert first != other
    assert len({tuple(o) for o in first}) == 4
    assert all(o != sorted(o) for o in first)


def test_a_new_clip_moves_no_other(sqlite, project):
    (person,) = project(sqlite, clips=50, crew=1)
    before = _order(sqlite, person)
    prepare(sqlite, make_clips(60), AnnotationSettings())
    after = _order(sqlite, person)
    assert [c for c in after if c < 50] == before
    assert after[-10:] != list(range(50, 60))


def _order(db, person):
    with db.read() as session, following_board(db, session) as board:
        return board.order(person.id, "audio").tolist()


@given(
    clips=st.integers(1, 3),
    k=st.integers(1, 2),
    singles=st.sampled_from([("audio",), ("audio", "vision"), ("text", "audio", "vision")]),
    spare=st.integers(0, 3),
    full=st.booleans(),
    late=st.booleans(),
    seed=st.integers(0, 10_000),
)
@examples(max_examples=15)
def test_with_enough_people_everything_ends(tmp_path_factory, clips, k, singles, spare, full, late, seed):
    """k S people suffice, in whatever order they come, whoever gives clips back, whoever joins later."""
    db = open_database(sqlite_url(tmp_path_factory.mktemp("p") / "a.sqlite"), clock=Clock())
    conditions = (*singles, "full") if full else singles
    settings = AnnotationSettings(conditions=conditions, labels_per_clip=k, seed=seed)
    prepare(db, make_clips(clips, text="words"), settings)
    num = k * len(singles) + spare
    joined = 1 if late else num
    for i in range(joined):
        invite(db, f"p{i}", "annotator")
    rng, resting, met = dice(seed), set(), defaultdict(dict)
    crew = people(db)
    while len(resting) < num:
        if joined < num and (rng.random() < 0.1 or len(resting) == joined):
            invite(db, f"p{joined}", "annotator")
            joined, resting, crew = joined + 1, set(), people(db)
        person = rng.choice(crew)
        dealt = next_assignment(db, person)
        if not isinstance(dealt, Assignment):
            resting.add(person.id)
            continue
        resting = set()
        if dealt.condition != "full":
            assert met[person.id].setdefault(dealt.clip_id, dealt.condition) == dealt.condition
        if rng.random() < 0.2:
            release(db, person)
        else:
            save_answer(db, person, dealt.id, HAPPY)
    check_complete(db, clips, k, conditions)
    assert all(isinstance(next_assignment(db, p), Finished) for p in people(db))
    db.close()


@given(clips=st.integers(1, 3), k=st.integers(1, 2), crew=st.integers(1, 4), seed=st.integers(0, 10_000))
@examples(max_examples=10)
def test_where_it_cannot_end_the_sentence_names_how_many_people_it_takes(tmp_path_factory, clips, k, crew, seed):
    db = open_database(sqlite_url(tmp_path_factory.mktemp("p") / "a.sqlite"), clock=Clock())
    prepare(db, make_clips(clips), AnnotationSettings(labels_per_clip=k, seed=seed))
    for i in range(crew):
        invite(db, f"p{i}", "annotator")
    rng = dice(seed)
    for rounds in range(2):
        ends, everybody = {}, people(db)
        while len(ends) < len(everybody):
            person = rng.choice(everybody)
            dealt = next_assignment(db, person)
            if isinstance(dealt, Assignment):
                save_answer(db, person, dealt.id, HAPPY)
                ends = {}
            else:
                ends[person.id] = dealt
        missing = max(0, 2 * k - crew)
        if rounds == 0 and missing:
            assert {w.reason for w in ends.values()} == {"people"}
            people_ = "1 more person" if missing == 1 else f"{missing} more people"
            assert all(f"invite {people_}, or set a gap" in w.sentence for w in ends.values())
            for i in range(missing):
                invite(db, f"more {i}", "annotator")
        else:
            assert all(isinstance(w, Finished) for w in ends.values())
    check_complete(db, clips, k, ("audio", "vision", "full"))
    db.close()


def test_clips_without_words_have_no_text_condition(sqlite, project):
    crew = project(sqlite, clips=4, crew=6, conditions=("text", "audio", "full"), text="hello")
    prepare(sqlite, make_clips(3, prefix="silent"), project_settings(sqlite))
    for _ in range(2):
        for person in crew:
            work(sqlite, person)
    by_condition = Counter(row[1] for row in given_labels(sqlite))
    assert by_condition == {"text": 8, "audio": 14, "full": 14}


def test_words_are_shown_with_text_and_the_full_clip_only(sqlite, project):
    crew = project(sqlite, clips=4, crew=6, conditions=("text", "audio", "vision", "full"), text="hello")
    shown = {d.condition: (d.text, d.clip.text) for p in crew * 2 for d in work(sqlite, p) if isinstance(d, Assignment)}
    assert shown == {
        "text": ("hello", "hello"),
        "audio": (None, None),
        "vision": (None, None),
        "full": ("hello", "hello"),
    }


def test_an_assignment_says_where_its_person_is(sqlite, project):
    (person,) = project(sqlite, clips=3, crew=1, conditions=("audio",), labels_per_clip=1)
    seen = [d for d in work(sqlite, person) if isinstance(d, Assignment)]
    assert [(d.done, d.total) for d in seen] == [(0, 3), (1, 3), (2, 3)]
    assert {d.duration_s for d in seen} == {2.5}
    assert progress(sqlite, person).given == {"audio": 3}
    assert (progress(sqlite, person).total, progress(sqlite, person).seats) == (3, 3)


# --- the gap ---


def test_with_a_gap_two_people_can_do_what_takes_four(sqlite, project, clock):
    crew = project(sqlite, clips=6, crew=2, gap_days=7, gap_clips=2)
    first = [work(sqlite, p) for p in crew]
    assert all(got[-1].reason == "gap" and "come back after" in got[-1].sentence for got in first)
    assert len(given_labels(sqlite)) == 12
    for _ in range(2):
        clock.pass_(days=7.1)
        for person in crew:
            work(sqlite, person)
    check_complete(sqlite, 6, 2, ("audio", "vision", "full"))


def test_a_gap_in_clips_holds_between_meetings(sqlite, project):
    crew = project(sqlite, clips=12, crew=2, gap_clips=5, conditions=("audio", "vision"))
    for person in crew:
        at = defaultdict(list)
        for i, dealt in enumerate(work(sqlite, person)):
            if isinstance(dealt, Assignment):
                at[dealt.clip_id].append(i)
        assert all(b - a > 5 for places in at.values() for a, b in pairwise(places))
        assert max(map(len, at.values())) == 2


def test_a_gap_too_long_for_what_is_left_says_so(sqlite, project):
    (person,) = project(sqlite, clips=2, crew=1, labels_per_clip=1, gap_clips=50)
    got = work(sqlite, person)
    assert got[-1].reason == "gap"
    assert "set a smaller gap_clips" in got[-1].sentence


# --- many at once ---


def test_sixteen_threads_never_share_a_seat(database, project):
    crew = project(database, clips=10, crew=16)

    def label(person):
        for _ in range(8):
            dealt = next_assignment(database, person)
            if not isinstance(dealt, Assignment):
                break
            save_answer(database, person, dealt.id, HAPPY)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(label, crew))
    rows = given_labels(database)
    assert len(rows) == len(set(rows))
    places = Counter((clip, condition) for clip, condition, _ in rows)
    assert max(places.values()) <= 2
    for person in crew:  # nobody was stranded by the race
        label(person)
    by_person = defaultdict(set)
    for clip, condition, person in given_labels(database):
        if condition != "full":
            by_person[clip].add((person, condition))
    assert all(len(who) == len({p for p, _ in who}) for who in by_person.values())


def test_two_servers_deal_from_one_project(url, database, project):
    """Each follows what the other has written."""
    crew = project(database, clips=6)
    other = open_database(url, clock=database.clock)

    def label(i):
        for _ in range(6):
            work((database, other)[i % 2], crew[i // 2], 2, lambda _: HAPPY)

    for _ in range(2):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(label, range(8)))
    other.close()
    check_complete(database, 6, 2, ("audio", "vision", "full"))


def test_one_person_who_asks_twice_at_once_holds_one_clip(database, project):
    person = project(database, clips=30)[0]
    with ThreadPoolExecutor(8) as pool:
        dealt = list(pool.map(lambda _: next_assignment(database, person), range(8)))
    assert len({d.id for d in dealt}) == 1


def test_the_database_itself_refuses_a_seat_that_is_taken(database, project):
    first, second, *_ = project(database, clips=1)
    dealt = next_assignment(database, first)
    row = dict(clip=0, condition=dealt.condition, round="main", attempt=0, claimed_at_s=0.0)  # noqa: C408
    for taken in ({"seat": 0, "person_id": second.id}, {"seat": 1, "person_id": first.id}):
        with pytest.raises(IntegrityError), database.write() as session:
            session.execute(insert(AssignmentRow), [{**row, **taken}])


# --- holding, giving back, going back ---


def test_what_is_held_is_given_again_to_its_person_and_nobody_else(database, project):
    crew = project(database, clips=1, conditions=("audio",), labels_per_clip=1)
    held = next_assignment(database, crew[0])
    assert next_assignment(database, crew[0]).id == held.id
    other = next_assignment(database, crew[1])
    assert isinstance(other, Waiting)
    assert other.reason == "others"


def test_what_is_held_too_long_goes_to_somebody_else(database, project, clock):
    crew = project(database, clips=1, conditions=("audio",), labels_per_clip=1, crew=2)
    held = next_assignment(database, crew[0])
    clock.pass_(minutes=31)
    assert next_assignment(database, crew[1]).clip_id == held.clip_id
    with pytest.raises(InputError, match="too long and it is not yours any more"):
        save_answer(database, crew[0], held.id, HAPPY)


def test_a_late_answer_counts_while_nobody_else_has_the_clip(database, project, clock):
    crew = project(database, clips=4, conditions=("audio",), labels_per_clip=1, crew=2)
    held = next_assignment(database, crew[0])
    clock.pass_(minutes=31)
    other = next_assignment(database, crew[1])
    assert other.clip_id != held.clip_id
    for _ in range(2):  # and sent twice it is still one
        save_answer(database, crew[0], held.id, HAPPY)
    assert len(given_labels(database)) == 1
    assert len({row for p in crew for row in [(d.clip_id) for d in work(database, p)[:-1]]}) == 3
    check_complete(database, 4, 1, ("audio",))


def test_what_is_given_back_is_free_and_still_met(database, project):
    crew = project(database, clips=1, labels_per_clip=1, crew=2)
    first = next_assignment(database, crew[0])
    release(database, crew[0])
    again = next_assignment(database, crew[0])
    assert (again.clip_id, again.condition) == (first.clip_id, first.condition)
    assert again.id != first.id


def test_the_clips_of_a_closed_account_are_free_when_its_time_is_up(database, project, clock):
    crew = project(database, clips=1, conditions=("audio",), labels_per_clip=1, crew=2)
    next_assignment(database, crew[0])
    deactivate(database, crew[0].id)
    clock.pass_(minutes=31)
    assert isinstance(next_assignment(database, crew[1]), Assignment)


def test_going_back_shows_the_answer_and_keeps_it_until_there_is_another(database, project):
    person = project(database, clips=10)[0]
    first = next_assignment(database, person)
    save_answer(database, person, first.id, HAPPY)
    second = next_assignment(database, person)
    back = undo(database, person)
    assert (back.id, back.previous, back.done) == (first.id, HAPPY, 0)
    assert next_assignment(database, person).id == first.id  # a page that is loaded again shows it again
    assert len(given_labels(database)) == 1
    save_answer(database, person, first.id, SAD)
    assert next_assignment(database, person).id == second.id
    assert _history(database) == [("happy", False), ("sad", True)]


def test_going_back_twice_and_forward_again(sqlite, project):
    person = project(sqlite, clips=40)[0]
    ids = [d.id for d in work(sqlite, person, 3)]
    held = next_assignment(sqlite, person)
    assert [undo(sqlite, person).id for _ in range(2)] == ids[:0:-1]
    walked = []
    for _ in range(2):
        dealt = next_assignment(sqlite, person)
        walked.append(dealt.id)
        save_answer(sqlite, person, dealt.id, dealt.previous)
    assert walked == ids[1:]
    assert next_assignment(sqlite, person).id == held.id
    assert len(_history(sqlite)) == 3  # the same answers again are none


def test_there_is_nothing_before_the_first_clip(sqlite, project):
    person = project(sqlite, clips=40)[0]
    with pytest.raises(InputError, match="nothing to go back to"):
        undo(sqlite, person)
    work(sqlite, person, 1)
    next_assignment(sqlite, person)
    undo(sqlite, person)
    with pytest.raises(InputError, match="nothing to go back to"):
        undo(sqlite, person)


def test_an_answer_is_not_corrected_with_what_was_seen_since(sqlite, project):
    (person,) = project(sqlite, clips=1, crew=1, conditions=("audio", "full"), labels_per_clip=1)
    audio = next_assignment(sqlite, person)
    save_answer(sqlite, person, audio.id, HAPPY)
    full = next_assignment(sqlite, person)
    assert full.condition == "full"
    with pytest.raises(InputError, match="in another form since"):
        save_answer(sqlite, person, audio.id, SAD)
    save_answer(sqlite, person, audio.id, HAPPY)  # sent twice is no correction
    with pytest.raises(InputError, match="in another form since"):
        undo(sqlite, person)


def test_who_saw_the_whole_clip_and_gave_it_back_corrects_nothing(database, project):
    (person,) = project(database, clips=1, crew=1, conditions=("audio", "full"), labels_per_clip=1)
    audio = next_assignment(database, person)
    save_answer(database, person, audio.id, HAPPY)
    assert next_assignment(database, person).condition == "full"
    release(database, person)  # as when signing out
    with pytest.raises(InputError, match="in another form since"):
        undo(database, person)
    with pytest.raises(InputError, match="in another form since"):
        save_answer(database, person, audio.id, SAD)


def test_the_last_answer_of_a_pass_can_be_corrected_from_the_next_one(sqlite, project):
    person = project(sqlite, clips=20)[0]
    last = next_assignment(sqlite, person)
    while True:
        save_answer(sqlite, person, last.id, HAPPY)
        dealt = next_assignment(sqlite, person)
        if dealt.condition != last.condition:
            break
        last = dealt
    assert (undo(sqlite, person).id, dealt.condition != last.condition) == (last.id, True)
    save_answer(sqlite, person, last.id, SAD)
    assert next_assignment(sqlite, person).id == dealt.id  # and on where he was
    assert _history(sqlite)[-2:] == [("happy", False), ("sad", True)]


def test_nothing_said_of_sound_or_picture_changes_once_whole_clips_are_seen(sqlite, project):
    (person,) = project(sqlite, clips=3, crew=1, conditions=("audio", "full"), labels_per_clip=1)
    given = []
    while (dealt := next_assignment(sqlite, person)).condition == "audio":
        save_answer(sqlite, person, dealt.id, HAPPY)
        given.append(dealt)
    other = next(d for d in given if d.clip_id != dealt.clip_id)
    with pytest.raises(InputError, match="since"):
        undo(sqlite, person)
    with pytest.raises(InputError, match="seen whole clips since"):
        save_answer(sqlite, person, other.id, SAD)


def test_an_answer_and_the_next_clip_are_one_write(database, project):
    crew = project(database, clips=8)
    dealt, seen = next_assignment(database, crew[0]), []
    for _ in range(3):
        save_and_deal(database, crew[0], dealt.id, HAPPY)
        with database.read() as session:
            (held,) = session.scalars(select(AssignmentRow.id).where(AssignmentRow.answer_id.is_(None)))
        dealt = next_assignment(database, crew[0])
        assert dealt.id == held
        seen.append(dealt.id)
    assert [label for label, counts in _history(database) if counts] == ["happy"] * 3
    save_and_deal(database, crew[0], seen[0], SAD)  # a correction deals nothing: he has one
    assert next_assignment(database, crew[0]).id == dealt.id


def test_an_answer_whose_time_was_up_is_kept_whoever_deals(database, project, clock):
    crew = project(database, clips=4, conditions=("audio",), labels_per_clip=1, crew=2)
    late = next_assignment(database, crew[0])
    clock.pass_(minutes=31)
    assert next_assignment(database, crew[1]).clip_id  # frees it
    save_and_deal(database, crew[0], late.id, HAPPY)
    with database.read() as session, following_board(database, session) as board:
        anew = read_board(session)
        anew.refresh(session, session.execute(STATE).one())
        assert (board.taken == anew.taken).all()
    work(database, crew[0])
    work(database, crew[1])
    check_complete(database, 4, 1, ("audio",))


def test_votes_of_a_far_future_break_no_page(sqlite, project, tmp_path):
    crew = project(sqlite, clips=3, gap_clips=0)
    table = tmp_path / "votes.csv"
    table.write_text("clip,condition,annotator,label,at\nclip-0000,audio,Zoe,sad,9999-01-01T00:00:00Z\n")
    assert import_votes(sqlite, table) == 1
    assert isinstance(next_assignment(sqlite, crew[0]), Assignment)


def test_an_answer_that_was_decided_about_stays(sqlite, project):
    person = project(sqlite, clips=1, crew=1)[0]
    lead = join(sqlite, "lead", "lead")
    dealt = next_assignment(sqlite, person)
    save_answer(sqlite, person, dealt.id, HAPPY)
    adjudicate(sqlite, lead, dealt.clip_id, dealt.condition, SAD)
    with pytest.raises(InputError, match="lead has decided"):
        save_answer(sqlite, person, dealt.id, SAD)


# --- answers ---


def _history(db):
    """(label, whether it counts) of every answer, in order."""
    with db.read() as session:
        rows = select(AnswerRow.label, AssignmentRow.answer_id == AnswerRow.id).join(
            AssignmentRow, AssignmentRow.id == AnswerRow.assignment_id
        )
        return [(label, bool(counts)) for label, counts in session.execute(rows.order_by(AnswerRow.id))]


def test_the_same_answer_twice_is_one_and_another_is_a_correction(database, project):
    person = project(database)[0]
    dealt = next_assignment(database, person)
    for answer in (HAPPY, HAPPY, SAD, SAD, HAPPY):
        save_answer(database, person, dealt.id, answer)
    assert _history(database) == [("happy", False), ("sad", False), ("happy", True)]


def test_the_same_answer_from_many_threads_is_one(database, project):
    person = project(database)[0]
    dealt = next_assignment(database, person)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: save_answer(database, person, dealt.id, HAPPY), range(8)))
    assert _history(database) == [("happy", True)]


def test_nobody_answers_for_somebody_else(database, project):
    first, second, *_ = project(database)
    dealt = next_assignment(database, first)
    for foreign in (dealt.id, 999_999):
        with pytest.raises(InputError, match="not yours"):
            save_answer(database, second, foreign, HAPPY)
    assert not given_labels(database)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer("joy", "weak"), "no label called 'joy'"),
        (Answer("happy"), "say how happy it is: weak or strong"),
        (Answer("happy", "very"), "no intensity called 'very'"),
        (Answer("compound", "weak"), "'compound' has no intensity"),
        (Answer("invalid"), "say why the clip is invalid"),
        (Answer("invalid", reason="  "), "say why the clip is invalid"),
        (Answer("neutral", comment="x" * 2001), "2001 characters"),
        (Answer("neutral", comment="a\0b"), "no text"),
        (Answer("neutral", reason="\ud800"), "no text"),
        (Answer("neutral", seconds=float("nan")), "time an answer took"),
        (Answer("neutral", seconds=-1.0), "time an answer took"),
    ],
)
def test_what_is_no_answer_is_refused(sqlite, project, answer, said):
    person = project(sqlite)[0]
    dealt = next_assignment(sqlite, person)
    with pytest.raises(InputError, match=said):
        save_answer(sqlite, person, dealt.id, answer)
    assert not given_labels(sqlite)


def test_every_answer_comes_back_as_it_was(database, project):
    person = project(database, conditions=("audio",))[0]
    answers = [
        Answer("neutral"),
        Answer("neutral", "weak"),
        Answer("disgusted", "strong", None, "=1+1 「悲しい」 \u202e", 0.25),
        Answer("compound", None, None, "both"),
        Answer("invalid", None, "two voices", None, 12.5),
    ]
    rest = iter(answers)
    work(database, person, len(answers), lambda _: next(rest))
    assert [undo(database, person).previous for _ in answers] == answers[::-1]


# --- qualification ---


@pytest.fixture
def qualified(sqlite, project):
    """A project whose people first answer two gold clips, and need both."""
    crew = project(
        sqlite, clips=12, crew=2, conditions=("audio",), qualification=2, qualification_share=1.0, labels_per_clip=1
    )
    lead = join(sqlite, "lead", "lead")
    set_gold(sqlite, lead, [GoldLabel(f"clip-{i:04d}", "audio", "happy") for i in range(3)])
    return sqlite, crew, lead


def test_who_answers_the_gold_clips_right_goes_on_to_the_others(qualified):
    db, (person, _), _ = qualified
    got = work(db, person, say=lambda d: HAPPY)
    rounds = [(d.round, d.done, d.total) for d in got[:3]]
    assert rounds == [
        ("qualification", 0, 2),
        ("qualification", 1, 2),
        ("main", 0, 4),
    ]  # of the nine left he can expect about half, there are two people
    assert {d.clip_id for d in got[:2]} < {"clip-0000", "clip-0001", "clip-0002"}
    assert isinstance(got[-1], Finished)
    labelled = {clip for clip, _, _ in given_labels(db)}
    assert labelled == set(range(3, 12))  # gold clips take no part, and their answers are no votes


def test_who_answers_them_wrong_waits_for_the_lead(qualified):
    db, (person, other), lead = qualified
    got = work(db, person, say=lambda d: SAD)
    assert len(got) == 3
    assert got[-1].reason == "qualification"
    assert "talk to your lead" in got[-1].sentence
    with pytest.raises(InputError, match="qualification is over"):
        save_answer(db, person, got[0].id, HAPPY)
    decide_qualification(db, lead, person.id, "audio", passed=False)
    again = work(db, person, 2, say=lambda d: SAD)
    assert [d.round for d in again] == ["qualification"] * 2
    assert isinstance(next_assignment(db, person), Waiting)
    decide_qualification(db, lead, person.id, "audio", passed=True)
    assert next_assignment(db, person).round == "main"
    assert next_assignment(db, other).round == "qualification"


def test_without_gold_clips_nobody_can_begin(sqlite, project):
    person = project(sqlite, qualification=3)[0]
    waiting = next_assignment(sqlite, person)
    assert waiting.reason == "qualification"
    assert "3 clips whose labels are known" in waiting.sentence


# --- preparing ---


def test_preparing_again_adds_only_what_is_new(database, project):
    settings = AnnotationSettings()
    assert prepare(database, make_clips(3), settings) == 3
    assert prepare(database, make_clips(3), settings) == 0
    assert prepare(database, make_clips(5), settings) == 2
    with database.read() as session, following_board(database, session) as board:
        assert board.num_clips == 5


def test_a_clip_that_changed_is_taken_before_labelling_and_refused_after(sqlite, project):
    person = project(sqlite, clips=3)[0]
    moved = [*make_clips(2), make_clips(3)[2].__class__("clip-0002", "videos/0.mp4", "0", 5.0, 6.0)]
    prepare(sqlite, moved, AnnotationSettings())
    dealt = next_assignment(sqlite, person)
    save_answer(sqlite, person, dealt.id, HAPPY)
    with pytest.raises(InputError, match="'clip-0002' is not what it was when labelling began"):
        prepare(sqlite, make_clips(3), AnnotationSettings())


def test_two_clips_of_one_name_are_refused(sqlite):
    with pytest.raises(InputError, match="two clips are called 'clip-0000'"):
        prepare(sqlite, make_clips(1) * 2, AnnotationSettings())


def test_nothing_is_dealt_before_there_is_a_project(sqlite):
    person = join(sqlite, "a", "annotator")
    with pytest.raises(InputError, match="nothing is prepared"):
        next_assignment(sqlite, person)
    with pytest.raises(InputError, match="nothing is prepared"):
        project_settings(sqlite)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"emotions": ("happy", "sad")}, "emotions cannot change"),
        ({"intensities": ()}, "intensities cannot change"),
        ({"seed": 7}, "the seed cannot change"),
        ({"conditions": ("full",)}, "cannot go: 4 labels"),
        ({"labels_per_clip": 1}, "labels_per_clip cannot be 1"),
    ],
)
def test_settings_that_would_break_labels_are_refused(sqlite, project, change, said):
    crew = project(sqlite, clips=2, crew=4, conditions=("audio", "full"))
    for person in crew:
        work(sqlite, person, 1)
        dealt = next_assignment(sqlite, person)
        if isinstance(dealt, Assignment):
            release(sqlite, person)
    with pytest.raises(InputError, match=said):
        prepare(sqlite, make_clips(2), AnnotationSettings(**{"conditions": ("audio", "full"), **change}))
    assert project_settings(sqlite) == AnnotationSettings(conditions=("audio", "full"))


def test_no_pass_begins_after_a_whole_clip_was_only_seen(sqlite, project):
    (person,) = project(sqlite, clips=1, crew=1, text="Hello.", conditions=("full",), labels_per_clip=1)
    next_assignment(sqlite, person)
    release(sqlite, person)
    wider = AnnotationSettings(conditions=("text", "full"), labels_per_clip=1)
    with pytest.raises(InputError, match="already seen full clips"):
        prepare(sqlite, make_clips(1, text="Hello."), wider)


def test_clips_that_come_later_wait_for_no_whole_clip_and_are_met_blindly(sqlite, project):
    crew = project(sqlite, clips=4)
    for _ in range(40):
        for person in crew:
            work(sqlite, person, 1)
        if any(row[1] == "full" for row in given_labels(sqlite)):
            break
    before = len(given_labels(sqlite))
    prepare(sqlite, make_clips(8), AnnotationSettings())
    for _ in range(60):
        for person in crew:
            work(sqlite, person, 1)
    check_complete(sqlite, 8, 2, ("audio", "vision", "full"))
    met = defaultdict(list)
    for clip, condition, person in given_labels(sqlite):
        met[clip, person].append(condition)
    assert all(c[-1] == "full" and len(c) <= 2 for c in met.values() if len(c) > 1)
    later = given_labels(sqlite)[before:]
    first_full = next(i for i, row in enumerate(later) if row[1] == "full")
    assert sum(row[1] != "full" for row in later[:first_full]) == 4 * 4


def test_settings_that_break_nothing_may_change(sqlite, project):
    crew = project(sqlite, clips=2, crew=4)
    work(sqlite, crew[0], 1)
    wider = AnnotationSettings(conditions=CONDITIONS, labels_per_clip=3, hold_minutes=5, gap_days=2)
    prepare(sqlite, make_clips(2), wider)
    assert project_settings(sqlite) == wider


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"conditions": ("audio", "smell")}, "no condition called 'smell'"),
        ({"conditions": ()}, "need 1 or more"),
        ({"emotions": ("happy", "invalid")}, "'invalid' is a special answer"),
        ({"labels_per_clip": 0}, "labels_per_clip must be between 1"),
        ({"qualification_share": float("nan")}, "qualification_share must be between"),
        ({"gap_days": -1}, "gap_days must be between"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, said):
    with pytest.raises(InputError, match=said):
        AnnotationSettings(**wrong)


def test_a_lead_does_not_label(sqlite, project):
    project(sqlite)
    with pytest.raises(InputError, match="a lead decides"):
        next_assignment(sqlite, join(sqlite, "lead", "lead"))


def test_what_a_person_holds_is_found_without_reading_what_he_did(sqlite):
    with sqlite.read() as session:
        asked = str(PENDING.compile(sqlite.engine))
        plan = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {asked}", (1, 0, 1)).all()
    used = " ".join(row[3] for row in plan)
    assert "ix_assignment_held" in used
    assert "ix_assignment_reopened" in used
    assert "SCAN" not in used


# --- the board follows the database ---


def test_a_board_that_followed_is_the_board_read_anew(database, project, clock):
    crew = project(database, clips=8, crew=5, gap_clips=3)
    rng = dice(4)
    for _ in range(60):
        person = rng.choice(crew)
        dealt = next_assignment(database, person)
        if isinstance(dealt, Assignment):
            if rng.random() < 0.3:
                release(database, person)
            else:
                save_answer(database, person, dealt.id, HAPPY)
        clock.pass_(minutes=rng.choice([0, 0, 40]))
    with database.read() as session, following_board(database, session) as followed:
        del database.memory["board"]
        with following_board(database, session) as anew:
            _same_boards(followed, anew)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(AssignmentRow)) == anew.taken.sum()


def _same_boards(a: Board, b: Board) -> None:
    assert a.people == b.people
    rows = len(a.people)
    for name in ("taken", "met", "has"):
        x, y = getattr(a, name), getattr(b, name)
        np.testing.assert_array_equal(x[:rows] if name != "taken" else x, y[:rows] if name != "taken" else y)
