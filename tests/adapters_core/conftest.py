"""A tiny base, an adapter on it as PEFT saves it, and a reader for folders."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from peft import FourierFTConfig, LoraConfig
from transformers import LlamaForCausalLM

from adapters_core.base.spec import BaseSpec, spec_of
from adapters_core.format.read import Adapter, read_adapter
from adapters_core.layers.basis_cache import BasisCache
from tiny_bases import peft_adapter, tiny_llama


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices are faster on one thread; the tests that need two ask for them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def llama() -> LlamaForCausalLM:
    """A model that every test may read and none may change."""
    return tiny_llama()


@pytest.fixture(scope="session")
def llama_spec(llama: LlamaForCausalLM) -> BaseSpec:
    return spec_of(llama, "tiny-llama")


@pytest.fixture
def bases() -> BasisCache:
    return BasisCache(torch.device("cpu"))


@pytest.fixture(scope="session")
def saved_fourierft(
    llama: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """File name -> bytes of a FourierFT adapter on q_proj and v_proj."""
    config = FourierFTConfig(
        target_modules=["q_proj", "v_proj"], n_frequency=30, task_type="CAUSAL_LM"
    )
    folder = tmp_path_factory.mktemp("fourierft")
    peft_adapter(llama, config, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="session")
def saved_lora(
    llama: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """File name -> bytes of a LoRA adapter on q_proj and v_proj."""
    folder = tmp_path_factory.mktemp("lora")
    config = LoraConfig(target_modules=["q_proj", "v_proj"], r=3, task_type="CAUSAL_LM")
    peft_adapter(llama, config, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def fourierft_folder(saved_fourierft: dict[str, bytes], tmp_path: Path) -> Path:
    return _written(saved_fourierft, tmp_path / "fourierft")


@pytest.fixture
def lora_folder(saved_lora: dict[str, bytes], tmp_path: Path) -> Path:
    return _written(saved_lora, tmp_path / "lora")


def _written(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def read(llama_spec: BaseSpec) -> Callable[..., Adapter]:
    """Read a folder's adapter against the tiny Llama, or another spec."""

    def read_folder(folder: Path, spec: BaseSpec = llama_spec, **options: int) -> Adapter:
        config = (folder / "adapter_config.json").read_bytes()
        return read_adapter(folder / "adapter_model.safetensors", config, spec, **options)

    return read_folder
