"""What stands before every page: who may send what, how much, how often, and what a browser may do with the answer.

Pages hold no script and no style of their own, so that text of strangers that slipped through could not run. A form
carries a token that only this session's pages know: another site can send a form with our cookie, not with the token.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moodal.annotation.accounts import network_of

SESSION_COOKIE = "moodal_session"
FORM_COOKIE = "moodal_form"  # before there is a session, forms are bound to this one
KNOWN_COOKIE = "moodal_known"  # this browser has been in: see ``accounts.sign_in``
KNOWN_S = 365 * 86_400.0
MAX_BODY = 64 * 1024  # bytes of a form
MAX_UPLOAD = 8 * 1024 * 1024  # of a table that a lead brings
UPLOADS = "/lead/gold"
REMEMBERED = 10_000  # whom a rate limit counts at the same time
WRITES = ("POST", "PUT", "PATCH", "DELETE")
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    # with "no-referrer" browsers say "Origin: null" of our own forms, and we could not tell them from others
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
log = logging.getLogger(__name__)

Refuse = Callable[[Scope, int, str], Response]


class RateLimit:
    """``burst`` requests at once, then ``per_s`` a second, counted for each key."""

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, and when
        self._lock = Lock()

    def allows(self, key: str) -> bool:
        now = self._clock()
        with self._lock:
            left, then = self._left.pop(key, (self._burst, now))
            left = min(self._burst, left + (now - then) * self._per_s)
            allowed = left >= 1
            self._left[key] = (left - 1 if allowed else left, now)
            if len(self._left) > REMEMBERED:
                self._left.popitem(last=False)
        return allowed


class Guard:
    """Middleware that refuses foreign hosts, floods, large bodies and forms of other sites, and sets the headers.

    ``hosts``: the names under which the pages are reached; empty for any. ``refuse`` makes the page of a refusal.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Sequence[str], per_session: RateLimit, per_address: RateLimit, refuse: Refuse
    ) -> None:
        self.app, self._refuse = app, refuse
        self._hosts = {h.lower() for h in hosts}
        self._per_session, self._per_address = per_session, per_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        answer: ASGIApp = self.app
        if problem := self._problem(scope, headers):
            answer = self._refuse(scope, *problem)
        has_begun = False

        async def sent(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        out = _with_headers(scope, sent)
        try:
            await answer(scope, _bounded(receive, _limit(scope)), out)
        except Exception:  # here and not further out, where the answer would go without its headers
            log.exception("%s %s", scope["method"], loggable(scope["path"]))
            if has_begun:
                raise
            await self._refuse(scope, 500, "Something went wrong here, and was written down.")(scope, receive, out)

    def _problem(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        if self._hosts and _host_name(headers.get("host", "")) not in self._hosts:
            return 400, "These pages are not reached under this name."
        address = network_of(scope["client"][0]) if scope.get("client") else ""
        credential = credential_of(Request(scope))
        if not self._per_address.allows(address) or (credential and not self._per_session.allows(_hash(credential))):
            return 429, "Too many requests; wait a moment and try again."
        limit = _limit(scope)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > limit:
            return 413, f"More than {limit // 1024} kB were sent."
        if scope["method"] in WRITES and not _is_ours(headers):
            return 403, "This form does not come from these pages."
        return None


def loggable(path: str) -> str:
    """A path as it may stand in a log: without the token of an invitation, and in one line."""
    return repr("/invitation/..." if path.startswith("/invitation/") else path[:200])


def _limit(scope: Scope) -> int:
    return MAX_UPLOAD if scope["path"] == UPLOADS else MAX_BODY


def _is_ours(headers: Headers) -> bool:
    """Whether a request that changes something may come from our own pages, or from a script, by what browsers add."""
    origin = headers.get("origin")
    if origin is not None:
        return origin.partition("://")[2].lower() == headers.get("host", "").lower()
    return headers.get("sec-fetch-site", "none") in ("same-origin", "none")


def _host_name(host: str) -> str:
    return (host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]).lower()


def _bounded(receive: Receive, limit: int) -> Receive:
    """A body may come without its length."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise HTTPException(413, f"More than {limit // 1024} kB were sent.")
        return message

    return bounded


def _with_headers(scope: Scope, send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
            if scope.get("scheme") == "https":
                headers["strict-transport-security"] = "max-age=31536000"
        await send(message)

    return with_headers


def credential_of(request: Request) -> str:
    """The session token of a request, from its cookie or, of scripts, from its header; "" where there is none."""
    return bearer_of(request) or request.cookies.get(SESSION_COOKIE, "")


def bearer_of(request: Request) -> str:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def form_token(request: Request) -> str:
    """What a form of this session, or of this browser before it has one, must carry; "" where neither is known."""
    secret = request.cookies.get(SESSION_COOKIE) or request.cookies.get(FORM_COOKIE)
    return _hash("form:" + secret) if secret else ""


def is_form_token(request: Request, token: object) -> bool:
    expected = form_token(request)
    return bool(expected) and isinstance(token, str) and hmac.compare_digest(expected.encode(), token.encode())


def begin_form_cookie(request: Request, response: Response, value: str) -> None:
    _set_cookie(request, response, FORM_COOKIE, value, None)


def begin_session(request: Request, response: Response, token: str, max_age_s: float) -> None:
    _set_cookie(request, response, SESSION_COOKIE, token, round(max_age_s))


def remember_browser(request: Request, response: Response, known: str) -> None:
    _set_cookie(request, response, KNOWN_COOKIE, known, round(KNOWN_S))


def end_session(request: Request, response: Response) -> None:
    response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="lax", secure=_is_secure(request))


def new_secret() -> str:
    return secrets.token_urlsafe(32)


def form_token_of(secret: str) -> str:
    return _hash("form:" + secret)


def _set_cookie(request: Request, response: Response, name: str, value: str, max_age_s: int | None) -> None:
    response.set_cookie(
        name, value, max_age=max_age_s, path="/", httponly=True, samesite="lax", secure=_is_secure(request)
    )


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
