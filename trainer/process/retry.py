"""Retries while the registry is unavailable."""

import logging
from collections.abc import Callable
from typing import TypeVar

from registry.errors import RegistryUnavailable

T = TypeVar("T")
log = logging.getLogger(__name__)

FIRST_WAIT_S = 0.05
LAST_WAIT_S = 2.0


class Interrupted(Exception):
    """The wait for the registry was interrupted."""


def until_available(ask: Callable[[], T], interrupted: Callable[[float], bool]) -> T:
    """Return the result of `ask`, called again until the registry answers.

    Args:
        ask: harmless to repeat.
        interrupted: waits so many seconds and returns whether to give up.

    Raises:
        Interrupted: `interrupted` returned True.
        RegistryUnavailable: retrying does not help.
    """
    wait_s = FIRST_WAIT_S
    while True:
        try:
            return ask()
        except RegistryUnavailable as error:
            if not error.may_pass:
                raise
            if wait_s == FIRST_WAIT_S:
                log.warning("%s", error)
            if interrupted(wait_s):
                raise Interrupted("stopped while the registry does not answer") from error
            wait_s = min(2 * wait_s, LAST_WAIT_S)
