"""What nobody gets: other people's clips, files by their path, forms of other sites, floods, foreign frames."""

import re
import shutil
from dataclasses import replace
from urllib.parse import quote

import pytest
from sqlalchemy import select
from tests.annotation.projects import CHEAP, PASSWORD, SETTINGS, add_people, make_clips, open_folder
from tests.annotation.web import ASSIGNMENT, TOKEN, Visitor, condition_on, media_on

from moodal.annotation import accounts
from moodal.annotation.app import create_app
from moodal.annotation.cut import media_path
from moodal.annotation.protocol import prepare
from moodal.annotation.schema import AnswerRow
from moodal.annotation.security import HEADERS, MAX_BODY, MAX_UPLOAD, RateLimit, loggable
from moodal.annotation.settings import AnnotationSettings
from moodal.types import WorkError

PAGES = ("/label", "/instructions", "/lead", "/lead/people", "/lead/disagreements", "/lead/data", "/lead/votes.csv")
PATHS = (
    "/media/../recipe.json",
    "/media/%2e%2e%2frecipe.json",
    "/media/..%5c..%5cetc%5cpasswd",
    "/media/1/../../recipe.json",
    "/media/1%00",
    "/media/-1",
    "/media/1e3",
    "/media/9999999999999999999999",
    "/static/../app.py",
    "/static/%2e%2e/app.py",
    "/static/..%2fsite.py",
    "/static//etc/passwd",
    "/invitation/../../etc/passwd",
)
EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project with two annotators, a lead, and files that stand for media; every test gets a copy."""
    folder = tmp_path_factory.mktemp("project") / "recipe"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "HASHER", CHEAP)
        folder.mkdir()
        db = open_folder(folder)
        prepare(db, make_clips(6), AnnotationSettings(conditions=("audio", "vision"), labels_per_clip=1, gap_clips=0))
        add_people(db, ["Ada", "Ben"])
        add_people(db, ["Lea"], "lead")
        db.close()
        for clip in make_clips(6):
            for condition in ("audio", "vision"):
                path = media_path(folder / "media", clip, condition)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(f"{clip.id} {condition} ".encode() * 100)
        yield folder


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
def ada(app):
    visitor = Visitor(app)
    visitor.sign_in("Ada")
    return visitor


@pytest.fixture
def lea(app):
    visitor = Visitor(app)
    visitor.sign_in("Lea")
    return visitor


def answers(db):
    with db.read() as session:
        return [(row.label, row.comment) for row in session.scalars(select(AnswerRow).order_by(AnswerRow.id))]


def test_without_a_session_there_is_only_the_sign_in(app):
    visitor = Visitor(app)
    for path in PAGES:
        response = visitor.get(path, follow_redirects=False)
        assert (response.status_code, response.headers["location"]) == (303, "/sign-in")
    for path in (
        "/media/1",
        "/lead/media?clip=episode_0000&condition=audio",
        "/api/next",
        "/api/progress",
        "/api/votes",
    ):
        assert visitor.get(path, follow_redirects=False).status_code == 401
    assert visitor.post("/api/answer", json={"assignment": 1, "label": "sad"}).json() == {"error": "Sign in first."}


def test_an_invented_or_ended_session_is_none(app, db, ada):
    stranger = Visitor(app)
    stranger.cookies.set("moodal_session", "A" * 43)
    assert stranger.get("/api/next").status_code == 401
    token = ada.cookies["moodal_session"]
    ada.submit("/sign-out", "/label")
    stranger.cookies.set("moodal_session", token)
    assert stranger.get("/api/next").status_code == 401


def test_a_closed_account_is_out_at_once(db, ada):
    assert ada.get("/label").status_code == 200
    accounts.deactivate(db, next(p.id for p in accounts.people(db) if p.name == "Ada"))
    assert ada.get("/label", follow_redirects=False).status_code == 303
    assert "the name or the password is wrong" in ada.sign_in("Ada").text.lower()


def test_the_pages_of_the_lead_are_not_for_others(ada):
    for path in ("/lead", "/lead/people", "/lead/disagreements", "/lead/data", "/lead/votes.csv", "/api/votes",
                 "/lead/decide?clip=episode_0000&condition=audio", "/lead/label-studio.json",
                 "/lead/media?clip=episode_0000&condition=audio"):  # fmt: skip
        assert ada.get(path).status_code == 403
    token = TOKEN.search(ada.get("/label").text)[1]
    for path in ("/lead/people", "/lead/people/reset", "/lead/people/deactivate", "/lead/people/qualify",
                 "/lead/decide", "/lead/gold", "/lead/gold-from-decisions"):  # fmt: skip
        data = {"token": token, "name": "Eve", "role": "lead", "person": "1"}
        assert ada.post(path, data=data).status_code == 403


@pytest.mark.parametrize("token", [None, "", "0" * 64, "é" * 64, "x" * 5000])
def test_a_form_without_the_token_of_its_session_changes_nothing(ada, db, token):
    page = ada.get("/label").text
    data = {"assignment": ASSIGNMENT.search(page)[1], "label": "neutral"}
    response = ada.post("/answer", data=data | ({} if token is None else {"token": token}))
    assert response.status_code == 403
    assert answers(db) == []


def test_the_token_of_somebody_else_is_not_mine(app, ada, db):
    ben = Visitor(app)
    ben.sign_in("Ben")
    page = ada.get("/label").text
    other = TOKEN.search(ben.get("/label").text)[1]
    data = {"assignment": ASSIGNMENT.search(page)[1], "label": "neutral", "token": other}
    assert ada.post("/answer", data=data).status_code == 403
    assert answers(db) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://testserver.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_form_of_another_site_is_refused_even_with_the_token(ada, db, headers):
    page = ada.get("/label").text
    data = {"assignment": ASSIGNMENT.search(page)[1], "label": "neutral", "token": TOKEN.search(page)[1]}
    assert ada.post("/answer", data=data, headers=headers).status_code == 403
    assert answers(db) == []
    assert ada.post("/answer", data=data, headers={"origin": "http://testserver"}).status_code == 200
    assert answers(db) == [("neutral", None)]


def test_signing_in_needs_the_token_of_the_page_too(app):
    visitor = Visitor(app)
    assert visitor.post("/sign-in", data={"name": "Ada", "password": PASSWORD}).status_code == 403
    assert "moodal_session" not in visitor.cookies


def test_a_script_with_the_cookie_proves_that_it_knows_the_session(ada, db):
    page = ada.get("/label").text
    said = {"assignment": int(ASSIGNMENT.search(page)[1]), "label": "neutral"}
    assert ada.post("/api/answer", json=said).status_code == 403
    token = {"x-form-token": TOKEN.search(page)[1]}
    assert ada.post("/api/answer", json=said, headers=token).json() == {"saved": True}
    assert len(answers(db)) == 1


def test_only_the_clip_that_one_holds_can_be_heard_or_seen(app, ada):
    ben = Visitor(app)
    ben.sign_in("Ben")
    mine, his = media_on(ada.get("/label").text), media_on(ben.get("/label").text)
    assert mine != his
    assert ada.get(mine).status_code == 200
    assert ada.get(his).status_code == 404
    assert ben.get(mine).status_code == 404
    assert ada.get("/media/999999").status_code == 404


def test_an_answered_clip_is_gone_until_one_goes_back_to_it(ada):
    page = ada.get("/label").text
    first = media_on(page)
    after = ada.answer(page, label="neutral").text
    assert ada.get(first).status_code == 404
    assert media_on(ada.submit("/undo", "/label").text) == first
    assert ada.get(first).status_code == 200
    assert first not in after


def test_no_path_of_a_request_reaches_a_file(ada, lea):
    for path in PATHS:
        for visitor in (ada, lea):
            assert visitor.get(path).status_code == 404, path


def test_a_lead_names_clips_and_not_files(lea):
    for clip in ("../../recipe.json", "/etc/passwd", "episode_0000/../x", "", "%", "x" * 3000, "\x00"):
        for condition in ("audio", "../vision", "text", ""):
            asked = f"clip={quote(clip)}&condition={quote(condition)}"
            assert lea.get(f"/lead/media?{asked}").status_code == 404, asked
            assert lea.get(f"/lead/decide?{asked}").status_code == 404, asked


def test_a_lead_plays_any_clip(lea):
    response = lea.get("/lead/media?clip=episode_0003&condition=vision")
    assert response.content.startswith(b"episode_0003 vision ")
    assert response.headers["content-type"] == "video/mp4"


def test_clips_come_in_parts_so_that_one_can_go_back_in_them(ada):
    path = media_on(ada.get("/label").text)
    whole = ada.get(path)
    assert whole.headers["content-type"] in ("audio/mp4", "video/mp4")
    assert whole.headers["accept-ranges"] == "bytes"
    part = ada.get(path, headers={"range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, whole.content[5:10])
    assert part.headers["content-range"] == f"bytes 5-9/{len(whole.content)}"
    assert ada.get(path, headers={"range": f"bytes={len(whole.content)}-"}).status_code == 416


def test_every_answer_has_the_headers_that_keep_a_browser_safe(app, ada, lea):
    responses = [Visitor(app).get("/sign-in"), ada.get("/label"), ada.get("/nothing"), ada.post("/answer"),
                 ada.get(media_on(ada.get("/label").text)), ada.get("/api/next"), lea.get("/lead/people"),
                 ada.get("/static/pages.css"), ada.get("/label", headers={"content-length": "999999999"})]  # fmt: skip
    for response in responses:
        assert {name: response.headers.get(name) for name in HEADERS} == HEADERS
    csp = HEADERS["content-security-policy"]
    assert csp.startswith("default-src 'none'")
    assert "unsafe" not in csp
    assert [r.headers["cache-control"] for r in responses[:7]] == ["no-store"] * 7


def test_pages_have_no_script_and_no_style_of_their_own(app, ada, lea):
    pages = [Visitor(app).get("/sign-in"), ada.get("/label"), ada.get("/instructions"), lea.get("/lead/people")]
    for page in pages:
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:|https?://", page.text)


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(app, db):
    visitor = Visitor(app)
    token = TOKEN.search(visitor.get("/sign-in").text)[1]
    data = {"token": token, "name": "Ada", "password": PASSWORD}
    cookie = visitor.post("/sign-in", data=data, follow_redirects=False).headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/" in cookie  # noqa: PT018
    assert "Secure" not in cookie


def test_over_tls_the_cookie_stays_there(app):
    visitor = Visitor(app, "https://testserver")
    response = visitor.get("/sign-in")
    assert "Secure" in response.headers["set-cookie"]
    assert response.headers["strict-transport-security"]
    visitor.sign_in("Ada")
    assert visitor.get("/label").status_code == 200


def test_text_of_strangers_is_text(app, db, lea):
    lea.submit("/lead/people", name=EVIL[:50], role="annotator")
    page = lea.get("/lead/people").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    eve = Visitor(app)
    add_people(db, [EVIL[:60]])
    eve.sign_in(EVIL[:60])
    page = eve.get("/label").text
    assert "<script>alert" not in page
    page = eve.answer(page, label="invalid", comment=EVIL).text  # without a reason: the form comes back with its text
    assert "<img" not in page
    assert "onerror=alert(1)&gt;" in page


def test_words_of_a_clip_are_text(tmp_path):
    db = open_folder(tmp_path)
    prepare(db, [replace(make_clips(1)[0], text=EVIL)], AnnotationSettings(conditions=("text",), labels_per_clip=1))
    add_people(db, ["Ada"])
    visitor = Visitor(create_app(db, tmp_path / "media"))
    visitor.sign_in("Ada")
    page = visitor.get("/label").text
    db.close()
    assert "<img" not in page and "<script>alert" not in page  # noqa: PT018
    assert "&lt;img src=x" in page


def test_what_is_too_large_is_not_read(ada, db):
    page = ada.get("/label").text
    assert ada.answer(page, label="neutral", comment="x" * MAX_BODY).status_code == 413

    def pieces():
        for _ in range(MAX_BODY // 1000 + 2):
            yield b"comment=" + b"x" * 1000 + b"&"

    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert ada.post("/answer", content=pieces(), headers=kind).status_code == 413
    assert ada.post("/lead/gold", content=b"x" * (MAX_UPLOAD + 1), headers=kind).status_code == 413
    assert answers(db) == []


def test_broken_forms_are_refused_and_are_no_error_of_ours(ada):
    form = "application/x-www-form-urlencoded"
    for body, kind in (
        (b"\xff\xfe%%%&&&=&token", form),
        (b"--x\r\nbroken", "multipart/form-data; boundary=x"),
        (b"no boundary", "multipart/form-data"),
        (b"a=1&" * 1000, form),
        (b"\x00" * 1000, "text/plain"),
    ):
        assert ada.post("/answer", content=body, headers={"content-type": kind}).status_code in (400, 403), body


def test_broken_json_is_refused_in_a_sentence(app):
    visitor = Visitor(app)
    token = visitor.post("/api/sign-in", json={"name": "Ada", "password": PASSWORD}).json()["token"]
    for body in (
        b"",
        b"[]",
        b"{",
        b"[" * 60_000,
        b"\xff",
        b'{"assignment": "1"}',
        b'{"assignment": true}',
        b'{"assignment": 1e400}',
        b'{"assignment": 99999999999999999999, "label": "sad"}',
        b'{"assignment": 1, "label": ["sad"]}',
        b'{"assignment": 1, "label": "sad", "seconds": -1}',
        b'{"assignment": 1, "label": "\\ud800"}',
    ):
        response = visitor.post("/api/answer", content=body, headers={"authorization": f"Bearer {token}"})
        assert response.status_code == 400, body
        assert response.json()["error"].endswith(".")


def test_an_invitation_is_good_once(app, db):
    token = accounts.invite(db, "Cem", "annotator")
    visitor, path = Visitor(app), f"/invitation/{token}"
    assert "Welcome, Cem" in visitor.get(path).text
    assert "at least" in visitor.get(path).text.lower()
    short = "short"
    assert visitor.submit(path, password=short, again=short).status_code == 400
    assert "not the same" in visitor.submit(path, password=PASSWORD, again=PASSWORD + "x").text
    assert "How to label" in visitor.submit(path, password=PASSWORD, again=PASSWORD).text
    again = Visitor(app).get(path)
    assert again.status_code == 404
    assert "used already, or is too old" in again.text


def test_an_invitation_that_is_too_old_is_none(app, db):
    token = accounts.invite(db, "Cem", "annotator")
    now = db.clock()
    db.clock = lambda: now + accounts.INVITATION_S + 1
    assert Visitor(app).get(f"/invitation/{token}").status_code == 404


def test_passwords_cannot_be_tried_for_long(app):
    visitor = Visitor(app)
    statuses = [visitor.sign_in("Ada", f"wrong password {i}").status_code for i in range(8)]
    assert statuses[:5] == [401] * 5
    assert statuses[-1] == 429
    last = visitor.sign_in("Ada")
    assert last.status_code == 429
    assert int(last.headers["retry-after"]) >= 1
    assert "moodal_session" not in visitor.cookies


def test_a_session_that_asks_too_fast_is_told_to_wait(db, folder):
    app = create_app(db, folder / "media", per_session_s=1.0)
    visitor = Visitor(app)
    visitor.sign_in("Ada")
    statuses = [visitor.get("/instructions").status_code for _ in range(9)]
    assert statuses[0] == 200
    assert statuses[-1] == 429
    assert visitor.get("/api/next").json() == {"error": "Too many requests; wait a moment and try again."}


def test_a_rate_is_so_many_at_once_and_then_so_many_a_second():
    now = [0.0]
    limit = RateLimit(2, 3, lambda: now[0])
    assert [limit.allows("a") for _ in range(4)] == [True, True, True, False]
    assert limit.allows("b")
    now[0] = 0.5
    assert [limit.allows("a") for _ in range(2)] == [True, False]
    now[0] = 100.0
    assert [limit.allows("a") for _ in range(4)] == [True, True, True, False]


def test_a_rate_limit_forgets_and_does_not_grow():
    limit = RateLimit(1, 1)
    for i in range(20_000):
        limit.allows(str(i))
    assert len(limit._left) <= 10_000


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("LOCALHOST", 200),
        ("[::1]:8080", 200),
        ("evil.example", 400),
        ("localhost.evil.example", 400),
        ("", 400),
    ],
)
def test_a_foreign_name_for_this_machine_is_refused(db, folder, host, status):
    app = create_app(db, folder / "media", hosts=("localhost", "127.0.0.1", "[::1]"))
    assert Visitor(app).get("/sign-in", headers={"host": host}).status_code == status


def test_there_is_no_map_of_the_pages(ada):
    for path in ("/docs", "/redoc", "/openapi.json", "/label/", "/LABEL", "/.git/config"):
        assert ada.get(path).status_code == 404


def test_an_error_of_ours_shows_nothing_of_it(db, folder, monkeypatch, caplog):
    from moodal.annotation import protocol

    def broken(*_):
        raise RuntimeError("secret: /home/lab/passwords")

    visitor = Visitor(create_app(db, folder / "media"))
    visitor.sign_in("Ada")
    monkeypatch.setattr(protocol, "next_assignment", broken)
    response = visitor.get("/label")
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.headers["content-security-policy"]
    assert "secret" in caplog.text
    assert visitor.get("/api/next").json() == {"error": "Something went wrong here, and was written down."}


def test_methods_that_a_page_does_not_have(ada):
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert ada.request(method, "/label").status_code == 405
    assert condition_on(ada.get("/label").text) in SETTINGS.conditions


def test_no_log_has_the_token_of_an_invitation(app, db, monkeypatch, caplog):
    token = accounts.invite(db, "Zoe", "annotator")
    for error in (RuntimeError("broken"), WorkError("the database is too busy")):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(accounts, "invited", fail)
        assert Visitor(app).get(f"/invitation/{token}").status_code in (500, 503)
    assert len(caplog.records) == 2
    assert token not in caplog.text


def test_a_path_is_one_line_of_a_log():
    assert "\n" not in loggable("/label\nERROR all labels are lost")


def test_a_lead_signs_in_while_a_stranger_tries_her_name(app, lea):
    lea.submit("/sign-out", "/lead")
    stranger = Visitor(app)
    for i in range(7):
        stranger.sign_in("Lea", f"wrong password {i}")
    assert stranger.sign_in("Lea").status_code == 429
    assert lea.sign_in("Lea").status_code == 200
    assert all("HttpOnly" in cookie._rest for cookie in lea.cookies.jar)


def test_ranges_without_number_and_end_are_answered_at_once(ada):
    media = media_on(ada.get("/label").text)
    for said in ("bytes=" + ",".join(f"{i}-{i}" for i in range(0, 8000, 2)), "bytes=" + "9" * 8000 + "-", "bytes=-0"):
        answer = ada.get(media, headers={"range": said})
        assert answer.status_code in (200, 206, 400, 416)
        assert len(answer.content) < 100_000


def test_who_sets_a_password_where_others_tried_too_often_is_told_to_wait(app, db):
    token, stranger = accounts.invite(db, "Zoe", "annotator"), Visitor(app)
    for i in range(21):
        stranger.sign_in(f"nobody {i}", "wrong password")
    zoe = Visitor(app)
    page = zoe.submit(f"/invitation/{token}", password=PASSWORD, again=PASSWORD)
    assert (page.status_code, "Too many tries" in page.text) == (429, True)
    assert next(p.accepted for p in accounts.people(db) if p.name == "Zoe")
