"""What an `Idempotency-Key` is tied to: one call of one function, for a while. Pure.

The stream `stoker-keys` has one message for each key in use, a `Claim`. It is stored before its call is stored or run,
by whoever finds none there, which the broker decides; and it says afterwards that it was.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from stoker_sdk.errors import BadInput

HEADER: Final = b"idempotency-key"
MAX_KEY: Final = 255
VERSION: Final = 1

OPEN: Final = "open"
"""An async call may be stored, or not; a synchronous one may run, or have been lost."""
KEPT: Final = "kept"
"""The async call is stored; the synchronous one's answer is."""
PASSED: Final = "passed"
"""The synchronous call's answer was passed on, and could not be kept."""

_KEY = re.compile(rb"[ -~\x80-\xff]{1,%d}" % MAX_KEY)


class Claim(msgspec.Struct, frozen=True, omit_defaults=True):
    """One key's message. `id` is the async call's, or names the synchronous one's answer; `digest` is the request's.

    `at` is when it was made (Unix, ns); `until` (Unix, s) by when a synchronous call has ended, however it ends.
    """

    v: int
    id: str
    digest: str
    at: int
    until: float = 0.0
    state: str = OPEN


encode = msgspec.json.encode
decode = msgspec.json.Decoder(Claim).decode


def keys_of(fields: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The values of the header, of which there should be at most one."""
    return [value for name, value in fields if len(name) == len(HEADER) and name.lower() == HEADER]


def check_key(keys: list[bytes]) -> bytes:
    """The one key. Raises `BadInput`."""
    if len(keys) != 1:
        raise BadInput(f"there are {len(keys)} Idempotency-Key headers: send one")
    [key] = keys
    if not _KEY.fullmatch(key):
        what = "is empty" if not key else f"has {len(key)} bytes" if len(key) > MAX_KEY else "has a control character"
        raise BadInput(f"the Idempotency-Key {what}: write 1 to {MAX_KEY} bytes without control characters")
    return key


def key_token(key: bytes) -> str:
    """What stands for the key in a subject."""
    return hashlib.sha256(key).hexdigest()


def request_digest(kind: bytes, method: bytes, target: bytes, body: Iterable[bytes]) -> str:
    """Two requests with the same digest are the same. `target` is path and query behind the function's name."""
    path = target if target.startswith(b"/") else b"/" + target
    digest = hashlib.sha256(b"%b %b %d %b\n" % (kind, method, len(path), path))
    for piece in body:
        digest.update(piece)
    return digest.hexdigest()
