"""`stoker dev --debug`: debugpy in the replica, started before the handler is imported.

The variables are set by `stoker dev` and nobody else. Breakpoints are set in the developer's files, while the replica
runs a copy of them; so the code objects get the names of the developer's files, and no editor has to map paths.
Nothing else is imported here at the top: every fork carries this module.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

PORT = "STOKER_DEBUG_PORT"
PATH = "STOKER_DEBUG_PATH"
SOURCE = "STOKER_DEBUG_SOURCE"


def start_debugger(package: str) -> None:
    """Listen for a debugger, or as soon as the replica before has left the port. `package` is the handler's folder."""
    sys.path.append(os.environ[PATH])
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # else it warns of the frozen standard library
    _name_as_in_the_project(package, os.environ[SOURCE])
    port = int(os.environ[PORT])
    if _is_free(port):
        _listen(port)
    else:
        threading.Thread(target=_listen_when_free, args=(port,), name="debugger", daemon=True).start()


def _listen_when_free(port: int) -> None:
    while not _is_free(port):
        time.sleep(0.05)
    _listen(port)


def _listen(port: int) -> None:
    import debugpy  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: T100

    debugpy.listen(("127.0.0.1", port), in_process_debug_adapter=True)  # noqa: T100
    print(f"debugger: listening on 127.0.0.1:{port}", flush=True)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
        return True


def _name_as_in_the_project(package: str, source: str) -> None:
    import _imp
    from importlib.machinery import SourceFileLoader

    load = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, name: str) -> object:
        code, path = load(self, name), str(self.get_filename(name))
        if code is not None and path.startswith(package + "/"):
            _imp._fix_co_filename(code, source + path[len(package) :])  # type: ignore[attr-defined]
        return code

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]
