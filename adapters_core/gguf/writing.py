"""Converts one GGUF file; a process of its own, see conversion.py.

    python -m adapters_core.gguf.writing FILE FOLDER      (makes the folder)

transformers reads the file. Weights are written in the smallest of bfloat16, float16 and float32
that holds every one of them exactly, so nothing is lost: for an unquantised file that is its own
type, for a quantised one float32 (a number of Q4 is a half times an integer plus another half).
Each line of standard output is one JSON object: `say`, or at the end `why` and `step`. The process
ends when its standard input does.
"""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils.logging import disable_progress_bar

from adapters_core.base.whole_files import load_whole
from adapters_core.gguf_faults import NoBase
from adapters_core.gguf_header import read_header

_SMALLER = (torch.bfloat16, torch.float16)


def main(file: Path, folder: Path) -> None:
    """Convert `file` into `folder`.

    Raises:
        NoBase: transformers does not read this file.
        OSError: the folder cannot be written.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call]
    started = time.monotonic()
    config = _config(file)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            file.parent, gguf_file=file.name, config=config
        )
        _say(f"reading its weights as transformers' {type(config).__name__.removesuffix('Config')}")
        model = load_whole(
            AutoModelForCausalLM,
            str(file.parent),
            gguf_file=file.name,
            config=config,
            dtype=torch.float32,
        )
    except Exception as error:  # whatever a library raises over files of any origin
        said = " ".join(str(error).split())[:400]
        why = f"transformers does not read it: {type(error).__name__}: {said}"
        raise NoBase(why.rstrip("."), "Give another file, or the model's own folder") from error
    dtype = exact_dtype(model.parameters())
    _save(model.to(dtype), tokenizer, folder)
    if not tokenizer.chat_template:
        _say("it has no chat template: it continues texts, and chats are refused")
    _say(f"converted as {str(dtype).removeprefix('torch.')} in {time.monotonic() - started:.0f} s")


def exact_dtype(weights: Iterable[Tensor]) -> torch.dtype:
    """Return the smallest dtype that holds all of these float32 numbers exactly."""
    fits = set(_SMALLER)
    for weight in weights:
        fits -= {dtype for dtype in fits if not torch.equal(weight.to(dtype).float(), weight)}
    return next((dtype for dtype in _SMALLER if dtype in fits), torch.float32)


def _config(file: Path) -> Any:
    """Return the config of a causal LM.

    Raises:
        NoBase: it is none, or transformers has no way to read it.
    """
    named = read_header(file).architecture
    step = "Give a model of another kind, or its own folder from where it was trained"
    try:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:
        said = " ".join(str(error).split())[:400].rstrip(".")
        raise NoBase(
            f"transformers has no way to read architecture {named!r}: {said}", step
        ) from error
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise NoBase(f"architecture {named!r} is no language model that writes texts", step)
    return config


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write everything, down to the disk.

    Raises:
        OSError: it cannot be written.
    """
    model.hf_quantizer = None  # its weights are plain numbers now
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.name_or_path = ""
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except SafetensorError as error:  # of a full disk, too
        raise OSError(str(error)) from error
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _say(text: str) -> None:
    _tell({"say": text})


def _tell(line: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _end_with_input(folder: Path) -> None:
    """End this process, and what it has written, when its parent's end closes the pipe."""
    os.read(0, 1)  # not through sys.stdin: this thread is still there when that is closed
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    target = Path(sys.argv[2])
    try:
        target.mkdir()
        threading.Thread(target=_end_with_input, args=(target,), daemon=True).start()
        main(Path(sys.argv[1]), target)
    except NoBase as fault:
        _tell({"why": fault.why, "step": fault.step})
        sys.exit(1)
    except OSError as fault:
        full = "Make room there, or choose another folder with --data or OVERTONE_DATA"
        _tell({"why": f"it cannot be written: {fault.strerror or fault}", "step": full})
        sys.exit(1)
