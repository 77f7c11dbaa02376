"""The server: all interfaces on one queue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import PlainTextResponse, Response

import sfumato
from sfumato.serve import a1111, imagen, openai, openai_edits, studio, studio_page, studio_works
from sfumato.serve.common import Problem, desk_of, with_errors
from sfumato.serve.desk import Desk
from sfumato.serve.guard import Guard
from sfumato.serve.metrics import metrics
from sfumato.serve.works import Works

CACHED = {"cache-control": "private, max-age=31536000, immutable"}


def build(
    desk: Desk,
    host: str = "127.0.0.1",
    token: str | None = None,
    works: Works | None = None,
    names: tuple[str, ...] = (),
) -> Guard:
    """The ASGI application; it owns the desk and the works (None: no folder may be read), and closes them when it ends."""
    works = works or Works(desk.store.folder / "trainings", ())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        desk.open()
        yield
        await works.close()
        await desk.close()

    app = FastAPI(
        title="Sfumato",
        version=sfumato.__version__,
        description="Pictures from models of your own, by the interfaces that clients know.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    guard = Guard(app, (host, *names), token)
    app.state.desk, app.state.sign, app.state.chosen = desk, guard.sign, {}
    app.state.works, app.state.token = works, token
    with_errors(app)
    for module in (openai, openai_edits, a1111, imagen, studio, studio_works, studio_page):
        app.include_router(module.router)

    @app.get("/health", tags=["server"], include_in_schema=True)
    async def health() -> dict[str, Any]:
        """Whether the server takes jobs."""
        return {
            "status": "stopping" if desk.closing else "ok",
            "waiting": len(desk.queue),
            "running": len(desk.running),
        }

    @app.get("/metrics", tags=["server"], response_class=PlainTextResponse)
    async def prometheus() -> PlainTextResponse:
        """Numbers for Prometheus."""
        return PlainTextResponse(metrics(desk, guard.requests), media_type="text/plain; version=0.0.4")

    @app.get("/files/{name}", tags=["server"], responses=studio.FILE)
    async def file(request: Request, name: str) -> Response:
        """A picture by the hash of its bytes, where an answer gave its address."""
        return picture(request, name)

    app.openapi = lambda: _openapi(app)
    return guard


def picture(request: Request, name: str) -> Response:
    """A stored file; the name is looked up, never joined to a folder."""
    store = desk_of(request).store
    stored = store.file(name)
    if stored is None:
        raise Problem(404, f"no file {name[:80]!r} was uploaded or made here")
    return Response(store.read(stored), media_type=stored.mime, headers=CACHED)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the answers that are really given: 400 instead of FastAPI's 422."""
    if not app.openapi_schema:
        told = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for path in told["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        told["components"]["schemas"].pop("HTTPValidationError", None)
        told["components"]["schemas"].pop("ValidationError", None)
        app.openapi_schema = told
    return app.openapi_schema
