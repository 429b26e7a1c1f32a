"""Builders of the requests about training, and walks over their lists."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._requests import Call
from ._requests import _present as present
from ._requests import _segment as segment
from ._upload import Progress, ReportedFile, Source, readable
from .errors import InvalidArgument

FILES, JOBS, WORKERS = "/v1/files", "/v1/fine_tuning/jobs", "/v1/workers"


@contextmanager
def opened(
    source: Source, on_progress: Progress | None, purpose: str = "fine-tune"
) -> Iterator[Call]:
    """The request that uploads a file; it may be sent again as long as the block lasts.

    The file is read each time the request is sent; it is never wholly in memory.

    Raises:
        InvalidArgument: there is no such file, or it cannot be read.
    """
    path = Path(source)
    if not path.is_file():
        raise InvalidArgument(f"there is no file {path}")
    with readable(path), ReportedFile(path, on_progress) as file:
        part = (path.name, file, "application/octet-stream")
        yield Call("POST", FILES, data={"purpose": purpose}, files=[("file", part)])


def file_path(id_: str, *tail: str) -> str:
    """`/v1/files/ID/…`."""
    return "/".join([FILES, *(segment(part) for part in (id_, *tail))])


def job_path(id_: str, *tail: str) -> str:
    """`/v1/fine_tuning/jobs/ID/…`."""
    return "/".join([JOBS, *(segment(part) for part in (id_, *tail))])


def create(model: str, training_file: str, adapter: Mapping[str, Any], **rest: Any) -> Call:
    """A new job; what is None is left out.

    Args:
        model: the base's name.
        training_file: an uploaded file's id.
        adapter: what the job makes.
        rest: `hyperparameters`, and other fields of OpenAI's request.
    """
    hyper = present(rest.pop("hyperparameters") or {})
    body = present({"model": model, "training_file": training_file, **rest})
    if hyper:
        body["method"] = {"type": "supervised", "supervised": {"hyperparameters": hyper}}
    return Call("POST", JOBS, json={**body, "adapter": present(adapter)})


def evaluation(model: str, file: str, max_length: int | None) -> Call:
    """An evaluation with its progress."""
    body = {"model": model, "file": file, "max_length": max_length, "stream": True}
    return Call("POST", "/v1/evaluations", json=present(body))


def streamed(id_: str, after: str | None, after_step: int | None) -> Call:
    """A job's events as they come."""
    params = present({"stream": "true", "after": after, "after_step": after_step})
    return Call("GET", job_path(id_, "events"), params=params)
