"""What kernels read of a bank's rows in either precision (contract/half_rows.py)."""

import triton
import triton.language as tl


@triton.jit
def unit(bank, row, width):
    """Return what the numbers of a bank's row, of `width` numbers, are multiplied by."""
    if bank.dtype.element_ty == tl.float16:
        return tl.exp2(tl.load(row + width - 1).to(tl.float32))
    return 1.0
