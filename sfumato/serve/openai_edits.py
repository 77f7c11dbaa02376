"""OpenAI's images/edits and images/variations: multipart forms with pictures."""

from __future__ import annotations

import asyncio
from io import BytesIO
from typing import Any, Literal

from fastapi import APIRouter, Request
from PIL import Image
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import FormData, UploadFile

from sfumato.serve.common import Problem, desk_of
from sfumato.serve.jobs import LONGEST
from sfumato.serve.openai import REFUSALS, Generation, Pictures, answered, ask_for
from sfumato.serve.pictures import BYTES, picture_of, taken
from sfumato.serve.store import Store, Stored

IMAGES = 16
FIDELITY = {"high": 0.35, "low": 0.6}  # how far to go from a picture that is drawn again whole
router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=REFUSALS)


class Edit(Generation):
    """The fields of POST /v1/images/edits beside its files `image` (or `image[]`) and `mask`; strength is ours."""

    input_fidelity: Literal["high", "low"] | None = Field("low", description="without a mask: how near to the picture")
    strength: float | None = Field(
        None, gt=0, le=1, allow_inf_nan=False, description="without a mask: 1 is a new picture"
    )


class Variation(Edit):
    """The fields of POST /v1/images/variations beside its file `image`."""

    prompt: str = Field("", max_length=LONGEST)


def _form(model: type[BaseModel], files: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """The request body for the OpenAPI document."""
    told = model.model_json_schema()
    told["properties"] |= files
    told["required"] = sorted({*told.get("required", []), *required})
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": told}}}}


_FILE = {"type": "string", "format": "binary"}
_IMAGES = {"image": {"type": "array", "items": _FILE, "minItems": 1, "maxItems": IMAGES}, "mask": _FILE}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "the pictures, or their events"}
}


@router.post(
    "/images/edits",
    response_model=Pictures,
    response_model_exclude_none=True,
    responses=_EVENTS,
    openapi_extra=_form(Edit, _IMAGES, ["image"]),
)
async def edits(request: Request) -> Any:
    """A picture with what its mask leaves transparent drawn anew; without a mask and transparency it is drawn again whole,
    and several pictures become one."""
    form = await request.form(max_files=IMAGES + 1, max_fields=50)
    told, store = _told(Edit, form), desk_of(request).store
    images = await _pictures(store, form, IMAGES)
    masks = await _pictures(store, form, 1, "mask")
    clear = await asyncio.to_thread(_transparent, store, images[0])
    if masks and (masks[0].width, masks[0].height) != (images[0].width, images[0].height):
        size = f"{masks[0].width}x{masks[0].height}"
        raise Problem(
            400, f"mask: {size}, and the image {images[0].width}x{images[0].height}: make them alike", param="mask"
        )
    if (masks or clear) and len(images) > 1:
        raise Problem(
            400, "image: with a mask there is one picture; these models take no others beside it", param="image"
        )
    task = "inpaint" if masks or clear else "vary"
    return await _edited(request, told, task, images, masks[0].hash if masks else None)


@router.post(
    "/images/variations",
    response_model=Pictures,
    response_model_exclude_none=True,
    responses=_EVENTS,
    openapi_extra=_form(Variation, {"image": _FILE}, ["image"]),
)
async def variations(request: Request) -> Any:
    """Pictures like the one that is given."""
    form = await request.form(max_files=2, max_fields=50)
    told = _told(Variation, form)
    return await _edited(request, told, "vary", await _pictures(desk_of(request).store, form, 1), None)


async def _edited(request: Request, told: Edit, task: str, images: list[Stored], mask: str | None) -> Any:
    offered = desk_of(request).shelf.loosely(told.model)
    strength = told.strength or FIDELITY[told.input_fidelity or "low"]
    ask = ask_for(
        offered, told, task=task, images=tuple(i.hash for i in images), mask=mask, strength=strength, size=None
    )
    return await answered(request, told, ask, "image_edit", sum(i.width * i.height for i in images))


def _told(model: type[Edit], form: FormData) -> Any:
    fields = {name: value for name, value in form.multi_items() if isinstance(value, str) and name not in _IMAGES}
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"])
        raise Problem(400, f"{param}: {first['msg']}", param=param) from error


async def _pictures(store: Store, form: FormData, most: int, name: str = "image") -> list[Stored]:
    """The files of this field, kept; Problem where there are too many, or none of a picture."""
    files = [value for key, value in form.multi_items() if key in (name, f"{name}[]")]
    if any(not isinstance(file, UploadFile) for file in files):
        raise Problem(400, f"{name}: send a file", param=name)
    if len(files) > most or (not files and name == "image"):
        raise Problem(400, f"{name}: {'1' if most == 1 else f'1 to {most}'} file, not {len(files)}", param=name)
    return [await asyncio.to_thread(taken, store, await file.read(BYTES + 1), name) for file in files]


def _transparent(store: Store, stored: Stored) -> bool:
    """Whether the picture has places to fill."""
    with Image.open(BytesIO(store.read(stored))) as header:
        if header.mode not in ("RGBA", "LA", "PA") and "transparency" not in header.info:
            return False
    return picture_of(store, stored.hash).convert("RGBA").getchannel("A").getextrema()[0] < 128
