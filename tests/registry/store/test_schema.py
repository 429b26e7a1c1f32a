"""A registry says by which schema its keys are: a later one is refused, an earlier one upgraded."""

import pytest

from registry.connect import connect
from registry.errors import CorruptRecord, SchemaTooNew
from registry.redis import keys
from registry.store import schema


@pytest.fixture
def registry(url, client, tmp_path):
    with connect(url, tmp_path / "data", store=tmp_path / "store") as registry:
        yield registry


def test_a_new_registry_has_this_programs_schema(registry):
    registry.open_store()
    assert registry.ownership.check_schema() == schema.CURRENT


def test_a_registry_without_a_number_gets_it_at_the_next_start(registry):
    registry.open_store()
    registry.client.hdel(keys.IDENTITY, schema.FIELD)
    assert registry.ownership.check_schema() == 0
    registry.open_store()
    assert registry.ownership.check_schema() == schema.CURRENT


def test_steps_run_one_after_the_other_and_go_on_where_a_crash_ended_them(
    registry, client, monkeypatch
):
    done = []

    def crash(client):
        raise KeyboardInterrupt

    steps = {0: lambda client: done.append(0), 1: lambda client: done.append(1), 2: crash}
    monkeypatch.setattr(schema, "_STEPS", steps)
    monkeypatch.setattr(schema, "CURRENT", 4)
    with pytest.raises(KeyboardInterrupt):
        registry.open_store()
    assert registry.ownership.check_schema() == 2
    steps[2] = lambda client: done.append(2)
    registry.open_store()
    assert done == [0, 1, 2]  # the one from 3 has nothing to do
    assert registry.ownership.check_schema() == 4


def test_a_later_programs_registry_is_refused_and_not_changed(registry):
    registry.open_store()
    registry.client.hset(keys.IDENTITY, schema.FIELD, schema.CURRENT + 1)
    before = registry.client.hgetall(keys.IDENTITY)
    for act in (registry.open_store, registry.ownership.adopt, registry.ownership.standing):
        with pytest.raises(SchemaTooNew, match="later version"):
            act()
    assert registry.client.hgetall(keys.IDENTITY) == before


def test_a_schema_that_is_no_number_is_named(registry):
    registry.open_store()
    registry.client.hset(keys.IDENTITY, schema.FIELD, "new")
    with pytest.raises(CorruptRecord, match=schema.FIELD):
        registry.open_store()
