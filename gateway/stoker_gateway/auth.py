"""The one password of the control API: made once, kept in a file.

There is one user. Whoever can read the file may deploy code, so it is for the platform's own user alone;
the CLI on the same machine finds it there.
"""

from __future__ import annotations

import secrets
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
