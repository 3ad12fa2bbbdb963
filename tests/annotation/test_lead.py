"""What the lead sees and decides."""

import math

import numpy as np
import pytest
from tests.annotation.conftest import dice, join, work

from moodal.agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha
from moodal.annotation.accounts import deactivate, invite
from moodal.annotation.answers import Answer
from moodal.annotation.ballots import Ballots, following_ballots
from moodal.annotation.drift import holm
from moodal.annotation.lead import (
    Given,
    GoldLabel,
    adjudicate,
    decide_qualification,
    disagreements,
    gold_from_decisions,
    num_disagreements,
    overview,
    said_of,
    set_gold,
)
from moodal.annotation.overview import compute_overview
from moodal.annotation.protocol import Assignment, next_assignment, save_answer, undo
from moodal.annotation.votes import Vote, keep_votes
from moodal.types import InputError


@pytest.fixture
def lead(database):
    return join(database, "lead", "lead")


def said(db, votes, condition="audio", start_s=0.0):
    """Votes from a table: ``{"clip-0000": {"Ada": "happy", ...}}``."""
    rows = [
        Vote(clip, condition, name, Answer(label, seconds=2.0), start_s + i, "main")
        for i, (clip, by) in enumerate(votes.items())
        for name, label in by.items()
    ]
    keep_votes(db, rows)


# --- disagreements and decisions ---


def test_only_complete_clips_with_different_labels_are_disagreements(database, project, lead):
    project(database, crew=0)
    said(database, {"clip-0000": {"A": "happy", "B": "sad"}, "clip-0001": {"A": "sad", "B": "sad"}})
    said(database, {"clip-0002": {"A": "sad"}, "clip-0003": {"B": "sad", "C": "compound"}})
    said(database, {"clip-0004": {"A": "sad", "B": "happy"}}, "vision")
    assert [(d.clip_id, d.condition) for d in disagreements(database)] == [
        ("clip-0000", "audio"),
        ("clip-0003", "audio"),
        ("clip-0004", "vision"),
    ]
    (found,) = disagreements(database, "vision")
    assert found.answers == (Given("A", Answer("sad", seconds=2.0)), Given("B", Answer("happy", seconds=2.0)))
    with pytest.raises(InputError, match="no condition called 'smell'"):
        disagreements(database, "smell")


@pytest.fixture
def quarrel(sqlite, project):
    """20,000 clips on which two people differ."""
    project(sqlite, clips=20_000, crew=0, conditions=("audio",))
    said(sqlite, {f"clip-{i:04d}": {"A": "sad", "B": "angry"} for i in range(20_000)})
    return sqlite


def test_of_twenty_thousand_disagreements_a_page_reads_its_own(quarrel, monkeypatch):
    assert num_disagreements(quarrel) == 20_000
    read = []
    monkeypatch.setattr(Ballots, "answer", lambda self, place: read.append(place) or Answer("sad"))
    part = disagreements(quarrel, "audio", first=19_900, most=200)
    assert [d.clip_id for d in part] == [f"clip-{i:04d}" for i in range(19_900, 20_000)]
    assert said_of(quarrel, "clip-0007", "audio").clip_id == "clip-0007"
    assert len(read) == 2 * 101  # and of no other clip
    adjudicate(quarrel, join(quarrel, "lead", "lead"), "clip-0000", "audio", Answer("angry", "weak"))
    assert num_disagreements(quarrel) == 19_999
    assert disagreements(quarrel, "audio", most=1)[0].clip_id == "clip-0001"


def test_what_was_said_of_a_clip_is_there_before_all_have_spoken(sqlite, project):
    person = project(sqlite, clips=1)[0]
    dealt = next_assignment(sqlite, person)
    assert said_of(sqlite, dealt.clip_id, dealt.condition) is None
    assert said_of(sqlite, "nothing", "audio") is None
    save_answer(sqlite, person, dealt.id, Answer("neutral"))
    (given,) = said_of(sqlite, dealt.clip_id, dealt.condition).answers
    assert (given.annotator, given.answer.label) == (person.name, "neutral")


def test_intensities_may_count_too(database, project, lead):
    crew = project(database, clips=1, crew=2, conditions=("audio",))
    for person, strength in zip(crew, ("weak", "strong"), strict=True):
        work(database, person, 1, lambda _, s=strength: Answer("happy", s))
    assert not disagreements(database)
    assert len(disagreements(database, intensity=True)) == 1


def test_a_correction_ends_a_disagreement(database, project):
    crew = project(database, clips=1, crew=2, conditions=("audio",))
    for person, label in zip(crew, ("neutral", "compound"), strict=True):
        work(database, person, 1, lambda _, name=label: Answer(name))
    assert len(disagreements(database)) == 1
    back = undo(database, crew[1])
    save_answer(database, crew[1], back.id, Answer("neutral"))
    assert not disagreements(database)
    assert compute_overview(database).people[1]["corrected"] == 1


