"""The web app: pages of one labelling project on its database and its cut clips."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import Scope

from moodal.annotation import api, lead_pages, pages
from moodal.annotation.accounts import TooManyTriesError
from moodal.annotation.database import Database
from moodal.annotation.protocol import project_settings
from moodal.annotation.security import Guard, RateLimit, loggable
from moodal.annotation.site import Site, make_site, sentence_of, wants_json
from moodal.types import InputError, WorkError

log = logging.getLogger(__name__)
PER_SESSION_S, SESSION_BURST = 20.0, 80.0  # requests: nobody labels so fast, and a player asks for a clip in parts
PER_ADDRESS_S, ADDRESS_BURST = 400.0, 1600.0  # a lab of fifty may share an address


def create_app(
    database: Database,
    media_folder: Path,
    *,
    hosts: Sequence[str] = (),
    per_session_s: float = PER_SESSION_S,
    per_address_s: float = PER_ADDRESS_S,
) -> FastAPI:
    """The app of a project that is prepared. ``hosts``: the names it answers to, all where there are none;
    ``per_session_s`` and ``per_address_s``: how many requests a second it takes, for long."""
    site = make_site(database, media_folder, project_settings(database))
    app = FastAPI(title="moodal", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    for part in (pages, lead_pages, api):
        app.include_router(part.make_router(site))
    app.add_middleware(
        Guard,
        hosts=tuple(hosts),
        per_session=RateLimit(per_session_s, per_session_s * SESSION_BURST / PER_SESSION_S),
        per_address=RateLimit(per_address_s, per_address_s * ADDRESS_BURST / PER_ADDRESS_S),
        refuse=lambda scope, status, sentence: _refusal(site, scope, status, sentence),
    )
    _add_refusals(app, site)
    return app


def _add_refusals(app: FastAPI, site: Site) -> None:
    @app.exception_handler(HTTPException)
    async def on_refusal(request: Request, error: HTTPException) -> Response:
        if (
            error.status_code == HTTPStatus.UNAUTHORIZED
            and request.method == "GET"
            and not _for_scripts(request.url.path)
        ):
            return RedirectResponse("/sign-in", 303)
        ours = error.detail.endswith(".")
        sentence = error.detail if ours else "There is nothing here."
        return _refusal(site, request.scope, error.status_code, sentence)

    @app.exception_handler(RequestValidationError)
    async def on_bad_address(request: Request, error: RequestValidationError) -> Response:
        return _refusal(site, request.scope, 404, "There is nothing here.")

    @app.exception_handler(InputError)
    async def on_input(request: Request, error: InputError) -> Response:
        if isinstance(error, TooManyTriesError):
            refusal = _refusal(site, request.scope, 429, sentence_of(error))
            refusal.headers["retry-after"] = str(max(1, round(error.wait_s)))
            return refusal
        return _refusal(site, request.scope, 400, sentence_of(error))

    @app.exception_handler(WorkError)
    async def on_work(request: Request, error: WorkError) -> Response:
        log.error("%s: %s", loggable(request.url.path), error)
        return _refusal(site, request.scope, 503, sentence_of(InputError(str(error))))


def _for_scripts(path: str) -> bool:
    return wants_json(path) or path.startswith(("/media/", "/lead/media"))


def _refusal(site: Site, scope: Scope, status: int, sentence: str) -> Response:
    """What went wrong as a page, or for scripts as JSON."""
    if wants_json(scope["path"]):
        return JSONResponse({"error": sentence}, status)
    request = Request(scope)
    title = {404: "Not found", 403: "Not allowed", 413: "Too large", 429: "Too fast", 500: "Something broke"}
    response = site.message(request, title.get(status, "That did not work"), sentence, status=status, sign="!")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        response.headers["retry-after"] = "2"
    return response
