"""Constraints in llguidance's form, and the limits within which it compiles and follows them.

Imports nothing that is slow to import: a process of its own uses it (trial.py).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, regex_to_lark
from llguidance.gbnf_to_lark import any_to_lark

from server.constraints.spec import Kind

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

#: Blanks between JSON's parts: none, one, or a new line with its indent. Without a limit, a base
#: that has lost its way writes blanks for ever.
_BLANKS = r" ?|\r?\n[ \t]{0,40}"
#: These go over what a schema itself says of the library's options.
_JSON_OPTIONS: JsonCompileOptions = {
    "whitespace_pattern": _BLANKS,
    "lenient": False,
    "coerce_one_of": False,
}

#: Digits and letters of \\d and \\w are ASCII's, as in a schema's patterns.
_ASCII = "dw"


def grammar_of(kind: Kind, text: str) -> str:
    """Return a constraint in llguidance's form.

    Args:
        kind: how `text` is to be read.
        text: as in `ConstraintSpec`; of `parts` JSON with its `grammar`, and `schemas` by names.

    Raises:
        ValueError: it is malformed.
    """
    if kind == "json_schema":
        return _of_schema(text)
    if kind == "parts":
        return _of_parts(**json.loads(text))
    return json.dumps({"grammars": [{"lark_grammar": _lark(kind, text)}]})


def matcher_of(trie: LLTokenizer, grammar: str) -> LLMatcher:
    """Return a matcher at an answer's beginning; its `get_error` says what is wrong, if anything.

    Args:
        trie: of the base's tokens.
        grammar: as `grammar_of` returns it.
    """
    return LLMatcher(trie, grammar, log_level=0, limits=LLParserLimits(verbose_errors=False))


def _of_schema(text: str) -> str:
    schema = "{}" if text == "true" else text
    return LLMatcher.grammar_from_json_schema(schema, overrides=_JSON_OPTIONS)


def _of_parts(grammar: str, schemas: dict[str, Any]) -> str:
    """Return a grammar in Lark's form with the schemas that it refers to."""
    grammars: list[dict[str, Any]] = [{"lark_grammar": grammar}]
    for name, schema in schemas.items():
        (own,) = json.loads(_of_schema(json.dumps(schema)))["grammars"]
        grammars.append(own | {"name": name})
    return json.dumps({"grammars": grammars})


def _lark(kind: Kind, text: str) -> str:
    if kind == "regex":
        return f"start: /{regex_to_lark(text, _ASCII)}/"
    if kind == "choice":  # one terminal: rules for each would make a row of the parser each
        texts = [json.dumps(one, ensure_ascii=False) for one in json.loads(text)]
        return f"start: CHOICE\nCHOICE: {' | '.join(texts)}"
    try:
        return any_to_lark(text)
    except Exception as error:  # the library's reader of GBNF raises several kinds
        raise ValueError(f"the grammar is no GBNF: {error}") from error
