"""Fourier transforms of several rows at once, one row a lane, in one compiled loop.

    backward = False:  Z[k] = sum_j z[j] e^(-2 pi i j k / H);   True: e^(+2 pi i j k / H), unscaled

A library's transform has a plan to look up and code of its own to fetch: behind a matrix product
that has swept the caches, the transform of one row takes nine times what it takes warm. Here a
row lies in a lane of every vector (vectors.py), so that every step is one instruction for eight or
sixteen numbers whatever the step, and sizes with any small factors are alike. The order is
Stockham's (no reversal of bits): pass by pass, x[q + s (p + m k)] becomes y[q + s (r p + k)], r the
radix, n the length left, m = n / r, s the stride.
"""

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from adapters_core.kernels import simd8, simd16
from adapters_core.kernels.vectors import add, lanes_of, load_like, mul, splat_like, store, sub

#: Passes of larger ones read as many lines that lie in one set of the cache, and lose.
_RADICES = (2, 3, 5, 7)


@dataclass(frozen=True)
class LaneTransform:
    """The tables of one size and direction.

    Args:
        size: H.
        radices: int64, of the passes.
        turns: float32 `[2, ...]`, cosines and sines: pass by pass what the results are turned by.
        roots: float32 `[2, ...]`, pass by pass the radix' own roots of one.
    """

    size: int
    radices: Any
    turns: Any
    roots: Any

    @property
    def arrays(self) -> tuple[Any, Any, Any]:
        """Return what `lane_fft` reads."""
        return self.radices, self.turns, self.roots


def has_lane_transform(size: int) -> bool:
    """Return whether `size` has small factors alone."""
    return size >= 1 and math.prod(_factors(size)) == size


def lane_transform(size: int, backward: bool) -> LaneTransform:
    """Return the tables for a size that `has_lane_transform`."""
    radices = _factors(size)
    turns, roots, left = [], [], size
    for radix in radices:
        count = left // radix
        p, k = np.arange(count)[:, None], np.arange(1, radix)
        turns.append((p * k % left / left).reshape(-1))
        roots.append(np.arange(radix) / radix)
        left = count
    sign = 1 if backward else -1
    return LaneTransform(
        size, np.array(radices, dtype=np.int64), _waves(turns, sign), _waves(roots, sign)
    )


def _factors(size: int) -> list[int]:
    found = []
    while size % 4 == 0:
        found.append(4)
        size //= 4
    for prime in _RADICES:
        while size % prime == 0:
            found.append(prime)
            size //= prime
    return found


