"""Attention on a device: static tensors hold the layout, so that a step can be replayed.

The cache and the attention are those of a CPU (attention.py); the results' last bits differ.
Single tokens of all sequences go in one call, over a block table `[R, P]` and the lengths `[R]`,
both on the device: no number is read back from the device. Three implementations:

- `varlen_attn` of torch reads the pages where they lie. Its paging needs FlashAttention 3 (the
  package flash_attn_interface, on Hopper).
- A kernel of ours does (gpu_kernels/decode_attention.py), for single tokens.
- Everywhere else the keys are gathered and go through `scaled_dot_product_attention`, padded to the
  longest sequence. The other two are compared with it at start.

Masked keys are read from a page of zeros that is never written: zero times what an earlier sequence
left in a page might be NaN.
"""

import logging
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from adapters_core.gpu_kernels.running import runs_on
from server.engine.attention import PagedCache, StepLayout
from server.engine.device_layout import DeviceLayout
from server.engine.mask_patterns import MaskPattern
from server.engine.scoring import Scoring
from server.engine.step_numbers import StepNumbers
from server.engine.torch_paging import activate, has_paging

_LOG = logging.getLogger("overtone.attention")
_PROBE_TOLERANCE = 0.02
#: Keys of the longest text of a comparison: two splits of the kernel.
_PROBE_KEYS = 512


#: (rows `[T, heads, d]`, keys, values, layout, scoring) -> `[R, heads, d]` of the single rows.
Way = Callable[[Tensor, Tensor, Tensor, DeviceLayout, Scoring], Tensor]


