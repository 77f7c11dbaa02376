"""The options of all commands that edit pictures; nothing heavy is imported before one of them runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable

TEXTS = {
    "inpaint": "Draw part of a picture anew; every pixel that the mask does not mark stays as it is.",
    "outpaint": "Carry a picture on beyond its edges; its own pixels stay as they are.",
    "upscale": "Make a picture 2 or 4 times as large; brought back to its size it is the same picture.",
    "layout": "Draw a picture from boxes with words in them, from a map of colours, or from both.",
    "sketch": "Draw a picture from its lines.",
    "vary": "Draw a picture again, near to it or far from it.",
    "blend": "Make one picture of several.",
    "tile": "Draw a seamless texture.",
}
BESIDE = {
    "sketch": (("inpaint", "outpaint", "layout"), "a drawing of the whole, too: dark lines on light paper"),
    "layout": (("inpaint", "outpaint", "sketch"), "boxes with words in them, of the whole, too"),
    "colours": (
        ("inpaint", "outpaint", "layout", "sketch"),
        "areas of colour, or the model's own classes, of the whole (transparent: any)",
    ),
}
MASK = "what to fill: its transparent pixels, or, if it has none, its white ones"


def add_editing(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """The commands with their options, all alike but for what each works on."""
    made = {name: command(name, text) for name, text in TEXTS.items()}
    for name, one in made.items():
        one.add_argument("model", help="run folder, exported file or shipped model")
        if name == "blend":
            one.add_argument("images", nargs="+", metavar="FILE", help="2 to 16 pictures; the first one's size is kept")
        elif name not in ("layout", "tile"):
            one.add_argument("--image", required=True, metavar="FILE", help="the picture")
        if name in ("sketch", "layout", "tile"):
            one.add_argument("--size", metavar="WxH", help="width and height in pixels (those that the model learned)")
        for option, (commands, text) in BESIDE.items():
            if name in commands:
                one.add_argument(f"--{option}", metavar="FILE", help=text)
        one.add_argument("--prompt", metavar="TEXT", help="what is to be seen")
        one.add_argument("--seed", type=int, metavar="S", help="the same seed, the same picture (drawn anew)")
        one.add_argument("--n", type=int, default=1, help="how many to draw (1)")
        one.add_argument("--steps", type=int, help="moves from noise to data (18, or what the model was made for)")
        one.add_argument("--guidance", type=float, metavar="W", help="how closely to keep to the words; 1 = none (3)")
        one.add_argument(
            "--out", required=True, metavar="FILE.png", help="the picture, or a sheet of all N beside them"
        )
    made["inpaint"].add_argument("--mask", required=True, metavar="FILE", help=MASK)
    made["upscale"].add_argument("--scale", type=int, default=2, choices=[2, 4], help="times as large (2)")
    made["layout"].add_argument("--layout", metavar="FILE.json", help="boxes with words in them")
    for name, usual in (("vary", 0.5), ("blend", 0.65)):
        made[name].add_argument(
            "--strength", type=float, default=usual, metavar="0..1", help=f"0 is the picture itself ({usual})"
        )
    outpaint = made["outpaint"]
    outpaint.add_argument("--to", metavar="WxH", help="width and height of the whole, the picture in the middle")
    outpaint.add_argument("--zoom", type=float, metavar="F", help="1.5: half as wide and half as high again")
    for side in ("left", "top", "right", "bottom"):
        outpaint.add_argument(f"--{side}", type=int, default=0, metavar="N", help=f"pixels to add at the {side} (0)")
