"""Training's tokens are serving's: of every family of tokenizers, for every shape of template."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenizer_kinds as kinds
import tool_templates
from adapters_core.calls.form import Call
from adapters_core.calls.reader import read_whole
from adapters_core.tokens.chats import Chat, ChatTemplate
from adapters_core.tokens.ends import turn_end
from adapters_core.tokens.messages import Message, plain_messages
from adapters_core.tokens.template_facts import calls_of
from registry.examples.lm_texts import LearnedText, LMTexts
from server.generation.detokenizer import Text
from server.generation.text_stream import TextForm

#: Kinds that lose blanks or capital letters: what they cannot write is told.
LOSSY = ("split at blanks", "stripping", "wordpiece")
#: What all of them know as a letter, between words that they have learned.
_PIECES = st.sampled_from([*kinds.WORDS, *"kev01=?!. \n'(", "  ", ". ", "key0", " v0"])
words = st.lists(_PIECES, min_size=1, max_size=8).map("".join)
kind = st.sampled_from(list(kinds.KINDS))


def is_lossy(name: str) -> bool:
    return any(word in name for word in LOSSY)


def spans(text: LearnedText) -> Iterator[tuple[list[int], list[int]]]:
    """Yield what stands before each learned part of a text, and that part."""
    start = 0
    for is_learned, group in groupby(text.learned):
        stop = start + len(list(group))
        if is_learned:
            yield text.ids[:start], text.ids[start:stop]
        start = stop


def served(
    tokenizer: Any,
    prompt: Sequence[int],
    ids: Sequence[int],
    shown: frozenset[int] = frozenset(),
) -> str:
    """Return what a server sends for tokens behind a prompt."""
    stream = Text(tokenizer, len(tokenizer)).stream(prompt, TextForm(shown=shown))
    return "".join(stream.push(token).text for token in ids) + stream.flush().text


def without_losses(text: str) -> str:
    return "".join(text.lower().split())


def holds(name: str, wanted: str, said: str, note: str) -> bool:
    """Return whether an answer is served as it was given, or is told to be served otherwise."""
    if said == wanted or not is_lossy(name):
        return said == wanted and (not note or is_lossy(name))
    return note != "" and without_losses(said) == without_losses(wanted)


def completed(name: str, prompt: str, completion: str) -> str:
    """Hold a prompt's completion against serving: return equal, told (in a note) or refused."""
    tokenizer = kinds.tokenizer(name)
    served_prompt = Text(tokenizer, len(tokenizer)).prompt
    try:
        (text,) = LMTexts(tokenizer, frozenset()).of({"prompt": prompt, "completion": completion})
    except ValueError:
        assert is_lossy(name)
        return "refused"
    ((before, answer),) = spans(text)
    assert tuple(before) == served_prompt(prompt) if prompt.strip() else True
    assert answer[-1] == tokenizer.eos_token_id
    assert holds(name, completion, served(tokenizer, before, answer[:-1]), text.note)
    return "told" if text.note else "equal"


def chatted(name: str, shape: str, messages: Sequence[dict[str, Any]]) -> str:
    """Hold every answer of a chat against serving: return equal, told (in a note) or refused."""
    tokenizer = kinds.tokenizer(name, kinds.TEMPLATES[shape])
    text_of = Text(tokenizer, len(tokenizer))
    try:
        texts = LMTexts(tokenizer, frozenset()).of({"messages": messages})
    except ValueError:
        assert is_lossy(name)
        return "refused"
    found = [(span, text.note) for text in texts for span in spans(text)]
    answers = [
        number
        for number, m in enumerate(messages)
        if m["role"] == "assistant" and m.get("weight") != 0
    ]
    plain: list[Message] = [{"role": m["role"], "content": m["content"]} for m in messages]
    stops = text_of.chat_ends | {tokenizer.eos_token_id}
    assert len(found) == len(answers)
    for number, ((before, answer), note) in zip(answers, found, strict=True):
        assert tuple(before) == text_of.chat_prompt(Chat(plain[:number]))
        assert answer[-1] in stops
        said_there = served(tokenizer, before, answer[:-1])
        assert holds(name, plain[number]["content"], said_there, note)
    return "told" if any(note for _, note in found) else "equal"


