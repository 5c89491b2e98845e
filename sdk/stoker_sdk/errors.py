"""Every error that Stoker shows to a person.

An error is one or two lines: what, which, and what to do. The class decides how the edges translate it: the
control API into a status code, the CLI into an exit code. Anything that is not a `StokerError` is a bug and is
logged with its traceback.
"""

from __future__ import annotations


class StokerError(Exception):
    """Something failed, and the message says what, which, and what to do. HTTP 500, exit code 1."""

    status = 500
    code = "internal"
    exit_code = 1


class BadInput(StokerError):
    """What the caller gave cannot be used. HTTP 400, exit code 1."""

    status = 400
    code = "bad-input"


class BadUsage(StokerError):
    """The command line itself is wrong. Exit code 2."""

    status = 400
    code = "bad-usage"
    exit_code = 2


class Unauthorized(StokerError):
    """The credentials are missing or wrong. HTTP 401."""

    status = 401
    code = "unauthorized"


class NotFound(StokerError):
    """The thing named does not exist. HTTP 404."""

    status = 404
    code = "not-found"


class Conflict(StokerError):
    """The thing named exists already, or is in a state that does not allow this. HTTP 409."""

    status = 409
    code = "conflict"


class Unprocessable(StokerError):
    """Well-formed, but its content is refused (contract section 2.6: a bad secret name). HTTP 422."""

    status = 422
    code = "unprocessable"


class Unavailable(StokerError):
    """A part of the platform cannot be reached now; trying again later may help. HTTP 503."""

    status = 503
    code = "unavailable"


class TooLarge(BadInput):
    """The body is longer than this route takes. HTTP 413."""

    status = 413
    code = "too-large"


class TooSlow(BadInput):
    """The client stopped sending in the middle of a body. HTTP 408."""

    status = 408
    code = "too-slow"
