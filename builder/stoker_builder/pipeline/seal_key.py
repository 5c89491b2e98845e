"""The platform's key pair for sealed secrets: made once, the private half in a file of mode 0600."""

from __future__ import annotations

from pathlib import Path

from stoker_sdk.errors import StokerError
from stoker_sdk.files import write_once
from stoker_sdk.sealing import KEY_BYTES, new_private_key


def read_seal_key(path: Path) -> bytes:
    """The private key; a missing file is made. Raises `StokerError`."""
    try:
        if not path.exists():
            _make(path)
        key = path.read_bytes()
    except OSError as error:
        raise StokerError(f"the key of sealed secrets {path} cannot be used: {error.strerror}") from error
    if len(key) != KEY_BYTES:
        raise StokerError(f"{path} is no key of sealed secrets: restore it from a backup")
    return key


def _make(path: Path) -> None:
    try:
        write_once(path, new_private_key(), 0o600)
    except FileExistsError:
        pass  # another process was faster, and its key is as good
