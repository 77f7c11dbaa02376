"""The interface that clients of the A1111 web UI speak: /sdapi/v1."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
import time
from typing import Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from sfumato.data.audit.declared import receipt_of
from sfumato.serve.common import INVALID, Problem, answers_of, client_of, desk_of, waited
from sfumato.serve.jobs import LONGEST, MOST, STEPS, Ask
from sfumato.serve.openai import sizes_for
from sfumato.serve.pictures import from_base64, mask_for, preview, taken
from sfumato.serve.shelf import NoModel, Offered
from sfumato.serve.store import Store, Stored
from sfumato.tasks.asked import GUIDANCE

SAMPLERS = {
    "DPM++ 2M": "dpmpp2m",
    "Euler": "euler",
    "Euler a": "ddpm",  # its ancestral sampler; ours of that kind is the exact bridge
    "Heun": "heun",
    "DDIM": "ddim",
    "DDPM": "ddpm",
    "UniPC": "unipc",
}
CFG = 7.0  # what these clients send by habit; it means the usual guidance here
_WEIGHT = re.compile(r"\(([^():]*):[0-9.]+\)")
_TAG = re.compile(r"<\w+:[^<>]*>")


class Fault(BaseModel):
    error: str
    detail: str
    errors: str
    body: str


FAULTS = answers_of(Fault)
router = APIRouter(prefix="/sdapi/v1", tags=["A1111"], responses=FAULTS)


class Txt2Img(BaseModel):
    """What txt2img takes; whatever else its clients send is left aside."""

    model_config = ConfigDict(extra="ignore")

    prompt: str = Field("", max_length=LONGEST)
    negative_prompt: str | None = Field("", max_length=LONGEST)
    styles: list[str] | None = Field(None, max_length=16)
    seed: int | None = Field(-1, ge=-1, le=2**63 - 1, description="-1: drawn anew")
    sampler_name: str | None = Field(None, max_length=100)
    sampler_index: str | None = Field(None, max_length=100)
    batch_size: int | None = Field(1, ge=1, le=MOST)
    n_iter: int | None = Field(1, ge=1, le=MOST)
    steps: int | None = Field(None, ge=1, le=STEPS)
    cfg_scale: float | None = Field(
        CFG, ge=0, le=100, allow_inf_nan=False, description="7 is the model's usual guidance"
    )
    width: int | None = Field(None, ge=1, le=4096)
    height: int | None = Field(None, ge=1, le=4096)
    override_settings: dict[str, Any] | None = None
    send_images: bool | None = True


class Img2Img(Txt2Img):
    """What img2img takes; white places of the mask are drawn anew."""

    init_images: list[str] = Field(min_length=1, max_length=1, description="base64 or data URL")
    mask: str | None = None
    inpainting_mask_invert: int | bool | None = 0
    denoising_strength: float | None = Field(0.75, ge=0, le=1, allow_inf_nan=False)


class Images(BaseModel):
    """`info` is a JSON text."""

    images: list[str]
    parameters: dict[str, Any]
    info: str


class Chosen(BaseModel):
    model_config = ConfigDict(extra="ignore")

    sd_model_checkpoint: str | None = Field(None, max_length=300)


class PngInfo(BaseModel):
    image: str


@router.get("/options")
async def options(request: Request) -> dict[str, Any]:
    """The chosen model."""
    offered = _chosen(request)
    return {"sd_model_checkpoint": _title(offered), "sd_checkpoint_hash": offered.weights, "samples_format": "png"}


@router.post("/options")
async def choose(request: Request, told: Chosen) -> None:
    """Choose a model for this client; other options are left aside."""
    if told.sd_model_checkpoint is not None:
        chosen = request.app.state.chosen
        chosen[_client(request)] = _named(request, told.sd_model_checkpoint).name
        while len(chosen) > 1000:
            del chosen[next(iter(chosen))]


@router.get("/sd-models")
async def sd_models(request: Request) -> list[dict[str, Any]]:
    """The models."""
    return [
        {
            "title": _title(one),
            "model_name": one.name,
            "hash": one.weights[:10],
            "sha256": one.weights,
            "filename": one.name,
            "config": None,
        }
        for one in desk_of(request).shelf
    ]


@router.get("/samplers")
async def samplers() -> list[dict[str, Any]]:
    """The samplers."""
    return [{"name": name, "aliases": [ours], "options": {}} for name, ours in SAMPLERS.items()]


@router.get("/schedulers")
async def schedulers() -> list[dict[str, Any]]:
    """One: the times that the model was made for."""
    return [
        {"name": "automatic", "label": "Automatic", "aliases": None, "default_rho": -1.0, "need_inner_model": False}
    ]


@router.get("/upscalers")
async def upscalers() -> list[dict[str, Any]]:
    """None by name."""
    return [{"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 4.0}]


@router.get("/prompt-styles")
async def prompt_styles(request: Request) -> list[dict[str, Any]]:
    """The styles of the chosen model."""
    return [{"name": style, "prompt": "", "negative_prompt": ""} for style in _chosen(request).model.styles]


async def _nothing() -> list[dict[str, Any]]:
    """There are none here."""
    return []


EMPTY = (
    "latent-upscale-modes",
    "sd-vae",
    "sd-modules",
    "loras",
    "hypernetworks",
    "face-restorers",
    "realesrgan-models",
)
for _name in EMPTY:
    router.add_api_route(f"/{_name}", _nothing, name=_name)


@router.get("/scripts")
async def scripts() -> dict[str, list[str]]:
    """There are none here."""
    return {"txt2img": [], "img2img": []}


@router.get("/embeddings")
async def embeddings() -> dict[str, dict[str, Any]]:
    """There are none here."""
    return {"loaded": {}, "skipped": {}}


@router.get("/cmd-flags")
async def flags() -> dict[str, Any]:
    """There are none here."""
    return {}


@router.post("/refresh-checkpoints")
async def refresh() -> None:
    """Nothing to do."""


@router.get("/progress")
async def progress(request: Request, skip_current_image: bool = Query(False)) -> dict[str, Any]:
    """How the oldest running job of this client goes, with a preview."""
    mine = _mine(request)
    running = [live for live in desk_of(request).running if live.job in mine]
    live = running[0] if running else None
    share = live.i / live.of if live and live.of else 0.0
    begun = mine[live.job].started or mine[live.job].created if live else 0.0
    seen = live is not None and live.preview is not None and not skip_current_image
    return {
        "progress": min(share, 0.99),
        "eta_relative": (time.time() - begun) * (1 - share) / share if share else 0.0,
        "state": {
            "skipped": False,
            "interrupted": False,
            "stopping_generation": False,
            "job": live.job if live else "",
            "job_count": len(mine),
            "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.gmtime(begun)) if live else "0",
            "job_no": 0,
            "sampling_step": live.i if live else 0,
            "sampling_steps": live.of if live else 0,
        },
        "current_image": preview(live.preview[0]) if seen else None,
        "textinfo": None,
    }


@router.post("/interrupt")
async def interrupt(request: Request) -> dict[str, Any]:
    """End this client's jobs; those that run answer with what they have."""
    for name in _mine(request):
        desk_of(request).cancel(name, "interrupted")
    return {}


