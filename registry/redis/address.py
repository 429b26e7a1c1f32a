"""A registry's URL and the password in it: put in, taken out, read from a file.

A URL on a command line can be read by every user of the machine in the list of processes, so a
password has two other ways in: the environment, and a file.
"""

from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from registry.errors import InvalidArgument

EMBEDDED = "embedded"
MASK = "***"
_MAIN = "password"
#: For a URL with a password that came as a flag.
FLAG_WARNING = (
    "warning: --registry holds a password, which every user of this machine can read in the list "
    "of processes. Set OVERTONE_REGISTRY instead, or keep the password in a file and give "
    "--registry-password-file"
)


def has_password(url: str) -> bool:
    """True if the URL holds a password: the registry's, its Sentinels' or its key file's."""
    return bool(_passwords_of(url))


def masked(url: str) -> str:
    """Return the URL for people and logs: the password is `***`, in a query too."""
    if not has_password(url):
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{MASK}@{url.rpartition('@')[2]}"
    place = parts.netloc.rpartition("@")[2]
    user = parts.netloc.rpartition("@")[0].partition(":")[0]
    query = "&".join(_masked_pair(pair) for pair in parts.query.split("&"))
    has_user = "@" in parts.netloc
    netloc = f"{user}:{MASK}@{place}" if has_user else place
    return urlunsplit(parts._replace(netloc=netloc, query=query))


def with_password(url: str, password: str | None) -> str:
    """Return the URL with the password in it.

    Raises:
        InvalidArgument: the URL has one already, or is of a registry that takes none.
    """
    if not password:
        return url
    if url == EMBEDDED:
        raise InvalidArgument("the embedded registry takes no password: name one with a URL")
    if _MAIN in _passwords_of(url):
        raise InvalidArgument(
            "the registry's URL holds a password, and another one is given: leave one out"
        )
    parts = urlsplit(url)
    before, _, place = parts.netloc.rpartition("@")
    user = before.partition(":")[0]
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{place}"))


def password_in(file: Path) -> str:
    """Return the first line of a file.

    Raises:
        InvalidArgument: it cannot be read, or is empty.
    """
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise InvalidArgument(f"the registry's password file {file}: {why}") from error
    if not lines or not lines[0].strip():
        raise InvalidArgument(f"the registry's password file {file} has no first line")
    return lines[0].strip()


def _passwords_of(url: str) -> dict[str, str]:
    """Return every password in the URL by the name of its option."""
    try:
        parts = urlsplit(url)
        given = {_MAIN: parts.password or ""}
    except ValueError:  # malformed: whatever stands before an @ may be one
        return {_MAIN: url.rpartition("@")[0]} if "@" in url else {}
    pairs = [pair.partition("=") for pair in parts.query.split("&") if _is_password(pair)]
    found = given | {name.lower(): value for name, _, value in pairs if value}
    return {name: value for name, value in found.items() if value}


def _is_password(pair: str) -> bool:
    return pair.partition("=")[0].lower().endswith(_MAIN)


def _masked_pair(pair: str) -> str:
    return f"{pair.partition('=')[0]}={MASK}" if _is_password(pair) else pair
