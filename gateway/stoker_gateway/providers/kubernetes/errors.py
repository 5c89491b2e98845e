"""What the Kubernetes API says when it refuses, as errors of ours: the one place where they are translated.

The API's own message names the field or the quota that is in the way, so it is passed on, in one line and cut.
"""

from __future__ import annotations

import msgspec

from stoker_gateway.providers.kubernetes.objects import Status
from stoker_gateway.providers.text import one_line
from stoker_sdk.errors import BadInput, Conflict, NotFound, StokerError, Unavailable

_decode = msgspec.json.Decoder(Status).decode


class Forbidden(StokerError):
    """The platform's account in the cluster has not the right. HTTP 500: the caller cannot change that."""


class Expired(StokerError):
    """The version that a watch was to go on from is too old: list again."""


def error_of(status: int, body: bytes, what: str) -> StokerError:
    """The error for an answer of the API other than 2xx. `what` says what was tried: "deployment 'greet' in 'x'"."""
    told = _read(body)
    reason = f"{what}: {told.message}" if told.message else f"{what}: the Kubernetes API answered {status}"
    if status == 404:
        return NotFound(reason)
    if status == 409:
        return Conflict(reason)
    if status == 410:
        return Expired(reason)
    if status in (400, 413, 422):
        return BadInput(reason)
    if status == 403 and "exceeded quota" in told.message:
        return BadInput(f"{reason}; ask for less, or have the quota of the namespace raised")
    if status in (401, 403):
        return Forbidden(f"{reason}; give the platform's service account this right, or correct its credentials")
    if status == 429:
        return Unavailable(f"{what}: the Kubernetes API is overloaded (429): try again later")
    if status >= 500:
        return Unavailable(f"{reason} ({status}): try again later")
    return StokerError(f"{reason} ({status})")


def unreachable(error: Exception, what: str) -> Unavailable:
    """The error when no answer came at all."""
    detail = "it did not answer in time" if isinstance(error, TimeoutError) else one_line(str(error))
    return Unavailable(f"{what}: the Kubernetes API cannot be reached: {detail or type(error).__name__}")


def _read(body: bytes) -> Status:
    try:
        told = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Status()
    return Status(one_line(told.message), told.reason, told.code)
