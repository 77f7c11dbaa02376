"""The interface that clients of Imagen speak: models/NAME:predict."""

from __future__ import annotations

import asyncio
import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from sfumato.serve.common import answers_of, client_of, desk_of, waited
from sfumato.serve.jobs import LONGEST, Ask
from sfumato.serve.pictures import as_format
from sfumato.tasks.asked import proportioned

MIMES = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}


class Status(BaseModel):
    code: int
    message: str
    status: str


class Fault(BaseModel):
    error: Status


FAULTS = answers_of(Fault)
router = APIRouter(tags=["Imagen"], responses=FAULTS)


class Instance(BaseModel):
    model_config = ConfigDict(extra="ignore")

    prompt: str = Field(min_length=1, max_length=LONGEST)


class Output(BaseModel):
    model_config = ConfigDict(extra="ignore")

    mimeType: Literal["image/png", "image/jpeg", "image/webp"] | None = "image/png"
    compressionQuality: int | None = Field(75, ge=0, le=100)


class Parameters(BaseModel):
    model_config = ConfigDict(extra="ignore")

    sampleCount: int | None = Field(4, ge=1, le=8)
    aspectRatio: Literal["1:1", "3:4", "4:3", "9:16", "16:9"] | None = "1:1"
    negativePrompt: str | None = Field(None, max_length=LONGEST)
    seed: int | None = Field(None, ge=0, le=2**32 - 1)
    enhancePrompt: bool | None = True
    outputOptions: Output | None = None


class Predict(BaseModel):
    model_config = ConfigDict(extra="ignore")

    instances: Instance | Annotated[list[Instance], Field(min_length=1, max_length=1)]
    parameters: Parameters | None = None


class Prediction(BaseModel):
    mimeType: str
    bytesBase64Encoded: str
    prompt: str


class Predictions(BaseModel):
    predictions: list[Prediction]


async def predict(request: Request, model: str, told: Predict) -> dict[str, Any]:
    """Pictures of what a prompt says."""
    desk, given = desk_of(request), told.parameters or Parameters()
    offered, output = desk.shelf.loosely(model), given.outputOptions or Output()
    shape = proportioned(offered.model, tuple(int(n) for n in (given.aspectRatio or "1:1").split(":")))
    seed = {} if given.seed is None else {"seed": given.seed}
    ask = Ask(
        offered.name,
        prompt=(told.instances[0] if isinstance(told.instances, list) else told.instances).prompt,
        n=given.sampleCount or 4,
        negative=given.negativePrompt or None,
        revise=given.enhancePrompt is not False,
        size=(shape[1], shape[0]),
        **seed,
    )
    done = await waited(request, desk.accept(ask, client_of(request), True))
    found, mime = [], output.mimeType or "image/png"
    quality = 75 if output.compressionQuality is None else output.compressionQuality
    for file, caption in zip(done.result["files"], done.result["captions"], strict=False):
        kept = desk.store.read(desk.store.file(file["hash"]))
        data = await asyncio.to_thread(as_format, kept, MIMES[mime], quality)
        found.append({"mimeType": mime, "bytesBase64Encoded": base64.b64encode(data).decode(), "prompt": caption})
    return {"predictions": found}


for _base in ("/v1", "/v1beta"):
    router.add_api_route(
        f"{_base}/models/{{model}}:predict",
        predict,
        methods=["POST"],
        response_model=Predictions,
        name=f"predict{_base}",
    )
