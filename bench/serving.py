"""A real `stoker serve` for the benchmark: its own data folder, free ports, functions built by its build API."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.processes import TEST_CORE, BenchError, python, running, wait_until
from stoker_sdk.archive import BuildSettings, pack
from stoker_sdk.client import ControlClient
from stoker_sdk.credentials import basic_authorization
from stoker_sdk.function import Condition, FunctionSpec
from stoker_sdk.http_client import HttpClient

_FUNCTIONS = Path(__file__).parent / "functions"
HELLO = _FUNCTIONS / "hello"
WITH_PANDAS = _FUNCTIONS / "with_pandas"
_ANY_PORT = ("--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--metrics", "127.0.0.1:0")


@dataclass(frozen=True)
class Serving:
    """A platform that runs; `pid` is its supervisor's."""

    url: str
    authorization: str
    data: Path
    pid: int

    def client(self) -> ControlClient:
        """A client of one's own; it is not for several threads."""
        return ControlClient(HttpClient(self.url, self.authorization))

    def function_url(self, name: str) -> str:
        return f"{self.url}/function/{name}"

    def build(self, name: str, folder: Path) -> str:
        """The image of a handler folder."""
        with pack(BuildSettings(name, "python3-http"), folder) as archive:
            for line in self.client().build(archive):
                if line.error:
                    raise BenchError(f"the build of {name} failed: {line.error}")
                if line.image:
                    return line.image
        raise BenchError(f"the build of {name} broke off")

    def deploy(self, name: str, folder: Path) -> str:
        """Build and deploy, and wait until a replica is ready. Returns the image."""
        image = self.build(name, folder)
        self.client().create(FunctionSpec(name, image))
        self.wait_for_replicas(name, 1)
        return image

    def wait_for_replicas(self, name: str, number: int, seconds: float = 60.0) -> None:
        """Until so many are ready and no other is there."""
        client = self.client()
        wait_until(lambda: _has(client, name, number), f"{number} replicas of {name}", seconds)

    def scale(self, name: str, number: int) -> None:
        self.client().scale(name, number)
        self.wait_for_replicas(name, number)


def condition(client: ControlClient, name: str) -> Condition:
    """What the platform says of a function's state. Raises `BenchError` when it cannot run."""
    said = client.function(name).stoker
    if said is None or said.state == "failed":
        raise BenchError(f"function {name} failed: {said.message if said else 'no state is told'}")
    return said


def _has(client: ControlClient, name: str, number: int) -> bool:
    states = [instance.state for instance in condition(client, name).instances]
    return states == ["ready"] * number


@contextmanager
def serving(folder: Path, *flags: str, cores: Sequence[int] = (TEST_CORE,)) -> Iterator[Serving]:
    """`stoker serve` with all its processes on these cores until the block ends."""
    data, ready = folder / "data", folder / "ready.json"
    command = python("-m", "stoker_cli", "serve", "--data-dir", str(data), "--ready-file", str(ready))
    with running([*command, *_ANY_PORT, *flags], core=cores, log=folder / "serve.log") as process:
        wait_until(lambda: ready.exists() or process.poll() is not None, "stoker serve is not ready", 60)
        if process.poll() is not None:
            raise BenchError(f"stoker serve ended with exit code {process.returncode}")
        told = json.loads(ready.read_text())
        password = Path(told["passwordFile"]).read_text().strip()
        yield Serving(told["http"], basic_authorization(told["user"], password), data, told["pid"])


def settle(seconds: float) -> None:
    """Let what was started finish its background work (byte code, saves, collections) before memory is read."""
    time.sleep(seconds)
