"""A base's tokens as the bytes that they write, read from its tokenizer and held against it."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from adapters_core.tokens.continuing import continuing
from adapters_core.tokens.token_texts import TokenTexts
from server.constraints.trie import Vocabulary

#: Tokens of one text that is compared with what the tokenizer itself writes.
_TOGETHER = 24


class NotReadable(Exception):
    """The tokenizer writes texts that are not its tokens' bytes put together."""


def vocabulary_of(tokenizer: Any, size: int) -> Vocabulary:
    """Return the vocabulary of a base; takes a second or two for a large one.

    Args:
        tokenizer: transformers', over one of the `tokenizers` library.
        size: of the base's logits, which may be more or fewer than the tokens.

    Raises:
        NotReadable: texts are not their tokens' bytes put together; the message says of what.
    """
    backend = tokenizer.backend_tokenizer
    texts = TokenTexts(backend)
    special = {i: texts.name(i) for i in sorted(texts.special) if i < size}
    numbers = [i for i in range(size) if i not in special and texts.name(i)]
    before = _any_text(texts, numbers)
    written = {i: texts.bytes_of(i, before) for i in numbers}
    whole = {i: written[i].decode() for i in numbers if texts.raw(i) is None}
    _check(backend, before, whole)
    alone = backend.decode_batch([[i] for i in whole])
    changed = [i for i, text in zip(whole, alone, strict=True) if text != whole[i]]
    return Vocabulary(
        [written.get(i, b"") for i in range(size)],
        special,
        continuing(tokenizer),
        frozenset(changed),
    )


def _any_text(texts: TokenTexts, numbers: Sequence[int]) -> int:
    """Return a token that others can stand behind.

    Raises:
        NotReadable: there is none.
    """
    for i in numbers:
        if texts.decode([i]).isalnum():
            return i
    raise NotReadable("no token writes a letter or a digit")


def _check(backend: Any, before: int, whole: Mapping[int, str]) -> None:
    """Hold what each token writes against what the tokenizer writes for many.

    Args:
        backend: of the `tokenizers` library.
        before: a token that others can stand behind.
        whole: token -> what it writes there.

    Raises:
        NotReadable: they differ; the message has both.
    """
    shuffled = list(whole)
    Random(0).shuffle(shuffled)
    parts = [shuffled[i : i + _TOGETHER] for i in range(0, len(shuffled), _TOGETHER)]
    first = backend.decode([before])
    texts = backend.decode_batch([[before, *part] for part in parts])
    for part, text in zip(parts, texts, strict=True):
        ours = first + "".join(whole[i] for i in part)
        if text != ours:
            raise NotReadable(f"it writes {text!r} for tokens that are {ours!r} one by one")
