"""The Studio's own interface: jobs on the queue, how they go, uploads, files and models."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from sfumato.data.audit.declared import receipt_of
from sfumato.data.layout import layout_of
from sfumato.serve.common import Events, Problem, client_of, desk_of
from sfumato.serve.jobs import LONGEST, MOST, Ask
from sfumato.serve.openai import REFUSALS
from sfumato.serve.pictures import BYTES, preview, taken
from sfumato.serve.store import ENDED, STATES, Job
from sfumato.tasks.asked import proportioned
from sfumato.tasks.prompt import parse

Hash = Field(None, pattern="^[0-9a-f]{64}$", description="hash of an uploaded or made file")
FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {mime: {} for mime in ("image/png", "image/jpeg", "image/webp")}, "description": "the file"},
    **REFUSALS,
}
WORDS = 400  # letters of one box
router = APIRouter(prefix="/api", tags=["Studio"], responses=REFUSALS)


class Wanted(BaseModel):
    """A job. The prompt may hold options as in chat bots (--ar 3:2 --no leaf --seed 7); fields win over them."""

    model_config = ConfigDict(extra="forbid")

    task: Literal["generate", "inpaint", "outpaint", "upscale", "vary", "sketch", "layout"] = "generate"
    model: str | None = Field(None, max_length=200)
    prompt: str = Field("", max_length=LONGEST)
    n: int | None = Field(None, ge=1, le=MOST, description="4; edits: 1")
    seed: int | None = Field(None, ge=0, le=2**63 - 1)
    steps: int | None = Field(None, ge=1, le=250)
    guidance: float | None = Field(None, ge=0, le=100, allow_inf_nan=False)
    style: str | None = Field(None, max_length=100)
    negative: str | None = Field(None, max_length=LONGEST)
    chaos: int | None = Field(None, ge=0, le=100)
    stylize: int | None = Field(None, ge=0, le=1000)
    size: str | None = Field(
        None, pattern=r"^[0-9]{1,4}x[0-9]{1,4}$", description="WIDTHxHEIGHT to draw (outpaint: of the whole)"
    )
    revise: bool = True
    strength: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    image: str | None = Hash
    mask: str | None = Hash
    sketch: str | None = Hash
    layout: dict[str, Any] | None = None
    zoom: float | None = Field(
        None, gt=1, le=16, allow_inf_nan=False, description="outpaint: 1.5 where no size is given"
    )
    scale: Literal[2, 4] | None = Field(None, description="upscale: times as large (2)")
    parents: list[Annotated[str, Field(pattern="^[0-9a-f]{1,64}$")]] = Field(
        [], max_length=16, description="jobs or files that this was made from"
    )


class Taken(BaseModel):
    """`position` is how many jobs come before this one; null when it runs already."""

    id: str
    position: int | None


class FileAbout(BaseModel):
    hash: str
    width: int
    height: int


class Uploaded(FileAbout):
    """`settings` is what our mark in the file says of how it was made."""

    settings: dict[str, Any] | None = None


class JobAbout(BaseModel):
    """A job as it stands. `children` are the jobs made from it or from its files."""

    id: str
    number: int
    state: Literal[STATES]
    task: str
    model: str
    prompt: str
    request: dict[str, Any]
    created: float
    started: float | None
    ended: float | None
    position: int | None
    step: int | None
    of: int | None
    files: list[FileAbout]
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    parents: list[str]
    children: list[str]


class JobList(BaseModel):
    """`next` is what to give as `before` for older ones; null when there are none."""

    jobs: list[JobAbout]
    next: int | None


@router.post("/jobs", response_model=Taken)
async def enqueue(request: Request, wanted: Wanted) -> dict[str, Any]:
    """Put a job into the queue."""
    desk = desk_of(request)
    for parent in wanted.parents:
        if desk.store.job(parent) is None and desk.store.file(parent) is None:
            raise Problem(400, f"parents: no job or file {parent[:80]!r}", param="parents")
    job = desk.accept(ask_of(request, wanted), client_of(request), parents=tuple(wanted.parents))
    return {"id": job.id, "position": desk.queue.position(job.id)}


def ask_of(request: Request, wanted: Wanted) -> Ask:
    """What the job asks for: the options of its prompt line, and its fields, which win."""
    lines = parse(wanted.prompt)
    if len(lines) > 1:
        raise Problem(400, f"prompt: it stands for {len(lines)} prompts; send them as one job each", param="prompt")
    line, model = lines[0], desk_of(request).shelf.get(wanted.model)
    size = wanted.size and tuple(int(side) for side in wanted.size.split("x"))
    if size is None and line.ar is not None:
        shape = proportioned(model.model, line.ar)
        size = shape[1], shape[0]
    told = {name: getattr(wanted, name) for name in ("n", "seed", "style", "chaos", "stylize")}
    told |= {name: getattr(line, name) for name in told if told[name] is None}
    fields = {name: value for name, value in told.items() if value is not None}
    if wanted.layout is not None and wanted.task != "layout":
        raise Problem(400, f"layout: {wanted.task} takes none", param="layout")
    layout = None if wanted.layout is None else _layout(wanted.layout)
    return Ask(
        model.name,
        wanted.task,
        line.text,
        steps=wanted.steps,
        guidance=wanted.guidance,
        negative=wanted.negative or line.no,
        revise=wanted.revise,
        size=size,
        strength=wanted.strength,
        images=() if wanted.image is None else (wanted.image,),
        mask=wanted.mask,
        sketch=wanted.sketch,
        layout=layout,
        zoom=wanted.zoom,
        scale=wanted.scale,
        **{"n": 4 if wanted.task == "generate" else 1} | fields,
    )


def _layout(told: dict[str, Any]) -> dict[str, Any]:
    """A layout as it is kept: nothing but what layouts have, in bounds; SfumatoError for what is none."""
    plan = layout_of(told)
    if len(plan.background) > LONGEST or any(len(box.text) > WORDS for box in plan.boxes):
        raise Problem(400, f"layout: at most {WORDS} letters for a box and {LONGEST} for the rest", param="layout")
    boxes = [{"box": list(box[:4]), "text": _plain(box.text)} for box in plan.boxes]
    return {"width": plan.width, "height": plan.height, "background": _plain(plan.background), "boxes": boxes}


def _plain(text: str) -> str:
    """Without halves of characters, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


