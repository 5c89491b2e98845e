"""The platform's processes on one machine: which processes there are, what each is told, and what the user is shown.

Order: the fork server, the broker, control, the proxies, the workers; so at the end calls finish while what they need
still runs. When this process is killed, the fork server goes by its lifeline, the others by the parent-death signal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from stoker_builder.interpreter import Interpreter, prepare_interpreter
from stoker_cli.endpoint_flags import EndpointOptions
from stoker_cli.pages_flags import PagesOptions
from stoker_cli.server.builds import BuildOptions, build_command
from stoker_cli.server.folders import lock_data_folder, make_run_folder, remove_run_folder
from stoker_cli.server.listening import listen, listen_privately, url
from stoker_cli.server.pages import pages_child
from stoker_cli.server.pipeline import PipelineOptions, Surroundings, has_repositories, pipeline_child
from stoker_cli.server.queue import QueueOptions, broker_child, prepare_queue, worker_child
from stoker_cli.server.supervisor import Child, Supervisor
from stoker_gateway.providers.kubernetes.settings import ClusterSettings
from stoker_gateway.providers.local.launch import RunDir
from stoker_gateway.tls import Certificates, check_pair, ensure_certificates
from stoker_sdk.data_dir import ADMIN, DataDir
from stoker_sdk.files import write_whole

DRAIN_SECONDS = 65.0
_CONTROL_STOP_SECONDS = 30.0
"""It ends the containers, and an Engine takes its time for each."""
_RUN = "STOKER_RUN"
"""By this variable the fork server, and nobody else, finds what an earlier one of this run folder left."""
_KEPT_FOR_FORK_SERVER = ("PATH", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "TMPDIR")


@dataclass(frozen=True)
class ServeOptions:
    """The flags of `stoker serve`, checked. `first_id` is 0 where functions run as our own user."""

    data: DataDir
    http: tuple[str, int]
    https: tuple[str, int]
    metrics: tuple[str, int]
    proxies: int
    ready_file: Path | None
    max_body: int
    max_waiting: int
    first_id: int
    id_count: int
    host_programs: bool
    docker_host: str
    builds: BuildOptions = field(default_factory=BuildOptions)
    drain_seconds: float = DRAIN_SECONDS
    queue: QueueOptions = field(default_factory=lambda: QueueOptions())
    pipeline: PipelineOptions = field(default_factory=lambda: PipelineOptions())
    pages: PagesOptions = field(default_factory=PagesOptions)
    cluster: ClusterSettings | None = None
    """Where functions run, if not on this machine."""
    endpoints: EndpointOptions = field(default_factory=EndpointOptions)

    @property
    def has_pipeline(self) -> bool:
        """One of our own: runs are kept by the broker, and built on this machine."""
        pipeline = self.pipeline
        return pipeline.enabled and not pipeline.elsewhere and self.queue.enabled and self.cluster is None

    def pipeline_address(self, run: RunDir) -> str:
        """Where proxies find the pipeline, empty where there is none."""
        return self.pipeline.elsewhere or (f"unix:{run.pipeline_socket}" if self.has_pipeline else "")


def run_platform(options: ServeOptions, environment: Mapping[str, str]) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. Raises `StokerError` when the platform cannot start."""
    lock = lock_data_folder(options.data)
    try:
        run = make_run_folder(options.data, environment)
        _forget_ready_file(options)
        _serve(Supervisor(), options, run, environment)
        return 0
    finally:
        os.close(lock)


def _serve(supervisor: Supervisor, options: ServeOptions, run: RunDir, environment: Mapping[str, str]) -> None:
    try:
        addresses = _start(supervisor, options, run, environment)
        if not supervisor.stopping:
            _announce(options, addresses)
        supervisor.watch()
    finally:
        _forget_ready_file(options)
        supervisor.stop()
        remove_run_folder(run)


