"""Every error class has a status and a code of the published table, and the client knows it."""

import itertools
import json
from collections.abc import Iterator

import pytest

import overtone_client as client
from adapters_core.errors import AdapterError, CanaryFailed
from overtone_client.errors import api_error_class
from registry.errors import CorruptRecord, RegistryError
from server.errors import FAMILIES, STATUS, InternalError, ServingError, body_of, status_of

#: The published table: status -> codes.
TABLE = {
    400: {"invalid_request", "unsupported_parameter", "context_length_exceeded"},
    401: {"invalid_api_key"},
    403: {"insufficient_scope", "forbidden_origin", "not_owner", "quota_exceeded"},
    404: {"model_not_found", "not_found"},
    405: {"invalid_request"},
    408: {"request_timeout"},
    409: {"base_mismatch", "name_conflict", "adapter_in_use"},
    412: {"precondition_failed"},
    413: {"too_large"},
    415: {"unsupported_media_type"},
    422: {"invalid_adapter", "unknown_method", "unused_tensors", "no_effect", "non_finite"},
    429: {"overloaded", "rate_limit_exceeded"},
    431: {"too_large"},
    500: {"internal_error"},
    504: {"deadline_exceeded"},
    503: {"registry_unavailable", "draining", "not_ready", "out_of_memory"},
    507: {"storage_full"},
}
CODES = sorted(set(itertools.chain.from_iterable(TABLE.values())))


def tree(cls: type[Exception]) -> Iterator[type[Exception]]:
    yield cls
    for subclass in cls.__subclasses__():
        yield from tree(subclass)


OURS = [cls for family in FAMILIES for cls in tree(family)]


def test_the_families_are_the_three_packages_roots() -> None:
    assert set(FAMILIES) == {ServingError, AdapterError, RegistryError}
    assert len(OURS) > 25


@pytest.mark.parametrize("cls", OURS, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_an_error_class_has_a_status_and_a_code_of_the_table(cls: type[Exception]) -> None:
    assert any(base in STATUS for base in cls.__mro__)
    error = cls("what went wrong")
    told = body_of(error)["error"]
    assert told["code"] in TABLE[status_of(error)]
    assert told["message"] == "what went wrong"
    assert set(told) == {"message", "type", "param", "code"}
    json.dumps(told)


@pytest.mark.parametrize("code", CODES)
def test_the_client_has_a_class_of_its_own_for_every_code(code: str) -> None:
    (status,) = {s for s, codes in TABLE.items() if code in codes and s not in (405, 431)}
    known = api_error_class(code, 0)
    assert known.code == code
    assert issubclass(known, client.APIError)
    assert known is not client.APIError
    assert known.status == status
    assert getattr(client, known.__name__) is known


def test_a_class_added_below_a_known_one_has_its_status() -> None:
    class Worse(CanaryFailed):
        pass

    assert status_of(Worse("x")) == status_of(CanaryFailed("x")) == 503


@pytest.mark.parametrize("error", [RuntimeError("secret at 0x7f"), KeyError("secret"), OSError(2)])
def test_an_error_of_no_family_tells_nothing(error: Exception) -> None:
    assert status_of(error) == 500
    told = body_of(error)["error"]
    assert (told["code"], told["type"], told["param"]) == ("internal_error", "server_error", None)
    assert "secret" not in json.dumps(told)


@pytest.mark.parametrize("cls", [InternalError, CorruptRecord])
def test_our_own_fault_is_500_for_the_caller(cls: type[Exception]) -> None:
    assert status_of(cls("x")) == 500
    assert body_of(cls("x"))["error"]["code"] == "internal_error"


def test_openai_types_follow_the_status() -> None:
    types = {status_of(cls("x")): body_of(cls("x"))["error"]["type"] for cls in OURS}
    assert types[400] == types[422] == types[409] == "invalid_request_error"
    assert types[401] == "authentication_error"
    assert types[404] == "not_found_error"
    assert types[429] == "rate_limit_error"
    assert types[500] == types[503] == "server_error"