@settings(max_examples=400, deadline=None)
@given(name=kind, prompt=words, completion=words)
def test_a_completion_is_learned_behind_the_prompt_that_serving_makes(
    name: str, prompt: str, completion: str
) -> None:
    completed(name, prompt, completion)


@settings(max_examples=600, deadline=None)
@given(
    name=kind,
    shape=st.sampled_from(list(kinds.TEMPLATES)),
    said=st.lists(words, min_size=2, max_size=6),
    has_system=st.booleans(),
    left_out=st.booleans(),
)
def test_every_answer_of_a_chat_is_learned_behind_the_prompt_that_serving_makes(
    name: str, shape: str, said: list[str], has_system: bool, left_out: bool
) -> None:
    roles = ["system"] * has_system + ["user", "assistant"] * len(said)
    messages: list[dict[str, Any]] = [
        {"role": role, "content": content} for role, content in zip(roles, said, strict=False)
    ]
    answers = [message for message in messages if message["role"] == "assistant"]
    if left_out and len(answers) > 1:
        answers[0]["weight"] = 0
    if answers:
        chatted(name, shape, messages)


@pytest.mark.parametrize("name", kinds.KINDS)
def test_every_family_of_tokenizers_learns_what_it_serves_with_every_template(name: str) -> None:
    chance = Random(name)

    def said() -> str:
        return "".join(chance.choice([*kinds.WORDS, " ", "=", "v0", "1?", "\n"]) for _ in range(5))

    def turns() -> list[dict[str, Any]]:
        roles = chance.choice([["system"], []]) + ["user", "assistant"] * chance.randint(1, 3)
        return [{"role": role, "content": said()} for role in roles]

    found = Counter(chatted(name, shape, turns()) for shape in kinds.TEMPLATES for _ in range(5))
    found.update(completed(name, said(), said()) for _ in range(5))
    assert found.total() == 5 * (len(kinds.TEMPLATES) + 1)
    assert is_lossy(name) or set(found) == {"equal"}


CHAT = [
    {"role": role, "content": content}
    for role, content in zip(["user", "assistant"] * 2, ["key", "value", "two", "ten"], strict=True)
]


def chat(shape: str, ends: frozenset[int] = frozenset()) -> tuple[Any, list[LearnedText]]:
    tokenizer = kinds.tokenizer("byte-level", kinds.TEMPLATES[shape])
    return tokenizer, LMTexts(tokenizer, ends).of({"messages": CHAT})


def test_a_turns_end_that_is_no_eos_ends_answers_and_no_eos_stands_in_the_history() -> None:
    tokenizer, (text,) = chat("turn end is no eos")
    assert tokenizer.eos_token_id not in text.ids
    assert tokenizer.decode(text.ids) == (
        "<bos><start>user\nkey<turn>\n<start>assistant\nvalue<turn>\n"
        "<start>user\ntwo<turn>\n<start>assistant\nten<turn>"
    )
    assert [tokenizer.decode(answer) for _, answer in spans(text)] == ["value<turn>", "ten<turn>"]


def test_answers_that_the_template_rewrites_later_are_texts_of_their_own() -> None:
    tokenizer, texts = chat("earlier answers are shortened")
    assert [tokenizer.decode(text.ids) for text in texts] == [
        "<start>user key<turn><start>assistant value<turn>",
        "<start>user key<turn><start>assistant v<turn><start>user two<turn>"
        "<start>assistant ten<turn>",
    ]


def test_the_end_that_a_completion_names_is_the_one_that_is_learned() -> None:
    tokenizer = kinds.tokenizer("byte-level")
    turn = tokenizer.convert_tokens_to_ids(kinds.TURN)
    row = {"prompt": "key", "completion": "value<turn>"}
    (text,) = LMTexts(tokenizer, frozenset([turn])).of(row)
    assert tokenizer.decode(text.ids) == "keyvalue<turn>"
    row = {"prompt": "key", "completion": "value<eos>"}
    (text,) = LMTexts(tokenizer, frozenset([turn])).of(row)
    assert tokenizer.decode(text.ids) == "keyvalue<eos>"


