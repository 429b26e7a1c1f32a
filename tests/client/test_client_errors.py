import pickle
from typing import Any

import httpx2
import pytest

import overtone_client
from overtone_client import (
    APIError,
    Client,
    ConnectionFailed,
    ConnectionLost,
    InternalError,
    InvalidArgument,
    InvalidResponse,
    NotFound,
    Overloaded,
    OvertoneError,
    Timeout,
    Unavailable,
)
from overtone_client._session import NEXT_STEPS

CODES = {  # the table of the API's specification
    400: ["invalid_request", "unsupported_parameter", "context_length_exceeded"],
    401: ["invalid_api_key"],
    403: ["insufficient_scope"],
    404: ["model_not_found", "not_found"],
    409: ["base_mismatch", "name_conflict", "adapter_in_use"],
    412: ["precondition_failed"],
    413: ["too_large"],
    422: ["invalid_adapter", "unknown_method", "unused_tensors", "no_effect", "non_finite"],
    429: ["overloaded"],
    500: ["internal_error"],
    503: ["registry_unavailable", "draining", "not_ready", "out_of_memory"],
    504: ["deadline_exceeded"],
}
ROWS = [(status, code) for status, codes in CODES.items() for code in codes]


def failing(status: int, **answer: Any) -> Client:
    return Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(status, **answer)))


def raised_by(status: int, **answer: Any) -> OvertoneError:
    with failing(status, **answer) as client, pytest.raises(OvertoneError) as caught:
        client.show("demo")
    return caught.value


@pytest.mark.parametrize(("status", "code"), ROWS)
def test_each_code_has_its_class(status: int, code: str) -> None:
    fault = {"message": "what happened", "type": "t", "param": "where", "code": code}
    error = raised_by(status, json={"error": fault}, headers={"X-Request-Id": "req-7"})
    expected = getattr(overtone_client, code.title().replace("_", ""))
    assert type(error) is expected
    assert isinstance(error, APIError)
    assert (error.status, error.code, error.message) == (status, code, "what happened")
    assert (error.param, error.request_id) == ("where", "req-7")
    assert type(error).status == status


@pytest.mark.parametrize("code", [code for _, code in ROWS])
def test_each_code_has_a_next_step(code: str) -> None:
    assert code in NEXT_STEPS or code in ("invalid_request", "internal_error")


@pytest.mark.parametrize("status", [*CODES, 502, 504])
def test_unknown_code_falls_to_the_class_of_its_status(status: int) -> None:
    error = raised_by(status, json={"error": {"message": "m", "code": "brand_new"}})
    assert isinstance(error, APIError)
    assert type(error) is not APIError
    assert error.code == "brand_new"
    assert error.status == status


def test_unknown_status_is_still_an_api_error() -> None:
    assert type(raised_by(418, text="teapot")) is APIError


@pytest.mark.parametrize("answer", [{"text": "<html>"}, {"json": []}, {"json": {"error": 3}}, {}])
def test_body_that_is_no_error_object_is_mapped_by_status(answer: dict[str, Any]) -> None:
    assert isinstance(raised_by(500, **answer), InternalError)


def test_unavailable_is_raised_for_a_proxys_page() -> None:
    error = raised_by(502, text="<html>Bad Gateway</html>")
    assert isinstance(error, Unavailable)
    assert "502" in error.message


def test_foreign_frameworks_error_keeps_its_message() -> None:
    assert raised_by(404, json={"detail": "Not Found"}).message == "Not Found"


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("0.5", 0.5), ("tomorrow", None)])
def test_overloaded_says_when_to_try_again(header: str, seconds: float | None) -> None:
    error = raised_by(429, json={"error": {"code": "overloaded"}}, headers={"Retry-After": header})
    assert isinstance(error, Overloaded)
    assert error.retry_after == seconds


def test_error_survives_pickling() -> None:
    error = NotFound("gone", param="name", request_id="req-1")
    copy = pickle.loads(pickle.dumps(error))
    assert vars(copy) == vars(error)


def below(cls: type[Exception]) -> list[type[Exception]]:
    return [cls, *(each for sub in cls.__subclasses__() for each in below(sub))]


EXPECTED = {
    httpx2.ConnectTimeout: ConnectionFailed,
    httpx2.TimeoutException: Timeout,
    httpx2.LocalProtocolError: InvalidArgument,
    httpx2.UnsupportedProtocol: InvalidArgument,
    httpx2.ReadError: ConnectionLost,
    httpx2.WriteError: ConnectionLost,
    httpx2.CloseError: ConnectionLost,
    httpx2.RemoteProtocolError: ConnectionLost,
    httpx2.SSEError: InvalidResponse,
    httpx2.DecodingError: InvalidResponse,
    httpx2.TooManyRedirects: InvalidResponse,
    httpx2.TransportError: ConnectionFailed,
    httpx2.RequestError: InvalidResponse,
}


@pytest.mark.parametrize("theirs", below(httpx2.RequestError))
def test_every_failure_of_the_transport_is_mapped(theirs: type[Exception]) -> None:
    def fail(request: httpx2.Request) -> httpx2.Response:
        raise theirs("as they say")

    ours = next(EXPECTED[cls] for cls in theirs.__mro__ if cls in EXPECTED)
    with (
        Client("http://127.0.0.1:9", transport=httpx2.MockTransport(fail)) as client,
        pytest.raises(OvertoneError, match=r"http://127\.0\.0\.1:9.*as they say") as caught,
    ):
        client.models()
    assert type(caught.value) is ours


def test_refused_connection_says_how_to_start_a_server() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(ConnectionFailed) as caught:
        client.models()
    assert "127.0.0.1:9" in caught.value.message
    assert "overtone serve" in caught.value.message
    assert "overtone demo" in caught.value.message


@pytest.mark.parametrize(
    "answer",
    [
        {"text": "<html>hello</html>"},
        {"json": []},
        {"json": "text"},
        {"json": {"name": "demo"}},
        {"json": {"name": "demo", "version": "x", "digest": "d"}},
        {"content": b"\xff\xfe\xfa"},
    ],
)
def test_answer_of_another_server_is_an_invalid_response(answer: dict[str, Any]) -> None:
    error = raised_by(200, **answer)
    assert isinstance(error, InvalidResponse)
    assert "Overtone server?" in error.message


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://x", "http://", "http://a:b", "/x"])
def test_bad_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidArgument, match="URL"):
        Client(url)


def test_key_in_the_url_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        Client("http://user:secret@host")
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("key", ["", "two\nlines", "sé", "a b"])
def test_bad_key_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Client(api_key=key)
    assert not key or key not in caught.value.message
