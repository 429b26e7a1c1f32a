"""A tokenizer for text that goes on behind other text.

Many tokenizers put a blank before every text that they get, drop its leading blanks, or spell a
word's beginning otherwise than its rest. Of an answer made of tokens by itself that would be wrong:
it goes on where the prompt has ended, perhaps within a word.
"""

import json
from collections.abc import Callable
from typing import Any

from tokenizers import Tokenizer

#: Letters, one of which begins no word of a vocabulary.
_LETTERS = "\u01bf\u0292\u03e1\u0545\u10d8\u16a0\u2c80\ua4f4"
#: Pre-tokenizers that split at blanks and throw them away.
_SPLITS_AT_BLANKS = ("WhitespaceSplit", "Whitespace")


def continuing(tokenizer: Any) -> Callable[[str], list[int]]:
    """Return what makes tokens of a text that continues another one; safe in several threads.

    Args:
        tokenizer: transformers', over one of the `tokenizers` library; not changed.
    """
    form = json.loads(tokenizer.backend_tokenizer.to_str())
    form["truncation"] = form["padding"] = form["post_processor"] = None
    form["normalizer"] = _without_prefix(form["normalizer"], "normalizers")
    form["pre_tokenizer"] = _without_prefix(form["pre_tokenizer"], "pretokenizers")
    begun = _begun_word(form["model"], len(tokenizer))
    made = Tokenizer.from_str(json.dumps(form))
    if begun:
        return lambda text: made.encode(begun + text, add_special_tokens=False).ids[1:]
    return lambda text: made.encode(text, add_special_tokens=False).ids


def _without_prefix(part: dict[str, Any] | None, parts: str) -> dict[str, Any] | None:
    """Return a normalizer or pre-tokenizer that neither adds nor drops blanks at the ends.

    Args:
        part: as tokenizer.json has it.
        parts: under which key a sequence has its parts.
    """
    if part is None:
        return None
    kind = part["type"]
    if kind == "Sequence":
        return _sequence_without_prefix(part, parts)
    if kind in ("Prepend", "Strip"):
        return None
    if kind == "Metaspace":
        return {key: part[key] for key in part if key != "add_prefix_space"} | {
            "prepend_scheme": "never"
        }
    return part | {"add_prefix_space": False} if "add_prefix_space" in part else part


def _sequence_without_prefix(part: dict[str, Any], parts: str) -> dict[str, Any] | None:
    kinds = [one["type"] for one in part[parts]]
    given = part[parts]
    if "Metaspace" in kinds:  # it keeps the blanks between words that a split would drop
        given = [one for one in given if one["type"] not in _SPLITS_AT_BLANKS]
    kept = [own for own in (_without_prefix(one, parts) for one in given) if own is not None]
    return part | {parts: kept} if kept else None


def _begun_word(model: dict[str, Any], free: int) -> str:
    """Return what stands for a word that has begun, and give WordPiece's vocabulary a token for it.

    Other models spell a word's rest as they spell its beginning, and need nothing.

    Args:
        model: as tokenizer.json has it; changed.
        free: a token id that may be free.
    """
    if model["type"] != "WordPiece":
        return ""
    vocabulary: dict[str, int] = model["vocab"]
    letter = next(one for one in _LETTERS if not any(word.startswith(one) for word in vocabulary))
    vocabulary[letter] = max(free, *(number + 1 for number in vocabulary.values()))
    return letter
