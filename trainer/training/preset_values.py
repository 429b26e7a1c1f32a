"""The presets as a table: each method's values where a job does not give any.

A pure table; presets.py reads it and scales it to a base. Rates and scales were found in short runs
on texts (MiniLM, 384 wide) and checked on pictures (64 wide) and on language (128 wide);
docs/training.md has the results.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters_core.contract.layer import Shape


@dataclass(frozen=True)
class Preset:
    """One method's settings.

    Args:
        rate: AdamW's peak, of coefficients.
        config: fields of adapter_config.json that differ from the method's own defaults.
        head_rate: of a head beside the coefficients.
        positions_rate: of learned positions.
        step: rate times the norm of one atom, where coefficients are few; None if the scale does
            not depend on the base.
        few: the coefficients of all layers together that count as few; beyond them `step` is
            smaller, or `most` where there is no step. None if neither depends on their number.
        scale: the config's field to which an atom's norm is proportional.
        atom: shape -> the norm of one atom at scale 1.
        most: the largest update of a step where coefficients are few, as a share of the weight's
            spectral norm.
    """

    rate: float
    config: Mapping[str, Any] = field(default_factory=dict)
    head_rate: float = 5e-3
    positions_rate: float = 1e-4
    step: float | None = None
    few: int | None = None
    scale: str = "scaling"
    atom: Callable[[Shape], float] = lambda shape: 1.0
    most: float = 0.5

    def step_on(self, shape: Shape, counts: Sequence[int]) -> float | None:
        """Return the step; it decreases with many coefficients.

        All of them move at once with independent signs, and change a layer's weight by a spectral
        norm of about step times sqrt(count / width), and all weights together by a Frobenius norm
        of step times sqrt(sum of counts). Beyond two coefficients a row, and beyond `few` in all,
        these norms are kept constant.

        Args:
            shape: of the largest layer.
            counts: the coefficients of each layer.
        """
        if self.step is None or self.few is None:
            return self.step
        crowded, many = 2 * min(shape) / max(counts), self.few / sum(counts)
        return self.step * math.sqrt(min(1.0, crowded, many))

    def most_on(self, count: int) -> float:
        """Return the largest update of a step; without a step of its own it decreases with many.

        A step moves all coefficients by the same amount, and lowers the loss by about that times
        the sum of the gradient's absolute values. The sum increases with the number of
        coefficients, the update's norm with its root alone. So a bound on the norm lets many
        coefficients lower the loss by too much at once, and decreases with that root as well.

        Args:
            count: the coefficients of all layers.
        """
        if self.step is not None or self.few is None:
            return self.most
        return self.most * math.sqrt(min(1.0, self.few / count))


def fourier_atom(shape: Shape) -> float:
    """Return the norm of the cosine that one Fourier coefficient adds, at scale 1."""
    return 1 / math.sqrt(2 * shape.out * shape.in_)


PRESETS: Mapping[str, Preset] = {
    "fourierft": Preset(5e-2, {"n_frequency": 1000}, step=5e-2, few=19_000, atom=fourier_atom),
    "waveletft": Preset(3e-3, {"n_frequency": 1000}, step=7e-2),
    "loca": Preset(5e-2, {"n_frequency": 1000}, step=5e-2),
    "frod": Preset(2e-2, {"sparse_rate": 0.01}, few=60_000, most=0.25),
    "clora": Preset(2e-2),
    "lora": Preset(5e-3, {"r": 8, "lora_alpha": 16.0}),
    "dora": Preset(3e-3, {"r": 8, "lora_alpha": 16.0}),
    "vera": Preset(6e-2),
    "tinylora": Preset(6e-3),
    "c3a": Preset(3e-1, {"block_size": 64}),
    "shira": Preset(1e-2, {"r": 1}),
}
#: Of a method without a preset.
PLAIN = Preset(1e-3)
#: The methods that a job with `auto` tries, in this order.
CANDIDATES = ("fourierft", "waveletft", "loca", "lora")
