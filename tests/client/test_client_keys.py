"""API keys through the client and at the command line."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import Result

from overtone_client import ApiKey, AsyncClient, Client, NotFound

from .fake_overtone import State

Run = Callable[..., Result]


def made(state: State, tenant: str = "alice", **more: Any) -> str:
    return str(state.keys.add({"tenant": tenant, "scopes": ["infer"], **more})["id"])


def test_a_key_is_made_with_what_was_given_and_hides_its_secret(
    client: Client, state: State
) -> None:
    key = client.keys.create("alice", ["infer", "train"], label="CI", expires_in_s=60)
    plain = client.keys.create("bob", ("admin",))
    assert state.keys.bodies == [
        {"tenant": "alice", "scopes": ["infer", "train"], "label": "CI", "expires_in_s": 60},
        {"tenant": "bob", "scopes": ["admin"]},
    ]
    assert key.secret == f"ovt_{key.id}_secret"
    assert key.secret not in repr(key)
    assert key.expires_at is not None
    assert key.created_at is not None
    assert key.expires_at - key.created_at == timedelta(seconds=60)
    assert plain.expires_at is None
    assert client.keys.get(key.id).secret is None


def test_keys_are_walked_rotated_and_revoked(client: Client, state: State) -> None:
    ids = [made(state, tenant) for tenant in "ababa"]
    assert [one.id for one in client.keys.list()] == ids[::-1]
    assert [one.id for one in client.keys.list(limit=3)] == ids[:1:-1]
    assert [one.id for one in client.keys.list(tenant="a")] == ids[4::-2]
    rotated = client.keys.rotate(ids[0], grace_s=90)
    assert state.keys.graces == [90]
    assert rotated.secret == f"ovt_{ids[0]}_newer"
    assert rotated.old_secret_until is not None
    assert client.keys.revoke(ids[0]).revoked_at is not None
    with pytest.raises(NotFound):
        client.keys.get("f" * 16)


@pytest.mark.anyio
async def test_the_twin_does_the_same(url: str, state: State) -> None:
    async with AsyncClient(url) as client:
        key = await client.keys.create("alice", ["infer"])
        assert [one.id async for one in client.keys.list(tenant="alice")] == [key.id]
        assert (await client.keys.rotate(key.id)).secret != key.secret
        assert (await client.keys.revoke(key.id)).revoked_at is not None
        assert isinstance(await client.keys.get(key.id), ApiKey)


def test_create_shows_the_secret_once_and_says_so(run: Run, state: State) -> None:
    done = run(
        *("keys", "create", "--tenant", "alice", "--scopes", "infer, upload,train"),
        *("--expires", "30d", "--label", "for CI"),
    )
    assert done.exit_code == 0, done.output
    (body,) = state.keys.bodies
    assert body == {
        "tenant": "alice",
        "scopes": ["infer", "upload", "train"],
        "expires_in_s": 30 * 86_400,
        "label": "for CI",
    }
    assert "ovt_0000000000000000_secret" in done.stdout
    assert "infer,upload,train" in done.stdout
    assert "shown once" in done.stderr


def test_create_gives_a_program_one_document(run: Run, state: State) -> None:
    done = run("keys", "create", "--tenant", "a", "--scopes", "admin", "--json")
    assert json.loads(done.stdout)["secret"].startswith("ovt_")
    assert done.stderr == ""


def test_keys_are_listed_without_secrets(run: Run, state: State) -> None:
    assert "There are no keys" in run("keys", "list").stdout
    for tenant in ("alice", "bob"):
        run("keys", "create", "--tenant", tenant, "--scopes", "infer", "--expires", "12h")
    run("keys", "revoke", "0001")
    listed = run("keys", "list").stdout
    assert [tenant in listed for tenant in ("alice", "bob")] == [True, True]
    assert "revoked" in listed
    assert "…cret" in listed
    assert "secret" not in listed
    assert "bob" not in run("keys", "list", "--tenant", "alice").stdout
    cut = run("keys", "list", "--limit", 1)
    assert "There are more than these 1" in cut.stderr
    assert json.loads(run("keys", "list", "--json").stdout)["data"][0]["tenant"] == "bob"


def test_a_key_is_named_by_its_id_or_its_beginning(run: Run, state: State) -> None:
    first, second = made(state), made(state)
    done = run("keys", "rotate", first[:4], "--grace", "2h")
    assert done.exit_code == 0, done.output
    assert state.keys.graces == [7200]
    assert f"ovt_{first}_newer" in done.stdout
    assert "is revoked" in run("keys", "revoke", second).stdout
    assert "the ids of 2 keys begin with '000'" in run("keys", "revoke", "000").stderr
    assert "no key's id begins with 'f'" in run("keys", "revoke", "f").stderr
    missing = run("keys", "revoke", "f" * 16)
    assert missing.exit_code == 1
    assert "`overtone keys list` lists them" in missing.stderr


def test_a_secret_in_the_place_of_an_id_is_not_sent(run: Run, state: State) -> None:
    state.calls.clear()
    done = run("keys", "revoke", "ovt_0000000000000000_my-secret")
    assert done.exit_code == 2
    assert "this is a secret" in done.stderr
    assert "my-secret" not in done.output
    assert not state.calls


@pytest.mark.parametrize("given", ["", "30", "d", "-1d", "1.5h", "30 days", "1d1h", "9" * 10 + "d"])
def test_what_is_no_time_is_refused_before_anything_is_sent(
    run: Run, state: State, given: str
) -> None:
    for words in (
        ("create", "--tenant", "a", "--scopes", "infer", f"--expires={given}"),
        ("rotate", "0" * 16, f"--grace={given}"),
    ):
        done = run("keys", *words)
        assert done.exit_code == 2
        assert "is no time" in done.stderr
    assert not state.keys.bodies
    assert not state.keys.graces
