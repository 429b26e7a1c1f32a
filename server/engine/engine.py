"""One step: rows through the resident base, each with its own adapter, and tokens out of it.

The base is any Hugging Face causal LM; attention and cache are this package's (attention.py),
adapters are applied by the injected linears (adapters_core). The engine has no adapter names, no
text and no clock.

On a device other than the CPU, steps of single tokens run over static tensors and are recorded
(cuda_graphs.py), tokens are chosen there (sampler_device.py), and the host waits for them once a
step.
"""

import logging
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from adapters_core.base.causal_probe import keeps_rows
from adapters_core.base.rotations import border_of
from adapters_core.gpu_kernels.running import runs_on
from adapters_core.layers.inject import Injection
from adapters_core.layers.serving_plan import ServingPlan
from server.base.device_setup import set_up
from server.engine.attention import PagedCache
from server.engine.attention_device import DeviceCache
from server.engine.cuda_graphs import DecodeGraphs
from server.engine.drawing import compile_draws
from server.engine.mask_patterns import UnsupportedAttention
from server.engine.own_attention import OwnAttention
from server.engine.penalties import compile_penalties
from server.engine.recordings import recordings_on
from server.engine.rotations import refuse_counted_rows, rotate_by_rows
from server.engine.sampler import sample
from server.engine.sampler_device import sample_on_device
from server.engine.start_check import StartCheck
from server.engine.step_tensors import pack
from server.engine.token_scores import score
from server.scheduling.sequence import Sampled
from server.scheduling.step import Batch

_LOG = logging.getLogger("overtone.engine")
#: On a device a step with prompts has a multiple of so many rows: libraries plan their transforms
#: for each number of rows.
_PROMPT_ROWS = 64


