"""Parameters that several routes share, with what OpenAPI says of them."""

from typing import Annotated

from fastapi import Path, Query

AdapterName = Annotated[str, Path(description="The adapter's name.")]
ModelName = Annotated[
    str, Path(description="The adapter: `NAME`, `NAME@3`, `NAME@prod` or `NAME@sha256:…`.")
]
AdapterVersion = Annotated[int, Path(description="The version's number.")]
FileId = Annotated[str, Path(description="`file-` and 24 hex digits.")]
JobId = Annotated[str, Path(description="`ftjob-` and 24 hex digits.")]

#: Every list of a server goes so far.
MAX_PAGE = 1000
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Entries of the page.")]
After = Annotated[str | None, Query(description="Only what comes after this entry: its id.")]