def _waves(turns: list[Any], sign: int) -> Any:
    """Return cosine and sine of parts of a turn, float32 `[2, ...]`, one pass after the other."""
    angle = sign * 2 * math.pi * np.concatenate([np.zeros(0), *turns])
    return np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32)


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _pass_4(  # type: ignore[no-untyped-def]
    x, y, z, w, count, width, cosines, sines, turned, like
):  # pragma: no cover - compiled
    """Read real and imaginary parts from x and y, write them to z and w."""
    step, across, lanes = np.uintp(count * width), np.uintp(width), lanes_of(like)
    sign = splat_like(like, turned)
    for p in range(count):
        a = np.uintp(p * width)
        b, c, d = a + step, a + step + step, a + step + step + step
        to = np.uintp(4 * p * width)
        c1, s1 = splat_like(like, cosines[3 * p]), splat_like(like, sines[3 * p])
        c2, s2 = splat_like(like, cosines[3 * p + 1]), splat_like(like, sines[3 * p + 1])
        c3, s3 = splat_like(like, cosines[3 * p + 2]), splat_like(like, sines[3 * p + 2])
        t = np.uintp(0)
        while t < across:
            ar, ai, br, bi = (
                load_like(like, x, a + t),
                load_like(like, y, a + t),
                load_like(like, x, b + t),
                load_like(like, y, b + t),
            )
            cr, ci, dr, di = (
                load_like(like, x, c + t),
                load_like(like, y, c + t),
                load_like(like, x, d + t),
                load_like(like, y, d + t),
            )
            er, ei, fr, fi = add(ar, cr), add(ai, ci), sub(ar, cr), sub(ai, ci)
            gr, gi = add(br, dr), add(bi, di)
            hr, hi = mul(sign, sub(di, bi)), mul(sign, sub(br, dr))
            store(z, to + t, add(er, gr))
            store(w, to + t, add(ei, gi))
            ur, ui, vr, vi = add(fr, hr), add(fi, hi), sub(er, gr), sub(ei, gi)
            qr, qi = sub(fr, hr), sub(fi, hi)
            at = to + across + t
            store(z, at, sub(mul(ur, c1), mul(ui, s1)))
            store(w, at, add(mul(ur, s1), mul(ui, c1)))
            store(z, at + across, sub(mul(vr, c2), mul(vi, s2)))
            store(w, at + across, add(mul(vr, s2), mul(vi, c2)))
            store(z, at + across + across, sub(mul(qr, c3), mul(qi, s3)))
            store(w, at + across + across, add(mul(qr, s3), mul(qi, c3)))
            t += lanes


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _pass_2(x, y, z, w, count, width, cosines, sines, like):  # type: ignore[no-untyped-def]
    step, across, lanes = (
        np.uintp(count * width),
        np.uintp(width),
        lanes_of(like),
    )  # pragma: no cover - compiled
    for p in range(count):
        c, s = splat_like(like, cosines[p]), splat_like(like, sines[p])
        a, to, t = np.uintp(p * width), np.uintp(2 * p * width), np.uintp(0)
        while t < across:
            ar, ai = load_like(like, x, a + t), load_like(like, y, a + t)
            br, bi = load_like(like, x, a + step + t), load_like(like, y, a + step + t)
            store(z, to + t, add(ar, br))
            store(w, to + t, add(ai, bi))
            ur, ui = sub(ar, br), sub(ai, bi)
            store(z, to + across + t, sub(mul(ur, c), mul(ui, s)))
            store(w, to + across + t, add(mul(ur, s), mul(ui, c)))
            t += lanes


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _pass_odd(  # type: ignore[no-untyped-def]
    x, y, z, w, radix, count, width, cosines, sines, roots_c, roots_s, like
):  # pragma: no cover - compiled
    """Results k and radix - k come from the same sums of entries j and radix - j."""
    step, across, lanes = np.uintp(count * width), np.uintp(width), lanes_of(like)
    for p in range(count):
        a, to, t = np.uintp(p * width), np.uintp(radix * p * width), np.uintp(0)
        turn_c, turn_s = cosines[(radix - 1) * p :], sines[(radix - 1) * p :]
        while t < across:
            first_r, first_i = load_like(like, x, a + t), load_like(like, y, a + t)
            all_r, all_i = first_r, first_i
            for j in range(1, radix):
                at = a + np.uintp(j) * step + t
                all_r, all_i = (
                    add(all_r, load_like(like, x, at)),
                    add(all_i, load_like(like, y, at)),
                )
            store(z, to + t, all_r)
            store(w, to + t, all_i)
            for k in range(1, radix // 2 + 1):
                even_r, even_i = first_r, first_i
                odd_r, odd_i = splat_like(like, np.float32(0)), splat_like(like, np.float32(0))
                root = 0  # j k modulo the radix
                for j in range(1, radix // 2 + 1):
                    root += k
                    if root >= radix:
                        root -= radix
                    c, s = (
                        splat_like(like, roots_c[np.uintp(root)]),
                        splat_like(like, roots_s[np.uintp(root)]),
                    )
                    one = a + np.uintp(j) * step + t
                    two = a + np.uintp(radix - j) * step + t
                    br, bi, dr, di = (
                        load_like(like, x, one),
                        load_like(like, y, one),
                        load_like(like, x, two),
                        load_like(like, y, two),
                    )
                    even_r = add(even_r, mul(c, add(br, dr)))
                    even_i = add(even_i, mul(c, add(bi, di)))
                    odd_r = add(odd_r, mul(s, sub(br, dr)))
                    odd_i = add(odd_i, mul(s, sub(bi, di)))
                for way in range(2):
                    if way == 0:
                        m, ur, ui = k, sub(even_r, odd_i), add(even_i, odd_r)
                    else:
                        m, ur, ui = radix - k, add(even_r, odd_i), sub(even_i, odd_r)
                    c, s = splat_like(like, turn_c[m - 1]), splat_like(like, turn_s[m - 1])
                    at = to + np.uintp(m) * across + t
                    store(z, at, sub(mul(ur, c), mul(ui, s)))
                    store(w, at, add(mul(ur, s), mul(ui, c)))
            t += lanes


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _pass(  # type: ignore[no-untyped-def]
    x, y, z, w, radix, count, width, cosines, sines, roots_c, roots_s, like
):  # pragma: no cover - compiled
    if radix == 4:
        _pass_4(x, y, z, w, count, width, cosines, sines, roots_s[1], like)
    elif radix == 2:
        _pass_2(x, y, z, w, count, width, cosines, sines, like)
    else:
        _pass_odd(x, y, z, w, radix, count, width, cosines, sines, roots_c, roots_s, like)


@numba.njit(cache=True, nogil=True, boundscheck=False)
def lane_fft(  # type: ignore[no-untyped-def]
    x, y, z, w, lanes, size, radices, turns, roots
):  # pragma: no cover - compiled
    """Transform real parts x and imaginary parts y, `[size * lanes]`, with z and w to work in.

    `lanes` is how many rows stand beside each other, a multiple of eight.

    Returns whether the result is in z and w, not in x and y.
    """
    left, stride, at, root = size, 1, 0, 0
    away = False
    for i in range(radices.shape[0]):
        radix = radices[i]
        count, width = left // radix, stride * lanes
        a, b, c, d = (z, w, x, y) if away else (x, y, z, w)
        given = turns[0, at:], turns[1, at:], roots[0, root:], roots[1, root:]
        if width % simd16.LANES == 0:
            _pass(a, b, c, d, radix, count, width, *given, simd16.splat(np.float32(0)))
        else:
            _pass(a, b, c, d, radix, count, width, *given, simd8.splat(np.float32(0)))
        at += count * (radix - 1)
        root += radix
        left, stride, away = count, stride * radix, not away
    return away
