"""`stoker serve`: the platform on this machine, in the foreground, until it is told to stop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from stoker_cli.addresses import Address
from stoker_cli.builder_flags import builder_options, read_builder_options
from stoker_cli.cluster_flags import cluster_options, read_cluster_options
from stoker_cli.command import Command
from stoker_cli.endpoint_flags import endpoint_options, read_endpoint_options
from stoker_cli.forge_flags import forge_options
from stoker_cli.git_flags import git_options, read_git_options
from stoker_cli.image_flags import image_options, read_image_options
from stoker_cli.pages_flags import pages_options, read_pages_options
from stoker_cli.queue_flags import queue_options
from stoker_cli.surroundings import Surroundings
from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import BadInput, BadUsage
from stoker_sdk.ids import ID_COUNT, first_id_of

_HELP = """Run the platform: functions on http://127.0.0.1:8080 and https://127.0.0.1:8443.

The data folder holds everything that lasts: functions, secrets, artefacts, logs, the password (user `admin`), and the
CA that signed the HTTPS certificate. Started as root, every function gets a user id of its own; started as an ordinary
user, functions have that user's rights. With --provider kubernetes functions are Deployments of a cluster whose pods
can be reached from here, and their secrets its Secrets; with --operator they are Function resources, too.

\b
  stoker serve
  stoker serve --http 0.0.0.0:80 --https 0.0.0.0:443 --name faas.example.org
  stoker serve --domain stoker.localhost --owner-rate 100/s
  stoker serve --provider kubernetes --kubeconfig ~/.kube/config
  stoker serve --data-dir /tmp/try --http 127.0.0.1:0 --https 127.0.0.1:0 --ready-file /tmp/ready.json
  curl --cacert "$(stoker serve --print-ca)" https://localhost:8443/function/greet
"""


def _size(text: str, flag: str) -> int:
    from stoker_sdk.units import parse_quantity

    try:
        return int(parse_quantity(text, flag))
    except BadInput as error:
        raise BadUsage(str(error)) from error


def _seconds(text: str, flag: str) -> float:
    from stoker_sdk.units import parse_duration

    try:
        return parse_duration(text, flag)
    except BadInput as error:
        raise BadUsage(str(error)) from error


@click.command(cls=Command, help=_HELP)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where everything is kept [STOKER_DATA_DIR].")
@click.option("--http", type=Address(), default="127.0.0.1:8080", show_default=True)
@click.option("--https", type=Address(), default="127.0.0.1:8443", show_default=True)
@click.option("--metrics", type=Address(), default="127.0.0.1:8082", show_default=True, help="Prometheus.")
@click.option("--proxies", type=click.IntRange(1, 64), help="Proxy processes [as many as cores, at most 4].")
@click.option("--name", "names", multiple=True, help="A further host name or address for the certificate.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="JSON with addresses, written when all answers.")
@click.option("--max-body", default="2Gi", show_default=True, help="The largest request body of a call.")
@click.option(
    "--max-waiting",
    type=click.IntRange(0),
    default=10_000,
    show_default=True,
    help="Calls that may wait per function.",
)
@click.option(
    "--first-user-id",
    type=click.IntRange(1000),
    default=None,
    help="As root: functions' user ids begin here. [default: a stretch of its own for each data folder]",
)
@click.option(
    "--user-ids",
    type=click.IntRange(1),
    default=ID_COUNT,
    show_default=True,
    help="As root: how many there are.",
)
@click.option(
    "--allow-host-programs", is_flag=True, help="Functions with fprocess may run any program of this machine."
)
@click.option(
    "--docker-host",
    help="The Docker Engine for functions whose image is a container's [DOCKER_HOST, unix:///var/run/docker.sock].",
)
@click.option("--drain", default="65s", show_default=True, help="How long running calls may go on at a stop.")
@builder_options
@endpoint_options
@cluster_options
@queue_options
@git_options
@forge_options
@image_options
@pages_options
@click.option("--print-ca", is_flag=True, help="Print the path of the CA's certificate and stop.")
@click.pass_obj
def serve(
    surroundings: Surroundings,
    /,
    data_dir: Path | None,
    http: tuple[str, int],
    https: tuple[str, int],
    metrics: tuple[str, int],
    proxies: int | None,
    names: tuple[str, ...],
    ready_file: Path | None,
    max_body: str,
    max_waiting: int,
    first_user_id: int | None,
    user_ids: int,
    allow_host_programs: bool,
    docker_host: str | None,
    drain: str,
    print_ca: bool,
    **others: Any,
) -> int:
    data = DataDir(data_dir.absolute()) if data_dir else surroundings.data_dir
    if print_ca:
        click.echo(data.ca_certificate)
        return 0
    first_id = first_user_id or first_id_of(data.path)
    if first_id + user_ids > 2**31:
        raise BadUsage("--first-user-id and --user-ids reach beyond the largest user id: lower one of them")
    from stoker_cli.server.platform import ServeOptions, run_platform
    from stoker_cli.server.queue import read_queue_options

    engine = surroundings.docker_host(docker_host)
    images = read_image_options(others, engine, surroundings.environment)
    options = ServeOptions(
        data=data,
        http=http,
        https=https,
        metrics=metrics,
        proxies=proxies or min(4, os.cpu_count() or 1),
        endpoints=read_endpoint_options(others, names),
        ready_file=ready_file.absolute() if ready_file else None,
        max_body=_size(max_body, "--max-body"),
        max_waiting=max_waiting,
        first_id=first_id if surroundings.is_root else 0,
        id_count=user_ids,
        host_programs=allow_host_programs,
        docker_host=engine,
        builds=read_builder_options(others),
        drain_seconds=_seconds(drain, "--drain"),
        cluster=read_cluster_options(others, surroundings.environment),
        queue=read_queue_options(others),
        pipeline=read_git_options(others, images),
        pages=read_pages_options(others),
    )
    return run_platform(options, surroundings.environment)
