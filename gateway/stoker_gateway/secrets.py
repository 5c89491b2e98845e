"""The secrets of functions, encrypted on disk: `FOLDER/NAMESPACE/NAME`, each a Fernet token of its bytes.

Encryption guards copies of the data folder (backups, images) that go without the key file; who has both has
the secrets. Values are kept byte for byte (contract section 16, quirk 26) and never appear in an error or a
log.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from stoker_sdk.errors import BadInput, Conflict, NotFound, StokerError, Unprocessable
from stoker_sdk.files import write_once, write_whole
from stoker_sdk.names import check_namespace, check_secret_name

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

MAX_VALUE = 1024 * 1024
"""Bytes; what Kubernetes allows a Secret, so that every secret here can move there."""


class Secrets(Protocol):
    """Where the API keeps secrets: files of ours, or the objects of a cluster. Errors are those of `SecretStore`."""

    async def create(self, namespace: str, name: str, value: bytes) -> None: ...

    async def replace(self, namespace: str, name: str, value: bytes) -> None: ...

    async def delete(self, namespace: str, name: str) -> None: ...

    async def delete_all(self, namespace: str) -> None: ...

    async def names(self, namespace: str) -> list[str]: ...

    async def exists(self, namespace: str, name: str) -> bool: ...


def check_value(name: str, value: bytes) -> None:
    """Raise `Unprocessable` for what no secret can hold."""
    if len(value) > MAX_VALUE:
        raise Unprocessable(f"secret {name!r} holds {len(value)} bytes: the most is {MAX_VALUE} (1 MiB)")


class SecretStore:
    """Creates, replaces, deletes, lists, reads secrets. Methods block on the disk; threads may share a store.

    The key file (mode 0600) is made at the first start. Raises `StokerError` when the key is unusable, or
    missing while there are secrets that only it can open.
    """

    def __init__(self, folder: Path, key_file: Path) -> None:
        self._folder = folder
        self._key_file = key_file
        self._lock = threading.Lock()
        self._fernet: Fernet | None = None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._key = self._ensure_key()

    def create(self, namespace: str, name: str, value: bytes) -> None:
        """Raises `Conflict` when it exists, `Unprocessable` for a name or a value that is not allowed."""
        path, token = self._path(namespace, name), self._encrypt(name, value)
        with self._lock:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            try:
                write_once(path, token, 0o600)
            except FileExistsError:
                raise Conflict(f"secret {name!r} exists already: update it, or remove it first") from None

    def replace(self, namespace: str, name: str, value: bytes) -> None:
        """Raises `NotFound` when there is none, `Unprocessable` for a name or a value that is not allowed."""
        path, token = self._path(namespace, name), self._encrypt(name, value)
        with self._lock:
            if not path.exists():
                raise _missing(namespace, name)
            write_whole(path, token, 0o600)

    def delete(self, namespace: str, name: str) -> None:
        """Raises `NotFound` when there is none."""
        path = self._path(namespace, name)
        with self._lock:
            try:
                path.unlink()
            except FileNotFoundError:
                raise _missing(namespace, name) from None

    def delete_all(self, namespace: str) -> None:
        """Delete every secret of the namespace, and its folder."""
        with self._lock:
            folder = self._folder / check_namespace(namespace)
            if folder.exists():
                shutil.rmtree(folder)

    def names(self, namespace: str) -> list[str]:
        """The secrets of the namespace, in order."""
        try:
            found = [path.name for path in (self._folder / check_namespace(namespace)).iterdir()]
        except FileNotFoundError:
            return []
        return sorted(name for name in found if not name.startswith("."))

    def exists(self, namespace: str, name: str) -> bool:
        return self._path(namespace, name).exists()

    def read(self, namespace: str, name: str) -> bytes:
        """The value. Raises `NotFound`, or `StokerError` when the file cannot be opened with this key."""
        from cryptography.fernet import InvalidToken

        path = self._path(namespace, name)
        try:
            return self._cipher().decrypt(path.read_bytes())
        except FileNotFoundError:
            raise _missing(namespace, name) from None
        except (InvalidToken, OSError) as error:
            raise StokerError(
                f"secret {name!r} in {path} cannot be opened with the key {self._key_file}: "
                "restore the key it was made with, or update the secret"
            ) from error

    def _path(self, namespace: str, name: str) -> Path:
        try:
            return self._folder / check_namespace(namespace) / check_secret_name(name)
        except BadInput as error:
            raise Unprocessable(str(error)) from None

    def _encrypt(self, name: str, value: bytes) -> bytes:
        check_value(name, value)
        return self._cipher().encrypt(value)

    def _cipher(self) -> Fernet:
        # Imported when first needed: it costs an idle platform several megabytes.
        from cryptography.fernet import Fernet

        if self._fernet is None:
            self._fernet = Fernet(self._key)
        return self._fernet

    def _ensure_key(self) -> bytes:
        try:
            if not self._key_file.exists():
                self._make_key()
            key = self._key_file.read_bytes().strip()
        except OSError as error:
            raise StokerError(
                f"key file {self._key_file} cannot be used: {error.strerror}. Start as the user who owns it"
            ) from error
        if not _is_key(key):
            raise StokerError(
                f"key file {self._key_file} does not hold a key: restore it from a backup, or remove it "
                f"together with {self._folder} and create the secrets anew"
            )
        return key

    def _make_key(self) -> None:
        if any(self._folder.glob("*/[!.]*")):
            raise StokerError(
                f"key file {self._key_file} is missing, and only it opens the secrets in {self._folder}: "
                "restore it from a backup, or remove that folder and create the secrets anew"
            )
        try:
            write_once(self._key_file, base64.urlsafe_b64encode(os.urandom(32)) + b"\n", 0o600)
        except FileExistsError:
            pass


class FileSecrets:
    """A store's secrets for the API, whose event loop must not wait for the disk. Implements `Secrets`."""

    def __init__(self, store: SecretStore) -> None:
        self._store = store

    async def create(self, namespace: str, name: str, value: bytes) -> None:
        await asyncio.to_thread(self._store.create, namespace, name, value)

    async def replace(self, namespace: str, name: str, value: bytes) -> None:
        await asyncio.to_thread(self._store.replace, namespace, name, value)

    async def delete(self, namespace: str, name: str) -> None:
        await asyncio.to_thread(self._store.delete, namespace, name)

    async def delete_all(self, namespace: str) -> None:
        await asyncio.to_thread(self._store.delete_all, namespace)

    async def names(self, namespace: str) -> list[str]:
        return await asyncio.to_thread(self._store.names, namespace)

    async def exists(self, namespace: str, name: str) -> bool:
        return self._store.exists(namespace, name)


def _is_key(text: bytes) -> bool:
    try:
        return len(base64.urlsafe_b64decode(text)) == 32
    except (binascii.Error, ValueError):
        return False


def _missing(namespace: str, name: str) -> NotFound:
    return NotFound(f"secret {name!r} does not exist in namespace {namespace!r}: create it first")
