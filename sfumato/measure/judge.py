"""Does a picture show what its caption says: a judge of pictures and texts, trained on real pictures of the source only.

A small network for pictures and one for texts are trained so that a picture lies nearer to its own text than to the others
(contrastive loss, Radford et al. 2021, arXiv 2103.00020); a head tells the styles apart. Nothing of it comes from the model
that is judged: weights, order of the data and reading of the text are its own. It is cached like an extractor of features.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b, sha256
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.core import Noise, SfumatoError
from sfumato.data import Source, text
from sfumato.measure import features as shared
from sfumato.measure.intervals import Interval, wilson
from sfumato.train import bf16_pays

VERSION = "v1"
SEED = 20_210_105
DIM = 128  # of what pictures and texts have in common
BUCKETS = 8192  # of hashed words and parts of words
TABLE = 128
AMONG = 50
BATCH = 64
TEXTS = 512  # compared with every picture of a batch
EPOCHS, LEAST_SEEN = 20, 20_000
FRESH = 12  # one picture in this many is kept from the judge, to tell how good it is
FEWEST = 64
ASKED = 2000  # real pictures of a kind, at most, that its accuracy is told on


@lru_cache(maxsize=65536)
def _bucket(part: str) -> int:
    return 1 + int.from_bytes(blake2b(part.encode(), digest_size=8).digest(), "big") % (BUCKETS - 1)


@lru_cache(maxsize=65536)
def _parts(word: str) -> tuple[tuple[int, float], ...]:
    """A word as (bucket, weight): half its weight is the word's own, half that of its runs of three letters."""
    edged = f"<{word}>"
    runs = [edged[k : k + 3] for k in range(len(edged) - 2)]
    return ((_bucket(word), 0.5), *((_bucket(f"#{run}"), 0.5 / len(runs)) for run in runs))


class Texts(NamedTuple):
    """Texts as hashed parts of words: buckets int64 [T], their weights [T], the phrase and the text of each, int64 [T]."""

    ids: Tensor
    weights: Tensor
    phrase: Tensor
    row: Tensor
    count: int


def read(texts: Sequence[str]) -> Texts:
    """Texts taken apart; phrases are what stands between commas, and the first is the name."""
    ids, weights, phrases, rows, phrase = [], [], [], [], -1
    for row, whole in enumerate(texts):
        for one in [p for p in whole.split(",") if text.words(p)] or ["?"]:
            phrase += 1
            for bucket, weight in (part for word in text.words(one) for part in _parts(word)):
                ids.append(bucket)
                weights.append(weight)
                phrases.append(phrase)
                rows.append(row)
    whole_numbers = [torch.tensor(x, dtype=torch.int64) for x in (ids, phrases, rows)]
    return Texts(whole_numbers[0], torch.tensor(weights), whole_numbers[1], whole_numbers[2], len(texts))


def _some(texts: Texts, chosen: Tensor) -> Texts:
    """Only these texts, int64 [n] ascending."""
    place = torch.full((texts.count,), -1)
    place[chosen] = torch.arange(len(chosen))
    here = place[texts.row] >= 0
    return Texts(texts.ids[here], texts.weights[here], texts.phrase[here], place[texts.row[here]], len(chosen))


def _dropped(texts: Texts, generator: torch.Generator) -> Texts:
    """Every phrase is left out half of the time, names once in ten; a text of which nothing is left stays whole."""
    first = torch.ones_like(texts.phrase, dtype=torch.bool)
    first[1:] = texts.row[1:] != texts.row[:-1]
    names = torch.zeros(int(texts.phrase.max()) + 1, dtype=torch.bool)
    names[texts.phrase[first]] = True
    kept = torch.rand(len(names), generator=generator) < torch.where(names, 0.9, 0.5)
    here = kept[texts.phrase]
    left = torch.zeros(texts.count).index_add_(0, texts.row, here.float())
    return texts._replace(weights=texts.weights * (here | (left[texts.row] == 0)))


def _conv(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())


