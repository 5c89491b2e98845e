"""A real nats-server for tests, configured as `stoker serve` does it: on a free port, in a folder of its own.

    async def test_it(broker):              # fixture of tests/conftest.py; running
        client = await broker.client()      # closed at the test's end
        broker.kill(); broker.start()       # same port, same folder

`url` and `token` are what a client needs; `settings_file` is what our processes read.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from running_platform import wait_for

from stoker_gateway.queue.broker import prepare_broker
from stoker_sdk.broker.connection import connect
from stoker_sdk.broker.settings import BrokerSettings, read_settings


class RunningBroker:
    """One server. `durable` is `--async-durability always`."""

    def __init__(self, *, durable: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="stoker-broker-", dir="/tmp"))
        self.settings_file = self.folder / "broker.json"
        self.store = self.folder / "store"
        self._broker = prepare_broker(self.folder, self.store, self.settings_file, durable=durable)
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[Any] = []

    @property
    def settings(self) -> BrokerSettings:
        return read_settings(self.settings_file)

    def start(self) -> RunningBroker:
        assert self._process is None
        self._process = subprocess.Popen([self._broker.program, "-c", str(self._broker.config)])
        wait_for(self._broker.answers, "the broker's greeting")
        return self

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def client(self) -> Any:
        self._clients.append(await connect(self.settings, "test"))
        return self._clients[-1]

    async def close_clients(self) -> None:
        for client in self._clients:
            await client.close()
        self._clients.clear()

    def delete(self) -> None:
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
