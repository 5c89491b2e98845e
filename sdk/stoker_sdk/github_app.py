"""The GitHub App that the platform is, as `stoker github setup` stores it: encrypted with the platform's key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import StokerError
from stoker_sdk.files import write_whole

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

PUBLIC_API: Final = "https://api.github.com"


class GitHubApp(msgspec.Struct, frozen=True):
    """What GitHub tells once, when an App is made. `private_key` is PEM; `slug` its name in URLs. `pages_host` is the
    host of the pages that people may sign in to by it; empty for none.
    """

    id: int
    slug: str
    private_key: str
    webhook_secret: str
    html_url: str
    client_id: str = ""
    client_secret: str = ""
    api_url: str = PUBLIC_API
    pages_host: str = ""

    def __repr__(self) -> str:
        return f"GitHubApp({self.id}, {self.slug!r})"


def check_key(data: DataDir) -> None:
    """Raises `StokerError` when the platform has no key that an App could be stored with."""
    _cipher(data)


def store_app(data: DataDir, app: GitHubApp) -> None:
    """Raises `StokerError` when the platform has no key yet."""
    write_whole(data.github_app, _cipher(data).encrypt(msgspec.json.encode(app)))


def stored_app(data: DataDir) -> GitHubApp | None:
    """Raises `StokerError` when it cannot be opened with the platform's key."""
    from cryptography.fernet import InvalidToken

    try:
        token = data.github_app.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(_cipher(data).decrypt(token), type=GitHubApp)
    except (InvalidToken, msgspec.MsgspecError) as error:
        raise StokerError(
            f"the GitHub App in {data.github_app} cannot be opened with the key {data.key}: "
            "restore the key it was stored with, or run `stoker github setup` again"
        ) from error


def _cipher(data: DataDir) -> Fernet:
    from cryptography.fernet import Fernet

    try:
        return Fernet(data.key.read_bytes().strip())
    except FileNotFoundError:
        raise StokerError(f"there is no platform at {data.path} yet: start `stoker serve` on it first") from None
    except (OSError, ValueError) as error:
        raise StokerError(f"the platform's key {data.key} cannot be used: {error}") from None
