"""The models that a server offers, by name."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.core import SfumatoError
from sfumato.data.drawings import palette_of
from sfumato.tasks import Model, load
from sfumato.tasks.receipt import Maker
from sfumato.tasks.shipped import find, listed


class NoModel(SfumatoError):
    """No model of this name is served."""


@dataclass(frozen=True)
class Offered:
    """One model, what its pictures say of it, and when it was made (seconds since 1970)."""

    model: Model
    maker: Maker
    created: int

    @property
    def name(self) -> str:
        return self.maker.name

    @property
    def weights(self) -> str:
        """The fingerprint of its weights."""
        return self.maker.weights

    def told(self) -> dict[str, Any]:
        """What a client may know: nothing of where it lies."""
        model = self.model
        return {
            "name": self.name,
            "size": [model.shapes[0][1], model.shapes[0][0]],
            "sizes": [[w, h] for h, w in model.shapes],
            "multiple": model.denoiser.net.config.multiple,
            "classes": list(model.classes),
            "styles": list(model.styles),
            "slots": [spec.name for spec in model.denoiser.net.config.slots],
            "palette": [[area.colour, area.name] for area in palette_of(model.facts)],
            "steps": model.facts.get("sampling", {}).get("steps"),
            "parameters": sum(p.numel() for p in model.denoiser.parameters()),
            "weights": self.weights,
            "created": self.created,
        }


class Shelf:
    """Models by name, the first one the default. Raises SfumatoError for what is no model, and when there is none."""

    def __init__(self, names: Iterable[str]) -> None:
        self._offered: dict[str, Offered] = {}
        self._lock = threading.Lock()
        for name in list(names) or [model["name"] for model in listed()] or [None]:
            self.add(find(name))

    def __iter__(self):
        return iter(list(self._offered.values()))

    def add(self, path: Path, base: str | None = None) -> Offered:
        """One more model, named after its folder or file where no name is given."""
        model = load(path)
        base = name = base or path.resolve().name.removesuffix(".safetensors")
        with self._lock:
            number = 2
            while name in self._offered:
                name, number = f"{base}-{number}", number + 1
            made = int(path.stat().st_mtime) if path.exists() else int(time.time())
            self._offered[name] = Offered(model, Maker.of(model, name), made)
            return self._offered[name]

    def get(self, name: str | None) -> Offered:
        """The model of this name (None: the default); SfumatoError names those that there are."""
        with self._lock:
            if not name:
                return next(iter(self._offered.values()))
            if name not in self._offered:
                raise NoModel(f"no model {name[:100]!r} is served here; there are: {', '.join(self._offered)}")
            return self._offered[name]

    def loosely(self, name: str | None) -> Offered:
        """The model of this name, or the default one for the names that clients of other servers send by habit."""
        habit = name is None or name.lower().startswith(("dall-e", "gpt-image", "chatgpt-image", "imagen", "auto"))
        return self.get(None if habit and name not in self._offered else name)
