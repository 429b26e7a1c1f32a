"""The queue of waiting jobs is RQ's, as JSON, and may be lost."""

import json

import pytest
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from registry.jobs.queue import JobQueues
from registry.redis.scripts import Scripts

ID, OTHER = "ftjob-" + "a" * 24, "ftjob-" + "b" * 24


@pytest.fixture
def queues(client):
    return JobQueues(client, Scripts(client))


def test_ids_come_out_in_the_order_they_went_in(queues):
    for id_ in (ID, OTHER):
        queues.put("tiny", id_)

    assert queues.waiting("tiny") == [ID, OTHER]
    assert [queues.take("tiny", 0) for _ in range(3)] == [ID, OTHER, None]


def test_what_goes_first_comes_first(queues):
    queues.put("tiny", ID)
    queues.put("tiny", OTHER, first=True)

    assert queues.take("tiny", 0) == OTHER


def test_bases_have_lines_of_their_own(queues):
    queues.put("tiny", ID)

    assert queues.take("other", 0) is None
    assert queues.waiting("other") == []


def test_what_is_removed_does_not_come(queues):
    queues.put("tiny", ID)
    queues.put("tiny", ID)
    queues.remove("tiny", ID)

    assert queues.take("tiny", 0) is None


def test_waiting_ends_when_nothing_comes(queues):
    assert queues.take("tiny", 1) is None


def test_rqs_own_tools_can_read_the_line(client, queues):
    queues.put("tiny", ID)

    (job,) = Queue("overtone:tiny", connection=client, serializer=JSONSerializer).jobs
    assert (job.id, job.func_name, job.args) == (ID, "trainer.child.main", [ID])


def test_nothing_of_it_is_pickled(client, queues):
    import zlib

    queues.put("tiny", ID)

    stored = client.hget(Job.key_for(ID), "data")
    assert json.loads(zlib.decompress(stored))[0] == "trainer.child.main"


def test_nothing_is_left_of_what_was_taken(client, queues):
    queues.put("tiny", ID)
    queues.take("tiny", 0)

    assert client.keys("rq:job:*") == []
    assert client.keys("rq:queue:*") == []
