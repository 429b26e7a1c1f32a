"""Workers that are alive are listed, by the registry's own clock, and others are not."""

from dataclasses import replace

import pytest

from registry.errors import CorruptRecord
from registry.jobs.workers import ALIVE_S, WorkerRecord, Workers
from registry.redis import keys

ONE = WorkerRecord("host:1", "tiny", "cpu", 1000.5)


@pytest.fixture
def workers(client):
    return Workers(client)


def silent(client, name, seconds):
    """Make a worker's last word older."""
    client.zincrby(keys.WORKERS_SEEN, -seconds, name)


def test_a_worker_is_listed_as_it_last_said_until_it_leaves(workers):
    other = replace(ONE, name="host:2", base_name="other")
    for record in (other, ONE, replace(ONE, job="ftjob-1")):
        workers.beat(record)

    assert workers.alive() == [replace(ONE, job="ftjob-1"), other]
    workers.leave("host:1")
    workers.leave("host:1")
    assert workers.alive() == [other]


def test_a_worker_that_is_silent_is_not_listed_until_it_speaks_again(client, workers):
    workers.beat(ONE)
    silent(client, ONE.name, ALIVE_S - 5)
    assert workers.alive() == [ONE]
    silent(client, ONE.name, 6)
    assert workers.alive() == []
    workers.beat(ONE)
    assert workers.alive() == [ONE]


def test_what_long_dead_workers_left_goes_with_anothers_word(client, workers):
    workers.beat(ONE)
    silent(client, ONE.name, 11 * ALIVE_S)
    workers.beat(replace(ONE, name="host:2"))

    assert client.hkeys(keys.WORKERS) == [b"host:2"]
    assert client.zcard(keys.WORKERS_SEEN) == 1


def test_rubbish_is_named(client, workers):
    workers.beat(ONE)
    client.hset(keys.WORKERS, ONE.name, "[]")

    with pytest.raises(CorruptRecord, match=keys.WORKERS):
        workers.alive()
