"""One type of base, tiny and random: PEFT's adapters, served here, against PEFT's own answers.

The verdict on a type is one of: `equal` (the logits of every text are PEFT's, in both modes, with
two adapters and the base in one step, in pieces and token by token), `refused` (by which words),
`wrong`, `broken` (an exception that is no refusal) and `not built`.
"""

import copy
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapters_core.base.module_rows import RowsNotKnown
from adapters_core.base.spec import adaptable, weight_of, weights_of
from adapters_core.contract.method import Method
from adapters_core.errors import AdapterError
from adapters_core.format.read import Adapter, read_adapter
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from adapters_core.layers.merge import materialise
from bench.conformance.apart import MAX_CHARS, quiet, words_of
from bench.conformance.tiny_bases import MAX_LENGTH, VOCABULARY, tiny_model
from bench.lib.bases import tokenizer
from server.adapters.modes import Mode
from server.adapters.payload import Factored, Merged
from server.adapters.residency import Entry
from server.base.load_errors import BaseNotLoadable
from server.base.loading import Base, load_base
from server.engine.engine import Engine
from server.engine.mask_patterns import UnsupportedAttention
from server.scheduling.page_pool import PagePool
from server.scheduling.sequence import Sampling, TokenSequence
from server.scheduling.step import Batch, Work

TOLERANCE = 1e-4
_LENGTHS = (7, 43, 20)
_SINGLES, _PAGES, _PAGE_SIZE = 3, 16, 32
#: Errors of a library about files and configs; any other cause of a refusal is a fault in code.
_SAID = (OSError, ValueError, ImportError, AdapterError, UnsupportedAttention, RowsNotKnown)
_METHODS = ("lora", "fourierft")
_FILES = ("adapter_model.safetensors", "adapter_config.json")


@dataclass
class Outcome:
    """The verdict on a type.

    Args:
        type: of the config.
        verdict: see above.
        words: of a refusal or a failure.
        error: the largest relative difference of a text's logits from PEFT's.
        methods: that were held against PEFT.
        left_out: layers that no adapter may change, and why; one path for each reason.
        num_left_out: how many they are.
        num_targets: layers that adapters change.
        own_attention: whether the base attends by code of its own.
    """

    type: str
    verdict: str
    words: str = ""
    error: float = 0.0
    methods: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    num_left_out: int = 0
    num_targets: int = 0
    own_attention: bool = False


class _Wrong(Exception):
    """An answer differs from PEFT's."""


def examine(model_type: str) -> Outcome:
    """Build, serve and compare a type; nothing is raised."""
    torch.set_num_threads(1)
    outcome = Outcome(model_type, "equal")
    try:
        with tempfile.TemporaryDirectory() as scratch, quiet():
            _examine(outcome, Path(scratch))
    except _NotBuilt as error:
        outcome.verdict, outcome.words = "not built", words_of(error.__cause__ or error)
    except (BaseNotLoadable, UnsupportedAttention, AdapterError) as error:
        is_said = error.__cause__ is None or isinstance(error.__cause__, _SAID)
        outcome.verdict, outcome.words = "refused" if is_said else "broken", words_of(error)
    except _Wrong as error:
        outcome.verdict, outcome.words = "wrong", words_of(error)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        outcome.verdict = "broken"
        outcome.words = f"{type(error).__name__}: {words_of(error)} ({place.name}:{place.lineno})"
    return outcome


class _NotBuilt(Exception):
    """The type is not built small, transformers cannot run it, or PEFT makes no adapter of it."""


def _examine(outcome: Outcome, folder: Path) -> None:
    try:
        model = tiny_model(outcome.type)
        with torch.inference_mode():
            model(input_ids=torch.arange(12)[None], use_cache=False)
        model.save_pretrained(folder / "base")  # type: ignore[operator]
        reader = tokenizer(VOCABULARY)
        reader.model_max_length = MAX_LENGTH
        reader.save_pretrained(folder / "base")
    except Exception as error:
        raise _NotBuilt from error
    base = load_base(str(folder / "base"), "tiny", "cpu", "float32", "generate")
    spec = base.spec
    outcome.num_targets, outcome.num_left_out = len(spec.targets), len(spec.left_out)
    outcome.left_out = {reason: path for path, reason in spec.left_out.items()}
    plain = copy.deepcopy(base.model)
    serving = _Serving(base)
    outcome.own_attention = getattr(serving.engine, "has_own_attention", False)
    for name in _METHODS if spec.targets else ():
        _compare(outcome, serving, plain, name, folder / name)


def _compare(
    outcome: Outcome, serving: "_Serving", plain: nn.Module, name: str, folder: Path
) -> None:
    """Hold two adapters of a method against PEFT; on all linears if PEFT's file for that is taken.

    Raises:
        _Wrong: an answer differs.
    """
    models, adapters = _pair(outcome, serving, plain, name, folder)
    for mode in ("factored", "merged"):
        entries = [*serving.entries(adapters, mode), None]
        error = serving.error(entries, [*models, plain], f"{name} {mode}")
        outcome.error = max(outcome.error, error)
    outcome.methods.append(name)


