"""Small pieces of HTML for the report. Every text that comes from outside goes through `text`."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image

SIDE = 128  # pixels: larger pictures are embedded at this side in strips

STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf8; --card: #fff; --ink: #1d1c1a; --soft: #6d6963; --line: #e4e0d9;
  --accent: #2f6fa8; --warn: #a8401f; }
@media (prefers-color-scheme: dark) { :root { --paper: #161514; --card: #1f1e1c; --ink: #ece9e3; --soft: #a09a90;
  --line: #35322e; --accent: #7fb4e3; --warn: #f0936f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 0 0 .2rem; }
h3 { font-size: .95rem; margin: 0 0 .3rem; font-weight: 600; }
p { margin: .3rem 0; max-width: 54rem; text-wrap: pretty; }
.lead { font-size: 1.15rem; }
.soft, figcaption, summary { color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.1rem 1.25rem 1.25rem;
  margin-top: 1.1rem; }
img { display: block; width: 100%; image-rendering: pixelated; border-radius: 3px; background: var(--line); }
img.smooth { image-rendering: auto; }
.facts { display: flex; flex-wrap: wrap; gap: .4rem 2.2rem; margin: .8rem 0 0; }
.facts div { min-width: 6rem; } .facts b { display: block; font-size: 1.35rem; font-weight: 600; line-height: 1.25; }
.scale { position: relative; margin: 3.1rem 0 2.6rem; height: .55rem; border-radius: 1rem;
  background: linear-gradient(90deg, #8a8a8a55, var(--accent)); }
.scale span { position: absolute; top: 1rem; font-size: .85rem; color: var(--soft); white-space: nowrap; }
.scale span:last-of-type { right: 0; }
.scale i { position: absolute; top: -.35rem; width: 1.25rem; height: 1.25rem; margin-left: -.62rem; border-radius: 50%;
  background: var(--card); border: 4px solid var(--accent); }
.scale em { position: absolute; bottom: 1.4rem; font-style: normal; font-weight: 600; white-space: nowrap;
  transform: translateX(-50%); }
.sheet { display: grid; gap: 4px; grid-template-columns: repeat(auto-fill, minmax(var(--tile, 84px), 1fr));
  margin-top: .8rem; }
.sheet figcaption { font-size: .72rem; line-height: 1.2; overflow-wrap: anywhere; }
figure { margin: 0; }
.scroll { overflow-x: auto; margin-top: .8rem; }
.strip { display: grid; gap: 4px; min-width: max-content; grid-template-columns: repeat(var(--n), minmax(56px, 1fr)); }
.strip span { font-size: .8rem; color: var(--soft); text-align: center; font-variant-numeric: tabular-nums; }
.charts { display: grid; gap: 1rem 1.5rem; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr));
  margin-top: .6rem; }
.charts svg { width: 100%; height: auto; max-width: 32rem; }
.twins { display: grid; gap: .8rem 1.6rem; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr));
  margin-top: .8rem; }
.twin { display: grid; gap: 4px; grid-template-columns: 1fr .5rem repeat(var(--n), 1fr); align-items: start; }
.twin figcaption { font-size: .75rem; text-align: center; font-variant-numeric: tabular-nums; }
.twin .made img { outline: 2px solid var(--accent); outline-offset: 1px; }
.twin.copy .made img { outline-color: var(--warn); }
table { border-collapse: collapse; font-size: .9rem; margin-top: .5rem; }
td, th { text-align: left; padding: .2rem 1.2rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  font-weight: normal; overflow-wrap: anywhere; }
th { color: var(--soft); white-space: nowrap; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
details { margin-top: .7rem; } summary { cursor: pointer; }
.warn { border-color: var(--warn); } .warn h2, .warn b { color: var(--warn); }
a { color: var(--accent); } ul { margin: .3rem 0; padding-left: 1.2rem; }
.over { margin-top: 1rem; }
"""


def text(value: Any) -> str:
    """Any value as text that cannot become markup."""
    return html.escape(str(value), quote=True)


def picture(image: Image.Image, alt: str, side: int | None = SIDE) -> str:
    """An <img> with the picture inside, no larger than `side` pixels (None: as it is)."""
    if side is not None and max(image.size) > side:
        image = image.copy()
        image.thumbnail((side, side))
    if image.mode not in ("L", "RGB", "RGBA", "P"):
        image = image.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    kind = "" if max(image.size) < SIDE else ' class="smooth"'
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img{kind} alt="{text(alt)}" title="{text(alt)}" src="data:image/png;base64,{data}">'


def section(title: str, body: str, lead: str = "", kind: str = "") -> str:
    """A card with a heading and a sentence on how to read it; nothing when the body is empty."""
    if not body:
        return ""
    told = f'<p class="soft">{text(lead)}</p>' if lead else ""
    return f'<section class="{kind}"><h2>{text(title)}</h2>{told}{body}</section>\n'


def _flat(values: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping) and not all(isinstance(v, int) for v in value.values()):
            yield from _flat(value, name)
        else:
            yield name, value


def _cell(value: Any) -> str:
    if value is None or value in ([], (), {}):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):  # counts
        value = [f"{name} {count:,}" for name, count in value.items()]
    if isinstance(value, (list, tuple)):
        shown = ", ".join(str(v) for v in value[:40])
        return shown + (f", … ({len(value)} in all)" if len(value) > 40 else "")
    return str(value)


def facts_table(values: Mapping[str, Any]) -> str:
    """Nested facts as a table of dotted names and values."""
    rows = "".join(f"<tr><th>{text(k)}</th><td>{text(_cell(v))}</td></tr>" for k, v in _flat(values))
    return f"<table>{rows}</table>" if rows else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of ready texts; every column but the first is a number."""
    top = "".join(f"<th>{text(h)}</th>" for h in head)
    body = "".join(
        f"<tr><th>{text(r[0])}</th>" + "".join(f'<td class="n">{text(c)}</td>' for c in r[1:]) + "</tr>" for r in rows
    )
    return f'<div class="scroll"><table><tr>{top}</tr>{body}</table></div>'


def details(label: str, body: str) -> str:
    return f"<details><summary>{text(label)}</summary>{body}</details>" if body else ""


def document(title: str, body: str) -> str:
    """The whole page."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n<body><main>\n{body}</main></body></html>\n"
    )
