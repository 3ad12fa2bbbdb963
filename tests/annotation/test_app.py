"""The pages as somebody uses them: labelling to the end, going back, leading; and the same for scripts."""

import csv
import io
import re
import shutil

import pytest
from sqlalchemy import func, select
from tests.annotation.projects import CHEAP, PASSWORD, add_people, make_clips, open_folder
from tests.annotation.web import ASSIGNMENT, Visitor, condition_on

from moodal.annotation import accounts
from moodal.annotation.app import create_app
from moodal.annotation.protocol import prepare
from moodal.annotation.schema import AnswerRow
from moodal.annotation.settings import AnnotationSettings

SETTINGS = AnnotationSettings(conditions=("text", "audio", "vision", "full"), labels_per_clip=2, gap_clips=0)
NUM = 4


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project") / "recipe"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "HASHER", CHEAP)
        db = open_folder(folder)
        prepare(db, make_clips(NUM), SETTINGS)
        add_people(db, ["Ada", "Ben"])
        add_people(db, ["Lea"], "lead")
        db.close()
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    monkeypatch.setattr(accounts, "HASHER", CHEAP)
    return shutil.copytree(made, tmp_path / "recipe")


@pytest.fixture
def db(folder):
    database = open_folder(folder)
    yield database
    database.close()


@pytest.fixture
def app(db, folder):
    return create_app(db, folder / "media")


@pytest.fixture
def enter(app):
    def sign_in(name: str) -> Visitor:
        visitor = Visitor(app)
        visitor.sign_in(name)
        return visitor

    return sign_in


def answers(db):
    with db.read() as session:
        rows = session.scalars(select(AnswerRow).order_by(AnswerRow.id))
        return [(r.label, r.intensity, r.reason, r.comment) for r in rows]


def label_all(visitor, said=lambda i, condition: ("happy", "weak")):
    """Answer until there is nothing; the conditions in the order in which they came."""
    page, seen = visitor.get("/label").text, []
    while 'id="answer"' in page:
        seen.append(condition_on(page))
        label, intensity = said(len(seen), seen[-1])
        response = visitor.answer(page, label=label, intensity=intensity)
        assert response.status_code == 200, response.text
        page = response.text
    return seen, page


def test_labelling_goes_on_until_all_is_done(enter, db):
    ada, ben = enter("Ada"), enter("Ben")
    everything = sorted(c for c in SETTINGS.conditions for _ in range(NUM))
    for _ in range(3):  # what one waits for, the other does
        for visitor in (ada, ben):
            _, page = label_all(visitor)
    assert "All done" in page
    assert "All done" in ada.get("/label").text
    assert len(answers(db)) == 2 * len(everything)


def test_an_answer_is_kept_with_all_that_was_said(enter, db):
    ada = enter("Ada")
    page = ada.get("/label").text
    page = ada.answer(page, label="angry", intensity="strong", comment="  a sneer ", seconds="3.25").text
    page = ada.answer(page, label="invalid", reason="nobody speaks", intensity="weak").text
    page = ada.answer(page, label="invalid", reason="nobody speaks", reason_text="a dog <barks>").text
    ada.answer(page, label="compound", intensity="weak", seconds="nan")
    assert answers(db) == [
        ("angry", "strong", None, "a sneer"),
        ("invalid", None, "nobody speaks", None),
        ("invalid", None, "a dog <barks>", None),
        ("compound", None, None, None),
    ]
    with db.read() as session:
        seconds = session.scalars(select(AnswerRow.seconds).order_by(AnswerRow.id)).all()
    assert seconds[0] == 3.25
    assert seconds[3] is None


def test_without_a_script_the_time_counts_from_the_page(enter, db):
    ada, now = enter("Ada"), [db.clock()]
    db.clock = lambda: now[0]
    page = ada.get("/label").text
    now[0] += 7.5
    shown = re.search(r'name="shown" value="([\d.]+)"', page)[1]
    ada.answer(page, label="neutral", shown=shown, seconds="")
    with db.read() as session:
        assert session.scalar(select(AnswerRow.seconds)) == pytest.approx(7.5, abs=0.01)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"label": "sad"}, "Say how sad it is: weak or strong."),
        ({"label": "invalid"}, "Say why the clip is invalid."),
        ({}, "No label called &#39;&#39;"),
        ({"label": "bored"}, "No label called &#39;bored&#39;"),
        ({"label": "sad", "intensity": "huge"}, "No intensity called &#39;huge&#39;"),
    ],
)
def test_half_an_answer_comes_back_with_a_sentence_and_what_was_said(enter, db, fields, sentence):
    ada = enter("Ada")
    page = ada.get("/label").text
    response = ada.answer(page, comment="do not lose this", **fields)
    assert response.status_code == 400
    assert sentence in response.text
    assert 'value="do not lose this"' in response.text
    assert ASSIGNMENT.search(response.text)[1] == ASSIGNMENT.search(page)[1]
    if fields == {"label": "sad"}:
        assert re.search(r'value="sad"[^>]* checked', response.text)
    assert answers(db) == []


