"""Launches of the kernels that merge: one for each layer, from golden to merged in one pass."""

from collections.abc import Sequence

from torch import Tensor

from adapters_core.gpu_kernels.merge_plans import SIDE, AtomTiles, SpectralTerms
from adapters_core.gpu_kernels.outer_merge import add_atoms, add_product
from adapters_core.gpu_kernels.running import launch
from adapters_core.gpu_kernels.spectral_merge import add_spectrum

#: Outer products that a program multiplies at a time.
_AT_ONCE = 16


def merge_spectra(
    terms: SpectralTerms, values: Tensor, golden: Sequence[Tensor], out: Sequence[Tensor]
) -> None:
    """Write golden plus spectral updates of several layers.

    Args:
        terms: of the layers.
        values: float32 `[L, n]`, half of what each coefficient adds, once for both of its terms.
        golden: the layers' weights `[M, N]`.
        out: where the sums go.
    """
    line, num_layers = terms.line, len(values)
    rows, cols, steps, starts, source = (
        tensor.expand(num_layers, *tensor.shape[1:])
        for tensor in (terms.rows, terms.cols, terms.steps, terms.starts, terms.source)
    )
    ordered = values.gather(1, source)
    for number, (weight, merged) in enumerate(zip(golden, out, strict=True)):
        num_rows = weight.shape[0]
        num_pairs = -(-num_rows // 2) if line.is_cosine else num_rows // 4 + 1
        read = (ordered, rows, cols, steps, starts)
        launch(
            add_spectrum,
            (line.parts, num_pairs),
            weight.nbytes + merged.nbytes + sum(tensor[number].nbytes for tensor in read),
            golden=weight,
            out=merged,
            values=ordered[number],
            rows=rows[number],
            cols=cols[number],
            steps=steps[number],
            starts=starts[number],
            tables=line.tables,
            roots=line.roots,
            row_roots=terms.row_roots,
            num_rows=num_rows,
            **_strides(weight, merged),
            SIZE=line.size,
            PARTS=line.parts,
            A=line.rows,
            B=line.cols,
            IS_COSINE=line.is_cosine,
            BY_DOTS=line.by_dots,
            num_warps=8 if line.part_size >= 1024 else 4,
        )


def merge_product(up: Tensor, down: Tensor, scale: float, golden: Tensor, out: Tensor) -> None:
    """Write golden plus `scale * up @ down`, of up `[M, r]` and down `[r, N]`."""
    up, down = up.contiguous(), down.contiguous()
    rows, cols = 64, 128
    launch(
        add_product,
        (-(-out.shape[1] // cols), -(-out.shape[0] // rows)),
        golden.nbytes + out.nbytes + up.nbytes + down.nbytes,
        golden=golden,
        out=out,
        up=up,
        down=down,
        scale=scale,
        num_rows=out.shape[0],
        num_cols=out.shape[1],
        **_strides(golden, out),
        RANK=up.shape[1],
        ROWS=rows,
        COLS=cols,
        BLOCK=_AT_ONCE,
        num_warps=8,
    )


def merge_atoms(tiles: AtomTiles, values: Tensor, golden: Tensor, out: Tensor) -> None:
    """Write golden plus the atoms times values, float32 `[n]`."""
    launch(
        add_atoms,
        (-(-out.shape[1] // SIDE), -(-out.shape[0] // SIDE)),
        golden.nbytes + out.nbytes + values.nbytes + tiles.nbytes,
        golden=golden,
        out=out,
        values=values.contiguous(),
        members=tiles.members,
        starts=tiles.starts,
        row_atoms=tiles.row_atoms,
        col_atoms=tiles.col_atoms,
        filters=tiles.filters,
        num_rows=out.shape[0],
        num_cols=out.shape[1],
        **_strides(golden, out),
        SIDE=SIDE,
        BLOCK=_AT_ONCE,
    )


def _strides(golden: Tensor, out: Tensor) -> dict[str, int]:
    golden_row, golden_col = golden.stride()
    out_row, out_col = out.stride()
    return {
        "golden_row": golden_row,
        "golden_col": golden_col,
        "out_row": out_row,
        "out_col": out_col,
    }