def test_an_empty_prompt_is_the_start_token_where_serving_makes_none() -> None:
    for name, start in (("unigram, always", "<bos>"), ("byte-level, bos and eos", "<bos><eos>")):
        tokenizer = kinds.tokenizer(name)
        (text,) = LMTexts(tokenizer, frozenset()).of({"prompt": "", "completion": "v0"})
        ((before, answer),) = spans(text)
        assert tokenizer.decode(before) == start
        assert served(tokenizer, before, answer[:-1]) == "v0"


def test_a_text_is_read_as_a_prompt_and_ends_once() -> None:
    for name in ("byte-level, bos", "byte-level, bos and eos"):
        tokenizer = kinds.tokenizer(name)
        (text,) = LMTexts(tokenizer, frozenset()).of({"text": "key value"})
        assert tokenizer.decode(text.ids) == "<bos>key value<eos>"
        assert all(text.learned)


@pytest.mark.parametrize(
    ("completion", "said"),
    [
        ("val<eos>ue", "'<eos>', which ends an answer, stands within it"),
        ("val<start>ue", "the base's tokenizer makes 'value' of 'val<start>ue'"),
    ],
)
def test_an_answer_that_no_tokens_say_is_refused(completion: str, said: str) -> None:
    texts = LMTexts(kinds.tokenizer("byte-level"), frozenset())
    with pytest.raises(ValueError, match=f"its `completion` .*{said}"):
        texts.of({"prompt": "key", "completion": completion})


def test_letters_that_the_tokenizer_does_not_know_are_refused() -> None:
    texts = LMTexts(kinds.tokenizer("unigram, always"), frozenset())
    with pytest.raises(ValueError, match="makes 'ten ' of 'ten \u65e5\u672c'"):
        texts.of({"prompt": "key", "completion": "ten \u65e5\u672c"})


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{{ messages[0].content + 1 }}", "can only concatenate"),
        ("{{ messages[5].content }}", "list object has no element 5"),
    ],
)
def test_what_a_template_refuses_is_told_with_its_words(template: str, said: str) -> None:
    tokenizer = kinds.tokenizer("byte-level", template)
    with pytest.raises(ValueError, match=f"for the answer in message 2: the base's .*{said}"):
        LMTexts(tokenizer, frozenset()).of({"messages": CHAT})


def test_parts_of_a_content_are_one_text() -> None:
    parts = [{"type": "text", "text": "val"}, {"type": "text", "text": "ue"}]
    messages = [CHAT[0], {"role": "assistant", "content": parts}]
    tokenizer = kinds.tokenizer("byte-level", kinds.TEMPLATES["turn end is eos"])
    (text,) = LMTexts(tokenizer, frozenset()).of({"messages": messages})
    ((_, answer),) = spans(text)
    assert tokenizer.decode(answer) == "value<eos>"


def test_a_label_is_not_dropped() -> None:
    with pytest.raises(ValueError, match="has a `label`, which a causal LM does not learn"):
        LMTexts(kinds.tokenizer("byte-level"), frozenset()).of({"text": "a", "label": "b"})


def test_a_chat_of_a_system_message_and_an_answer_is_learned() -> None:
    messages = [{"role": "developer", "content": "key"}, {"role": "assistant", "content": "value"}]
    tokenizer = kinds.tokenizer("byte-level", kinds.TEMPLATES["turn end is eos"])
    (text,) = LMTexts(tokenizer, frozenset()).of({"messages": messages})
    assert tokenizer.decode(text.ids) == "system:\nkey<eos>\nassistant:\nvalue<eos>"


TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("weather", "time_of")
]


