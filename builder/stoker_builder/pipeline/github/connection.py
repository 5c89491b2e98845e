"""How the platform is connected to GitHub: as an App or with a token, by files that may change while it runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import BadInput, StokerError
from stoker_sdk.github_app import PUBLIC_API, stored_app

log = logging.getLogger("stoker.pipeline")

_LOGIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class GitHubSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """The flags of `stoker serve` about GitHub; files, so that no secret stands on a command line.

    Without an App and a token here, the App that `stoker github setup` has stored is used, if there is one.
    """

    app_id: str = ""
    key_file: str = ""
    token_file: str = ""
    webhook_secret_file: str = ""
    api_url: str = PUBLIC_API
    owners_file: str = ""
    """One login a line; others' pushes start nothing. Empty: everybody's do who has the webhook's secret."""
    fork_previews: bool = False
    """Whether a fork's pull request is built without a label that allows it."""


@dataclass(frozen=True)
class Connection:
    """What is needed to speak to GitHub. Either an App (`app_id`, `private_key`), or a token."""

    api_url: str
    web_url: str
    secrets: tuple[bytes, ...] = field(repr=False)
    app_id: str = ""
    private_key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @property
    def is_app(self) -> bool:
        return bool(self.app_id)


class Connections:
    """The connection in force, read again when one of its files has changed."""

    def __init__(self, settings: GitHubSettings, data: DataDir) -> None:
        self._settings = settings
        self._data = data
        self._owners = _OwnersFile(Path(settings.owners_file)) if settings.owners_file else None
        self._seen: tuple[int, ...] = ()
        self._connection: Connection | None = None

    @property
    def current(self) -> Connection | None:
        """None where GitHub is not connected. Raises `StokerError` for files that cannot be used."""
        stamp = _stamp(self._files())
        if stamp != self._seen or self._connection is None:
            self._connection = self._read()
            self._seen = stamp
        return self._connection

    def allows(self, owner: str) -> bool:
        """Whether pushes to the repositories of this owner start runs."""
        return self._owners is None or self._owners.has(owner)

    def _files(self) -> Iterable[Path]:
        settings = self._settings
        named = (settings.key_file, settings.token_file, settings.webhook_secret_file)
        return (*(Path(name) for name in named if name), self._data.github_app)

    def _read(self) -> Connection | None:
        settings = self._settings
        if settings.app_id or settings.token_file:
            return _connection_of(settings)
        app = stored_app(self._data)
        if app is None:
            return None
        secret = app.webhook_secret.encode()
        return Connection(app.api_url, web_url(app.api_url), (secret,), str(app.id), app.private_key)


class _OwnersFile:
    """The allow-list. When it cannot be read, what was last read holds; before that, nobody is on it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._owners: frozenset[str] = frozenset()

    def has(self, owner: str) -> bool:
        stamp = _stamp((self._path,))
        if stamp != self._seen:
            try:
                self._owners = read_owners(self._path.read_text())
                self._seen = stamp
            except (OSError, UnicodeDecodeError, BadInput) as error:
                log.warning("%s stays as it was read before: %s", self._path, error)
        return owner.lower() in self._owners


def read_owners(text: str) -> frozenset[str]:
    """Logins, one a line, in any case; `#` begins a remark. Raises `BadInput`."""
    owners = set()
    for number, line in enumerate(text.splitlines(), 1):
        login = line.partition("#")[0].strip()
        if login and not _LOGIN.fullmatch(login):
            raise BadInput(f"line {number}: {login[:60]!r} is not a GitHub login: write one on each line")
        if login:
            owners.add(login.lower())
    return frozenset(owners)


def web_url(api_url: str) -> str:
    """Where repositories are cloned from: beside the API of github.com, or of a GitHub Enterprise Server."""
    parts = urlsplit(api_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise BadInput(f"GitHub's API cannot be at {api_url[:100]!r}: write https://HOST/api/v3")
    return f"{parts.scheme}://{parts.netloc.removeprefix('api.')}"


def _connection_of(settings: GitHubSettings) -> Connection:
    secrets = tuple(line.encode() for line in _lines(settings.webhook_secret_file, "the webhook's secret"))
    base = settings.api_url.rstrip("/")
    if settings.app_id:
        key = "\n".join(_lines(settings.key_file, "the App's private key")) + "\n"
        return Connection(base, web_url(base), secrets, settings.app_id, key)
    return Connection(base, web_url(base), secrets, token=_lines(settings.token_file, "the token")[0])


def _lines(name: str, what: str) -> list[str]:
    try:
        lines = [line.strip() for line in Path(name).read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise StokerError(f"{what} for GitHub cannot be read from {name!r}: {error}") from None
    if not lines:
        raise StokerError(f"{what} for GitHub is missing: {name!r} is empty")
    return lines


def _stamp(files: Iterable[Path]) -> tuple[int, ...]:
    """Changes whenever one of the files does."""
    numbers: list[int] = []
    for path in files:
        try:
            stat = path.stat()
        except OSError:
            numbers.append(0)
        else:
            numbers += (stat.st_mtime_ns, stat.st_ino, stat.st_size)
    return tuple(numbers)
