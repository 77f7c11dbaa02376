"""The interface that OpenAI's clients speak: models, images/generations, images/edits, images/variations."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import math
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from sfumato.data.text import words
from sfumato.serve.common import Events, Problem, answers_of, client_of, desk_of, problem_of, shaped, succeeded, waited
from sfumato.serve.jobs import LONGEST, MOST, Ask
from sfumato.serve.pictures import as_format, preview
from sfumato.serve.shelf import Offered
from sfumato.serve.store import Job
from sfumato.tasks.model import Model
from sfumato.tasks.sampling import DEFAULTS

QUALITY = {"low": 0.5, "high": 2.0, "hd": 2.0}  # times the model's own number of steps
STYLES = {"vivid": 150, "natural": 50}  # as `--stylize`
PARTIALS = 3

Output = Literal["png", "jpeg", "webp"]
Quality = Literal["auto", "low", "medium", "high", "standard", "hd"]
Background = Literal["auto", "opaque", "transparent"]
Answer = Literal["url", "b64_json"]


class Generation(BaseModel):
    """What POST /v1/images/generations takes; seed, steps, guidance, negative_prompt and revise are ours."""

    model_config = ConfigDict(extra="ignore")

    prompt: str = Field(min_length=1, max_length=LONGEST, description="what to draw")
    model: str | None = Field(
        None, max_length=200, description="a name of GET /v1/models; OpenAI's names mean the first one"
    )
    n: int | None = Field(1, ge=1, le=MOST)
    size: str | None = Field("auto", max_length=20, description="auto, or WIDTHxHEIGHT in pixels, up to 4096 each")
    quality: Quality | None = Field("auto", description="low halves the model's number of steps, high and hd double it")
    style: str | None = Field(None, max_length=100, description="a style of the model, or vivid or natural")
    background: Background | None = "auto"
    moderation: Literal["auto", "low"] | None = "auto"
    output_format: Output | None = "png"
    output_compression: int | None = Field(100, ge=0, le=100)
    response_format: Answer | None = Field(None, description="b64_json; url where the model is called dall-e-...")
    stream: bool | None = False
    partial_images: int | None = Field(0, ge=0, le=PARTIALS)
    user: str | None = Field(None, max_length=200, description="clients take turns by it")
    seed: int | None = Field(None, ge=0, le=2**63 - 1, description="the same seed, the same pictures")
    steps: int | None = Field(None, ge=1, le=250)
    guidance: float | None = Field(None, ge=0, le=100, allow_inf_nan=False, description="1 is none")
    negative_prompt: str | None = Field(None, max_length=LONGEST)
    revise: bool | None = Field(
        True, description="whether the prompt is completed in the manner of the model's captions"
    )


class TextTokens(BaseModel):
    image_tokens: int
    text_tokens: int


class Usage(BaseModel):
    """Text tokens are words as the model reads them; 64 pixels are one image token."""

    input_tokens: int
    input_tokens_details: TextTokens
    output_tokens: int
    total_tokens: int


class Picture(BaseModel):
    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = None


class Pictures(BaseModel):
    """`seed` is ours: the pictures can be made again with it."""

    created: int
    data: list[Picture]
    background: str
    output_format: str
    quality: str
    size: str
    usage: Usage
    seed: int


class OneModel(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(BaseModel):
    object: Literal["list"]
    data: list[OneModel]


class Moderation(BaseModel):
    moderation_stage: str
    categories: list[str]
    rule: str | None
    word: str | None


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None
    moderation_details: Moderation | None = None


class Error(BaseModel):
    error: ErrorBody


REFUSALS = answers_of(Error)
router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=REFUSALS)


@router.get("/models", response_model=Models)
async def models(request: Request) -> dict[str, Any]:
    """The models that are served here."""
    return {"object": "list", "data": [_told(one) for one in desk_of(request).shelf]}


@router.get("/models/{model}", response_model=OneModel)
async def model(request: Request, model: str) -> dict[str, Any]:
    """One of them."""
    return _told(desk_of(request).shelf.get(model))


def _told(one: Offered) -> dict[str, Any]:
    return {"id": one.name, "object": "model", "created": one.created, "owned_by": "you"}


@router.post(
    "/images/generations",
    response_model=Pictures,
    response_model_exclude_none=True,
    responses={200: {"content": {"text/event-stream": {}}, "description": "the pictures, or their events"}},
)
async def generations(request: Request, told: Generation) -> Any:
    """Pictures of what a prompt says; as events with partial pictures where `stream` is true."""
    offered = desk_of(request).shelf.loosely(told.model)
    ask = ask_for(offered, told)
    return await answered(request, told, ask, "image_generation")


def ask_for(offered: Offered, told: Generation, **fields: Any) -> Ask:
    """What the job asks for, in our words; `fields` win."""
    if told.background == "transparent":
        raise Problem(400, "background: these models draw no transparency; ask for opaque", param="background")
    size, final = sizes_for(offered.model, told.size)
    styled = told.style in STYLES and told.style not in offered.model.styles
    steps = told.steps
    if steps is None and told.quality in QUALITY and "sampling" not in offered.model.facts:
        steps = round(DEFAULTS["steps"] * QUALITY[told.quality])
    made = {
        "prompt": told.prompt,
        "n": told.n or 1,
        "steps": steps,
        "guidance": told.guidance,
        "stylize": STYLES[told.style] if styled and offered.model.conditioned_on("text") else None,
        "style": None if styled else told.style,
        "negative": told.negative_prompt,
        "revise": told.revise is not False,
        "size": size,
        "final": final,
        "partials": (told.partial_images or 0) if told.stream else 0,
    }
    seed = {} if told.seed is None else {"seed": told.seed}
    return Ask(offered.name, **made | seed | fields)


def sizes_for(model: Model, size: str | None) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """What the model draws and what that is brought to: clients ask for sizes of other models, so a size that it did not
    learn is drawn in the nearest of its own proportions and resized."""
    if size in (None, "", "auto"):
        return None, None
    width, _, height = size.partition("x")
    if not (width.isascii() and height.isascii() and width.isdigit() and height.isdigit() and len(size) < 12):
        raise Problem(400, f"size: auto or WIDTHxHEIGHT in pixels, not {size[:20]!r}", param="size")
    asked = int(width), int(height)
    if not all(1 <= side <= 4096 for side in asked):
        raise Problem(400, "size: 1 to 4096 pixels a side", param="size")
    own = min(model.shapes, key=lambda shape: abs(math.log(shape[1] / shape[0]) - math.log(asked[0] / asked[1])))
    return (own[1], own[0]), asked


async def answered(request: Request, told: Generation, ask: Ask, kind: str, inputs: int = 0) -> Any:
    desk = desk_of(request)
    if told.stream:
        job = desk.accept(ask, client_of(request, told.user), True)
        return Events(_streamed(request, told, job, kind, inputs))
    job = await waited(request, desk.accept(ask, client_of(request, told.user), True))
    files = [desk.store.read(desk.store.file(file["hash"])) for file in job.result["files"]]
    as_url = told.response_format == "url" or (told.response_format is None and (told.model or "").startswith("dall-e"))
    data = []
    for file, about, caption in zip(files, job.result["files"], job.result["captions"], strict=False):
        out = await asyncio.to_thread(as_format, file, told.output_format or "png", _quality(told))
        one = {"revised_prompt": caption} if caption != ask.prompt else {}
        if as_url:
            kept = desk.store.keep(out, f"image/{told.output_format or 'png'}", (about["width"], about["height"]))
            one["url"] = (
                f"{request.url.scheme}://{request.headers['host']}{request.app.state.sign('/files/' + kept.hash)}"
            )
        else:
            one["b64_json"] = base64.b64encode(out).decode()
        data.append(one)
    return {"created": int(job.created), "data": data, **_about(told, job), "usage": _usage(job, inputs)} | {
        "seed": job.request["seed"]
    }


def _quality(told: Generation) -> int:
    return 100 if told.output_compression is None else told.output_compression


def _about(told: Generation, job: Job) -> dict[str, Any]:
    first = job.result["files"][0]
    quality = {"hd": "high", "standard": "medium", "auto": "medium"}.get(told.quality or "auto", told.quality)
    return {
        "background": "opaque",
        "output_format": told.output_format or "png",
        "quality": quality,
        "size": f"{first['width']}x{first['height']}",
    }


def _usage(job: Job, inputs: int, pictures: int | None = None) -> dict[str, Any]:
    """`inputs` are the pixels of the pictures that were given."""
    text, image = len(words(job.prompt)), -(-inputs // 64)
    files = job.result["files"][:pictures]
    out = sum(-(-file["width"] * file["height"] // 64) for file in files)
    details = {"image_tokens": image, "text_tokens": text}
    return {
        "input_tokens": text + image,
        "input_tokens_details": details,
        "output_tokens": out,
        "total_tokens": text + image + out,
    }


async def _streamed(
    request: Request, told: Generation, job: Job, kind: str, inputs: int
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Partial pictures when they come, then the finished ones; the job is cancelled when nobody listens any more."""
    desk = desk_of(request)
    live, sent = desk.live(job.id), 0
    form, final = told.output_format or "png", job.request["final"]
    about = {"background": "opaque", "output_format": form, "quality": "medium", "created_at": int(time.time())}
    try:
        while live is not None:
            changed, over = live.changed, live.over
            for step in sorted(live.kept)[sent:]:
                for k, pixels in enumerate(live.kept[step]):
                    size = tuple(final) if final else (pixels.shape[1], pixels.shape[0])
                    yield (
                        f"{kind}.partial_image",
                        {
                            "type": f"{kind}.partial_image",
                            "b64_json": await asyncio.to_thread(preview, pixels, form, size),
                            "partial_image_index": sent,
                            "picture": k,
                            "size": f"{size[0]}x{size[1]}",
                            **about,
                        },
                    )
                sent += 1
            if over:
                break
            await changed.wait()
        ended = desk.store.job(job.id)
        if ended.state != "done":
            problem = problem_of(ended.error or {}, ended.state)
            yield "error", shaped(request.url.path, problem)
            return
        for k, file in enumerate(succeeded(ended).result["files"]):
            kept = desk.store.read(desk.store.file(file["hash"]))
            data = await asyncio.to_thread(as_format, kept, form, _quality(told))
            yield (
                f"{kind}.completed",
                {
                    "type": f"{kind}.completed",
                    "b64_json": base64.b64encode(data).decode(),
                    "picture": k,
                    **about,
                    **_about(told, ended),
                    "usage": _usage(dataclasses.replace(ended, result={"files": [file]}), inputs),
                    "seed": ended.request["seed"],
                    "revised_prompt": ended.result["captions"][k],
                },
            )
    finally:
        desk.cancel(job.id, "the client hung up")
