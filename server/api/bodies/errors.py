"""The body of every error."""

from typing_extensions import TypedDict


class Fault(TypedDict):
    """What went wrong.

    Args:
        message: what is wrong, with which value, and what to do; for people.
        type: OpenAI's kind of error.
        param: the whole path of the field at fault, such as `messages[2].content`, if one is.
        code: a stable word for programs.
    """

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(TypedDict):
    """The body of every error; in a stream, the data of its last event before `[DONE]`."""

    error: Fault
