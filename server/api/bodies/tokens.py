"""Answers about the base's tokenizer."""

from typing_extensions import TypedDict


class Tokenized(TypedDict):
    """The tokens of a text.

    Args:
        count: how many they are.
        max_model_len: how many a prompt and its answer may have together.
        token_strs: the text of each; null unless it was asked for.
    """

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Detokenized(TypedDict):
    """The text that tokens say; special tokens are a part of it."""

    prompt: str


class TokenizerInfo(TypedDict):
    """What a client needs to know of the base's tokenizer.

    Args:
        chat_template: null where the base has none.
        bos_token, eos_token, pad_token, unk_token: texts of special tokens, null where there are
            none.
    """

    tokenizer_class: str
    model_max_length: int
    chat_template: str | None
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
