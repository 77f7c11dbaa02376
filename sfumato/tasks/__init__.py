"""One file per thing a user asks for."""

from sfumato.tasks.generate import Request, Result, generate
from sfumato.tasks.model import Model, load

__all__ = ["Model", "Request", "Result", "generate", "load"]
