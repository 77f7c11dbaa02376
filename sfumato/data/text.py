"""Captions -> hashed features of words and their letters: no vocabulary file, the same ids on every machine."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

import torch
from torch import Tensor

from sfumato.core import SfumatoError

WORDS = 8192  # ids 1 ... 8191 are words
GRAMS = 8192  # ids 8192 ... 16383 are runs of letters
VOCABULARY = WORDS + GRAMS  # 0 is padding
FEATURES = 13  # of a word: itself, and up to 12 runs of its letters
LONGEST = 20_000  # words of one caption
SPELLED = 64  # characters that text in quotation marks may have to be spelled
_WORD = re.compile(r"\w+|[^\w\s]")
_QUOTED = re.compile(rf"(?<!\w)[\"\u201c]([^\"\u201c\u201d]{{1,{SPELLED}}})[\"\u201d](?!\w)")  # 5" is no quotation
# scripts written without spaces: every sign is a word of its own
_SIGNS = re.compile(
    "[\u0e00-\u0e7f\u2e80-\u2fdf\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def words(caption: str) -> list[str]:
    """Words and punctuation marks of a caption, lower case, after Unicode NFKC.

    Text in quotation marks is to be written, not shown: it is spelled, one token `"character|place|place from the end`
    for each character as it stands, large or small.
    """
    found, end, told = [], 0, unicodedata.normalize("NFKC", caption)
    for quoted in _QUOTED.finditer(told):
        found += _plain(told[end : quoted.start()])
        found += [f'"{c}|{k}|{len(quoted[1]) - 1 - k}' for k, c in enumerate(quoted[1])]
        end = quoted.end()
    return found + _plain(told[end:])


def _plain(told: str) -> list[str]:
    return [part for word in _WORD.findall(told.lower()) for part in _parts(word)]


def _parts(word: str) -> list[str]:
    if not _SIGNS.search(word):
        return [word]
    return [part for part in re.split(f"({_SIGNS.pattern})", word) if part]


def _hash(text: str, below: int) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") % below


@lru_cache(maxsize=65536)
def features(word: str) -> tuple[int, ...]:
    """Ids of one word: 1 + blake2b(word) mod 8191, then its runs of three letters, "<" before and ">" behind.

    Words that are spelled alike share runs, so one that was never seen lands near those that were (Bojanowski et al.
    2017). Of a word of more than 12 letters the first and the last six runs are kept. A spelled character (see `words`)
    has three: which one it is, its place, and its place from the end (character-aware text: Liu et al. 2023, arXiv
    2212.10562).
    """
    if len(word) > 1 and word[0] == '"':
        character, place, left = word[1], *word[2:].split("|")[1:]
        return tuple(1 + _hash(told, WORDS - 1) for told in (f'"{character}', f'"|{place}', f'"|-{left}'))
    marked = f"<{word}>"
    runs = [marked[k : k + 3] for k in range(len(marked) - 2)]
    most = FEATURES - 1
    if len(runs) > most:
        runs = runs[: most // 2] + runs[-(most // 2) :]
    return 1 + _hash(word, WORDS - 1), *(WORDS + _hash(run, GRAMS) for run in runs)


def encode(captions: Sequence[str | None]) -> tuple[Tensor, Tensor]:
    """B captions -> (ids int64 [B, N, FEATURES], mask bool [B, N], True where there is a word), N the longest's words.

    Nothing is cut. A missing caption (None or "") is a row of padding. Raises SfumatoError for what is no text, and for
    more than LONGEST words.
    """
    if isinstance(captions, str):
        raise SfumatoError("encode takes a list of captions; put the single caption into a list")
    rows = []
    for row, caption in enumerate(captions):
        if not isinstance(caption, str | None):
            raise SfumatoError(f"caption {row} is {type(caption).__name__}, not text")
        rows.append(words(caption or ""))
        if len(rows[-1]) > LONGEST:
            raise SfumatoError(f"a caption has at most {LONGEST:,} words; this one has {len(rows[-1]):,}: shorten it")
    longest = max((len(row) for row in rows), default=0)
    ids = torch.zeros(len(rows), longest, FEATURES, dtype=torch.int64)
    for row, found in enumerate(rows):
        if found:
            flat = [(*features(w), *(0,) * (FEATURES - 1))[:FEATURES] for w in found]
            ids[row, : len(found)] = torch.tensor(flat, dtype=torch.int64)
    return ids, ids[..., 0] > 0
