"""One type of classifier or embedder, tiny and random: PEFT's adapters, served here, against PEFT.

`equal`: every answer is PEFT's own for that input alone, in both modes, for two adapters on all
linears and the base, in batches of several lengths.
"""

import copy
import tempfile
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters_core.base.spec import adaptable, weights_of
from adapters_core.errors import AdapterError
from adapters_core.format.read import Adapter, read_adapter
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from adapters_core.layers.merge import materialise
from bench.conformance.apart import MAX_CHARS, quiet, words_of
from bench.conformance.tiny_encoders import (
    CLS,
    IMAGE,
    MASK,
    PAD,
    SEP,
    VOCABULARY,
    reader,
    tiny_encoder,
    types_of,
)
from server.adapters.payload import Factored, Merged
from server.base.kinds import Kind, ServingTask
from server.base.load_errors import BaseNotLoadable
from server.base.loading import load_base
from server.encoding.check import UnsupportedBase, check_encoder
from server.encoding.encoder import Encoder, Group, Input, group_of
from server.encoding.head_switch import plain_heads, switch_heads
from server.encoding.plan import Payload

#: Of an answer's norm.
TOLERANCE = 1e-4
#: Where PEFT's own answer in float32 is further from its answer in float64, so many times that:
#: random T5 bodies, which do not scale their attention, magnify every rounding.
_ROUNDINGS = 4
METHODS = ("lora", "fourierft")
_LENGTHS = (3, 5, 15, 16, 16, 40, 43, 5)
_FILES = ("adapter_model.safetensors", "adapter_config.json")
_TASKS: dict[Kind, ServingTask] = {
    "text classifier": "classify",
    "image classifier": "classify",
    "embedder": "embed",
}


class Wrong(Exception):
    """An answer differs from PEFT's."""


class NotBuilt(Exception):
    """The type cannot be built small, or transformers itself cannot run it on these inputs."""


#: The name of a row of the table: `bert:embedder`.
_KINDS: dict[str, Kind] = {
    "texts": "text classifier",
    "images": "image classifier",
    "embedder": "embedder",
}


def encoder_types() -> list[str]:
    """Return the names of all rows: a type, and what it is used for."""
    return [f"{name}:{use}" for use, kind in _KINDS.items() for name in types_of(kind)]


def examine_encoder(name: str) -> dict[str, Any]:
    """Build, serve and compare a type; nothing is raised.

    Args:
        name: of a row.

    Returns:
        `verdict` (`equal`, `refused`, `wrong`, `broken` or `not built`), `words`, `error` (the
        largest difference of an answer), `num_targets`, `num_left_out`, `num_shared`, `pads`.
    """
    model_type, _, use = name.partition(":")
    row: dict[str, Any] = {"type": name, "verdict": "equal", "words": "", "error": 0.0}
    row |= {"num_targets": 0, "num_left_out": 0, "num_shared": 0, "pads": True, "left_out": {}}
    try:
        with tempfile.TemporaryDirectory() as scratch, quiet():
            _fill(row, EncoderCase(_KINDS[use], model_type, Path(scratch)))
    except NotBuilt as error:
        row |= {"verdict": "not built", "words": words_of(error.__cause__ or error)}
    except (BaseNotLoadable, UnsupportedBase, AdapterError) as error:
        row |= {"verdict": "refused", "words": words_of(error)}
    except Wrong as error:
        row |= {"verdict": "wrong", "words": words_of(error)}
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        words = f"{type(error).__name__}: {words_of(error)} ({place.name}:{place.lineno})"
        row |= {"verdict": "broken", "words": words}
    return row


def _fill(row: dict[str, Any], case: "EncoderCase") -> None:
    spec = case.base.spec
    row |= {"num_targets": len(spec.targets), "num_left_out": len(spec.left_out)}
    row |= {"num_shared": len(spec.shared), "pads": spec.pads}
    row["left_out"] = {reason: path for path, reason in spec.left_out.items()}
    row["error"] = max(case.compare(method) for method in METHODS)
    row["words"] = case.refused[:MAX_CHARS]