def called(number: int, name: str, arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": f"call{number:05}", "type": "function", "function": function}


ASKING: list[dict[str, Any]] = [
    {"role": "user", "content": "How warm is it?"},
    {"role": "assistant", "content": None, "tool_calls": [called(1, "weather", {"a": "Köln"})]},
    {"role": "tool", "tool_call_id": "call00001", "content": '{"degrees": 22}'},
    {"role": "assistant", "content": "22 degrees."},
    {"role": "user", "content": "And the time?"},
    {"role": "assistant", "tool_calls": [called(2, "time_of", {"b": [1, {"c": None}]})]},
]


@pytest.mark.parametrize("name", tool_templates.TEMPLATES)
def test_answers_with_calls_are_learned_behind_what_serving_makes_and_read_as_they_were_given(
    name: str,
) -> None:
    tokenizer = tool_templates.tokenizer(name)
    template = ChatTemplate(tokenizer)
    texts = LMTexts(tokenizer, frozenset()).of({"messages": ASKING, "tools": TOOLS})
    found = [span for text in texts for span in spans(text)]
    plain = plain_messages(ASKING)
    shown = frozenset(template.call_tokens.values())
    for number, (before, answer) in zip((1, 3, 5), found, strict=True):
        assert before == list(template.prompt(Chat(plain[:number], TOOLS)).ids)
        said = served(tokenizer, before, answer[:-1], shown)
        content, calls = read_whole(template.form, ["weather", "time_of"], said)
        assert content == plain[number]["content"]
        assert calls == [Call(one.name, one.arguments) for one in calls_of(plain[number])]
        assert answer[-1] in {turn_end(tokenizer), tokenizer.eos_token_id}


@pytest.mark.parametrize("name", ["hermes", "none", "new mistral", "mistral with ids"])
def test_content_beside_calls_is_learned_with_them(name: str) -> None:
    tokenizer = tool_templates.tokenizer(name)
    both = {**ASKING[1], "content": "Let me look."}
    (text,) = LMTexts(tokenizer, frozenset()).of({"messages": [ASKING[0], both], "tools": TOOLS})
    ((_, answer),) = spans(text)
    assert tokenizer.decode(answer).startswith("Let me look.")


def refused(name: str, **row: Any) -> str:
    texts = LMTexts(tool_templates.tokenizer(name), frozenset())
    with pytest.raises(ValueError, match="annot be ") as caught:
        texts.of({"tools": TOOLS, "messages": ASKING} | row)
    return str(caught.value)


def test_answers_that_serving_would_give_otherwise_are_refused() -> None:
    both = {**ASKING[1], "content": "Let me look."}
    assert "has content and calls" in refused("llama", messages=[ASKING[0], both])
    several = {**ASKING[1], "tool_calls": [called(i, "weather", {}) for i in (1, 2)]}
    assert "one call an answer" in refused("llama", messages=[ASKING[0], several])
    text = '{"name": "weather", "parameters": {}}'
    like = [ASKING[0], {"role": "assistant", "content": text}]
    assert "has 0 calls, but its text is read as weather" in refused("llama", messages=like)
    assert "no form that is known" in refused(tool_templates.OTHER, messages=ASKING[:2])
    tagged = {**ASKING[1], "content": '<tool_call>{"name": "time_of"}</tool_call>'}
    assert "is read as time_of, weather" in refused("hermes", messages=[ASKING[0], tagged])


def test_without_tools_nothing_is_read_as_a_call() -> None:
    text = '{"name": "weather", "parameters": {}}'
    like = [ASKING[0], {"role": "assistant", "content": text}]
    assert LMTexts(tool_templates.tokenizer("llama"), frozenset()).of({"messages": like})


def test_a_question_is_the_prompt_of_the_first_answer() -> None:
    tokenizer = kinds.tokenizer("byte fallback, old", kinds.TEMPLATES["turn end is eos"])
    texts = LMTexts(tokenizer, frozenset({tokenizer.eos_token_id}))
    chat = [
        {"role": "user", "content": "key0?"},
        {"role": "assistant", "content": "v0", "weight": 0},
        {"role": "user", "content": "key1?"},
        {"role": "assistant", "content": "v1"},
    ]
    asked = texts.question({"messages": chat})
    assert asked is not None
    prompt = ChatTemplate(tokenizer).prompt(Chat(plain_messages(chat[:3])))
    assert (asked.ids, asked.expected) == (list(prompt.ids), "v1")
    assert turn_end(tokenizer) in asked.stops

    plain = texts.question({"prompt": "key0=", "completion": "v0"})
    assert plain is not None
    assert plain.expected == "v0"
    assert "key0=" in plain.prompt


def test_a_text_is_asked_for_by_its_beginning_if_it_has_one() -> None:
    tokenizer = kinds.tokenizer("byte-level")
    texts = LMTexts(tokenizer, frozenset({tokenizer.eos_token_id}))
    asked = texts.question({"text": "key0 " * 60})
    assert asked is not None
    assert len(asked.ids) <= 64
    assert asked.prompt + asked.expected == "key0 " * 60
    assert texts.question({"text": tokenizer.eos_token}) is None
