"""The connection to the broker: which one, with which credentials, kept for as long as it takes.

The settings travel as a file of mode 0600 in the run folder, because a command line can be read by everybody.
"""

from __future__ import annotations

import logging
import ssl
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from stoker_sdk.errors import BadInput

if TYPE_CHECKING:
    from nats.aio.client import Client

log = logging.getLogger("stoker.queue")


class BrokerSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the broker is. What is secret stands in files of the user's own, or is a token made for this run."""

    url: str
    token: str = ""
    user: str = ""
    password_file: str = ""
    token_file: str = ""
    creds: str = ""
    ca: str = ""


def read_settings(path: Path) -> BrokerSettings:
    return msgspec.json.decode(path.read_bytes(), type=BrokerSettings)


async def _nothing() -> None:
    return None


async def connect(
    settings: BrokerSettings,
    name: str,
    *,
    lost: Callable[[], Awaitable[None]] = _nothing,
    back: Callable[[], Awaitable[None]] = _nothing,
) -> Client:
    """A connection that comes back by itself; `lost` and `back` are called when it goes and when it is there again.

    Waits until the broker answers for the first time. Raises `BadInput` for credentials that cannot be read.
    """
    client = _client()
    complaints: set[str] = set()

    async def complain(error: Exception) -> None:
        text = str(error) or type(error).__name__
        if text not in complaints:
            complaints.add(text)
            log.warning("broker: %s", text)

    async def returned() -> None:
        complaints.clear()
        await back()

    await client.connect(
        settings.url,
        name=name,
        error_cb=complain,
        disconnected_cb=lost,
        reconnected_cb=returned,
        allow_reconnect=True,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.1,  # type: ignore[arg-type]
        connect_timeout=3,
        ping_interval=10,
        skip_subject_validation=True,  # ours are made of checked parts
        **_credentials(settings),
    )
    return client


def _credentials(settings: BrokerSettings) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if settings.token or settings.token_file:
        options["token"] = settings.token or _secret(settings.token_file)
    if settings.user:
        options |= {"user": settings.user, "password": _secret(settings.password_file)}
    if settings.creds:
        options["user_credentials"] = settings.creds
    if settings.ca:
        options["tls"] = ssl.create_default_context(cafile=settings.ca)
    return options


def _secret(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise BadInput(f"the broker's credentials in {path} cannot be read: {error.strerror}") from error


def _client() -> Client:
    """nats-py imports aiohttp, for websockets alone, if it is there: 8 MB that only control has use for."""
    hidden = "aiohttp" not in sys.modules
    if hidden:
        sys.modules["aiohttp"] = None  # type: ignore[assignment]
    try:
        from nats.aio.client import Client
    finally:
        if hidden:
            del sys.modules["aiohttp"]
    return Client()