class EncoderCase:
    """A base of one type as a server has it, and as PEFT has it.

    Args:
        kind: of base.
        model_type: of its config.
        folder: empty; takes the base and PEFT's files.

    Raises:
        NotBuilt: there is no such tiny base.
        BaseNotLoadable, UnsupportedBase: it is refused.
    """

    def __init__(self, kind: Kind, model_type: str, folder: Path) -> None:
        self._folder, self._kind = folder, kind
        self._save(model_type)
        base = load_base(str(folder / "base"), "tiny", "cpu", "float32", _TASKS[kind])
        self.base = base
        self.plain = copy.deepcopy(base.model)
        self.refused = ""
        forms = plain_heads(base.model, base.spec.head) if base.spec.head else {}
        self.bases = BasisCache(torch.device("cpu"), weights_of(base.model, base.spec))
        self.injection = inject(base.model, base.spec.targets)
        switch = switch_heads(self.injection, forms) if forms else None
        labels = base.spec.head.num_labels if base.spec.head else 0
        shared = base.spec.shared
        self.encoder = Encoder(self.injection, switch, labels, PAD, base.pooling, shared)
        check_encoder(self.encoder, self.injection, base)

    def _save(self, model_type: str) -> None:
        try:
            model: Any = tiny_encoder(self._kind, model_type)
            own = _answer(model, _inputs(self._kind)[0], self._kind)
            if not (own.isfinite().all() and own.norm() > 0):
                raise ValueError("its answer is zero or not finite with random weights")
            model.save_pretrained(self._folder / "base")
            reader(self._kind).save_pretrained(self._folder / "base")
        except Exception as error:
            raise NotBuilt from error

    def compare(self, method: str) -> float:
        """Return the largest difference of an answer from PEFT's, relative to the answer.

        Raises:
            Wrong: it is beyond the tolerance.
        """
        models, adapters = zip(*(self._made(method, seed) for seed in (1, 2)), strict=True)
        alone = not self.base.spec.shared.isdisjoint(adapters[0].methods)
        worst = 0.0
        for mode, put in (("factored", self._factored), ("merged", self._merged)):
            given = [*zip(put(adapters), models, strict=True), (None, self.plain)]
            for some in [[one] for one in given] if alone else [given]:
                what = f"{method} {mode}"
                worst = max(worst, self._compared(some, what, "alone" if alone else None))
        return worst

    def _compared(
        self, given: Sequence[tuple[Payload, Any]], what: str, owner: str | None
    ) -> float:
        groups: defaultdict[Group, list[Input]] = defaultdict(list)
        for one in _inputs(self._kind):
            key = group_of(one, self.base.max_length, self.base.spec.pads, owner)
            groups[key].append(one)
        worst = 0.0
        for group, inputs in groups.items():
            chosen = [given[i % len(given)] for i in range(len(inputs))]
            got = self.encoder.run(inputs, group, [payload for payload, _ in chosen])
            for row, one, (_, model) in zip(got, inputs, chosen, strict=True):
                true = _answer(model, one, self._kind)
                difference = float((row - true).norm() / true.norm())
                if not difference <= TOLERANCE and not difference <= _rounding(
                    model, one, self._kind
                ):
                    said = "an image" if isinstance(one, Tensor) else f"{len(one)} tokens"
                    raise Wrong(f"{what}: {difference:.1e} for {said} of {len(inputs)}")
                worst = max(worst, difference)
        return worst

    def _made(self, method: str, seed: int) -> tuple[Any, Adapter]:
        """Return PEFT's model with a random adapter, and the adapter as it is read."""
        model, folder = _peft(self.plain, method, "all-linear", seed), self._folder
        model.save_pretrained(str(folder / f"{method}{seed}"))
        try:
            return model.eval(), self._read(folder / f"{method}{seed}")
        except AdapterError as error:
            self.refused = f"all-linear is refused: {error.message}"
            model = _peft(self.plain, method, list(self.base.spec.targets), seed)
            model.save_pretrained(str(folder / f"{method}{seed}some"))
            return model.eval(), self._read(folder / f"{method}{seed}some")

    def _read(self, folder: Path) -> Adapter:
        file, config = (folder / name for name in _FILES)
        return read_adapter(file, config.read_bytes(), self.base.spec)

    def _factored(self, adapters: Sequence[Adapter]) -> list[Payload]:
        layout = Layout.of(adapters[0].methods, self.base.spec.targets)
        bank = Bank(layout, self.bases, 2, adapters[0].layers)
        packed = [bank.pack(a.methods, a.layers) for a in adapters]
        return [Factored(bank, bank.add(row)) for row in packed]

    def _merged(self, adapters: Sequence[Adapter]) -> list[Payload]:
        linears = self.injection.linears
        return [Merged(materialise(a.methods, a.layers, linears, self.bases)) for a in adapters]


def _peft(plain: nn.Module, method: str, rule: Any, seed: int) -> Any:
    from peft import FourierFTConfig, LoraConfig, get_peft_model

    config: Any = LoraConfig(r=3, target_modules=rule)
    if method == "fourierft":
        count = min(40, *(weight.numel() for weight in _weights(plain)))
        config = FourierFTConfig(n_frequency=count, scaling=float(count), target_modules=rule)
    model = get_peft_model(copy.deepcopy(plain), config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "fourierft_spectrum" in name:
            size = 0.2 if "lora_B" in name else 1.0
            parameter.data = size * torch.randn(parameter.shape, generator=generator)
    return model


def _weights(model: nn.Module) -> list[Tensor]:
    return [module.weight for _, module in adaptable(model) if isinstance(module.weight, Tensor)]


def _inputs(kind: Kind) -> list[Input]:
    generator = torch.Generator().manual_seed(0)
    if kind == "image classifier":
        return [torch.randn(3, IMAGE, IMAGE, generator=generator) for _ in range(4)]
    sizes = [(length - 2,) for length in _LENGTHS]
    inner = [torch.randint(MASK + 1, VOCABULARY, size, generator=generator) for size in sizes]
    return [(CLS, *ids.tolist(), SEP) for ids in inner]


def _tensors(given: Input) -> dict[str, Tensor]:
    if isinstance(given, Tensor):
        return {"pixel_values": given[None]}
    ids = torch.tensor([given])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _rounding(model: Any, given: Input, kind: Kind) -> float:
    """Return what two ways to a model's answer in float32 may differ by, relative to the answer."""
    exact = _answer(copy.deepcopy(model).double(), given, kind, torch.float64)
    error = (_answer(model, given, kind).double() - exact).norm() / exact.norm()
    return _ROUNDINGS * float(error)


@torch.inference_mode()
def _answer(
    model: Callable[..., Any], given: Input, kind: Kind, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return a model's own answer for one input, without padding."""
    tensors = _tensors(given)
    output = model(**{k: t.to(dtype) if t.is_floating_point() else t for k, t in tensors.items()})
    if kind != "embedder":
        logits: Tensor = output.logits[0]
        return logits
    return F.normalize(output.last_hidden_state[0].mean(0), dim=0)
