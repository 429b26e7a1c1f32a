"""The caller of a request: headers of every shape, keys that come and go, a registry away."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from live import Live, running, settings_of
from raw_http import head, wire
from registry import KeyRecord, NewKey, RegistryUnavailable
from registry.access.record import SCOPES, Scope
from registry.access.secret import Secret, digest_of
from server.api import callers
from server.api.callers import ANY_CALLER, Authentication, Caller
from server.errors import InsufficientScope, InvalidApiKey, InvalidRequest, NotReady
from waiting import until

ID = "0123456789abcdef"
SECRET = Secret.new(ID)
SENT = SECRET.reveal().encode()
NOW = 100.0


def record_of(*scopes: Scope, **changes: Any) -> KeyRecord:
    given = {"tenant": "alice", "label": "", "created_at": 1.0, "shown": "abcd"}
    given |= {"digest": digest_of(SENT)}
    return KeyRecord(id=ID, scopes=scopes or ("infer",), **(given | changes))


@dataclass
class Mirror:
    """A mirror whose registry has one key, answers when told to, and counts."""

    record: KeyRecord | None = None
    remembers: bool = False
    has_any: bool = True
    fault: Exception | None = None
    may_answer: threading.Event = field(default_factory=threading.Event)
    num_asked: int = 0

    def __post_init__(self) -> None:
        self.may_answer.set()

    def known(self, id_: str) -> KeyRecord | None:
        return self.record if self.remembers else None

    def look_up(self, id_: str) -> KeyRecord | None:
        self.num_asked += 1
        assert self.may_answer.wait(10)
        if self.fault:
            raise self.fault
        return self.record


def of(mirror: Mirror | None, *given: str, requires_keys: bool = False) -> Authentication:
    made = cast(Any, mirror)
    return Authentication(given, requires_keys, lambda: made, lambda: NOW)


def caller_of(authentication: Authentication, sent: bytes | None) -> Caller:
    return asyncio.run(authentication.caller_of(sent))


def test_a_key_of_the_registry_has_its_tenant_and_scopes() -> None:
    found = caller_of(of(Mirror(record_of("infer", "train"))), SENT)
    assert found == Caller("alice", ("infer", "train"), ID, "alice")
    assert found.may(("upload", "train"))
    assert not found.may(("upload", "admin"))
    assert not found.may(())


def test_admin_has_all_other_scopes() -> None:
    assert caller_of(of(Mirror(record_of("admin"))), SENT).scopes == SCOPES


def test_a_key_of_the_setting_may_do_everything_and_asks_no_registry() -> None:
    mirror = Mirror()
    found = caller_of(of(mirror, "bob=one", "two"), b"one")
    assert found == Caller("bob", SCOPES, "environment:bob")
    assert mirror.num_asked == 0
    assert caller_of(of(None, "bob=one"), b"one").tenant == "bob"  # also while it starts


def test_no_key_is_asked_for_until_there_was_one() -> None:
    mirror = Mirror(has_any=False)
    authentication = of(mirror)
    for sent in (None, b"", b"x", SENT):
        assert authentication.is_open
        assert caller_of(authentication, sent) == ANY_CALLER
    mirror.has_any = True
    assert not authentication.is_open
    for closed in (authentication, of(Mirror(has_any=False), requires_keys=True), of(None, "a=b")):
        assert not closed.is_open
        for sent in (None, b"", b"x"):
            with pytest.raises(InvalidApiKey):
                caller_of(closed, sent)


@pytest.mark.parametrize(
    "record",
    [None, record_of(digest=digest_of(b"other")), record_of(digest=None, revoked_at=1.0)]
    + [record_of(revoked_at=1.0), record_of(revoked_at=1.0, expires_at=2.0)],
)
@pytest.mark.parametrize("remembers", [True, False])
def test_wrong_unknown_and_revoked_keys_are_told_apart_by_nothing(
    record: KeyRecord | None, remembers: bool
) -> None:
    with pytest.raises(InvalidApiKey) as caught:
        caller_of(of(Mirror(record, remembers)), SENT)
    assert str(caught.value) == str(callers._wrong())


def test_only_the_holder_of_an_expired_key_hears_that_it_has_expired() -> None:
    expired = record_of(expires_at=NOW)
    with pytest.raises(InvalidApiKey, match="has expired: it was valid until 1970-01-01 00:01:40"):
        caller_of(of(Mirror(expired)), SENT)
    with pytest.raises(InvalidApiKey) as caught:
        caller_of(of(Mirror(expired)), SENT[:-1] + b"A" if SENT[-1:] != b"A" else SENT[:-1] + b"B")
    assert str(caught.value) == str(callers._wrong())
    assert caller_of(of(Mirror(record_of(expires_at=NOW + 0.1))), SENT).key == ID


def test_a_key_that_cannot_be_looked_up_is_no_wrong_one() -> None:
    away = Mirror(fault=RegistryUnavailable("away"))
    with pytest.raises(RegistryUnavailable):
        caller_of(of(away), SENT)
    with pytest.raises(NotReady):
        caller_of(of(None, "bob=one"), SENT)
    with pytest.raises(InvalidApiKey):
        caller_of(of(away), b"not the shape of one")


def test_one_lookup_is_for_all_requests_that_wait_for_it() -> None:
    mirror = Mirror(record_of())
    mirror.may_answer.clear()
    authentication = of(mirror)

    async def ask() -> list[Any]:
        asking = [asyncio.ensure_future(authentication.caller_of(SENT)) for _ in range(1000)]
        await asyncio.to_thread(until, lambda: mirror.num_asked)
        asking[0].cancel()  # a caller that hangs up takes the answer from no other one
        mirror.may_answer.set()
        return await asyncio.gather(*asking, return_exceptions=True)

    gone, *found = asyncio.run(ask())
    assert isinstance(gone, asyncio.CancelledError)
    assert found == [Caller("alice", ("infer",), ID, "alice")] * 999
    assert mirror.num_asked == 1
    assert not authentication._asked


def test_a_flood_of_unknown_keys_is_bounded_and_known_keys_pass_it() -> None:
    mirror = Mirror()
    mirror.may_answer.clear()
    authentication = of(mirror, "bob=one")

    async def flood() -> tuple[list[Any], Caller]:
        sent = [f"ovt_{number:016x}_{'a' * 43}".encode() for number in range(500)]
        asking = [asyncio.ensure_future(authentication.caller_of(each)) for each in sent]
        await asyncio.sleep(0)
        known = await authentication.caller_of(b"one")
        mirror.may_answer.set()
        return await asyncio.gather(*asking, return_exceptions=True), known

    found, known = asyncio.run(flood())
    kinds = [type(each) for each in found]
    assert kinds.count(InvalidApiKey) == callers.MAX_LOOKUPS == mirror.num_asked
    assert kinds.count(RegistryUnavailable) == 500 - callers.MAX_LOOKUPS
    assert known.tenant == "bob"
    assert threading.active_count() < 30


def test_a_caller_behind_a_gateway_is_a_tenant_of_its_own_and_no_operator() -> None:
    gateway = Caller("gate", SCOPES, ID)
    scopes = ("infer", "upload", "train")
    assert gateway.of_gateway(b"bob") == Caller("gate/bob", scopes, ID, "gate/bob")
    assert len(gateway.of_gateway(b"b" * 1000).tenant) == len("gate/") + 128
    assert gateway.of_gateway(b"\xff\xfe").tenant == "gate/ÿþ"


def test_an_operator_acts_for_a_tenant_with_its_own_key_and_scopes() -> None:
    operator = Caller("alice", SCOPES, ID, "alice")
    assert operator.acting_for(b"bob") == Caller("bob", SCOPES, ID, "bob")
    assert operator.acting_for(b"gate/b b") == Caller("gate/b b", SCOPES, ID, "gate/b b")
    assert operator.acting_for(b"-") == Caller("", SCOPES, ID, "")
    for named in (b"b:b", b"-b", b"b/", b"b\xff", b"a" * 65):
        with pytest.raises(InvalidRequest, match="no tenant's name"):
            operator.acting_for(named)
    for other in (operator.of_gateway(b"bob"), Caller("alice", ("infer",), ID, "alice")):
        with pytest.raises(InsufficientScope):
            other.acting_for(b"bob")


def test_before_the_registry_is_open_only_a_key_of_the_setting_is_let_in() -> None:
    for sent in (None, b"", b"x", SENT):
        with pytest.raises(NotReady, match="starting"):
            caller_of(of(None), sent)
    assert of(None).is_open  # so pages of other sites are refused as without keys
    assert caller_of(of(None, "bob=one"), b"one").tenant == "bob"


# Over a real connection.

KEY = "right-key"


@pytest.fixture(scope="module")
def guarded(serve_all: Callable[..., Live]) -> Live:
    return serve_all(api_keys=f"alice={KEY}", tenant_header="X-Tenant", calibration_s=0)


def status_of(live: Live, *lines: str | bytes, path: str = "/v1/files") -> int:
    """Send a request with these lines in its head; return the answer's status."""
    with wire(live.url) as line:
        whole = head("GET", path, line.host).removesuffix(b"\r\n")
        for each in lines:
            whole += (each.encode() if isinstance(each, str) else each) + b"\r\n"
        line.send(whole + b"\r\n")
        return line.answer()[0]


