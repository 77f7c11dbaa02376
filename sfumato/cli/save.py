"""The files that every command writes its pictures to, each with the receipt of what made it."""

from __future__ import annotations

from pathlib import Path

from sfumato.core import SfumatoError
from sfumato.data.records import shown
from sfumato.measure import grid_image
from sfumato.tasks import Result
from sfumato.tasks.receipt import Maker, encoded, receipt


def write(result: Result, out: Path, maker: Maker, asked: str | None = None) -> list[Path]:
    """A sheet of all pictures as `out` (.png) and the single ones beside it, NAME-1.png and on; returns the single files.

    `asked` is the prompt as the user wrote it where it was revised. An edit of one picture needs no sheet: `out` is the
    picture itself. Raises SfumatoError when the disk does not take them.
    """
    alone = result.task != "generate" and len(result.images) == 1
    files = [out] if alone else [out.with_name(f"{out.stem}-{k + 1}.png") for k in range(len(result.images))]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if not alone:
            out.write_bytes(encoded(grid_image(result.images), receipt(maker, result, asked=asked)))
        for k, (image, file) in enumerate(zip(result.images, files, strict=True)):
            file.write_bytes(encoded(image, receipt(maker, result, k, asked)))
    except OSError as error:
        raise SfumatoError(f"cannot write {shown(out)}: {error.strerror or error}") from error
    return files
