"""The data folder's lock, the run folder, and what an earlier server left behind."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from stoker_gateway.providers.local.launch import RunDir
from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import StokerError

MARK = "STOKER_RUN"
"""The environment variable that every process below the fork server carries; its value is the run folder."""
_SWEEP_SECONDS = 5.0


def lock_data_folder(data: DataDir) -> int:
    """Make the folder, and hold its lock. Raises `StokerError` when another server has it. Returns the descriptor."""
    try:
        data.path.mkdir(mode=0o711, parents=True, exist_ok=True)
        descriptor = os.open(data.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StokerError(
            f"the data folder {data.path} cannot be used: {error.strerror}; choose another with --data-dir"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        raise StokerError(
            f"the data folder {data.path} is in use by another server (process {holder or 'unknown'}): "
            "stop that one, or choose another folder with --data-dir"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def make_run_folder(data: DataDir, environment: Mapping[str, str]) -> RunDir:
    """The run folder of this data folder, empty. Its path is short, because socket paths must be."""
    name = hashlib.sha256(str(data.path.resolve()).encode()).hexdigest()[:8]
    base = _base(environment)
    try:
        base.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
        status = base.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise StokerError(f"{base} belongs to somebody else: remove it, or set XDG_RUNTIME_DIR")
        run = RunDir(base / name)
        run.make()
    except OSError as error:
        raise StokerError(f"the run folder {base / name} cannot be made: {error.strerror}") from error
    return run


def _base(environment: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return Path("/run/stoker")
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    return Path(runtime) / "stoker" if runtime.startswith("/") else Path(f"/tmp/stoker-{os.geteuid()}")


def sweep(run: RunDir) -> None:
    """End what an earlier server on this data folder left: its processes, then its sockets and settings."""
    deadline = time.monotonic() + _SWEEP_SECONDS
    while pids := list(_marked(run)):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            raise StokerError(f"processes of an earlier server do not end: {pids}; end them by hand and start again")
        time.sleep(0.01)
    for folder in (run.sockets, run.settings):
        for path in folder.iterdir():
            path.unlink()
    for path in (run.control_socket, run.table_socket, run.fork_socket):
        path.unlink(missing_ok=True)


def _marked(run: RunDir) -> Iterator[int]:
    mark = f"{MARK}={run.path}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes()
                zombie = b") Z " in (entry / "stat").read_bytes()
            except OSError:
                continue  # it has ended, or is somebody else's
            if mark in environment.split(b"\0") and not zombie:
                yield int(entry.name)
