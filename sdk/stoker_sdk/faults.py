"""What can go wrong with a call or a start: the codes of `X-Stoker-Error: SIDE; CODE`, whose fault it is, what to do.

The same code stands in the answer to the caller and in `describe`. Which side it is: `client` sent what cannot be used,
`function` is the user's code or its settings, `platform` is ours.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

FIXES: Final = {
    # A call that failed in its function
    "exception": "the handler raised: `stoker logs` has the traceback under the call id",
    "timeout": "the call took longer than the function's timeout: raise `timeout`, or do less in one call",
    "crashed": "the process that ran the call ended: `stoker logs` has what it printed last",
    "out-of-memory": "it took more memory than it may: raise limits.memory, or use less",
    "max-inflight": "more calls at once than max_inflight allows: raise it, or scale the function up",
    "exit-status": "the program ended with an exit code other than 0: `stoker logs` has what it printed",
    "upstream": "the function's own server did not answer: `stoker logs` has what it printed",
    "answer-broken": "it broke off in the middle of its answer: `stoker logs` has the reason",
    "unhealthy": "its health hook says no: the reason is what the function answered; the calls wait until it is well",
    # A function that cannot serve
    "timeout-waiting": "no replica became ready in time: `stoker describe` says what they are doing",
    "cannot-start": "it cannot start: correct what the message says and deploy again",
    "import-error": "the handler cannot be imported: correct it, or list the package in requirements.txt",
    "bad-handler": "the handler has not the shape that is expected: the message says which",
    "init-failed": "`init` raised before the first call: the last lines of the log say why",
    "start-timeout": "it was not ready in time: make `init` shorter, or raise `start_timeout`",
    "missing-program": "its program is not on this machine: install it, or correct fprocess",
    "image-pull": "its image cannot be fetched: correct its name, or list a pull secret among its secrets",
    "unschedulable": "no node takes it: ask for less, drop a constraint, or add a node",
    "pod-refused": "the cluster makes no pod for it: ask for less, or have what the message names changed",
    "secret-missing": "a secret that it lists does not exist: create it with `stoker secret create`",
    # The caller
    "headers-too-large": "the headers do not fit into the program's environment: send less",
    "unauthorized": "a bearer token that the issuer has signed for this function is needed",
    "forbidden": "the token does not cover this function: its claim `function` names what it covers",
    "no-such-file": "there is no such file: static files are below static_path",
    "method-not-allowed": "this mode does not take that method: the answer's `Allow` names those that it takes",
    # The platform
    "too-many-calls": "too many calls wait for it: scale it up, or call again later",
    "no-replica": "its replicas could not be reached: the platform's log says why",
    "queue-unavailable": "the broker did not acknowledge the call in time: try again; the platform's log says why",
    "queue-busy": "too many calls wait for the broker already: try again later",
    "queue-full": "the broker cannot store more: its disk may be full",
}
"""One line for each code: what it means and what to do."""

_CODE = re.compile(r"[a-z][a-z-]{0,39}")


class Fault(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    """The latest fault of its code. `at` is RFC 3339; `call` is the call's id, empty where it was no call's."""

    code: str
    side: str
    status: int = 0
    message: str = ""
    at: str = ""
    call: str = ""


def fault_code(header: str) -> str:
    """The code in an `X-Stoker-Error` header; empty for anything else. A function may have written it."""
    _, found, code = header.partition(";")
    code = code.strip()
    return code if found and _CODE.fullmatch(code) else ""


def latest(faults: list[Fault], most: int) -> list[Fault]:
    """One fault of each code, the newest first, at most so many."""
    by_code: dict[str, Fault] = {}
    for fault in sorted(faults, key=lambda fault: fault.at):
        by_code[fault.code] = fault
    return sorted(by_code.values(), key=lambda fault: fault.at, reverse=True)[:most]
