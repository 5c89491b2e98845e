"""Why a start has failed: a code of `X-Stoker-Error` (`sdk/…/faults.py` lists them), and one line."""

from __future__ import annotations

from stoker_watchdog.handler import HandlerError
from stoker_watchdog.hooks import InitFailed
from stoker_watchdog.native import MissingProgram

_PLAIN_ERRORS = ("OptionsError", "ChildError")
"""Of modules that are loaded only where they are needed; their text says all."""


def explained(error: BaseException) -> tuple[str, str]:
    """The code and the line for whatever ended a start."""
    if isinstance(error, HandlerError):
        return "bad-handler", str(error)
    if isinstance(error, InitFailed):
        return "init-failed", str(error)
    if isinstance(error, MissingProgram):
        return "missing-program", str(error)
    if type(error).__name__ in _PLAIN_ERRORS:
        return "cannot-start", str(error)
    if isinstance(error, SyntaxError):
        where = f"{error.filename}, line {error.lineno}"
        return "import-error", f"the handler cannot be imported: {error.msg} ({where})"
    if isinstance(error, ImportError):
        why = f"{error}; if a package is missing, list it in requirements.txt"
        return "import-error", f"the handler cannot be imported: {why}"
    if isinstance(error, MemoryError):
        return "out-of-memory", "the handler ran out of memory while it started: raise limits.memory"
    return "cannot-start", f"the handler failed while it started: {type(error).__name__}: {error}"
