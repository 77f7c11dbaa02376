"""Sets of pictures in every format, for the tests of sources that scale."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sfumato.data as data
from sfumato.core import SfumatoError

CAPTIONS = ["a black cat", 'a "quoted", grey cat', "", "dog", "zwei Hunde, größer", "dog"]


def picture(seed: int, side: int = 20, ending: str = "png") -> bytes:
    """The bytes of a small random picture, as smooth as JPEG wants it."""
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    raw = io.BytesIO()
    small.resize((side + seed % 5, side), Image.Resampling.BICUBIC).save(raw, "JPEG" if ending == "jpg" else ending)
    return raw.getvalue()


def make_folder(root: Path, n: int = 24, captions: bool = True) -> Path:
    """n pictures of two classes in subfolders, PNG and JPEG, captioned by a metadata.jsonl with a column more."""
    rows = []
    for k in range(n):
        name = f"{('cat', 'dog')[k % 2]}/{k:04d}.{('png', 'jpg')[k % 3 == 0]}"
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(k, ending=path.suffix[1:]))
        rows.append({"file_name": name, "text": CAPTIONS[k % len(CAPTIONS)], "stars": k % 4})
    if captions:
        (root / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return root


def make_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    """A tar archive of these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, raw in members:
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    return path


def told(folder: Path) -> list[dict[str, Any]]:
    """What is known of each picture of `make_folder`, sorted by name, with its bytes and its class."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").split("\n")]
    found = [row | {"bytes": (folder / row["file_name"]).read_bytes()} for row in rows]
    return sorted((row | {"label": row["file_name"].split("/")[0]} for row in found), key=lambda row: row["file_name"])


def line(given: object) -> str:
    """The one line of the error."""
    with pytest.raises(SfumatoError) as caught:
        data.open(given, size=8)
    told = str(caught.value)
    assert told.isprintable() and len(told) < 500, told
    return told
