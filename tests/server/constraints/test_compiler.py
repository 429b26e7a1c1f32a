"""Constraints from a request's words to masks, token by token."""

import asyncio
import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

import tiny
import tokenizer_kinds
from adapters_core.tokens.token_texts import TokenTexts
from adapters_core.tokens.written import written
from server.constraints import compiler, trial_process
from server.constraints.compiler import Constraints
from server.constraints.matcher import Compiled
from server.constraints.spec import ConstraintSpec
from server.constraints.trie import Vocabulary
from server.constraints.vocabulary import NotReadable
from server.errors import InvalidRequest, Overloaded, ServingError, UnsupportedParameter
from structured import answer_of, chosen, compiled, constraints_of, tokens_of

PARAM = "response_format"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "old": {"type": "boolean"}},
    "required": ["name", "old"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def constraints() -> Iterator[Constraints]:
    """Those of a base with one token a byte, and more logits than tokens."""
    with constraints_of(tiny.tokenizer(), tiny.VOCABULARY + 7) as made:
        yield made


SPECS = [
    (ConstraintSpec.regex("[0-9]{2,4}-[a-f]", PARAM), lambda text: text[-2] == "-"),
    (ConstraintSpec.choice(["yes", "no", 'a "b"\n'], PARAM), {"yes", "no", 'a "b"\n'}.__contains__),
    (ConstraintSpec.json_schema(SCHEMA, PARAM), lambda t: set(json.loads(t)) == {"name", "old"}),
    (ConstraintSpec.grammar('start: "a" start "b" | "c"', PARAM), lambda t: t.count("c") == 1),
    (ConstraintSpec.grammar('root ::= "x" [0-9]+ "y"', PARAM), lambda t: t[0] + t[-1] == "xy"),
]


@pytest.mark.parametrize(("spec", "holds"), SPECS, ids=lambda one: getattr(one, "kind", ""))
@pytest.mark.parametrize(
    "kind", ["bytes", "byte-level", "byte fallback", "gemma", "unigram, always"]
)
def test_random_allowed_tokens_make_what_was_asked_for(kind: str, spec: Any, holds: Any) -> None:
    tokenizer = tiny.tokenizer() if kind == "bytes" else tokenizer_kinds.tokenizer(kind)
    with constraints_of(tokenizer, len(tokenizer)) as constraints:
        constraint = compiled(constraints, spec)
    texts = [answer_of(constraint, tokenizer, seed) for seed in range(15)]
    whole = [text for text in texts if text is not None]
    assert len(whole) > 5
    assert all(holds(text) for text in whole), whole


def test_an_end_token_is_allowed_only_where_the_answer_may_end(constraints: Constraints) -> None:
    matcher = compiled(constraints, ConstraintSpec.regex("ab?", PARAM)).begin(frozenset({tiny.EOS}))
    byte = tiny.tokenizer().convert_tokens_to_ids
    assert tokens_of(matcher.allowed(may_end=True)) == {byte("a")}
    assert not matcher.advance(byte("a"))
    assert tokens_of(matcher.allowed(may_end=True)) == {byte("b"), tiny.EOS}
    assert tokens_of(matcher.allowed(may_end=False)) == {byte("b")}
    assert matcher.advance(byte("b")), "nothing may follow"


def test_what_no_token_may_follow_says_why(constraints: Constraints) -> None:
    spec = ConstraintSpec.regex("ab", PARAM)
    matcher = compiled(constraints, spec).begin(frozenset({tiny.EOS}))
    matcher.advance(tiny.EOS + 1)
    assert matcher.allowed(may_end=True) is None
    assert isinstance(matcher.fault, InvalidRequest)
    assert matcher.fault.param == PARAM


def test_a_stop_token_is_not_allowed_before_the_answer_may_end(constraints: Constraints) -> None:
    """The samplers forbid it, and would have no token left."""
    token = tiny.tokenizer().convert_tokens_to_ids("x")
    constraint = compiled(constraints, ConstraintSpec.regex("x{4}", PARAM))
    matcher = constraint.begin(frozenset({token}))
    assert tokens_of(matcher.allowed(may_end=True)) == {token}
    assert matcher.allowed(may_end=False) is None
    assert "min_tokens" in str(matcher.fault)


def test_what_waits_to_be_compiled_is_cancelled_at_the_end() -> None:
    async def run() -> list[Compiled | BaseException]:
        constraints = Constraints(tiny.tokenizer(), tiny.VOCABULARY)
        specs = [ConstraintSpec.regex(f"a{{{i}}}", PARAM) for i in range(60)]
        asked = [asyncio.create_task(constraints.compiled(spec)) for spec in specs]
        await asyncio.sleep(0)
        await asyncio.to_thread(constraints.close)
        return await asyncio.gather(*asked, return_exceptions=True)

    cancelled = [isinstance(one, asyncio.CancelledError) for one in asyncio.run(run())]
    assert any(cancelled)


def test_what_was_not_tried_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ConstraintSpec.regex("[a-f]{40}", PARAM)
    with constraints_of(tiny.tokenizer()) as constraints:
        compiled(constraints, ConstraintSpec.regex("a", PARAM))
        assert constraints._trial is not None
        assert constraints._trial._process is not None
        constraints._trial._process.send_signal(signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(trial_process, "_MAX_WALL_S", 0.2)
            with pytest.raises(Overloaded, match="send it again"):
                compiled(constraints, spec)
        assert compiled(constraints, spec).matcher


def test_tokens_that_cannot_be_read_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def unreadable(_: Any, size: int) -> Vocabulary:
        read.append(size)
        raise NotReadable("it writes 'ab' for tokens that are 'a b' one by one")

    monkeypatch.setattr(compiler, "vocabulary_of", unreadable)
    with constraints_of(tiny.tokenizer()) as constraints:
        for pattern in ("a", "b"):
            with pytest.raises(UnsupportedParameter, match="'a b' one by one"):
                compiled(constraints, ConstraintSpec.regex(pattern, PARAM))
    assert len(read) == 1


def test_what_the_bases_tokens_cannot_write_is_refused_before_anything_runs() -> None:
    tokenizer = tokenizer_kinds.tokenizer("unigram, always")
    refused = pytest.raises(InvalidRequest, match="none of the base's tokens")
    with constraints_of(tokenizer, len(tokenizer)) as constraints, refused:
        compiled(constraints, ConstraintSpec.choice(["ß"], PARAM))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            ConstraintSpec.json_schema({"uniqueItems": True, "not": {}}, PARAM),
            '"not", "uniqueItems"',
        ),
        (ConstraintSpec.json_schema({"type": "text"}, PARAM), "text"),
        (ConstraintSpec.json_schema({"$ref": "#/$defs/none"}, PARAM), "none"),
        (ConstraintSpec.regex("(?=a)b", PARAM), "look-around"),
        (ConstraintSpec.regex("a(", PARAM), "unclosed"),
        (ConstraintSpec.grammar('start: "a" b', PARAM), "unknown name"),
        (ConstraintSpec.grammar("root ::= (", PARAM), "GBNF"),
    ],
    ids=lambda one: getattr(one, "text", ""),
)
def test_what_cannot_be_compiled_is_refused_by_name(
    constraints: Constraints, spec: ConstraintSpec, words: str
) -> None:
    with pytest.raises(ServingError, match=words) as refusal:
        compiled(constraints, spec)
    assert refusal.value.param == PARAM


