"""Two texts are read as the tokenizer itself reads them, and scored as CrossEncoder scores them."""

import random
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from transformers import BertTokenizer, PreTrainedTokenizer

import tiny_encoders as te
from encoder_parts import Injected
from server.base.loading import make_encoder
from server.encoding.build import _pairs
from server.encoding.check import UnsupportedBase, check_pairs
from server.encoding.encoder import Input, TypedText, group_of
from server.encoding.pairs import NoPairs, Pairs, TextPair, activation_of, longest_first
from server.errors import InvalidRequest, PromptTooLong
from tokenizer_kinds import WORDS

FIELDS = ("query", "documents[0]")


class Words(PreTrainedTokenizer):
    """A tokenizer in Python, one token a word."""

    def __init__(self, **named: Any) -> None:
        self._words = {word: number for number, word in enumerate(["[S]", "[U]", *WORDS, "a", "b"])}
        super().__init__(sep_token="[S]", unk_token="[U]", **named)

    @property
    def vocab_size(self) -> int:
        return len(self._words)

    def get_vocab(self) -> Mapping[str, int]:
        return dict(self._words)

    def _tokenize(self, text: str, **named: Any) -> list[str]:
        return text.split()

    def _convert_token_to_id(self, token: str) -> int:
        return self._words.get(token, 1)

    def _convert_id_to_token(self, index: int) -> str:
        return [*self._words][index]

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        return [*token_ids_0, 0, *(token_ids_1 or []), 0]


def read(pairs: Pairs, first: str, second: str, truncate: bool = False) -> Input:
    (found,) = pairs.inputs([TextPair(first, second, FIELDS)], truncate)
    return found


def own(tokenizer: Any, first: str, second: str, **named: Any) -> Input:
    found = tokenizer(first, second, verbose=False, **named)
    ids, types = tuple(found["input_ids"]), found.get("token_type_ids")
    return ids if types is None else TypedText(ids, tuple(types))


TOKENIZERS = {
    "bert": lambda **named: te.tokenizer(pairs="bert", **named),
    "roberta": lambda **named: te.tokenizer(pairs="roberta", **named),
    "plain": lambda **named: te.tokenizer(pairs="plain", **named),
    "wordpiece": lambda **named: BertTokenizer(
        vocab={w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, "a", "b"])},
        **named,
    ),
}


@pytest.mark.parametrize("kind", [*TOKENIZERS, "python"])
def test_a_pair_is_what_the_tokenizer_makes_of_it(kind: str) -> None:
    tokenizer = Words() if kind == "python" else TOKENIZERS[kind]()
    has_types = "token_type_ids" in tokenizer.model_input_names
    pairs = Pairs(tokenizer, 512, has_types)
    chance = random.Random(0)
    for _ in range(50):
        texts = [" ".join(chance.choices(WORDS, k=chance.randint(1, 12))) for _ in range(2)]
        assert read(pairs, *texts) == own(tokenizer, *texts)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_pair_that_is_too_long_is_cut_as_the_tokenizer_cuts_it(kind: str, side: str) -> None:
    tokenizer = TOKENIZERS[kind](truncation_side=side)
    has_types = "token_type_ids" in tokenizer.model_input_names
    chance = random.Random(1)
    for _ in range(300):
        most = chance.randint(5, 30)
        texts = [" ".join(chance.choices(WORDS, k=chance.randint(1, 20))) for _ in range(2)]
        want = own(tokenizer, *texts, truncation="longest_first", max_length=most)
        tokenizer(*texts, truncation=False)  # its state is the backend's
        assert read(Pairs(tokenizer, most, has_types), *texts, truncate=True) == want


def test_the_longer_text_is_cut_first() -> None:
    assert longest_first(3, 4, 10) == (3, 4)
    assert longest_first(3, 40, 10) == (3, 7)
    assert longest_first(40, 3, 10) == (7, 3)
    assert longest_first(40, 50, 11) == (5, 6)
    assert longest_first(50, 40, 11) == (6, 5)
    assert longest_first(5, 5, 0) == (0, 0)


@pytest.mark.parametrize(
    ("first", "second", "field"),
    [("a", "b" * 30, "documents[0]"), ("a" * 30, "b", "query"), ("a" * 9, "b" * 9, "documents[0]")],
)
def test_a_pair_that_is_too_long_is_refused_with_the_field_of_the_text_at_fault(
    first: str, second: str, field: str
) -> None:
    pairs = Pairs(te.tokenizer(pairs="bert"), 16, True)
    with pytest.raises(
        PromptTooLong, match=f"{len(second if field != 'query' else first)} tokens"
    ) as caught:
        read(pairs, first, second)
    assert caught.value.param == field
    assert "at most 16" in caught.value.message
    assert len(read(pairs, first, second, truncate=True)) == 16  # type: ignore[arg-type]


