"""The request of a dead call for its next life: the same but for its id and what is changed on purpose."""

from __future__ import annotations

import re
import time
from typing import Final

from stoker_gateway.queue.stored import VERSION, VERSION_WITH_BODY, StoredCall, decode, encode
from stoker_sdk.errors import BadInput
from stoker_sdk.messages import CallReplay

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,16384}")
_FIXED: Final = frozenset(("content-length", "transfer-encoding", "connection", "host", "x-call-id", "upgrade"))


def replayed(payload: bytes, old: str, new: str, changes: CallReplay) -> tuple[StoredCall, bytes]:
    """The call for its next life and its message, from the message of the dead one. A large `body` is to be shared.

    Raises `BadCall` for one that can never be run, and `BadInput` as `changed_request`.
    """
    call, request = decode(payload)
    body = call.body if changes.body is None else None
    version = VERSION_WITH_BODY if body else VERSION
    fresh = StoredCall(version, new, call.key, time.time_ns(), call.callback, replay_of=old, keep=call.keep, body=body)
    return fresh, encode(fresh, changed_request(request, new, changes))


def changed_request(request: bytes, id: str, changes: CallReplay) -> bytes:
    """The request under the new id. Raises `BadInput` for headers that cannot be sent, or are not the caller's."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    for name, value in changes.headers.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value) or name.lower() in _FIXED:
            raise BadInput(f"header {name[:60]!r} cannot be set: its name, its value, or that it is the platform's")
    replaced = {name.lower().encode() for name in changes.headers} | {b"x-call-id"}
    if changes.body is not None:
        replaced.add(b"content-length")
        body = changes.body
    kept = [line for line in lines if line.partition(b":")[0].lower() not in replaced]
    kept += [f"{name}: {value}".encode("latin-1") for name, value in changes.headers.items() if value]
    kept.append(b"X-Call-Id: %b" % id.encode())
    if changes.body is not None:
        kept.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([first, *kept]) + b"\r\n\r\n" + body
