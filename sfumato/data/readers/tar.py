"""WebDataset shards -> Records: uncompressed .tar files, read in place by the offsets of their members."""

from __future__ import annotations

import json
import os
import tarfile
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from sfumato.core import SfumatoError
from sfumato.data.metadata import clean
from sfumato.data.picture import Unusable, brief
from sfumato.data.progress import progress
from sfumato.data.records import LABEL_COLUMNS, OWN, PALETTE, SUFFIXES, Beside, Columns, Records, shown

_PACKED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz", b"\x28\xb5": "unzstd"}
_TOLD = ("json", "txt", "cls")
MANIFEST = "manifest.json"
MOST_TOLD = 2**20  # bytes of one caption or JSON file


class Sample:
    """Members that share a key: pictures as (name, extension, offset, size), and the row told of them."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.pictures: list[tuple[str, str, int, int]] = []
        self.told: dict[str, bytes] = {}

    def row(self, where: str) -> dict[str, Any]:
        """The columns: of key.json, then "text" from key.txt, and "label" from key.cls where the JSON has none."""
        row: dict[str, Any] = {}
        for kind in (k for k in _TOLD if k in self.told):
            at = f"{where}: {shown(self.key)}.{kind}"
            try:
                text = self.told[kind].decode("utf-8-sig")
                found = json.loads(text) if kind == "json" else text
            except (ValueError, RecursionError) as error:
                wrong = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"not valid JSON ({error})"
                raise SfumatoError(f"{at} is {wrong}; write the shard anew") from error
            if kind == "json":
                if not isinstance(found, dict):
                    raise SfumatoError(f'{at} is not a JSON object such as {{"text": "a cat"}}; write the shard anew')
                row = {c: clean(v) for c, v in found.items()}
                if not isinstance(row.get("text"), str | None):
                    raise SfumatoError(f"{at}: text is {row['text']!r}; a caption must be text in quotes")
            elif kind == "txt":
                row["text"] = clean(found)
            elif not any(c in row for c in LABEL_COLUMNS):
                row["label"] = clean(found)
        return row


def load(name: str, shards: list[Path]) -> Records:
    """Pictures of all shards in their order. A sample is a run of members with one key, the name up to its first dot.

    Of a sample with several pictures, those with a plain ending count (key.jpg); key.mask.png, key.map.png and
    key.sketch.png are what was drawn to them. The picture's name is the member's, or `file_name` of key.json. Raises
    SfumatoError naming the shard that cannot be read whole.
    """
    keys: list[str] = []
    numbers, offsets, sizes = array("l"), array("q"), array("q")
    columns, skipped, orphans = Columns(), {}, []
    seen: dict[str, int] = {}
    drawn: dict[str, dict[int, Beside]] = {control: {} for control in OWN}

    def fetched(number: int, offset: int, size: int) -> bytes:
        try:
            handle = os.open(shards[number], os.O_RDONLY)
            try:
                found = os.pread(handle, size, offset)
            finally:
                os.close(handle)
        except OSError as error:
            raise Unusable(f"its shard {shown(shards[number])} cannot be read ({error.strerror})") from error
        if len(found) < size:
            raise Unusable(f"its shard {shown(shards[number])} has become shorter")
        return found

    for number, shard in enumerate(progress(shards, len(shards), "reading shards")):
        for sample in _samples(shard, skipped):
            row = sample.row(shown(shard))
            plain = [p for p in sample.pictures if "." not in p[1]]
            if not sample.pictures:
                orphans.append(sample.key)
            given = row.pop("file_name", None)
            beside = _drawn(sample, number, fetched) if plain else {}
            for member, _, offset, size in plain or sample.pictures:
                key = given if isinstance(given, str) and len(plain or sample.pictures) == 1 else member
                if key in seen:
                    raise SfumatoError(
                        f"{shown(shard)}: {shown(key)} again, already in {shown(shards[seen[key]])}; every picture needs"
                        " a name of its own: leave one of the shards out, or write them anew"
                    )
                seen[key] = number
                for control, file in beside.items():
                    drawn[control][len(keys)] = file
                keys.append(key)
                numbers.append(number)
                offsets.append(offset)
                sizes.append(size)
                columns.add(row or None)
    where, palette = shown(shards[0].parent if shards[1:] else shards[0]), shards[0].parent / PALETTE
    if not keys:
        first = next((f"; {len(skipped)} members skipped, the first: {shown(k)}: {v}" for k, v in skipped.items()), "")
        raise SfumatoError(f"no pictures in {where}{first}; a shard holds key.png or key.jpg, and key.txt beside it")

    return Records(
        name=name,
        where=where,
        keys=keys,
        fetch=lambda row: fetched(numbers[row], offsets[row], sizes[row]),
        files=lambda: shards,
        columns=columns.values,
        described=columns.described if columns.values else None,
        orphans=orphans,
        skipped=skipped,
        notes={"shards": len(shards)},
        own={control: [files.get(row) for row in range(len(keys))] for control, files in drawn.items() if files},
        palette=palette if drawn["classes"] and palette.exists() else None,
    )


def _drawn(sample: Sample, number: int, fetched: Callable[[int, int, int], bytes]) -> dict[str, Beside]:
    """By control, what was drawn to the picture of a sample in this shard."""
    found = {}
    for control, (word, _) in OWN.items():
        for member, ending, offset, size in sample.pictures:
            if ending.partition(".")[0].lower() == word and "." in ending:
                found[control] = Beside(member, partial(fetched, number, offset, size))
    return found


def _samples(shard: Path, skipped: dict[str, str]) -> Iterator[Sample]:
    """Runs of members with one key."""
    sample = None
    for member, raw in _members(shard, skipped):
        path = PurePosixPath(member.name)
        stem, _, ending = path.name.partition(".")
        key = path.with_name(stem).as_posix()
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = Sample(key)
        if raw is not None:
            if ending in sample.told:
                raise SfumatoError(f"{shown(shard)}: {shown(member.name)} twice; write the shard anew")
            sample.told[ending] = raw
        else:
            sample.pictures.append((path.as_posix(), ending, member.offset_data, member.size))
    if sample is not None:
        yield sample


def _members(shard: Path, skipped: dict[str, str]) -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
    """Pictures (with None) and what is told of them (with its bytes); all else is left out, for a reason if odd."""
    where = shown(shard)
    try:
        with shard.open("rb") as file:
            how = _PACKED.get(file.read(2))
            if how:
                raise SfumatoError(f"{where} is compressed, so nothing in it can be found by its place; {how} it first")
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                before = -1
                while (member := tar.next()) is not None:
                    tar.members = []  # or it would keep every header
                    if tar.offset <= before or member.size < 0:  # a negative length would lead in circles
                        raise SfumatoError(f"{where} is damaged at byte {member.offset:,}; fetch it again")
                    before = tar.offset
                    ending = member.name.rpartition("/")[2].partition(".")[2].lower()
                    picture = "." + ending.rpartition(".")[2] in SUFFIXES
                    if member.isdir() or not (picture or ending in _TOLD) or _hidden(member.name):
                        continue
                    reason = _odd(member, picture)
                    if reason:
                        skipped[member.name] = reason
                        continue
                    raw = None
                    if not picture:
                        file.seek(member.offset_data)
                        raw = file.read(member.size)
                    yield member, raw
                file.seek(tar.offset)
                if file.read(512) != bytes(512):
                    raise SfumatoError(
                        f"{where} is cut off or damaged at byte {tar.offset:,}: no end mark there; fetch it again"
                    )
    except (tarfile.TarError, ValueError, RecursionError, OverflowError) as error:
        raise SfumatoError(f"{where} is no whole tar archive ({shown(brief(error))}); fetch it again") from error
    except OSError as error:
        raise SfumatoError(f"{where} cannot be read ({error.strerror})") from error


def _hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def _odd(member: tarfile.TarInfo, picture: bool) -> str:
    """Why a member is not taken; nothing is ever written to the disk, but such an archive was not made with care."""
    if member.issym() or member.islnk():
        return "a link, not a picture"
    if not member.isreg() or member.issparse():
        return "not a regular file"
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "its name leads out of the archive"
    if not picture and member.size > MOST_TOLD:
        return f"over {MOST_TOLD // 2**20} MiB: no caption or row"
    return ""


def check_manifest(folder: Path) -> None:
    """Raise SfumatoError when shards that the manifest of a pack names are missing or of another length."""
    path = folder / MANIFEST
    if not path.is_file():
        return
    try:
        told = {folder / s["file"]: s["bytes"] for s in json.loads(path.read_bytes())["shards"]}
    except (OSError, ValueError, KeyError, TypeError):
        return  # another tool's manifest
    for shard, size in told.items():
        if not shard.is_file():
            raise SfumatoError(f"{shown(shard)} is not there, and the manifest beside it names it; copy it again")
        if shard.stat().st_size != size:
            raise SfumatoError(
                f"{shown(shard)} has {shard.stat().st_size:,} bytes, and {size:,} by the manifest; copy it again"
            )
