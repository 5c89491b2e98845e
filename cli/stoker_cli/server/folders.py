"""The data folder's lock, and the run folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from stoker_gateway.providers.local.launch import RunDir
from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import StokerError

_LOOK_SECONDS = 0.2


def lock_data_folder(data: DataDir, is_patient: Callable[[], bool] = lambda: False) -> int:
    """Make the folder, and hold its lock. While another server has it, who is patient waits, and is asked again and
    again. Raises `StokerError` at the end of patience. Returns the descriptor.
    """
    try:
        # As root, functions pass through it to what is theirs below.
        data.path.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
        descriptor = os.open(data.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StokerError(
            f"the data folder {data.path} cannot be used: {error.strerror}; choose another with --data-dir"
        ) from error
    if not _lock(descriptor, is_patient):
        holder = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        raise StokerError(
            f"the data folder {data.path} is in use by another server (process {holder or 'unknown'}): "
            "stop that one, or choose another folder with --data-dir"
        )
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _lock(descriptor: int, is_patient: Callable[[], bool]) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if not is_patient():
                return False
            time.sleep(_LOOK_SECONDS)


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
        remove_run_folder(run)  # a server that was killed left its own
        run.make()
    except OSError as error:
        raise StokerError(f"the run folder {base / name} cannot be made: {error.strerror}") from error
    return run


def remove_run_folder(run: RunDir) -> None:
    """Remove its sockets, and the settings and secrets that replicas were given. Raises OSError."""
    if run.path.exists():
        shutil.rmtree(run.path)


def _base(environment: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return Path("/run/stoker")
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    return Path(runtime) / "stoker" if runtime.startswith("/") else Path(f"/tmp/stoker-{os.geteuid()}")
