"""Who sends a webhook is known by an HMAC-SHA256 over its bytes (`X-Hub-Signature-256`). Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from stoker_sdk.errors import Unauthorized

_PREFIX = b"sha256="


def check_signature(header: str, body: bytes, secrets: Iterable[bytes]) -> None:
    """Raises `Unauthorized`, with one text for every reason. Any of the secrets will do, so that they can be changed.

    GitHub's SHA-1 header does not count.
    """
    given = header.encode("utf-8", "surrogateescape")
    matches = False
    for secret in secrets:
        expected = _PREFIX + hmac.new(secret, body, hashlib.sha256).hexdigest().encode()
        matches |= hmac.compare_digest(expected, given)
    if not matches:
        raise Unauthorized(
            "X-Hub-Signature-256 is missing or is not that of this body: give GitHub the secret that the platform has"
        )
