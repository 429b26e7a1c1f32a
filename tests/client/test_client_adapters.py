import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

import registry
from overtone_client import (
    AsyncClient,
    Client,
    Health,
    InvalidApiKey,
    InvalidArgument,
    ModelNotFound,
    NoEffect,
    NotFound,
    PreconditionFailed,
)
from overtone_client._requests import RESERVED

from .fake_overtone import API_KEY, Fault, State


def test_uploaded_folder_comes_back_as_a_record(client: Client, state: State, folder: Path) -> None:
    adapter = client.upload(folder, "demo", alias="prod", metadata={"by": "me", "runs": [1, 2]})
    assert (adapter.name, adapter.version, adapter.size_bytes) == ("demo", 1, 200_000)
    assert adapter.metadata == {"by": "me", "runs": [1, 2]}
    assert adapter.aliases == {"latest": 1, "prod": 1}
    assert state.form["config"] == {"peft_type": "FOURIERFT"}


def test_uploaded_bytes_come_back_unchanged(client: Client, folder: Path) -> None:
    client.upload(folder, "demo")
    assert client.content("demo", 1) == (folder / "adapter_model.safetensors").read_bytes()


@pytest.mark.anyio
async def test_async_upload_does_the_same(async_client: AsyncClient, folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    adapter = await async_client.upload(
        folder, "demo", on_progress=lambda done, total: seen.append((done, total))
    )
    assert adapter.size_bytes == 200_000
    assert seen[-1] == (200_000, 200_000)
    assert await async_client.content("demo", 1) == b"0123456789" * 20_000


def test_progress_grows_in_pieces_to_the_whole(client: Client, folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    client.upload(folder, "demo", on_progress=lambda done, total: seen.append((done, total)))
    done = [each for each, _ in seen]
    assert done == sorted(done)
    assert len(set(done)) > 2  # streamed, not read at once
    assert seen[-1] == (200_000, 200_000)
    assert {total for _, total in seen} == {200_000}


@pytest.mark.parametrize("as_file", [True, False])
def test_config_may_be_given_apart(
    client: Client, state: State, folder: Path, tmp_path: Path, as_file: bool
) -> None:
    given: dict[str, Any] = {"peft_type": "LOCA"}
    other = tmp_path / "other.json"
    other.write_text(json.dumps(given))
    client.upload(folder / "adapter_model.safetensors", "demo", config=other if as_file else given)
    assert state.form["config"] == given


def test_upload_names_what_is_missing(client: Client, state: State, folder: Path) -> None:
    (folder / "adapter_config.json").unlink()
    with pytest.raises(InvalidArgument, match=r"no config .*adapter_config\.json"):
        client.upload(folder, "demo")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(InvalidArgument, match=r"no file .*safetensors; .*is a pickle"):
        client.upload(folder, "demo")
    assert state.calls == []


@pytest.mark.parametrize(("shared", "sent"), [(True, "true"), (False, "false"), (None, None)])
def test_upload_says_whether_all_may_use_the_adapter(
    client: Client, state: State, folder: Path, shared: bool | None, sent: str | None
) -> None:
    client.upload(folder, "demo", shared=shared)
    assert state.form.get("shared") == sent


def test_a_sharing_that_changes_nothing_is_not_sent(client: Client, state: State) -> None:
    state.add("demo")
    assert client.share("demo", tenants=["bob"]).shared_with == ("bob",)
    with pytest.raises(InvalidArgument, match="nothing to change"):
        client.share("demo")


def test_an_operator_names_the_tenant_that_it_acts_for(state: State) -> None:
    sent: list[str | None] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.headers.get("x-overtone-tenant"))
        return httpx2.Response(200, json={"object": "list", "data": [], "has_more": False})

    for tenant in ("alice", "-", None):
        transport = httpx2.MockTransport(answer)
        with Client(transport=transport, acting_for=tenant) as client:
            assert [*client.list_adapters()] == []
    assert sent == ["alice", "-", None]
    with pytest.raises(InvalidArgument, match="no tenant"):
        Client(acting_for="a\n")


def test_upload_without_a_name_is_refused(client: Client, folder: Path) -> None:
    with pytest.raises(InvalidArgument, match="name"):
        client.upload(folder, "")


def test_file_is_closed_when_the_server_refuses(client: Client, state: State, folder: Path) -> None:
    state.next_fault = Fault(422, "no_effect", "all zero")
    with pytest.raises(NoEffect, match="all zero"):
        client.upload(folder, "demo")  # an unclosed file would be a ResourceWarning, so an error


def test_listing_walks_all_pages(client: Client, state: State) -> None:
    names = [f"a{number}" for number in range(8)]
    for name in names:
        state.add(name)
    assert [adapter.name for adapter in client.list_adapters()] == names
    assert len(state.calls) == 3


@pytest.mark.anyio
async def test_async_listing_walks_all_pages(async_client: AsyncClient, state: State) -> None:
    names = [f"a{number}" for number in range(8)]
    for name in names:
        state.add(name)
    assert [adapter.name async for adapter in async_client.list_adapters()] == names


@pytest.mark.parametrize(("limit", "calls"), [(1, 1), (3, 1), (4, 2), (99, 3)])
def test_listing_stops_at_its_limit(client: Client, state: State, limit: int, calls: int) -> None:
    for number in range(8):
        state.add(f"a{number}")
    assert len(list(client.list_adapters(limit=limit))) == min(limit, 8)
    assert len(state.calls) == calls


def test_listing_is_lazy_and_filters(client: Client, state: State) -> None:
    for name in ("a1", "a2", "b1", "b2"):
        state.add(name, method="loca" if name.endswith("2") else "fourierft")
    walk = client.list_adapters(method="loca", prefix="b", after="a2")
    assert state.calls == []
    assert [adapter.name for adapter in walk] == ["b2"]


def test_listing_of_nothing_is_empty(client: Client) -> None:
    assert list(client.list_adapters()) == []


def test_listing_refuses_a_limit_below_one(client: Client) -> None:
    with pytest.raises(InvalidArgument, match="at least 1, not 0"):
        list(client.list_adapters(limit=0))


def test_record_is_typed_and_keeps_the_original(client: Client, state: State) -> None:
    record = state.add("demo", added_later="kept")
    adapter = client.show("demo")
    assert adapter.base.name == "tiny"
    assert adapter.base.is_verified is False
    assert adapter.target_modules == ("q_proj", "v_proj")
    assert adapter.created_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert adapter.raw == record
    assert adapter.raw["added_later"] == "kept"


def test_versions_deletion_and_rollback(client: Client, state: State) -> None:
    for data in (b"1", b"2", b"3"):
        state.add("demo", data)
    assert [adapter.version for adapter in client.versions("demo")] == [1, 2, 3]
    assert client.rollback("demo").version == 2
    client.delete("demo", 3)
    assert [adapter.version for adapter in client.versions("demo")] == [1, 2]
    client.delete("demo")
    with pytest.raises(ModelNotFound, match="no adapter 'demo'"):
        client.show("demo")


def test_missing_version_is_not_found(client: Client, state: State) -> None:
    state.add("demo")
    with pytest.raises(NotFound, match="no version 7"):
        client.content("demo", 7)


def test_alias_moves_only_from_where_it_is_believed_to_be(client: Client, state: State) -> None:
    for data in (b"1", b"2", b"3"):
        state.add("demo", data)
    moved = client.alias("demo", "prod", 1)
    assert (moved.adapter, moved.alias, moved.version) == ("demo", "prod", 1)
    assert client.alias("demo", "prod", 2, if_match=moved.etag).version == 2
    with pytest.raises(PreconditionFailed):
        client.alias("demo", "prod", 3, if_match=moved.etag)
    assert client.alias("demo", "prod", 3, if_match=2).etag == '"3"'


def test_residency_calls_reach_their_paths(client: Client, state: State) -> None:
    state.add("demo")
    client.warm("demo")
    client.pin("demo")
    client.unpin("demo")
    path = "/v1/adapters/demo"
    assert state.calls == [f"POST {path}/warm", f"PUT {path}/pin", f"DELETE {path}/pin"]


def test_models_are_the_base_and_its_adapters(client: Client, state: State) -> None:
    state.add("demo")
    assert [(model.id, model.parent) for model in client.models()] == [
        ("tiny", None),
        ("demo", "tiny"),
    ]


def test_models_are_fetched_page_by_page(client: Client, state: State) -> None:
    names = [f"a{number}" for number in range(8)]
    for name in names:
        state.add(name)
    assert [model.id for model in client.models()] == ["tiny", *names]
    assert len(state.calls) == 3
    assert [model.id for model in client.models(limit=5, after="a1")] == names[2:7]
    assert [model.id for model in client.models(limit=1)] == ["tiny"]
    with pytest.raises(InvalidArgument, match="at least 1"):
        client.models(limit=0)


@pytest.mark.anyio
async def test_async_models_are_fetched_page_by_page(
    async_client: AsyncClient, state: State
) -> None:
    for number in range(8):
        state.add(f"a{number}")
    assert len(await async_client.models()) == 9
    assert [model.id for model in await async_client.models(limit=2, after="tiny")] == ["a0", "a1"]


def test_versions_are_fetched_page_by_page(client: Client, state: State) -> None:
    for number in range(8):
        state.add("many", b"%d" % number)
    assert [each.version for each in client.versions("many")] == [*range(1, 9)]
    assert len(state.calls) == 3


def test_health_says_why_a_server_is_not_ready(client: Client, state: State) -> None:
    assert client.health() == Health(is_ready=True, code=None, reason=None)
    state.next_fault = Fault(503, "draining", "shutting down")
    assert client.health() == Health(is_ready=False, code="draining", reason="shutting down")


def test_key_is_sent(url: str, state: State) -> None:
    state.needs_key = True
    with Client(url, API_KEY) as client:
        assert client.health().is_ready
    with Client(url) as client, pytest.raises(InvalidApiKey):
        client.models()


@pytest.mark.parametrize("name", ["a%2Fb", "a b", "ü", "50%", "a?b#c"])
def test_name_cannot_leave_its_place_in_the_path(client: Client, state: State, name: str) -> None:
    state.add("b")
    with pytest.raises(NotFound):
        client.delete(name)
    assert "b" in state.adapters
    assert state.calls[0].count("/") == 3


def test_a_name_of_two_parts_keeps_its_slash(client: Client, state: State) -> None:
    """Not every proxy passes `%2F` on."""
    for data in (b"1", b"2"):
        state.add("org/poet", data)
    assert client.show("org/poet").version == 2
    assert [each.version for each in client.versions("org/poet")] == [1, 2]
    assert client.content("org/poet", 1) == b"1"
    assert client.alias("org/poet", "prod", 1).version == 1
    assert client.rollback("org/poet").version == 1
    client.warm("org/poet")
    client.pin("org/poet")
    client.unpin("org/poet")
    client.delete("org/poet", 2)
    assert len(client.versions("org/poet")) == 1
    assert all("/v1/adapters/org/poet" in call for call in state.calls)


@pytest.mark.parametrize(
    "name", ["a/b/c", "/a", "a/", "a/..", "../a", *(f"a/{w}" for w in RESERVED)]
)
def test_a_name_that_no_adapter_has_is_refused_unsent(
    client: Client, state: State, name: str
) -> None:
    state.add("a")
    for ask in (client.show, client.versions, client.delete, client.warm):
        with pytest.raises(InvalidArgument):
            ask(name)
    assert state.calls == []


def test_the_words_that_end_no_name_are_the_registrys() -> None:
    assert RESERVED == registry.RESERVED


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_name_that_would_mean_another_resource_is_refused(client: Client, name: str) -> None:
    with pytest.raises(InvalidArgument):
        client.delete(name)


@pytest.mark.anyio
async def test_async_methods_do_what_their_twins_do(
    async_client: AsyncClient, state: State
) -> None:
    for data in (b"1", b"2"):
        state.add("demo", data)
    assert (await async_client.show("demo")).version == 2
    assert (await async_client.rollback("demo")).version == 1
    assert len(await async_client.versions("demo")) == 2
    assert (await async_client.alias("demo", "prod", 1)).etag == '"1"'
    await async_client.warm("demo")
    await async_client.pin("demo")
    await async_client.unpin("demo")
    await async_client.delete("demo", 2)
    assert [model.id for model in await async_client.models()] == ["tiny", "demo"]
    assert (await async_client.health()).is_ready
    state.next_fault = Fault(503, "not_ready", "loading")
    assert (await async_client.health()).reason == "loading"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (1_700_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        ("2023-11-14T22:13:20Z", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        ("2023-11-14T22:13:20", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (None, None),
    ],
)
def test_time_of_creation_is_read_from_seconds_and_from_text(
    client: Client, state: State, given: Any, expected: datetime | None
) -> None:
    state.add("demo", created_at=given)
    assert client.show("demo").created_at == expected


def test_bare_list_of_aliases_points_to_the_records_version(client: Client, state: State) -> None:
    state.add("demo", aliases=["latest", "prod"], target_modules="q_proj|v_proj")
    adapter = client.versions("demo")[0]
    assert adapter.aliases == {"latest": 1, "prod": 1}
    assert adapter.target_modules == ("q_proj|v_proj",)


def test_config_that_is_not_there_is_named(client: Client, folder: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"no config .*other\.json"):
        client.upload(folder, "demo", config=folder / "other.json")


@pytest.mark.parametrize("given", [{"config": {"n": {1}}}, {"metadata": {"x": float("nan")}}])
def test_upload_of_what_is_not_json_is_refused(
    client: Client, state: State, folder: Path, given: Any
) -> None:
    with pytest.raises(InvalidArgument, match="cannot be written as JSON"):
        client.upload(folder, "demo", **given)
    assert state.calls == []
