"""Everything a replica needs on disk before it is forked: its settings, its secrets, its log folder.

Where the platform is root, a function's log folder is its own user's and its secrets can be read by its group, so that
no other function can; the settings hold its environment, and only the platform's user may read them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from stoker_gateway.providers.local.artefacts import Artefact, program_of
from stoker_gateway.providers.local.plan import Version
from stoker_sdk.cgroups import Limits
from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import NotFound
from stoker_sdk.function import FunctionSpec
from stoker_sdk.ids import UserIds
from stoker_sdk.names import FunctionKey
from stoker_sdk.units import parse_quantity

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEFAULT_THREADS = 32


@dataclass(frozen=True)
class RunDir:
    """The folder of what lives only while the platform runs; short, because socket paths may have 107 characters."""

    path: Path

    @property
    def control_socket(self) -> Path:
        return self.path / "control.sock"

    @property
    def pipeline_socket(self) -> Path:
        return self.path / "pipeline.sock"

    @property
    def pages_socket(self) -> Path:
        return self.path / "pages.sock"

    @property
    def table_socket(self) -> Path:
        return self.path / "table.sock"

    @property
    def fork_socket(self) -> Path:
        return self.path / "fork.sock"

    @property
    def broker_file(self) -> Path:
        """How our processes reach the broker; mode 0600, since it may hold a token."""
        return self.path / "broker.json"

    def worker_socket(self, proxy: int) -> Path:
        """Where workers call functions through this proxy."""
        return self.path / f"proxy-{proxy}.sock"

    @property
    def sockets(self) -> Path:
        return self.path / "s"

    @property
    def settings(self) -> Path:
        return self.path / "settings"

    @property
    def secrets(self) -> Path:
        return self.path / "secrets"

    @property
    def start_mark(self) -> Path:
        """What tells this start of the platform from every other, where somebody needed to know."""
        return self.path / "start"

    def make(self) -> None:
        """Make the folders; other users can pass through `secrets` alone, where they have folders of their own."""
        self.path.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.path.chmod(0o711)
        for folder, mode in ((self.sockets, 0o700), (self.settings, 0o700), (self.secrets, 0o711)):
            folder.mkdir(exist_ok=True)
            folder.chmod(mode)

    def socket(self, token: str) -> str:
        return str(self.sockets / token)

    def settings_of(self, id: str) -> Path:
        return self.settings / f"{id}.json"

    def secrets_of(self, key: FunctionKey) -> Path:
        return self.secrets / f"{key.namespace}.{key.name}"


class Launched(msgspec.Struct, frozen=True):
    """What a settings file tells of the replica that it was written for."""

    id: str
    function: str
    namespace: str
    revision: int
    socket: str
    connections: int = 0

    @property
    def key(self) -> FunctionKey:
        return FunctionKey(self.namespace, self.function)


class Launcher:
    """Prepares replicas. `read_secret(namespace, name)` gives bytes; with `own_limits` replicas limit themselves.

    `library_path` is what the functions' Python needs as `LD_LIBRARY_PATH` when it is started by name; mostly empty.
    """

    def __init__(
        self,
        data: DataDir,
        run: RunDir,
        library_path: str,
        ids: UserIds | None,
        read_secret: Callable[[str, str], bytes],
        own_limits: bool,
    ) -> None:
        self._data = data
        self._run = run
        self._library_path = library_path
        self._ids = ids
        self._read_secret = read_secret
        self._own_limits = own_limits

    def write_settings(self, id: str, version: Version, socket: str, log: Path) -> Path:
        """The file that the replica reads after the fork."""
        spec, digest, artefact = version.spec, version.digest, version.artefact
        limits = limits_of(spec)
        environment = dict(spec.env_vars or {})
        code = str(self._data.artefact(digest)) if digest else ""
        paths = [code, f"{code}/function"] if digest else []
        if artefact.environment:
            paths.append(str(self._data.environment(artefact.environment)))
        settings = {
            "id": id,
            "function": spec.service,
            "namespace": spec.key.namespace,
            "revision": version.revision,
            "socket": socket,
            "mode": artefact.mode,
            "handler": artefact.handler,
            "command": _command(program_of(spec) or artefact.fprocess),
            "code": code,
            "paths": paths,
            "environment": self._basic_environment(spec, id) | environment | _bounds(spec),
            "log": str(log),
            "user": self.user(spec.key),
            "groups": self._groups(digest, artefact),
            "memory": limits.memory if self._own_limits else 0,
            "cores": limits.cores if self._own_limits else 0.0,
            "timeout": spec.timeout,
            "concurrency": spec.concurrency,
            "max_inflight": _number(environment.get("max_inflight", ""), 0),
            "threads": _number(environment.get("STOKER_THREADS", ""), _DEFAULT_THREADS) or _DEFAULT_THREADS,
            "secrets": str(self._run.secrets_of(spec.key)),
            "connections": spec.connection_share,
            **_health_settings(spec),
        }
        path = self._run.settings_of(id)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(msgspec.json.encode(settings))
        return path

    def tidy(self, living: Collection[str]) -> None:
        """Remove the settings and sockets of all replicas but those; what removes its own may have been killed."""
        launched = [self.read_settings(id) for id in living]
        sockets = {one.socket for one in launched if one is not None}
        for path in self._run.settings.iterdir():
            if path.stem not in living:
                path.unlink(missing_ok=True)
        for path in self._run.sockets.iterdir():
            if str(path) not in sockets:
                path.unlink(missing_ok=True)

    def read_settings(self, id: str) -> Launched | None:
        """What was written for a replica that runs, by an earlier process perhaps; None when that cannot be read."""
        try:
            return msgspec.json.decode(self._run.settings_of(id).read_bytes(), type=Launched)
        except (OSError, msgspec.DecodeError):
            return None

    def socket(self) -> str:
        """A new path for a replica's socket."""
        return self._run.socket(os.urandom(6).hex())

    def _basic_environment(self, spec: FunctionSpec, id: str) -> dict[str, str]:
        staged = {"LD_LIBRARY_PATH": self._library_path} if self._library_path else {}
        return staged | {
            "PATH": _PATH,
            "HOME": "/tmp",
            "LANG": "C.UTF-8",
            "OPENFAAS_NAME": spec.service,
            "OPENFAAS_NAMESPACE": spec.key.namespace,
            "STOKER_REPLICA": id,
            "STOKER_RUN": str(self._run.path),  # by which the next start finds what outlived a kill
            "STOKER_SECRETS": str(self._run.secrets_of(spec.key)),
        }

    def user(self, key: FunctionKey) -> int:
        """The user id that is this function's; -1 where functions have our own."""
        return -1 if self._ids is None else self._ids.id_for(f"function:{key.namespace}/{key.name}")

    def _groups(self, digest: str, artefact: Artefact) -> list[int]:
        if self._ids is None:
            return []
        groups = [self._ids.id_for(f"artefact:{digest}")] if digest else []
        if artefact.environment:
            groups.append(self._ids.id_for(f"environment:{artefact.environment}"))
        return groups

    def prepare_folders(
        self, spec: FunctionSpec, group: int | None = None, secrets: Sequence[str] | None = None
    ) -> None:
        """The function's log folder, made when it was missing, and its secrets as they are now.

        They are for its own user, or for `group` (-1: ours); all that it lists, or these of them.
        """
        key = spec.key
        user = self.user(key) if group is None else group
        logs = self._data.function_logs(key)
        for folder in (self._data.logs, logs.parent):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        if not logs.exists():
            logs.mkdir(mode=0o700)
            _give(logs, user)
        self._write_secrets(key, spec.secrets or [] if secrets is None else secrets, user)

    def _write_secrets(self, key: FunctionKey, names: Sequence[str], user: int) -> None:
        folder = self._run.secrets_of(key)
        if not names:
            shutil.rmtree(folder, ignore_errors=True)
            return
        folder.mkdir(mode=0o700, exist_ok=True)
        # Whoever may write to a folder can put a link where root is about to write: the function may only read.
        _let_read(folder, user, 0o550)
        for old in set(os.listdir(folder)) - set(names):
            (folder / old).unlink()
        for name in names:
            try:
                value = self.secret(key.namespace, name)
            except NotFound:
                (folder / name).unlink(missing_ok=True)  # removed means gone
                raise
            temporary = folder / f".{name}"
            temporary.unlink(missing_ok=True)
            temporary.touch(mode=0o600)
            temporary.write_bytes(value)
            _let_read(temporary, user, 0o440)
            temporary.replace(folder / name)

    def secret(self, namespace: str, name: str) -> bytes:
        """Raises `NotFound`."""
        return self._read_secret(namespace, name)

    def forget(self, key: FunctionKey) -> None:
        """The function is gone: so are its secrets and logs."""
        shutil.rmtree(self._run.secrets_of(key), ignore_errors=True)
        shutil.rmtree(self._data.function_logs(key), ignore_errors=True)


