"""Who may use the platform's APIs: one user and password, compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass


@dataclass(frozen=True)
class BasicAuth:
    """Who may use the control API, and how a request's `Authorization` header is checked against it."""

    user: str
    password: str

    def allows(self, header: str) -> bool:
        """Whether the header holds the right user and password; a bearer token never does."""
        scheme, _, encoded = header.strip().partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(given, f"{self.user}:{self.password}".encode())


def same_text(given: str, right: str) -> bool:
    """Compared in constant time, whatever characters the given text has."""
    return hmac.compare_digest(given.encode(errors="replace"), right.encode())
