"""Which tokenizers a causal LM can be served and trained with."""

from typing import Any

from adapters_core.tokens.prompts import prompt_of
from adapters_core.tokens.token_texts import TokenTexts
from adapters_core.tokens.written import written

#: Blanks, characters of one to four bytes, words in one and in several parts.
_SAMPLE = "Hello,  world! It's 3\u00b0C; na\u00efve \u65e5\u672c\u8a9e \U0001f30c\n\tThe end."


def check_generates(tokenizer: Any) -> None:
    """Refuse a tokenizer that cannot turn an answer's tokens into text one by one.

    Those over the `tokenizers` library can; transformers' tokenizers that are written in Python, or
    that call SentencePiece or mistral-common, have no such way. A text is made into tokens and
    back, as requests are.

    Raises:
        ValueError: the message names its class and the way out.
    """
    name = type(tokenizer).__name__
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(
            f"its tokenizer, {name}, is none of the tokenizers library, which answers are read "
            "with token by token. Add a tokenizer.json to the folder "
            "(transformers.convert_slow_tokenizer makes one of many)"
        )
    try:
        ids = prompt_of(tokenizer, _SAMPLE).ids
        one_by_one = written(TokenTexts(backend), (), ids)
        at_once = backend.decode(ids, skip_special_tokens=True)
    except Exception as error:  # whatever a library raises over files of any origin
        raise ValueError(f"its tokenizer, {name}, cannot read or write a text: {error}") from error
    if one_by_one != at_once:
        raise ValueError(
            f"its tokenizer, {name}, writes {at_once!r} for tokens that one by one are "
            f"{one_by_one!r}: its decoder is of no kind that answers are streamed with. Use the "
            "decoder of its model's type in tokenizer.json"
        )
