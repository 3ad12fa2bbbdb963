"""The pages of everybody: signing in, instructions, and the clip that is to be labelled next."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Path as Number
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from moodal.annotation import accounts, protocol, security
from moodal.annotation.accounts import PASSWORD_LENGTH, SESSION_S, Person, TooManyTriesError
from moodal.annotation.clips_shown import held_media
from moodal.annotation.protocol import Answer, Assignment, Finished, Waiting
from moodal.annotation.site import LARGEST, Form, Site, answer_of, form_of, sentence_of
from moodal.types import InputError

SENT = Annotated[Form, Depends(form_of)]
AGAIN_S = 30  # after which a page that waits looks again
MEDIA_TYPES = {".m4a": "audio/mp4", ".mp4": "video/mp4"}
QUESTIONS = {
    "text": "What do the words alone express?",
    "audio": "What does the voice alone express?",
    "vision": "What do face and body alone express?",
    "full": "What does the whole clip express?",
}
# In our own words; compare the appraisal tradition (Ekman; Scherer) and the classes of the SDME paper.
DEFINITIONS = {
    "neutral": "Nothing in particular: matter-of-fact, calm, at ease. Also polite friendliness without real pleasure.",
    "happy": "Pleasure about something good: joy, amusement, relief, pride, tenderness, contentment that shows.",
    "sad": "Something is lost or will not come: grief, disappointment, loneliness, hopelessness, weeping.",
    "angry": "Against somebody or something: annoyed, indignant, reproachful, furious; also cold, suppressed anger.",
    "anxious": "Uneasy about what may come: worried, tense, nervous, torn. The danger is vague or only possible.",
    "surprised": "Something was not expected: startled, astonished, taken aback, for better or for worse. It is short; "
    "what follows it may be another emotion.",
    "fearful": "A danger that is here and clear: frightened, in terror, panicking, wanting to get away.",
    "disgusted": "Repelled, by something foul or by what somebody does: revulsion, contempt, turning away.",
}


def make_router(site: Site) -> APIRouter:
    """The routes of these pages for one project."""
    router = APIRouter()

    @router.get("/")
    def home(request: Request) -> Response:
        person = site.person(request)
        if person is None:
            return _go("/sign-in")
        return _go("/lead" if person.is_lead else "/label")

    @router.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in site.assets:
            raise HTTPException(404, "There is nothing here.")
        body, kind = site.assets[name]
        # their address changes with their content
        return Response(body, headers={"content-type": kind, "cache-control": "public, max-age=31536000, immutable"})

    @router.get("/sign-in")
    def sign_in_page(request: Request) -> Response:
        return site.page(request, "sign_in.html", name="")

    @router.post("/sign-in")
    def sign_in(request: Request, form: SENT) -> Response:
        try:
            token = accounts.sign_in(
                site.db,
                form.text("name"),
                form.get("password", ""),
                address=address_of(request),
                known=request.cookies.get(security.KNOWN_COOKIE, ""),
            )
        except TooManyTriesError as e:
            page = site.page(request, "sign_in.html", status=429, name=form.text("name"), problem=sentence_of(e))
            page.headers["retry-after"] = str(max(1, round(e.wait_s)))
            return page
        except InputError as e:
            return site.page(request, "sign_in.html", status=401, name=form.text("name"), problem=sentence_of(e))
        return _begin(site, request, token)

    @router.post("/sign-out")
    def sign_out(request: Request, form: SENT) -> Response:
        if person := site.person(request):
            protocol.release(site.db, person)
        accounts.sign_out(site.db, security.credential_of(request))
        response = _go("/sign-in")
        security.end_session(request, response)
        response.headers["clear-site-data"] = '"cache"'
        return response

    @router.get("/invitation/{token}")
    def invitation_page(request: Request, token: str) -> Response:
        return _invitation(site, request, token)

    @router.post("/invitation/{token}")
    def accept(request: Request, token: str, form: SENT) -> Response:
        invited, password = accounts.invited(site.db, token), form.get("password", "")
        if invited is None:
            return _invitation(site, request, token)
        if password != form.get("again", ""):
            return _invitation(site, request, token, "The two passwords are not the same.")
        try:
            accounts.accept(site.db, token, password)
        except InputError as e:
            return _invitation(site, request, token, sentence_of(e))
        try:
            session = accounts.sign_in(site.db, invited.name, password, address=address_of(request))
        except InputError as e:  # others at this address have tried too often; the password is set all the same
            return site.page(request, "sign_in.html", status=429, name=invited.name, problem=sentence_of(e))
        response = _begin(site, request, session)
        response.headers["location"] = "/instructions"
        return response

    @router.get("/instructions")
    def instructions(request: Request) -> Response:
        return site.page(request, "instructions.html", site.member(request), definitions=DEFINITIONS)

    @router.get("/label")
    def label(request: Request) -> Response:
        return _next(site, request, site.member(request))

    @router.post("/answer")
    def answer(request: Request, form: SENT) -> Response:
        person, number = site.member(request), form.number("assignment")
        said = answer_of(form, site.db.clock())
        try:
            protocol.save_and_deal(site.db, person, number, said)
        except InputError as e:
            return _next(site, request, person, problem=sentence_of(e), said=said, number=number)
        return _go("/label")

    @router.post("/undo")
    def undo(request: Request, form: SENT) -> Response:
        person = site.member(request)
        try:
            protocol.undo(site.db, person)
        except InputError as e:
            return _next(site, request, person, problem=sentence_of(e))
        return _go("/label")

    @router.get("/media/{number}")
    def media(request: Request, number: Annotated[int, Number(ge=1, le=LARGEST)]) -> Response:
        path = held_media(site.db, site.media, site.member(request), number)
        if path is None:
            raise HTTPException(404, "There is nothing here.")
        return FileResponse(path, media_type=MEDIA_TYPES[path.suffix])

    return router


def address_of(request: Request) -> str:
    return request.client.host if request.client else ""


def _go(address: str) -> Response:
    return RedirectResponse(address, 303)


def _begin(site: Site, request: Request, token: str) -> Response:
    response = _go("/")
    security.begin_session(request, response, token, SESSION_S)
    security.remember_browser(request, response, accounts.known_browser(site.db, token))
    return response


def _invitation(site: Site, request: Request, token: str, problem: str = "") -> Response:
    invited = accounts.invited(site.db, token)
    if invited is None:
        sentence = "This invitation was used already, or is too old. Ask whoever leads the project for a new one."
        return site.message(request, "No such invitation", sentence, status=404, ways=(("/sign-in", "Sign in"),))
    return site.page(
        request,
        "invitation.html",
        status=400 if problem else 200,
        problem=problem,
        invited=invited,
        shortest=PASSWORD_LENGTH[0],
        longest=PASSWORD_LENGTH[1],
    )


def _next(
    site: Site, request: Request, person: Person, *, problem: str = "", said: Answer | None = None, number: int = 0
) -> Response:
    """The clip that is next, or why there is none. What was ``said`` of the same clip stands in the form again."""
    status = 400 if problem else 200
    found = protocol.next_assignment(site.db, person)
    if isinstance(found, Assignment):
        return _clip(site, request, person, found, problem, said if found.id == number else found.previous, status)
    if isinstance(found, Waiting):
        return site.message(request, "Nothing for you right now", problem or found.sentence, person, status=status,
                            sign="…", ways=(("/label", "Look again"),), again_s=AGAIN_S, can_undo=True)  # fmt: skip
    assert isinstance(found, Finished)
    return site.message(request, "All done", problem or found.sentence, person, status=status, sign="✓",
                        ways=(("/instructions", "Instructions"),), can_undo=True)  # fmt: skip


def _clip(
    site: Site, request: Request, person: Person, found: Assignment, problem: str, said: Answer | None, status: int
) -> Response:
    return site.page(
        request,
        "label.html",
        person,
        status=status,
        problem=problem,
        assignment=found,
        condition=found.condition,
        said=said,
        shown=f"{site.db.clock():.3f}",
        media=f"/media/{found.id}",
        text=found.text,
        duration_s=found.duration_s,
        question=QUESTIONS[found.condition],
    )
