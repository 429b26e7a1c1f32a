"""`GET /v1/workers` and the metric say which workers are alive, and of no job whose it is."""

from collections.abc import Callable

from live import Live
from registry.jobs.workers import WorkerRecord


def test_workers_are_listed_and_counted(serve: Callable[..., Live]) -> None:
    server = serve()
    assert server.http.get("/v1/workers").json() == {"object": "list", "data": []}
    workers = server.service.registry.workers
    for name, job in (("host:1", None), ("host:2", "ftjob-secret")):
        workers.beat(WorkerRecord(name, "tiny", "cpu", 1000.5, job))

    answer = server.http.get("/v1/workers")

    common = {"object": "worker", "model": "tiny", "device": "cpu", "started_at": 1000}
    assert answer.json()["data"] == [
        common | {"id": "host:1", "is_busy": False},
        common | {"id": "host:2", "is_busy": True},
    ]
    assert "secret" not in answer.text
    assert server.metric("overtone_workers") == 2