def _start(
    supervisor: Supervisor, options: ServeOptions, run: RunDir, environment: Mapping[str, str]
) -> dict[str, str]:
    http = listen(options.http, options.proxies, "--http")
    https = listen(options.https, options.proxies, "--https")
    interpreter = prepare_interpreter(options.data.path) if options.cluster is None else None
    certificates = _certificates(options)
    if interpreter is not None:
        supervisor.start(_fork_server(run, interpreter, environment))
    broker = prepare_queue(options.queue, options.data, run)
    if broker is not None and not supervisor.stopping:
        supervisor.start(broker_child(broker, environment))
    port = options.endpoints.port or int(https[0].getsockname()[1])
    control = supervisor.start(_control(options, run, interpreter, port, environment))
    for number in range(options.proxies):
        if not supervisor.stopping:
            # The descriptors are ours for good: a proxy that is started again inherits them once more.
            sockets = http[number].dup().detach(), https[number].dup().detach()
            supervisor.start(_proxy(options, run, certificates, number, sockets, environment))
    for number in range(options.queue.workers if options.queue.enabled else 0):
        if not supervisor.stopping:
            supervisor.start(
                worker_child(options.queue, run, number, options.proxies, options.drain_seconds, environment)
            )
    addresses = {"http": url("http", http[0]), "https": url("https", https[0])}
    if options.has_pipeline and not supervisor.stopping:
        child = _pipeline(options, run, interpreter, addresses, environment)
        supervisor.start_when_wanted(child, now=has_repositories(options.pipeline, options.data))
    if options.pages.enabled and not supervisor.stopping:
        supervisor.start_when_wanted(
            pages_child(
                options.pages,
                options.data,
                run,
                _named(addresses["https"], options.endpoints.own_hosts),
                environment,
                pipeline=options.pipeline_address(run),
                pipeline_stays=bool(options.pipeline.elsewhere),
                has_workers=options.queue.enabled,
            )
        )
    metrics = json.loads(control)["metrics"] if control else ""
    return addresses | {
        "metrics": f"http://{metrics}/metrics",
    }


def _fork_server(run: RunDir, interpreter: Interpreter, environment: Mapping[str, str]) -> Child:
    lifeline, _held = os.pipe2(os.O_CLOEXEC)  # `_held` stays open in this process for as long as it lives
    arguments = ["--socket", str(run.fork_socket), "--lifeline", str(lifeline)]
    arguments += ["--executable", str(interpreter.python)]
    for entry in interpreter.stdlib:
        arguments += ["--library", entry]
    # Replicas are forks of it, so nothing of our environment may be in its memory.
    kept = {name: environment[name] for name in _KEPT_FOR_FORK_SERVER if name in environment}
    return Child(
        "the fork server",
        lambda ready: [sys.executable, "-P", "-m", "stoker_watchdog.forkserver", *arguments, "--ready-fd", str(ready)],
        kept | {_RUN: str(run.path)},
        (lifeline,),
    )


def _certificates(options: ServeOptions) -> Certificates:
    """Ours for every name, unless the user has one."""
    ours = ensure_certificates(options.data.tls, (*options.endpoints.certificate_names, *options.pages.hosts))
    if options.endpoints.certificate is None:
        return ours
    chain, key = options.endpoints.certificate
    check_pair(chain, key)
    return Certificates(ours.ca, chain, key)


def _control(
    options: ServeOptions,
    run: RunDir,
    interpreter: Interpreter | None,
    https_port: int,
    environment: Mapping[str, str],
) -> Child:
    endpoints = options.endpoints
    build = build_command(options.builds, options.data, options.first_id, options.id_count)
    settings = {
        "data_dir": str(options.data.path),
        "run_dir": str(run.path),
        "metrics": f"{options.metrics[0]}:{options.metrics[1]}",
        "library_path": interpreter.library_path if interpreter else "",
        "first_id": options.first_id,
        "id_count": options.id_count,
        "host_programs": options.host_programs,
        "docker_host": options.docker_host,
        "build_command": [] if options.cluster else build,  # what it builds is for this machine
        "cluster": msgspec.to_builtins(options.cluster),
        "build_ahead": options.builds.ahead,
        "build_seconds": options.builds.seconds,
        "broker_file": str(run.broker_file) if options.queue.enabled else "",
        "own_broker": options.queue.own is not None,
        "hosts": {
            "domain": endpoints.domain,
            "port": https_port,
            "own_hosts": (*endpoints.own_hosts, *options.pages.hosts),
            "route_hosts": endpoints.route_hosts,
        },
        "rates": {
            "rest": endpoints.rate,
            "file": str(endpoints.rates_file or ""),
            "gateways": endpoints.gateways,
        },
    }

    def command(ready: int) -> list[str]:
        return [sys.executable, "-P", "-m", "stoker_gateway.control", json.dumps(settings | {"ready_fd": ready})]

    return Child("control", command, environment, stop_seconds=_CONTROL_STOP_SECONDS)


