"""Two tenants with one name, what they share, what operators do for them, and what others hear."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

import spectra
from access_scene import Json, Scene, code_of
from batches_made import lines, request
from live import BASE, Live, parts
from waiting import until

ROOT = "root-of-the-tests"
PROMPT = [7 + i % 100 for i in range(20)]


@dataclass(frozen=True)
class Tenant:
    """A tenant's key on a server, or the operator's."""

    live: Live
    key: str
    acts_for: str = ""

    def ask(self, method: str, place: str, **more: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.key}"} | more.pop("headers", {})
        headers |= {"X-Overtone-Tenant": self.acts_for} if self.acts_for else {}
        return self.live.http.request(method, place, headers=headers, **more)

    def upload(self, name: str, seed: int, **form: str) -> httpx2.Response:
        files = parts(spectra.files(seed))
        return self.ask("POST", "/v1/adapters", data={"name": name, **form}, files=files)

    def complete(self, model: str, **more: Any) -> httpx2.Response:
        body = {"model": model, "prompt": PROMPT, "max_tokens": 8, "temperature": 0}
        body |= {"return_token_ids": True, "ignore_eos": True}
        return self.ask("POST", "/v1/completions", json=body | more)

    def tokens(self, model: str) -> list[int]:
        return tokens_in(self.complete(model))

    def names(self, **params: Any) -> list[str]:
        """Return the names of all adapters but the operators'."""
        found = self.ask("GET", "/v1/adapters", params={"limit": 1000} | params).json()["data"]
        return [each["name"] for each in found if each["owner"]]

    def share(self, name: str, **body: Any) -> httpx2.Response:
        return self.ask("PATCH", f"/v1/adapters/{name}", json=body)


