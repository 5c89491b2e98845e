"""Who the CLI is for a gateway: faas-cli's own file, or the password of the platform on this machine.

The file is shared with faas-cli (contract section 3.1), so a login with either tool serves both, and entries
that we do not understand are kept.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stoker_sdk.data_dir import ADMIN, DataDir
from stoker_sdk.errors import StokerError
from stoker_sdk.files import write_whole
from stoker_sdk.gateway_address import is_loopback


def basic_authorization(user: str, password: str) -> str:
    """The value of the `Authorization` header for a user and a password."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def config_folder(environment: Mapping[str, str], home: Path) -> Path:
    """`OPENFAAS_CONFIG`; in a CI job `.openfaas` of the working folder; else `~/.openfaas`."""
    named = environment.get("OPENFAAS_CONFIG")
    if named:
        return Path(named)
    in_ci = environment.get("CI", "").lower() in ("true", "1")
    return Path(".openfaas") if in_ci else home / ".openfaas"


@dataclass(frozen=True)
class CredentialStore:
    """The stored logins: `config.yml` in `folder`. Gateways are compared in their normalized form."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "config.yml"

    def find(self, gateway: str) -> str:
        """The `Authorization` value stored for a gateway, or an empty string. Raises `StokerError`."""
        for entry in _entries(self._read()):
            if entry.get("gateway") == gateway and entry.get("token"):
                scheme = "Basic" if entry.get("auth") == "basic" else "Bearer"
                return f"{scheme} {entry['token']}"
        return ""

    def save(self, gateway: str, user: str, password: str) -> None:
        """Store a login, in place of the one that there was for this gateway."""
        token = basic_authorization(user, password).removeprefix("Basic ")
        config = self._read()
        others = [entry for entry in _entries(config) if entry.get("gateway") != gateway]
        self._write({**config, "auths": [*others, {"gateway": gateway, "auth": "basic", "token": token}]})

    def remove(self, gateway: str) -> bool:
        """Forget the login for a gateway; False when there was none."""
        config = self._read()
        entries = _entries(config)
        others = [entry for entry in entries if entry.get("gateway") != gateway]
        if len(others) == len(entries):
            return False
        self._write({**config, "auths": others})
        return True

    def _read(self) -> dict[str, Any]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StokerError(f"the logins in {self.path} cannot be read: {error.strerror}") from None
        import yaml

        try:
            config = yaml.safe_load(content)
        except (yaml.YAMLError, RecursionError):
            raise StokerError(f"{self.path} is not YAML: repair it, or remove it and run `stoker login`") from None
        return config if isinstance(config, dict) else {}

    def _write(self, config: dict[str, Any]) -> None:
        import yaml

        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self.path, yaml.safe_dump(config, sort_keys=False).encode())
        except OSError as error:
            raise StokerError(f"the login cannot be stored in {self.path}: {error.strerror}") from None


def local_authorization(gateway: str, data_dir: DataDir) -> str:
    """The admin's `Authorization` value for a platform on this machine, or an empty string when there is
    none.

    Raises `StokerError` when the password is there and cannot be read: another user runs the platform.
    """
    if not is_loopback(gateway):
        return ""
    try:
        password = data_dir.password.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise StokerError(_unreadable(data_dir.password, error)) from None
    return basic_authorization(ADMIN, password) if password else ""


def _unreadable(path: Path, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else "it is not text"
    return (
        f"the password file {path} cannot be read ({reason}): "
        "run this as the user who runs `stoker serve`, or run `stoker login`"
    )


def _entries(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries = config.get("auths")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