def limits_of(spec: FunctionSpec) -> Limits:
    if spec.limits is None:
        return Limits()
    memory = int(parse_quantity(spec.limits.memory)) if spec.limits.memory else 0
    return Limits(memory, float(parse_quantity(spec.limits.cpu)) if spec.limits.cpu else 0.0)


def describe_limits(limits: Limits, by_cgroup: bool) -> str:
    """One line for `describe`: what is limited, and by what."""
    if by_cgroup:
        parts = ["memory by control group"] * bool(limits.memory) + ["cpu by control group"] * bool(limits.cores)
    else:
        parts = ["memory by RLIMIT_DATA"] * bool(limits.memory) + ["cpu by core affinity (whole cores)"] * bool(
            limits.cores
        )
    return ", ".join(parts)


def _bounds(spec: FunctionSpec) -> dict[str, str]:
    """What every replica is told of its limits, whatever its language; the function cannot set these itself."""
    probes = spec.probes
    return {
        "STOKER_CONNECTIONS": str(spec.connection_share),
        "STOKER_HEALTH_PERIOD": f"{probes.period:g}",
        "STOKER_HEALTH_TIMEOUT": f"{probes.timeout:g}",
        "STOKER_HEALTH_FAILURES": str(probes.failures),
        "STOKER_HEALTH_SUCCESSES": str(probes.successes),
    }


def _health_settings(spec: FunctionSpec) -> dict[str, float]:
    probes = spec.probes
    return {
        "health_delay": probes.delay,
        "health_period": probes.period,
        "health_timeout": probes.timeout,
        "health_failures": probes.failures,
        "health_successes": probes.successes,
        "replace_after": probes.replace_after,
    }


def _command(fprocess: str) -> list[str]:
    """Split at spaces, no quoting, as the contract's watchdogs do (section 8.1)."""
    return fprocess.split()


def _give(path: Path, user: int) -> None:
    if user >= 0:
        os.chown(path, user, user)


def _let_read(path: Path, user: int, mode: int) -> None:
    """Give a file of ours to the function's group; where it is our own user, the mode alone keeps it from writing."""
    if user >= 0:
        os.chown(path, -1, user)
        path.chmod(mode)


def _number(text: str, default: int) -> int:
    return int(text) if text.isascii() and text.isdigit() else default
