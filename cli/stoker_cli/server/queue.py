"""The processes of async calls: a broker, unless the user has one, and workers."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from stoker_cli.server.supervisor import Child
from stoker_gateway.providers.local.launch import RunDir
from stoker_gateway.queue.broker import Broker, prepare_broker
from stoker_gateway.queue.stored import MAX_BODY
from stoker_sdk.broker.connection import tls_context
from stoker_sdk.broker.credentials import read_credentials
from stoker_sdk.broker.settings import BrokerSettings
from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import BadInput, BadUsage
from stoker_sdk.files import write_whole
from stoker_sdk.keeping import check_keep
from stoker_sdk.units import parse_duration, parse_quantity


@dataclass(frozen=True)
class QueueOptions:
    """The flags of `queue_flags`, checked. `own` is the user's own broker; times are in seconds."""

    enabled: bool = True
    durable: bool = True
    workers: int = 1
    max_body: int = MAX_BODY
    ack_wait: float = 30.0
    idempotency_window: float = 86400.0
    removed_after: float = 300.0
    own: BrokerSettings | None = field(default=None, repr=False)
    callbacks: dict[str, Any] = field(default_factory=dict)

    def where(self, data: DataDir) -> str:
        return f"by {urlsplit(self.own.url).hostname}" if self.own else f"in {data.queue}"


def read_queue_options(flags: Mapping[str, Any]) -> QueueOptions:
    """Raises `BadUsage`."""
    try:
        callbacks = _callbacks(flags)
        own = read_broker(flags)
        size = int(parse_quantity(flags["max_async_body"], "--max-async-body"))
        ack_wait = parse_duration(flags["worker_lost_after"], "--worker-lost-after")
        window = check_keep(flags["idempotency_window"], "--idempotency-window")
        removed_after = parse_duration(flags["removed_after"], "--removed-after")
    except BadInput as error:
        raise BadUsage(str(error)) from error
    if not 0 <= size <= MAX_BODY:
        raise BadUsage(f"--max-async-body is {size} bytes: {MAX_BODY} (1Gi) are the most")
    if ack_wait < 1:
        raise BadUsage("--worker-lost-after is shorter than a second, in which workers cannot say that they run")
    return QueueOptions(
        enabled=not flags["no_async"],
        durable=flags["async_durability"] == "always",
        workers=flags["workers"],
        max_body=size,
        ack_wait=ack_wait,
        idempotency_window=window,
        removed_after=removed_after,
        own=own,
        callbacks=callbacks,
    )


def _callbacks(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The worker's `CallbackSettings`. Raises `BadInput` for an entry that is neither host nor network."""
    if flags["callback_allow"] or flags["callback_deny"]:
        from stoker_gateway.queue.addresses import Guard  # it brings asyncio along, which this process does without

        Guard(flags["callback_allow"], flags["callback_deny"]).close()
    secret = flags["callback_secret_file"]
    return {
        "allow": list(flags["callback_allow"]),
        "deny": list(flags["callback_deny"]),
        "private_allowed": flags["allow_private_callbacks"],
        "secret_file": str(Path(secret).absolute()) if secret else "",
    }


def read_broker(flags: Mapping[str, Any]) -> BrokerSettings | None:
    """The user's own one, or None. Raises `BadUsage`, and `BadInput` for files that cannot be used."""
    url = flags["nats"]
    named = [name for name in ("user", "password_file", "token_file", "creds", "ca") if flags[f"nats_{name}"]]
    if not url:
        if named:
            raise BadUsage(f"--nats-{named[0].replace('_', '-')} is for a broker of yours: name it with --nats")
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("nats", "tls") or not parts.hostname:
        raise BadUsage("--nats is not an address: write nats://HOST:4222, or tls://HOST:4222")
    if parts.username or parts.password:
        raise BadUsage("--nats holds credentials, which everybody could see: use --nats-user and --nats-password-file")
    if flags["nats_user"] and not flags["nats_password_file"]:
        raise BadUsage("--nats-user needs --nats-password-file")
    paths = {name: str(Path(flags[f"nats_{name}"]).absolute()) for name in named if name != "user"}
    settings = msgspec.convert({"url": url, "user": flags["nats_user"], **paths}, BrokerSettings)
    read_credentials(settings)  # rather than have the log tell it for ever
    if settings.ca:
        tls_context(settings.ca)
    return settings


def prepare_queue(options: QueueOptions, data: DataDir, run: RunDir) -> Broker | None:
    """Write what our processes need to reach the broker; returns ours, if it is to be started."""
    if not options.enabled:
        return None
    if options.own is not None:
        own = msgspec.structs.replace(options.own, relaxed=not options.durable)
        write_whole(run.broker_file, msgspec.json.encode(own), 0o600)
        return None
    return prepare_broker(run.path, data.queue, run.broker_file, durable=options.durable)


def broker_child(broker: Broker, environment: Mapping[str, str]) -> Child:
    command = [sys.executable, "-P", "-m", "stoker_gateway.queue.broker", broker.program, str(broker.config)]
    return Child("the broker", lambda ready: command, environment, answers=broker.answers)


def worker_child(
    options: QueueOptions, run: RunDir, number: int, proxies: int, drain: float, environment: Mapping[str, str]
) -> Child:
    settings = {
        "number": number,
        "workers": options.workers,
        "broker_file": str(run.broker_file),
        "table_socket": str(run.table_socket),
        "proxy_sockets": [str(run.worker_socket(proxy)) for proxy in range(proxies)],
        "drain_seconds": drain,
        "ack_wait": options.ack_wait,
        "removed_after": options.removed_after,
        "callbacks": options.callbacks,
    }

    def command(ready: int) -> list[str]:
        return [sys.executable, "-P", "-m", "stoker_gateway.queue.worker", json.dumps(settings | {"ready_fd": ready})]

    return Child(f"worker {number}", command, environment, stop_seconds=drain + 5)
