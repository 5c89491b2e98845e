"""Mode `native`: the function's program is its own watchdog, and takes this process over.

What it finds, which is the whole interface between Stoker and a language's runtime:

* descriptor 3 (`STOKER_LISTENER`): the listening socket; it speaks HTTP/1.1 and serves `/_/health`, `/_/ready` and
  `/_/metrics`;
* descriptor 4 (`STOKER_STATUS`): it writes one JSON object a line: `{"ready": {}}` once when it can serve,
  `{"failed": "REASON"}` before it ends because it cannot, `{"health": "REASON"}` when it cannot serve for now, and
  `{"health": ""}` when it can again;
* descriptors 1 and 2: the log file, which it may write as `logs.py` describes; `STOKER_LOG` is its path, for rotating;
* while its function is unhealthy, `/_/ready` is 503 `unhealthy: REASON`, and so is `/_/health` when that has lasted for
  `STOKER_REPLACE_AFTER` (60 s; 0: never); in a container that is all that the cluster sees;
* `STOKER_HEALTH_PERIOD`, `STOKER_HEALTH_TIMEOUT` (seconds), `STOKER_HEALTH_FAILURES`, `STOKER_HEALTH_SUCCESSES`: how
  often it is to ask its function for its health, and how many answers in a row change its state (the first answer,
  before it is ready, does so alone); it may say 20 lines at once and then one a second, and who says more is not heard
  from then on;
* `STOKER_CONNECTIONS`: how many connections it may open, its share of the function's budget; 0 when none is declared;
* `exec_timeout`, `max_inflight`, `STOKER_CONCURRENCY`, `STOKER_SECRETS`: the limits and the folder of secrets.

SIGTERM asks it to drain: finish the calls, close, exit 0. It has been confined already. Without these variables, as in
a container, it listens on `port` and keeps the contract's lock file (section 8.4).
"""

from __future__ import annotations

import os
from typing import NoReturn

from stoker_watchdog.confine import LISTENER, STATUS
from stoker_watchdog.settings import Settings


class MissingProgram(Exception):
    """The program of a function is not on this machine; the message says which."""


def run_native(settings: Settings) -> NoReturn:
    """Become the program. Raises `MissingProgram`."""
    environment = dict(settings.environment) | {
        "STOKER_LISTENER": str(LISTENER),
        "STOKER_STATUS": str(STATUS),
        "STOKER_LOG": settings.log,
        "STOKER_CONCURRENCY": str(settings.concurrency),
        "exec_timeout": f"{settings.timeout:g}s",
        "max_inflight": str(settings.max_inflight),
    }
    for descriptor in (LISTENER, STATUS):
        os.set_inheritable(descriptor, True)
    try:
        os.execvpe(settings.command[0], settings.command, environment)
    except FileNotFoundError:
        raise missing_program(settings.command[0]) from None
    except PermissionError:
        raise MissingProgram(f"the program {settings.command[0]!r} cannot be started: it is not executable") from None


def missing_program(name: str) -> MissingProgram:
    return MissingProgram(f"the program {name!r} is not on this machine: install it, or correct fprocess")