def test_the_lead_has_the_last_word_and_may_change_it(database, project, lead):
    project(database, crew=0)
    said(database, {"clip-0000": {"A": "happy", "B": "sad"}})
    adjudicate(database, lead, "clip-0000", "audio", Answer("sad", "weak"))
    assert not disagreements(database)
    (found,) = disagreements(database, decided=True)
    assert found.decision == Answer("sad", "weak")
    other = join(database, "other lead", "lead")
    adjudicate(database, other, "clip-0000", "audio", Answer("neutral"))
    assert disagreements(database, decided=True)[0].decision == Answer("neutral")


def test_what_cannot_be_decided_is_refused(database, project, lead):
    (person,) = project(database, crew=1)
    said(database, {"clip-0000": {"A": "happy", "B": "sad"}})
    for who, clip, condition, answer, said_ in (
        (person, "clip-0000", "audio", Answer("neutral"), "only a lead"),
        (lead, "clip-9999", "audio", Answer("neutral"), "no clip called"),
        (lead, "clip-0000", "smell", Answer("neutral"), "no condition called"),
        (lead, "clip-0000", "vision", Answer("neutral"), "nobody has labelled"),
        (lead, "clip-0000", "audio", Answer("joy"), "no label called"),
    ):
        with pytest.raises(InputError, match=said_):
            adjudicate(database, who, clip, condition, answer)


# --- gold ---


def test_decided_clips_become_gold(database, project, lead):
    project(database, crew=0)
    said(database, {f"clip-000{i}": {"A": "happy", "B": "sad"} for i in range(2)})
    adjudicate(database, lead, "clip-0000", "audio", Answer("sad", "weak"))
    adjudicate(database, lead, "clip-0001", "audio", Answer("invalid", reason="noise"))
    assert gold_from_decisions(database, lead) == 1
    assert gold_from_decisions(database, lead) == 0


def test_gold_that_cannot_be_is_refused_whole(database, project, lead):
    (person,) = project(database, crew=1)
    good = GoldLabel("clip-0000", "audio", "happy")
    for wrong, said_ in (
        (GoldLabel("clip-9999", "audio", "happy"), "gold label 2: there is no clip"),
        (GoldLabel("clip-0001", "smell", "happy"), "gold label 2: no condition"),
        (GoldLabel("clip-0001", "audio", "compound"), "gold label 2: no emotion"),
        (GoldLabel("clip-0000", "audio", "sad"), "gold label 2: 'clip-0000' is already 'happy'"),
    ):
        with pytest.raises(InputError, match=said_):
            set_gold(database, lead, [good, wrong])
    assert set_gold(database, lead, [good, good]) == 1
    with pytest.raises(InputError, match="only a lead"):
        set_gold(database, person, [good])


def test_qualification_is_decided_for_people_and_conditions_there_are(database, project, lead):
    project(database, crew=1)
    for number, condition, said_ in ((99, "audio", "no person number 99"), (1, "smell", "no condition called")):
        with pytest.raises(InputError, match=said_):
            decide_qualification(database, lead, number, condition, passed=True)


# --- the overview ---


@pytest.fixture
def noisy(sqlite, project):
    """Four people label 40 clips in two conditions and the full clip; each is right four times in five."""
    crew = project(sqlite, clips=40, crew=4)
    rng = dice(5)
    truth = {f"clip-{i:04d}": rng.choice(["neutral", "compound", "invalid"]) for i in range(40)}

    def say(dealt):
        label = truth[dealt.clip_id] if rng.random() < 0.8 else "neutral"
        return Answer(label, None, "noise" if label == "invalid" else None, None, rng.uniform(1, 3))

    for _ in range(2):
        for person in crew:
            work(sqlite, person, say=say)
    return sqlite


def test_the_overview_says_what_the_statistics_say(noisy):
    found = compute_overview(noisy)
    with noisy.read() as session, following_ballots(noisy, session) as ballots:
        counts = {c: ballots.counts(c) for c in ("audio", "vision", "full")}
        label, person = ballots.label[3], ballots.person[3]
    for row in found.agreement:
        assert row["alpha"] == pytest.approx(krippendorff_alpha(counts[row["condition"]]))
        assert row["fleiss"] == pytest.approx(fleiss_kappa(counts[row["condition"]]))
        assert row["alpha_low"] < row["alpha"] < row["alpha_high"]
    pair = next(row for row in found.pairs if row["condition"] == "full")
    ids = {f"person {i - 1}": i for i in range(1, 5)}
    first, second = ids[pair["first"]], ids[pair["second"]]
    both = [(x[list(p).index(first)], x[list(p).index(second)]) for x, p in zip(label, person, strict=True)
            if {first, second} <= set(p.tolist())]  # fmt: skip
    assert pair["clips"] == len(both)
    assert pair["kappa"] == pytest.approx(cohen_kappa(*np.array(both).T), nan_ok=True)
    assert [row["given"] for row in found.conditions] == [80, 80, 80]
    assert sum(row["given"] for row in found.people) == 240
    assert found.sentence is None
    for table in (found.conditions, found.people, found.agreement, found.pairs, found.against_others, found.drift):
        assert table
        assert len({tuple(row) for row in table}) == 1  # every row has the same keys


