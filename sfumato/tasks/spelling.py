"""Slips of the hand: the known word that a wrongly spelled one was to be."""

from __future__ import annotations

from collections.abc import Collection

LONGEST = 24  # letters of a word that may be a slip


def meant(word: str, known: Collection[str]) -> str | None:
    """The known word that is nearest to this one, by the fewest slips; None where none is near enough or several are.

    A slip is a letter more, less or other, or two exchanged (Damerau 1964). Real words are each other's neighbours too
    (timber, timer; filling, falling; badge, badger), so of a word of fewer than seven letters only exchanged and doubled or
    undoubled letters are mended, of a longer one any slip, of one of twelve letters or more two; and never what is only a
    longer or shorter form of a word.
    """
    if not (4 <= len(word) <= LONGEST and word.isascii() and word.isalpha()):
        return None
    most = 1 if len(word) < 12 else 2
    found: dict[int, list[str]] = {}
    for other in known:
        if other[:1] != word[0] or abs(len(other) - len(word)) > most or not other.isalpha():
            continue
        short, long = sorted((word, other), key=len)
        same = sorted(other) == sorted(word) or (len(short) < len(long) and set(other) == set(word))
        form = long.startswith(short) and long != short + short[-1]
        if form or len(set(other) ^ set(word)) > 2 * most or (len(word) < 7 and not same):
            continue
        found.setdefault(slips(word, other), []).append(other)
    nearest = found.get(min(found), []) if found and min(found) <= most else []
    return nearest[0] if len(nearest) == 1 else None


def slips(a: str, b: str) -> int:
    """The fewest letters to insert, leave away, replace or exchange with their neighbour to make b of a."""
    before, last = [], list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            cost = min(last[j] + 1, row[-1] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and (x, a[i - 2]) == (b[j - 2], y):
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]