class Net(nn.Module):
    """Five convolutions on 16x16, 8x8 and 4x4 for what is shown, three on finer grids for the style; the mean of word vectors
    and two layers for texts."""

    def __init__(self, channels: int, fold: int, styles: int) -> None:
        super().__init__()
        self.fold = fold
        self.body = nn.Sequential(
            _conv(channels * fold**2, 64),
            _conv(64, 96),
            nn.MaxPool2d(2, ceil_mode=True),
            _conv(96, 128),
            _conv(128, 192),
            nn.MaxPool2d(2, ceil_mode=True),
            _conv(192, 256),
        )
        self.hidden = nn.Linear(256 * 16, 256)
        self.shown = nn.Linear(256, DIM)
        # Style is in edges and shading: seen finer, without place, and by weights of its own.
        self.fine = max(1, fold // 2)
        self.look = nn.Sequential(
            _conv(channels * self.fine**2, 32),
            nn.MaxPool2d(2, ceil_mode=True),
            _conv(32, 64),
            nn.MaxPool2d(2, ceil_mode=True),
            _conv(64, 128),
        )
        self.style = nn.Linear(128, max(styles, 1))
        self.words = nn.EmbeddingBag(BUCKETS, TABLE, mode="sum")
        self.said = nn.Sequential(nn.Linear(TABLE, 256), nn.ReLU(), nn.Linear(256, DIM))
        self.scale = nn.Parameter(torch.empty(()))

    def pictures(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x0 [B, C, H, W] -> unit vectors [B, DIM], logits of the styles [B, S]."""
        right, down = -x.shape[3] % self.fold, -x.shape[2] % self.fold
        if right or down:
            x = F.pad(x, (0, right, 0, down), mode="replicate")
        style = self.style(self.look(F.pixel_unshuffle(x, self.fine)).mean((2, 3)))
        x = self.body(F.pixel_unshuffle(x, self.fold))
        if x.shape[2:] != (4, 4):
            x = F.adaptive_avg_pool2d(x, 4)
        shown = self.shown(self.hidden(x.flatten(1)).relu())
        return F.normalize(shown.float(), dim=1), style.float()

    def texts(self, texts: Texts) -> Tensor:
        """M texts -> unit vectors [M, DIM]."""
        total = torch.zeros(texts.count).index_add_(0, texts.row, texts.weights)
        weights = texts.weights / total[texts.row].clamp_min(1e-6)
        starts = torch.searchsorted(texts.row, torch.arange(texts.count))
        mean = self.words(texts.ids, starts, per_sample_weights=weights)
        return F.normalize(self.said(mean).float(), dim=1)


def _build(spec: Sequence[int], styles: int) -> Net:
    channels, height, width = spec
    with torch.device("meta"):
        net = Net(channels, max(1, round(min(height, width) / 16)), styles)
    net.to_empty(device="cpu")
    shared.start_weights(net, SEED)
    nn.init.constant_(net.scale, math.log(14))
    return net.to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Judge:
    """Pictures x0 [B, C, H, W] in [-1, 1] and texts -> unit vectors [., 128]: the nearer, the more the one shows the other.

    `real` is its own accuracy on real pictures, by kind of picture (see `judge_for`): every number it gives is read beside
    these. `styles` are the names that `style` tells apart.
    """

    name: str
    fingerprint: str
    spec: tuple[int, int, int]
    styles: tuple[str, ...]
    real: dict[str, dict[str, Any]]
    seconds: float
    net: Net

    def _seen(self, x0: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        if x0.ndim != 4 or tuple(x0.shape[1:]) != self.spec:
            raise SfumatoError(f"{self.name} judges pictures of {self.spec} (C, H, W), not {tuple(x0.shape[1:])}")
        if not torch.isfinite(x0).all():
            raise SfumatoError("some of the pictures hold NaN or infinite values and cannot be judged")
        with torch.no_grad():
            for part in x0.float().split(500):
                yield self.net.pictures(part.contiguous(memory_format=torch.channels_last))

    def pictures(self, x0: Tensor) -> Tensor:
        """Pictures -> unit vectors [N, 128]; raises SfumatoError for another size and for NaN."""
        return torch.cat([vectors for vectors, _ in self._seen(x0)])

    def style(self, x0: Tensor) -> Tensor:
        """Pictures -> the style each has, int64 [N] into `styles`; raises SfumatoError where no styles were learned."""
        if not self.styles:
            raise SfumatoError(f"{self.name} learned no styles: its source has none")
        return torch.cat([logits.argmax(1) for _, logits in self._seen(x0)])

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Texts -> unit vectors [M, 128]."""
        return self.net.texts(read(texts))

    def first(self, x0: Tensor, own: Sequence[str], pool: Sequence[str], among: int = AMONG, seed: int = 0) -> Tensor:
        """Whether each picture lies nearer to its own text than to `among` - 1 others drawn from `pool`, bool [N].

        The others of picture k depend on seed and k alone, so that two sets of pictures face the same ones; a tie is lost.
        Raises SfumatoError when `pool` holds fewer texts than that.
        """
        pool = sorted(set(pool))
        if len(pool) <= among - 1 or not set(own) <= set(pool):
            raise SfumatoError(
                f"{among} texts to choose from are needed, the right ones among them; there are {len(pool)}"
            )
        place = {name: k for k, name in enumerate(pool)}
        mine = torch.tensor([place[name] for name in own])
        drawn = Noise.of(seed, len(own)).uniform((len(own), len(pool)))
        drawn[torch.arange(len(own)), mine] = math.inf
        others = drawn.topk(among - 1, dim=1, largest=False).indices
        likeness = self.pictures(x0) @ self.texts(pool).T
        return (likeness.gather(1, others) < likeness.gather(1, mine[:, None])).all(1)


def meanings(source: Source) -> list[str]:
    """What each picture shows, without style and colour: name and keywords where the metadata have them, else the caption."""
    if "name" not in source.columns:
        if source.captions is None:
            raise SfumatoError(f"{source.name} has no captions: there is nothing to judge its pictures by")
        return list(source.captions)
    words = source.columns.get("keywords") or [None] * len(source)
    listed = (", ".join(w) if isinstance(w, list | tuple) else w or "" for w in words)
    return [", ".join(filter(None, (name, w))) for name, w in zip(source.columns["name"], listed, strict=True)]


class _Rows(NamedTuple):
    """Rows to learn from, and by kind those the judge's accuracy is told on."""

    train: Tensor
    asked: dict[str, Tensor]


def _rows(source: Source, said: Sequence[str]) -> _Rows:
    every = torch.arange(len(source))
    glyphs = source.holdout["glyphs"] if "glyphs" in source.holdout else source.validation_index
    open_ = ~torch.isin(every, glyphs)
    drawn = torch.tensor([_bucket(f"judge {key}") % FRESH == 0 for key in source.keys]) & open_
    known = {said[k] for k in (open_ & ~drawn).nonzero()[:, 0].tolist()}
    fresh = drawn & torch.tensor([caption in known for caption in said])  # a caption is never learned from no picture
    train = (open_ & ~fresh).nonzero()[:, 0]
    asked = {"trained on": train, "kept from it": fresh.nonzero()[:, 0]}
    asked |= {f"held out: {name}": rows for name, rows in source.holdout.items()} or {"held out": glyphs}
    return _Rows(train, {name: shared.thinned(rows, ASKED) for name, rows in asked.items() if len(rows)})


def _moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures a little larger or smaller, moved by up to a tenth, some blurred or grainy: none of it changes what is shown."""
    drawn = torch.rand(len(x), 4, generator=generator)
    scale = 0.9 + 0.25 * drawn[:, :1]
    shift = 0.2 * drawn[:, 1:3] - 0.1
    theta = torch.cat([torch.diag_embed(scale.expand(-1, 2)), shift[:, :, None]], 2)
    x = F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), "bilinear", "border", False)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    strength = (drawn[:, 3] - 0.5).clamp_min(0)[:, None, None, None]
    grain = 0.2 * strength * torch.randn(x.shape, generator=generator)
    return x.lerp(soft, strength) + grain


@torch.enable_grad()
def _train(net: Net, source: Source, rows: Tensor, target: Tensor, texts: Texts, seen: int) -> None:
    """AdamW with one cycle: every picture against its own text and up to TEXTS others, and against its style."""
    generator = torch.Generator().manual_seed(SEED)
    pictures, batch = shared.as_bytes(source, rows), min(BATCH, len(rows))
    styles = source.style_labels[rows] if source.styles else torch.full((len(rows),), -1)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=3e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=max(2, seen // batch), pct_start=0.2)
    net.train()
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(schedule.total_steps):
        if len(order) < batch:
            order = torch.randperm(len(rows), generator=generator)
        here, order = order[:batch], order[batch:]
        x = _moved(shared.as_floats(pictures[here]), generator)
        own = target[here]
        chosen = torch.cat([own, torch.randperm(texts.count, generator=generator)[:TEXTS]]).unique()
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16_pays()):
            shown, style = net.pictures(x.contiguous(memory_format=torch.channels_last))
        said = net.texts(_dropped(_some(texts, chosen), generator))
        logits = net.scale.exp().clamp_max(100) * shown @ said.T
        loss = F.cross_entropy(logits, torch.searchsorted(chosen, own), label_smoothing=0.05)
        if (styles[here] >= 0).any():
            loss = loss + F.cross_entropy(style, styles[here], ignore_index=-1)
        loss.backward()
        optimiser.step()
        schedule.step()
    net.eval()


def shares(hits: Tensor, of: Sequence[str]) -> Interval:
    """The share of hits, bool [N], with Wilson's interval for as many pictures as there are different `of` among them."""
    return wilson(float(hits.double().mean()), len(set(of)))


def _accuracy(judge: Judge, source: Source, said: Sequence[str], asked: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    among = min(AMONG, len(set(said)))
    for name, rows in asked.items():
        x0, own = source.batch(rows).x0, [said[k] for k in rows.tolist()]
        found[name] = {
            "first": shares(judge.first(x0, own, said, among), own)._asdict(),
            "among": among,
            "n": len(rows),
        }
        if source.styles:
            right = judge.style(x0) == source.style_labels[rows]
            found[name]["style"] = shares(right, own)._asdict()
    return found


def _identity(source: Source, said: Sequence[str], seen: int) -> str:
    digest = sha256(
        repr((VERSION, shared.fingerprint(source), seen, source.keys, source.styles)).encode("utf-8", "replace")
    )
    digest.update("\n".join(said).encode("utf-8", "replace"))
    for rows in source.holdout.values():
        digest.update(rows.numpy().tobytes())
    if source.styles:
        digest.update(source.style_labels.numpy().tobytes())
    return digest.hexdigest()[:16]


def judge_for(source: Source, seen: int | None = None, progress: Callable[[str], None] = lambda line: None) -> Judge:
    """The judge of this captioned source: from the cache, or trained now on `seen` pictures (None: 20 times all of them).

    It learns from all pictures but the held-out glyphs (`source.holdout["glyphs"]`, else the validation rows) and one in
    twelve of the rest, which tell how good it is on new pictures of captions it knows; so it knows the held-out pairs that the
    judged model does not. Its accuracy (own text first among 50, style) is told on what it learned from, on what was kept
    from it, and on each kind of held-out pictures. Raises SfumatoError for fewer than 64 pictures and without captions.
    """
    said = meanings(source)
    rows = _rows(source, said)
    if len(rows.train) < FEWEST:
        raise SfumatoError(f"{len(rows.train)} pictures are too few to train a judge: {FEWEST} are needed")
    seen = seen or max(LEAST_SEEN, EPOCHS * len(rows.train))
    spec, known = tuple(source.codec.spec), _identity(source, said, seen)
    name = f"judge-{shared.slug(source.name)}-{spec[1]}-{VERSION}"
    path = shared.cache_folder() / f"{name}-{known}.safetensors"
    kept = shared.recall(path, lambda facts: _build(spec, len(source.styles)))
    if kept is not None:
        net, facts = kept
        return Judge(name, known, spec, tuple(source.styles), facts["real"], facts["seconds"], net)
    progress(f"training {name} on {seen:,} pictures")
    started = time.process_time()
    learned = sorted({said[k] for k in rows.train.tolist()})
    place = {caption: k for k, caption in enumerate(learned)}
    target = torch.tensor([place[said[k]] for k in rows.train.tolist()])
    net = _build(spec, len(source.styles))
    _train(net, source, rows.train, target, read(learned), seen)
    seconds = time.process_time() - started
    bare = Judge(name, known, spec, tuple(source.styles), {}, seconds, net)
    facts = {"name": name, "fingerprint": known, "spec": spec, "seen": seen, "seed": SEED, "seconds": seconds}
    facts["real"] = _accuracy(bare, source, said, rows.asked)
    shared.keep(path, net, facts)
    return Judge(name, known, spec, tuple(source.styles), facts["real"], seconds, net)
