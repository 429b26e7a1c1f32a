"""FRoD's basis of a wide base: how long it takes beside a server, and what the others lose by it.

What, on a random Llama with the heads of Llama-3.1-8B and narrow MLPs, served in bfloat16:
- tokens a second of one stream through another adapter, alone and while the basis of all query and
  value projections is computed;
- seconds from the upload that needs the basis, which is answered 503, to its end, the processor's
  seconds of the processes that compute it, and the most memory of each;
- seconds of the upload after the next start, when the basis is on disk, and its bytes.
Target at 32 layers 4096 wide: ten minutes on two cores.

    overtone bench bases [--layers 32] [--width 4096] [--tokens 32]
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.utils.logging import disable_progress_bar

from adapters_core.base.spec import BaseSpec, spec_of
from adapters_core.format.write import write_adapter
from adapters_core.frod.in_file import DIGEST, LAMBDA, digest_tensor
from adapters_core.frod.joint import category_of, digest_of
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods import FourierFT, FRoD
from bench.lib.bases import VOCABULARY, prompt_of, random_adapter, targets_of, tokenizer
from bench.lib.program import Parser
from bench.lib.servers import Served, served
from bench.lib.timing import report
from overtone_client import Client, InvalidAdapter, NotReady

_PAUSE_S = 1.0
_STEPS = 3
_CATEGORIES = ("q_proj", "v_proj")


def save_base(folder: Path, width: int, layers: int) -> BaseSpec:
    """Write a random bfloat16 base of 128-wide heads, four to each of keys and values."""
    disable_progress_bar()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=width // 128,
        num_key_value_heads=width // 512,
        max_position_embeddings=2048,
    )
    config.eos_token_id = config.bos_token_id = None
    config.pad_token_id = 0
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return spec_of(model, "bench")


def write_frod(
    folder: Path, spec: BaseSpec, kept: Path | None, ends: tuple[str, ...] = _CATEGORIES
) -> Path:
    """Write an adapter of the layers with these ends in the form without V.

    It is on the basis in `kept`; None: on none that is.
    """
    shapes = {target: shape for target, shape in spec.targets.items() if target.endswith(ends)}
    methods = FRoD(sparse_rate=0.0).of_layers(shapes)
    layers, digests = {}, {}
    for target in methods:
        category = category_of(target)
        tensors = load_file(kept / f"frod-{category}.safetensors") if kept else {}
        if category not in digests:
            v = digest_of(tensors["V"]) if kept else "sha256:" + 64 * "0"
            none = digest_of(torch.empty(2, 0, dtype=torch.int64))
            digests[category] = digest_tensor(v, none)
        ones = torch.ones(spec.targets[target].in_)
        stretched = 1.1 * tensors[f"lambda.{target}"] if kept else ones
        layers[target] = {LAMBDA: stretched, DIGEST: digests[category]}
    write_adapter(folder, methods, layers, spec)
    return folder


def rate(client: Client, tokens: int) -> float:
    """Return tokens a second of one request through the other adapter."""
    started = time.perf_counter()
    client.complete("other", prompt_of(0, 8), max_tokens=tokens, temperature=0, ignore_eos=True)
    return tokens / (time.perf_counter() - started)


class Meter:
    """The processor's seconds and the most memory of a server's children, by their ids."""

    def __init__(self, server: Served) -> None:
        self._server = psutil.Process(server.pid)
        self.seconds: dict[int, float] = {}
        self.most_bytes: dict[int, int] = {}

    def look(self) -> None:
        """Read both."""
        for child in self._server.children(recursive=True):
            try:
                if "server.adapters.basis_child" in child.cmdline():
                    times, memory = child.cpu_times(), child.memory_info().rss
                    self.seconds[child.pid] = times.user + times.system
                    self.most_bytes[child.pid] = max(memory, self.most_bytes.get(child.pid, 0))
            except psutil.NoSuchProcess:
                continue


def computed(server: Served, client: Client, folders: list[Path], tokens: int) -> dict[str, Any]:
    """Upload until the bases are there; return what it took, and what the others had meanwhile.

    Args:
        server: computes them.
        client: of the server.
        folders: an adapter for each basis, with the digest of none: refused once it is there.
        tokens: of a request.
    """
    alone = [rate(client, tokens) for _ in range(_STEPS)]
    meter, beside, started, told = Meter(server), list[float](), time.perf_counter(), ""
    waiting = folders
    while waiting:
        said = {folder: _said(client, folder) for folder in waiting}
        waiting = [folder for folder in waiting if said[folder]]
        meter.look()
        if waiting:
            if len(beside) < _STEPS:
                beside.append(rate(client, tokens))
            told = _told(said[waiting[0]], time.perf_counter() - started, told)
            time.sleep(_PAUSE_S)
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": sum(meter.seconds.values()),
        "most_gb": max(meter.most_bytes.values(), default=0) / 1e9,
        "alone_tokens_s": sorted(alone)[_STEPS // 2],
        "beside_tokens_s": sorted(beside)[len(beside) // 2] if beside else None,
    }


def _said(client: Client, folder: Path) -> str:
    """Return why an upload must wait; empty once the basis is there."""
    try:
        client.upload(folder, "mine")
    except NotReady as error:
        return str(error)
    except InvalidAdapter:
        return ""
    raise AssertionError("no basis has the digest of none")


def _told(message: str, seconds: float, before: str) -> str:
    """Print how far it is, if that is another share than before, and return what was said."""
    said, _, _ = message.partition(";")
    if said != before:
        print(f"{seconds:.0f} s: {said}", flush=True)
    return said


def _client(server: Served) -> Client:
    """Return a client that does not wait by itself while a basis is computed."""
    return Client(server.url, max_retries=0)


def measured(scratch: Path, width: int, layers: int, tokens: int) -> dict[str, Any]:
    """Return one row."""
    base, data = scratch / "base", scratch / "data"
    spec = save_base(base, width, layers)
    shapes = {target: spec.targets[target] for target in targets_of(spec, "qv")}
    bases = BasisCache(torch.device("cpu"))
    write_adapter(scratch / "other", *random_adapter(FourierFT(), shapes, bases, 0), spec)
    row: dict[str, Any] = {"width": width, "layers": layers}
    with served(base, data, dtype="bfloat16") as server, _client(server) as client:
        client.upload(scratch / "other", "other")
        none = [write_frod(scratch / end, spec, None, (end,)) for end in _CATEGORIES]
        row |= computed(server, client, none, tokens)
    kept = next(data.glob("bases/*"))
    row["disk_gb"] = sum(file.stat().st_size for file in kept.iterdir()) / 1e9
    folder = write_frod(scratch / "mine", spec, kept)
    with served(base, data, dtype="bfloat16") as server, _client(server) as client:
        started = time.perf_counter()
        client.upload(folder, "mine")
        row["from_disk_s"] = time.perf_counter() - started
        client.complete("mine", prompt_of(0, 8), max_tokens=4, temperature=0)
    return row


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench bases", description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="overtone-bench-") as scratch:
        row = measured(Path(scratch), options.width, options.layers, options.tokens)
    report("bases", [row])
