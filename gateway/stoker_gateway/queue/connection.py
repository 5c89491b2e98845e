"""The connection for what is asked of the broker: look-ups, streams, consumers. Calls travel by `link.py`."""

from __future__ import annotations

import logging
import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from stoker_gateway.queue.credentials import read_credentials
from stoker_gateway.queue.settings import BrokerSettings

if TYPE_CHECKING:
    from nats.aio.client import Client

log = logging.getLogger("stoker.queue")


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
    credentials = read_credentials(settings)
    options: dict[str, Any] = {}
    if credentials.jwt:
        options |= {
            "user_jwt_cb": lambda: credentials.jwt.encode(),
            "signature_cb": lambda nonce: credentials.sign(nonce).encode(),
        }
    elif credentials.user:
        options |= {"user": credentials.user, "password": credentials.password}
    elif credentials.token:
        options["token"] = credentials.token
    if settings.ca:
        options["tls"] = ssl.create_default_context(cafile=settings.ca)
    return options


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
