"""Readers of words in pictures, and how well what they read agrees with what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sfumato.core import SfumatoError
from sfumato.data import PixelCodec, Source
from sfumato.data.fonts import CHARACTERS
from sfumato.data.order import Order

FRAME = (32, 64)  # what the network reads, height and width
ENLARGED = 4  # times, before an OCR engine reads: it was made for larger letters
NONE = len(CHARACTERS)
CORE = 0.6  # share of a character's advance, in its middle, that is named after it
READ = Callable[[Tensor], list[str]]


def distance(one: str, other: str) -> int:
    """Edit distance: insertions, deletions and exchanges of characters (Levenshtein 1966)."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def agreement(read: Sequence[str], asked: Sequence[str]) -> dict[str, float]:
    """Share of words read exactly as asked ("exact"), and but for small and capital letters ("letters"); and the character
    error rate: edits over characters asked for ("cer", 0 is best, above 1 possible). Raises ValueError for none."""
    pairs = list(zip(read, asked, strict=True))
    if not pairs:
        raise ValueError("no words to compare")
    return {
        "exact": sum(a == b for a, b in pairs) / len(pairs),
        "letters": sum(a.lower() == b.lower() for a, b in pairs) / len(pairs),
        "cer": sum(distance(a, b) for a, b in pairs) / sum(len(b) for b in asked),
        "n": len(pairs),
    }


class Reader(nn.Module):
    """Pictures [B, 3, H, W] in [-1, 1] -> log-probabilities [T, B, 63] of the characters along the width, the last for none.

    Convolutions that keep the width; T is two to a column, so that two narrow letters stay apart.
    """

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        w = width

        def step(inside: int, out: int, down: int, kernel: int = 3) -> list[nn.Module]:
            norm = nn.GroupNorm(8, out, affine=False)
            return [nn.Conv2d(inside, out, kernel, (down, 1), kernel // 2), norm, nn.SiLU()]

        self.look = nn.Sequential(
            *step(3, w // 3 // 8 * 8, 2, 5), *step(w // 3 // 8 * 8, w // 2, 1), *step(w // 2, w, 2), *step(w, w, 2)
        )
        self.join = nn.Conv1d(w * FRAME[0] // 8, w, 1)
        self.along = nn.ModuleList(nn.Conv1d(w, w, 5, padding=2) for _ in range(3))
        self.name = nn.Linear(w, 2 * (NONE + 1))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != FRAME:
            x = F.interpolate(x, FRAME, mode="bilinear", antialias=True, align_corners=False)
        h = self.join(self.look(x).flatten(1, 2))
        for layer in self.along:
            h = h + layer(F.silu(F.layer_norm(h.transpose(1, 2), h.shape[1:2]).transpose(1, 2)))
        said = self.name(h.permute(2, 0, 1)).float().unflatten(-1, (2, -1))
        return said.transpose(1, 2).flatten(0, 1).log_softmax(-1)

    @torch.inference_mode()
    def read(self, x0: Tensor) -> list[str]:
        """The words of pictures x0 [B, 3, H, W] in [-1, 1]: the likeliest character of every column, repeats joined."""
        words = []
        for part in x0.split(256):
            for best in self(part).argmax(-1).T.tolist():
                kept = [c for c, previous in zip(best, [None, *best], strict=False) if c != previous]
                words.append("".join(CHARACTERS[c] for c in kept if c < NONE))
        return words


@dataclass(frozen=True)
class Lesson:
    """What `teach` yields after a step: the step, its loss, and the network as it stands."""

    step: int
    loss: float
    reader: Reader


def named(source: Source, row: int, length: int) -> Tensor:
    """What stands at each of `length` places along the width of a drawn word, int64: a character, or NONE between two."""
    records, (_, height, width) = source.pixels.records, source.codec.spec
    at = int(source.pixels.rows[row])
    out = torch.full((length,), NONE)
    for character, (left, right) in zip(records.words[at], records.spans(at, (height, width)), strict=True):
        middle, half = (left + right) / 2, max((right - left) * CORE / 2, 0.5 * width / length)
        first, last = (int(edge * length / width) for edge in (middle - half, middle + half))
        out[max(first, 0) : max(last, first + 1)] = CHARACTERS.index(character)
    return out


def teach(source: Source, rows: Tensor, steps: int, batch: int = 64, rate: float = 2e-3) -> Iterator[Lesson]:
    """Train a reader on these rows of the source "words".

    The loss is the cross-entropy of what stands at each place, which the renderer knows, and connectionist temporal
    classification (Graves et al. 2006) of the whole word, which alone begins slowly.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reader = Reader()
    optimiser = torch.optim.AdamW(reader.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    order = Order(len(rows), batch)
    for step in range(steps):
        index = rows[order.at(step)]
        said = reader(source.codec.encode(source.images(index)))
        source.expect(rows[order.at(step + 1)])
        words = [asked(source.captions[k]) for k in index.tolist()]
        places = torch.stack([named(source, k, len(said)) for k in index.tolist()])
        spelled = torch.tensor([CHARACTERS.index(c) for word in words for c in word])
        lengths = torch.tensor([len(word) for word in words])
        whole = F.ctc_loss(said, spelled, torch.full((batch,), len(said)), lengths, NONE)
        loss = F.nll_loss(said.permute(1, 2, 0), places) + 0.2 * whole
        share = step / steps
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100, 2 * (1 - share) + 0.01)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimiser.step()
        yield Lesson(step + 1, loss.item(), reader)


def asked(caption: str) -> str:
    """What stands between the first quotation marks of a caption; SfumatoError when there are none."""
    parts = caption.split('"')
    if len(parts) < 3:
        raise SfumatoError(f"no word in quotation marks: {caption!r}")
    return parts[1]


def keep(reader: Reader, path: Path, facts: dict[str, Any]) -> None:
    """Write the reader's weights as safetensors; `facts` are told in its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(reader.state_dict(), path, {name: str(value) for name, value in facts.items()})


def load(path: Path) -> Reader:
    """The reader that `keep` wrote; SfumatoError when the file is none."""
    reader = Reader()
    try:
        reader.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise SfumatoError(f"{path} holds no reader of words: delete it, it is trained again ({error})") from error
    return reader.eval()


def ocr() -> READ:
    """A reader by RapidOCR (Apache-2.0; its models lie in the package), of pictures enlarged ENLARGED times.

    Only its recogniser: a picture holds one word, there is nothing to find. Raises SfumatoError without the package.
    """
    try:
        import onnxruntime  # noqa: F401 - its engine
        from rapidocr import RapidOCR
    except ImportError as error:
        raise SfumatoError("reading words by OCR needs RapidOCR: pip install 'sfumato[ocr]'") from error
    engine = RapidOCR(params={"Global.log_level": "critical", "Global.text_score": 0.0})

    def read(x0: Tensor) -> list[str]:
        codec = PixelCodec(*x0.shape[2:], x0.shape[1])
        words = []
        for picture in codec.pixels(x0):
            image = Image.fromarray(picture).convert("RGB")
            large = image.resize((image.width * ENLARGED, image.height * ENLARGED), Image.Resampling.BICUBIC)
            found = engine(np.asarray(large)[:, :, ::-1], use_det=False, use_cls=False, use_rec=True)
            words.append("".join(found.txts or ()).replace(" ", ""))
        return words

    return read
