"""From logits to tokens on a CPU: compiled loops over one row after another.

A token's weight is exp((logit - largest logit) / temperature). What the settings rule out is cut in
the order of transformers' warpers: top_k, top_p, min_p, typical_p, each on what the one before has
left. A cut keeps the fewest tokens that reach its limit; of equal ones those with the lower ids.
The token is the first, by id, at which the sum of weights passes the row's random share of the
total. Time is linear in the vocabulary: limits are found by counting keys' leading bits.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

BLOCK = 512
#: Keys are read as 32 bits of numbers that are not negative, so many at a time.
_OFFSET, _MINUS_ZERO = 1 << 31, -(1 << 31)
_MANY, _BITS_OF_MANY, _BITS_OF_FEW = 4096, 11, 8
#: exp(z) = 2^k * exp(r), |r| <= ln(2) / 2: k is rounded by adding this number, in whose lowest bits
#: it then stands.
_ROUND = 1.5 * 2.0**52
_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
#: A weight below exp(-700) is zero.
_SMALLEST = -700.0
#: A lower temperature counts as this one, whose reciprocal is finite: one token is left.
_LOWEST_TEMPERATURE = 1e-30
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "boundscheck": False}


class Candidates(NamedTuple):
    """The tokens that are left of a row, in the order of ids, at the front of arrays `[V]`.

    Args:
        ids: the tokens.
        values: their logits.
        bits: the memory of `values` as integers.
        weights: their shares in the draw, of any total.
        keys: in the order in which tokens are kept, the largest first.
    """

    ids: NDArray[np.int32]
    values: NDArray[np.float32]
    bits: NDArray[np.int32]
    weights: NDArray[np.float64]
    keys: NDArray[np.int32]


class Powers(NamedTuple):
    """Two to the k of a block of exponents: the number with k in its lowest bits, and the power.

    Each with its memory as integers.
    """

    rounded: NDArray[np.float64]
    rounded_bits: NDArray[np.int64]
    power: NDArray[np.float64]
    power_bits: NDArray[np.int64]


@numba.njit(**_OPTIONS)
def find_finite(logits, finite):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Write for every row of logits whether all of it is finite."""
    for row in range(logits.shape[0]):
        bad = 0
        for i in range(logits.shape[1]):
            bad += (logits[row, i] - logits[row, i]) != 0.0  # NaN, for infinite ones too
        finite[row] = bad == 0


@numba.njit(**_OPTIONS)
def draw_rows(logits, bits, settings, room, tokens):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write a token for every row of logits; `bits` is their memory as integers."""
    for row in range(logits.shape[0]):
        largest = _largest(logits[row])
        if settings[row, 0] == 0.0 or largest - largest != 0.0:
            tokens[row] = _first(logits[row], largest)
        else:
            tokens[row] = _draw(logits[row], bits[row], np.float64(largest), settings[row], room)


@numba.njit(fastmath={"nnan", "nsz", "reassoc"}, **_OPTIONS)
def _largest(row):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    largest = np.float32(-np.inf)
    for i in range(row.shape[0]):
        largest = max(largest, row[i])
    return largest


@numba.njit(**_OPTIONS)
def _first(row, value):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    for i in range(row.shape[0]):
        if row[i] == value:
            return i
    return 0


@numba.njit(**_OPTIONS)
def _draw(row, bits, largest, settings, room):  # type: ignore[no-untyped-def]  # pragma: no cover
    left, powers = room
    temperature, top_k, top_p, min_p, typical_p, point = settings
    scale = 1.0 / max(temperature, _LOWEST_TEMPERATURE)
    size = row.shape[0]
    is_few = 0 < top_k < size
    if not (is_few or top_p < 1.0 or min_p > 0.0 or typical_p < 1.0):
        _weigh(row, largest, scale, left.weights, powers)
        return _pick(left.weights, size, point)
    count = _take_top(row, bits, top_k, left) if is_few else _take_all(row, left)
    _weigh(left.values[:count], largest, scale, left.weights, powers)
    if top_p < 1.0:
        for i in range(count):
            left.keys[i] = _key(left.bits[i])
        count = _keep_best(left, count, top_p * _sum(left.weights[:count]))
    if min_p > 0.0:
        count = _keep_likely(left, count, min_p)
    if typical_p < 1.0:
        total = _sum(left.weights[:count])
        _order_by_surprise(left, count, largest, scale, total)
        count = _keep_best(left, count, typical_p * total)
    return left.ids[_pick(left.weights, count, point)]


@numba.njit(**_OPTIONS)
def _take_all(row, left):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    for i in range(row.shape[0]):
        left.ids[i] = i
        left.values[i] = row[i]
    return row.shape[0]


@numba.njit(**_OPTIONS)
def _take_top(row, bits, top_k, left):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Take the largest values: first all of the leading bits that so many have, then of these."""
    for i in range(row.shape[0]):
        left.keys[i] = _key(bits[i])
    shift = _shift_after(32, row.shape[0])
    half = _OFFSET >> shift
    numbers = np.zeros(2 * half, np.int64)
    for i in range(row.shape[0]):
        numbers[(left.keys[i] >> shift) + half] += 1
    lowest, reached = 2 * half, 0
    while reached < top_k:
        lowest -= 1
        reached += numbers[lowest]
    count, smallest = 0, (lowest - half) << shift
    for i in range(row.shape[0]):
        if left.keys[i] >= smallest:
            left.ids[count] = i
            left.values[count] = row[i]
            left.keys[count] = left.keys[i]
            left.weights[count] = 1.0
            count += 1
    return _keep_best(left, count, top_k)


