"""A worker as an actor: trains jobs in processes of its own, and is never asked anything."""

from typing import Any

from server.process.worker_process import WorkerProcess
from server.settings import read_settings


class Worker:
    """Trains one job of a base at a time.

    Args:
        settings: of the base's servers, those that are not in the environment.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._process = WorkerProcess(read_settings(**settings), is_stopping=lambda: False)

    def __del__(self) -> None:
        self._process.close()
