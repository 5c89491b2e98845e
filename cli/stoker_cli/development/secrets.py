"""Secrets while developing: files in `.secrets` beside the stack file, as `faas-cli local-run` has them."""

from __future__ import annotations

from pathlib import Path

from stoker_sdk.client import ControlClient
from stoker_sdk.errors import BadInput, Conflict
from stoker_sdk.messages import Secret
from stoker_sdk.stack import StackFunction

FOLDER = ".secrets"


class LocalSecrets:
    """Puts the secrets that functions list on the private platform, and again when their files change."""

    def __init__(self, client: ControlClient, stack_folder: Path) -> None:
        self._client = client
        self._given: dict[tuple[str, str], bytes] = {}
        self.folder = stack_folder / FOLDER

    def give(self, function: StackFunction) -> None:
        """Raises `BadInput` for a secret without a file."""
        for name in function.secrets:
            value = self._read(name)
            if self._given.get((function.namespace, name)) != value:
                self._store(Secret(name, function.namespace, raw_value=value))
                self._given[function.namespace, name] = value

    def _store(self, secret: Secret) -> None:
        try:
            self._client.create_secret(secret)
        except Conflict:
            self._client.update_secret(secret)

    def _read(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            reason = "there is no" if isinstance(error, FileNotFoundError) else f"{error.strerror}:"
            raise BadInput(
                f"it lists the secret {name!r}, but {reason} {FOLDER}/{name} beside the stack file: "
                "write the secret's value into that file"
            ) from None
