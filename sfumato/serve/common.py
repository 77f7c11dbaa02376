"""What all the interfaces share: who asks, waiting for a job, events, and errors in the shape each client knows."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from sfumato.core import SfumatoError
from sfumato.serve.desk import Closing, Desk, Refused
from sfumato.serve.queue import Full
from sfumato.serve.shelf import NoModel
from sfumato.serve.store import Job

ALIVE = 15.0  # seconds between signs of life on a silent stream
INVALID = "invalid_request_error"
LOG = logging.getLogger("sfumato.serve")


NOT_DONE = {
    400: "the request cannot be done, or the rules forbid it (code moderation_blocked)",
    401: "a token is needed",
    403: "wrong Host or Origin",
    404: "there is no such thing",
    405: "not done with this address",
    408: "the body did not come",
    409: "the job was cancelled",
    413: "too large",
    429: "the queue is full; Retry-After says when to ask again",
    500: "a fault of the server",
    503: "the server is stopping",
}


def answers_of(shape: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Every answer that is no success, for the OpenAPI document of an interface whose errors have this shape."""
    return {status: {"model": shape, "description": text} for status, text in NOT_DONE.items()}


class Problem(Exception):
    """An answer that is no success: HTTP status, what to tell, and OpenAI's type, code and param."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.code, self.param, self.more = (
            status,
            message,
            kind,
            code,
            param,
            more,
        )

    @property
    def body(self) -> dict[str, Any]:
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.code, **self.more}


class Gone(Exception):
    """The client hung up."""


def desk_of(request: Request) -> Desk:
    return request.app.state.desk


def client_of(request: Request, user: str | None = None) -> str:
    """Who takes turns with whom: the address, and the name that a client gives of its user."""
    name = user or request.headers.get("x-sfumato-client", "")
    return f"{request.client.host if request.client else 'local'}/{name[:64]}"


async def gone(request: Request) -> None:
    """Returns when the client hangs up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def waited(request: Request, job: Job) -> Job:
    """The job when it is done; it is cancelled when the client hangs up first.

    Raises Gone then, and Problem when the job failed or was cancelled.
    """
    desk = desk_of(request)
    end, leaving = asyncio.ensure_future(desk.finished(job.id)), asyncio.ensure_future(gone(request))
    try:
        await asyncio.wait((end, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not end.done():
            raise Gone
        return succeeded(end.result())
    finally:
        end.cancel()
        leaving.cancel()
        desk.cancel(job.id, "the client hung up")  # nothing happens to a job that has ended


def succeeded(job: Job) -> Job:
    """The same job when it is done; Problem otherwise."""
    if job.state == "done":
        return job
    raise problem_of(job.error or {}, job.state)


def problem_of(error: dict[str, Any], state: str = "failed") -> Problem:
    """What to tell of a job that did not come to its pictures."""
    message = error.get("message", state)
    if "verdict" in error:
        return refusal(error["verdict"], message)
    if state == "cancelled":
        return Problem(503 if "stopp" in message else 409, message, "cancelled", "cancelled")
    if state != "failed" or error.get("fault"):  # a job that neither ended nor runs: the disk did not take its end
        return Problem(500, message, "server_error")
    return Problem(400, message)


def refusal(verdict: dict[str, Any], message: str) -> Problem:
    """The refusal in the shape that OpenAI's clients know, with the rule and the word that it is about."""
    details = {"moderation_stage": verdict["stage"], "categories": list(verdict["categories"])}
    details |= {"rule": verdict["rule"], "word": verdict["word"]}
    return Problem(400, message, "image_generation_user_error", "moderation_blocked", moderation_details=details)


class Events(Response):
    """Server-sent events from an async iterator of (event or None, JSON data); closing it is the client's hanging up."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[tuple[str | None, dict[str, Any]]]) -> None:
        self.events, self.status_code, self.background = events, 200, None
        self.body = b""
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

        async def left() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        leaving = asyncio.ensure_future(left())
        try:
            while True:
                following = asyncio.ensure_future(anext(self.events))
                while not following.done():
                    await asyncio.wait((following, leaving), timeout=ALIVE, return_when=asyncio.FIRST_COMPLETED)
                    if leaving.done() and not following.done():
                        following.cancel()
                        await asyncio.gather(following, return_exceptions=True)
                        return
                    if not following.done():
                        await send({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})
                try:
                    name, data = following.result()
                except StopAsyncIteration:
                    break
                await send({"type": "http.response.body", "body": event(name, data), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:  # the connection broke while sending
            pass
        finally:
            leaving.cancel()
            await self.events.aclose()


def event(name: str | None, data: dict[str, Any]) -> bytes:
    return f"{f'event: {name}' + chr(10) if name else ''}data: {json.dumps(data)}\n\n".encode()


def shaped(path: str, problem: Problem) -> dict[str, Any]:
    """The body of an error as the clients of this path read it."""
    if path.startswith("/sdapi/"):
        return {"error": problem.kind, "detail": problem.message, "errors": problem.message, "body": ""}
    if path.endswith(":predict"):
        status = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}
        return {
            "error": {
                "code": problem.status,
                "message": problem.message,
                "status": status.get(problem.status, "INTERNAL"),
            }
        }
    return {"error": problem.body}


def as_problem(error: Exception) -> tuple[Problem, dict[str, str]]:
    """Any error as an answer, and headers of it."""
    if isinstance(error, Problem):
        return error, {}
    if isinstance(error, Full):
        return (
            Problem(429, f"{error}; try again in {error.seconds} s", "rate_limit_error", "queue_full"),
            {"Retry-After": str(error.seconds)},
        )
    if isinstance(error, Closing):
        return Problem(503, "the server is stopping", "server_error", "stopping"), {"Retry-After": "10"}
    if isinstance(error, Refused):
        told = error.verdict
        verdict = {"stage": told.stage, "categories": told.categories, "rule": told.rule, "word": told.word}
        return refusal(verdict, str(error)), {}
    if isinstance(error, NoModel):
        return Problem(404, str(error), code="model_not_found", param="model"), {}
    if isinstance(error, SfumatoError):
        return Problem(400, str(error), param=str(error).partition(":")[0] if ":" in str(error)[:20] else None), {}
    if isinstance(error, RequestValidationError):
        first = error.errors()[0] if error.errors() else {"loc": (), "msg": "wrong"}
        param = ".".join(str(part) for part in first["loc"][1:])
        return Problem(400, f"{param or 'body'}: {first['msg']}", param=param or None), {}
    if isinstance(error, HTTPException):
        return Problem(error.status_code, str(error.detail)), dict(error.headers or {})
    if isinstance(error, Gone):
        return Problem(499, "the client hung up"), {}
    LOG.error("fault", exc_info=error)
    return Problem(500, f"a fault of the server ({type(error).__name__}); its log says more", "server_error"), {}


def with_errors(app: FastAPI) -> None:
    """Every error of this app answered in the shape of its path."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        problem, headers = as_problem(error)
        return JSONResponse(shaped(request.url.path, problem), problem.status, headers=headers)

    for kind in (Problem, Full, Closing, Gone, SfumatoError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)