def test_the_confusion_of_conditions_counts_each_clip_once(database, project, lead):
    """By the lead's word, else the most votes; where two labels have as many, the clip counts nowhere."""
    project(database, crew=0)
    said(database, {f"clip-000{i}": {"A": "happy", "B": "sad" if i < 2 else "happy"} for i in range(4)}, "full")
    said(database, {f"clip-000{i}": {"A": "sad", "B": "sad"} for i in range(4)})
    adjudicate(database, lead, "clip-0000", "full", Answer("sad", "weak"))
    rows = [row for row in compute_overview(database).confusion if row["second"] == "audio"]
    assert [(row["first"], row["label"], row["sad"], row["happy"]) for row in rows] == [
        ("full", "happy", 2, 0),
        ("full", "sad", 1, 0),
    ]


def test_agreement_with_the_others_is_by_hand_what_it_is(database, project):
    project(database, crew=0)
    said(database, {
        "clip-0000": {"A": "happy", "B": "happy"},
        "clip-0001": {"A": "happy", "B": "sad"},
        "clip-0002": {"A": "sad", "C": "sad"},
        "clip-0003": {"A": "sad"},
    })  # fmt: skip
    found = {row["annotator"]: (row["clips"], row["percent"]) for row in compute_overview(database).against_others}
    assert found == {"A": (3, pytest.approx(2 / 3)), "B": (2, 0.5), "C": (1, 1.0)}


def test_somebody_who_changes_in_the_middle_is_flagged_and_nobody_else(sqlite, project):
    project(sqlite, clips=200, crew=0)
    rng, rows = dice(3), []
    for i in range(200):
        truth = rng.choice(["happy", "sad", "neutral"])
        late = i >= 100
        for name in ("steady", "tired"):
            is_tired = name == "tired" and late
            label = "neutral" if is_tired and rng.random() < 0.7 else truth
            seconds = rng.uniform(1, 2) if is_tired else rng.uniform(2, 4)
            rows.append(Vote(f"clip-{i:04d}", "audio", name, Answer(label, seconds=seconds), float(i), "main"))
    keep_votes(sqlite, rows)
    found = {(row["annotator"], row["measure"].split()[0]): row for row in compute_overview(sqlite).drift}
    assert {key for key, row in found.items() if row["flagged"]} == {
        ("tired", "agreement"),
        ("steady", "agreement"),  # with two people, who disagrees is not to be seen from agreement alone
        ("tired", "seconds"),
        ("tired", "labels"),
    }
    blocks = [found["tired", "seconds"][f"block_{i}"] for i in range(1, 6)]
    assert blocks[0] > 2.5 > 2.0 > blocks[-1]


def test_nobody_is_flagged_for_chance(sqlite, project):
    """Holm's correction: of 20 people who do not change, a flag is rarer than one project in twenty."""
    project(sqlite, clips=100, crew=0, labels_per_clip=20)
    rng = dice(11)
    names = [f"p{i}" for i in range(20)]
    votes = [
        Vote(f"clip-{i:04d}", "audio", name, Answer(rng.choice(["happy", "sad"]), seconds=rng.random()), i, "main")
        for i in range(100)
        for name in names
    ]
    keep_votes(sqlite, votes)
    found = compute_overview(sqlite).drift
    assert len(found) == 60
    assert min(row["p"] for row in found) > 0.05
    assert not any(row["flagged"] for row in found)


def test_holm_is_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_an_empty_project_has_an_overview(database, project):
    project(database, clips=3, crew=1)
    found = overview(database)
    assert "invite 3 more people" in found.sentence
    assert [row["given"] for row in found.conditions] == [0, 0, 0]
    assert found.agreement[0]["alpha"] is None
    assert not found.pairs
    assert not any(isinstance(v, float) and math.isnan(v) for row in found.agreement for v in row.values())
    assert found.as_dict()["conditions"] == found.conditions


def test_the_overview_is_computed_at_most_once_a_minute(sqlite, project, monkeypatch):
    (person,) = project(sqlite, clips=3, crew=1)
    first = overview(sqlite)
    dealt = next_assignment(sqlite, person)
    assert isinstance(dealt, Assignment)
    save_answer(sqlite, person, dealt.id, Answer("neutral"))
    assert overview(sqlite) is first
    monkeypatch.setattr("moodal.annotation.overview.FRESH_S", 0.0)
    assert overview(sqlite) is not first


def test_the_lead_reads_for_whom_the_others_wait(sqlite, project):
    crew = project(sqlite, clips=6)
    assert compute_overview(sqlite).sentence is None
    for person in crew[:3]:
        work(sqlite, person)
    waits = compute_overview(sqlite).sentence
    assert "only for person 3; the others wait" in waits
    deactivate(sqlite, crew[3].id)
    assert "invite 1 more person" in compute_overview(sqlite).sentence


def test_the_way_out_is_named_when_people_leave(sqlite, project):
    crew = project(sqlite, clips=5, crew=4)
    assert compute_overview(sqlite).sentence is None
    work(sqlite, crew[0])
    deactivate(sqlite, crew[3].id)
    assert "invite 1 more person, or set a gap" in compute_overview(sqlite).sentence
    invite(sqlite, "new", "annotator")
    assert compute_overview(sqlite).sentence is None
