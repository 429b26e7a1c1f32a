"""The base's own kernels: held against torch's way, timed, and at shapes of many bases."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters_core.gpu_kernels.running import Launch, listening, runs_on
from bench.lib.device_timing import in_turns
from server.engine.mask_patterns import MaskPattern
from server.engine.scoring import Scoring

_PAGE = 32
_META = torch.device("meta")
#: Sizes of norms, and of heads with the numbers of each that are rotated.
_NORMS = (128, 3072, 4096, 5120, 8192, 16384)
_ROTATIONS = ((64, 64), (80, 32), (96, 96), (128, 128), (256, 256))


@dataclass(frozen=True)
class Heads:
    """How a base attends."""

    heads: int
    kv_heads: int
    dim: int
    window: int = 0
    softcap: float | None = None
    has_sinks: bool = False


LLAMA = Heads(32, 8, 128)
BASES: Mapping[str, Heads] = {
    "llama": LLAMA,
    "gemma 2": Heads(16, 8, 256, window=4096, softcap=50.0),
    "gpt-oss": Heads(64, 8, 64, window=128, has_sinks=True),
    "phi 3": Heads(32, 32, 96, window=2047),
    "heads of 80": Heads(32, 32, 80),
    "one key head": Heads(71, 1, 64),
}


@dataclass(frozen=True)
class Attention:
    """Random queries over a cache whose pages stand in any order; half the sequences are long.

    Args:
        heads: of the base.
        q: `[N, heads, d]`.
        keys, values: `[cells, kv_heads, d]`.
        table: where each sequence's pages are.
        sinks: `[heads]`, if there are any.
    """

    heads: Heads
    q: Tensor
    keys: Tensor
    values: Tensor
    table: Any
    sinks: Tensor | None

    @classmethod
    def of(
        cls, heads: Heads, rows: int, num_pages: int, device: torch.device, dtype: torch.dtype
    ) -> "Attention":
        """Return random ones; a sequence has up to `num_pages` pages."""
        from server.gpu_kernels.paged_attention import BlockTable

        used = rows * num_pages
        pages = torch.randperm(used, device=device, dtype=torch.int32).view(rows, num_pages)
        lengths = torch.full((rows,), num_pages * _PAGE, dtype=torch.int32, device=device)
        lengths[1::2] = lengths[1::2] // 2 - 1
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        cells = (used * _PAGE, heads.kv_heads, heads.dim)
        return cls(
            heads,
            torch.randn(rows, heads.heads, heads.dim, **options),
            torch.randn(cells, **options),
            torch.randn(cells, **options),
            BlockTable(pages, lengths, _PAGE),
            torch.randn(heads.heads, **options) if heads.has_sinks else None,
        )

    def by_kernel(self) -> Tensor:
        """Return `[N, heads, d]`, each row over the keys of its own pages."""
        from server.gpu_kernels.paged_attention import Weighing, attend_pages

        heads = self.heads
        scale = heads.dim**-0.5
        weighing = Weighing(scale, heads.window, 0, heads.softcap, self.sinks)
        return attend_pages(self.q, self.keys, self.values, self.table, weighing)

    def gathered(self) -> Tensor:
        """Return the same by torch, padded to the longest sequence."""
        pages, lengths = self.table.pages.long(), self.table.lengths[:, None]
        cells = (pages[:, :, None] * _PAGE + torch.arange(_PAGE, device=pages.device)).flatten(1)
        pattern = MaskPattern(window=self.heads.window or None)
        other = torch.arange(cells.shape[1], device=pages.device)
        seen = pattern.mask(lengths - 1, other)[:, None, None]
        k, v = (x[cells].transpose(1, 2) for x in (self.keys, self.values))
        grouped = self.q.view(len(self.q), self.heads.kv_heads, -1, self.heads.dim)
        scoring = Scoring(None, pattern, self.heads.softcap, self.sinks)
        return scoring.weigh(grouped, k, v, seen).reshape(self.q.shape)

    def widened(self) -> "Attention":
        """Return the same numbers in float32."""
        sinks = None if self.sinks is None else self.sinks.float()
        wide = {name: getattr(self, name).float() for name in ("q", "keys", "values")}
        return replace(self, sinks=sinks, **wide)


def base_errors(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Return by how much kernels of the base differ from torch in float32, as shares of norms."""
    if not runs_on(device):
        return {"error": None}
    found: dict[str, Any] = {}
    for name, heads in BASES.items():
        made = Attention.of(heads, 2, 10, device, dtype)
        found[f"attention, {name}"] = _difference(made.by_kernel(), made.widened().gathered())
    return found | _row_errors(device, dtype)


