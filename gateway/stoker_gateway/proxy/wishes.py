"""What the headers of an async call ask for (contract 5.1, and our own). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from stoker_gateway.queue.callback_url import check_callback_url
from stoker_gateway.queue.keys import HEADER as KEY
from stoker_gateway.queue.keys import check_key
from stoker_sdk.errors import BadInput
from stoker_sdk.keeping import check_keep
from stoker_wire.message import Field

_CALL_ID: Final = b"x-call-id"
_CALLBACK: Final = b"x-callback-url"
_KEEP: Final = b"x-stoker-keep-result"
_LENGTHS: Final = frozenset(map(len, (_CALL_ID, _CALLBACK, _KEEP, KEY)))
_ID: Final = re.compile(rb"[A-Za-z0-9_-]{1,64}")


class BadCallback(BadInput):
    """The `X-Callback-Url` cannot be called."""


class Wishes(NamedTuple):
    """`id` is the caller's own, `keep` in seconds; empty or 0 is what was not asked for."""

    id: bytes = b""
    callback: str = ""
    keep: float = 0.0
    key: bytes = b""


NOTHING: Final = Wishes()


def read_wishes(fields: Iterable[Field]) -> Wishes:
    """Raises `BadCallback`, or `BadInput` for another header."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        if len(name) in _LENGTHS:
            found.setdefault(name.lower(), []).append(value)
    id, callback, keep, keys = (found.get(name, []) for name in (_CALL_ID, _CALLBACK, _KEEP, KEY))
    if not (id or callback or keep or keys):
        return NOTHING
    if callback:
        try:
            check_callback_url(callback[-1].decode("latin-1"))
        except BadInput as error:
            raise BadCallback(str(error)) from error
    return Wishes(
        id[-1] if id and _ID.fullmatch(id[-1]) else b"",
        callback[-1].decode("latin-1") if callback else "",
        check_keep(keep[-1].decode("latin-1"), "X-Stoker-Keep-Result") if keep and keep[-1] else 0.0,
        check_key(keys) if keys else b"",
    )
