"""The connection for what is asked of the broker: look-ups, streams, consumers. Calls travel by `link.py`.

Secrets are read at each connect, so one that was replaced is taken up with the next; what is wrong is told once.
"""

from __future__ import annotations

import logging
import re
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from stoker_sdk.broker.credentials import Credentials, read_credentials
from stoker_sdk.broker.settings import BrokerSettings
from stoker_sdk.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from nats.aio.client import Client

log = logging.getLogger("stoker.queue")

OLDEST_SERVER: Final = (2, 12)


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

    Waits until the broker takes us for the first time. Raises `BadInput` for a certificate that cannot be read.
    """
    client = _client()
    complaints: set[str] = set()

    async def complain(error: Exception) -> None:
        text = explained(str(error) or type(error).__name__, settings)
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


def explained(complaint: str, settings: BrokerSettings) -> str:
    """The client's words for people: what to look at."""
    lowered = complaint.lower()
    if "authorization violation" in lowered or "authentication" in lowered:
        given = _given(settings)
        with_what = f"check {given}" if given else "it wants some: --nats-user, --nats-token-file or --nats-creds"
        return f"{settings.url} refuses the credentials ({complaint}): {with_what}"
    if "certificate" in lowered:
        return f"the certificate of {settings.url} is not trusted ({complaint}): name its CA with --nats-ca"
    return complaint


def _given(settings: BrokerSettings) -> str:
    if settings.creds:
        return f"--nats-creds {settings.creds}"
    if settings.user:
        return f"--nats-user {settings.user} and the password in {settings.password_file}"
    return f"--nats-token-file {settings.token_file}" if settings.token_file else ""


def check_server(info: Mapping[str, Any], settings: BrokerSettings) -> None:
    """`info` is how a server greets. Raises `Unavailable` for one that is too old for us, or has no JetStream."""
    version = str(info.get("version", "of an unknown version"))
    match = re.match(r"v?(\d+)\.(\d+)\.", version)
    if match is None or (int(match[1]), int(match[2])) < OLDEST_SERVER:
        oldest = ".".join(map(str, OLDEST_SERVER))
        raise Unavailable(f"{settings.url} is a NATS server {version[:40]}: async calls need {oldest} or newer")
    if not info.get("jetstream"):
        raise Unavailable(f"{settings.url} has no JetStream: switch it on in the server's configuration")


def server_info(client: Client) -> Mapping[str, Any]:
    """How the server that the client is connected to has greeted."""
    info: Mapping[str, Any] = client._server_info
    return info


def tls_context(ca: str) -> ssl.SSLContext:
    """Trusts the certificates of this file alone. Raises `BadInput`."""
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl.SSLError is one
        reason = "it holds no PEM certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise BadInput(f"the CA file {ca} of the broker cannot be used: {reason}") from error


def _credentials(settings: BrokerSettings) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if settings.creds:
        options |= {
            "user_jwt_cb": lambda: _read(settings).jwt.encode(),
            "signature_cb": lambda nonce: _read(settings).sign(nonce).encode(),
        }
    elif settings.user:
        options |= {"user": settings.user, "password": lambda: _read(settings).password}
    elif settings.token or settings.token_file:
        options["token"] = lambda: _read(settings).token
    if settings.ca:
        options["tls"] = tls_context(settings.ca)
    return options


def _read(settings: BrokerSettings) -> Credentials:
    """Raises `OSError`, after which the client tries again."""
    try:
        return read_credentials(settings)
    except BadInput as error:
        raise OSError(str(error)) from None


def _client() -> Client:
    """nats-py imports aiohttp, for websockets alone, if it is there: 8 MB that only control has use for."""
    hidden = "aiohttp" not in sys.modules
    if hidden:
        sys.modules["aiohttp"] = None  # type: ignore[assignment]
    try:
        from nats.aio.client import Client
        from nats.errors import Error as NatsError
    finally:
        if hidden:
            del sys.modules["aiohttp"]

    class Lasting(Client):
        """The library closes for good after an error of the server's; an expired or changed user may come back."""

        async def _process_err(self, err_msg: str) -> None:
            if self.is_connected and "permissions violation" not in err_msg.lower():
                error = NatsError(f"nats: {err_msg}")
                await self._error_cb(error)
                await self._process_op_err(error)
            else:
                await super()._process_err(err_msg)

    return Lasting()
