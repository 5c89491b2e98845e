"""What can end a build, beyond the errors that all of Stoker shares.

They are apart from `BadInput` because the person who reads them looks elsewhere: at the tests, or at the
package index.
"""

from __future__ import annotations

from stoker_sdk.errors import StokerError


class FailedTests(StokerError):
    """The function's own tests failed, so that there is no artefact. HTTP 422."""

    status = 422
    code = "failed-tests"


class FailedInstall(StokerError):
    """The packages that the function lists could not be installed. HTTP 422."""

    status = 422
    code = "failed-install"


class MissingTool(StokerError):
    """A program that the template's language needs is not on this machine. HTTP 422."""

    status = 422
    code = "missing-tool"


class Cancelled(BaseException):
    """Nobody waits for the build any more. Not an `Exception`, so that nothing but the edge takes it for a
    failure.
    """