router.add_api_route("/skip", interrupt, methods=["POST"], name="skip")


@router.post("/png-info")
async def png_info(request: Request, told: PngInfo) -> dict[str, Any]:
    """What a file of ours says of itself."""
    data = from_base64(told.image)
    await asyncio.to_thread(taken, desk_of(request).store, data)
    settings = receipt_of(data) or {}
    return {
        "info": json.dumps(settings) if settings else "",
        "items": settings,
        "parameters": settings.get("request", {}),
    }


@router.post("/txt2img", response_model=Images)
async def txt2img(request: Request, told: Txt2Img) -> dict[str, Any]:
    """Pictures of what a prompt says."""
    return await _drawn(request, told, _ask(request, told))


@router.post("/img2img", response_model=Images)
async def img2img(request: Request, told: Img2Img) -> dict[str, Any]:
    """A picture drawn again, or what its mask leaves white drawn anew."""
    store = desk_of(request).store
    image, mask = await asyncio.to_thread(_pictures, store, told)
    ask = _ask(
        request,
        told,
        task="vary" if mask is None else "inpaint",
        images=(image.hash,),
        mask=mask,
        strength=told.denoising_strength,
        size=None,
    )
    return await _drawn(request, told, ask)


def _pictures(store: Store, told: Img2Img) -> tuple[Stored, str | None]:
    """The picture, and the hash of its mask."""
    image = taken(store, from_base64(told.init_images[0]), "init_images")
    if not told.mask:
        return image, None
    mask = taken(store, from_base64(told.mask, "mask"), "mask")
    return image, mask_for(store, mask, image, bool(told.inpainting_mask_invert)).hash


