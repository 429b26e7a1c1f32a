"""The queues of jobs that wait for a worker: RQ's, with JSON and without its workers.

A queue holds ids and wakes a waiting worker; it decides nothing. Which worker runs a job is decided
by the claim of its record (claims.py), so an id that is queued twice does no harm. One that was
lost between the record and the queue is queued again by the next worker that looks.
"""

import redis
from rq import Queue
from rq.exceptions import DequeueTimeout
from rq.job import Job
from rq.serializers import JSONSerializer

from registry.redis.scripts import Scripts

#: What RQ's own tools show as the job's function; our workers start it themselves.
_FUNCTION = "trainer.child.main"


class JobQueues:
    """One queue of waiting jobs a base; safe to use from many threads.

    Args:
        client: answers bytes; its socket timeout must be longer than what `take` waits.
        scripts: which turn a fault of the connection into an error of ours.
    """

    def __init__(self, client: redis.Redis, scripts: Scripts) -> None:
        self._client = client
        self._scripts = scripts

    def put(self, base_name: str, job_id: str, first: bool = False) -> None:
        """Queue a job at the end, or before all others if it has waited already."""
        with self._scripts.asking("queue_put"):
            self._queue(base_name).enqueue_call(
                _FUNCTION,
                args=(job_id,),
                job_id=job_id,
                timeout=-1,  # a job trains as long as it needs
                description=job_id,
                at_front=first,
            )

    def take(self, base_name: str, wait_s: int) -> str | None:
        """Return the next job's id and remove it from the queue; None if none came in time.

        Args:
            base_name: of the jobs.
            wait_s: whole seconds; 0 does not wait.
        """
        key = self._queue(base_name).key
        with self._scripts.asking("queue_take"):
            try:
                found = Queue.lpop([key], wait_s or None, connection=self._client)
            except DequeueTimeout:
                found = None
            if found is None:
                return None
            job_id: str = found[1].decode()
            self._client.delete(Job.key_for(job_id))
        return job_id

    def remove(self, base_name: str, job_id: str) -> None:
        """Remove a job from the queue."""
        with self._scripts.asking("queue_remove"):
            self._client.lrem(self._queue(base_name).key, 0, job_id)
            self._client.delete(Job.key_for(job_id))

    def waiting(self, base_name: str) -> list[str]:
        """Return the queued ids, the next one first."""
        with self._scripts.asking("queue_waiting"):
            return self._queue(base_name).get_job_ids()

    def _queue(self, base_name: str) -> Queue:
        return Queue(f"overtone:{base_name}", connection=self._client, serializer=JSONSerializer)
