"""Sfumato: diffusion models from a folder of your own data to a model that is trained, measured and served."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["generate", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from sfumato.tasks import load

        return load
    if name == "generate":
        from sfumato.tasks.asked import draw

        return draw
    raise AttributeError(f"module 'sfumato' has no attribute {name!r}")
