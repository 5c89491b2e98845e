"""Large bodies in the object store: how they lie there, and how they go again.

The layout is that of NATS's object stores, so any NATS tool can read them: an object's pieces are messages of one
subject, in order, and a last message says what they are together. A name begins with the time of its making, by which
`body_sweep.py` knows how old what nobody wants is.
"""

from __future__ import annotations

import base64
import re
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

import msgspec

from stoker_gateway.queue.stored import BodyRef
from stoker_gateway.queue.subjects import BODIES, BUCKET
from stoker_sdk.broker.lookup import last_of
from stoker_sdk.broker.requests import ask
from stoker_sdk.errors import NotFound, Unavailable
from stoker_sdk.units import format_rfc3339

if TYPE_CHECKING:
    from nats.aio.client import Client

CHUNK: Final = 512 * 1024
"""Bytes of a piece. A broker that fsyncs each is busy with larger ones less often; half of what a NATS server takes by
default."""
_NAME: Final = re.compile(r"([0-9a-f]{10})-[0-9a-f]{32}")
REPLACES: Final = {"Nats-Rollup": "sub"}
"""Headers of the message that says what the pieces are together: it replaces an earlier one."""


class ObjectMeta(msgspec.Struct, frozen=True):
    """What the pieces are together. `metadata` has under `calls` the calls that need it: `NAMESPACE.NAME.ID …`."""

    name: str
    bucket: str
    nuid: str
    size: int
    chunks: int
    digest: str
    mtime: str
    metadata: dict[str, str] = {}
    options: dict[str, Any] = {}

    @property
    def calls(self) -> list[str]:
        return self.metadata.get("calls", "").split()


def new_name() -> str:
    return f"{int(time.time()):010x}-{uuid.uuid4().hex}"


def made_at(name: str) -> float:
    """Unix time of its making; 0 for a name that is not ours."""
    match = _NAME.fullmatch(name)
    return float(int(match[1], 16)) if match else 0.0


def chunk_subject(name: str) -> str:
    return f"$O.{BUCKET}.C.{name}"


def meta_subject(name: str) -> str:
    return f"$O.{BUCKET}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"


def name_in(subject: str) -> str:
    """The object that a subject of the store belongs to; empty for a foreign one."""
    kind, _, rest = subject.removeprefix(f"$O.{BUCKET}.").partition(".")
    if kind == "C":
        return rest
    try:
        return base64.urlsafe_b64decode(rest).decode() if kind == "M" else ""
    except ValueError:
        return ""


def encode_meta(body: BodyRef, calls: list[str]) -> bytes:
    digest = base64.urlsafe_b64encode(bytes.fromhex(body.digest)).decode()
    meta = ObjectMeta(
        body.name,
        BUCKET,
        body.name,
        body.size,
        body.chunks,
        f"SHA-256={digest}",
        format_rfc3339(time.time_ns()),
        {"calls": " ".join(calls)},
        {"max_chunk_size": CHUNK},
    )
    return msgspec.json.encode(meta)


def decode_meta(data: bytes) -> ObjectMeta | None:
    """None for what is no object's, or a removed one's."""
    try:
        return msgspec.json.decode(data, type=ObjectMeta)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


async def shared_meta(client: Client, body: BodyRef, call: str) -> tuple[bytes, dict[str, str]]:
    """What is said of the pieces when this call needs them too: a message, and headers by which it replaces none but
    the one that was read. Raises `NotFound`, `Unavailable`."""
    found = await last_of(client, BODIES, meta_subject(body.name))
    meta = decode_meta(found.data) if found else None
    if found is None or meta is None:
        raise NotFound("its body is not kept any more: replay it with a body")
    only = {"Nats-Expected-Last-Subject-Sequence": str(found.sequence)}
    return encode_meta(body, [*meta.calls, call]), REPLACES | only


async def remove(client: Client, name: str) -> None:
    """Remove an object, whole or not. Raises `Unavailable`."""
    for subject in (meta_subject(name), chunk_subject(name)):
        error = await ask(client, f"STREAM.PURGE.{BODIES}", {"filter": subject})
        if error is not None:
            raise Unavailable(f"the broker does not remove the body {name}: {error.description}")