@router.get("/jobs", response_model=JobList)
async def gallery(
    request: Request,
    state: str = Query("", max_length=60, description="states, parted by commas; all of them when empty"),
    q: str = Query("", max_length=500, description="words that the prompt has"),
    limit: int = Query(50, ge=1, le=500),
    before: int = Query(0, ge=0, le=2**62, description="only jobs with a smaller number"),
) -> dict[str, Any]:
    """Jobs, newest first."""
    desk = desk_of(request)
    states = [s for s in state.split(",") if s] or list(STATES)
    if set(states) - set(STATES):
        raise Problem(400, f"state: one of {', '.join(STATES)}", param="state")
    jobs = desk.store.jobs(states, q, limit=limit + 1, before=before)
    more = jobs[limit - 1].number if len(jobs) > limit else None
    return {"jobs": [about(request, job) for job in jobs[:limit]], "next": more}


@router.get("/jobs/{name}", response_model=JobAbout)
async def job(request: Request, name: str) -> dict[str, Any]:
    """One job, with what it was made from and what was made from it."""
    return about(request, _job(request, name))


@router.delete("/jobs/{name}", response_model=JobAbout)
async def cancel(request: Request, name: str) -> dict[str, Any]:
    """Cancel a job that waits or runs; nothing happens to one that has ended."""
    found = _job(request, name)
    desk_of(request).cancel(found.id)
    return about(request, _job(request, name))


@router.get(
    "/jobs/{name}/events",
    responses={200: {"content": {"text/event-stream": {}}, "description": "queued, step, done, failed or cancelled"}},
    response_class=Response,
)
async def events(request: Request, name: str) -> Events:
    """How a job goes, until it ends; hanging up does not cancel it."""
    return Events(_events(request, _job(request, name)))


@router.post("/uploads", response_model=Uploaded)
async def upload(request: Request, file: UploadFile) -> dict[str, Any]:
    """Keep a PNG, JPEG or WebP picture, of at most 50 MB and 32 million pixels."""
    data = await file.read(BYTES + 1)
    stored = await asyncio.to_thread(taken, desk_of(request).store, data, "file")
    return {"hash": stored.hash, "width": stored.width, "height": stored.height, "settings": receipt_of(data)}


@router.get("/files/{name}", responses=FILE, response_class=Response)
async def file(request: Request, name: str) -> Response:
    """A file by its hash."""
    from sfumato.serve.app import picture

    return picture(request, name)


@router.get("/models")
async def models(request: Request) -> dict[str, Any]:
    """The models: name, sizes as [width, height], classes, styles, and the conditions they were trained with."""
    return {"models": [one.told() for one in desk_of(request).shelf]}


def _job(request: Request, name: str) -> Job:
    found = desk_of(request).store.job(name)
    if found is None:
        raise Problem(404, f"no job {name[:80]!r}")
    return found


def about(request: Request, job: Job) -> dict[str, Any]:
    """What the Studio shows of a job."""
    desk = desk_of(request)
    live, files = desk.live(job.id), (job.result or {}).get("files", [])
    made = dict.fromkeys(c for name in (job.id, *(f["hash"] for f in files)) for c in desk.store.children(name))
    told = {f.name: getattr(job, f.name) for f in dataclasses.fields(job)}
    return told | {
        "position": desk.queue.position(job.id) if job.state == "queued" else None,
        "step": live.i if live else None,
        "of": live.of if live else None,
        "files": files,
        "parents": list(job.parents),
        "children": list(made),
    }


async def _events(request: Request, job: Job) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    desk = desk_of(request)
    live = desk.live(job.id)
    if live is not None:
        live.watchers += 1
        try:
            told: tuple[Any, ...] = ()
            while not live.over and not desk.closing:
                changed, position = live.changed, desk.queue.position(job.id)
                if position is not None and told != (position,):
                    told = (position,)
                    yield "queued", {"position": position}
                elif position is None and live.i and told != (live.i, live.of):
                    told = (live.i, live.of)
                    yield "step", {"step": live.i, "of": live.of, **await asyncio.to_thread(_previews, live.preview)}
                else:
                    await changed.wait()
        finally:
            live.watchers -= 1
    ended = desk.store.job(job.id)
    if ended.state in ENDED:
        yield ended.state, about(request, ended)


def _previews(pixels: Any) -> dict[str, Any]:
    if pixels is None:
        return {"previews": [], "mime": None}
    large = pixels.shape[1] * pixels.shape[2] > 128 * 128
    return {"previews": [preview(p, "jpeg" if large else "png") for p in pixels]} | {
        "mime": "image/jpeg" if large else "image/png"
    }
