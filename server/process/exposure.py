"""A server that asks for no keys is for this machine alone."""

from adapters_core.starting import CannotStart
from server.hosts import is_this_machine
from server.settings import Settings


def check_exposure(settings: Settings) -> None:
    """Refuse to listen beyond this machine without keys, if that was not asked for.

    Raises:
        CannotStart: the host is not this machine's own, and there may be no keys.
    """
    has_keys = settings.require_keys or settings.api_keys
    if has_keys or settings.allow_keyless or is_this_machine(settings.host):
        return
    raise CannotStart(
        f"{settings.host!r} can be reached from other machines, and this server asks for no keys",
        "Give it keys (OVERTONE_API_KEYS=NAME=SECRET), or --require-keys if its registry has some; "
        "--allow-keyless lets all that reach it do everything",
    )