@pytest.mark.parametrize(
    "line",
    [
        f"Authorization: Bearer {KEY}",
        f"authorization: bearer {KEY}",
        f"AUTHORIZATION:BEARER {KEY}",
        f"Authorization:   Bearer   {KEY}   ",
    ],
)
def test_a_key_is_read_in_any_case_and_between_blanks(guarded: Live, line: str) -> None:
    assert status_of(guarded, line) == 200


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([], 401),
        (["Authorization:"], 401),
        (["Authorization: Bearer"], 401),
        (["Authorization: Bearer "], 401),
        ([f"Authorization: {KEY}"], 401),
        ([f"Authorization: Basic {KEY}"], 401),
        ([f"Authorization: Bearer{KEY}"], 401),
        ([f"Authorization: Bearer\t{KEY}"], 401),
        ([f"Authorization: Bearer {KEY},{KEY}"], 401),
        ([f"Authorization: Bearer {KEY}, Basic x"], 401),
        ([f"Authorization: Bearer {KEY} {KEY}"], 401),
        ([f'Authorization: Bearer "{KEY}"'], 401),
        ([f"Authorization: Bearer {KEY[:-1]}"], 401),
        ([f"Authorization: Bearer {KEY.upper()}"], 401),
        ([b"Authorization: Bearer right\xffkey"], 401),
        (["Authorization: Bearer rîght-key"], 401),
        ([f"Authorization: Bearer {KEY}%00"], 401),
        ([f"X-Api-Key: {KEY}"], 401),
        ([f"Api-Key: {KEY}"], 401),
        ([f"Cookie: Authorization=Bearer {KEY}; api_key={KEY}"], 401),
        ([f"Proxy-Authorization: Bearer {KEY}"], 401),
        ([f"X-Authorization: Bearer {KEY}", "Connection: authorization"], 401),
        ([f"Authorization: Bearer {'a' * 60_000}"], 401),
        ([f"Authorization: Bearer ovt_{ID}_{'a' * 50_000}"], 401),
        ([f"Authorization: Bearer {KEY}", "Authorization: Bearer x"], 400),
        (["Authorization: Bearer x", f"Authorization: Bearer {KEY}"], 400),
        ([f"Authorization: Bearer {KEY}", f"Authorization: Bearer {KEY}"], 200),
    ],
)
def test_a_key_in_another_shape_or_place_is_none(
    guarded: Live, lines: list[str | bytes], status: int
) -> None:
    assert status_of(guarded, *lines) == status


