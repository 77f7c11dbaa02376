"""Colours by name: against the names of CSS, and shares that were painted."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageColor, ImageDraw

from sfumato.data import colours

# hues that English speakers agree on; of CSS's own names those that end in a basic word
FOCAL = {
    "black": "#0a0a0a", "white": "#fdfdfd", "grey": "#888888", "red": "#d81b1b", "orange": "#fa8a10", "yellow": "#fde020",
    "green": "#209a30", "blue": "#1f55d8", "purple": "#7a1fa2", "pink": "#fb8fc0", "brown": "#6b3f1d",
}  # fmt: skip


@pytest.mark.parametrize("name", colours.NAMES)
def test_focal_colours_have_their_names(name: str) -> None:
    assert colours.NAMES[colours.nearest(np.array(ImageColor.getrgb(FOCAL[name]), np.uint8))] == name


def test_names_agree_with_those_of_css() -> None:
    """CSS calls whitish, greyish and violet kinds by a colour too (aliceblue, cadetblue): four in five can be asked for."""
    asked = {}
    for css in ImageColor.colormap:
        word = css.replace("gray", "grey")
        for name in colours.NAMES:
            if word.endswith(name) and word not in ("brown", "greenyellow", "lightgoldenrodyellow"):
                asked[css] = name
    pixels = np.array([ImageColor.getrgb(css) for css in asked], np.uint8)
    agree = [colours.NAMES[k] == name for k, name in zip(colours.nearest(pixels), asked.values(), strict=True)]
    assert len(asked) > 50 and sum(agree) >= 0.8 * len(agree), [
        c for c, fine in zip(asked, agree, strict=True) if not fine
    ]


def test_oklab_of_known_colours() -> None:
    """Values of the definition's author for D65 white, red, green and blue (Ottosson 2020)."""
    rgb = np.array([[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    known = [[1, 0, 0], [0.628, 0.225, 0.126], [0.866, -0.234, 0.179], [0.452, -0.032, -0.312]]
    assert np.abs(colours.oklab(rgb) - known).max() < 2e-3


def test_shares_are_those_that_were_painted() -> None:
    picture = Pillow.new("RGB", (20, 20), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((2, 2, 11, 17), fill="#e02020")  # 10 x 16
    draw.rectangle((12, 2, 15, 17), fill="#1f55d8")  # 4 x 16
    draw.rectangle((16, 2, 16, 17), fill="#209a30")  # 1 x 16
    pixels = np.asarray(picture)[None]
    inside = colours.inside(pixels)
    assert inside.sum() == 15 * 16
    share = colours.shares(pixels, inside)[0]
    assert share[colours.NAMES.index("red")] == pytest.approx(10 / 15) and share.sum() == pytest.approx(1)
    assert colours.named(share) == ("red", "blue"), "a fifteenth is too little for a name"
    assert colours.named(colours.shares(pixels, np.zeros_like(inside))[0]) == ()


def test_white_within_an_outline_is_inside() -> None:
    picture = Pillow.new("RGB", (20, 20), "white")
    ImageDraw.Draw(picture).rectangle((4, 4, 15, 15), outline="black", fill="white")
    inside = colours.inside(np.asarray(picture)[None])[0]
    assert inside[4:16, 4:16].all() and inside.sum() == 12 * 12
