"""The paged attention kernels, by Triton's interpreter, against float64 over each row's keys."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from adapters_core.gpu_kernels.running import Launch, listening

pytest.importorskip("triton")

from server.gpu_kernels.paged_attention import BlockTable, Weighing, attend_pages

META = torch.device("meta")


@dataclass(frozen=True)
class Case:
    """Sequences of random keys, in pages of any order, NaN in every cell that a row does not see.

    Args:
        lengths: of the sequences.
        heads, kv_heads, dim_k, dim_v: of q, keys and values.
        page_size, num_pages: of the table's rows.
    """

    lengths: tuple[int, ...] = (1, 31, 32, 33)
    heads: int = 4
    kv_heads: int = 2
    dim_k: int = 16
    dim_v: int = 16
    page_size: int = 32
    num_pages: int = 2
    weighing: Weighing = Weighing(scale=0.3)
    dtype: torch.dtype = torch.float32

    def first(self, length: int) -> int:
        """Return the first token that is seen."""
        window, chunk = self.weighing.window, self.weighing.chunk
        start = max(0, length - window) if window else 0
        return max(start, (length - 1) // chunk * chunk) if chunk and length else start

    def made(self) -> tuple[Tensor, Tensor, Tensor, BlockTable]:
        """Return q, keys, values and the table."""
        generator = torch.Generator().manual_seed(1)
        used = len(self.lengths) * self.num_pages
        pages = torch.randperm(used, generator=generator).view(-1, self.num_pages) + 1
        cells = (used + 1) * self.page_size
        q = torch.randn(len(self.lengths), self.heads, self.dim_k, generator=generator)
        keys = torch.full((cells, self.kv_heads, self.dim_k), torch.nan)
        values = torch.full((cells, self.kv_heads, self.dim_v), torch.nan)
        for row, length in enumerate(self.lengths):
            for i in range(self.first(length), length):
                cell = pages[row, i // self.page_size] * self.page_size + i % self.page_size
                keys[cell] = torch.randn(self.kv_heads, self.dim_k, generator=generator)
                values[cell] = torch.randn(self.kv_heads, self.dim_v, generator=generator)
            pages[row, -(-length // self.page_size) :] = 0
        table = BlockTable(pages.int(), torch.tensor(self.lengths).int(), self.page_size)
        return q.to(self.dtype), keys.to(self.dtype), values.to(self.dtype), table

    def exact(self, q: Tensor, keys: Tensor, values: Tensor, table: BlockTable) -> Tensor:
        """Return float64 `[N, heads, dim_v]`, a sum over each row's own keys."""
        out = torch.zeros(len(self.lengths), self.heads, self.dim_v, dtype=torch.float64)
        group = self.heads // self.kv_heads
        for row, length in enumerate(self.lengths):
            position = torch.arange(self.first(length), length)
            pages = table.pages[row, position // self.page_size].long()
            cell = pages * self.page_size + position % self.page_size
            for head in range(self.heads if length else 0):
                scores = keys[cell, head // group].double() @ q[row, head].double()
                weights = self._weights(scores * self.weighing.scale, head)
                out[row, head] = weights @ values[cell, head // group].double()
        return out

    def _weights(self, scores: Tensor, head: int) -> Tensor:
        cap, sinks = self.weighing.softcap, self.weighing.sinks
        if cap is not None:
            scores = cap * torch.tanh(scores / cap)
        if sinks is None:
            return scores.softmax(0)
        return torch.cat([scores, sinks[head : head + 1].double()]).softmax(0)[:-1]


SHORT = Case()
LONG = Case(lengths=(300, 256), heads=2, kv_heads=1, num_pages=10, weighing=Weighing(scale=0.5))
CASES = {
    "short": SHORT,
    "an empty one": replace(SHORT, lengths=(0, 40)),
    "no group": replace(SHORT, heads=2),
    "one key head, groups of two tiles": replace(SHORT, lengths=(33,), heads=18, kv_heads=1),
    "heads of 80 and 64": replace(SHORT, lengths=(40,), dim_k=80, dim_v=64),
    "heads of 5": replace(SHORT, dim_k=5, dim_v=5),
    "heads of 256": replace(SHORT, lengths=(64,), kv_heads=1, dim_k=256, dim_v=256),
    "pages of 16": replace(SHORT, page_size=16, num_pages=4, lengths=(1, 16, 17, 50)),
    "window": replace(SHORT, weighing=Weighing(scale=0.3, window=7)),
    "window of one": replace(SHORT, weighing=Weighing(scale=0.3, window=1)),
    "chunk": replace(SHORT, lengths=(13, 14, 27), weighing=Weighing(scale=0.3, chunk=13)),
    "cap": replace(SHORT, weighing=Weighing(scale=4.0, softcap=2.0)),
    "cap far beyond": replace(SHORT, weighing=Weighing(scale=1e3, softcap=2.0)),
    "sinks": replace(SHORT, weighing=Weighing(scale=0.3, sinks=torch.linspace(-2, 4, 4))),
    "long": LONG,
    "long, empty": replace(LONG, lengths=(0, 260)),
    "long, window": replace(LONG, weighing=Weighing(scale=0.5, window=20)),
    "long, wide window": replace(LONG, weighing=Weighing(scale=0.5, window=290)),
    "long, chunk": replace(LONG, weighing=Weighing(scale=0.5, chunk=256)),
    "long, sinks, cap": replace(
        LONG, weighing=Weighing(scale=0.5, softcap=3.0, sinks=torch.linspace(-2, 4, 2))
    ),
    "three splits": replace(LONG, lengths=(600, 513, 3), num_pages=20),
    "twenty splits": replace(LONG, lengths=(4700,), num_pages=160),
}
#: More splits than are added up at a time take the interpreter seconds.
PARAMS = [
    pytest.param(case, marks=pytest.mark.slow) if name == "twenty splits" else case
    for name, case in CASES.items()
]
#: Of float32's products, sums of as many terms as there are keys, and one division.
TOLERANCE = 32 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("case", PARAMS, ids=CASES)
def test_each_row_gets_its_own_keys(case: Case) -> None:
    q, keys, values, table = case.made()
    got = attend_pages(q, keys, values, table, case.weighing)
    assert got.shape == (len(case.lengths), case.heads, case.dim_v)
    exact = case.exact(q, keys, values, table)
    assert (got - exact).abs().max() <= TOLERANCE * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", [SHORT, LONG], ids=["short", "long"])
def test_half_precision_is_read_and_written(case: Case, dtype: torch.dtype) -> None:
    case = replace(case, dtype=dtype)
    q, keys, values, table = case.made()
    got = attend_pages(q, keys, values, table, case.weighing)
    exact = case.exact(q, keys, values, table)
    assert got.dtype == dtype
    # Weights and results are cut off to eight or eleven bits.
    assert (got - exact).abs().max() <= 2 * torch.finfo(dtype).eps * exact.abs().max()


def test_q_may_be_a_view() -> None:
    q, keys, values, table = SHORT.made()
    expected = attend_pages(q, keys, values, table, SHORT.weighing)
    across = q.transpose(0, 1).contiguous().transpose(0, 1)
    assert not across.is_contiguous()
    assert torch.equal(attend_pages(across, keys, values, table, SHORT.weighing), expected)
    strided = torch.stack([q, q], dim=3)[..., 0]
    assert torch.equal(attend_pages(strided, keys, values, table, SHORT.weighing), expected)


def test_a_rows_bits_do_not_follow_from_others_nor_from_the_tables_width() -> None:
    case = replace(LONG, lengths=(200, 300, 1), num_pages=10)
    q, keys, values, table = case.made()
    together = attend_pages(q, keys, values, table, case.weighing)
    for row, num_pages in ((0, 7), (0, 32), (1, 10), (2, 1)):
        pages = torch.nn.functional.pad(table.pages[row : row + 1], (0, 32))[:, :num_pages]
        own = BlockTable(pages.contiguous(), table.lengths[row : row + 1], case.page_size)
        alone = attend_pages(q[row : row + 1], keys, values, own, case.weighing)
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize(
    ("num_pages", "size", "splits"),
    [(1, 256, 1), (8, 256, 1), (9, 256, 2), (16, 256, 2), (512, 256, 64), (513, 512, 33)],
)
def test_splits_follow_from_the_tables_width(num_pages: int, size: int, splits: int) -> None:
    pages = torch.zeros(3, num_pages, dtype=torch.int32, device=META)
    table = BlockTable(pages, pages[:, 0], 32)
    assert (table.split_size, table.num_splits) == (size, splits)


@pytest.mark.parametrize(("num_pages", "launches"), [(8, 1), (16, 2)])
def test_launches_read_what_the_pages_hold(num_pages: int, launches: int) -> None:
    """At Llama 3.1 8B's shape, 32 rows: keys and values once, and no copy of them."""
    q = torch.empty(32, 32, 128, dtype=torch.bfloat16, device=META)
    cells = torch.empty(1 << 16, 8, 128, dtype=torch.bfloat16, device=META)
    pages = torch.zeros(32, num_pages, dtype=torch.int32, device=META)
    heard: list[Launch] = []
    with listening(heard.append):
        attend_pages(q, cells, cells, BlockTable(pages, pages[:, 0], 32), Weighing(scale=0.1))
    assert len(heard) == launches
    read = 32 * num_pages * 32 * 2 * 8 * 128 * 2
    assert read <= sum(one.num_bytes for one in heard) <= 1.1 * read
