"""Keep freed memory in the process, so that the next tensor does not begin as fresh pages.

glibc gives memory back to the system as soon as some of it lies free at its end, and takes large
pieces from the system each time. A step's activations and a merge's blocks are freed and taken
again thousands of times a second; every page of them is then cleared anew.
"""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_KEPT_BYTES = 1 << 30
_LARGEST_BYTES = 32 << 20  # glibc takes no more


def keep_freed_memory() -> bool:
    """Tell the C library's allocator to keep up to 1 GiB; False where it cannot be told."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False  # macOS, musl
    return bool(mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)) and bool(
        mallopt(_MMAP_THRESHOLD, _LARGEST_BYTES)
    )
