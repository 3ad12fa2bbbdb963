"""The pages of whoever leads: how far the project is, who takes part, where labels differ, and all of it as files."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from moodal.annotation import accounts, exchange, lead
from moodal.annotation.accounts import ROLES, Person
from moodal.annotation.clips_shown import any_media, clip_of
from moodal.annotation.database import Database
from moodal.annotation.overview_tables import agreement_tables, drift_table, heats, people_table
from moodal.annotation.pages import MEDIA_TYPES, QUESTIONS
from moodal.annotation.protocol import SHOWS_WORDS, Answer
from moodal.annotation.site import Form, Site, answer_of, clean, download, form_of, sentence_of
from moodal.types import InputError

SENT = Annotated[Form, Depends(form_of)]
SHOWN = 200  # disagreements on a page
MAX_DIGITS = 10  # of its number
GOLD_COLUMNS = ("clip", "condition", "label")


def make_router(site: Site) -> APIRouter:
    """The routes of these pages for one project."""
    router = APIRouter(prefix="/lead")

    @router.get("")
    def overview(request: Request) -> Response:
        person, found = site.lead(request), lead.overview(site.db)
        return site.page(request, "overview.html", person, overview=found, people=people_table(found),
                         agreement=agreement_tables(found), heats=heats(found), drift=drift_table(found))  # fmt: skip

    @router.get("/people")
    def people(request: Request) -> Response:
        return _people(site, request, site.lead(request))

    @router.post("/people")
    def invite(request: Request, form: SENT) -> Response:
        person = site.lead(request)
        role = form.text("role") if form.text("role") in ROLES else ROLES[0]
        try:
            token = accounts.invite(site.db, form.text("name"), role)
        except InputError as e:
            return _people(site, request, person, problem=sentence_of(e))
        return _people(site, request, person, invited=form.text("name"), link=invitation_link(request, token))

    @router.post("/people/deactivate")
    def deactivate(request: Request, form: SENT) -> Response:
        person = site.lead(request)
        try:
            accounts.deactivate(site.db, form.number("person"))
        except InputError as e:
            return _people(site, request, person, problem=sentence_of(e))
        return _go("/lead/people")

    @router.post("/people/reset")
    def reset(request: Request, form: SENT) -> Response:
        person, number = site.lead(request), form.number("person")
        try:
            token = accounts.reset(site.db, number)
        except InputError as e:
            return _people(site, request, person, problem=sentence_of(e))
        name = next((p.name for p in accounts.people(site.db) if p.id == number), "")
        return _people(site, request, person, invited=name, link=invitation_link(request, token))

    @router.post("/people/qualify")
    def qualify(request: Request, form: SENT) -> Response:
        person = site.lead(request)
        try:
            lead.decide_qualification(
                site.db, person, form.number("person"), form.text("condition"), passed=form.text("passed") == "yes"
            )
        except InputError as e:
            return _people(site, request, person, problem=sentence_of(e))
        return _go("/lead/people")

    @router.get("/disagreements")
    def disagreements(
        request: Request, condition: str = "", intensity: str = "", decided: str = "", page: str = ""
    ) -> Response:
        person = site.lead(request)
        wanted = condition if condition in site.settings.conditions else None
        asked = {"intensity": bool(intensity), "decided": bool(decided)}
        num = lead.num_disagreements(site.db, wanted, **asked)
        last = max(0, num - 1) // SHOWN
        number = min(int(page), last) if page.isascii() and page.isdecimal() and len(page) < MAX_DIGITS else 0
        found = lead.disagreements(site.db, wanted, **asked, first=number * SHOWN, most=SHOWN)
        same = {"condition": wanted or "", **{name: "1" for name, is_on in asked.items() if is_on}}
        ways = [(word, urlencode({**same, "page": to})) for word, to in (("Before", number - 1), ("More", number + 1))
                if 0 <= to <= last]  # fmt: skip
        return site.page(request, "disagreements.html", person, found=found, num=num, first=number * SHOWN + 1,
                         ways=ways, condition=wanted or "", **asked)  # fmt: skip

    @router.get("/decide")
    def decide_page(request: Request, clip: str = "", condition: str = "") -> Response:
        return _decide(site, request, site.lead(request), clip, condition)

    @router.post("/decide")
    def decide(request: Request, form: SENT) -> Response:
        person = site.lead(request)
        clip_id, condition, said = form.text("clip"), form.text("condition"), answer_of(form, site.db.clock())
        try:
            lead.adjudicate(site.db, person, clip_id, condition, said)
        except InputError as e:
            return _decide(site, request, person, clip_id, condition, problem=sentence_of(e), said=said)
        left = lead.disagreements(site.db, condition, most=1)
        return _go(_decide_address(left[0].clip_id, condition) if left else "/lead/disagreements")

    @router.get("/media")
    def media(request: Request, clip: str = "", condition: str = "") -> Response:
        site.lead(request)
        path = any_media(site.db, site.media, clip, condition)
        if path is None:
            raise HTTPException(404, "There is nothing here.")
        return FileResponse(path, media_type=MEDIA_TYPES[path.suffix])

    @router.get("/data")
    def data(request: Request) -> Response:
        return site.page(request, "data.html", site.lead(request), columns=GOLD_COLUMNS)

    @router.get("/votes.csv")
    def votes(request: Request) -> Response:
        site.lead(request)
        return votes_table(site)

    @router.get("/label-studio.json")
    def label_studio(request: Request) -> Response:
        site.lead(request)
        return _made(site, "label-studio.json", "application/json", exchange.export_label_studio)

    @router.post("/gold")
    def gold(request: Request, form: SENT) -> Response:
        person = site.lead(request)
        try:
            num = lead.set_gold(site.db, person, read_gold(form.file))
        except InputError as e:
            return site.page(request, "data.html", person, status=400, problem=sentence_of(e), columns=GOLD_COLUMNS)
        return site.page(request, "data.html", person, note=_new_gold(num), columns=GOLD_COLUMNS)

    @router.post("/gold-from-decisions")
    def gold_from_decisions(request: Request, form: SENT) -> Response:
        person = site.lead(request)
        try:
            num = lead.gold_from_decisions(site.db, person)
        except InputError as e:
            return site.page(request, "data.html", person, status=400, problem=sentence_of(e), columns=GOLD_COLUMNS)
        return site.page(request, "data.html", person, note=_new_gold(num), columns=GOLD_COLUMNS)

    return router


def votes_table(site: Site) -> Response:
    """Every label that counts, as a table of votes."""
    return _made(site, "votes.csv", "text/csv", exchange.export_votes)


def invitation_link(request: Request, token: str) -> str:
    """Where an invited person sets a password, under the name by which the lead reaches these pages."""
    return f"{request.url.scheme}://{request.url.netloc}/invitation/{token}"


def read_gold(file: bytes) -> list[lead.GoldLabel]:
    """The gold labels of a table: CSV with a clip, a condition and a label in each row."""
    try:
        text = clean_lines(file.decode("utf-8-sig"))
        reader = csv.DictReader(io.StringIO(text))
        names = reader.fieldnames or []
        if missing := [c for c in GOLD_COLUMNS if c not in names]:
            raise InputError(
                f"the table must have columns {', '.join(GOLD_COLUMNS)}; {', '.join(missing)} is not there"
            )
        rows = [lead.GoldLabel(*(exchange.read_cell((row[c] or "").strip()) for c in GOLD_COLUMNS)) for row in reader]
    except UnicodeDecodeError:
        raise InputError("the table is not UTF-8 text; save it as CSV in UTF-8") from None
    except csv.Error as e:
        raise InputError(f"the table cannot be read as CSV: {e}") from e
    if not rows:
        raise InputError("the table has no rows")
    return rows


def clean_lines(text: str) -> str:
    return "\n".join(clean(line) for line in text.splitlines())


def _new_gold(num: int) -> str:
    return f"{num} gold label{' is' if num == 1 else 's are'} new."


def _go(address: str) -> Response:
    return RedirectResponse(address, 303)


def _decide_address(clip_id: str, condition: str) -> str:
    return "/lead/decide?" + urlencode({"clip": clip_id, "condition": condition})


def _people(
    site: Site, request: Request, person: Person, *, problem: str = "", invited: str = "", link: str = ""
) -> Response:
    found = accounts.people(site.db)
    return site.page(request, "people.html", person, status=400 if problem else 200, problem=problem, people=found,
                     invited=invited, link=link)  # fmt: skip


def _decide(
    site: Site,
    request: Request,
    person: Person,
    clip_id: str,
    condition: str,
    *,
    problem: str = "",
    said: Answer | None = None,
) -> Response:
    """A clip in a condition, who said what of it, and the form of the lead's own word."""
    clip = clip_of(site.db, clip_id)
    if clip is None or condition not in site.settings.conditions:
        raise HTTPException(404, "There is nothing here.")
    given = lead.said_of(site.db, clip_id, condition)
    return site.page(
        request,
        "decide.html",
        person,
        status=400 if problem else 200,
        problem=problem,
        clip=clip,
        condition=condition,
        given=given,
        said=said or (given.decision if given else None),
        shown=f"{site.db.clock():.3f}",
        media="/lead/media?" + urlencode({"clip": clip_id, "condition": condition}),
        text=clip.text if condition in SHOWS_WORDS else None,
        duration_s=clip.duration_s,
        question=QUESTIONS[condition],
        left=lead.num_disagreements(site.db, condition),
    )


def _made(site: Site, name: str, kind: str, write: Callable[[Database, Path], int]) -> Response:
    """A file that is made for this one answer, and gone after it."""
    folder = TemporaryDirectory(prefix="moodal-")
    try:
        write(site.db, Path(folder.name) / name)
    except BaseException:
        folder.cleanup()
        raise
    response = FileResponse(Path(folder.name) / name, media_type=kind, background=BackgroundTask(folder.cleanup))
    return download(response, name)
