"""The watchdog of a container: `python -m stoker_watchdog`, told what to do by environment variables (`options.py`).

`-version` prints the version; `-run-healthcheck` ends with 0 while a watchdog of this container serves, else with 1.
"""

from __future__ import annotations

import os
import sys

from stoker_watchdog.lockfile import lock_path
from stoker_watchdog.options import OptionsError, read_options
from stoker_watchdog.release import release

_USAGE = "usage: python -m stoker_watchdog [-version | -run-healthcheck]"


def main(arguments: list[str]) -> int:
    flags = [argument.lstrip("-") for argument in arguments]
    if flags == ["version"]:
        print(f"stoker watchdog {release()}")
        return 0
    if flags == ["run-healthcheck"]:
        return _healthcheck()
    if flags:
        print(_USAGE, file=sys.stderr)
        return 2
    return _serve()


def _healthcheck() -> int:
    path = lock_path()
    if os.path.exists(path):
        return 0
    print(f"no watchdog serves: there is no {path}", file=sys.stderr)
    return 1


def _serve() -> int:
    import uvloop

    from stoker_watchdog.console import install_console
    from stoker_watchdog.container import Watchdog
    from stoker_watchdog.failures import explained
    from stoker_watchdog.leftovers import watch_over

    try:
        options = read_options(os.environ)
        options.check()
    except OptionsError as error:
        print(f"stoker watchdog: {error}", file=sys.stderr)
        return 2
    if os.getpid() != 1 and options.mode not in ("python", "static"):
        watch_over()
    log = install_console()
    try:
        return uvloop.run(Watchdog(options, log).run())
    except Exception as error:
        log.lines("-", [f"stoker watchdog: {explained(error)[1]}"])
        return 1


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code) if code else sys.exit(0)
