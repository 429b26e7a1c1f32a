"""Waiting out a registry that is down."""

import logging
from collections.abc import Callable
from typing import TypeVar

from registry.errors import RegistryUnavailable

T = TypeVar("T")
log = logging.getLogger(__name__)

FIRST_WAIT_S = 0.05
LAST_WAIT_S = 2.0


class Interrupted(Exception):
    """Somebody asked to stop while the registry did not answer."""


def until_available(ask: Callable[[], T], interrupted: Callable[[float], bool]) -> T:
    """Return what `ask` returns, asking again until the registry answers.

    Args:
        ask: something that may be asked twice.
        interrupted: waits so many seconds and tells whether to give up.

    Raises:
        Interrupted: it was told to give up.
        RegistryUnavailable: asking again does not help.
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
