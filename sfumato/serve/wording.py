"""A prompt as its reader sees it: words without accents, foreign look-alikes, digits for letters and letters pulled apart."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace

# what stood before a word: a sign inside a word, a space, a comma or bracket, the end of a sentence
JOINED, SPACE, COMMA, STOP = range(4)

_CYRILLIC = dict(
    zip("абвгдеёжзийклмнопрстуфхцчшщъыьэюяіїєґ", "a b v g d e e zh z i i k l m n o p r s t u f h ts ch sh sch".split()
        + ["", "y", "", "e", "yu", "ya", "i", "i", "e", "g"], strict=True)
)  # fmt: skip
_ALIKE = dict(
    zip(
        "аеорсухіјѕкмтнвԁԛԝьһпӏαορνυικτχεηβγωɑıɡʙᴀᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢøłđħŧ",
        "aeopcyxijskmthbdqwbhnlaopvuiktxenbywaigbacdefghijklmnoprstuvwyzoldht",
        strict=True,
    )
)
_WIDE = {"ß": "ss", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d"}
_LEET = dict(zip("013456789@$!€", "oieasgtbgasie", strict=True))
_SHORT = {"dr", "mr", "mrs", "ms", "st", "jr", "sr"}  # a dot behind them ends no sentence
_SPELLED = 4  # single letters in a row that are one word, pulled apart


@dataclass(frozen=True)
class Word:
    """One word: its folded letters, its place in the prompt, and what stood before it."""

    text: str
    start: int
    end: int
    gap: int = SPACE
    wide: bool = False  # more than one space before it


def words_of(prompt: str) -> tuple[Word, ...]:
    """The words of a prompt, in their order."""
    return _pulled_together(_split(_letters(prompt), prompt))


def plain(text: str) -> str:
    """The folded letters of a text, one space between words."""
    return " ".join(word.text for word in words_of(text))


def glued(prompt: str) -> tuple[Word, ...]:
    """Words that a sign inside breaks (n*de, n.u.d.e, n_u_d_e), put together."""
    found: list[list[Word]] = []
    for word in _split(_letters(prompt), prompt):
        signs = prompt[found[-1][-1].end : word.start] if found else ""
        if word.gap == JOINED and signs and not set(signs) & set("-'’‘/"):
            found[-1].append(word)
        else:
            found.append([word])
    return tuple(_one(run) for run in found if len(run) > 1)


def squeezed(text: str) -> str:
    """Letters drawn out are said once: nuuude, porrrn."""
    out = ""
    for k, c in enumerate(text):
        alone = text[k - 1 : k] != c and text[k + 1 : k + 2] != c
        drawn = text[max(k - 2, 0) : k + 3].count(c * 3) > 0
        if alone or not drawn or out[-1:] != c:
            out += c
    return out


def sound(text: str) -> str:
    """The letters of a word without what is heard alike: ck, c and q as k, ph as f, y as i, v as w, z as s, doubled ones once."""
    text = _once(text)
    for old, new in (("sch", "sh"), ("ph", "f"), ("ck", "k"), ("gh", "g"), ("ey", "i"), ("ie", "i"), ("ij", "i")):
        text = text.replace(old, new)
    text = text.translate(str.maketrans("cqyvzj", "kkiwsi")).replace("x", "ks")
    return _once(text[:1] + text[1:].replace("h", ""))


def _once(text: str) -> str:
    return "".join(c for k, c in enumerate(text) if c != text[k - 1 : k])


def _letters(prompt: str) -> list[tuple[str, int]]:
    """Every sign folded to small letters without marks, with its place; unseen signs are left away."""
    found: list[tuple[str, int]] = []
    for place, sign in enumerate(prompt):
        code = ord(sign)
        if 0x1F1E6 <= code <= 0x1F1FF:  # letters in boxes that make flags
            sign = chr(code - 0x1F1E6 + 97)
        elif 0x1F150 <= code <= 0x1F189:  # white letters in black discs and squares
            sign = chr((code - 0x1F150) % 32 + 97)
        for c in unicodedata.normalize("NFKD", sign).casefold():
            if unicodedata.category(c) not in ("Mn", "Me", "Cf"):
                found.extend((d, place) for d in _WIDE.get(c, c))
    out: list[tuple[str, int]] = []
    run: list[tuple[str, int]] = []
    cyrillic = any(c in _CYRILLIC and c not in _ALIKE for c, _ in found)  # else they only stand in for others
    for c, place in [*found, (" ", len(prompt))]:
        if c.isspace():
            out += [*_run(run, cyrillic), (c, place)]
            run = []
        else:
            run.append((c, place))
    return out[:-1]


def _run(run: list[tuple[str, int]], cyrillic: bool) -> list[tuple[str, int]]:
    """What stands between two spaces, its look-alikes and digits as the letters that they stand for."""
    signs = [c for c, _ in run]
    latin = any("a" <= c <= "z" for c in signs)
    foreign = [c for c in signs if c in _CYRILLIC or c in _ALIKE]
    if foreign:
        table = {**_ALIKE, **_CYRILLIC} if cyrillic and not latin else {**_CYRILLIC, **_ALIKE}
        run = [(d, place) for c, place in run for d in table.get(c, c)]
        signs = [c for c, _ in run]
    letters = sum("a" <= c <= "z" for c in signs)
    if not letters or len(run) < 3:  # 8k, 3d
        return run
    out = []
    for k, (c, place) in enumerate(run):
        before, after = signs[k - 1] if k else "", signs[k + 1] if k + 1 < len(run) else ""
        inside = (before.isalpha() or before in _LEET) and (after.isalpha() or after in _LEET) and before and after
        edge = c not in "!@" and (before.isalpha() or after.isalpha() or (before in _LEET and before != ""))
        out.append((_LEET[c] if c in _LEET and (inside or edge) else c, place))
    return out


def _split(letters: list[tuple[str, int]], prompt: str) -> list[Word]:
    words: list[Word] = []
    text, start, end, between = "", 0, 0, ""

    def add() -> None:
        words.append(Word(text, start, end, _gap(between, words), between.count(" ") > 1))

    for c, place in letters:
        if c.isalnum():
            if not text:
                start = place
            text, end = text + c, place + 1
            continue
        if text:
            add()
            text, between = "", ""
        between += c
        if c in "&+":
            words.append(Word("and", place, place + 1, SPACE))
            between = " "
    if text:
        add()
    return words


def _gap(between: str, words: list[Word]) -> int:
    if not words:
        return STOP
    dot = "." in between and between.strip() == "." and (len(words[-1].text) == 1 or words[-1].text in _SHORT)
    if "\n" in between or (not dot and any(s in between for s in (". ", "! ", "? "))):
        return STOP
    if any(c in between for c in ',;:|()[]{}<>"“”„«»/\\–—') or " -" in between:
        return COMMA
    return SPACE if any(c.isspace() for c in between) else JOINED


def _pulled_together(words: list[Word]) -> tuple[Word, ...]:
    """B a n k s y, B.a.n.k.s.y: letters in a row are one word; a wider space parts two of them."""
    out: list[Word] = []
    run: list[Word] = []
    for word in [*words, Word("", 0, 0, STOP)]:
        if run and (len(word.text) != 1 or word.gap == STOP or word.wide):
            out += [_one(run)] if len(run) >= _SPELLED else run
            run = []
        if len(run) > 1 and word.gap != run[-1].gap:  # a B.a.n.k.s.y wall
            out += [_one(run)] if len(run) >= _SPELLED else run[:-1]
            run = [] if len(run) >= _SPELLED else run[-1:]
        if len(word.text) == 1 and word.text.isalpha():
            run.append(word)
        elif word.text:
            out += [*run, word]
            run = []
    return tuple(out)


def _one(run: list[Word]) -> Word:
    return replace(run[0], text="".join(w.text for w in run), end=run[-1].end)
