"""Every field of the installed PEFT's configs has one meaning here, or is refused."""

import dataclasses
import time
from typing import Any

import pytest
import regex
from peft import (
    C3AConfig,
    FourierFTConfig,
    FrodConfig,
    LoraConfig,
    ShiraConfig,
    TinyLoraConfig,
    VeraConfig,
    WaveFTConfig,
)

from adapters_core.contract.method_registry import registered
from adapters_core.contract.peft_config import PeftConfig, _within
from adapters_core.contract.peft_fields import NEUTRAL, READ, REFUSED, VALUES
from adapters_core.errors import InvalidAdapter

#: Method -> the config class that PEFT reads its files with; LoCA and CLoRA are not PEFT's.
CONFIGS: dict[str, type] = {
    "c3a": C3AConfig,
    "dora": LoraConfig,
    "fourierft": FourierFTConfig,
    "frod": FrodConfig,
    "lora": LoraConfig,
    "shira": ShiraConfig,
    "tinylora": TinyLoraConfig,
    "vera": VeraConfig,
    "waveletft": WaveFTConfig,
}
OURS = {"clora", "loca"}


def test_every_method_that_peft_has_is_walked() -> None:
    assert set(CONFIGS) | OURS == set(registered())


@pytest.mark.parametrize("method", list(CONFIGS))
def test_every_field_of_pefts_config_is_read_or_neutral_or_refused(method: str) -> None:
    read = registered()[method].peft_fields
    for field in dataclasses.fields(CONFIGS[method]):
        meanings = [field.name in part for part in (read, READ, NEUTRAL, REFUSED)]
        # `lora` leaves `use_dora` to `dora`, by which it is told apart.
        expected = 0 if (method, field.name) == ("lora", "use_dora") else 1
        assert sum(meanings) == expected, (
            f"{field.name}: say in adapters_core/contract/peft_fields.py or in the method's "
            "peft_fields what it means for an adapter that is served"
        )


def test_no_field_has_two_meanings() -> None:
    assert not set(NEUTRAL) & set(REFUSED)
    assert not READ & (set(NEUTRAL) | set(REFUSED))
    for method in registered().values():
        assert not method.peft_fields & (set(NEUTRAL) | set(REFUSED) | READ), method.name


@pytest.mark.parametrize("method", list(CONFIGS))
def test_pefts_own_defaults_are_taken(method: str) -> None:
    config = PeftConfig(dict(CONFIGS[method](target_modules=["q_proj"]).to_dict()))
    config.refuse_unread(registered()[method].peft_fields)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_refused_field_is_named_with_its_value_and_a_reason(name: str) -> None:
    value: Any = ["lm_head"] if name.endswith("s") else {"x": 1}
    value = "lora_only" if name == "bias" else value
    with pytest.raises(InvalidAdapter) as caught:
        PeftConfig({name: value}).refuse_unread(registered()["lora"].peft_fields)
    assert caught.value.param == name
    assert f"{name} = {value!r} is not" in caught.value.message
    assert REFUSED[name] in caught.value.message


@pytest.mark.parametrize("name", sorted(VALUES))
@pytest.mark.parametrize("value", ["nonsense", 7, ["none"], {"a": 1}])
def test_a_value_that_peft_does_not_have_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidAdapter) as caught:
        PeftConfig({name: value}).refuse_unread(())
    assert caught.value.param == name
    assert f"{name} = {value!r} is not one of " in caught.value.message


def test_a_field_that_no_method_has_is_refused() -> None:
    with pytest.raises(InvalidAdapter, match="sparkle = 3 is not supported: it is no field") as e:
        PeftConfig({"sparkle": 3}).refuse_unread(())
    assert e.value.param == "sparkle"


def test_a_pattern_is_given_its_own_time_and_not_that_of_other_threads() -> None:
    limits: list[float] = []

    def match(target: str, timeout: float) -> str:
        limits.append(timeout)
        if len(limits) < 4:
            raise TimeoutError  # other threads ran; this one has hardly begun
        return target

    assert _within(0.05, match, "a.q_proj") == "a.q_proj"
    assert limits == [0.05, 0.1, 0.2, 0.4]


def test_a_pattern_that_takes_its_own_time_ends() -> None:
    start = time.thread_time()
    with pytest.raises(TimeoutError):
        _within(0.05, regex.compile(r"(\w|\w\w|\w\w\w|.)*[!?]").match, "a" * 64)
    assert time.thread_time() - start < 2.0
