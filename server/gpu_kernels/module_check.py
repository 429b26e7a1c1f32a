"""Whether a kernel computes what a module of transformers does, on random rows."""

import logging
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

_LOG = logging.getLogger("overtone.kernels")
#: Roundings by which results may differ.
_ROUNDINGS = 4
_FAMILIES = ("Llama", "Mistral", "Mixtral", "Qwen2", "Qwen2Moe", "Qwen3", "Qwen3Moe", "Phi3")
#: Families of bases whose norms add one to their weight.
GEMMAS = ("Gemma", "Gemma2", "Gemma3")
#: Families of bases whose modules are known.
KNOWN = (*_FAMILIES, *GEMMAS)


def name_of(module: nn.Module) -> str:
    """Return the name of a module's class, if it is of transformers; else nothing."""
    kind = type(module)
    return kind.__name__ if kind.__module__.startswith("transformers.") else ""


def random(like: Tensor, *shape: int) -> Tensor:
    """Return random numbers of a tensor's type, on its device."""
    return torch.randn(*shape, device=like.device).to(like.dtype)


def agree(expected: Iterable[Tensor], by: Callable[[], Iterable[Tensor]], name: str) -> bool:
    """Return whether a call's results are the expected ones, but for roundings.

    Args:
        expected: of the module's own way.
        by: calls kernels, which may fail on this device.
        name: of the module, for the log.
    """
    try:
        pairs = list(zip(expected, by(), strict=True))
    except Exception as error:  # a compiler's and a driver's have no common type
        _LOG.info("no kernel for %s on this device (%s)", name, error)
        return False
    if all(_is_near(got, true) for true, got in pairs):
        return True
    _LOG.warning("the kernel for %s is not used: it computes something else", name)
    return False


def _is_near(got: Tensor, true: Tensor) -> bool:
    allowed = _ROUNDINGS * torch.finfo(true.dtype).eps * true.float().norm()
    return got.dtype == true.dtype and bool((got.float() - true.float()).norm() <= allowed)
