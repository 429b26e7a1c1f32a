"""Builders of the requests about training, and walks over their lists."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ._requests import MAX_PAGE, Call
from ._requests import _present as present
from ._requests import _segment as segment
from ._upload import Progress, ReportedFile, Source
from .errors import InvalidArgument

FILES, JOBS, WORKERS = "/v1/files", "/v1/fine_tuning/jobs", "/v1/workers"


@dataclass(frozen=True)
class Walk:
    """A walk over a list, page by page; `limit` counts what is still wanted, None is all."""

    url: str
    limit: int | None
    after: str | None

    def call(self) -> Call:
        """The request for the next page."""
        size = MAX_PAGE if self.limit is None else min(self.limit, MAX_PAGE)
        return Call("GET", self.url, params=present({"limit": size, "after": self.after}))

    def following(self, body: Mapping[str, Any]) -> "Walk | None":
        """The walk after the page with this body, None when it is over."""
        found = len(body["data"])
        left = None if self.limit is None else self.limit - found
        is_over = not body.get("has_more") or not found or (left is not None and left <= 0)
        return None if is_over else replace(self, limit=left, after=str(body["data"][-1]["id"]))


def walk(url: str, limit: int | None, after: str | None = None) -> Walk:
    """The walk from its beginning."""
    if limit is not None and limit < 1:
        raise InvalidArgument(f"limit must be at least 1, not {limit}")
    return Walk(url, limit, after)


@contextmanager
def opened(source: Source, on_progress: Progress | None) -> Iterator[Call]:
    """The request that uploads a training file, sendable once, as long as the block lasts.

    The file is read while it is sent; it is never wholly in memory.

    Raises:
        InvalidArgument: there is no such file, or it cannot be read.
    """
    path = Path(source)
    if not path.is_file():
        raise InvalidArgument(f"there is no file {path}")
    try:
        with ReportedFile(path, on_progress) as file:
            part = (path.name, file, "application/octet-stream")
            yield Call("POST", FILES, data={"purpose": "fine-tune"}, files=[("file", part)])
    except OSError as error:
        raise InvalidArgument(f"cannot read {path}: {error.strerror}") from error


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
