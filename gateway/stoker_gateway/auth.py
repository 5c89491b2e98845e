"""The one password of the control API: made once, kept in a file, compared in constant time.

There is one user. Whoever can read the file may deploy code, so it is for the platform's own user alone;
the CLI on the same machine finds it there.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path

from stoker_sdk.errors import StokerError
from stoker_sdk.files import write_once


def ensure_password(path: Path) -> str:
    """The password in the file; a missing file is made with a random one (43 characters, mode 0600).

    Raises `StokerError` for a file that cannot be read or made, or that holds no password.
    """
    try:
        if not path.exists():
            _make(path)
        password = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise StokerError(
            f"password file {path} cannot be used: {reason}. Start as the user who owns it, or remove it: "
            "the next start makes a new one"
        ) from error
    if not password:
        raise StokerError(
            f"password file {path} is empty. Write a password into it, or remove it: the next start makes one"
        )
    return password


def _make(path: Path) -> None:
    try:
        write_once(path, f"{secrets.token_urlsafe(32)}\n".encode(), 0o600)
    except FileExistsError:
        pass  # another process was faster, and its password is as good


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