def test_saving_twice_is_saving_once(enter, db):
    ada = enter("Ada")
    page = ada.get("/label").text
    first = ada.answer(page, label="sad", intensity="weak")
    second = ada.answer(page, label="sad", intensity="weak")
    assert first.status_code == second.status_code == 200
    assert ASSIGNMENT.search(first.text)[1] == ASSIGNMENT.search(second.text)[1]
    assert answers(db) == [("sad", "weak", None, None)]


def test_two_tabs_show_the_same_clip(enter):
    ada = enter("Ada")
    assert ASSIGNMENT.search(ada.get("/label").text)[1] == ASSIGNMENT.search(ada.get("/label").text)[1]


def test_going_back_shows_what_was_said_and_takes_another_answer(enter, db):
    ada = enter("Ada")
    page = ada.get("/label").text
    ada.answer(page, label="sad", intensity="weak", comment="hm")
    back = ada.submit("/undo", "/label").text
    assert ASSIGNMENT.search(back)[1] == ASSIGNMENT.search(page)[1]
    assert re.search(r'value="sad"[^>]* checked', back)
    assert re.search(r'value="weak"[^>]* checked', back)
    assert 'value="hm"' in back
    ada.answer(back, label="happy", intensity="strong")
    assert [a[0] for a in answers(db)] == ["sad", "happy"]
    assert "episode" not in back  # not even the name of a clip


def test_with_nothing_to_go_back_to_undo_says_so(enter):
    response = enter("Ada").submit("/undo", "/label")
    assert response.status_code == 400
    assert "There is nothing to go back to." in response.text


def test_an_answer_to_a_clip_of_somebody_else_is_refused(enter, db):
    ada, ben = enter("Ada"), enter("Ben")
    page = ada.get("/label").text
    other = ASSIGNMENT.search(ben.get("/label").text)[1]
    token = re.search(r'name="token" value="(\w+)"', page)[1]
    response = ada.post("/answer", data={"token": token, "assignment": other, "label": "neutral"})
    assert response.status_code == 400
    assert "not yours to label" in response.text
    assert answers(db) == []


def test_each_page_says_what_it_shows_and_no_more(enter):
    ada, words = enter("Ada"), []
    page = ada.get("/label").text
    while 'id="answer"' in page:
        condition = condition_on(page)
        has_words = any(w in page for w in ("I am so glad", "Leave me", "What was that", "It is raining"))
        words.append((condition, has_words))
        assert ("<video" in page) == (condition in ("vision", "full"))
        assert ("<audio" in page) == (condition == "audio")
        assert "poster" not in page
        page = ada.answer(page, label="neutral").text
    assert set(words) <= {("text", True), ("audio", False), ("vision", False), ("full", True)}
    assert {c for c, _ in words} >= {"text", "audio", "vision"}


def test_the_instructions_define_every_emotion(enter):
    page = enter("Ada").get("/instructions").text
    for emotion in SETTINGS.emotions:
        assert re.search(rf"<dt[^>]*>{emotion}</dt><dd>[^<]{{40,}}</dd>", page)
    assert "As agreed" not in page


def test_signing_out_gives_back_what_one_holds(enter, db):
    from moodal.annotation.schema import AssignmentRow

    ada = enter("Ada")
    ada.get("/label")
    ada.submit("/sign-out", "/label")
    with db.read() as session:
        assert session.scalar(select(func.count()).select_from(AssignmentRow)) == 0


def test_a_lead_invites_and_the_link_is_shown_once(app, enter, db):
    lea = enter("Lea")
    page = lea.submit("/lead/people", name="Cem", role="annotator").text
    link = re.search(r"http://testserver(/invitation/[\w-]+)", page)[1]
    assert "/invitation/" not in lea.get("/lead/people").text
    cem = Visitor(app)
    cem.submit(link, password=PASSWORD, again=PASSWORD)
    assert cem.get("/label").status_code == 200
    assert [p.name for p in accounts.people(db)] == ["Ada", "Ben", "Lea", "Cem"]
    again = lea.submit("/lead/people", name="cem", role="annotator")
    assert again.status_code == 400
    assert "already a person" in again.text


def test_a_lead_closes_and_resets_accounts_but_not_the_last_lead(enter, db):
    lea, ada = enter("Lea"), enter("Ada")
    ids = {p.name: p.id for p in accounts.people(db)}
    lea.submit("/lead/people/deactivate", "/lead/people", person=ids["Ada"])
    assert ada.get("/label", follow_redirects=False).status_code == 303
    assert "/invitation/" in lea.submit("/lead/people/reset", "/lead/people", person=ids["Ada"]).text
    last = lea.submit("/lead/people/deactivate", "/lead/people", person=ids["Lea"])
    assert last.status_code == 400
    assert "the only lead" in last.text
    assert lea.submit("/lead/people/reset", "/lead/people", person=99).status_code == 400
    assert lea.submit("/lead/people/reset", "/lead/people", person="x").status_code == 404


