"""Trains the demo's base: a byte-level-BPE Llama of 0.87 million parameters, on two CPU cores.

    python -m trainer.demo_build.demo_base --out DIR [--seconds 90] [--seed 0]
    python -m trainer.demo_build.demo_base --out DIR --steps N

How it learns: demo_training.py; from what: demo_data.py. With N of the card, its seed, threads and
versions, the second line gives the shipped weights, `trainer/demo/base`. DIR must not exist; it
appears whole at the end, or, after Ctrl-C or an error, not at all.
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from platform import python_version
from string import Template
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from trainer.demo_build.demo_data import (
    CHAT_TEMPLATE,
    Document,
    Split,
    as_chat,
    base_documents,
    stored_held_out,
)
from trainer.demo_build.demo_training import Budget, Llama, Recipe, nats_per_token, new_model, train

END, PAD = "<|endoftext|>", "<|pad|>"
PROMPTS = ("json.dumps(", "The Python interpreter", as_chat("What does len do?", "").rstrip())
SAMPLE = 50_000  # training tokens on which the card gives the loss
CARD = Path(__file__).parent.parent / "demo" / "card.md"


def train_tokenizer(texts: Iterable[str], vocabulary: int, longest: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer: every text survives encode and decode unchanged.

    It adds no token by itself; `END` stands between documents and is begin and end at once.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        model_max_length=longest,
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer: PreTrainedTokenizerFast, documents: Iterable[Document]) -> Tensor:
    """Return all documents as one row of ids, int64 [T], `END` before each and after the last."""
    rows = tokenizer.backend_tokenizer.encode_batch([document.text for document in documents])
    end = tokenizer.eos_token_id
    return torch.tensor([end] + [token for row in rows for token in [*row.ids, end]])


def continued(model: Llama, tokenizer: PreTrainedTokenizerFast, prompt: str, most: int = 60) -> str:
    """Return the prompt and the model's greedy continuation, up to its end token."""
    ids = tokenizer(prompt, return_tensors="pt")
    row = model.generate(**ids, max_new_tokens=most, do_sample=False)[0]
    return str(tokenizer.decode(row, skip_special_tokens=True))


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `out` when the block ends, and is gone if it fails.

    Raises:
        FileExistsError: `out` exists.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        raise FileExistsError(f"{out} exists; name a new folder")
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield building
        building.chmod(0o755)
        for file in building.iterdir():
            file.chmod(0o644)
        building.rename(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def card(figures: dict[str, Any]) -> str:
    """Return the model card, figures filled in."""
    return Template(CARD.read_text(encoding="utf-8")).substitute(figures)


def measured(model: Llama, tokenizer: PreTrainedTokenizerFast, data: Split) -> dict[str, Any]:
    """Return the figures that the finished model and its data give."""
    held_out, train = encode(tokenizer, data.held_out), encode(tokenizer, data.train)
    stored = encode(tokenizer, stored_held_out("base"))
    loss, size = nats_per_token(model, held_out), sum(len(d.text.encode()) for d in data.held_out)
    return {
        "parameters": f"{model.num_parameters():,}",
        "stored_tokens": len(stored),
        "stored_loss": f"{nats_per_token(model, stored):.3f}",
        "held_out_documents": len(data.held_out),
        "held_out_tokens": len(held_out),
        "held_out_loss": f"{loss:.3f}",
        "held_out_bits": f"{loss * len(held_out) / size / math.log(2):.2f}",
        "train_sample_tokens": len(train[:SAMPLE]),
        "train_loss": f"{nats_per_token(model, train[:SAMPLE]):.3f}",
        "train_documents": len(data.train),
        "train_characters": sum(len(d.text) for d in data.train),
        "train_tokens": len(train),
        "sample": "\n\n".join(continued(model, tokenizer, prompt) for prompt in PROMPTS),
    }


def make_base(out: Path, recipe: Recipe, budget: Budget, say: Callable[[object], None]) -> None:
    """Train the base and write it, with its card, to the new folder `out`."""
    with whole_folder(out) as folder:
        data = base_documents()
        texts = [document.text for document in data.train]
        tokenizer = train_tokenizer(texts, recipe.vocabulary, recipe.window)
        model, held_out = new_model(recipe), encode(tokenizer, data.held_out)
        untrained = nats_per_token(model, held_out)
        say(f"{model.num_parameters():,} parameters, held-out loss {untrained:.3f}")
        last = train(model, encode(tokenizer, data.train), recipe, budget, say)
        figures = (
            measured(model, tokenizer, data)
            | versions()
            | {
                "untrained_loss": f"{untrained:.3f}",
                "date": date.today(),
                "steps": last.step,
                "seconds": round(last.elapsed_s),
                "threads": torch.get_num_threads(),
                "window": recipe.window,
                "seed": recipe.seed,
                "recipe": json.dumps(asdict(recipe), indent=2),
            }
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(card(figures), encoding="utf-8")
    say(f"{out}: held-out loss {figures['held_out_loss']}")


def versions() -> dict[str, str]:
    """Return the versions that decide the weights."""
    libraries = (torch, transformers, tokenizers)
    return {"python": python_version()} | {lib.__name__: lib.__version__ for lib in libraries}


def _say(line: object) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Read the command line, train, write."""
    parser = argparse.ArgumentParser(description="Train the demo's base.")
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--steps", type=int, help="train so many steps instead of seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    transformers.utils.logging.disable_progress_bar()
    budget = Budget(chosen.seconds, chosen.steps)
    try:
        make_base(chosen.out, Recipe(seed=chosen.seed), budget, _say)
    except FileExistsError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped; nothing was written")


if __name__ == "__main__":
    main()
