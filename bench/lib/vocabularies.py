"""Tokenizers of any size, trained on the text that every machine has: Python's own source."""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

#: Bytes of text for each token of the vocabulary.
_BYTES_A_TOKEN = 600
_END = "<end>"


def byte_level(size: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with about `size` tokens; 150,000 take a minute."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(_texts(size * _BYTES_A_TOKEN), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=_END)


def _texts(most: int) -> Iterator[str]:
    """Yield source files, the standard library's first, up to `most` bytes together."""
    paths = sysconfig.get_paths()
    folders = dict.fromkeys(Path(paths[name]) for name in ("stdlib", "purelib"))
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            text = file.read_bytes().decode(errors="ignore")
            most -= len(text)
            if most < 0:
                return
            yield text
