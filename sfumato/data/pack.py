"""Records -> WebDataset shards: .tar files of key.png, key.txt, key.cls and key.json, with a manifest."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfumato.core import SfumatoError
from sfumato.data.files import digest, sync
from sfumato.data.load import class_of
from sfumato.data.picture import Unusable
from sfumato.data.progress import progress
from sfumato.data.readers.tar import MANIFEST
from sfumato.data.records import LABEL_COLUMNS, OWN, PALETTE, Records, ending_of, read_file, shown


def pack(records: Records, out: Path, shard_bytes: int) -> dict[str, Any]:
    """Write the pictures' own bytes into shards of at most `shard_bytes` (or one picture) below `out`; all or nothing.

    Sample k is 0000000k.png (or the picture's own ending), .txt (caption) where the set has captions, .cls (number of
    the class, -1 unknown) where it has classes, and .json with the name as `file_name`, the class as `label` and every
    other column; what was drawn to the picture is .mask.png, .map.png and .sketch.png, and palette.json lies beside the shards.
    Pictures that cannot be read are left out and told. Returns the manifest, which is also written.
    Raises SfumatoError when `out` holds something or cannot be written.
    """
    if shard_bytes < 1:
        raise SfumatoError(f"a shard needs a size above 0, not {shard_bytes} bytes")
    temporary = None
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise SfumatoError(f"{shown(out)} already holds something: choose a folder that is new or empty")
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".part", dir=out.parent))
        manifest = _write(records, temporary, shard_bytes)
        temporary.chmod(0o755)
        os.replace(temporary, out)
        sync(out.parent)
    except OSError as error:
        raise SfumatoError(f"{shown(out)} cannot be written ({error.strerror})") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return manifest


@dataclass
class _Shards:
    """Shards written one after the other, each closed when the next sample would not fit."""

    folder: Path
    limit: int
    done: list[dict[str, Any]] = field(default_factory=list)
    tar: tarfile.TarFile | None = None
    pictures: int = 0

    def add(self, members: list[tuple[str, bytes]]) -> None:
        need = sum(512 + -(-len(raw) // 512) * 512 for _, raw in members)
        if self.tar is not None:
            whole = self.tar.offset + need + 1024  # the end mark
            if -(-whole // tarfile.RECORDSIZE) * tarfile.RECORDSIZE > self.limit:
                self.close()
        if self.tar is None:
            path = self.folder / f"shard-{len(self.done):06d}.tar"
            self.tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)
        for name, raw in members:
            member = tarfile.TarInfo(name)  # time 0 and no owner: the same set gives the same bytes
            member.size = len(raw)
            self.tar.addfile(member, io.BytesIO(raw))
        self.tar.members = []
        self.pictures += 1

    def close(self) -> None:
        if self.tar is None:
            return
        self.tar.close()
        path = Path(os.fsdecode(self.tar.name))
        sync(path)
        about = {"bytes": path.stat().st_size, "blake2b": digest(path, 16)}
        self.done.append({"file": path.name, "pictures": self.pictures, **about})
        self.tar, self.pictures = None, 0


def _write(records: Records, folder: Path, shard_bytes: int) -> dict[str, Any]:
    classes, found = class_of(records.keys, records.columns)
    numbers = {name: k for k, name in enumerate(classes)}
    named = any(c in records.columns for c in LABEL_COLUMNS)
    captioned = any(records.columns.get("text", ()))
    skipped = dict(records.skipped)
    shards, n = _Shards(folder, shard_bytes), 0
    for row, record in enumerate(progress(records, len(records), "packing")):
        try:
            raw = record.read()
            ending = ending_of(record.key, raw)
            drawn = [
                (word, file.name, read_file(found) if isinstance(found := file.file(), Path) else found)
                for control, (word, _) in OWN.items()
                if (file := records.own.get(control, {row: None})[row]) is not None
            ]
            drawn = [(f".{word}{ending_of(name, found)}", found) for word, name, found in drawn]
        except Unusable as reason:
            skipped[record.key] = str(reason)
            continue
        told = {"file_name": record.key} | {k: v for k, v in record.columns.items() if k != "text"}
        members = [(f"{n:08d}{ending}", raw), *((f"{n:08d}{end}", found) for end, found in drawn)]
        if captioned:
            members.append((f"{n:08d}.txt", (record.columns["text"] or "").encode()))
        if classes:
            told = told if named else told | {"label": found[row]}
            members.append((f"{n:08d}.cls", str(numbers.get(found[row], -1)).encode()))
        try:
            members.append((f"{n:08d}.json", json.dumps(told, allow_nan=False).encode()))
        except (TypeError, ValueError) as error:
            raise SfumatoError(
                f"{shown(record.key)}: its row cannot be written as JSON ({error}); leave that column out"
            ) from error
        shards.add(members)
        n += 1
    shards.close()
    if not n:
        first = next((f"; the first: {shown(k)}: {v}" for k, v in skipped.items()), "")
        raise SfumatoError(f"no picture of {records.where} can be read{first}")
    manifest = {
        "format": "sfumato pack 1",
        "source": records.name,
        "pictures": n,
        "classes": list(classes),
        "captioned": captioned,
        "shards": shards.done,
        "skipped": [{"file": k, "reason": v} for k, v in skipped.items()],
    }
    if records.palette is not None:
        shutil.copyfile(records.palette, folder / PALETTE)
        sync(folder / PALETTE)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    sync(folder / MANIFEST)
    sync(folder)
    return manifest
