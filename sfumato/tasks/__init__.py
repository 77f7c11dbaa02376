"""One file per thing a user asks for."""

from sfumato.tasks.generate import Request, Result, generate
from sfumato.tasks.model import Model, load
from sfumato.tasks.shapes import by_shape

__all__ = ["Model", "Request", "Result", "by_shape", "generate", "load"]
