"""A small causal transformer over the (token, layer) slots of a routing trace."""
# N block of tokens, S token of a block, L layer, K slot in the top-k, E expert, H head, D width; rows that see one another:
# G group, Q query, J key. With cross-layer attention a group is all slots of a block (Q = S x L), without it those of one layer (Q = S).

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional

from experiments.predictor.spec import PredictorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from analysis.kernels import Int
    from analysis.trace import LayerMeta
    from experiments.predictor.layout import Blocks

NEVER = float("-inf")


class Predictor(nn.Module):
    """Scores of the experts of every slot from the slots before it: those of lower layers of its token, and all layers of earlier tokens.

    A slot's input is the slot just before it in the order (token, layer), or a learnt beginning; so nothing of the slot itself is seen.
    """

    def __init__(self, spec: PredictorSpec, layers: Sequence[LayerMeta]) -> None:
        super().__init__()
        self.layers, self.across = tuple(layers), spec.cross_layer_attention
        self.known = KnownSlots(layers, spec.hidden)
        self.beginning = nn.Parameter(torch.zeros(spec.hidden))
        self.asked = nn.Parameter(torch.randn(len(layers), spec.hidden) * 0.1)
        self.blocks = nn.ModuleList(Block(spec, len(layers)) for _ in range(spec.blocks))
        self.norm = nn.LayerNorm(spec.hidden)
        self.scores = Scores(layers, spec.hidden)

    def forward(self, ids_NSLK: Tensor, previous_N: Tensor) -> Tensor:
        """Scores [N, S, L, E] with -inf for experts that a layer does not have; previous_N: the block before is of the same document."""
        x = self._shifted(self.known(ids_NSLK), previous_N) + self.asked
        n, s, n_layers, width = x.shape
        x = x.reshape(n, 1, s * n_layers, width) if self.across else x.transpose(1, 2)
        for block in self.blocks:
            x = block(x, previous_N)
        x = x.reshape(n, s, n_layers, width) if self.across else x.transpose(1, 2)
        return cast("Tensor", self.scores(self.norm(x)))

    def _shifted(self, x_NSLD: Tensor, previous_N: Tensor) -> Tensor:
        """Each slot's place taken by the one before it: of the lower layer, or of the token before (always that without other layers)."""
        n, s, n_layers, width = x_NSLD.shape
        flat = x_NSLD.reshape(n, s * n_layers, width)
        step = 1 if self.across else n_layers
        last = torch.cat([self.beginning.expand(1, step, width), flat[:-1, -step:]])
        last = torch.where(previous_N[:, None, None], last, self.beginning)
        return torch.cat([last, flat[:, :-step]], dim=1).reshape(n, s, n_layers, width)


class KnownSlots(nn.Module):
    """A slot as a vector: its first choice, and the average over its set."""

    offset_L: Tensor
    share_LK: Tensor

    def __init__(self, layers: Sequence[LayerMeta], width: int) -> None:
        super().__init__()
        sizes = [layer.n_experts for layer in layers]
        most = max(layer.top_k for layer in layers)
        self.first = nn.Parameter(torch.randn(sum(sizes), width) * 0.3)
        self.member = nn.Parameter(torch.randn(sum(sizes), width) * 0.3)
        shares = [[1 / layer.top_k] * layer.top_k + [0.0] * (most - layer.top_k) for layer in layers]
        self.register_buffer("offset_L", torch.tensor([0, *sizes[:-1]]).cumsum(0), persistent=False)
        self.register_buffer("share_LK", torch.tensor(shares), persistent=False)

    def forward(self, ids_NSLK: Tensor) -> Tensor:
        """[N, S, L, D]; places beyond a layer's k hold any id of the layer and weigh nothing."""
        row = ids_NSLK + self.offset_L[:, None]
        members = functional.embedding(row, self.member) * self.share_LK[..., None]
        return functional.embedding(row[..., 0], self.first) + members.sum(dim=-2)


