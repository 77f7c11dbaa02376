"""The Studio's interface to audits and trainings."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from sfumato.core import SfumatoError
from sfumato.serve.common import Problem, desk_of
from sfumato.serve.openai import REFUSALS
from sfumato.serve.pictures import taken
from sfumato.serve.works import Work, Works, newest_preview, rows_of

router = APIRouter(prefix="/api", tags=["Studio"], responses=REFUSALS)


class Folder(BaseModel):
    """`folder` is a name of GET /api/sources; `text` looks for text and watermarks too (about 1 s a picture)."""

    model_config = ConfigDict(extra="forbid")

    folder: str = Field(max_length=1000)
    text: bool = False


class Training(BaseModel):
    """What `sfumato train` takes."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(max_length=1000, description="a name of GET /api/sources")
    name: str = Field("", max_length=60, pattern=r"^[\w .-]*$", description="what the model is called in lists")
    minutes: float = Field(5, gt=0, le=10_000, allow_inf_nan=False)
    size: int | None = Field(None, ge=8, le=1024)
    recipe: Literal["default", "transformer", "text", "icons", "words", "ddpm", "score", "edm"] | None = None
    seed: int | None = Field(None, ge=0, le=2**31)


class Started(BaseModel):
    id: str


@router.get("/sources")
async def sources(request: Request) -> dict[str, list[str]]:
    """The folders and sets that may be audited and trained on."""
    return {"sources": list(_works(request).sources())}


@router.post("/audit", response_model=Started)
async def audit(request: Request, told: Folder) -> dict[str, str]:
    """Begin an audit."""
    work = await _works(request).start("audit", told.folder, told.folder, ["--text"] if told.text else [])
    return {"id": work.id}


@router.get("/audit/{name}")
async def audited(request: Request, name: str) -> dict[str, Any]:
    """How an audit goes, and what it found."""
    return _about(_one(request, name, "audit"))


@router.delete("/audit/{name}")
async def stop_audit(request: Request, name: str) -> dict[str, Any]:
    """Stop an audit."""
    work = _one(request, name, "audit")
    _works(request).stop(work)
    return _about(work)


@router.post("/trainings", response_model=Started)
async def train(request: Request, told: Training) -> dict[str, str]:
    """Begin a training; one runs at a time."""
    options = ["--minutes", str(told.minutes)]
    for name in ("size", "recipe", "seed"):
        if getattr(told, name) is not None:
            options += [f"--{name}", str(getattr(told, name))]
    work = await _works(request).start("train", told.source, told.name.strip() or told.source, options)
    return {"id": work.id}


@router.get("/trainings")
async def trainings(request: Request) -> dict[str, Any]:
    """All of them, newest first."""
    return {"trainings": [_about(work) for work in _works(request).all("train")]}


@router.get("/trainings/{name}")
async def training(
    request: Request, name: str, after: int = Query(-1, ge=-1, le=2**53, description="rows of later steps only")
) -> dict[str, Any]:
    """How a training goes: its log, its meter of quality and copies, and the hash of its newest preview."""
    work = _one(request, name, "train")
    preview, path = None, newest_preview(work)
    if path is not None:
        try:
            preview = (await asyncio.to_thread(taken, desk_of(request).store, path.read_bytes())).hash
        except (OSError, SfumatoError):  # it is being written
            preview = None
    rows = [row for row in rows_of(work) if row.get("step", 0) > after]
    return _about(work) | {"rows": rows, "meter": rows_of(work, "meter"), "preview": preview}


@router.delete("/trainings/{name}")
async def stop_training(request: Request, name: str) -> dict[str, Any]:
    """Stop a training; what it has learned is kept."""
    work = _one(request, name, "train")
    _works(request).stop(work)
    return _about(work)


@router.post("/trainings/{name}/use")
async def use(request: Request, name: str) -> dict[str, Any]:
    """Serve the model of a training, from now on among GET /api/models."""
    work = _one(request, name, "train")
    if work.state == "running":
        raise Problem(409, "the training runs: stop it first, or wait", code="running")
    if work.model is None:
        work.model = (await asyncio.to_thread(desk_of(request).shelf.add, work.folder, work.name)).name
    return {"model": work.model}


def _works(request: Request) -> Works:
    return request.app.state.works


def _one(request: Request, name: str, kind: str) -> Work:
    work = _works(request).get(name, kind)
    if work is None:
        raise Problem(404, f"no such {'training' if kind == 'train' else kind}: {name[:80]!r}")
    return work


def _about(work: Work) -> dict[str, Any]:
    names = ("id", "state", "source", "name", "line", "result", "error", "model", "created")
    return {name: getattr(work, name) for name in names}
