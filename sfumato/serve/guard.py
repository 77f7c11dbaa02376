"""Who may come in: token, Host and Origin checked on every request, loopback too, and bodies bounded while they arrive."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY = 64_000_000  # bytes of one request
HELD = 512_000_000  # bytes of all requests that are being answered
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PATIENCE = 30.0  # seconds without a byte of a body that is still to come
VALID = 3600  # seconds that a signed address of a picture may be read
COOKIE = "sfumato_token"
OPEN = ("/health",)  # needs no token
LOG = logging.getLogger("sfumato.access")
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; "
        b"base-uri 'none'; form-action 'self'",
    ),
)


class Guard:
    """ASGI middleware around the whole server; `names` are what it may be called besides localhost and addresses, `token`
    what callers must know (None: no token)."""

    def __init__(self, app: Callable, names: Iterable[str], token: str | None) -> None:
        self.app, self.token = app, token
        self.names = {"localhost", *(name.lower() for name in names)}
        self.requests: dict[tuple[str, int], int] = {}
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, told = time.monotonic(), {"status": 0}
        scope["state"] = {**scope.get("state", {}), "request": secrets.token_hex(6)}

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
                had = {name for name, _ in message.get("headers", [])}
                message["headers"] = [
                    *message.get("headers", []),
                    *(pair for pair in HEADERS if pair[0] not in had),
                    (b"x-request-id", scope["state"]["request"].encode()),
                ]
            await send(message)

        refused = self._refused(scope)
        try:
            if refused:
                await _answer(sending, *refused)
            else:
                await self._bounded(scope, receive, sending)
        finally:
            status = told["status"] or 499
            key = (scope["method"] if scope["method"] in METHODS else "OTHER", status)
            self.requests[key] = self.requests.get(key, 0) + 1
            seconds = round(time.monotonic() - began, 4)
            line = {"method": scope["method"], "path": scope["path"][:200], "status": status, "seconds": seconds}
            LOG.info("request", extra={"told": line | {"request": scope["state"]["request"]}})

    def _refused(self, scope: Scope) -> tuple[int, str, str] | None:
        """(status, code, message) for a request that may not come in."""
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in headers and name in (b"host", b"origin", b"authorization", b"content-length"):
                return 400, "bad_request", f"two {name.decode('latin-1')} headers"
            headers[name] = value
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._known(host):
            return (
                403,
                "wrong_host",
                "this server does not go by the name in the Host header: start it with --name NAME",
            )
        origin = headers.get(b"origin")
        if origin is not None and _place(origin.decode("latin-1")) != host:
            return 403, "wrong_origin", "requests from other web pages are not taken"
        if headers.get(b"sec-fetch-site", b"none") == b"cross-site" and scope["method"] not in ("GET", "HEAD"):
            return 403, "wrong_origin", "requests from other web pages are not taken"
        if self.token is not None and not self._admitted(scope, headers):
            return (
                401,
                "invalid_api_key",
                "a token is needed: Authorization: Bearer TOKEN (or Basic, with it as password)",
            )
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > BODY:
            return 413, "too_large", f"at most {BODY:,} bytes are taken in one request"
        return None

    def _known(self, host: str) -> bool:
        """A name of this machine. Numbers are safe: a page that turns its own name into our address keeps the name."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _admitted(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        path, query = scope["path"], parse_qs(scope["query_string"].decode("latin-1"))
        if path in OPEN or (path.startswith("/files/") and self._signed(path, query)):
            return True
        given = [query.get("token", [""])[0] if path == "/" else "", query.get("key", [""])[0]]
        given.append(headers.get(b"x-goog-api-key", b"").decode("latin-1"))
        kind, _, value = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if kind.lower() == "bearer":
            given.append(value.strip())
        elif kind.lower() == "basic":
            try:
                given.append(base64.b64decode(value, validate=True).decode("utf-8").partition(":")[2])
            except (binascii.Error, ValueError):
                return False
        for part in headers.get(b"cookie", b"").decode("latin-1").split(";"):
            name, _, value = part.strip().partition("=")
            if name == COOKIE:
                given.append(value)
        return any(hmac.compare_digest(one.encode(), self.token.encode()) for one in given if one)

    def sign(self, path: str) -> str:
        """The path with a signature, so that it can be read without a token for an hour."""
        if self.token is None:
            return path
        until = int(time.time()) + VALID
        return f"{path}?until={until}&sign={self._signature(path, until)}"

    def _signature(self, path: str, until: int) -> str:
        return hmac.new(self.token.encode(), f"{path} {until}".encode(), sha256).hexdigest()

    def _signed(self, path: str, query: dict[str, list[str]]) -> bool:
        until, sign = query.get("until", [""])[0], query.get("sign", [""])[0]
        if not (until.isascii() and until.isdigit() and len(until) < 15) or int(until) < time.time():
            return False
        return hmac.compare_digest(sign.encode(), self._signature(path, int(until)).encode())

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The body counted while it comes in: one that is longer than it said, or never ends, is cut off."""
        got, whole, wrong = 0, False, None

        async def receiving() -> MutableMapping[str, Any]:
            nonlocal got, whole, wrong
            if whole:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), PATIENCE)
            except asyncio.TimeoutError:
                wrong = 408, "too_slow", "the body did not come"
                return {"type": "http.disconnect"}
            got += len(message.get("body", b""))
            self.held += len(message.get("body", b""))
            if got > BODY:
                wrong = 413, "too_large", f"at most {BODY:,} bytes are taken in one request"
            elif self.held > HELD:
                wrong = 503, "too_much", "too many large requests at once"
            if wrong:
                return {"type": "http.disconnect"}
            whole = not message.get("more_body", False)
            return message

        started = False

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if wrong and not started:
                started = True
                await _answer(send, *wrong)
            elif not wrong:
                started = True
                await send(message)

        try:
            await self.app(scope, receiving, sending)
            if wrong and not started:
                await _answer(send, *wrong)
        finally:
            self.held -= got


async def _answer(send: Send, status: int, code: str, message: str) -> None:
    told = {
        "error": {"message": message, "type": "invalid_request_error", "param": None, "code": code},
        "detail": message,
    }
    body = json.dumps(told).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="sfumato"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _place(origin: str) -> str | None:
    """Host and port of an Origin header; None for what is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:  # such as "http://["
        return None