def test_a_lead_sees_how_far_it_is_and_decides_where_labels_differ(enter, db):
    ada, ben = enter("Ada"), enter("Ben")
    for _ in range(3):
        label_all(ada)
        label_all(ben, lambda i, c: ("sad", "strong") if c == "audio" else ("happy", "strong"))
    lea = enter("Lea")  # who is led to the overview, which is then kept for a minute
    page = lea.get("/lead").text
    assert f"{NUM} to decide" in page
    assert "Krippendorff" in page
    page = lea.get("/lead/disagreements?condition=audio").text
    assert page.count('<a href="/lead/decide') == NUM
    page = lea.get("/lead/decide?clip=episode_0001&condition=audio").text
    assert "<strong>happy</strong>, weak" in page
    assert "<strong>sad</strong>, strong" in page
    form = {"clip": "episode_0001", "condition": "audio", "label": "sad"}
    half = lea.submit("/lead/decide", "/lead/decide?clip=episode_0001&condition=audio", **form)
    assert half.status_code == 400
    assert "Say how sad it is" in half.text
    after = lea.submit("/lead/decide", "/lead/decide?clip=episode_0001&condition=audio", intensity="weak", **form)
    assert f"{NUM - 1} still to decide" in after.text  # and the next is there
    assert lea.get("/lead/disagreements?condition=audio").text.count('<a href="/lead/decide') == NUM - 1
    assert "episode_0001" in lea.get("/lead/disagreements?condition=audio&decided=1").text


def test_votes_leave_as_a_table_and_for_label_studio(enter):
    ada, lea = enter("Ada"), enter("Lea")
    seen, _ = label_all(ada)
    response = lea.get("/lead/votes.csv")
    assert response.headers["content-type"].startswith("text/csv")
    assert 'filename="votes.csv"' in response.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert len(rows) == len(seen)
    assert {(r["annotator"], r["label"]) for r in rows} == {("Ada", "happy")}
    tasks = lea.get("/lead/label-studio.json").json()
    assert len(tasks) > 0


def test_known_clips_come_from_a_table(enter):
    lea = enter("Lea")
    token = re.search(r'name="token" value="(\w+)"', lea.get("/lead/data").text)[1]

    def bring(table: bytes):
        return lea.post("/lead/gold", data={"token": token}, files={"file": ("gold.csv", table, "text/csv")})

    good = "\ufeffclip,condition,label\r\nepisode_0000,audio,happy\r\nepisode_0001,audio,sad\r\n".encode()
    assert "2 gold labels are new" in bring(good).text
    assert "0 gold labels are new" in bring(good).text
    for table, sentence in (
        (b"", "is not there"),
        (b"clip,label\na,happy\n", "condition is not there"),
        (b"clip,condition,label\n", "The table has no rows"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"clip,condition,label\nnone,audio,happy\n", "none"),
        (b"clip,condition,label\nepisode_0002,audio,bored\n", "bored"),
    ):
        response = bring(table)
        assert response.status_code == 400
        assert sentence in response.text


def test_a_script_does_what_a_person_does(app, db):
    script = Visitor(app)
    said = script.post("/api/sign-in", json={"name": "Ada", "password": PASSWORD}).json()
    assert (said["name"], said["role"]) == ("Ada", "annotator")
    script.headers["authorization"] = f"Bearer {said['token']}"
    first = script.get("/api/next").json()
    assert first["state"] == "clip"
    clip = first["assignment"]
    assert clip.keys() == {
        "id", "condition", "round", "done", "total", "text", "duration_s", "media", "previous"}  # fmt: skip
    answer = {"assignment": clip["id"], "label": "happy", "intensity": "weak", "seconds": 2}
    assert script.post("/api/answer", json=answer).json() == {"saved": True}
    assert script.post("/api/answer", json=answer).json() == {"saved": True}
    assert len(answers(db)) == 1
    back = script.post("/api/undo", json={}).json()["assignment"]
    assert (back["id"], back["previous"]["label"]) == (clip["id"], "happy")
    assert script.get("/api/progress").json()["total"] == 1
    assert script.get("/api/votes").status_code == 403
    script.post("/api/answer", json=answer)
    lead = Visitor(app)
    token = lead.post("/api/sign-in", json={"name": "Lea", "password": PASSWORD}).json()["token"]
    table = lead.get("/api/votes", headers={"authorization": f"Bearer {token}"})
    assert [r["label"] for r in csv.DictReader(io.StringIO(table.text))] == ["happy"]


def test_a_script_is_told_when_there_is_nothing(app, enter):
    label_all(enter("Ada"))
    script = Visitor(app)
    token = script.post("/api/sign-in", json={"name": "Ada", "password": PASSWORD}).json()["token"]
    said = script.get("/api/next", headers={"authorization": f"Bearer {token}"}).json()
    assert said["state"] == "waiting"
    assert said["sentence"].endswith(".")
    wrong = script.post("/api/sign-in", json={"name": "Ada", "password": "no"})
    assert (wrong.status_code, wrong.json()) == (400, {"error": "The name or the password is wrong."})


def test_a_lead_is_not_shown_clips_to_label(enter):
    lea = enter("Lea")
    assert '/label"' not in lea.get("/lead").text
    assert lea.get("/label").status_code == 400
