"""Parameters that several routes share, with what OpenAPI says of them."""

from typing import Annotated

from fastapi import Path, Query
from starlette.convertors import Convertor, register_url_convertor

from registry import RESERVED


class AdapterConvertor(Convertor[str]):
    """An adapter's name in a route's path, `{name:adapter}`: `NAME` or `ORG/NAME`.

    The slash may have been sent as `%2F`. A second part that is a word of the API's own is none of
    the name: no adapter is called so.
    """

    regex = rf"[^/]+(?:/(?!(?:{'|'.join(RESERVED)})(?:/|$))[^/]+)?"

    def convert(self, value: str) -> str:
        """Return the name as it stands in the path."""
        return value

    def to_string(self, value: str) -> str:
        """Return the name as it stands in a path."""
        return value


register_url_convertor("adapter", AdapterConvertor())

_MAY_BE_TWO = "`ORG/NAME` may be written with `/` or `%2F`."
AdapterName = Annotated[str, Path(description=f"The adapter's name. {_MAY_BE_TWO}")]
ModelName = Annotated[
    str,
    Path(
        description="The adapter: `NAME`, `NAME@3`, `NAME@prod` or `NAME@sha256:…`. " + _MAY_BE_TWO,
    ),
]
AdapterVersion = Annotated[int, Path(description="The version's number.")]
FileId = Annotated[str, Path(description="`file-` and 24 hex digits.")]
BatchId = Annotated[str, Path(description="`batch_` and 24 hex digits.")]
JobId = Annotated[str, Path(description="`ftjob-` and 24 hex digits.")]

#: Every list of a server goes so far.
MAX_PAGE = 1000
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Entries of the page.")]
MaybeLimit = Annotated[
    int | None, Query(ge=1, le=MAX_PAGE, description="Entries of the page. Missing: all.")
]
After = Annotated[str | None, Query(description="Only what comes after this entry: its id.")]
