"""What all pages share: who asks, the forms they send, and how a page is made of its template."""

from __future__ import annotations

import hashlib
import json
import math
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from moodal.annotation import accounts, security
from moodal.annotation.accounts import Person
from moodal.annotation.database import Database
from moodal.annotation.protocol import Answer
from moodal.annotation.settings import AnnotationSettings
from moodal.types import InputError

HERE = Path(__file__).parent
ASSETS = ("pages.css", "pages.js", "icon.svg")
NAMES = {"text": "Words only", "audio": "Sound only", "vision": "Silent picture", "full": "Whole clip"}
PASSES = {"text": "text", "audio": "audio", "vision": "silent", "full": "full"}
REASONS = (
    "nobody speaks",
    "several people speak",
    "the face is not visible",
    "the sound is of no use",
    "the clip is broken",
    "too short to tell",
)
PLACES = (("/label", "Label"), ("/instructions", "Instructions"))
LEAD_PLACES = (  # a lead decides and does not label
    ("/lead", "Overview"),
    ("/lead/people", "People"),
    ("/lead/disagreements", "Disagreements"),
    ("/lead/data", "Data"),
    ("/instructions", "Instructions"),
)
MAX_FIELDS = 40
LARGEST = 2**31 - 1  # number of a row: what every database can hold
LONGEST_S = 86_400.0  # that somebody sits before a clip


@dataclass(frozen=True)
class Site:
    """What the routes need. ``media``: the folder of the cut clips."""

    db: Database
    media: Path
    settings: AnnotationSettings
    assets: Mapping[str, tuple[bytes, str]]
    templates: Environment = field(repr=False)

    def person(self, request: Request) -> Person | None:
        token = security.credential_of(request)
        return accounts.person_of(self.db, token) if token else None

    def member(self, request: Request) -> Person:
        """Who is signed in; 401 where nobody is."""
        person = self.person(request)
        if person is None:
            raise HTTPException(401, "Sign in first.")
        return person

    def lead(self, request: Request) -> Person:
        person = self.member(request)
        if not person.is_lead:
            raise HTTPException(403, "This page is not for you.")
        return person

    def page(
        self, request: Request, template: str, person: Person | None = None, *, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """The page of ``template``. ``problem`` and ``note`` among the values are shown above it."""
        token, fresh = security.form_token(request), ""
        if not token:
            fresh = security.new_secret()
            token = security.form_token_of(fresh)
        values = {"problem": "", "note": "", **values}
        html = self.templates.get_template(template).render(
            person=person,
            here=request.url.path,
            places=LEAD_PLACES if person and person.is_lead else PLACES,
            settings=self.settings,
            token_field=lambda: Markup('<input type="hidden" name="token" value="{}">').format(token),
            **values,
        )
        response = HTMLResponse(html, status)
        if fresh:
            security.begin_form_cookie(request, response, fresh)
        return response

    def message(
        self,
        request: Request,
        title: str,
        sentence: str,
        person: Person | None = None,
        *,
        status: int = 200,
        sign: str = "·",
        ways: tuple[tuple[str, str], ...] = (("/", "Go on"),),
        again_s: int = 0,
        can_undo: bool = False,
    ) -> HTMLResponse:
        """A page that says one thing, and where to go from there."""
        return self.page(request, "message.html", person, status=status, title=title, sentence=sentence, sign=sign,
                         ways=ways, again_s=again_s, can_undo=can_undo)  # fmt: skip


def make_site(db: Database, media: Path, settings: AnnotationSettings) -> Site:
    assets = {name: ((HERE / "static" / name).read_bytes(), _kind(name)) for name in ASSETS}
    marks = {name: hashlib.sha256(body).hexdigest()[:12] for name, (body, _) in assets.items()}
    templates = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals.update(
        asset=lambda name: f"/static/{name}?{marks[name]}", names=NAMES, passes=PASSES, reasons=REASONS
    )
    return Site(db, media, settings, assets, templates)


def _kind(name: str) -> str:
    return f"{mimetypes.guess_type(name)[0] or 'application/octet-stream'}; charset=utf-8"


class Form(dict[str, str]):
    """The fields of a form, cleaned; ``file``: what was brought, where something was."""

    file: bytes = b""
    file_name: str = ""

    def text(self, name: str) -> str:
        return self.get(name, "").strip()

    def number(self, name: str) -> int:
        """A whole number of our own making; 404 where it is none."""
        said = self.text(name)
        if not (said.isascii() and said.isdecimal() and len(said) < 16 and int(said) <= LARGEST):
            raise HTTPException(404, "There is nothing here.")
        return int(said)


async def form_of(request: Request) -> Form:
    """The form of a request, when it carries the token of this session."""
    form = Form()
    async with request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=security.MAX_BODY) as said:
        for name, value in said.multi_items():
            if isinstance(value, UploadFile):
                form.file, form.file_name = await value.read(), value.filename or ""
            else:
                form[name] = clean(value)
    if not security.is_form_token(request, form.get("token")):
        raise HTTPException(403, "This form is too old; go back, load its page again, and send it once more.")
    return form


async def json_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request by a script; one that comes with a cookie shows that it knows the session."""
    by_cookie = not security.bearer_of(request) and security.SESSION_COOKIE in request.cookies
    if by_cookie and not security.is_form_token(request, request.headers.get("x-form-token")):
        raise HTTPException(403, "Send the session as a bearer token, or the form token beside the cookie.")
    body = await request.body()
    try:
        said = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        raise HTTPException(400, "The body is not valid JSON.") from None
    if not isinstance(said, dict):
        raise HTTPException(400, "The body must be a JSON object.")
    return said


def clean(text: str) -> str:
    """Without what no database keeps and no page shows: zero bytes, halves of characters, other control codes."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(c for c in whole if c.isprintable() or c in "\t\n ")


def answer_of(form: Form, now_s: float) -> Answer:
    """What a form says of a clip. Without a script the time is counted from when the page was made."""
    reason = (form.text("reason_text") or form.text("reason")) if form.text("label") == "invalid" else ""
    intensity = form.text("intensity") if form.text("label") not in ("compound", "invalid") else ""
    seconds = number_of(form.text("seconds"))
    if seconds is None and (shown := number_of(form.text("shown"))) is not None:
        seconds = now_s - shown
    return Answer(
        form.text("label"),
        intensity or None,
        reason or None,
        form.text("comment") or None,
        seconds if seconds is not None and 0 <= seconds <= LONGEST_S else None,
    )


def number_of(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def sentence_of(error: InputError) -> str:
    """An error of ours as a sentence on a page."""
    said = str(error)
    return f"{said[:1].upper()}{said[1:]}{'' if said.endswith(('.', '!', '?')) else '.'}"


def wants_json(path: str) -> bool:
    return path.startswith("/api/")


def download(response: Response, name: str) -> Response:
    response.headers["content-disposition"] = f'attachment; filename="{name}"'
    return response
