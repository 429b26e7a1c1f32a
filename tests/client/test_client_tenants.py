"""Limits and usage of tenants through the client and at the command line, from a real server."""

import json
from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner, Result

from live import Live
from overtone_client import AsyncClient, Client, RateLimited, Use
from overtone_client.cli import app

ROOT = "root-of-the-tests"
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def guarded(serve_all: Callable[..., Live]) -> Live:
    default = "requests_per_minute=100"
    return serve_all(api_keys=f"root={ROOT}", calibration_s=0, tenant_limits=default)


@pytest.fixture
def admin(guarded: Live) -> Iterator[Client]:
    with Client(guarded.url, ROOT) as client:
        yield client


@pytest.fixture
def run(guarded: Live) -> Run:
    start = ["--url", guarded.url, "--api-key", ROOT]
    return lambda *arguments: CliRunner().invoke(app, [*start, *arguments])


def test_limits_are_set_and_a_refusal_says_when_to_come_back(guarded: Live, admin: Client) -> None:
    found = admin.tenants.set_limits("alice", {"requests_per_minute": 1, "running_requests": None})
    assert found.own == {"requests_per_minute": 1}
    assert admin.tenants.limits("alice") == found
    key = admin.keys.create("alice", ["infer"]).secret
    with Client(guarded.url, key) as alice:
        alice.complete("tiny", "Once", max_tokens=1)
        with pytest.raises(RateLimited, match="1 of 1 requests a minute") as refused:
            alice.complete("tiny", "Once", max_tokens=1)
        assert 50 < (refused.value.retry_after or 0) <= 60
        assert alice.tenants.usage().usage["requests_per_minute"] == Use(1, 1)
    assert admin.tenants.usage("alice").usage["tokens_per_minute"] == Use(None, None)


@pytest.mark.anyio
async def test_the_twin_does_the_same(guarded: Live) -> None:
    async with AsyncClient(guarded.url, ROOT) as client:
        made = await client.tenants.set_limits("bob", {"tokens_per_minute": "unlimited"})
        assert made.own == {"tokens_per_minute": "unlimited"}
        assert await client.tenants.limits("bob") == made
        assert (await client.tenants.usage("bob")).tenant == "bob"


def test_the_command_changes_what_is_given_and_leaves_the_rest(run: Run) -> None:
    run("tenants", "limits", "carol", "--tokens-per-minute", "5000")
    result = run("tenants", "limits", "carol", "--running-requests", "unlimited")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[:4] == [
        ["LIMIT", "ALLOWED", "SET", "FOR"],
        ["requests", "per", "minute", "100", "all"],
        ["tokens", "per", "minute", "5,000", "carol"],
        ["running", "requests", "unlimited", "carol"],
    ]
    result = run("tenants", "limits", "carol", "--tokens-per-minute", "default", "--json")
    assert json.loads(result.stdout)["own"] == {"running_requests": "unlimited"}
    result = run("tenants", "usage", "carol")
    assert result.stdout.splitlines()[1].split() == ["requests", "per", "minute", "0", "100"]
    assert run("tenants", "usage").exit_code == 0


def test_a_wrong_value_is_named_before_anything_is_sent(run: Run) -> None:
    result = run("tenants", "limits", "dave", "--running-requests", "-3")
    assert result.exit_code == 2
    assert "--running-requests '-3': give a number" in result.stderr
