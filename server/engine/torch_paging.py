"""Whether torch's own attention over a block table is there."""

import inspect
import logging

_LOG = logging.getLogger("overtone.attention")


def has_paging() -> bool:
    """Return whether the installed torch has attention over a block table."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    wanted = {"block_table", "seqused_k", "num_splits", "window_size", "enable_gqa"}
    return wanted <= inspect.signature(varlen_attn).parameters.keys()


def activate() -> bool:
    """Make torch use FlashAttention 3, if it is installed; without it there is no paging."""
    try:
        from torch.nn.attention import (
            activate_flash_attention_impl,
            current_flash_attention_impl,
        )

        if current_flash_attention_impl() != "FA3":
            activate_flash_attention_impl("FA3")
    except (ImportError, RuntimeError, ValueError) as error:
        _LOG.info("FlashAttention 3 is not installed (%s)", error)
        return False
    return True
