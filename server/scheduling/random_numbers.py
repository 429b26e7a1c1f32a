"""The random numbers of sequences: each follows from a seed and its position alone.

There is no state: a step that is repeated, and a sequence that is computed again, have the numbers
that they had. Hashes are the same on every machine and in every version of Python, and those of
different seeds have nothing in common.
"""

from hashlib import blake2b

#: A float64 in [0, 1) has this many bits behind the point.
_BITS = 53


def seed_of_choice(seed: int, choice: int) -> int:
    """Return the seed of one choice of a request, 63 bits; other seeds' choices have others."""
    return _hashed(b"choice", seed, choice) >> 1


def uniform(seed: int, position: int) -> float:
    """Return the number at `position` of a seed's, uniform in [0, 1)."""
    return (_hashed(b"number", seed, position) >> (64 - _BITS)) * 2.0**-_BITS


def _hashed(kind: bytes, seed: int, position: int) -> int:
    """Return 64 bits."""
    text = b"%b %d %d" % (kind, seed, position)
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
