"""Content-Digest (RFC 9530): `sha-256=:BASE64:`, checked when it is sent."""

import base64
import binascii

from server.errors import InvalidRequest


def check_content_digest(header: str, sha256: bytes) -> None:
    """Check a Content-Digest against the content's own; algorithms we do not know are passed over.

    Raises:
        InvalidRequest: it is malformed, or the content arrived changed.
    """
    for member in header.split(","):
        name, _, value = member.strip().partition("=")
        if name != "sha-256":
            continue
        try:
            claimed = base64.b64decode(value.strip(":"), validate=True)
        except (ValueError, binascii.Error) as error:
            raise InvalidRequest("Content-Digest is malformed", "Content-Digest") from error
        if claimed != sha256:
            raise InvalidRequest(
                "the content does not match its Content-Digest: send it again", "Content-Digest"
            )
