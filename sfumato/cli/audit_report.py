"""The page of an audit: what is wrong, shown in thumbnails, and what would be done about it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from sfumato.core import SfumatoError
from sfumato.data.audit import FIXES, KINDS, Audit, Finding
from sfumato.data.audit.listing import open_listing
from sfumato.data.audit.look import thumbnail
from sfumato.data.files import write_text
from sfumato.data.picture import Unusable
from sfumato.data.records import shown
from sfumato.measure import page
from sfumato.measure.page import text

PICTURES = 24  # shown of each kind
GROUPS = 12
NAMES = 200  # listed of each kind
SIDE = 96
Thumbnail = Callable[[str], Image.Image | None]

# kind -> why it matters to a model that learns from the set
WHY = {
    "corrupt": "Training skips these files.",
    "exact_duplicate": "A picture that is there twice is learned twice, and is copied sooner than it is understood.",
    "near_duplicate": "The same picture resized, saved again, cropped or mirrored counts as more of the same. When one copy is "
    "held out for validation, the validation says too much good.",
    "ai_made": "The files say so themselves; nothing is guessed from the pixels. Models that learn from models lose variety.",
    "blank": "One colour all over: the model learns to draw nothing.",
    "dark": "Hardly anything can be seen.",
    "blown_out": "Light has eaten the picture.",
    "blurred": "No edge in the picture is sharp. A model that sees these makes soft pictures.",
    "low_information": "A smooth surface and nothing else.",
    "tiny": "They would be enlarged to the size of the others, and look soft.",
    "odd_aspect": "Training takes a square from the middle: most of these pictures would be lost.",
    "outlier": "They may be the most precious pictures of the set, or may not belong there: only you can tell.",
    "text_or_watermark": "A model learns to draw what looks like letters, and the watermark with them.",
    "mixed_modes": "Grey among colour, or 16 bits among 8: training converts them, so look whether that is what you want.",
    "alpha": "Training lays transparency on white. Where the hidden part matters, choose the background yourself.",
    "class_imbalance": "Rare classes are drowned by common ones.",
    "caption_missing": "A picture without words teaches the words nothing.",
    "caption_empty": "A picture without words teaches the words nothing.",
    "caption_duplicated": "The same words for many pictures: the model cannot know what sets them apart.",
    "caption_boilerplate": "The words are about the file, not about the picture.",
    "caption_long": "What comes after the last word that is read is never seen.",
    "caption_without_picture": "Rows without a picture do no harm, but something is missing.",
    "bucket_waste": "What lies outside the square is never seen.",
}
GROUPED = ("exact_duplicate", "near_duplicate")
GRAVE = {"error": "take out", "warning": "look at", "note": "good to know"}


def write_page(target: Path, source: str, result: Audit) -> Path:
    """Write the page, whole or not at all; raises SfumatoError when the file cannot be written."""
    listing = open_listing(source)
    places = {key: row for row, key in enumerate(listing.keys)}

    def small(name: str) -> Image.Image | None:
        try:
            return thumbnail(listing.fetch(places[name]), SIDE) if name in places else None
        except Unusable:
            return None

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        body = _head(result) + "".join(_kind(kind, result, small) for kind in KINDS) + _facts(result)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, page.document(f"Audit of {shown(result.source)}", STYLE + body))
    except OSError as error:
        raise SfumatoError(f"the report cannot be written to {shown(target)}: {error.strerror or error}") from error
    return target


STYLE = """<style>
.groups { display: grid; gap: 1rem; margin-top: .8rem; }
.group { display: flex; flex-wrap: wrap; gap: 6px; align-items: flex-start; }
.group figure { width: 104px; } .group .others img { opacity: .55; outline: 2px dashed var(--warn); outline-offset: 1px; }
.group figcaption, .names { font-size: .75rem; line-height: 1.25; overflow-wrap: anywhere; }
.group p { font-size: .85rem; width: 100%; margin: 0; }
.fix { display: inline-block; border: 1px solid var(--line); border-radius: 1rem; padding: .05rem .7rem; font-size: .9rem; }
.error .fix, .error h2 { border-color: var(--warn); color: var(--warn); }
.kinds { margin-top: .8rem; } .kinds td { padding-right: 1.2rem; }
figure b { display: block; font-weight: 600; font-size: .75rem; overflow-wrap: anywhere; }
</style>"""


def _head(result: Audit) -> str:
    facts = [("pictures read", result.images), ("classes", len(result.classes) or None)]
    facts += [("with a caption", result.captions.get("captioned"))]
    shown_facts = "".join(f"<div><b>{v:,}</b><span class='soft'>{k}</span></div>" for k, v in facts if v is not None)
    shown_facts += f"<div><b>{result.ai_made_share:.1%}</b><span class='soft'>declared as AI-made</span></div>"
    rows = ""
    for kind, name in KINDS.items():
        found = _of(kind, result)
        if found:
            count = sum(len(f.files) for f in found)
            rows += (
                f'<tr><td><a href="#{kind}">{text(name)}</a></td><td class="n">{count or ""}</td>'
                f"<td>{GRAVE[_worst(found)]}</td><td>{text(FIXES[found[0].fix])}</td></tr>"
            )
    head = "<tr><th>what</th><th>files</th><th></th><th>what would be done</th></tr>"
    table = f'<div class="scroll kinds"><table>{head}{rows}</table></div>' if rows else ""
    return f"<h1>Can I train on {text(shown(result.source))}?</h1>" + page.section(
        "In short",
        f'<p class="lead">{text(_sentence(result.verdict))}</p><div class="facts">{shown_facts}</div>{table}',
    )


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + "."


def _of(kind: str, result: Audit) -> list[Finding]:
    return [f for f in result.findings if f.kind == kind]


def _worst(found: Sequence[Finding]) -> str:
    return min((f.severity for f in found), key=list(GRAVE).index)


def _kind(kind: str, result: Audit, small: Thumbnail) -> str:
    found = _of(kind, result)
    if not found:
        return ""
    body = f'<p>{text(WHY[kind])}</p><p><span class="fix">{text(FIXES[found[0].fix])}</span></p>'
    body += _groups(found, small) if kind in GROUPED else _sheet(found, small)
    pairs = [(n, f.evidence) for f in found for n in f.files]
    listed = "".join(f"<tr><th>{text(shown(n))}</th><td>{text(shown(e))}</td></tr>" for n, e in pairs[:NAMES])
    rest = f"<p>{len(pairs) - NAMES:,} more; all names with --json</p>" if len(pairs) > NAMES else ""
    body += page.details(f"Names and evidence ({len(pairs):,})", f"<table>{listed}</table>{rest}") if pairs else ""
    count = len({n for n, _ in pairs})
    title = KINDS[kind] + (f" – {count:,} file{'s' * (count != 1)}" if count else "")
    return f'<div id="{kind}">{page.section(title, body, kind=_worst(found))}</div>'


def _figure(name: str, evidence: str, small: Thumbnail, kind: str = "") -> str:
    image = small(name)
    seen = page.picture(image, shown(name), SIDE) if image else ""
    below = f"<figcaption><b>{text(shown(name))}</b>{text(shown(evidence))}</figcaption>"
    return f'<figure class="{kind}">{seen}{below}</figure>'


def _sheet(found: Sequence[Finding], small: Thumbnail) -> str:
    """Thumbnails with name and evidence; findings about many files are told once, above their pictures."""
    parts, left = [], PICTURES
    single = [f for f in found if len(f.files) == 1]
    for finding in (f for f in found if len(f.files) != 1):
        cells = "".join(_figure(n, "", small) for n in finding.files[: max(0, min(left, 12))])
        left -= 12
        parts.append(f"<p>{text(shown(finding.evidence))}</p>" + (f'<div class="sheet">{cells}</div>' if cells else ""))
    cells = "".join(_figure(f.files[0], f.evidence, small) for f in single[: max(0, left)])
    parts.append(f'<div class="sheet" style="--tile: 118px">{cells}</div>' if cells else "")
    return "".join(parts)


def _groups(found: Sequence[Finding], small: Thumbnail) -> str:
    """Each group in one row: the first stays, the others would go."""
    rows = []
    for finding in found[:GROUPS]:
        cells = "".join(
            _figure(n, "stays" if k == 0 else "would be moved", small, "" if k == 0 else "others")
            for k, n in enumerate(finding.files[:8])
        )
        rows.append(f'<div class="group"><p>{text(shown(finding.evidence))}</p>{cells}</div>')
    more = f"<p>{len(found) - GROUPS:,} more groups below</p>" if len(found) > GROUPS else ""
    return f'<div class="groups">{"".join(rows)}</div>{more}'


def _facts(result: Audit) -> str:
    facts: dict[str, Any] = {}
    if result.classes:
        facts["classes"] = {shown(name): count for name, count in result.classes.items()}
    if result.captions:
        facts |= {f"captions: {name}": count for name, count in result.captions.items()}
    return page.section("What the set holds", page.facts_table(facts))