def tokens_in(answer: httpx2.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    found: list[int] = answer.json()["choices"][0]["token_ids"]
    return found


@pytest.fixture(scope="module")
def server(serve_all: Callable[..., Live]) -> Live:
    return serve_all(api_keys=f"root={ROOT}", tenant_header="X-Gateways", mode="factored")


@pytest.fixture(scope="module")
def root(server: Live) -> Tenant:
    return Tenant(server, ROOT)


@pytest.fixture
def three(server: Live, request: pytest.FixtureRequest) -> list[Tenant]:
    """Return three tenants of this test's own."""
    number = len(server.service.registry.api_keys.list(1000))
    scene = Scene(server, {})
    scopes = ("infer", "upload", "train")
    names = [f"{name}{number}" for name in ("alice", "bob", "carol")]
    return [Tenant(server, scene.key_of(*scopes, tenant=name)) for name in names]


def name_of(tenant: Tenant) -> str:
    made = tenant.upload("own", 9).json()
    owner: str = made["owner"]
    return owner


def test_two_tenants_with_one_name_are_answered_by_their_own_adapters_in_one_step(
    root: Tenant, three: list[Tenant]
) -> None:
    alice, bob, _ = three
    wanted = []
    for seed, tenant in enumerate((alice, bob)):
        root.upload(f"reference-{seed}", seed)
        wanted.append(root.tokens(f"reference-{seed}"))
        made = tenant.upload("support", seed)
        assert (made.status_code, made.json()["name"]) == (201, "support")
        assert tenant.ask("POST", "/v1/adapters/support/warm").status_code == 200
    assert wanted[0] != wanted[1]
    live = root.live

    def together() -> float:
        text = root.ask("GET", "/metrics").text
        counts = [
            float(re.findall(rf'overtone_batch_adapters_bucket{{le="{le}"}} (\S+)', text)[0])
            for le in ("1.0", "2.0")
        ]
        return counts[1] - counts[0]

    before = together()
    with ThreadPoolExecutor(6) as threads:
        with live.paused():
            asked = [
                threads.submit(tenant.complete, "support")
                for tenant in (alice, bob)
                for _ in range(3)
            ]
            until(lambda: live.num_open == 7)
        found = [tokens_in(answer.result()) for answer in asked]
    assert found == [wanted[0]] * 3 + [wanted[1]] * 3
    assert together() > before
    told = alice.complete("support")
    assert told.headers["X-Overtone-Adapter"].startswith("support@1 sha256:")
    assert told.json()["overtone"]["adapter"] == "support"


def test_upload_list_alias_rollback_and_deletion_are_of_the_own_name(three: list[Tenant]) -> None:
    alice, bob, _ = three
    for tenant, seeds in ((alice, (0, 1)), (bob, (2, 3))):
        assert [tenant.upload("support", seed).json()["version"] for seed in seeds] == [1, 2]
    again = bob.upload("support", 2)
    assert (again.status_code, again.json()["version"]) == (200, 1)
    moved = alice.ask("PUT", "/v1/adapters/support/aliases/prod", json={"version": 1})
    assert moved.json()["name"] == "support"
    assert alice.ask("POST", "/v1/adapters/support/rollback").json()["version"] == 1
    assert alice.tokens("support@prod") == alice.tokens("support@1") == alice.tokens("support")
    assert code_of(bob.complete("support@prod")) == (404, "model_not_found")
    shown = bob.ask("GET", "/v1/adapters/support").json()
    assert (shown["version"], shown["aliases"]) == (2, {"latest": 2})
    assert bob.ask("DELETE", "/v1/adapters/support").json()["name"] == "support"
    assert (alice.names(), bob.names()) == (["support"], [])
    assert alice.tokens("support@2") != alice.tokens("support@1")
    content = alice.ask("GET", "/v1/adapters/support/versions/1/content")
    assert content.content == spectra.files(0)["adapter_model.safetensors"]
    assert content.headers["X-Overtone-Adapter"].startswith("support@1 sha256:")


def test_the_same_bytes_of_two_tenants_are_one_blob_and_neither_hears_of_the_other(
    three: list[Tenant],
) -> None:
    alice, bob, _ = three
    first = alice.upload("mine", 40)
    alice.tokens("mine")
    second = bob.upload("mine", 40)
    assert first.status_code == second.status_code == 201
    assert second.json()["digest"] == first.json()["digest"]
    assert second.json() | {"owner": 0, "created_at": 0} == first.json() | {
        "owner": 0,
        "created_at": 0,
    }
    assert bob.ask("GET", "/v1/adapters/mine").json()["residency"] == []
    wanted = alice.tokens("mine")
    assert alice.ask("DELETE", "/v1/adapters/mine").status_code == 200
    assert bob.tokens("mine") == wanted


def test_what_is_granted_can_be_used_and_not_changed(three: list[Tenant]) -> None:
    alice, bob, carol = three
    owner, other = name_of(alice), name_of(bob)
    for seed in (0, 1):
        alice.upload("support", seed, alias="prod", metadata='{"note": "secret"}')
    name = f"{owner}:support"
    assert code_of(bob.complete(name)) == (404, "model_not_found")
    shared = alice.share("support", shared_with=[other])
    assert (shared.status_code, shared.json()["shared_with"]) == (200, [other])

    for reference in ("", "@1", "@prod"):
        assert bob.tokens(name + reference) == alice.tokens("support" + reference)
    assert bob.complete(name).json()["overtone"]["adapter"] == name
    assert bob.ask("POST", f"/v1/adapters/{name}/warm").json()["name"] == name
    seen = bob.ask("GET", f"/v1/adapters/{name}").json()
    assert (seen["name"], seen["owner"], seen["aliases"]) == (name, owner, {"latest": 2, "prod": 2})
    assert (seen["metadata"], seen["created_by"], seen["shared_with"]) == ({}, "", [])
    assert [one["version"] for one in versions(bob, name)] == [1, 2]
    assert bob.names() == [name, "own"]
    models = [one["id"] for one in bob.ask("GET", "/v1/models").json()["data"]]
    assert [one for one in models if "reference" not in one] == [BASE, name, "own"]

    refused = [
        bob.ask("DELETE", f"/v1/adapters/{name}"),
        bob.ask("DELETE", f"/v1/adapters/{name}/versions/1"),
        bob.ask("POST", f"/v1/adapters/{name}/rollback"),
        bob.ask("PUT", f"/v1/adapters/{name}/aliases/prod", json={"version": 1}),
        bob.ask("GET", f"/v1/adapters/{name}/versions/1/content"),
        bob.share(name, shared=True),
        bob.upload(name, 3),
    ]
    assert {code_of(answer) for answer in refused} == {(403, "not_owner")}
    assert code_of(carol.complete(name)) == (404, "model_not_found")
    assert alice.ask("GET", "/v1/adapters/support").json()["aliases"] == {"latest": 2, "prod": 2}

    assert alice.share("support", shared_with=[]).status_code == 200
    assert code_of(bob.complete(name)) == (404, "model_not_found")
    assert bob.names() == ["own"]


def versions(tenant: Tenant, name: str) -> list[Json]:
    found: list[Json] = tenant.ask("GET", f"/v1/adapters/{name}/versions").json()["data"]
    return found


def test_an_upload_may_share_with_all_and_a_later_one_leaves_that(three: list[Tenant]) -> None:
    alice, bob, carol = three
    owner = name_of(alice)
    assert alice.upload("open", 0, shared="true").json()["shared"]
    assert bob.tokens(f"{owner}:open") == carol.tokens(f"{owner}:open") == alice.tokens("open")
    assert alice.upload("open", 1).json()["shared"]
    assert bob.tokens(f"{owner}:open@1") == alice.tokens("open@1")
    assert not alice.upload("open", 1, shared="false").json()["shared"]
    assert code_of(bob.complete(f"{owner}:open")) == (404, "model_not_found")
    assert code_of(alice.upload("open", 1, shared="maybe")) == (400, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [{}, {"shared": None}, {"shared": "yes"}, {"shared_with": ["b b"]}, {"shared_with": ["*"]}]
    + [{"shared_with": ["b"] * 257}, {"shared_with": "bob"}, {"tenants": ["bob"]}],
)
def test_a_sharing_that_is_none_is_refused(three: list[Tenant], body: Json) -> None:
    three[0].upload("support", 0)
    assert three[0].share("support", **body).status_code == 400


def test_the_operators_adapters_are_for_all_to_use_and_theirs_to_change(
    root: Tenant, three: list[Tenant]
) -> None:
    alice, bob, _ = three
    root.upload("common", 0, metadata='{"note": "secret"}')
    assert alice.tokens("common") == bob.tokens("common") == root.tokens("common")
    seen = alice.ask("GET", "/v1/adapters/common").json()
    assert (seen["owner"], seen["shared"], seen["metadata"]) == ("", True, {})
    assert root.ask("GET", "/v1/adapters/common").json()["metadata"] == {"note": "secret"}
    assert "common" in alice.ask("GET", "/v1/adapters?limit=1000").text
    assert code_of(alice.ask("DELETE", "/v1/adapters/common")) == (403, "not_owner")
    assert code_of(root.share("common", shared=False)) == (400, "invalid_request")
    alice.upload("common", 1)
    assert alice.tokens("common") != bob.tokens("common")
    assert alice.ask("DELETE", "/v1/adapters/common").status_code == 200
    assert alice.tokens("common") == bob.tokens("common")


def test_an_operator_acts_for_a_tenant_that_it_names(root: Tenant, three: list[Tenant]) -> None:
    alice, bob, _ = three
    owner = name_of(alice)
    alice.upload("support", 0)
    assert code_of(root.complete(f"{owner}:support")) == (404, "model_not_found")
    acting = Tenant(root.live, ROOT, owner)
    assert acting.tokens("support") == alice.tokens("support")
    assert acting.names(prefix="support") == ["support"]
    assert acting.ask("DELETE", "/v1/adapters/support").status_code == 200
    assert code_of(alice.complete("support")) == (404, "model_not_found")
    file = alice.ask(
        "POST", "/v1/files", data={"purpose": "fine-tune"}, files={"file": b'{"text": "a"}\n' * 9}
    ).json()["id"]
    assert root.ask("GET", f"/v1/files/{file}").status_code == 404
    assert acting.ask("GET", f"/v1/files/{file}").status_code == 200
    own = Tenant(root.live, Scene(root.live, {}).key_of("admin", tenant=owner), "-")
    own.upload("from-an-admin", 1)
    assert bob.ask("GET", "/v1/adapters/from-an-admin").json()["owner"] == ""


def test_only_an_operator_acts_for_another(root: Tenant, three: list[Tenant]) -> None:
    alice, bob, _ = three
    owner = name_of(bob)
    headers = {"X-Overtone-Tenant": owner}
    assert code_of(alice.ask("GET", "/v1/adapters", headers=headers)) == (403, "insufficient_scope")
    named = headers | {"X-Gateways": "someone"}
    assert code_of(root.ask("GET", "/v1/adapters", headers=named)) == (403, "insufficient_scope")
    headers["X-Overtone-Tenant"] = "no such:tenant"
    assert code_of(root.ask("GET", "/v1/adapters", headers=headers)) == (400, "invalid_request")


def test_a_gateways_callers_have_names_of_their_own(root: Tenant) -> None:
    callers = [{"X-Gateways": name} for name in ("ann", "bert")]
    for seed, headers in enumerate(callers):
        files = parts(spectra.files(seed))
        form = {"name": "of-a-caller"}
        made = root.ask("POST", "/v1/adapters", data=form, files=files, headers=headers)
        assert (made.status_code, made.json()["owner"]) == (201, f"root/{headers['X-Gateways']}")
    assert code_of(root.complete("of-a-caller")) == (404, "model_not_found")
    assert root.share("x", shared=True).status_code == 404


def test_a_batch_runs_as_its_tenant(root: Tenant, three: list[Tenant]) -> None:
    alice, bob, _ = three
    alice.upload("support", 0)
    asked = {"model": "support", "max_tokens": 4, "temperature": 0}
    ended = {}
    for tenant in (alice, bob):
        file = tenant.ask(
            "POST",
            "/v1/files",
            data={"purpose": "batch"},
            files={"file": ("in.jsonl", lines(request(1, **asked)))},
        ).json()["id"]
        body = {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}
        place = f"/v1/batches/{tenant.ask('POST', '/v1/batches', json=body).json()['id']}"
        until(lambda t=tenant, p=place: t.ask("GET", p).json()["status"] == "completed")
        ended[tenant.key] = tenant.ask("GET", place).json()
    answers = ended[alice.key]["output_file_id"]
    (line,) = alice.ask("GET", f"/v1/files/{answers}/content").text.splitlines()
    assert '"adapter":"support"' in line.replace(" ", "")
    errors = ended[bob.key]["error_file_id"]
    assert "model_not_found" in bob.ask("GET", f"/v1/files/{errors}/content").text


def test_metrics_tell_two_tenants_adapters_apart(root: Tenant, three: list[Tenant]) -> None:
    owners = [name_of(tenant) for tenant in three[:2]]
    for seed, tenant in enumerate(three[:2]):
        tenant.upload("support", seed)
        for _ in range(25):
            tenant.complete("support", max_tokens=1)
    text = root.ask("GET", "/metrics").text
    for owner in owners:
        assert f'overtone_adapter_requests_total{{adapter="{owner}:support"}}' in text
    assert code_of(three[0].ask("GET", "/metrics")) == (403, "insufficient_scope")
