"""What icons are called: Unicode names, keywords, groups and other languages from emojibase-data, or the package emoji."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

LANGUAGES = ("de", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "sv", "zh")
SHORTCODES = ("cldr", "emojibase", "emojibase-legacy", "github", "iamcal", "joypixels")
LEFT_OUT = ("component", "country-flag", "subdivision-flag")  # groups and subgroups
TONE = re.compile(r"-(light|medium-light|medium|medium-dark|dark)(-skin-tone)?(?=-|$)")
Names = dict[str, dict[str, Any]]


def bare(points: str) -> str:
    """Code points as hexadecimal numbers joined by "-", upper case, without the variation selector."""
    return "-".join(p for p in points.upper().split("-") if p != "FE0F")


def squeezed(name: str) -> str:
    """Letters and digits of a name alone, without accents: how names of different packages meet."""
    plain = unicodedata.normalize(
        "NFKD", name.lower().replace("&", "and").replace("#", "hash").replace("*", "asterisk")
    )
    return re.sub(r"[^a-z0-9]", "", plain)


def spoken(phrase: str) -> str:
    """A name as a phrase of a caption: lower case, without signs that part or join phrases."""
    told = phrase.lower().replace("&", "and").replace(" / ", " or ").replace("“", "").replace("”", "")
    return " ".join(re.sub(r"[:,;()]", " ", told).split())


def emojibase(read: Callable[[str], Any]) -> tuple[Names, dict[str, str]]:
    """From the files of emojibase-data (`read(path)` parses one): glyphs by code points, and code points by squeezed name.

    A glyph has name, keywords, group, subgroup and names by language. Skin tones, single letters of flags, and flags of
    countries are left out. A name leads to its glyph as CLDR, Unicode or a short code has it, in this order.
    """
    messages = read("en/messages.json")
    keys = read("meta/groups.json")
    said = {m["key"]: spoken(m["message"]) for m in [*messages["groups"], *messages["subgroups"]]}
    others = {lang: {e["hexcode"]: e["label"] for e in read(f"{lang}/data.json")} for lang in LANGUAGES}
    glyphs: Names = {}
    for entry in read("en/data.json"):
        group, subgroup = (keys[kind].get(str(entry.get(kind[:-1]))) for kind in ("groups", "subgroups"))
        if group is None or group in LEFT_OUT or subgroup in LEFT_OUT:
            continue
        name, code = spoken(entry["label"]), entry["hexcode"]
        tags = [spoken(t) for t in entry.get("tags", ()) if any(c.isalnum() for c in t)]
        glyphs[bare(code)] = {
            "name": name,
            "keywords": [t for t in dict.fromkeys(tags) if t != name],
            "group": said[group],
            "subgroup": said[subgroup],
            "names": {lang: spoken(known[code]) for lang, known in others.items() if known.get(code)},
        }
    found: dict[str, str] = {}
    for code, glyph in glyphs.items():
        found.setdefault(squeezed(glyph["name"]), code)
    for code, name in read("meta/unicode-names.json").items():
        found.setdefault(squeezed(name), bare(code))
    for kind in SHORTCODES:
        for code, names in read(f"en/shortcodes/{kind}.json").items():
            for name in [names] if isinstance(names, str) else names:
                found.setdefault(squeezed(name), bare(code))
    return glyphs, {name: code for name, code in found.items() if code in glyphs}


def glyph_of(name: str, points: Mapping[str, str], glyphs: Names, by_name: Mapping[str, str]) -> str | None:
    """Code points of an icon: told by its package (`points` by icon name), else by its name; None for those left out."""
    if name in points:
        code = bare(points[name])
        return code if code in glyphs else None
    return None if TONE.search(name) else by_name.get(squeezed(name))


def from_package() -> Names:
    """Glyphs by code points from the pip package emoji: names, other names as keywords, some languages; no groups."""
    import emoji

    languages = [lang for lang in LANGUAGES if lang in emoji.LANGUAGES]
    for lang in languages:
        emoji.config.load_language(lang)

    def words(coded: str) -> str:
        return spoken(coded.strip(":").replace("_", " "))

    found: Names = {}
    for sequence, known in emoji.EMOJI_DATA.items():
        code = bare("-".join(f"{ord(c):X}" for c in sequence))
        name = words(known["en"])
        if code not in found:
            found[code] = {
                "name": name,
                "keywords": [a for a in map(words, known.get("alias", ())) if a != name],
                "group": "",
                "subgroup": "",
                "names": {lang: words(known[lang]) for lang in languages if lang in known},
            }
    return found
