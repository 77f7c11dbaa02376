"""A small encoder of words, trained together with the network that reads it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.core import EDGES, THOUSAND
from sfumato.denoiser.layers import BANDS, waves
from sfumato.denoiser.tokens import Tokens

INSIDE = 128  # width of the table of features
REACH = 5  # words that one layer sees, the middle one among them


class Neighbours(nn.Module):
    """h + out(silu(gate(n)) * mix(n)), n = layer norm(h): a gated convolution over neighbouring words.

    It knows no positions: a phrase is read alike wherever it stands, at word 5 or at word 1,000.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.both = nn.Linear(width, 2 * width)
        self.near = nn.Conv1d(width, width, REACH, padding=REACH // 2, groups=width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)

    def forward(self, h: Tensor, shown: Tensor) -> Tensor:
        gate, mix = self.both(F.layer_norm(h, h.shape[-1:])).chunk(2, -1)
        near = self.near((mix * shown).transpose(1, 2)).transpose(1, 2)
        return h + self.out(F.silu(gate) * near) * shown


class Language(nn.Module):
    """(ids int64 [B, N, F], mask bool [B, N]) -> a token [width] for every word that is there, [T, width] in their order.

    With `read` (bool [B, N], where the mask is and more) there is a token for each place of it; those that are masked mean
    nothing, and no other token depends on them.

    A word is the sum of the embeddings of its features over the root of their number; `layers` gated convolutions give
    it its neighbours. In-domain encoders of this size beat frozen sentence encoders on small sets (Schrum et al. 2025).
    """

    def __init__(self, vocabulary: int, width: int, layers: int = 2) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, INSIDE, padding_idx=0)
        nn.init.normal_(self.table.weight, std=0.5)
        with torch.no_grad():
            self.table.weight[0].zero_()
        self.widen = nn.Linear(INSIDE, width)
        self.layers = nn.ModuleList(Neighbours(width) for _ in range(layers))

    def forward(self, ids: Tensor, mask: Tensor, read: Tensor | None = None) -> Tensor:
        # all captions in one line, each to its last word, with blanks between them that no layer reaches across
        read = mask if read is None else read
        kept = (read.flip(1).cumsum(1).flip(1) > 0).flatten().nonzero()[:, 0]
        at = torch.arange(len(kept), device=mask.device) + kept // max(1, mask.shape[1]) * (REACH // 2)
        shown, seen = read.flatten()[kept], mask.flatten()[kept]
        words, at_words = ids.flatten(0, 1)[kept[shown]], at[shown]
        count = (words > 0).sum(-1, keepdim=True).clamp_min(1)
        alone = self.widen(F.embedding_bag(words, self.table.weight, mode="sum", padding_idx=0) * count**-0.5)
        length = len(kept) + len(mask) * (REACH // 2)
        h = alone.new_zeros(1, length, alone.shape[-1]).index_copy(1, at_words, alone[None])
        there = h.new_zeros(1, length, 1).index_fill(1, at[seen], 1.0)
        for layer in self.layers:
            h = layer(h, there)
        return h[0, at_words]


class Placed(nn.Module):
    """(ids int64 [B, N, F + 4], mask, read, words) -> [T, width]: what `words` (a `Language`) reads in the first F columns,
    and a linear of waves of the last four, the edges of the box that a word stands in, in thousandths of the picture.

    `vocabulary` None: another slot's language is lent to it. Boxes as tokens: Li et al. 2023, "GLIGEN".
    """

    def __init__(self, vocabulary: int | None, width: int) -> None:
        super().__init__()
        self.language = None if vocabulary is None else Language(vocabulary, width)
        self.place = nn.Linear(2 * BANDS * EDGES, width)

    def forward(self, ids: Tensor, mask: Tensor, read: Tensor, words: Language) -> Tensor:
        edges = ids[..., -EDGES:][read].to(self.place.weight.dtype) / THOUSAND
        return words(ids[..., :-EDGES], mask, read) + self.place(waves(edges).flatten(1))


class Pool(nn.Module):
    """Tokens -> [B, width]: attention of a few learned queries, so that one telling word is not thinned out by a thousand
    others, as it would be in a mean."""

    def __init__(self, width: int, queries: int = 4) -> None:
        super().__init__()
        self.score = nn.Linear(width, queries)
        self.out = nn.Linear(width, width)
        self.queries = queries

    def forward(self, tokens: Tokens) -> Tensor:
        group, rows = tokens.whole, tokens.rows[tokens.whole.rows]
        score = group.padded(self.score(F.layer_norm(tokens.rows, rows.shape[-1:])).float())
        weight = score.masked_fill(~group.mask.unsqueeze(-1), float("-inf")).softmax(1).flatten(0, 1)[group.where]
        # each query reads its own part of the width
        parts = (rows.unflatten(-1, (self.queries, -1)) * weight.unsqueeze(-1).to(rows.dtype)).flatten(1)
        sums = parts.new_zeros(tokens.batch, parts.shape[-1])
        return self.out(sums.index_add(0, group.where // group.mask.shape[1], parts))
