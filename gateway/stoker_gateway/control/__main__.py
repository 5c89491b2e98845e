"""The control process: API on a unix socket, metrics on a port, the provider, the proxies' table.

    python -m stoker_gateway.control SETTINGS-JSON

This is a composition root: the one place that names the concrete provider. The process ends with its supervisor; the
replicas go on without it, and are taken over by the next one.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import uvloop
from aiohttp import web

from stoker_gateway.auth import ensure_password
from stoker_gateway.control.app import make_app, make_runner
from stoker_gateway.control.call_metrics import CallMetrics
from stoker_gateway.control.config import ControlConfig
from stoker_gateway.control.metrics import make_metrics_app
from stoker_gateway.control.namespaces import empty_namespace
from stoker_gateway.control.owner_limits import OwnerLimits, RateSettings
from stoker_gateway.control.proxies import Proxies
from stoker_gateway.control.schedules import make_scheduler, running
from stoker_gateway.control.shared_counts import SharedCounts
from stoker_gateway.endpoints import Endpoints, HostPolicy
from stoker_gateway.namespaces import NamespaceStore
from stoker_gateway.providers.base import Provider
from stoker_gateway.providers.kubernetes.settings import ClusterSettings
from stoker_gateway.providers.local.launch import Launcher, RunDir
from stoker_gateway.providers.local.limiter import Limiter
from stoker_gateway.providers.local.provider import LocalProvider
from stoker_gateway.providers.local.runner import ContainerRunner, Owners
from stoker_gateway.queue.broker import PID_FILE
from stoker_gateway.queue.calls import StoredCalls
from stoker_gateway.queue.room import Mender
from stoker_gateway.secrets import FileSecrets, Secrets, SecretStore
from stoker_sdk.basic_auth import BasicAuth
from stoker_sdk.cgroups import Cgroups, find_cgroups
from stoker_sdk.data_dir import ADMIN, DataDir
from stoker_sdk.errors import StokerError
from stoker_sdk.ids import UserIds
from stoker_sdk.processes import die_with_parent, say_ready

log = logging.getLogger("stoker.control")


class ControlSettings(msgspec.Struct, frozen=True):
    """What the supervisor tells control. `first_id` is 0 where functions have the platform's own user,
    `own_broker` is true where the broker is the user's."""

    data_dir: str
    run_dir: str
    metrics: str
    library_path: str
    first_id: int
    id_count: int
    host_programs: bool
    build_command: list[str]
    ready_fd: int
    docker_host: str
    build_ahead: bool = False
    build_seconds: float = 1800.0
    broker_file: str = ""
    own_broker: bool = False
    cluster: ClusterSettings | None = None
    """Where functions run, if not on this machine."""
    hosts: HostPolicy = HostPolicy()
    rates: RateSettings = RateSettings()


class Ready(msgspec.Struct, frozen=True):
    """What control tells the supervisor when it answers."""

    metrics: str


async def serve(settings: ControlSettings) -> None:
    data, run = DataDir(Path(settings.data_dir)), RunDir(Path(settings.run_dir))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    provider, secrets = await _make_provider(settings, data, run)
    proxies = Proxies(provider.wake, Endpoints(settings.hosts), OwnerLimits(settings.rates))
    await provider.start(proxies.route_changed)
    await proxies.listen(str(run.table_socket))
    config = ControlConfig(
        auth=BasicAuth(ADMIN, ensure_password(data.password)),
        build_command=tuple(settings.build_command),
        build_ahead=settings.build_ahead,
        build_timeout=settings.build_seconds,
    )
    namespaces = NamespaceStore(data.namespaces, data.set_aside)
    for name in settings.cluster.namespaces if settings.cluster else ():
        await namespaces.ensure(name)
    calls = _stored_calls(settings, data, run)
    if calls is not None:
        await calls.start()
    shared = SharedCounts(lambda: calls.client, proxies) if calls is not None and settings.own_broker else None
    others = shared.others if shared is not None else dict[str, int]
    app = make_app(config, provider, secrets, namespaces, proxies, calls, proxies.endpoints, others)
    await namespaces.finish_deletions(lambda name: empty_namespace(app, name))
    scheduler = make_scheduler(provider, namespaces, calls) if calls is not None else None
    call_metrics = CallMetrics(proxies, calls, scheduler.missed) if calls and scheduler else None
    runners = [make_runner(app), make_runner(make_metrics_app(app, call_metrics))]
    for runner in runners:
        await runner.setup()
    await _listen_privately(runners[0], run.control_socket)
    metrics = await _listen_for_metrics(runners[1], settings.metrics)
    gc.collect()
    gc.freeze()
    say_ready(settings.ready_fd, msgspec.json.encode(Ready(metrics)))
    async with running(scheduler), running(shared):
        await stop.wait()
    for runner in runners:
        await runner.cleanup()
    if calls is not None:
        await calls.close()
    await proxies.close()
    await provider.close()


def _stored_calls(settings: ControlSettings, data: DataDir, run: RunDir) -> StoredCalls | None:
    if not settings.broker_file:
        return None
    mender = None if settings.own_broker else Mender(data.queue, run.path / PID_FILE)
    return StoredCalls(Path(settings.broker_file), mender)


async def _make_provider(settings: ControlSettings, data: DataDir, run: RunDir) -> tuple[Provider, Secrets]:
    if settings.cluster is not None:
        from stoker_gateway.providers.kubernetes.connect import connect  # its client costs seconds and megabytes

        return await connect(settings.cluster)
    secrets = SecretStore(data.secrets, data.key)
    ids = UserIds(data.ids, settings.first_id, settings.id_count) if settings.first_id else None
    cgroups = _find_cgroups(run) if ids is not None else None
    launcher = Launcher(data, run, settings.library_path, ids, secrets.read, own_limits=cgroups is None)

    def make_containers(owners: Owners) -> ContainerRunner:
        from stoker_gateway.providers.docker.containers import connect  # who runs no container pays nothing for them

        return connect(settings.docker_host, _docker_config(os.environ), data, run, launcher, owners)

    limiter = Limiter(cgroups)
    provider = LocalProvider(data, run, launcher, limiter, make_containers, host_programs=settings.host_programs)
    return provider, FileSecrets(secrets)


def _docker_config(environment: Mapping[str, str]) -> Path:
    """Where `docker login` of the platform's user has left what registries want."""
    folder = environment.get("DOCKER_CONFIG", "") or Path(environment.get("HOME", "/")) / ".docker"
    return Path(folder) / "config.json"


def _find_cgroups(run: RunDir) -> Cgroups | None:
    return find_cgroups(f"stoker/{run.path.name}")


async def _listen_privately(runner: web.AppRunner, path: Path) -> None:
    old_mask = os.umask(0o177)
    try:
        await web.UnixSite(runner, str(path)).start()
    finally:
        os.umask(old_mask)


async def _listen_for_metrics(runner: web.AppRunner, address: str) -> str:
    host, _, port = address.rpartition(":")
    site = web.TCPSite(runner, host.strip("[]"), int(port))
    try:
        await site.start()
    except OSError as error:
        raise StokerError(
            f"metrics cannot be served on {address}: {error.strerror}; choose another with --metrics"
        ) from error
    actual = runner.addresses[0]
    return f"{host}:{actual[1]}"


def main() -> None:
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s control %(levelname)s %(message)s")
    settings = msgspec.json.decode(sys.argv[1], type=ControlSettings)
    try:
        uvloop.run(serve(settings))
    except StokerError as error:
        log.error("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
