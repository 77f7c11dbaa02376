"""The models that come with the package: files in sfumato/models, told of in its index.json."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from sfumato.core import SfumatoError

FOLDER = Path(__file__).parent.parent / "models"


def listed(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """What the index tells of each shipped model: name, file, what it draws."""
    return json.loads((folder / "index.json").read_text(encoding="utf-8"))["models"]


def beside(name: str) -> list[Path]:
    """Where the model that a receipt names may lie: here, or in runs/. Receipts name models without their folders; what
    names one was written by somebody else, and leads nowhere."""
    if Path(name).name != name or name in ("", ".."):
        return []
    return [Path(name), Path(f"{name}.safetensors"), Path("runs") / name]


def find(name: str | None, folder: Path = FOLDER) -> Path:
    """The run folder or file of this name, else the shipped model (None: the default one).

    Raises SfumatoError when there is no such thing.
    """
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    if name is None:
        name = index["default"]
        if name is None:
            raise SfumatoError(
                "no model comes with this version: train one (sfumato data get emoji; sfumato train icons --recipe icons "
                "--size 32 --run runs/icons --minutes 60) and give it as --model runs/icons"
            )
    elif Path(name).exists():
        return Path(name)
    known = {model["name"]: model["file"] for model in index["models"]}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SfumatoError(f"no run folder, file or shipped model {name[:200]!r}{hint}; see 'sfumato models'")
    return folder / known[name]
