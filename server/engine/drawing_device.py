"""From logits to tokens on a device: the same rule as drawing_loops.py, for all rows at once.

Rows are drawn in groups: those that need no order of their tokens, those that need the largest
logits, and those that need all of them sorted. Weights are in the order of ids in the end, so that
a random number takes the same token as on a CPU. No number is read back.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters_core.layers.uploads import copied
from server.engine.draw_settings import draw_settings
from server.scheduling.sequence import Sampling, TokenSequence


@dataclass(frozen=True)
class _Group:
    """Rows that are drawn together.

    Args:
        index: int64 `[B]`, which they are.
        logits: float32 `[B, V]`.
        temperature, top_k, top_p, min_p, typical_p, point: float64 `[B, 1]`; top_k is V where it
            is off.
        max_k: the largest top_k.
        has_typical: some row's typical_p is below 1.
    """

    index: Tensor
    logits: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    typical_p: Tensor
    point: Tensor
    max_k: int
    has_typical: bool

    @classmethod
    def of(cls, logits: Tensor, rows: list[int], sequences: list[TokenSequence]) -> "_Group":
        """Return the group of some rows of the logits of all sequences."""
        numbers, size = draw_settings([sequences[row] for row in rows]), logits.shape[1]
        top_k = numbers[:, 1]
        top_k[(top_k == 0) | (top_k > size)] = size
        given = [torch.tensor(rows), torch.from_numpy(numbers)]
        index, on_device = copied(given, logits.device)
        temperature, top_ks, top_p, min_p, typical_p, point = on_device.T[:, :, None]
        return cls(
            index,
            logits[index],
            temperature,
            top_ks,
            top_p,
            min_p,
            typical_p,
            point,
            max_k=int(top_k.max()),
            has_typical=bool((numbers[:, 4] < 1).any()),
        )


#: Returns the weights of a group's tokens, float64 `[B, V]`, zero for what is not drawn.
_Weigh = Callable[[_Group], Tensor]


def draw_on_device(logits: Tensor, sequences: list[TokenSequence]) -> Tensor:
    """Return a token for every row of logits; any token for a row with NaN or infinity in it.

    Args:
        logits: float32 `[B, V]`; minus infinity forbids a token.
        sequences: of the rows.

    Returns:
        int64 `[B]` on the logits' device.
    """
    likeliest = tokens = logits.argmax(dim=1)
    for weigh, rows in _groups(sequences, logits.shape[1]).items():
        group = _Group.of(logits, rows, sequences)
        drawn = _picked(weigh(group), group.point, likeliest[group.index])
        tokens = tokens.index_copy(0, group.index, drawn)
    return tokens


def _groups(sequences: list[TokenSequence], size: int) -> dict[_Weigh, list[int]]:
    """Return the rows that are drawn, by how their tokens are weighed."""
    groups: dict[_Weigh, list[int]] = {}
    for row, sequence in enumerate(sequences):
        if sequence.sampling.temperature:
            groups.setdefault(_weigh_of(sequence.sampling, size), []).append(row)
    return groups


def _weigh_of(sampling: Sampling, size: int) -> _Weigh:
    if sampling.top_p < 1 or sampling.typical_p < 1:
        return _weigh_sorted
    return _weigh_largest if 0 < sampling.top_k < size else _weigh_all


def _weigh_all(group: _Group) -> Tensor:
    """Weigh the tokens of min_p."""
    weights = _weights(group.logits, group)
    return weights * _are_likely(weights, group)


def _weigh_largest(group: _Group) -> Tensor:
    """Weigh the tokens of top_k and min_p; of equal logits the lower ids are kept."""
    logits, k = group.logits, group.top_k.long()
    smallest = torch.topk(logits, group.max_k, dim=1).values.gather(1, k - 1)
    above, equal = logits > smallest, logits == smallest
    kept = above | (equal & (equal.cumsum(1) <= k - above.sum(1, keepdim=True)))
    weights = _weights(logits, group)
    return weights * (kept & _are_likely(weights, group))


def _weigh_sorted(group: _Group) -> Tensor:
    """Weigh the tokens of top_k, top_p and min_p, then of typical_p."""
    values, order = group.logits.sort(dim=1, descending=True, stable=True)
    weights = _weights(values, group)
    ranks = torch.arange(values.shape[1], device=values.device)
    weights = weights * (ranks < group.top_k)
    weights = weights * (_are_within(weights, group.top_p) & _are_likely(weights, group))
    weights = torch.zeros_like(weights).scatter(1, order, weights)
    return _typical(weights, group.typical_p) if group.has_typical else weights


def _typical(weights: Tensor, typical_p: Tensor) -> Tensor:
    """Keep the tokens whose surprise is nearest to the entropy, in nats."""
    shares = weights / weights.sum(1, keepdim=True)
    surprises = -torch.log(shares)
    entropy = torch.where(shares > 0, shares * surprises, 0.0).sum(1, keepdim=True)
    distances = (surprises - entropy).abs().float()  # infinite for tokens that are not drawn
    order = distances.sort(dim=1, stable=True).indices
    nearest = weights.gather(1, order)
    return torch.zeros_like(weights).scatter(1, order, nearest * _are_within(nearest, typical_p))


def _weights(logits: Tensor, group: _Group) -> Tensor:
    """Return exp((logit - largest logit) / temperature), float64 `[B, V]`."""
    rows = logits.double()
    # The largest logit becomes zero, so that no temperature, however small, makes it infinite.
    return torch.exp((rows - rows.amax(1, keepdim=True)) / group.temperature)


def _are_likely(weights: Tensor, group: _Group) -> Tensor:
    """Return which tokens have min_p's share of the likeliest one's weight, which is 1."""
    return weights >= group.min_p


def _are_within(weights: Tensor, mass: Tensor) -> Tensor:
    """Return which tokens, in the order of the columns, are the first that have this mass."""
    passed = weights.cumsum(1)
    return (passed - weights < mass * passed[:, -1:]) | (mass >= 1)


def _picked(weights: Tensor, point: Tensor, likeliest: Tensor) -> Tensor:
    """Return int64 `[B]`: where the sum of weights passes the random share of the total.

    Sums in parallel may differ in the last bit from one token to the next, though the token between
    has no weight; the likeliest token is taken there.
    """
    passed = weights.cumsum(1)
    total = passed[:, -1:]
    wanted = torch.minimum(point * total, torch.nextafter(total, torch.zeros_like(total)))
    chosen = torch.searchsorted(passed, wanted, right=True).clamp(max=weights.shape[1] - 1)
    is_drawn = weights.gather(1, chosen) > 0
    return torch.where(is_drawn, chosen, likeliest[:, None])[:, 0]