def _title(offered: Offered) -> str:
    return f"{offered.name} [{offered.weights[:10]}]"


def _named(request: Request, name: str) -> Offered:
    """A model by its name or title."""
    for one in desk_of(request).shelf:
        if name in (one.name, _title(one), one.weights, one.weights[:10]):
            return one
    raise NoModel(f"no model {name[:100]!r} is served here")


def _chosen(request: Request, settings: dict[str, Any] | None = None) -> Offered:
    if isinstance(own := (settings or {}).get("sd_model_checkpoint"), str):
        return _named(request, own)
    return desk_of(request).shelf.get(request.app.state.chosen.get(_client(request)))


def _ask(request: Request, told: Txt2Img, **fields: Any) -> Ask:
    offered = _chosen(request, told.override_settings)
    made = offered.model.facts.get("sampling")  # made for few steps: its own number and solver
    if (told.batch_size or 1) * (told.n_iter or 1) > MOST:
        raise Problem(400, f"batch_size x n_iter: at most {MOST} pictures", param="batch_size")
    usual = GUIDANCE if made is None else made.get("guidance", 1.0)
    size = None if not (told.width and told.height) else f"{told.width}x{told.height}"
    drawn, final = sizes_for(offered.model, size)
    styles = [style for style in told.styles or () if style in offered.model.styles]
    return Ask(
        offered.name,
        **{
            "prompt": _TAG.sub("", _WEIGHT.sub(r"\1", told.prompt)).strip(),
            "n": (told.batch_size or 1) * (told.n_iter or 1),
            "seed": secrets.randbelow(2**31) if told.seed in (None, -1) else told.seed,
            "steps": told.steps if made is None else None,
            "solver": _solver(told.sampler_name or told.sampler_index) if made is None else None,
            "guidance": 1 + (CFG if told.cfg_scale is None else told.cfg_scale) / CFG * (usual - 1),
            "style": styles[0] if styles else None,
            "negative": (told.negative_prompt or "").strip() or None,
            "size": drawn,
            "final": final,
        }
        | fields,
    )


def _solver(name: str | None) -> str | None:
    if not name:
        return None
    plain = name.removesuffix(" Karras").removesuffix(" SDE").lower()
    for known, ours in SAMPLERS.items():
        if plain in (known.lower(), ours):
            return ours
    raise Problem(404, "Sampler not found", INVALID, param="sampler_name")


def _client(request: Request) -> str:
    return client_of(request, "a1111")


def _mine(request: Request) -> dict[str, Any]:
    """The jobs of this client that wait or run, oldest first."""
    jobs, mine = desk_of(request).store.jobs(("queued", "running"), newest=False, limit=-1), _client(request)
    return {job.id: job for job in jobs if job.client == mine}


async def _drawn(request: Request, told: Txt2Img, ask: Ask) -> dict[str, Any]:
    desk = desk_of(request)
    if ask.guidance == 1.0:  # nothing is led away from then
        ask = Ask.of({**ask.__dict__, "negative": None})
    job = desk.accept(ask, _client(request), True)
    live = desk.live(job.id)
    live.watchers += 1  # /progress shows the newest preview
    try:
        done = await waited(request, job)
        files = [desk.store.read(desk.store.file(file["hash"])) for file in done.result["files"]]
        images, captions = [base64.b64encode(file).decode() for file in files], done.result["captions"]
    except Problem as problem:
        if "interrupted" not in problem.message or live.preview is None:
            raise
        images, captions = [preview(one) for one in live.preview], [ask.prompt] * ask.n
    info = {
        "prompt": ask.prompt,
        "all_prompts": captions,
        "negative_prompt": ask.negative or "",
        "seed": ask.seed,
        "all_seeds": [ask.seed] * len(images),
        "steps": live.of,
        "cfg_scale": told.cfg_scale,
        "width": told.width,
        "height": told.height,
        "sampler_name": told.sampler_name,
        "sd_model_name": ask.model,
        "job": job.id,
        "infotexts": captions,
    }
    parameters = told.model_dump(exclude={"init_images", "mask"})
    return {
        "images": images if told.send_images is not False else [],
        "parameters": parameters,
        "info": json.dumps(info),
    }
