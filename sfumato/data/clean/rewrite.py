"""Rewriting what stays: pictures as upright 8-bit sRGB, metadata without the rows that were dropped."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from PIL import Image, ImageCms, ImageOps

from sfumato.data.picture import Unusable, flatten

# endings that can hold 8-bit colour, with the options that lose nothing (JPEG: as little as it can)
_OPTIONS = {
    ".png": {"format": "PNG"},
    ".bmp": {"format": "BMP"},
    ".tif": {"format": "TIFF", "compression": "tiff_deflate"},
    ".tiff": {"format": "TIFF", "compression": "tiff_deflate"},
    ".tga": {"format": "TGA"},
    ".webp": {"format": "WEBP", "lossless": True},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
}
_OPTIONS[".jpeg"] = _OPTIONS[".jfif"] = _OPTIONS[".jpg"]


def converted_name(name: str) -> str:
    """The name after conversion: the same, with ".png" behind it when its format cannot hold 8-bit colour."""
    return name if PurePosixPath(name).suffix.lower() in _OPTIONS else name + ".png"


def convert(source: Path, target: Path, name: str, grey: bool) -> None:
    """Write the picture of `source` as upright 8-bit sRGB (grey where `grey` and it has no colour), without an alpha channel.

    An embedded colour profile is applied; the format is that of the ending of `name`. Raises Unusable.
    """
    try:
        with Image.open(source) as opened:
            picture = ImageOps.exif_transpose(opened)
            profile = opened.info.get("icc_profile")
            flat = _managed(picture, profile) if profile and picture.mode in ("RGB", "CMYK") else flatten(picture)
        flat = flat if grey and flat.mode == "L" else flat.convert("RGB")
        flat.info.clear()  # or Pillow would write the old profile and transparency again
        flat.save(target, **_OPTIONS[PurePosixPath(converted_name(name)).suffix.lower()])
    except OSError as error:
        if error.errno is not None:  # the disk, not the picture
            raise
        raise Unusable(f"cannot be converted ({error})") from error
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Unusable(f"cannot be converted ({error})") from error


def _managed(picture: Image.Image, profile: bytes) -> Image.Image:
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        done = ImageCms.profileToProfile(picture, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):  # a broken profile, or one for other channels: as if it were not there
        return flatten(picture)
    return flatten(picture) if done is None else done


def mostly_grey(pictures: list[Path]) -> bool:
    """Whether most of the pictures (a hundred of them, evenly chosen) are stored without colour."""
    looked = pictures[:: max(1, len(pictures) // 100)]
    modes = []
    for path in looked:
        try:
            with Image.open(path) as picture:
                modes.append(picture.mode)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
    return 2 * sum(m in ("1", "L", "LA") or m.startswith("I") for m in modes) > len(modes)


def rewrite_table(raw: bytes, name: str, drop: Collection[str], renamed: dict[str, str]) -> bytes:
    """A metadata file without the rows of `drop` and with new names; every other row stays as it is, byte for byte."""

    def key(given: str) -> str:
        return (PurePosixPath(name).parent / given.strip().replace("\\", "/")).as_posix()

    if name.endswith(".jsonl"):
        return _jsonl(raw, key, drop, renamed)
    return _csv(raw, key, drop, renamed)


def _jsonl(raw: bytes, key, drop: Collection[str], renamed: dict[str, str]) -> bytes:
    kept = []
    for line in raw.split(b"\n"):
        row = json.loads(line.decode("utf-8-sig")) if line.removeprefix(b"\xef\xbb\xbf").strip() else None
        file = key(row["file_name"]) if row else ""
        if file in renamed:
            row["file_name"] = row["file_name"].strip() + renamed[file][len(file) :]
            line = json.dumps(row, ensure_ascii=False).encode()
        if row is None or file not in drop:
            kept.append(line)
    return b"\n".join(kept)


def _csv(raw: bytes, key, drop: Collection[str], renamed: dict[str, str]) -> bytes:
    lines = list(io.StringIO(raw.decode("utf-8-sig"), newline=""))
    reader = csv.reader(lines)
    header = next(reader)
    column, begin = header.index("file_name"), reader.line_num
    kept = lines[:begin]
    for row in reader:
        chunk = lines[begin : reader.line_num]
        begin = reader.line_num
        file = key(row[column]) if row else ""
        if file in renamed:
            row[column] = row[column].strip() + renamed[file][len(file) :]
            written = io.StringIO(newline="")
            csv.writer(written, lineterminator=chunk[-1][len(chunk[-1].rstrip("\r\n")) :]).writerow(row)
            chunk = [written.getvalue()]
        if not row or file not in drop:
            kept += chunk
    bom = b"\xef\xbb\xbf" if raw.startswith(b"\xef\xbb\xbf") else b""
    return bom + "".join(kept).encode()
