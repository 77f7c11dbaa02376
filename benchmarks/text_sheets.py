"""Sheets of pictures with the caption written under each, for looking at."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

SIDE, GAP, LINES, FONT = 128, 10, 3, 11
PAPER, INK = (255, 255, 255), (40, 40, 40)


def _lines(caption: str) -> list[str]:
    """At most LINES lines that fit under a picture; what is cut off is shown by dots."""
    return textwrap.wrap(caption, 2 * SIDE // FONT + 1, max_lines=LINES, placeholder=" …", break_long_words=True)


def sheet(pictures: Sequence[Sequence[Image.Image]], captions: Sequence[str], columns: int) -> Image.Image:
    """Groups of pictures (one, or a few side by side) in rows of `columns` groups, the caption under each group.

    Pictures are enlarged to SIDE pixels, each pixel staying a square. Raises ValueError when numbers differ.
    """
    if len(pictures) != len(captions) or not pictures:
        raise ValueError(f"{len(pictures)} groups of pictures and {len(captions)} captions")
    across = max(len(group) for group in pictures)
    font = ImageFont.load_default(FONT)
    width, height = across * SIDE + GAP, SIDE + LINES * (FONT + 3) + GAP
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (min(columns, len(pictures)) * width + GAP, rows * height + GAP), PAPER)
    draw = ImageDraw.Draw(page)
    for k, (group, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = GAP + k % columns * width, GAP + k // columns * height
        for j, picture in enumerate(group):
            page.paste(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST), (left + j * SIDE, top))
        for j, line in enumerate(_lines(caption)):
            draw.text((left, top + SIDE + 2 + j * (FONT + 3)), line, fill=INK, font=font)
    return page
