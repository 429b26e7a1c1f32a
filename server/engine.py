"""One step: rows through the resident base, each with its own adapter, and tokens out of it.

The base is any Hugging Face causal LM; attention and cache are ours (attention.py), adapters come
in through the injected linears (adapters_core). The engine knows no names, no text and no clock.
"""

import torch
from torch import Tensor, nn

from adapters_core.inject import Injection
from server import attention
from server.attention import PagedCache, UnsupportedAttention
from server.batch import pack
from server.kv_pool import PagePool
from server.sampler import sample
from server.scheduler import Batch, Work
from server.sequence import Sampled, Sampling, Sequence

_CHECK_TOKENS = 40
_CHECK_TOLERANCE = 1e-3
#: Rotations that follow the longest row of a batch: a row would depend on its neighbours.
_MOVING_ROTATIONS = ("dynamic", "longrope")


class Engine:
    """Owns the model's forward pass and the key-value cache.

    Args:
        injection: the base with its linears listening.
        num_pages: pages of the cache.
        page_size: tokens a page; 32 keeps a row's bits independent of its neighbours on a CPU.
    """

    def __init__(self, injection: Injection, num_pages: int, page_size: int = 32) -> None:
        self._injection = injection
        self._model = injection.model
        self._device = next(self._model.parameters()).device
        self._page_size = page_size
        self._cache = PagedCache(num_pages, page_size)
        _refuse_moving_rotations(self._model)
        expected = self._reference_logits()
        attention.register()
        self._model.set_attn_implementation(attention.NAME)  # type: ignore[operator]
        self._cache.attach(self._model)
        self._check_against(expected)

    @torch.inference_mode()
    def step(self, batch: Batch) -> list[Sampled | None]:
        """Run a batch; return a token for every work that samples, None where it went wrong."""
        logits = self.logits(batch)
        sequences = [work.sequence for work in batch.works if work.samples]
        return sample(logits, sequences)

    @torch.inference_mode()
    def logits(self, batch: Batch) -> Tensor:
        """Return the logits `[B, vocabulary]` of the works that sample, in their order."""
        step = pack(batch, self._page_size, self._device)
        self._cache.layout = step.layout
        self._injection.switch.plan = step.plan
        try:
            output = self._model(
                input_ids=step.ids,
                position_ids=step.positions,
                use_cache=False,
                logits_to_keep=step.sampled,
            )
        finally:  # the plan holds merged weights, which may be evicted before the next step
            self._injection.switch.plan = None
        result: Tensor = output.logits[0, : step.num_sampled]
        return result

    @torch.inference_mode()
    def _reference_logits(self) -> Tensor:
        """Return the logits of a fixed prompt as transformers itself computes them."""
        output = self._model(input_ids=torch.tensor([self._check_prompt()], device=self._device))
        result: Tensor = output.logits[0]
        return result

    def _check_prompt(self) -> list[int]:
        vocabulary = _vocabulary(self._model)
        return [(7 + 31 * i) % vocabulary for i in range(_CHECK_TOKENS)]

    def _check_against(self, expected: Tensor) -> None:
        """Hold this engine against transformers' own forward pass, in pieces and token by token.

        Raises:
            UnsupportedAttention: the base computes something that this engine does not.
        """
        prompt = self._check_prompt()
        pool = PagePool(self._cache.num_pages, self._page_size)
        sequence = Sequence(tuple(prompt), Sampling(max_tokens=1))
        sequence.pages = pool.allocate(pool.pages_for(len(prompt))) or []
        half = _CHECK_TOKENS // 2
        for start, stop in ((0, half), (half, half + 3)):
            self.logits(Batch((), (Work.of(sequence, start, stop),)))
        for i in range(half + 3, _CHECK_TOKENS):
            got = self.logits(Batch((Work.of(sequence, i, i + 1),), ()))
        error = float((got[0] - expected[-1]).float().norm() / expected[-1].float().norm())
        tolerance = _CHECK_TOLERANCE if expected.dtype == torch.float32 else 0.1
        if not error <= tolerance:
            raise UnsupportedAttention(
                f"this engine's logits differ by {error:.1e} from transformers' own for "
                f"{type(self._model).__name__}: its attention is not supported"
            )


def _vocabulary(model: nn.Module) -> int:
    size = model.config.get_text_config().vocab_size  # type: ignore[union-attr, operator]
    assert isinstance(size, int)
    return size


def _refuse_moving_rotations(model: nn.Module) -> None:
    """Refuse what the check cannot see: its prompt is shorter than where these begin to move."""
    config = model.config.get_text_config()  # type: ignore[union-attr, operator]
    rope = getattr(config, "rope_parameters", None) or {}
    for part in (rope, *rope.values()):  # one for all layers, or one for each kind of them
        kind = part.get("rope_type") if isinstance(part, dict) else None
        if kind in _MOVING_ROTATIONS:
            raise UnsupportedAttention(
                f"the base's positions are rotated by rope_type {kind!r}, which depends on the "
                "longest sequence of a batch and is not served"
            )
