"""How a layer turns queries and keys into weights: scale, soft cap, sinks and mask."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from server.engine.mask_patterns import MaskPattern


@dataclass(frozen=True)
class Scoring:
    """One attention layer's way from scores to weights.

    Args:
        scale: of the products; None stands for `head_dim ** -0.5`.
        pattern: which tokens a row sees.
        softcap: scores are `softcap * tanh(score / softcap)` before the mask (Gemma 2).
        sinks: `[heads]`, a score per head that takes part in the softmax without a value (gpt-oss).
    """

    scale: float | None = None
    pattern: MaskPattern = MaskPattern()
    softcap: float | None = None
    sinks: Tensor | None = None

    @property
    def is_plain(self) -> bool:
        """Return whether `scaled_dot_product_attention` computes it."""
        return self.softcap is None and self.sinks is None

    def weigh(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Return `[N, H, R, d]` for q `[N, H, R, d]`, k and v `[N, H, K, d]`.

        H are the query heads; or the key heads, and the R rows the query heads of each. The mask is
        bool and broadcast to `[N, H, R, K]`; without one every key is seen.
        """
        if self.is_plain:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        scores = q @ k.transpose(-1, -2) * (self.scale or q.shape[-1] ** -0.5)
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return self._softmax(scores).to(v.dtype) @ v

    def _softmax(self, scores: Tensor) -> Tensor:
        """Return the weights of the keys in float32; the sinks keep theirs."""
        if self.sinks is None:
            return torch.softmax(scores, dim=-1, dtype=torch.float32)
        heads = scores.shape[1]
        sinks = self.sinks.view(heads, -1)  # [kv_heads, group], or [heads, 1]
        sinks = F.pad(sinks, (0, scores.shape[2] - sinks.shape[1])) if sinks.shape[1] > 1 else sinks
        column = sinks[None, :, :, None].expand(scores.shape[0], -1, scores.shape[2], 1)
        joined = torch.cat([scores, column.to(scores.dtype)], dim=-1)
        return torch.softmax(joined, dim=-1, dtype=torch.float32)[..., :-1]
