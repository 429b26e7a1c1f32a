"""What the linears of a model see in a forward pass; the probes of each kind of base look at it."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

#: Path -> one number for every row, call by call.
Seen = dict[str, list[Tensor]]


@torch.inference_mode()
def rows_seen(
    model: nn.Module, linears: Mapping[str, nn.Module], inputs: Mapping[str, Any]
) -> Seen:
    """Return what each linear saw in one forward pass, a random projection of every row.

    Args:
        model: runs on the inputs.
        linears: of it, by path.
        inputs: by the names of its arguments.
    """
    seen: defaultdict[str, list[Tensor]] = defaultdict(list)
    hooks = []

    def watch(path: str, module: nn.Module) -> None:
        def look(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            if not args:  # called by names: what it saw is not known
                return
            x = args[0].reshape(-1, args[0].shape[-1]).float()
            direction = torch.randn(x.shape[-1], generator=torch.Generator().manual_seed(0))
            seen[path].append((x @ direction.to(x.device)).cpu())

        hooks.append(module.register_forward_pre_hook(look))

    for path, module in linears.items():
        watch(path, module)
    try:
        model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return seen
