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
    """What is wrong with one line of a file."""

    line: int
    message: str


class FileFacts(TypedDict):
    """What the check of a file found.

    Args:
        digest: `sha256:` and 64 hex digits.
        kind: `lines`, or `images`.
        num_examples: those without a fault.
        forms: form of examples -> how many have it.
        faults: the first lines at fault.
        shown: the faults as one text.
    """

    digest: str
    kind: NotRequired[str]
    num_examples: NotRequired[int]
    forms: NotRequired[dict[str, int]]
    faults: NotRequired[list[FileFault]]
    shown: NotRequired[str]


class File(TypedDict):
    """An uploaded file.

    Args:
        bytes: size of its content.
        created_at: seconds since 1970.
        status: `error` where it cannot be trained on.
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
