"""AdamW over the tensors that a job trains."""

import torch
from torch import Tensor

from trainer.training.presets import Rates
from trainer.training.trainable import Tracked


def optimizer_of(tracked: list[Tracked], rates: Rates, decay: float) -> torch.optim.AdamW:
    """Return AdamW with one group for each role and rate; learned positions do not decay.

    A group's `peak` is its largest rate.
    """
    groups: dict[tuple[str, float], list[Tensor]] = {}
    for one in tracked:
        groups.setdefault((one.role, one.rate), []).append(one.tensor)
    return torch.optim.AdamW(
        [
            {
                "params": tensors,
                "peak": rates.of(role) * rate,
                "weight_decay": 0.0 if role == "positions" else decay,
            }
            for (role, rate), tensors in groups.items()
        ],
        lr=rates.coefficients,
    )