def test_equal_constraints_are_compiled_once(constraints: Constraints) -> None:
    async def both() -> tuple[Compiled, Compiled]:
        specs = [ConstraintSpec.json_schema(dict(SCHEMA), PARAM) for _ in range(2)]
        one, other = await asyncio.gather(*map(constraints.compiled, specs))
        return one, other

    one, other = asyncio.run(both())
    assert one is other


@pytest.mark.parametrize("kind", ["unigram, always", "byte fallback", "gemma", "wordpiece"])
@pytest.mark.parametrize("before", ["", "hello"])
def test_an_answer_says_what_it_should_at_a_texts_beginning_too(kind: str, before: str) -> None:
    """Where a prompt is special tokens alone, decoders drop the first blank of what follows."""
    tokenizer = tokenizer_kinds.tokenizer(kind)
    texts = TokenTexts(tokenizer.backend_tokenizer)
    prompt = [tokenizer.bos_token_id, *tokenizer(before, add_special_tokens=False)["input_ids"]]
    with constraints_of(tokenizer) as constraints:
        wanted = ["key", " key", " value"]
        constraint = compiled(constraints, ConstraintSpec.choice(wanted, PARAM))
        for seed in range(12):
            tokens = chosen(constraint, tokenizer, seed, prompt)
            assert tokens is None or written(texts, prompt, tokens) in wanted


def test_sequences_of_one_constraint_do_not_disturb_each_other(constraints: Constraints) -> None:
    constraint = compiled(constraints, ConstraintSpec.regex("a(bc|d)e", PARAM))
    byte = tiny.tokenizer().convert_tokens_to_ids
    one, other = (constraint.begin(frozenset()) for _ in range(2))
    one.advance(byte("a"))
    one.advance(byte("b"))
    assert tokens_of(one.allowed(may_end=True)) == {byte("c")}
    assert tokens_of(other.allowed(may_end=True)) == {byte("a")}
