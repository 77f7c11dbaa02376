"""A client of the server's queue: jobs, how they go, files. The address and the token are the owner's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sfumato.core import SfumatoError

if TYPE_CHECKING:
    import aiohttp

MOST = 64 * 2**20  # bytes of an answer
QUIET = 120  # seconds without an event before the connection is taken for dead


def address(server: str) -> str:
    """The address of a server as it is put before a path; SfumatoError for what is none."""
    try:
        parts = urlsplit(server)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a torn IPv6 address, a port that is no number
        fine = False
    if not fine:
        raise SfumatoError(f"--server is an address such as http://127.0.0.1:7860, not {server[:100]!r}")
    return server.rstrip("/")


class Client:
    """The interface of `/api`; every mistake that the server tells is a SfumatoError with its words."""

    def __init__(self, session: aiohttp.ClientSession, server: str, token: str | None = None) -> None:
        self.session, self.server = session, address(server)
        self.headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    async def begin(self, wanted: Mapping[str, Any], user: str) -> tuple[str, int | None]:
        """Put a job into the queue for a user -> its id, and how many stand before it."""
        told = await self._json("POST", "/api/jobs", json=dict(wanted), headers={"X-Sfumato-Client": user})
        return told["id"], told["position"]

    async def job(self, name: str) -> dict[str, Any]:
        return await self._json("GET", f"/api/jobs/{name}")

    async def cancel(self, name: str) -> None:
        await self._json("DELETE", f"/api/jobs/{name}")

    async def models(self) -> list[dict[str, Any]]:
        return (await self._json("GET", "/api/models"))["models"]

    async def upload(self, data: bytes, user: str) -> str:
        """Give the server a picture -> its hash."""
        import aiohttp

        form = aiohttp.FormData()
        form.add_field("file", data, filename="picture.png", content_type="image/png")
        return (await self._json("POST", "/api/uploads", data=form, headers={"X-Sfumato-Client": user}))["hash"]

    async def file(self, name: str) -> bytes:
        async with self._asked("GET", f"/api/files/{name}") as answer:
            await _refused(answer)
            parts, size = [], 0
            async for part in answer.content.iter_any():  # read(n) gives what has come so far, not all
                parts.append(part)
                size += len(part)
                if size > MOST:
                    raise SfumatoError(f"the server's file is larger than {MOST:,} bytes")
            return b"".join(parts)

    async def events(self, name: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """What happens to a job, until it has ended: server-sent events as (event, data)."""
        import aiohttp

        waiting = aiohttp.ClientTimeout(total=None, sock_read=QUIET)
        async with self._asked("GET", f"/api/jobs/{name}/events", timeout=waiting) as answer:
            await _refused(answer)
            event, data = "message", []
            async for raw in _lines(answer):
                line = raw.decode("utf-8", "replace")
                if not line:
                    if data:
                        yield event, json.loads("\n".join(data))
                    event, data = "message", []
                elif line.startswith("event:"):
                    event = line[6:].strip()
                elif line.startswith("data:"):
                    data.append(line[5:].removeprefix(" "))

    def _asked(self, method: str, path: str, headers: Mapping[str, str] | None = None, **told: Any) -> Any:
        return self.session.request(method, self.server + path, headers={**self.headers, **(headers or {})}, **told)

    async def _json(self, method: str, path: str, **told: Any) -> dict[str, Any]:
        async with self._asked(method, path, **told) as answer:
            await _refused(answer)
            return await answer.json()


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Lines of any length: an event with previews is longer than aiohttp's own reader allows."""
    rest = b""
    async for chunk in answer.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MOST:
            raise SfumatoError("the server sends a line without an end")
        for line in lines:
            yield line.rstrip(b"\r")


async def _refused(answer: aiohttp.ClientResponse) -> None:
    """SfumatoError with what the server says of an error."""
    if answer.status < 400:
        return
    try:
        message = (await answer.json(content_type=None))["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"the server answers with an error ({answer.status})"
    raise SfumatoError(str(message)[:1000])
