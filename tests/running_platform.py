"""A real `stoker serve` with all its processes, on free ports and a folder of its own, for tests to call and to kill.

    def test_it(platform):                      # shared by the whole session: deploy under a name of your own
        platform.deploy("hello", "def handle(req): return req + '!'")
        assert platform.call("hello", b"hi").text == "hi!"

    def test_that(own_platform):                # one for this test alone: kill what you like
        own_platform.deploy("hello", HANDLER)
        own_platform.kill("control")            # or "supervisor", "fork server", "proxy 0"; `replicas(name)` gives pids
        own_platform.wait_until_it_answers()

Both are fixtures of `tests/conftest.py`; `make_platform(proxies=2)` there starts one with other flags. `http` and
`https` are `(host, port)` for raw sockets, `client` is the control API. `stop` asserts that no process is left.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from stoker_builder.control_group import parent_of_groups
from stoker_sdk.archive import BuildSettings, pack
from stoker_sdk.client import ControlClient, LogRequest
from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import StokerError
from stoker_sdk.function import Condition, FunctionSpec, FunctionStatus
from stoker_sdk.http_client import HttpClient
from stoker_sdk.messages import BuildLine, LogMessage

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("wire", "sdk", "watchdog", "gateway", "builder", "cli")
PYTHONPATH = os.pathsep.join(str(REPOSITORY / package) for package in PACKAGES)

START_SECONDS = 60.0
STOP_SECONDS = 30.0
_INDEX_VARIABLES = ("PIP_", "UV_", "SSL_CERT_")
"""Where packages come from on this machine, which builds with requirements need to know."""
_MARK = "STOKER_TEST_PLATFORM"
_CHILDREN = {
    "stoker_gateway.control": "control",
    "stoker_gateway.pages": "the pages",
    "stoker_watchdog.forkserver": "fork server",
    "stoker_builder.pipeline": "pipeline",
}
_NUMBERED = {"stoker_gateway.proxy": "proxy", "stoker_gateway.queue.worker": "worker"}

T = TypeVar("T")
Files = str | Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What a call got. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


class Platform:
    """One data folder, and the server on it that runs, or does not. `like` is a platform whose staged interpreter is
    linked, which saves seconds; `variables` are added to the server's environment.
    """

    def __init__(
        self, *, proxies: int = 1, flags: tuple[str, ...] = (), like: Platform | None = None, **variables: str
    ) -> None:
        # Not in tmp_path, which other user ids cannot pass through.
        self.folder = Path(tempfile.mkdtemp(prefix="stoker-test-", dir="/tmp"))
        self.folder.chmod(0o711)
        self.data = DataDir(self.folder / "data")
        self.ready_file = self.folder / "ready.json"
        self.log_file = self.folder / "serve.log"
        self.run_folder = Path()
        self.proxies = proxies
        self.flags = flags
        self._variables = variables
        self._token = secrets.token_hex(8)
        self._process: subprocess.Popen[bytes] | None = None
        self._client: ControlClient | None = None
        if like is not None and like.data.interpreter.exists():
            self.data.path.mkdir(mode=0o711)
            shutil.copytree(like.data.interpreter, self.data.interpreter, symlinks=True, copy_function=os.link)

    def __repr__(self) -> str:
        return f"<Platform {self.folder} {'running' if self._process else 'stopped'}>"

    # Its life

    def command(self, *flags: str) -> list[str]:
        return [
            *(sys.executable, "-m", "stoker_cli", "serve", "--data-dir", str(self.data.path)),
            *("--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--metrics", "127.0.0.1:0"),
            *("--proxies", str(self.proxies), "--ready-file", str(self.ready_file), *self.flags, *flags),
        ]

    @property
    def environment(self) -> dict[str, str]:
        """That of the server, and of commands that talk to it."""
        return {
            **{name: value for name, value in os.environ.items() if name.startswith(_INDEX_VARIABLES)},
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder / "home"),
            "XDG_RUNTIME_DIR": str(self.folder / "runtime"),
            "STOKER_DATA_DIR": str(self.data.path),
            "PYTHONPATH": PYTHONPATH,
            _MARK: self._token,
            **self._variables,
        }

    def start(self) -> Platform:
        """Start the server, again perhaps, and wait until everything answers."""
        assert self._process is None
        self.ready_file.unlink(missing_ok=True)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
            )
        try:
            self._addresses = wait_for(self._read_ready_file, "the ready file", START_SECONDS)
        except BaseException:
            self.kill_everything()
            raise
        authorization = self.authorization["Authorization"]
        self._client = ControlClient(HttpClient(self._addresses["http"], authorization, timeout=30))
        arguments = command_line(self.pid("control"))
        self.run_folder = Path(json.loads(arguments[-1])["run_dir"])
        return self

    def _read_ready_file(self) -> dict[str, Any] | None:
        assert self._process is not None
        assert self._process.poll() is None, f"stoker serve ended:\n{self.log}"
        return json.loads(self.ready_file.read_text()) if self.ready_file.exists() else None

    def stop(self) -> int:
        """SIGTERM, and wait; returns the exit code. Nothing that it started may be left."""
        assert self._process is not None
        self._process.terminate()
        code = self._ended()
        self.assert_no_process_is_left()
        return code

    def kill_everything(self) -> None:
        """SIGKILL to every process at once, as when the power fails."""
        for pid in [*self.processes(), *self.processes()]:
            _kill(pid)
        if self._process is not None:
            self._ended()
        wait_for(lambda: not self.processes(), "the end of every process")

    def killed(self) -> None:
        """The test has killed the supervisor: wait for its end, so that `start` may be called again."""
        self._ended()

    def _ended(self) -> int:
        assert self._process is not None
        code = self._process.wait(STOP_SECONDS)
        self._process = None
        if self._client is not None:
            self._client.close()
        return code

    def delete(self) -> None:
        """Stop what runs, and remove the folder."""
        try:
            if self._process is not None:
                self.stop()
        finally:
            self.kill_everything()
            for folder in (self.folder, self.run_folder):
                if folder.name:
                    shutil.rmtree(folder, ignore_errors=True)
            for group in self.control_groups():
                group.rmdir()

    def control_groups(self) -> list[Path]:
        """The folders of the control groups of this platform, the innermost first; none where there are none."""
        if not self.run_folder.name:
            return []
        root = Path("/sys/fs/cgroup")
        patterns = (f"stoker/{self.run_folder.name}", parent_of_groups(self.data.builds))
        parents = [path for each in patterns for path in (*root.glob(each), *root.glob(f"*/{each}"))]
        return [*(group for parent in parents for group in parent.glob("*/")), *parents]

    # Its processes

    def pid(self, role: str) -> int:
        """The pid of "supervisor", "control", "fork server", "broker", "pipeline", "proxy 0", "worker 0", ..."""
        return wait_for(lambda: self.pids().get(role, 0), f"a process that is {role!r}")

    def pids(self) -> dict[str, int]:
        """Pids by role, of the platform's own processes."""
        assert self._process is not None
        roles = {"supervisor": self._process.pid}
        for pid in _children(self._process.pid):
            line = command_line(pid)
            for module, role in _NUMBERED.items():
                if module in line:
                    roles[f"{role} {json.loads(line[-1])['number']}"] = pid
            if line and Path(line[0]).name == "nats-server":
                roles["broker"] = pid
            roles |= {role: pid for module, role in _CHILDREN.items() if module in line}
        return roles

    def replicas(self, name: str) -> list[int]:
        """The pids of a function's ready replicas."""
        return [instance.pid for instance in self.condition(name).instances if instance.state == "ready"]

    def kill(self, role: str, number: int = signal.SIGKILL) -> int:
        """Kill one of the platform's processes, and wait for its end; returns its pid."""
        pid = self.pid(role)
        os.kill(pid, number)
        if role == "supervisor":
            self.killed()
        wait_for(lambda: not is_alive(pid), f"the end of {role}")
        return pid

    def processes(self) -> list[int]:
        """Every process that was started by this platform, on whatever way, and lives."""
        marks = {f"{_MARK}={self._token}".encode()}
        if self.run_folder.name:
            marks.add(f"STOKER_RUN={self.run_folder}".encode())
        return [pid for pid in _all_pids() if not marks.isdisjoint(_environment(pid)) and is_alive(pid)]

    def assert_no_process_is_left(self, seconds: float = 5.0) -> None:
        try:
            wait_for(lambda: not self.processes(), "the end of every process", seconds)
        except AssertionError:
            left = {pid: " ".join(command_line(pid)) for pid in self.processes()}
            raise AssertionError(f"processes are left: {left}") from None

    # Its addresses

    @property
    def http_url(self) -> str:
        return str(self._addresses["http"])

    @property
    def https_url(self) -> str:
        return str(self._addresses["https"])

    @property
    def metrics_url(self) -> str:
        return str(self._addresses["metrics"])

    @property
    def http(self) -> tuple[str, int]:
        return _host_and_port(self.http_url)

    @property
    def https(self) -> tuple[str, int]:
        return _host_and_port(self.https_url)

    @property
    def authorization(self) -> dict[str, str]:
        """The header for the control API."""
        return {"Authorization": "Basic " + _base64(f"admin:{self.data.password.read_text().strip()}")}

    @property
    def client(self) -> ControlClient:
        assert self._client is not None
        return self._client

    @property
    def log(self) -> str:
        """What the server and its processes printed."""
        return self.log_file.read_text(errors="replace")

    def wait_until_it_answers(self) -> None:
        """Control may have been killed: wait until its next life answers."""
        wait_for(self._answers, "an answer of control")

    def _answers(self) -> bool:
        try:
            self.client.functions()
        except StokerError:
            return False
        return True

    # Functions

    def build(self, name: str, files: Files, lang: str = "python3") -> str:
        """Build a handler folder of these files (a string is handler.py); returns the image."""
        with tempfile.TemporaryDirectory() as folder:
            _write(Path(folder), {"handler.py": files} if isinstance(files, str) else files)
            with pack(BuildSettings(name, lang), Path(folder)) as archive:
                lines = list(self.client.build(archive))
        return _image(lines)

    def deploy(self, name: str, files: Files, *, lang: str = "python3", wait: bool = True, **fields: Any) -> int:
        """Build, deploy and wait until it is ready; `fields` are those of `FunctionSpec`. Returns the revision."""
        return self.deploy_image(name, self.build(name, files, lang), wait=wait, **fields)

    def deploy_image(self, name: str, image: str, *, wait: bool = True, **fields: Any) -> int:
        spec = FunctionSpec(name, image, **fields)
        exists = any(status.name == name for status in self.client.functions())
        revision = self.client.update(spec) if exists else self.client.create(spec)
        if wait:
            self.wait_ready(name, revision)
        return revision

    def status(self, name: str) -> FunctionStatus:
        return self.client.function(name)

    def condition(self, name: str) -> Condition:
        condition = self.status(name).stoker
        assert condition is not None
        return condition

    def wait_ready(self, name: str, revision: int = 0) -> Condition:
        condition = self._wait_settled(name, revision)
        assert condition.state != "failed", f"{name}: {condition.message}\n{condition.output}"
        return condition

    def wait_failed(self, name: str, revision: int = 0) -> Condition:
        condition = self._wait_settled(name, revision)
        assert condition.state == "failed", condition
        return condition

    def _wait_settled(self, name: str, revision: int) -> Condition:
        def settled() -> Condition | None:
            condition = self.condition(name)
            done = condition.revision >= revision and condition.state in ("ready", "zero", "failed")
            return condition if done else None

        return wait_for(settled, f"{name} to be ready or failed", 60)

    def scale(self, name: str, replicas: int) -> None:
        """Scale, and wait until exactly so many replicas are there, and no other."""
        self.client.scale(name, replicas)
        wait_for(lambda: self._has(name, replicas), f"{replicas} replicas of {name}", 30)

    def _has(self, name: str, replicas: int) -> bool:
        return [instance.state for instance in self.condition(name).instances] == ["ready"] * replicas

    def logs(self, name: str) -> list[LogMessage]:
        return list(self.client.logs(LogRequest(name)))

    def call(
        self,
        name: str,
        body: bytes = b"",
        *,
        path: str = "",
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call a function on a connection of its own."""
        return self.request(method, f"/function/{name}{path}", body, headers)

    def call_later(
        self, name: str, body: bytes = b"", *, path: str = "", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """An async call; 202 has its id in `x-call-id`."""
        return self.request("POST", f"/async-function/{name}{path}", body, headers)

    def request(self, method: str, target: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """Any request of a proxy, without credentials."""
        connection = http.client.HTTPConnection(*self.http, timeout=60)
        try:
            connection.request(method, target, body, dict(headers or {}))
            response = connection.getresponse()
            fields = {key.lower(): value for key, value in response.getheaders()}
            return Answer(response.status, fields, response.read())
        finally:
            connection.close()


def wait_for(condition: Callable[[], T | None], what: str, seconds: float = 20.0) -> T:
    """Ask until the answer is true, and return it; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.01)
    return value


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (OSError, IndexError):
        return False


def _all_pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    except OSError:
        return [""]


def _environment(pid: int) -> set[bytes]:
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return set()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _image(lines: list[BuildLine]) -> str:
    last = lines[-1]
    assert last.image, "\n".join([line.log for line in lines] + [last.error])
    return last.image


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    return parts.hostname, parts.port


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
