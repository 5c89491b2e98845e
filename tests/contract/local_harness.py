"""The local provider for the contract tests: a real fork server, real replicas, artefacts written by hand."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stoker_gateway.providers.local.launch import Launcher, RunDir
from stoker_gateway.providers.local.limiter import Limiter
from stoker_gateway.providers.local.provider import LocalProvider
from stoker_gateway.providers.local.runner import ContainerRunner, ContainerRunners, Owners
from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import BadInput, NotFound
from stoker_sdk.function import FunctionSpec
from stoker_sdk.names import FunctionKey

FINE = """
import os

def handle(req):
    print(req)
    return "printed"

def health():
    sick = os.path.join({folder!r}, os.environ["STOKER_REPLICA"])
    if os.path.exists(sick):
        raise OSError(open(sick).read())
"""
BROKEN = "raise ImportError('broken on purpose')\n"


@dataclass(frozen=True)
class Machine:
    """A data folder and a run folder, whose fork server runs."""

    data: DataDir
    run: RunDir
    launcher: Launcher

    def provider(self, make_containers: ContainerRunners) -> LocalProvider:
        return LocalProvider(self.data, self.run, self.launcher, Limiter(None), make_containers)


class LocalHarness:
    def __init__(self, machine: Machine) -> None:
        self._data = machine.data
        self._sick = machine.run.path / "sick"
        self._sick.mkdir()
        self.local = machine.provider(_no_containers)
        self.provider = self.local
        self._fine = self._artefact(FINE.format(folder=str(self._sick)))
        self._broken = self._artefact(BROKEN)

    def _artefact(self, source: str) -> str:
        digest = hashlib.sha256(source.encode()).hexdigest()
        folder = self._data.artefact(digest)
        (folder / "function").mkdir(parents=True)
        (folder / "function" / "__init__.py").touch()
        (folder / "function" / "handler.py").write_text(source)
        (folder / "artefact.json").write_text(json.dumps({"name": "greet", "mode": "python"}))
        return f"stoker.local/greet@sha256:{digest}"

    def spec(self, name: str = "greet", **fields: Any) -> FunctionSpec:
        return FunctionSpec(**({"service": name, "image": self._fine, "namespace": "openfaas-fn"} | fields))

    def broken_spec(self, name: str = "greet") -> FunctionSpec:
        return self.spec(name, image=self._broken)

    async def print(self, key: FunctionKey, text: str) -> None:
        target = self.local.route(key).targets[0]
        reader, writer = await asyncio.open_unix_connection(target.address.removeprefix("unix:"))
        writer.write(
            f"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()
        )
        assert b"printed" in await reader.read()
        writer.close()

    async def set_health(self, key: FunctionKey, instance: str, reason: str) -> None:
        if reason:
            (self._sick / instance).write_text(reason)
        else:
            (self._sick / instance).unlink()


def _no_secret(namespace: str, name: str) -> bytes:
    raise NotFound(f"secret {name!r} does not exist in {namespace!r}")


def _no_containers(owners: Owners) -> ContainerRunner:
    raise BadInput("no containers here")


@asynccontextmanager
async def machine(folder: Path) -> AsyncIterator[Machine]:
    # Socket paths are short, so the run folder is not below pytest's.
    with tempfile.TemporaryDirectory(prefix="stk") as short:
        run, data = RunDir(Path(short)), DataDir(folder)
        run.make()
        reader, writer = os.pipe()
        command = [sys.executable, "-m", "stoker_watchdog.forkserver", "--socket", str(run.fork_socket)]
        process = await asyncio.create_subprocess_exec(*command, "--ready-fd", str(writer), pass_fds=[writer])
        os.close(writer)
        await asyncio.to_thread(os.read, reader, 10)
        os.close(reader)
        try:
            yield Machine(data, run, Launcher(data, run, "", None, _no_secret, own_limits=True))
        finally:
            process.terminate()
            await process.wait()


@asynccontextmanager
async def local_harness(folder: Path) -> AsyncIterator[LocalHarness]:
    async with machine(folder) as one:
        harness = LocalHarness(one)
        try:
            yield harness
        finally:
            await harness.local.close()
