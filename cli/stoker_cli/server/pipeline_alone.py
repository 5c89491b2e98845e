"""The pipeline by itself, for gateways elsewhere: one process that is looked after, on an address of its own.

Whoever had the data folder before, such as a pod that is just being replaced, is waited for: two pipelines on one
folder would run everything twice.
"""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from stoker_builder.interpreter import prepare_interpreter
from stoker_cli.server.folders import lock_data_folder, make_run_folder, remove_run_folder
from stoker_cli.server.listening import listen, url
from stoker_cli.server.pipeline import PipelineOptions, Surroundings, pipeline_child
from stoker_cli.server.supervisor import Supervisor
from stoker_gateway.providers.local.launch import RunDir
from stoker_sdk.broker.settings import BrokerSettings
from stoker_sdk.data_dir import DataDir
from stoker_sdk.files import write_once, write_whole

_PATIENCE_SECONDS: Final = 60.0


@dataclass(frozen=True)
class AloneOptions:
    """The flags of `stoker pipeline`, checked. `public_url` is the gateway's for people, `namespace` that of functions,
    if not the default one; `first_id` is 0 where owners have no user ids of their own.
    """

    data: DataDir
    listen: tuple[str, int]
    gateway: str
    public_url: str
    namespace: str
    ready_seconds: float
    password_file: Path
    seal_key: Path
    broker: BrokerSettings
    pipeline: PipelineOptions
    first_id: int
    id_count: int


def run_pipeline(options: AloneOptions, environment: Mapping[str, str]) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. Raises `StokerError` when it cannot start."""
    supervisor = Supervisor()
    lock = lock_data_folder(options.data, _Patience(supervisor))
    try:
        _make_key(options.data)
        run = make_run_folder(options.data, environment)
        try:
            _start(supervisor, options, run, environment)
            supervisor.watch()
        finally:
            supervisor.stop()
            remove_run_folder(run)
        return 0
    finally:
        os.close(lock)


class _Patience:
    """Waits for a while, unless it is told to stop, and says so once."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._deadline = 0.0

    def __call__(self) -> bool:
        if not self._deadline:
            self._deadline = time.monotonic() + _PATIENCE_SECONDS
            print("stoker: another server has the data folder: waiting for its end", flush=True)
        return not self._supervisor.stopping and time.monotonic() < self._deadline


def _make_key(data: DataDir) -> None:
    """By which `stoker github setup` encrypts the App here. A gateway on the same folder has made it already."""
    if not data.key.exists():
        write_once(data.key, base64.urlsafe_b64encode(os.urandom(32)), 0o600)


def _start(supervisor: Supervisor, options: AloneOptions, run: RunDir, environment: Mapping[str, str]) -> None:
    write_whole(run.broker_file, msgspec.json.encode(options.broker), 0o600)
    interpreter = prepare_interpreter(options.data.path) if options.first_id else None
    around = Surroundings(
        gateway=options.gateway,
        public_url=options.public_url,
        namespace=options.namespace,
        ready_seconds=options.ready_seconds,
        password_file=options.password_file,
        seal_key=options.seal_key,
        python=interpreter.python if interpreter else Path(sys.executable),
        library_path=interpreter.library_path if interpreter else "",
        first_id=options.first_id,
        id_count=options.id_count,
    )
    (listener,) = listen(options.listen, 1, "--listen")
    child = pipeline_child(options.pipeline, options.data, run, around, listener, environment)
    supervisor.start_when_wanted(child, now=True)
    print(f"stoker: the pipeline is at {url('http', listener)}, for the gateway at {options.gateway}", flush=True)
