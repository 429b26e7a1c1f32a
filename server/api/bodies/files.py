"""Uploaded files, in OpenAI's shapes, and what pages of lists have in common."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict


class ListPage(TypedDict):
    """A page of a list."""

    object: Literal["list"]
    has_more: bool
    first_id: str | None
    last_id: str | None


class FileFault(TypedDict):
    """What is wrong with one line of a file.

    Args:
        line: counted from 1; null stands for the whole file.
        code, param: only of a batch's file.
    """

    line: int | None
    message: str
    code: NotRequired[str]
    param: NotRequired[str | None]


class FileFacts(TypedDict):
    """What the check of a file found.

    Args:
        digest: `sha256:` and 64 hex digits.
        kind: such as `jsonl`, `images` or `batch`.
        num_examples: those without a fault.
        num_requests: of a batch's file, or lines of a batch's results.
        endpoint: of a batch's requests.
        forms: form of examples -> how many have it.
        faults: the first lines at fault.
        shown: the faults as one text.
    """

    digest: str
    kind: NotRequired[str]
    num_examples: NotRequired[int]
    num_requests: NotRequired[int]
    endpoint: NotRequired[str | None]
    forms: NotRequired[dict[str, int]]
    faults: NotRequired[list[FileFault]]
    shown: NotRequired[str]


class File(TypedDict):
    """An uploaded file.

    Args:
        bytes: size of its content.
        created_at: seconds since 1970.
        status: `error` where it cannot be trained on, or run as a batch.
        status_details: the lines at fault.
    """

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: None
    filename: str
    purpose: str
    status: Literal["processed", "error"]
    status_details: str | None
    overtone: FileFacts


class FilePage(ListPage):
    """The caller's files, the newest first.

    Args:
        has_more: there is a page after this one: ask with `after` = `last_id`.
    """

    data: list[File]


class DeletedFile(TypedDict):
    """A file that was deleted."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]