def test_a_key_longer_than_a_head_may_be_is_refused(guarded: Live) -> None:
    assert status_of(guarded, f"Authorization: Bearer {'a' * 200_000}") in (401, 431)


@pytest.mark.parametrize("name", ["api_key", "key", "access_token", "token", "authorization"])
def test_a_key_in_the_path_is_not_read(guarded: Live, name: str) -> None:
    assert status_of(guarded, path=f"/v1/files?{name}={KEY}") == 401
    assert status_of(guarded, path=f"/v1/files?{name}=Bearer%20{KEY}") == 401


def test_a_caller_that_a_gateway_names_makes_no_keys(guarded: Live) -> None:
    own, named = f"Authorization: Bearer {KEY}", "X-Tenant: bob"
    assert status_of(guarded, own, path="/v1/keys") == 200
    assert status_of(guarded, own, named) == 200
    for path in ("/v1/keys", "/metrics"):
        assert status_of(guarded, own, named, path=path) == 403


def test_a_revoked_key_is_refused_within_a_second_where_it_was_known(guarded: Live) -> None:
    """Revoked by another process: the server only hears of it."""
    registry = guarded.service.registry
    made, secret = registry.api_keys.create(NewKey("alice", ("train",)), now=time.time())
    line = f"Authorization: Bearer {secret.reveal()}"
    assert status_of(guarded, line) == 200
    until(lambda: registry.key_mirror.known(made.id) is not None)
    registry.api_keys.revoke(made.id, now=time.time())
    until(lambda: status_of(guarded, line) == 401, 1.0)


def test_a_known_key_is_looked_up_in_memory(guarded: Live) -> None:
    registry = guarded.service.registry
    _, secret = registry.api_keys.create(NewKey("alice", ("metrics",)), now=time.time())
    headers = {"Authorization": f"Bearer {secret.reveal()}"}
    sample = 'overtone_registry_seconds_count{op="key"}'

    def asked() -> float:
        text = guarded.http.get("/metrics", headers=headers).text
        (line,) = [each for each in text.splitlines() if each.startswith(sample)]
        return float(line.rpartition(" ")[2])

    until(lambda: asked() == asked())
    before = asked()
    for _ in range(20):
        asked()
    assert asked() == before


def test_a_starting_server_lets_nothing_through_but_open_paths_and_the_settings_keys(
    base_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """Whether keys are needed is in the registry, and that is not open yet."""
    for given in ("", f"alice={KEY}"):
        may_start = threading.Event()

        def start(metrics: object, may_start: threading.Event = may_start) -> Any:
            assert may_start.wait(30)
            raise NotReady("this test's start ends here")

        settings = settings_of(base_folder("llama"), tmp_path, api_keys=given)
        with running(settings, start) as live:
            try:
                answers = {
                    path: live.http.get(path)
                    for path in ("/v1/adapters", "/v1/models", "/v1/keys", "/version")
                }
                codes = {answer.json()["error"]["code"] for answer in answers.values()}
                assert codes == ({"invalid_api_key"} if given else {"not_ready"})
                assert live.http.get("/health/live").status_code == 200
                # They tell of no tenant yet, and of a start that failed.
                assert live.http.get("/metrics").status_code == (401 if given else 200)
                own = {"Authorization": f"Bearer {KEY}"}
                assert live.http.get("/metrics", headers=own).status_code == 200
                assert live.http.get("/v1/models", headers=own).status_code == 503
            finally:
                may_start.set()
