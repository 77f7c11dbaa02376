"""Captions -> token ids by hashing words: no vocabulary file, the same ids on every machine."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

import torch
from torch import Tensor

from sfumato.core import SfumatoError

VOCABULARY = 4096  # ids 0 ... 4095; 0 is padding
LENGTH = 32
_WORD = re.compile(r"\w+|[^\w\s]")


def words(caption: str) -> list[str]:
    """Words and punctuation marks of a caption, lower case, after Unicode NFKC."""
    return _WORD.findall(unicodedata.normalize("NFKC", caption).lower())


@lru_cache(maxsize=65536)
def word_id(word: str) -> int:
    """The word's id: 1 + blake2b(word) mod 4095. Two words may share an id (chance 1 in 4,095 for a given pair)."""
    return 1 + int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "big") % (VOCABULARY - 1)


def encode(captions: Sequence[str | None], length: int = LENGTH) -> tuple[Tensor, Tensor]:
    """B captions -> (ids int64 [B, length], mask bool [B, length], True where there is a word); longer text is cut.

    A missing caption (None or "") is a row of padding. Raises SfumatoError when something else than text is given.
    """
    if isinstance(captions, str):
        raise SfumatoError("encode takes a list of captions; put the single caption into a list")
    ids = torch.zeros(len(captions), length, dtype=torch.int64)
    for row, caption in enumerate(captions):
        if not isinstance(caption, str | None):
            raise SfumatoError(f"caption {row} is {type(caption).__name__}, not text")
        found = [word_id(w) for w in words(caption or "")[:length]]
        ids[row, : len(found)] = torch.tensor(found, dtype=torch.int64)
    return ids, ids > 0