@numba.njit(**_OPTIONS)
def _keep_likely(left, count, min_p):  # type: ignore[no-untyped-def]  # pragma: no cover
    kept = 0
    for i in range(count):  # the likeliest one's weight is 1
        if left.weights[i] >= min_p:
            _move(left, i, kept)
            kept += 1
    return kept


@numba.njit(**_OPTIONS)
def _key(bits):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Return a float32's bits as an integer that is the larger, the larger the number is."""
    unsigned = 0 if bits == _MINUS_ZERO else bits
    return unsigned ^ ((unsigned >> 31) & 0x7FFFFFFF)


@numba.njit(**_OPTIONS)
def _order_by_surprise(left, count, largest, scale, total):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Give tokens larger keys the nearer their surprise is to the entropy, both in nats."""
    entropy, log_total = 0.0, np.log(total)
    for i in range(count):
        surprise = log_total - (np.float64(left.values[i]) - largest) * scale
        if left.weights[i] > 0.0:
            entropy += left.weights[i] / total * surprise
    for i in range(count):
        surprise = log_total - (np.float64(left.values[i]) - largest) * scale
        left.values[i] = abs(surprise - entropy) if left.weights[i] > 0.0 else np.inf
    for i in range(count):
        left.keys[i] = ~left.bits[i]


@numba.njit(**_OPTIONS)
def _keep_best(left, count, limit):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Keep the tokens with the largest keys until their weights reach the limit.

    Keys are read from their leading bits on. What lies below the bits at which the limit is reached
    is dropped each time, so that few tokens are left for the bits behind them.
    """
    above, prefix, width = 0.0, np.int64(0), 32
    bins = np.empty(1 << _BITS_OF_MANY, np.float64)
    while width > 0:
        shift = _shift_after(width, count)
        places = 1 << (width - shift)
        for place in range(places):
            bins[place] = 0.0
        for i in range(count):
            key = np.int64(left.keys[i]) + _OFFSET
            if key >> width == prefix:
                bins[(key >> shift) & (places - 1)] += left.weights[i]
        chosen, reached = 0, above
        for place in range(places - 1, -1, -1):
            if bins[place] > 0.0:
                chosen, above = place, reached
                reached += bins[place]
                if reached >= limit:
                    break
        prefix, width = prefix * places + chosen, shift
        count = _keep_from(left, count, (prefix << shift) - _OFFSET)
    return _keep_first(left, count, prefix - _OFFSET, limit - above)


