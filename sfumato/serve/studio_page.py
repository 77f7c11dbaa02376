"""The Studio's page: plain files beside this module, which only call the interfaces that every client may call."""

from __future__ import annotations

import hmac
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from sfumato.serve.common import Problem
from sfumato.serve.guard import COOKIE

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
FILES = {path.name: path for path in (Path(__file__).parent / "page").iterdir() if path.suffix in KINDS}
router = APIRouter(include_in_schema=False)


@router.get("/")
async def index(request: Request) -> Response:
    """The page. A token in its address goes into a cookie that no script can read, and out of the address."""
    given, token = request.query_params.get("token", ""), request.app.state.token
    if given and token is not None and hmac.compare_digest(given.encode(), token.encode()):
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return answer
    return _answer(request, "index.html")


@router.get("/studio/{name}")
async def part(request: Request, name: str) -> Response:
    """A style sheet or script of the page; the name is looked up, never joined to a folder."""
    if name not in FILES:
        raise Problem(404, f"the Studio has no file {name[:80]!r}")
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    data = FILES[name].read_bytes()
    tag = f'"{sha256(data).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": "no-cache", "content-security-policy": POLICY}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=KINDS[FILES[name].suffix], headers=headers)