class DeviceCache(PagedCache):
    """Keys and values of all layers, on a device, behind the same interface.

    Args:
        num_pages, page_size: of the cache.
        deterministic: never split a row's keys among thread blocks: the split depends on the
            longest sequence of a batch.
    """

    def __init__(self, num_pages: int, page_size: int, deterministic: bool = False) -> None:
        super().__init__(num_pages, page_size)
        self.on_device: DeviceLayout | None = None
        self._num_splits = 1 if deterministic else None
        self._reads_pages: bool | None = None
        #: Heads and ways of scoring -> whether our kernel is right for them.
        self._has_kernel: dict[Hashable, bool] = {}

    @property
    def zero_page(self) -> int:
        """Return the page behind all others; it is never written."""
        return self.num_pages + 1

    def begin(self, layout: StepLayout) -> None:
        """Copy a step's layout from the host to the device."""
        spans, device = layout.decode + layout.prefill, layout.write.device
        most = max((len(span.pages) for span in spans), default=1)
        table = [[*span.pages, *[0] * (most - len(span.pages))] for span in spans]
        starts = [span.first for span in spans]
        starts.append(spans[-1].first + spans[-1].count if spans else 0)

        numbers = StepNumbers(device)
        self.layout = layout
        self.on_device = DeviceLayout(
            write=layout.write,
            pages=numbers.put(table, torch.int32).view(-1, most),
            lengths=numbers.put([span.length for span in spans], torch.int32),
            starts=numbers.put(starts, torch.int32),
            num_single=len(layout.decode),
            spans=layout.prefill,
            is_long=layout.is_long,
        )
        numbers.send()

    def is_long(self) -> Tensor | None:
        """Return the step's rows of texts beyond the border of rotations, bool `[1, T]`."""
        return None if self.on_device is None else self.on_device.is_long

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
        """Return `[1, T, heads, head_dim]` for q `[1, heads, T, d]`, k and v `[1, kv_heads, T, d]`.

        Keys and values of the step's rows are in the cache afterwards.
        """
        layout = self.on_device
        assert layout is not None, "the engine sets the layout before the forward pass"
        keys, values = self._stored(layer, k, v)
        rows = q[0].transpose(0, 1)  # [T, heads, d]
        is_ours = self._runs(rows, keys, values, scoring)
        self._store((keys, values), (k[0].transpose(0, 1), v[0].transpose(0, 1)), is_ours)
        if self._reads_pages is None:
            self._reads_pages = self._probe(rows, keys, values)
        if self._reads_pages and scoring.is_plain and scoring.pattern.chunk is None:
            return self._paged(rows, keys, values, layout, scoring).unsqueeze(0)
        single = self._by_kernel if is_ours else self._gathered
        if layout.num_single == len(rows):
            return single(rows, keys, values, layout, scoring).unsqueeze(0)
        out = rows.new_zeros(*rows.shape[:2], v.shape[3])
        if layout.num_single:
            out[: layout.num_single] = single(rows, keys, values, layout, scoring)
        for number, span in enumerate(layout.spans, layout.num_single):
            own = slice(span.first, span.first + span.count)
            out[own] = self._prompt(rows[own], keys, values, number, layout, scoring)
        return out.unsqueeze(0)

    def _store(
        self, cells: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], is_ours: bool
    ) -> None:
        """Write the step's rows `[T, kv_heads, d]` of keys and values into their cells."""
        assert self.on_device is not None
        if is_ours:
            from server.gpu_kernels.rows import stored

            stored(*new, *cells, self.on_device.write)
            return
        for kept, rows in zip(cells, new, strict=True):
            kept.index_copy_(0, self.on_device.write, rows)

    def _num_cells(self) -> int:
        return (self.zero_page + 1) * self.page_size

    def _gathered(
        self,
        rows: Tensor,
        keys: Tensor,
        values: Tensor,
        layout: DeviceLayout,
        scoring: Scoring,
    ) -> Tensor:
        """Return `[R, heads, d]` of the single rows over their gathered keys."""
        count, heads, kv_heads = layout.num_single, rows.shape[1], keys.shape[1]
        pattern = scoring.pattern
        if pattern not in layout.seen:
            layout.seen[pattern] = self._seen_by_single(layout, pattern)
        cells, mask = layout.seen[pattern]
        grouped = rows[:count].reshape(count, kv_heads, heads // kv_heads, rows.shape[2])
        k, v = keys[cells].transpose(1, 2), values[cells].transpose(1, 2)  # [R, kv_heads, K, d]
        out = scoring.weigh(grouped, k, v, mask)
        return out.reshape(count, heads, -1)

    def _seen_by_single(self, layout: DeviceLayout, pattern: MaskPattern) -> tuple[Tensor, Tensor]:
        """Return the cells `[R, K]` that the single rows read and which of them they see."""
        pages = layout.pages[: layout.num_single].long()
        lengths = layout.lengths[: layout.num_single, None]
        other = torch.arange(pages.shape[1] * self.page_size, device=pages.device)
        seen = pattern.mask(lengths - 1, other)
        offsets = torch.arange(self.page_size, device=pages.device)
        cells = (pages[:, :, None] * self.page_size + offsets).flatten(1)
        zero = self.zero_page * self.page_size
        return torch.where(seen, cells, zero), seen[:, None, None, :]

    def _prompt(
        self,
        rows: Tensor,
        keys: Tensor,
        values: Tensor,
        number: int,
        layout: DeviceLayout,
        scoring: Scoring,
    ) -> Tensor:
        """Return `[count, heads, d]` of a piece of a prompt, sequence `number` of the step."""
        span = layout.spans[number - layout.num_single]
        num_pages = -(-span.length // self.page_size)
        pages = layout.pages[number, :num_pages].long()
        offsets = torch.arange(self.page_size, device=pages.device)
        cells = (pages[:, None] * self.page_size + offsets).flatten()[: span.length]
        groups = rows.shape[1] // keys.shape[1]
        k = keys[cells].transpose(0, 1).repeat_interleave(groups, dim=0)  # [heads, K, d]
        v = values[cells].transpose(0, 1).repeat_interleave(groups, dim=0)
        own = torch.arange(span.position, span.length, device=rows.device)[:, None]
        other = torch.arange(span.length, device=rows.device)
        queries = rows.transpose(0, 1)
        out = scoring.weigh(queries[None], k[None], v[None], scoring.pattern.mask(own, other))
        return out[0].transpose(0, 1)

    def _paged(
        self,
        rows: Tensor,
        keys: Tensor,
        values: Tensor,
        layout: DeviceLayout,
        scoring: Scoring,
    ) -> Tensor:
        """Return `[T, heads, d]` of all rows by torch's kernel, which reads the pages in place."""
        from torch.nn.attention.varlen import varlen_attn

        window = scoring.pattern.window
        paged = (-1, self.page_size, *keys.shape[1:])
        out = varlen_attn(
            rows.contiguous(),
            keys.view(paged),
            values.view(paged),
            layout.starts,
            None,
            layout.longest_piece,
            layout.pages.shape[1] * self.page_size,
            scale=scoring.scale,
            window_size=(window - 1 if window else -1, 0),
            enable_gqa=True,
            seqused_k=layout.lengths,
            block_table=layout.pages,
            num_splits=self._num_splits,
        )
        assert isinstance(out, Tensor)
        return out

    def _by_kernel(
        self,
        rows: Tensor,
        keys: Tensor,
        values: Tensor,
        layout: DeviceLayout,
        scoring: Scoring,
    ) -> Tensor:
        """Return `[R, heads, d]` of the single rows by our kernel, which reads their pages only."""
        from server.gpu_kernels.paged_attention import BlockTable, Weighing, attend_pages

        single = slice(layout.num_single)
        table = BlockTable(layout.pages[single], layout.lengths[single], self.page_size)
        weighing = Weighing(
            scale=scoring.scale or rows.shape[2] ** -0.5,
            window=scoring.pattern.window or 0,
            chunk=scoring.pattern.chunk or 0,
            softcap=scoring.softcap,
            sinks=scoring.sinks,
        )
        return attend_pages(rows[single], keys, values, table, weighing)

    def _probe(self, rows: Tensor, keys: Tensor, values: Tensor) -> bool:
        """Return whether torch's paged kernel is installed and right for these heads."""
        if rows.device.type != "cuda" or not has_paging() or not activate():
            return False
        return self._agrees(self._paged, rows, keys, values, Scoring())

    def _runs(self, rows: Tensor, keys: Tensor, values: Tensor, scoring: Scoring) -> bool:
        """Return whether our kernel runs here and is right for these heads and this scoring."""
        heads = (rows.shape[1:], keys.shape[1:], values.shape[1:], rows.dtype)
        kind = (*heads, scoring.pattern, scoring.softcap, scoring.sinks is None)
        if kind not in self._has_kernel:
            self._has_kernel[kind] = self._is_right(rows, keys, values, scoring)
        return self._has_kernel[kind]

    def _is_right(self, rows: Tensor, keys: Tensor, values: Tensor, scoring: Scoring) -> bool:
        if not runs_on(rows.device):
            return False
        from server.gpu_kernels.paged_attention import takes

        if not takes(rows, keys, values):
            return False
        # Without values there is nothing to compare.
        return rows.is_meta or self._agrees(self._by_kernel, rows, keys, values, scoring)

    @torch.inference_mode()
    def _agrees(
        self, way: Way, rows: Tensor, keys: Tensor, values: Tensor, scoring: Scoring
    ) -> bool:
        """Return whether a way gives what gathered keys do, and reads nothing else."""
        device, size = rows.device, self.page_size
        most = max(2, _PROBE_KEYS // size)
        table = [[2, 1, *[0] * (most - 2)], [3, *[0] * (most - 1)], [*range(most + 3, 3, -1)]]
        pages = torch.tensor(table, dtype=torch.int32, device=device)
        lengths = torch.tensor([size + 5, 3, most * size - 2], dtype=torch.int32, device=device)
        starts = torch.arange(4, dtype=torch.int32, device=device)
        layout = DeviceLayout(pages.flatten(), pages, lengths, starts, num_single=3)
        small = DeviceCache(most + 3, size)
        cells, mask = small._seen_by_single(layout, scoring.pattern)
        k, v = (
            one.new_full((small._num_cells(), *one.shape[1:]), torch.nan) for one in (keys, values)
        )
        for cache in (k, v):
            cache[cells[mask[:, 0, 0]]] = torch.randn_like(cache[cells[mask[:, 0, 0]]])
            cache[small.zero_page * size :] = 0
        given = torch.randn(3, *rows.shape[1:], device=device).to(rows.dtype)
        true = small._gathered(given, k, v, layout, scoring)
        try:
            got = way(given, k, v, layout, scoring)
        except Exception as error:  # a compiler's and a driver's have no common type
            _LOG.info("%s does not run on this device (%s)", way.__name__, error)
            return False
        return bool((got - true).float().norm() <= _PROBE_TOLERANCE * true.float().norm())
