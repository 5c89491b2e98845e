"""Who we are to a registry: pull secrets as Kubernetes and Docker write them, and which entry is for which image."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from stoker_gateway.providers.images.reference import DOCKER_HUB, Reference
from stoker_sdk.errors import BadInput

_UNREADABLE = (
    binascii.Error,
    msgspec.DecodeError,
    UnicodeDecodeError,
    KeyError,
    TypeError,
    AttributeError,
    ValueError,
)


@dataclass(frozen=True)
class Login:
    """A user and a password, and where they come from, which errors may name: `secret 'pull'`."""

    user: str
    password: str
    source: str

    @property
    def header(self) -> str:
        """The value of `Authorization`."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    @property
    def for_engine(self) -> str:
        """The value of `X-Registry-Auth`, by which a Docker Engine is told."""
        told = {"username": self.user, "password": self.password}
        return base64.urlsafe_b64encode(msgspec.json.encode(told)).decode()

    def __repr__(self) -> str:
        return f"<Login of {self.source}>"


def read_pull_secret(secret: str, kind: str, data: Mapping[str, str]) -> dict[str, Login]:
    """Logins by `HOST[:PORT][/PATH]`, from a secret of such a type. Raises `BadInput`, which shows no value."""
    old = kind == "kubernetes.io/dockercfg"
    try:
        document = base64.b64decode(data.get(".dockercfg" if old else ".dockerconfigjson", ""))
        return _read(b'{"auths":%b}' % document if old else document, f"secret {secret!r}")
    except _UNREADABLE:
        raise BadInput(
            f"secret {secret!r} has the type {kind} and not its content: make it with "
            "`kubectl create secret docker-registry`"
        ) from None


def read_docker_config(document: bytes, source: str) -> dict[str, Login]:
    """Logins by `HOST[:PORT][/PATH]`, from what `docker login` writes. Raises `BadInput`, which shows no value."""
    try:
        return _read(document, source)
    except _UNREADABLE:
        raise BadInput(f"{source} is no Docker configuration with logins in it: write it by `docker login`") from None


def _read(document: bytes, source: str) -> dict[str, Login]:
    entries = msgspec.json.decode(document)["auths"]
    return {_place(name): login for name, entry in entries.items() if (login := _login(source, entry))}


def login_for(reference: Reference, logins: Iterable[Mapping[str, Login]]) -> Login | None:
    """The entry for the longest part of the image's name; of equal ones the first."""
    best: tuple[int, Login] | None = None
    for entries in logins:
        for place, login in entries.items():
            matches = reference.repository == place or reference.repository.startswith(f"{place}/")
            if matches and (best is None or len(place) > best[0]):
                best = (len(place), login)
    return best[1] if best else None


def _place(name: str) -> str:
    """`https://index.docker.io/v1/` and `registry.example.org` are both in use."""
    host = name.removeprefix("https://").removeprefix("http://").rstrip("/")
    first, _, rest = host.partition("/")
    if first in ("index.docker.io", "registry-1.docker.io", DOCKER_HUB):
        first = DOCKER_HUB
    return first if rest in ("", "v1", "v2") else f"{first}/{rest}"


def _login(source: str, entry: dict[str, Any]) -> Login | None:
    user, password = entry.get("username", ""), entry.get("password", "")
    if joined := entry.get("auth"):
        user, _, password = base64.b64decode(joined, validate=True).decode().partition(":")
    return Login(user, password, source) if user or password else None
