"""OpenAI's own Python client parses answers into Pydantic models, unmodified."""

import enum
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from typing import Annotated, Any, Literal

import pytest
from openai import OpenAI
from pydantic import BaseModel, Field

import spectra
import tiny
from live import Live

MESSAGES: Any = [{"role": "user", "content": "What was ordered?"}]
CLOSING = {str(tiny.tokenizer().convert_tokens_to_ids(one)): 6 for one in '"}]'}


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Item(BaseModel):
    name: Annotated[str, Field(max_length=8)]
    color: Color
    price: float | None = None


class Gift(BaseModel):
    kind: Literal["gift"]
    note: Annotated[str, Field(pattern="^[a-z ]{1,9}$")]


class Bill(BaseModel):
    kind: Literal["bill"]
    due: date


class Order(BaseModel):
    """An order, as a client's program has it."""

    items: Annotated[list[Item], Field(max_length=2)]
    extra: Gift | Bill
    next: "Order | None" = None


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[OpenAI]:
    assert live.upload("parsed", spectra.files(7)).status_code in (200, 201)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        made = OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0, timeout=60)
        with closing(made):
            yield made


def test_parse_gives_objects_of_a_model(client: OpenAI) -> None:
    for seed in range(4):
        answer = client.chat.completions.parse(
            model="parsed",
            messages=MESSAGES,
            response_format=Order,
            seed=seed,
            logit_bias=CLOSING,
            max_tokens=700,
        )
        (choice,) = answer.choices
        assert choice.finish_reason == "stop"
        assert isinstance(choice.message.parsed, Order)


def test_a_stream_is_parsed_too(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="parsed",
        messages=MESSAGES,
        response_format=Item,
        seed=1,
        logit_bias=CLOSING,
        max_tokens=700,
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "content.delta" in kinds
    assert isinstance(final.choices[0].message.parsed, Item)


def test_vllms_extras_go_through_extra_body(client: OpenAI) -> None:
    """As its pages show them, in both forms."""
    for extra in (
        {"guided_choice": ["yes", "no"]},
        {"structured_outputs": {"choice": ["yes", "no"]}},
    ):
        answer = client.chat.completions.create(
            model="parsed", messages=MESSAGES, extra_body=extra, max_tokens=9
        )
        assert answer.choices[0].message.content in ("yes", "no")
        completion = client.completions.create(
            model="parsed", prompt="Yes?", extra_body=extra, max_tokens=9
        )
        assert completion.choices[0].text in ("yes", "no")
