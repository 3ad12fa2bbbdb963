"""What the pages do, for scripts: the same rules, as JSON.

========================  =============================================================  ==============================
POST /api/sign-in         {"name", "password"}                                           {"token", "name", "role"}
GET /api/next             the clip to label: {"state": "clip", "assignment": {"id", "condition", "round", "done",
                          "total", "text", "duration_s", "media", "previous"}}; or {"state": "waiting", "reason",
                          "sentence"}; or {"state": "finished", "sentence"}
POST /api/answer          {"assignment", "label", "intensity", "reason", "comment", "seconds"}        {"saved": true}
POST /api/undo            {}                                                             what /api/next says then
GET /api/progress                                                                        {"given": {}, "total"}
GET /api/votes            leads only: every label that counts                            the table of votes, CSV
========================  =============================================================  ==============================

A script sends ``Authorization: Bearer TOKEN`` with the token of its sign-in. The session cookie of the pages serves as
well; whoever posts with it sends the token of that session's forms as ``X-Form-Token``. The media of a clip are at
its ``media``, with the same credentials. Refusals are {"error": "a sentence"} with the status of the kind: 400 what was
sent cannot be used, 401 sign in first, 403 not for you, 404 not there, 413 too large, 429 too often (``Retry-After``).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from moodal.annotation import accounts, protocol
from moodal.annotation.lead_pages import votes_table
from moodal.annotation.pages import address_of
from moodal.annotation.protocol import Answer, Assignment, Finished, Waiting
from moodal.annotation.site import LARGEST, LONGEST_S, Site, clean, json_of
from moodal.types import InputError

SENT = Annotated[dict[str, Any], Depends(json_of)]
TEXT_FIELDS = {"label": 100, "intensity": 100, "reason": 300, "comment": 1000}  # and how long each may be


def make_router(site: Site) -> APIRouter:
    """The routes for scripts for one project."""
    router = APIRouter(prefix="/api")

    @router.post("/sign-in")
    def sign_in(request: Request, said: SENT) -> Response:
        name, password = (_text(said, key, 1000) or "" for key in ("name", "password"))
        token = accounts.sign_in(site.db, name, password, address=address_of(request))
        person = accounts.person_of(site.db, token)
        assert person is not None
        return JSONResponse({"token": token, "name": person.name, "role": person.role})

    @router.get("/next")
    def next_(request: Request) -> Response:
        return JSONResponse(_shown(protocol.next_assignment(site.db, site.member(request))))

    @router.post("/answer")
    def answer(request: Request, said: SENT) -> Response:
        person, number = site.member(request), said.get("assignment")
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= LARGEST:
            raise InputError("assignment must be the number that /api/next gave")
        protocol.save_answer(site.db, person, number, _answer(said))
        return JSONResponse({"saved": True})

    @router.post("/undo")
    def undo(request: Request, said: SENT) -> Response:
        return JSONResponse(_shown(protocol.undo(site.db, site.member(request))))

    @router.get("/progress")
    def progress(request: Request) -> Response:
        return JSONResponse(asdict(protocol.progress(site.db, site.member(request))))

    @router.get("/votes")
    def votes(request: Request) -> Response:
        site.lead(request)
        return votes_table(site)

    return router


def _shown(found: Assignment | Waiting | Finished) -> dict[str, Any]:
    """Without the name of the clip: whoever labels it again in another condition must not know."""
    if isinstance(found, Waiting):
        return {"state": "waiting", "reason": found.reason, "sentence": found.sentence}
    if isinstance(found, Finished):
        return {"state": "finished", "sentence": found.sentence}
    fields = ("id", "condition", "round", "done", "total", "text", "duration_s")
    media = f"/media/{found.id}" if found.condition != "text" else None
    previous = asdict(found.previous) if found.previous else None
    shown = {name: getattr(found, name) for name in fields}
    return {"state": "clip", "assignment": {**shown, "media": media, "previous": previous}}


def _answer(said: dict[str, Any]) -> Answer:
    texts = {key: _text(said, key, most) for key, most in TEXT_FIELDS.items()}
    seconds = said.get("seconds")
    if seconds is not None and not (
        isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds <= LONGEST_S
    ):
        raise InputError(f"seconds must be a number from 0 to {LONGEST_S:g}")
    return Answer(
        texts["label"] or "",
        texts["intensity"],
        texts["reason"],
        texts["comment"],
        None if seconds is None else float(seconds),
    )


def _text(said: dict[str, Any], key: str, most: int) -> str | None:
    value = said.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > most:
        raise InputError(f"{key} must be a text of at most {most} characters")
    return clean(value) or None
