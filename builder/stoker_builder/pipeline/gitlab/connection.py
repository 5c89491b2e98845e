"""How the platform is connected to GitLab: an address, a token, the secret of its hooks, by files that may change."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from stoker_sdk.errors import BadInput, StokerError

PUBLIC: Final = "https://gitlab.com"


class GitLabSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """The flags of `stoker serve` about GitLab."""

    url: str = PUBLIC
    token_file: str = ""
    webhook_secret_file: str = ""


@dataclass(frozen=True)
class Connection:
    """Any of the secrets will do, so that they can be changed."""

    url: str
    token: str = field(repr=False)
    secrets: tuple[bytes, ...] = field(repr=False)


def read_connection(settings: GitLabSettings) -> Connection | None:
    """None where GitLab is not connected. Raises `StokerError` for files that cannot be used."""
    if not settings.token_file:
        return None
    check_url(settings.url)
    secrets = tuple(line.encode() for line in _lines(settings.webhook_secret_file, "the hooks' secret"))
    return Connection(settings.url.rstrip("/"), _lines(settings.token_file, "the token")[0], secrets)


def check_url(url: str) -> None:
    """Raises `BadInput`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise BadInput(f"GitLab cannot be at {url[:100]!r}: write https://HOST")


def _lines(name: str, what: str) -> list[str]:
    try:
        lines = [line.strip() for line in Path(name).read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise StokerError(f"{what} for GitLab cannot be read from {name!r}: {error}") from None
    if not lines:
        raise StokerError(f"{what} for GitLab is missing: {name!r} is empty")
    return lines