@numba.njit(**_OPTIONS)
def _shift_after(width, count):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Return how many bits of `width` stay behind those that are read next."""
    return max(0, width - (_BITS_OF_MANY if count > _MANY else _BITS_OF_FEW))


@numba.njit(**_OPTIONS)
def _keep_from(left, count, smallest):  # type: ignore[no-untyped-def]  # pragma: no cover
    kept = 0
    for i in range(count):
        if left.keys[i] >= smallest:
            _move(left, i, kept)
            kept += 1
    return kept


@numba.njit(**_OPTIONS)
def _keep_first(left, count, smallest, limit):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Of the tokens with the smallest key, keep the first until their weights reach the limit."""
    kept, reached = 0, 0.0
    for i in range(count):
        if left.keys[i] == smallest:
            if reached >= limit:
                continue
            reached += left.weights[i]
        _move(left, i, kept)
        kept += 1
    return kept


@numba.njit(**_OPTIONS)
def _move(left, source, target):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    left.ids[target] = left.ids[source]
    left.values[target] = left.values[source]
    left.weights[target] = left.weights[source]
    left.keys[target] = left.keys[source]


@numba.njit(**_OPTIONS)
def _pick(weights, count, point):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Return the place at which the sum of weights passes `point` of the total."""
    blocks = -(-count // BLOCK)
    sums = np.empty(blocks, np.float64)
    total = 0.0
    for block in range(blocks):
        sums[block] = _sum(weights[block * BLOCK : min(count, (block + 1) * BLOCK)])
        total += sums[block]
    wanted = point * total
    block, passed = 0, 0.0  # rounding may leave no sum above: then the last block with a weight
    before = 0.0
    for i in range(blocks):
        if sums[i] > 0.0:
            block, passed = i, before
            before += sums[i]
            if before > wanted:
                break
    last = 0
    for i in range(block * BLOCK, min(count, (block + 1) * BLOCK)):
        if weights[i] > 0.0:
            last = i
            passed += weights[i]
            if passed > wanted:
                break
    return last


@numba.njit(**_OPTIONS)
def _weigh(values, largest, scale, weights, powers):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write exp((value - largest) * scale) of every value, to two units in the last place."""
    for start in range(0, values.shape[0], BLOCK):
        stop = min(values.shape[0], start + BLOCK)
        _expand(values[start:stop], largest, scale, weights[start:stop], powers.rounded)
        for i in range(stop - start):  # 2^k, by its exponent's bits
            powers.power_bits[i] = (powers.rounded_bits[i] + 1023) << 52
        for i in range(stop - start):
            weights[start + i] *= powers.power[i]


@numba.njit(fastmath={"contract"}, **_OPTIONS)
def _expand(values, largest, scale, terms, rounded):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write exp(r), by its series to r^13, and k as the lowest bits of `rounded`."""
    for i in range(values.shape[0]):
        exact = (np.float64(values[i]) - largest) * scale
        z = max(exact, _SMALLEST)
        rounded[i] = z * _LOG2_E + _ROUND
        k = rounded[i] - _ROUND
        r = (z - k * _LN2_HIGH) - k * _LN2_LOW
        term = 1.0 / 6227020800.0
        term = term * r + 1.0 / 479001600.0
        term = term * r + 1.0 / 39916800.0
        term = term * r + 1.0 / 3628800.0
        term = term * r + 1.0 / 362880.0
        term = term * r + 1.0 / 40320.0
        term = term * r + 1.0 / 5040.0
        term = term * r + 1.0 / 720.0
        term = term * r + 1.0 / 120.0
        term = term * r + 1.0 / 24.0
        term = term * r + 1.0 / 6.0
        term = term * r + 0.5
        term = term * r + 1.0
        term = term * r + 1.0
        terms[i] = term if exact > _SMALLEST else 0.0


@numba.njit(fastmath={"reassoc"}, **_OPTIONS)
def _sum(weights):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    total = 0.0
    for i in range(weights.shape[0]):
        total += weights[i]
    return total