class Engine:
    """Owns the model's forward pass and the key-value cache.

    Args:
        injection: the base with its linears injected.
        num_pages: pages of the cache.
        page_size: tokens a page; 32 keeps a row's bits independent of its neighbours on a CPU.
        deterministic: the same step gives the same bits again, on a GPU too, where that costs
            time; on a CPU it always does.
        on_device: whether to use the code for devices; None: where the base is not on the CPU.
            Tests use it on the CPU.
        is_proven: an earlier start has compared this base's logits with transformers' own.
    """

    def __init__(
        self,
        injection: Injection,
        num_pages: int,
        page_size: int = 32,
        deterministic: bool = False,
        on_device: bool | None = None,
        is_proven: bool = False,
    ) -> None:
        self._injection = injection
        self._model = injection.model
        self._device = next(self._model.parameters()).device
        set_up(self._device)
        self._page_size = page_size
        self._prompt_rows = 1 if self._device.type == "cpu" else _PROMPT_ROWS
        linears = injection.linears.items()
        self._kept = frozenset(path for path, linear in linears if linear.sees_kept)
        self._keeps_rows = keeps_rows(self._model)
        self._on_device = self._device.type != "cpu" if on_device is None else on_device
        self._cache = PagedCache(num_pages, page_size)
        self._graphs: DecodeGraphs | None = None
        if self._on_device:
            self._cache = DeviceCache(num_pages, page_size, deterministic)
            self._graphs = DecodeGraphs(self._forward, self._cache, self._device)
        else:
            compile_draws()
            compile_penalties()
        if deterministic and self._device.type == "cuda":
            _be_deterministic()
        self._own: OwnAttention | None = None
        self.border = border_of(self._model)
        check = None
        if not is_proven:
            check = StartCheck(injection, num_pages, page_size, self.border)
        config: Any = self._model.config
        implementation = config._attn_implementation
        if self._on_device and runs_on(self._device):
            self._take_kernels()
        try:
            self._take_attention()
        except UnsupportedAttention as reason:
            self._leave_attention(implementation, reason)
        if check is not None:
            check.hold(self.logits)
        if self._graphs is not None:  # nothing of the check is recorded
            self._graphs.recordings = recordings_on(self._device)

    @property
    def has_own_attention(self) -> bool:
        """Return whether the base's own attention is used, one sequence after another."""
        return self._own is not None

    @property
    def num_pages(self) -> int:
        """Return the pages of the cache."""
        return self._cache.num_pages

    @property
    def page_size(self) -> int:
        """Return the tokens of a page."""
        return self._page_size

    def tell_recording(self, observe: Callable[[bool], None]) -> None:
        """Call `observe` now, and when it changes, with whether recording goes on, on a GPU."""
        recordings = recordings_on(self._device)
        if recordings is not None and self._own is None:
            recordings.tell(observe)

    @torch.inference_mode()
    def prepare(self, most_rows: int) -> None:
        """Record the steps of up to so many single tokens, where steps are recorded.

        By the thread that runs them: libraries may keep for a thread what a recording points to.
        """
        if self._graphs is not None and self._own is None:
            self._graphs.prepare(most_rows)

    @torch.inference_mode()
    def step(self, batch: Batch) -> list[Sampled | None]:
        """Run a batch; return a token for every work that samples, None where it is not finite."""
        logits = self.logits(batch)
        sequences = [work.sequence for work in batch.works if work.samples]
        return (sample_on_device if self._on_device else sample)(logits, sequences)

    @torch.inference_mode()
    def logits(self, batch: Batch) -> Tensor:
        """Return the logits `[B, vocabulary]` of the works that sample, in their order.

        On a device the next step may overwrite them. Scores of given tokens are kept with their
        sequences afterwards.
        """
        if self._own is not None:
            sampled, scored = self._own.logits(batch)
            score(scored, batch)
            return sampled
        if self._graphs is not None:
            replayed = self._graphs.logits(batch)
            if replayed is not None:
                return replayed
        multiple = self._prompt_rows if batch.prefill else 1
        step = pack(batch, self._page_size, self._device, self._kept, multiple)
        self._cache.begin(step.layout)
        logits = self._forward(step.ids, step.positions, step.plan, step.wanted)
        num_sampled = sum(work.samples for work in batch.works)
        score(logits[num_sampled : step.num_wanted], batch)
        return logits[:num_sampled]

    def _forward(
        self, ids: Tensor, positions: Tensor, plan: ServingPlan | None, keep: Tensor | int = 0
    ) -> Tensor:
        """Return the logits `[B, vocabulary]` of the rows `keep`; 0 stands for all of them."""
        self._injection.switch.plan = plan
        # `_attention` uses no mask; a finished one keeps transformers from reading back from the
        # device whether the positions are those of one text.
        mask = ids.new_zeros(1, 1, 1, 1) if self._on_device else None
        options = {"logits_to_keep": keep} if self._keeps_rows else {}
        try:
            output = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                use_cache=False,
                **options,
            )
        finally:  # the plan holds merged weights, which may be evicted before the next step
            self._injection.switch.plan = None
        result: Tensor = output.logits[0]
        return result if self._keeps_rows or isinstance(keep, int) else result[keep]

    def _take_kernels(self) -> None:
        """Let kernels of ours compute the base's norms, rotations and gates."""
        from server.gpu_kernels.fused_modules import fuse

        _LOG.info("of the base, kernels compute: %s", dict(fuse(self._model).replaced))

    def _take_attention(self) -> None:
        """Use this package's attention, over the rows of many sequences."""
        refuse_counted_rows(self._model)
        self._cache.attach(self._model)
        if self.border is not None:
            rotate_by_rows(self._model, self.border, self._cache.is_long)

    def _leave_attention(self, implementation: str, reason: UnsupportedAttention) -> None:
        """Use the model's own attention, for the reason given.

        Raises:
            UnsupportedAttention: its rotations depend on a text's length, too.
        """
        if self.border is not None:
            raise reason
        if self._model._can_set_attn_implementation():  # type: ignore[operator]
            self._model.set_attn_implementation(implementation)  # type: ignore[operator]
        self._own = OwnAttention(
            self._injection,
            self._cache.num_pages,
            self._page_size,
            self._kept,
            self._keeps_rows,
        )
        _LOG.warning("%s; each sequence of a step runs through the base alone, slower", reason)


def _be_deterministic() -> None:
    """Make torch sum in a fixed order, where it has such kernels, for the whole process."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Fills fresh memory by default: for debugging, and a kernel each time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
