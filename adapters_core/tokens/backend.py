"""Which tokenizers a causal LM can be served and trained with."""

from typing import Any


def check_generates(tokenizer: Any) -> None:
    """Refuse a tokenizer that cannot turn an answer's tokens into text one by one.

    The `tokenizers` library can (its `DecodeStream`); transformers' tokenizers that are written in
    Python, or that call SentencePiece or mistral-common, have no such way.

    Raises:
        ValueError: the message names its class and the way out.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ValueError(
            f"its tokenizer, {type(tokenizer).__name__}, is none of the tokenizers library, which "
            "answers are read with token by token. Add a tokenizer.json to the folder "
            "(transformers.convert_slow_tokenizer makes one of many)"
        )
