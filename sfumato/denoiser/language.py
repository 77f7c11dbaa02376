"""A small encoder of words, trained together with the network that reads it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    """(ids int64 [B, N, F], mask bool [B, N]) -> tokens [B, N, width], zero where there is no word.

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

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        if not ids.shape[1]:  # captions without a word
            return ids.new_zeros(len(ids), 0, self.widen.out_features, dtype=self.table.weight.dtype)
        count = (ids > 0).sum(-1, keepdim=True).clamp_min(1)
        shown = mask.unsqueeze(-1).to(self.table.weight.dtype)
        flat = F.embedding_bag(ids.flatten(0, 1), self.table.weight, mode="sum", padding_idx=0)
        h = self.widen(flat.unflatten(0, ids.shape[:2]) * count**-0.5) * shown
        for layer in self.layers:
            h = layer(h, shown)
        return h


class Pool(nn.Module):
    """Tokens [B, N, width] with mask [B, N] -> [B, width]: attention of a few learned queries, so that one telling word
    is not thinned out by a thousand others, as it would be in a mean."""

    def __init__(self, width: int, queries: int = 4) -> None:
        super().__init__()
        self.score = nn.Linear(width, queries)
        self.out = nn.Linear(width, width)
        self.queries = queries

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        weight = self.score(F.layer_norm(tokens, tokens.shape[-1:])).float()
        weight = weight.masked_fill(~mask.unsqueeze(-1), float("-inf")).softmax(1).to(tokens.dtype)
        parts = tokens.unflatten(-1, (self.queries, -1))  # each query reads its own part of the width
        return self.out(torch.einsum("bnq,bnqw->bqw", weight, parts).flatten(1))
