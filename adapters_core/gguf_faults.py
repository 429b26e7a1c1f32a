"""Why a GGUF file is no base: found in its header, before anything heavy is imported."""

import importlib.util
from math import prod
from pathlib import Path

from adapters_core.gguf_header import GgufHeader, has_magic, read_header

#: What transformers needs to read such files; the extra `gguf` installs both.
_PACKAGES = ("gguf", "accelerate")
_AGAIN = "Copy or download it once more"


class NoBase(Exception):
    """A file is no base.

    Args:
        why: a few words.
        step: what to do, a sentence without its stop.
    """

    def __init__(self, why: str, step: str) -> None:
        super().__init__(f"{why}. {step}")
        self.why, self.step = why, step


def check_gguf(file: Path) -> GgufHeader:
    """Return the header of a GGUF file that can be a base, as far as its header tells.

    Raises:
        NoBase: it cannot.
    """
    if not has_magic(file):
        raise NoBase(
            "it is a file, and not in GGUF's format",
            "Give a folder with config.json, model.safetensors and tokenizer.json, a GGUF file, or "
            "a hub id",
        )
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise NoBase(
            f"it is a GGUF file, and the package {' and '.join(missing)} is not installed",
            "Install it: pip install 'overtone[gguf]'",
        )
    try:
        header = read_header(file)
    except (OSError, ValueError) as error:
        raise NoBase(str(error), _AGAIN) from error
    _check_is_model(header)
    _check_is_whole(file, header)
    return header


def _check_is_model(header: GgufHeader) -> None:
    kind = header.values.get("general.type", "model")
    if kind != "model" or not header.architecture:
        raise NoBase(f"it holds no model but {str(kind)[:40]!r}", "Give the file of the model")
    parts = header.values.get("split.count", 0)
    if isinstance(parts, int) and parts > 1:
        raise NoBase(
            f"it is one of {parts} parts of a model",
            "Join them with llama.cpp's `llama-gguf-split --merge`, and give the whole",
        )
    if "tokenizer.ggml.tokens" not in header.values:
        raise NoBase("it has no tokenizer", "Convert the model to GGUF with its tokenizer")


def _check_is_whole(file: Path, header: GgufHeader) -> None:
    """Refuse a file that ends within its tensors, or has one of an unknown encoding."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    known = {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()}
    ends = [header.start]
    for tensor in header.tensors:
        if tensor.type not in known:
            names = ", ".join(kind.name for kind in GGMLQuantizationType)
            raise NoBase(
                f"tensor {tensor.name[:80]!r} is of ggml's type {tensor.type}, which the installed "
                f"package gguf does not know (it knows {names})",
                "Give the model in another encoding, such as Q8_0",
            )
        block, size = known[tensor.type]
        ends.append(header.start + tensor.offset + prod(tensor.shape) // block * size)
    there = file.stat().st_size
    if there < max(ends):
        raise NoBase(f"it is cut off: it has {there} of {max(ends)} bytes", _AGAIN)