def _row_errors(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    from server.gpu_kernels.rows import gated, normed, rotated

    x, y, weight = (torch.randn(*s, device=device).to(dtype) for s in ((9, 4096),) * 2 + ((4096,),))
    norm = F.rms_norm(x.float(), (4096,), weight.float(), 1e-5)
    q = x.view(1, 9, 32, 128).transpose(1, 2)
    angle = torch.randn(1, 9, 64, device=device)
    cos, sin = (torch.cat([one, one], dim=-1).to(dtype) for one in (angle.cos(), angle.sin()))
    left, right = q.float().chunk(2, dim=-1)
    turned = q.float() * cos.float() + torch.cat([-right, left], dim=-1) * sin.float()
    return {
        "norm": _difference(normed(x, weight, 1e-5, adds_one=False), norm),
        "rotation": _difference(rotated(q, q, cos, sin)[0], turned),
        "gate": _difference(gated(x, y, is_silu=True), F.silu(x.float()) * y.float()),
    }


def _difference(got: Tensor, true: Tensor) -> float:
    return float((got.float() - true).norm() / true.norm())


def attention_times(
    device: torch.device, dtype: torch.dtype, context: int, rounds: int
) -> dict[str, Any]:
    """Return milliseconds of one layer's attention of 32 rows at Llama 3.1 8B's shape."""
    if not runs_on(device):
        return {"error": None}
    made = Attention.of(LLAMA, 32, context // _PAGE, device, dtype)
    runs = {"kernel": partial(made.by_kernel), "gathered": partial(made.gathered)}
    taken = in_turns(runs, device, rounds, 5)
    read = 2 * LLAMA.kv_heads * LLAMA.dim * dtype.itemsize * int(made.table.lengths.sum())
    found = {f"{name} ms": 1e3 * (one.device or one.wall) for name, one in taken.items()}
    return found | {"TB/s": read / (1e9 * found["kernel ms"])}


def launches() -> list[Launch]:
    """Return launches of the base's kernels at shapes of many bases, in every type."""
    heard: list[Launch] = []
    with listening(heard.append), torch.inference_mode():
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            for heads in BASES.values():
                for num_pages in (8, 512, 4096):
                    Attention.of(heads, 2, num_pages, _META, dtype).by_kernel()
            _launch_rows(dtype)
    return heard


def _launch_rows(dtype: torch.dtype) -> None:
    from server.gpu_kernels.rows import gated, normed, rotated, stored

    empty = partial(torch.empty, device=_META, dtype=dtype)
    for size in _NORMS:
        for adds_one in (False, True):
            normed(empty(9, size), empty(size), 1e-5, adds_one)
    for dim, turned in _ROTATIONS:
        angles = empty(1, 9, turned)
        rotated(empty(1, 32, 9, dim), empty(1, 8, 9, dim), angles, angles)
        cells = torch.empty(9, dtype=torch.int64, device=_META)
        rows, cache = empty(9, 8, dim), empty(64, 8, dim)
        stored(rows, rows, cache, cache, cells)
    for is_silu in (True, False):
        gated(empty(9, 14336), empty(9, 14336), is_silu)
