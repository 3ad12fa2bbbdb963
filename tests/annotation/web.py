"""Browsers without a window: clients of the app that find the tokens of its forms as a person would send them."""

import re
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient
from tests.annotation.projects import PASSWORD

TOKEN = re.compile(r'name="token" value="([0-9a-f]{64})"')
ASSIGNMENT = re.compile(r'name="assignment" value="(\d+)"')


class Visitor(TestClient):
    """Somebody at a browser."""

    def __init__(self, app: FastAPI, address: str = "http://testserver") -> None:
        super().__init__(app, address, follow_redirects=True, raise_server_exceptions=False)

    def submit(self, path: str, page: str | None = None, **fields: Any) -> Any:
        """Send a form as it stands on ``page``, with its token."""
        token = TOKEN.search(self.get(page or path).text)
        assert token, f"no form on {page or path}"
        return self.post(path, data={"token": token[1], **fields})

    def sign_in(self, name: str, password: str = PASSWORD) -> Any:
        return self.submit("/sign-in", name=name, password=password)

    def answer(self, page: str, **fields: Any) -> Any:
        """Answer the clip on a label page."""
        token, assignment = TOKEN.search(page), ASSIGNMENT.search(page)
        assert token and assignment, page  # noqa: PT018
        return self.post("/answer", data={"token": token[1], "assignment": assignment[1], **fields})


def condition_on(page: str) -> str:
    found = re.search(r'class="condition (\w+)"', page)
    assert found, page
    return found[1]


def media_on(page: str) -> str:
    found = re.search(r'id="player" src="([^"]+)"', page)
    assert found, page
    return found[1]


def streams(path: Path) -> list[str]:
    import av

    with av.open(path) as container:
        return [s.type for s in container.streams]
