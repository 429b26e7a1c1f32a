"""A page of another site drives no server without keys; with keys, or by a setting, it may."""

from collections.abc import Callable
from typing import Any

import pytest

from live import Live
from server.api.middleware.other_sites import OtherSites
from server.settings import BadSetting, read_settings

KEY = "a-key-for-tests"
BODY = {"model": "tiny", "prompt": "Once", "max_tokens": 2}
PAGE = "https://app.example"
EVIL = "http://evil.example"


def faults(host: str, **names: Any) -> Callable[[str, str], str | None]:
    """Return what an application that listens on `host` says of a request's Host and Origin."""
    given = {"allowed_hosts": (), "origins": ()} | names

    async def inside(*arguments: Any) -> None:
        raise AssertionError

    gate = OtherSites(inside, host, **given, is_open=lambda: True)

    def fault(asked: str, origin: str = "") -> str | None:
        return gate._fault_of(asked, origin, False)

    return fault


def ask(live: Live, **headers: str) -> tuple[int, str]:
    answer = live.http.post("/v1/completions", json=BODY, headers=headers)
    return answer.status_code, answer.json().get("error", {}).get("code", "")


@pytest.mark.parametrize(
    "host",
    ["", "localhost:8000", "127.0.0.1", "127.8.9.10:80", "[::1]:8000", "LocalHost.", "a.localhost"],
)
@pytest.mark.parametrize("listens", ["127.0.0.1", "localhost", "::1", "0.0.0.0"])
def test_names_of_this_machine_are_answered(listens: str, host: str) -> None:
    assert faults(listens)(host) is None


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"]
    + ["box", "10.0.0.7", "[::2]", "[", "a b", "user@localhost.evil.example", "xlocalhost"],
)
def test_other_names_are_refused_where_this_machine_alone_is_served(host: str) -> None:
    fault = faults("127.0.0.1")(host)
    assert fault is not None
    assert host in fault
    assert "--allowed-hosts (OVERTONE_ALLOWED_HOSTS)" in fault
    assert faults("LOCALHOST")(host) == fault


def test_a_server_for_others_answers_addresses_and_names_that_no_site_has() -> None:
    fault = faults("0.0.0.0")
    for host in ("10.0.0.7:8000", "[fd00::1]:8000", "server:8000", "gpu-box"):
        assert fault(host) is None
    for host in ("evil.example", "gpu.evil.example:8000", "[", ":8000"):
        assert fault(host) is not None
    assert faults("gpu.corp.example")("gpu.corp.example:8000") is None
    named = faults("0.0.0.0", allowed_hosts=("llm.corp.example",))
    assert named("LLM.corp.example") is None
    assert named("other.corp.example") is not None
    assert faults("0.0.0.0", allowed_hosts=("*",))("evil.example") is None


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:3000", "http://127.0.0.1", "https://[::1]:8000", "http://app.localhost"],
)
def test_pages_of_this_machine_may_use_it(origin: str) -> None:
    assert faults("127.0.0.1")("localhost:8000", origin) is None


@pytest.mark.parametrize(
    "origin",
    [EVIL, "null", "file://", "http://6.6.6.6", "http://localhost.evil.example", "http://["]
    + ["chrome-extension://abc", "http://10.0.0.8", "http://box"],
)
def test_other_pages_may_not(origin: str) -> None:
    for fault in (faults("127.0.0.1"), faults("0.0.0.0", allowed_hosts=("*",))):
        found = fault("localhost:8000", origin)
        assert found is not None
        assert origin in found
        assert "--allow-origins (OVERTONE_ALLOW_ORIGINS)" in found


def test_a_page_of_the_server_itself_may_use_it_under_every_name_it_has() -> None:
    assert faults("0.0.0.0")("10.0.0.7:8000", "http://10.0.0.7:8000") is None
    assert faults("0.0.0.0")("10.0.0.7:8000", "http://10.0.0.8:8000") is not None
    named = faults("127.0.0.1", allowed_hosts=("llm.example",))
    assert named("llm.example", "https://llm.example") is None


def test_a_page_may_be_named() -> None:
    fault = faults("127.0.0.1", origins=(PAGE, "null"))
    assert fault("localhost", PAGE) is None
    assert fault("localhost", "null") is None
    assert fault("localhost", "http://app.example") is not None  # another scheme is another site
    assert faults("127.0.0.1", origins=("*",))("localhost", EVIL) is None


