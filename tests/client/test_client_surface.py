import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

import overtone_client
from overtone_client import AsyncClient, Client

ROOT = Path(__file__).parent.parent.parent
#: Each class that calls the server, and the one whose calls are awaited.
TWINS = [
    (getattr(overtone_client, name.removeprefix("Async")), getattr(overtone_client, name))
    for name in overtone_client.__all__
    if name.startswith("Async")
]
METHODS = [
    (ours, theirs, name)
    for ours, theirs in TWINS
    for name, _ in inspect.getmembers(ours, inspect.isfunction)
    if not name.startswith("_")
]


def test_exported_names_are_the_real_ones() -> None:
    real = {
        name
        for name, value in vars(overtone_client).items()
        if inspect.isclass(value) and not name.startswith("_")
    }
    assert set(overtone_client.__all__) == real
    assert len(overtone_client.__all__) == len(real)


def test_every_error_is_exported() -> None:
    names = {name for name, value in vars(overtone_client.errors).items() if is_error(value)}
    assert names <= set(overtone_client.__all__)


def test_every_error_is_drawn_in_the_tree_and_described() -> None:
    for name, value in vars(overtone_client.errors).items():
        if is_error(value):
            assert f"{name} " in str(overtone_client.errors.__doc__)
            assert value.__doc__


def is_error(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, overtone_client.OvertoneError)


def test_the_client_without_await_is_as_made_of_the_other() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "sync_client.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("ours", "theirs"), TWINS)
def test_twins_have_the_same_methods(ours: type, theirs: type) -> None:
    functions = [dict(inspect.getmembers(cls, inspect.isfunction)) for cls in (ours, theirs)]
    public = [{name for name in each if not name.startswith("_")} for each in functions]
    assert public[0] == public[1] != set()


@pytest.mark.parametrize(("owner", "other", "name"), METHODS)
def test_twins_take_the_same_arguments(owner: type, other: type, name: str) -> None:
    ours, theirs = getattr(owner, name), getattr(other, name)
    assert parameters(ours) == parameters(theirs)
    assert result(ours) == result(theirs)
    assert inspect.iscoroutinefunction(theirs) or result(ours).startswith(("Iter", "Gen"))
    assert ours.__doc__ == theirs.__doc__


def test_twins_are_made_from_the_same_arguments() -> None:
    ours, theirs = (parameters(cls.__init__) for cls in (Client, AsyncClient))
    assert [(each.name, each.default) for each in ours] == [
        (each.name, each.default) for each in theirs
    ]


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def result(function: Callable[..., Any]) -> str:
    text = inspect.formatannotation(inspect.signature(function).return_annotation)
    text = text.replace("collections.abc.", "").replace("Async", "").replace("_async", "_sync")
    return text.replace(", None, None]", "]").replace(", None]", "]")


@pytest.mark.parametrize(("owner", "other", "name"), METHODS)
def test_every_method_is_described(owner: type, other: type, name: str) -> None:
    assert getattr(owner, name).__doc__


def test_package_imports_nothing_heavy() -> None:
    code = "import sys, overtone_client.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "transformers", "fastapi", "adapters_core", "registry", "server"}
    assert not heavy & set(done.stdout.split())


def test_block_closes_the_pool() -> None:
    with Client() as client:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        client.models()


@pytest.mark.anyio
async def test_async_block_closes_the_pool() -> None:
    async with AsyncClient() as client:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        await client.models()


@pytest.mark.parametrize("root", ["http://host:1/", "http://host:1", "http://host:1/v1/"])
def test_url_may_be_given_as_openais_clients_want_it(root: str) -> None:
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"data": []})

    with Client(root, "sk-1", transport=httpx2.MockTransport(answer)) as client:
        assert client.models() == []
    assert str(seen[0].url.copy_with(query=None)) == "http://host:1/v1/models"
    assert seen[0].headers["authorization"] == "Bearer sk-1"
    assert seen[0].headers["user-agent"].startswith("overtone-client/")