class Block(nn.Module):
    """Attention to the tokens of the own block and of the one before, then a feed-forward layer; both add to their input."""

    place_GQJ: Tensor
    visible_QJ: Tensor

    def __init__(self, spec: PredictorSpec, n_layers: int) -> None:
        super().__init__()
        width = spec.hidden
        self.heads, self.rate = spec.heads, spec.dropout
        self.norm_a, self.norm_f = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        visible, place = attention_plan(spec.reach, n_layers, spec.cross_layer_attention)
        self.bias = nn.Parameter(torch.zeros(spec.heads, int(place.max()) + 1))  # by distance in tokens and the two layers
        self.register_buffer("visible_QJ", visible, persistent=False)
        self.register_buffer("place_GQJ", place, persistent=False)

    def forward(self, x_NGQD: Tensor, previous_N: Tensor) -> Tensor:
        """The same shape."""
        x = x_NGQD + self._dropped(self.out(self._attended(self.norm_a(x_NGQD), previous_N)))
        return x + self._dropped(self.narrow(functional.gelu(self.wide(self.norm_f(x)))))

    def _attended(self, x_NGQD: Tensor, previous_N: Tensor) -> Tensor:
        n, groups, n_queries, width = x_NGQD.shape
        parts = self.qkv(x_NGQD).reshape(n, groups, n_queries, 3, self.heads, width // self.heads).permute(3, 0, 1, 4, 2, 5)
        query, key, value = parts[0] * (width // self.heads) ** -0.5, _with_block_before(parts[1]), _with_block_before(parts[2])
        bias_GHQJ = self.bias[:, self.place_GQJ].transpose(0, 1)
        weight = query @ key.transpose(-1, -2) + bias_GHQJ
        other_document = ~previous_N[:, None, None] & (torch.arange(2 * n_queries, device=x_NGQD.device) < n_queries)
        hidden_NQJ = ~self.visible_QJ | other_document
        weight = weight.masked_fill(hidden_NQJ[:, None, None], NEVER).softmax(dim=-1)
        attended: Tensor = (weight @ value).transpose(2, 3).reshape(n, groups, n_queries, width)
        return attended

    def _dropped(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.rate, self.training)


def _with_block_before(x: Tensor) -> Tensor:
    """Rows of the block before, then the own ones, along the last axis but one; zeros before the first."""
    return torch.cat([torch.cat([torch.zeros_like(x[:1]), x[:-1]]), x], dim=-2)


def attention_plan(reach: int, n_layers: int, across: bool) -> tuple[Tensor, Tensor]:
    """(visible [Q, J], place in the bias table [G, Q, J]): less than `reach` tokens back, never a later slot."""
    slots = torch.cartesian_prod(torch.arange(-reach, reach), torch.arange(n_layers if across else 1)).reshape(2 * reach, -1, 2).flatten(0, 1)
    queries = slots[len(slots) // 2:]
    distance = queries[:, None, 0] - slots[None, :, 0]
    own, other = queries[:, None, 1].expand_as(distance), slots[None, :, 1].expand_as(distance)
    visible = (distance >= 0) & (distance < reach) & ((distance > 0) | (other <= own))
    back = distance.clamp(0, reach - 1)
    if across:
        return visible, ((back * n_layers + own) * n_layers + other)[None]
    return visible, torch.stack([back * n_layers + layer for layer in range(n_layers)])


class Scores(nn.Module):
    """One linear map per layer from a slot to its experts."""

    absent_LE: Tensor

    def __init__(self, layers: Sequence[LayerMeta], width: int) -> None:
        super().__init__()
        most = max(layer.n_experts for layer in layers)
        self.weight = nn.Parameter(torch.randn(len(layers), width, most) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(len(layers), most))
        absent = torch.arange(most) >= torch.tensor([layer.n_experts for layer in layers])[:, None]
        self.register_buffer("absent_LE", absent, persistent=False)

    def forward(self, x_NSLD: Tensor) -> Tensor:
        """[N, S, L, E]."""
        n, s, n_layers, width = x_NSLD.shape
        scores = torch.baddbmm(self.bias[:, None], x_NSLD.flatten(0, 1).transpose(0, 1), self.weight)
        return scores.masked_fill(self.absent_LE[:, None], NEVER).transpose(0, 1).reshape(n, s, n_layers, -1)


def build(spec: PredictorSpec, layers: Sequence[LayerMeta]) -> Predictor:
    """A predictor with weights drawn from the declared seed; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        return Predictor(spec, layers)


def loss_of(scores_TE: Tensor, ids_TK: Tensor, set_weight: float) -> Tensor:
    """Per slot, nats: -ln P(first) + set_weight x the mean over the other choices of -ln P(choice | not the first).

    The order of the other choices does not matter.
    """
    first = ids_TK[:, :1]
    loss = -scores_TE.log_softmax(dim=-1).gather(1, first)[:, 0]
    if ids_TK.shape[1] == 1 or not set_weight:
        return loss
    rest = scores_TE.scatter(1, first, NEVER).log_softmax(dim=-1).gather(1, ids_TK[:, 1:])
    return loss - set_weight * rest.mean(dim=1)


def scores_of(model: Predictor, slots_TLK: Tensor, blocks: Blocks, warm: int = 0) -> tuple[Tensor, Int]:
    """Scores [T, L, E] of the rows of a batch, and these rows; the first `warm` blocks are read for context only."""
    device = slots_TLK.device
    row_NS = torch.from_numpy(blocks.row_NS).to(device)
    scores_NSLE = model(slots_TLK[row_NS.clamp(min=0)], torch.from_numpy(blocks.previous_N).to(device))
    rows = blocks.row_NS[warm:]
    return scores_NSLE[warm:][row_NS[warm:] >= 0], rows[rows >= 0]


def guesses(scores_TLE: Tensor, n: int) -> Tensor:
    """The n experts of the largest scores, best first, ties to the lowest id [T, L, n]."""
    return scores_TLE.sort(dim=-1, descending=True, stable=True).indices[..., :n]