def test_a_keyless_server_refuses_what_a_foreign_page_can_send(live: Live) -> None:
    assert ask(live) == (200, "")
    assert ask(live, Host="evil.example") == (403, "forbidden_origin")
    assert ask(live, Origin=EVIL) == (403, "forbidden_origin")
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert ask(live, **{"Content-Type": content_type}) == (415, "unsupported_media_type")
    assert live.http.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
    assert live.http.delete("/v1/adapters/x", headers={"Origin": EVIL}).status_code == 403


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"]
)
def test_json_is_taken_as_it_is_called(live: Live, content_type: str) -> None:
    assert ask(live, **{"Content-Type": content_type}) == (200, "")


def test_a_body_of_no_type_is_refused(live: Live) -> None:
    answer = live.http.post("/v1/completions", content=b"{}")
    assert answer.status_code == 415
    assert "-H 'Content-Type: application/json'" in answer.json()["error"]["message"]


def test_health_is_told_under_any_name(live: Live) -> None:
    for path in ("/health", "/health/live", "/health/ready"):
        assert live.http.get(path, headers={"Host": "lb.example"}).status_code == 200


def test_without_a_setting_no_page_hears_that_it_may_read(live: Live) -> None:
    answer = live.http.get("/v1/models", headers={"Origin": "http://localhost:3000"})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.fixture(scope="module")
def guarded(serve_all: Callable[..., Live]) -> Live:
    return serve_all(api_keys=KEY, cors_origins=PAGE)


@pytest.fixture(scope="module")
def shared(serve_all: Callable[..., Live]) -> Live:
    return serve_all(allow_origins=f"{PAGE}, http://b.example:81", allowed_hosts="llm.example")


def preflight(live: Live, origin: str, path: str = "/v1/completions") -> Any:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
    }
    return live.http.options(path, headers=asked)


def test_a_named_page_asks_first_and_needs_no_key_for_that(guarded: Live, shared: Live) -> None:
    for live in (guarded, shared):
        answer = preflight(live, PAGE)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "POST" in answer.headers["access-control-allow-methods"]
        allowed = answer.headers["access-control-allow-headers"].split(",")
        assert {"authorization", "x-stainless-lang"} <= {name.strip() for name in allowed}
        assert "origin" in answer.headers["vary"].lower()


def test_a_page_that_is_not_named_is_told_no(guarded: Live, shared: Live) -> None:
    assert "access-control-allow-origin" not in preflight(guarded, EVIL).headers
    assert preflight(shared, EVIL).status_code == 403


def test_a_named_page_may_read_answers_and_errors(guarded: Live, shared: Live) -> None:
    page = {"Origin": PAGE}
    keyed = {**page, "Authorization": f"Bearer {KEY}"}
    answers = [
        guarded.http.post("/v1/completions", json=BODY, headers=keyed),
        guarded.http.post("/v1/completions", json=BODY, headers=page),
        shared.http.post("/v1/completions", json=BODY, headers=page),
        shared.http.post("/v1/completions", json={"model": "nobody"}, headers=page),
        shared.http.get("/nowhere", headers=page),
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 200, 400, 404]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "X-Request-Id" in answer.headers["access-control-expose-headers"]


def test_a_server_with_keys_asks_for_the_key_alone(guarded: Live) -> None:
    keyed = {"Authorization": f"Bearer {KEY}"}
    for more in ({"Host": "evil.example"}, {"Origin": EVIL}, {"Content-Type": "text/plain"}):
        assert ask(guarded, **keyed, **more) == (200, "")


def test_an_allowed_host_is_answered(shared: Live) -> None:
    assert ask(shared, Host="llm.example") == (200, "")
    assert ask(shared, Host="evil.example") == (403, "forbidden_origin")


def test_a_site_is_named_in_any_case() -> None:
    """A browser sends its name in small letters, and starlette compares them as they are."""
    assert read_settings(base="x", cors_origins="https://App.example").all_origins == (PAGE,)


def test_sites_are_named_under_either_name_of_the_setting() -> None:
    both = read_settings(base="x", cors_origins=PAGE, allow_origins=f"{PAGE},https://b.example")
    assert both.all_origins == (PAGE, "https://b.example")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("cors_origins", "https://app.example/", "without a path"),
        ("cors_origins", "app.example", "SCHEME://HOST"),
        ("allow_origins", "app.example", "SCHEME://HOST"),
        ("allowed_hosts", "http://llm.example", "without scheme, port and path"),
        ("allowed_hosts", "llm.example:8000", "without scheme, port and path"),
    ],
)
def test_a_setting_that_would_match_nothing_is_refused(name: str, value: str, words: str) -> None:
    with pytest.raises(BadSetting, match=words):
        read_settings(base="x", **{name: value})
