"""One file per thing a user asks for."""

from sfumato.tasks.blend import blend
from sfumato.tasks.generate import Request, Result, generate
from sfumato.tasks.inpaint import inpaint
from sfumato.tasks.layout import layout
from sfumato.tasks.model import Model, load
from sfumato.tasks.outpaint import outpaint
from sfumato.tasks.shapes import by_shape
from sfumato.tasks.sketch import sketch
from sfumato.tasks.tile import tile
from sfumato.tasks.upscale import upscale
from sfumato.tasks.vary import vary

__all__ = [
    "Model",
    "Request",
    "Result",
    "blend",
    "by_shape",
    "generate",
    "inpaint",
    "layout",
    "load",
    "outpaint",
    "sketch",
    "tile",
    "upscale",
    "vary",
]
