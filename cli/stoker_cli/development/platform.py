"""The private platform of one `stoker dev`: an ordinary `stoker serve` as a child, on a data folder of the stack's own.

Packages, the staged interpreter and the certificates stay from one run to the next; functions, code, secrets and logs
do not.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from stoker_builder.tree import remove_tree
from stoker_cli.server.folders import lock_data_folder
from stoker_cli.server.listening import listen
from stoker_cli.surroundings import Surroundings
from stoker_sdk.credentials import basic_authorization
from stoker_sdk.data_dir import ADMIN, DataDir
from stoker_sdk.errors import StokerError
from stoker_sdk.files import write_whole
from stoker_sdk.processes import die_with_parent

START_SECONDS = 120.0
"""The first start of all stages an interpreter."""
_DRAIN = "1s"
_STOP_SECONDS = 20.0
_SHOWN_LINES = 10


class PrivatePlatform:
    """A running platform. `addresses` is what its ready file says."""

    def __init__(self, data: DataDir, process: subprocess.Popen[bytes], log: Path) -> None:
        self.data = data
        self._process = process
        self._log = log
        self.addresses: dict[str, str] = {}

    @property
    def url(self) -> str:
        return self.addresses["http"]

    @property
    def authorization(self) -> str:
        return basic_authorization(ADMIN, self.data.password.read_text().strip())

    def check(self) -> None:
        """Raise `StokerError` with its last lines when it has ended."""
        if self._process.poll() is not None:
            lines = self._log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:]
            raise StokerError("\n".join(["the platform of this stack ended; its last lines:", *lines]))

    def wait_until_ready(self, ready_file: Path) -> None:
        """Raises `StokerError` when it does not start."""
        deadline = time.monotonic() + START_SECONDS
        while not ready_file.exists():
            self.check()
            if time.monotonic() > deadline:
                raise StokerError(f"the platform was not ready after {START_SECONDS:g} seconds: see {self._log}")
            time.sleep(0.01)
        self.addresses = json.loads(ready_file.read_text())

    def stop(self) -> None:
        """TERM, wait, KILL. Whatever kills it, its processes go with it."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def private_platform(data: DataDir, port: int, environment: Mapping[str, str]) -> Iterator[PrivatePlatform]:
    """A platform on 127.0.0.1 until the block ends. Raises `StokerError` when it cannot start."""
    _prepare(data)
    for sock in listen(("127.0.0.1", port), 1, "--port"):
        sock.close()  # only to name the right flag where it is taken
    ready, log = data.path / "ready.json", data.path / "serve.log"
    ready.unlink(missing_ok=True)
    with log.open("wb") as output:
        platform = PrivatePlatform(data, _start(data, port, ready, environment, output), log)
    try:
        platform.wait_until_ready(ready)
        yield platform
    finally:
        platform.stop()
        _clean(data)


def _start(
    data: DataDir, port: int, ready: Path, environment: Mapping[str, str], output: IO[bytes]
) -> subprocess.Popen[bytes]:
    flags = ["--data-dir", str(data.path), "--http", f"127.0.0.1:{port}", "--https", "127.0.0.1:0"]
    flags += ["--metrics", "127.0.0.1:0", "--proxies", "1", "--ready-file", str(ready), "--drain", _DRAIN]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "stoker_cli", "serve", *flags, "--build-ahead"],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=dict(environment),
        start_new_session=True,  # Ctrl-C is for us alone
        preexec_fn=die_with_parent,  # safe: no thread of ours runs yet
    )


def data_folder(stack_file: Path, surroundings: Surroundings) -> DataDir:
    """The folder of this stack file, below the user's caches."""
    path = stack_file.resolve()
    name = f"{path.parent.name or 'stack'}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    return DataDir(_caches(surroundings) / "stoker" / "dev" / name)


def _caches(surroundings: Surroundings) -> Path:
    named = surroundings.environment.get("XDG_CACHE_HOME", "")
    if named.startswith("/"):
        return Path(named)
    # As root, functions run as other users, who could not pass through root's home.
    return Path("/var/cache") if surroundings.is_root else surroundings.home / ".cache"


def _prepare(data: DataDir) -> None:
    """The folder, without what an earlier run left. Raises `StokerError` when another one uses it."""
    _make_passable(data.path)
    lock = lock_data_folder(data)
    try:
        _clean(data)
    finally:
        os.close(lock)


def _make_passable(path: Path) -> None:
    """Folders that we make are for other users to pass through if we are root."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    except OSError as error:
        raise StokerError(f"{path} cannot be made: {error.strerror}; choose another place with --data-dir") from error


def _clean(data: DataDir) -> None:
    """Remove functions, their code, secrets, logs and stored calls. Packages stay, which take long to install."""
    for folder in (data.functions, data.artefacts, data.secrets, data.logs, data.queue, data.set_aside):
        remove_tree(folder)
    if data.ids.exists():
        # One was given to each save, and the table is written anew for each.
        given = msgspec.json.decode(data.ids.read_bytes(), type=dict[str, int])
        write_whole(data.ids, msgspec.json.encode({key: id for key, id in given.items() if key[:9] != "artefact:"}))


def stop_on_signals() -> None:
    """Make the signals that end a program unwind this one, so that nothing of it is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a shell's background jobs ignore SIGINT
        signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