def _pair(
    outcome: Outcome, serving: "_Serving", plain: nn.Module, name: str, folder: Path
) -> tuple[list[Any], list[Adapter]]:
    """Return PEFT's models with two adapters, and these as read from their files.

    Raises:
        AdapterError: none that PEFT makes of the base's linears is taken.
    """
    targets = list(serving.spec.targets)
    attention = [path for path in targets if "attn" in path or "attention" in path]
    refusal: AdapterError | None = None
    fault: Exception | None = None
    for number, rule in enumerate(("all-linear", targets, attention)):
        places = [folder / f"{number}-{seed}" for seed in (1, 2)]
        try:
            models = [_made(plain, name, rule, i, place) for i, place in enumerate(places)]
        except Exception as error:
            fault = fault or error
            outcome.words = outcome.words or f"PEFT makes none on all linears: {error}"[:MAX_CHARS]
            continue
        try:
            return models, [serving.read(place) for place in places]
        except AdapterError as error:
            refusal = refusal or error
            outcome.words = f"all-linear is refused: {refusal.message}"[:MAX_CHARS]
    if refusal is None:
        raise _NotBuilt from fault
    raise refusal


class _Serving:
    """The base as a server has it."""

    def __init__(self, base: Base) -> None:
        self.spec = base.spec
        weights = weights_of(base.model, base.spec)
        self.injection = inject(base.model, base.spec.layers, base.spec.kept_layers)
        self.bases = BasisCache(torch.device("cpu"), weights)
        self.engine = Engine(self.injection, _PAGES, _PAGE_SIZE)

    def read(self, folder: Path) -> Adapter:
        file, config = (folder / name for name in _FILES)
        return read_adapter(file, config.read_bytes(), self.spec)

    def entries(self, adapters: list[Adapter], mode: Mode) -> list[Entry]:
        if mode == "merged":
            payloads: list[Any] = [Merged(self._weights(a.methods, a)) for a in adapters]
        else:
            layout = Layout.of(adapters[0].methods, self.spec.layers)
            bank = Bank(layout, self.bases, 2, adapters[0].layers)
            payloads = [self._factored(bank, adapter) for adapter in adapters]
        return [Entry((str(i), mode), payload=one) for i, one in enumerate(payloads)]

    def _factored(self, bank: Bank, adapter: Adapter) -> Factored:
        slot = bank.add(bank.pack(adapter.methods, adapter.layers))
        whole = {t: method for t, method in adapter.methods.items() if not method.is_factored}
        return Factored(bank, slot, weights=self._weights(whole, adapter))

    def _weights(self, methods: Mapping[str, Method], adapter: Adapter) -> dict[str, torch.Tensor]:
        layers = {target: adapter.layers[target] for target in methods}
        return materialise(methods, layers, self.injection.layers, self.bases)

    def error(self, entries: list[Any], models: list[Any], what: str) -> float:
        """Return the largest difference over all texts, each relative to its logits.

        Raises:
            _Wrong: it is beyond the tolerance.
        """
        pool = PagePool(_PAGES, _PAGE_SIZE)
        sequences, expected = [], []
        for number, (entry, length) in enumerate(zip(entries, _LENGTHS, strict=True)):
            tokens = tuple((11 + number + (37 + number) * i) % VOCABULARY for i in range(length))
            sequence = TokenSequence(tokens, Sampling(max_tokens=1), entry)
            sequence.pages = pool.allocate(pool.pages_for(length)) or []
            sequences.append(sequence)
            expected.append(_logits(models[number], tokens))
        worst = 0.0
        for works, is_single in _steps(sequences):
            batch = Batch(works, ()) if is_single else Batch((), works)
            for work, row in zip(works, self.engine.logits(batch), strict=True):
                true = expected[sequences.index(work.sequence)][work.stop - 1]
                difference = float((row - true).norm() / true.norm())
                if not difference <= TOLERANCE:
                    raise _Wrong(f"{what}: {difference:.1e} at token {work.stop}")
                worst = max(worst, difference)
        return worst


def _steps(sequences: list[TokenSequence]) -> Iterator[tuple[tuple[Work, ...], bool]]:
    """Yield the works of each step, and whether they are single tokens."""
    cuts = [len(s.tokens) // 2 for s in sequences]
    ends = [len(s.tokens) - _SINGLES for s in sequences]
    yield tuple(Work(s, 0, cut, True) for s, cut in zip(sequences, cuts, strict=True)), False
    pieces = zip(sequences, cuts, ends, strict=True)
    yield tuple(Work(s, cut, end, True) for s, cut, end in pieces if cut < end), False
    for i in range(_SINGLES):
        singles = zip(sequences, ends, strict=True)
        yield tuple(Work(s, end + i, end + i + 1, True) for s, end in singles), True


def _made(plain: nn.Module, name: str, rule: Any, seed: int, folder: Path) -> Any:
    """Return PEFT's model with a random adapter, which is saved in `folder`."""
    from peft import FourierFTConfig, LoraConfig, get_peft_model

    config: Any = LoraConfig(r=3, target_modules=rule, task_type="CAUSAL_LM")
    if name == "fourierft":
        sizes = [weight_of(module).numel() for _, module in adaptable(plain)]
        config = FourierFTConfig(
            n_frequency=min(40, *sizes), scaling=60.0, target_modules=rule, task_type="CAUSAL_LM"
        )
    model = get_peft_model(copy.deepcopy(plain), config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "fourierft_spectrum" in name:
            size = 0.2 if "lora_B" in name else 1.0
            parameter.data = size * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(str(folder))
    return model.eval()


@torch.no_grad()
def _logits(model: Any, tokens: tuple[int, ...]) -> Tensor:
    logits: Tensor = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    return logits
