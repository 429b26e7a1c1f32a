"""Lists of token ids in a body, which may hold a million of them."""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError, ValidatorFunctionWrapHandler
from pydantic.functional_validators import WrapValidator

#: Ids that are checked in one go: about a millisecond, in which no other thread runs.
_AT_ONCE = 1 << 15

Token = Annotated[int, Field(strict=True, ge=0)]

_ADAPTER: TypeAdapter[list[int]] = TypeAdapter(Annotated[list[Token], Field(fail_fast=True)])


def _in_pieces(given: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Check a long list piece by piece; what is wrong with it the usual check says."""
    if not isinstance(given, list) or len(given) <= _AT_ONCE:
        return check(given)
    try:
        for piece in _pieces(given):
            _ADAPTER.validate_python(piece)
    except ValidationError:
        return check(given)
    return given


def _pieces(given: list[Any]) -> Iterable[list[Any]]:
    return (given[start : start + _AT_ONCE] for start in range(0, len(given), _AT_ONCE))


#: A body's size bounds how many.
TokenList = Annotated[list[Token], Field(fail_fast=True), WrapValidator(_in_pieces)]
Tokens = Annotated[list[Token], Field(min_length=1, fail_fast=True), WrapValidator(_in_pieces)]
