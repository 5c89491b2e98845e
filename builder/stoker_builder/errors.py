"""What can end a build, beyond the errors that all of Stoker shares.

They are apart from `BadInput` because the person who reads them looks elsewhere: at the tests, or at the
package index.
"""

from __future__ import annotations

import errno

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


class Exceeded(StokerError):
    """The build used more of the machine than it may, and was ended. HTTP 422."""

    status = 422
    code = "exceeded-limit"


class FullDisk(StokerError):
    """The platform's disk has no room for a build. HTTP 507."""

    status = 507
    code = "full-disk"


class FailedBuild(StokerError):
    """There is no image. The function's source, packages or tests are at fault, unless `code` says another: it is the
    builder's word.
    """

    def __init__(self, message: str, code: str = StokerError.code) -> None:
        super().__init__(message)
        self.code = code


class Cancelled(BaseException):
    """Nobody waits for the build any more. Not an `Exception`, so that nothing but the edge takes it for a
    failure.
    """


def is_full_disk(error: BaseException) -> bool:
    """Whether the file system, or a quota on it, was what refused a write."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
