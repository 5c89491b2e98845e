"""Secrets in files: those of the folder `.secrets`, and new ones that are made up."""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

from stoker_sdk.errors import BadInput, Conflict, NotFound, StokerError
from stoker_sdk.files import write_once
from stoker_sdk.names import check_secret_name

SECRETS_FOLDER = Path(".secrets")
MAX_SECRET = 1 << 20
"""Kubernetes takes no larger one."""


def read_secret(path: Path) -> bytes:
    """Raises `BadInput` for what is no file, or larger than a secret may be."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET + 1)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > MAX_SECRET:
        raise BadInput(f"{path} is larger than {MAX_SECRET >> 20} MiB, too large for a secret")
    return content


def secrets_in(folder: Path) -> dict[str, Path]:
    """The files of a folder as secrets, by name. Raises `NotFound` for no folder, `BadInput` for a bad name, a link
    or a folder in it, before anything is sent.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise NotFound(f"the folder {folder} cannot be read: {error.strerror}") from None
    for path in paths:
        if path.is_symlink() or not path.is_file():
            raise BadInput(f"{path} is not a file: {folder} holds one file for each secret")
        check_secret_name(path.name)
    return {path.name: path for path in paths}


def generated(length: int) -> str:
    """A value nobody can guess: so many random bytes, in base64 that needs no quoting."""
    return base64.urlsafe_b64encode(secrets.token_bytes(length)).decode().rstrip("=")


def save_generated(name: str, folder: Path, value: str) -> Path:
    """Write a value to a file that only its owner can read. Raises `Conflict` when there is one."""
    path = folder / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_once(path, value.encode(), 0o600)
    except FileExistsError:
        raise Conflict(f"{path} exists already: remove it first, its value may be in use") from None
    except OSError as error:
        raise StokerError(f"{path} cannot be written: {os.strerror(error.errno or 0)}") from None
    return path
