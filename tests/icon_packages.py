"""Tiny npm packages of icons and names, and an npm that packs them, for the tests of `sfumato data get emoji`."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from sfumato.data import icons, icons_get, icons_names

NPM = """#!/bin/sh
# npm pack NAME@VERSION --ignore-scripts ... : the archive of the store into this folder, by the name npm gives it
echo "$@" >> "{store}/calls"
[ "$1" = pack ] || exit 9
name=$(printf %s "$2" | tr -d ' ')
file="{store}/$(printf %s "$name" | sed 's/^@//; s#/#-#; s/@/-/').tgz"
case "$name" in *"$(cat "{store}/broken" 2>/dev/null || echo nothing-is-broken)"*)
  echo "npm error network ENOTFOUND registry" >&2; exit 1;; esac
case "$name" in *"$(cat "{store}/slow" 2>/dev/null || echo nothing-is-slow)"*) sleep 30;; esac
cp "$file" .
"""

CIRCLE = '<circle cx="8" cy="8" r="7" fill="{}"/>'
# code points, name, keywords, subgroup, drawing
GLYPHS = (
    ("1F534", "red circle", ["round", "red"], "geometric", CIRCLE.format("#e02020")),
    ("1F535", "blue circle", ["round", "blue"], "geometric", CIRCLE.format("#2060e0")),
    ("1F34E", "red apple", ["fruit", "food"], "food-fruit", CIRCLE.format("#d03030")),
    ("1F95A", "egg", ["food", "hen"], "food-fruit", CIRCLE.format("#ffffff") + '<rect width="2" height="2" y="7" x="7"/>'),
    ("1F468-200D-1F692", "man firefighter", ["fire"], "person-role", CIRCLE.format("#f0c020") + '<rect width="3" height="9"/>'),
    ("1F469-200D-1F692", "woman firefighter", ["fire"], "person-role", CIRCLE.format("#f0c020")),
    ("2764-FE0F", "red heart", ["love"], "heart", CIRCLE.format("#f00000")),
    ("1F1EB-1F1F7", "flag: France", ["country"], "country-flag", CIRCLE.format("#0000ff")),
)  # fmt: skip
GROUPS = {"geometric": "8", "food-fruit": "4", "person-role": "1", "heart": "0", "country-flag": "9"}


def archive(path: Path, files: dict[str, object]) -> str:
    """Write an npm package and return its integrity."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            raw = json.dumps(content, ensure_ascii=False).encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def names_package(path: Path) -> str:
    subgroups = list(GROUPS)
    entries = [
        {"hexcode": code, "label": name, "tags": tags, "group": int(GROUPS[sub]), "subgroup": subgroups.index(sub)}
        for code, name, tags, sub, _ in GLYPHS
    ]
    files: dict[str, object] = {
        "en/data.json": entries,
        "en/messages.json": {
            "groups": [{"key": f"group-{k}", "message": f"group & {k}"} for k in GROUPS.values()],
            "subgroups": [{"key": sub, "message": sub.replace("-", " / ")} for sub in subgroups],
        },
        "meta/groups.json": {
            "groups": {k: f"group-{k}" for k in GROUPS.values()},
            "subgroups": {str(k): sub for k, sub in enumerate(subgroups)},
        },
        "meta/unicode-names.json": {"1F534": "LARGE RED CIRCLE", "1F1EB-1F1F7": "FRANCE"},
    }
    for kind in icons_names.SHORTCODES:
        files[f"en/shortcodes/{kind}.json"] = {"1F34E": ["apple", "rosy_apple"]}
    for language in icons_names.LANGUAGES:
        files[f"{language}/data.json"] = [
            {"hexcode": e["hexcode"], "label": f"{language} {e['label']}"} for e in entries
        ]
    return archive(path, files)


def style_package(path: Path, told: icons.Style, chars: bool, extra: dict[str, dict]) -> str:
    """All GLYPHS by code point (`chars`) or by name alone, a skin tone, a hidden icon, and `extra` ones."""
    sheet = {name.replace(": ", "-").replace(" ", "-").lower(): {"body": body} for _, name, _, _, body in GLYPHS}
    codes = {code.lower().replace("-fe0f", ""): name for (code, *_), name in zip(GLYPHS, sheet, strict=True)}
    sheet["man-firefighter-dark-skin-tone" if chars else "man-firefighter-dark"] = {"body": CIRCLE.format("#503010")}
    codes["1f468-1f3ff-200d-1f692"] = "man-firefighter-dark-skin-tone"
    sheet["old-egg"] = {"body": CIRCLE.format("#000000"), "hidden": True}
    files = {
        "icons.json": {"prefix": path.stem, "icons": sheet | extra, "width": 16, "height": 16},
        "chars.json": codes if chars else {},
        "info.json": {"author": {"name": "the draughtsman"}, "license": {"url": "https://example.org/licence"}},
    }
    return archive(path, files)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry of three packages behind an npm on the PATH, an empty cache folder; `calls` lists what npm was asked."""
    root = tmp_path / "store"
    (root / "bin").mkdir(parents=True)
    npm = root / "bin" / "npm"
    npm.write_text(NPM.format(store=root))
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{root / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(icons_get, "NAMES_INTEGRITY", names_package(root / "emojibase-data-17.0.0.tgz"))
    wide = {"apple": {"body": '<rect width="32" height="16" fill="#00a000"/>', "width": 32}}
    made = {}
    for style, chars in (("noto", True), ("fxemoji", False)):
        told = icons.STYLES[style]
        file = root / f"{told.package.lstrip('@').replace('/', '-')}-{told.version}.tgz"
        made[style] = replace(told, integrity=style_package(file, told, chars, {} if chars else wide))
    monkeypatch.setattr(icons, "STYLES", {**icons.STYLES, **made})
    return root


def calls(store: Path) -> list[str]:
    """The packages that npm was asked for."""
    path = store / "calls"
    return [line.split()[1] for line in path.read_text().splitlines()] if path.exists() else []