def test_a_query_of_many_documents_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = Pairs(te.tokenizer(pairs="bert"), 16, True)
    seen: list[str] = []
    from server.encoding import pairs as module

    plain = module.ids_of
    monkeypatch.setattr(module, "ids_of", lambda t, text: (seen.append(text), plain(t, text))[1])
    given = [TextPair("query", f"document {i}", FIELDS) for i in range(20)]
    assert len(pairs.inputs(given, truncate=True)) == 20
    assert seen.count("query") == 1
    assert len(seen) == 21


def test_a_tokenizer_that_mixes_two_texts_is_refused() -> None:
    class Mixing(Words):
        def build_inputs_with_special_tokens(
            self, token_ids_0: list[int], token_ids_1: list[int] | None = None
        ) -> list[int]:
            return [*(token_ids_1 or []), 0, *token_ids_0]

    with pytest.raises(NoPairs, match="one text behind the other"):
        Pairs(Mixing(), 64, False)


def test_a_tokenizer_of_single_texts_is_refused() -> None:
    class Single(Words):
        def build_inputs_with_special_tokens(
            self, token_ids_0: list[int], token_ids_1: list[int] | None = None
        ) -> list[int]:
            if token_ids_1 is not None:
                raise ValueError("one text only")
            return token_ids_0

    with pytest.raises(NoPairs, match="two texts at once .*one text only"):
        Pairs(Single(), 64, False)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "Sigmoid"),
        ({"sentence_transformers": {"version": "5.0"}}, "Sigmoid"),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            "Identity",
        ),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "Identity"),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}},
            "Sigmoid",
        ),
    ],
)
def test_the_activation_is_that_of_the_bases_config(changes: Any, expected: str) -> None:
    activation = activation_of(te.config("bert", **changes))
    logits = torch.linspace(-4, 4, 9, dtype=torch.float64)
    assert torch.equal(activation(logits), getattr(torch.nn, expected)()(logits))
    pairs = Pairs(te.tokenizer(), 16, False, activation)
    rows = [logit[None].float() for logit in logits]
    assert pairs.scores(rows) == [float(activation(row.double())) for row in rows]
    assert pairs.scores(rows, use_activation=False) == [float(row) for row in rows]


def test_an_activation_that_is_not_known_is_named() -> None:
    own = {"activation_fn": "torch.nn.modules.activation.Tanh"}
    with pytest.raises(NoPairs, match=r"activation\.Tanh"):
        activation_of(te.config("bert", sentence_transformers=own))


def test_several_labels_are_no_score() -> None:
    pairs = Pairs(te.tokenizer(), 16, False)
    with pytest.raises(InvalidRequest, match="3 labels") as caught:
        pairs.scores([torch.zeros(1), torch.zeros(3)])
    assert caught.value.param == "model"


def test_texts_with_types_and_without_share_no_batch() -> None:
    ids = (1, 2, 3)
    assert group_of(TypedText(ids, (0, 0, 0)), 64) != group_of(ids, 64)
    assert group_of(TypedText(ids, (0, 1, 1)), 64) == group_of(TypedText(ids, (0, 0, 0)), 64)


class TypesIgnored(Injected):
    """An encoder that forgets the types of tokens."""

    def forget(self) -> None:
        plain = self.encoder._tensors

        def without(*args: Any) -> dict[str, torch.Tensor]:
            return {k: t for k, t in plain(*args).items() if k != "token_type_ids"}

        self.encoder._tensors = without  # type: ignore[method-assign]


def test_pairs_are_checked_at_the_start_with_their_types() -> None:
    base = make_encoder(te.model("bert"), te.tokenizer(pairs="bert"), "tiny", "text classifier")
    injected = TypesIgnored(base)
    pairs = Pairs.of(injected.injection.model, base.tokenizer, base.max_length)
    assert pairs.has_types
    check_pairs(injected.encoder, injected.injection, base, pairs)
    injected.forget()
    with pytest.raises(UnsupportedBase, match="differs by"):
        check_pairs(injected.encoder, injected.injection, base, pairs)
    found, why = _pairs(injected.encoder, injected.injection, base)
    assert found is None
    assert "differs by" in why
