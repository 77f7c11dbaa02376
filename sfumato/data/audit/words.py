"""Text and watermarks in the pictures themselves, read by an OCR engine: slow, so only where it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sfumato.core import SfumatoError
from sfumato.data.audit.look import thumbnail
from sfumato.data.picture import Unusable

SIDE = 960  # pixels: larger pictures are read at this size
ENLARGED = 480  # pixels: the shorter side that smaller pictures are brought to before text is looked for
SURE = 0.8  # confidence under which a word is not believed
LETTERS = 3  # letters and digits that make a word
TOLD = 5  # words of one picture that the evidence names


@dataclass(frozen=True)
class Word:
    """A line of text: what it says, how sure that is (0 ... 1), its box as shares of the picture (left, top, right, bottom)."""

    text: str
    sure: float
    box: tuple[float, float, float, float]

    @property
    def area(self) -> float:
        left, top, right, bottom = self.box
        return max(0.0, right - left) * max(0.0, bottom - top)


Reader = Callable[[Image.Image], list[Word]]


def make_reader() -> Reader:
    """RapidOCR (Apache-2.0) with the models that its package holds: nothing is downloaded. Raises SfumatoError without it."""
    try:
        import onnxruntime  # noqa: F401 - its engine
        from rapidocr import RapidOCR
    except ImportError as error:
        raise SfumatoError("reading text in pictures needs RapidOCR: pip install 'sfumato[ocr]'") from error
    engine = RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.use_cls": False,
            "Det.limit_type": "min",
            "Det.limit_side_len": ENLARGED,
        }
    )

    def read(picture: Image.Image) -> list[Word]:
        found = engine(np.asarray(picture.convert("RGB"))[:, :, ::-1])  # blue first, as its models learned
        if found.boxes is None:
            return []
        scale = np.array([picture.width, picture.height])
        words = []
        for text, sure, box in zip(found.txts, found.scores, found.boxes, strict=True):
            low, high = (np.clip(edge / scale, 0, 1) for edge in (box.min(0), box.max(0)))
            words.append(Word(text, float(sure), (*low.tolist(), *high.tolist())))
        return words

    return read


def believed(words: Sequence[Word]) -> list[Word]:
    """The words that are text for sure, the largest first."""
    kept = [w for w in words if w.sure >= SURE and sum(map(str.isalnum, w.text)) >= LETTERS]
    return sorted(kept, key=lambda w: -w.area)


def told(words: Sequence[Word]) -> str:
    """The evidence: what is read, how surely, where, and how much of the picture it covers."""
    parts = [f"{w.text!r} {_where(w.box)} ({w.sure:.0%} sure)" for w in words[:TOLD]]
    more = f" and {len(words) - TOLD} more" if len(words) > TOLD else ""
    return f"reads {', '.join(parts)}{more}; text covers {min(1.0, sum(w.area for w in words)):.1%} of the picture"


def _where(box: tuple[float, float, float, float]) -> str:
    left, top, right, bottom = box
    across = "across" if right - left > 0.6 else ("left", "middle", "right")[min(2, int((left + right) / 2 * 3))]
    return f"{('top', 'centre', 'bottom')[min(2, int((top + bottom) / 2 * 3))]} {across}"


def spread(rows: Sequence[int], most: int) -> list[int]:
    """At most `most` of the rows (0: all of them), evenly spread over the set."""
    if not most or len(rows) <= most:
        return list(rows)
    return [rows[int(k)] for k in np.linspace(0, len(rows) - 1, most)]


def read_words(fetch: Callable[[int], bytes], rows: Sequence[int], read: Reader) -> Iterator[tuple[int, list[Word]]]:
    """Each row with the words that are text for sure in its picture, one row after the other: the engine uses all cores."""
    for row in rows:
        try:
            yield row, believed(read(thumbnail(fetch(row), SIDE)))
        except Unusable:  # was readable a moment ago
            yield row, []
