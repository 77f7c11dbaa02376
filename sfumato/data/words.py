"""Words drawn into pictures: an endless set in which picture and caption are functions of (seed, row).

Held out are whole words (of three letters or more) and pairs of letters that no word to learn from contains.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import blake2b

import numpy as np
import torch

from sfumato.core import SfumatoError
from sfumato.data.english import ENGLISH
from sfumato.data.fonts import CHARACTERS, Face, faces
from sfumato.data.lazy import Lazy, luma
from sfumato.data.lettering import APART, COLOURS, SMALLEST, Kind, Look, contrast, draw, place, spans
from sfumato.data.order import HELD_OUT, _hash63
from sfumato.data.source import Source

ROWS = 200_000
SIZE = 32  # height in pixels; pictures are twice as wide
LETTERS = 8
SIGNS = "abcdefghijklmnopqrstuvwxyz0123456789"
VOWELS = "aeiou"
CONSONANTS = "bcdfghjklmnpqrstvwxyz"
LENGTHS = (0.04, 0.07, 0.12, 0.15, 0.15, 0.15, 0.16, 0.16)  # share of made-up words with 1 ... 8 letters
MADE = {"english": 0.3, "syllables": 0.25, "letters": 0.33, "digits": 0.12}
CASES = {"small": 0.5, "first": 0.25, "large": 0.25}
KINDS: dict[Kind, float] = {
    **{"plain": 0.35, "fading": 0.15, "striped": 0.06, "dotted": 0.06},
    **{"checked": 0.06, "speckled": 0.07, "sign": 0.15, "label": 0.1},
}
WIDEST = 5.6  # em: a wider word would be too small to read
GROUPS = ("train", "words", "pairs")
TURN_OF = {7: 1, 13: 2}  # of every 20 rows one holds a word, one a pair that is held out
ROUND = 20


def uniform(seed: int, rows: np.ndarray, *keys: int) -> np.ndarray:
    """A number in [0, 1) for each row, the same wherever the row stands (splitmix64 of seed, row and keys)."""
    h = np.full(rows.shape, seed, np.uint64)
    for key in (rows.astype(np.uint64), *(np.full(rows.shape, k, np.uint64) for k in keys)):
        h = _mixed(h ^ key)
    return (h >> np.uint64(11)) * 2.0**-53


def _mixed(h: np.ndarray) -> np.ndarray:
    h = h + np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def _chosen(shares: tuple[float, ...], u: np.ndarray) -> np.ndarray:
    """The place among `shares` that each number in [0, 1) falls into."""
    ends = np.cumsum(shares)
    return np.minimum(np.searchsorted(ends / ends[-1], u, side="right"), len(shares) - 1)


def codes(words: tuple[str, ...]) -> np.ndarray:
    """Places in SIGNS, int64 [n, LETTERS], -1 behind the end; words in any case, of at most LETTERS signs."""
    out = np.full((len(words), LETTERS), -1)
    place = {sign: k for k, sign in enumerate(SIGNS)}
    for row, word in zip(out, words, strict=True):
        row[: len(word)] = [place[c] for c in word.lower()]
    return out


@lru_cache(maxsize=1)
def held_pairs() -> np.ndarray:
    """Which pairs of signs are held out, bool [36, 36]: 5 % of them, by hash."""
    bound = HELD_OUT * 2**63
    return np.array([[_hash63(f"words/pair/{a}{b}") < bound for b in SIGNS] for a in SIGNS])


def group_of(coded: np.ndarray) -> np.ndarray:
    """Place in GROUPS of each word of `codes`: 2 with a pair that is held out, 1 for a word that is, else 0."""
    first, second = coded[:, :-1], coded[:, 1:]
    pair = (held_pairs()[first, second] & (second >= 0)).any(1)
    h = np.zeros(len(coded), np.uint64)
    for column in coded.T:
        h = _mixed(h ^ (column + 1).astype(np.uint64))
    word = (coded[:, 2] >= 0) & ((h >> np.uint64(11)) * 2.0**-53 < HELD_OUT)
    return np.where(pair, 2, np.where(word, 1, 0))


@lru_cache(maxsize=1)
def _english() -> np.ndarray:
    return codes(ENGLISH)


def _candidates(seed: int, rows: np.ndarray, attempt: int) -> np.ndarray:
    """A word for each row, as `codes`: English, made of syllables, of any letters, or of digits."""
    u = [uniform(seed, rows, attempt, k) for k in range(4 + LETTERS)]
    kind = _chosen(tuple(MADE.values()), u[0])[:, None]
    length = 1 + _chosen(LENGTHS, u[1])
    letters = np.stack(u[4:], 1)
    any_letter, digit = (letters * 26).astype(int), 26 + (letters * 10).astype(int)
    vowels, consonants = (np.array([SIGNS.index(c) for c in kind]) for kind in (VOWELS, CONSONANTS))
    turn = (np.arange(LETTERS) + (u[2][:, None] < 0.5)) % 2 == 0
    spoken = np.where(turn, vowels[(letters * 5).astype(int)], consonants[(letters * 21).astype(int)])
    made = np.where(kind == 1, spoken, np.where(kind == 2, any_letter, digit))
    made[np.arange(LETTERS) >= length[:, None]] = -1
    return np.where(kind == 0, _english()[(u[3] * len(ENGLISH)).astype(int)], made)


def _cased(coded: np.ndarray, case: np.ndarray) -> np.ndarray:
    """Places in CHARACTERS (len(CHARACTERS) behind the end) of words written small, with a first capital, or large."""
    large = (case[:, None] == 2) | ((case[:, None] == 1) & (np.arange(LETTERS) == 0))
    place = np.where(coded >= 26, coded + 26, coded + 26 * (large & (coded < 26)))
    return np.where(coded < 0, len(CHARACTERS), place)


def _widths(face: Face) -> np.ndarray:
    """Advances in em of CHARACTERS, and 0 for the end."""
    return np.array([*face.widths, 0.0])


def choose_words(seed: int, rows: np.ndarray) -> np.ndarray:
    """For each row its word as places in CHARACTERS [n, LETTERS]; the row says which of GROUPS it is of."""
    turn = rows % ROUND
    group = np.select([turn == k for k in TURN_OF], list(TURN_OF.values()), 0)
    case = _chosen(tuple(CASES.values()), uniform(seed, rows, 1000))
    usual = _widths(faces()[0])
    out = np.full((len(rows), LETTERS), len(CHARACTERS))
    left, attempt = np.arange(len(rows)), 0
    while len(left):
        coded = _candidates(seed, rows[left], attempt)
        cased = _cased(coded, case[left])
        fine = (group_of(coded) == group[left]) & (usual[cased].sum(1) <= WIDEST)
        out[left[fine]] = cased[fine]
        left, attempt = left[~fine], attempt + 1
    return out


def _spelled(cased: np.ndarray) -> list[str]:
    """Places in CHARACTERS -> words."""
    table = np.frombuffer(CHARACTERS.encode() + b"\0", np.uint8)
    return [raw.decode() for raw in table[cased].reshape(-1).view(f"S{LETTERS}").tolist()]


NAMES = tuple(COLOURS)


@lru_cache(maxsize=1)
def _colours() -> tuple[np.ndarray, list[list[np.ndarray]], list[np.ndarray]]:
    """Pairs (ink, ground) that are apart, int [n, 2]; for each pair of colours the other grounds of that ink; for each
    ground the colours that may lie around a sign of it."""
    value = np.array([COLOURS[name] for name in NAMES], np.float64)
    apart = contrast(value[:, None], value[None])
    every = np.arange(len(NAMES))
    others = [
        [np.flatnonzero((apart[i] >= APART) & (every != g)) if apart[i, g] >= APART else every[:0] for g in every]
        for i in every
    ]
    around = [np.flatnonzero((apart[g] >= 1.3) & (every != g)) for g in every]
    return np.argwhere(apart >= APART), others, around


@dataclass(frozen=True)
class Lettering:
    """What every row shows: its word, and the look as places in `faces`, KINDS and NAMES."""

    seed: int
    rows: np.ndarray
    words: list[str]
    faces: tuple[Face, ...]
    looks: np.ndarray = field(repr=False)  # [n, 5]: face, kind, ink, ground, second

    def look(self, at: int) -> Look:
        face, kind, colour, ground, second = self.looks[at].tolist()
        return Look(self.faces[face], NAMES[colour], tuple(KINDS)[kind], NAMES[ground], NAMES[second])

    def draw(self, at: int, frame: tuple[int, int]) -> np.ndarray:
        """The picture of this place in `rows`, uint8 [H, W, 3]."""
        return draw(self.words[at], self.look(at), frame, self._rng(at))

    def spans(self, at: int, frame: tuple[int, int]) -> np.ndarray:
        """First and last column of each character in that picture, float [n, 2]."""
        look = self.look(at)
        return spans(self.words[at], look, place(self.words[at], look, frame, self._rng(at)))

    def _rng(self, at: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, int(self.rows[at])))


def _looks(seed: int, rows: np.ndarray, cased: np.ndarray, fonts: tuple[Face, ...]) -> np.ndarray:
    """A look for every row [n, 5]: fonts that the word is legible in, colours that are apart."""
    widths = np.stack([_widths(face) for face in fonts])
    most = 2 * 0.92 / SMALLEST  # em of the smallest letters that the width holds
    face = np.full(len(rows), -1)
    for attempt in range(8):
        left = np.flatnonzero(face < 0)
        tried = (uniform(seed, rows[left], 2000, attempt) * len(fonts)).astype(int)
        fits = widths[tried[:, None], cased[left]].sum(1) <= most
        face[left[fits]] = tried[fits]
    left = np.flatnonzero(face < 0)
    face[left] = widths[:, cased[left]].sum(2).argmin(0)
    kind = _chosen(tuple(KINDS.values()), uniform(seed, rows, 2001))
    wide = widths[face[:, None], cased].sum(1) > 0.87 * most  # no room for the border of a sign
    kind = np.where(wide & (kind >= len(KINDS) - 2), 0, kind)
    pairs, others, around = _colours()
    colour, ground = pairs[(uniform(seed, rows, 2002) * len(pairs)).astype(int)].T
    second, u = ground.copy(), uniform(seed, rows, 2003)
    fading = kind == list(KINDS).index("fading")
    for row in np.flatnonzero(fading | (kind >= len(KINDS) - 2)).tolist():
        choice = others[colour[row]][ground[row]] if fading[row] else around[ground[row]]
        if len(choice):
            second[row] = choice[int(u[row] * len(choice))]
    kind = np.where(fading & (second == ground), 0, kind)
    return np.stack([face, kind, colour, ground, second], 1)


class WordSource(Source):
    """A source whose `groups` are its words, held out by what they are spelled with."""

    @cached_property
    def _split(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        group = torch.from_numpy(group_of(codes(self.groups)))
        train, *held = ((group == k).nonzero()[:, 0] for k in range(len(GROUPS)))
        return train, dict(zip(GROUPS[1:], held, strict=True))


@dataclass(frozen=True)
class Drawn(Lazy):
    """Reads like an array uint8 [N, H, W, channels]; every picture is drawn when it is asked for."""

    records: Lettering
    readers: int = 1  # drawing holds the interpreter lock

    def _decode(self, row: int) -> np.ndarray:
        picture = self.records.draw(int(self.rows[row]), self.frame)
        return picture if self.channels == 3 else luma(picture)


def load(size: int | None = None, seed: int = 0, n: int = ROWS) -> Source:
    """n pictures of `size` x 2 `size` pixels (height x width; 32 x 64 by default), each of one word of up to 8 letters.

    Captions such as: the word "hello" in bold red on a white sign on green. Of every 20 rows one shows a held-out word,
    one a word with a held-out pair of letters (`holdout`). The fonts are those of `fonts.faces()`: on a machine with
    others the pictures differ, and the keys say so. Raises SfumatoError when the size is too small to read.
    """
    size = size or SIZE
    if size < SIZE:
        raise SfumatoError(f"words of {LETTERS} letters cannot be read at {size} pixels: use --size {SIZE} or more")
    rows, fonts = np.arange(n), faces()
    cased = choose_words(seed, rows)
    words = _spelled(cased)
    lettering = Lettering(seed, rows, words, fonts, _looks(seed, rows, cased, fonts))
    told = [f"{face.family} {face.style}".strip() for face in fonts]
    stamp = blake2b(json.dumps([seed, told]).encode(), digest_size=4).hexdigest()
    return WordSource(
        name="words",
        pixels=Drawn(lettering, rows, (size, 2 * size), 3),
        keys=tuple(f"{stamp}/{row:06d}" for row in range(n)),
        captions=[lettering.look(k).caption(word) for k, word in enumerate(words)],
        groups=tuple(word.lower() for word in words),
        notes={
            "licence": "drawn here with the fonts listed, each under its own licence",
            "rule": f"{size}x{2 * size} pixels, drawn at twice the size",
            "fonts": told,
        },
    )
