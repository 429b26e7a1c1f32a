"""How long a page of any list may be."""

from registry.errors import InvalidArgument

#: One more than callers of the REST API get: the last one shows that there are more.
MAX_PAGE = 1001


def check_limit(limit: int) -> int:
    """Return the length of a page that is asked for.

    Raises:
        InvalidArgument: it is not from 1 to `MAX_PAGE`.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidArgument(f"limit {limit} is not between 1 and {MAX_PAGE}")
    return limit