def _proxy(
    options: ServeOptions,
    run: RunDir,
    certificates: Certificates,
    number: int,
    sockets: tuple[int, int],
    environment: Mapping[str, str],
) -> Child:
    settings = {
        "number": number,
        "http_fds": [sockets[0]],
        "https_fds": [sockets[1]],
        "control_socket": str(run.control_socket),
        "table_socket": str(run.table_socket),
        "certificate": str(certificates.chain),
        "key": str(certificates.key),
        "max_body": options.max_body,
        "max_waiting": options.max_waiting,
        "drain_seconds": options.drain_seconds,
        "worker_socket": str(run.worker_socket(number)) if options.queue.enabled else "",
        "broker_file": str(run.broker_file) if options.queue.enabled else "",
        "max_async_body": options.queue.max_body,
        "idempotency_window": options.queue.idempotency_window,
        "broker_folder": str(options.data.queue) if options.queue.enabled and options.queue.own is None else "",
        "domain": options.endpoints.domain,
        "own_hosts": (*options.endpoints.own_hosts, *options.pages.hosts),
        "inside": options.endpoints.inside,
        "pipeline": options.pipeline_address(run),
        "pages_socket": str(run.pages_socket) if options.pages.enabled else "",
        "pages_host": options.pages.host,
    }

    def command(ready: int) -> list[str]:
        return [sys.executable, "-P", "-m", "stoker_gateway.proxy", json.dumps(settings | {"ready_fd": ready})]

    return Child(f"proxy {number}", command, environment, sockets, stop_seconds=options.drain_seconds + 5)


def _pipeline(
    options: ServeOptions,
    run: RunDir,
    interpreter: Interpreter | None,
    addresses: Mapping[str, str],
    environment: Mapping[str, str],
) -> Child:
    around = Surroundings(
        gateway=addresses["http"],
        public_url=_named(addresses["https"], options.endpoints.own_hosts),
        password_file=options.data.password,
        seal_key=options.data.seal_key,
        python=interpreter.python if interpreter else Path(sys.executable),
        library_path=interpreter.library_path if interpreter else "",
        first_id=options.first_id,
        id_count=options.id_count,
    )
    listener = listen_privately(run.pipeline_socket)
    return pipeline_child(options.pipeline, options.data, run, around, listener, environment)


def _named(address: str, names: Sequence[str]) -> str:
    """The address with the gateway's first own host."""
    return f"https://{next(iter(names), 'localhost')}:{address.rpartition(':')[2]}"


def _announce(options: ServeOptions, addresses: dict[str, str]) -> None:
    data = options.data
    print(f"stoker: serving on {addresses['http']} and {addresses['https']}")
    print(f"stoker: data in {data.path}, user {ADMIN}, password in {data.password}, CA in {data.ca_certificate}")
    if options.endpoints.domain:
        print(f"stoker: owners' functions are at https://OWNER.{options.endpoints.domain}/FUNCTION")
    if options.pages.enabled:
        print(f"stoker: pages for your browser at {_pages_url(options, addresses)}")
    if options.queue.enabled:
        print(f"stoker: async calls are kept {options.queue.where(data)}, {options.queue.workers} worker(s)")
    if options.cluster is not None:
        print(f"stoker: functions run on Kubernetes, in {', '.join(options.cluster.namespaces)}")
    elif not options.first_id:
        print("stoker: not started as root, so functions run with the rights of this user")
    sys.stdout.flush()
    if options.ready_file is not None:
        ready = addresses | {
            "ca": str(data.ca_certificate),
            "user": ADMIN,
            "passwordFile": str(data.password),
            "dataDir": str(data.path),
            "pid": os.getpid(),
        }
        write_whole(options.ready_file, json.dumps(ready, indent=1).encode() + b"\n", 0o644)


def _pages_url(options: ServeOptions, addresses: Mapping[str, str]) -> str:
    where = _named(addresses["https"], options.pages.hosts) if options.pages.hosts else addresses["http"]
    return f"{where}/ui/"


def _forget_ready_file(options: ServeOptions) -> None:
    if options.ready_file is not None:
        options.ready_file.unlink(missing_ok=True)
