"""`stoker pipeline`: the pipeline of git pushes by itself, for gateways that run elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stoker_cli.addresses import Address
from stoker_cli.command import Command
from stoker_cli.forge_flags import forge_options
from stoker_cli.git_flags import read_run_options, run_options
from stoker_cli.image_flags import image_options, read_image_options
from stoker_cli.queue_flags import broker_options
from stoker_cli.surroundings import Surroundings
from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import BadInput, BadUsage

_MARGIN_SECONDS = 60.0
"""For which runs wait longer than the gateways do, which say why a version is undone."""
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_HELP = """Run the pipeline of git pushes by itself, for gateways that run elsewhere, as on a cluster.

Gateways started with `stoker serve --pipeline URL` send it pushes, webhooks and questions about runs. It keeps runs
in the gateways' NATS, repositories and keys in its data folder, and deploys through the gateways' API. One pipeline
at a time: a second one on the same data folder waits for the end of the first. It needs no rights on the cluster, and
need not be root.

\b
  stoker pipeline --gateway http://gateway.openfaas:8080 --nats nats://stoker-nats.openfaas:4222 \\
    --nats-token-file /etc/stoker/nats/token --password-file /etc/stoker/password --listen 0.0.0.0:8084
  stoker serve --provider kubernetes --pipeline http://stoker-builder.openfaas:8084
"""


@click.command(cls=Command, help=_HELP)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where repositories and keys are [STOKER_DATA_DIR].")
@click.option("--listen", type=Address(), default="127.0.0.1:8084", show_default=True, help="For the gateways alone.")
@click.option("--gateway", metavar="URL", required=True, help="Where functions are deployed.")
@click.option("--public-url", metavar="URL", default="", help="The gateway for people: in links [--gateway].")
@click.option("--function-namespace", default="", metavar="NAME", help="Where functions are deployed [openfaas-fn].")
@click.option(
    "--deploy-deadline", default="2m", show_default=True, metavar="DURATION", help="That of the gateways, or longer."
)
@click.option("--password-file", type=_FILE, help="The gateway's, which is the pipeline's too [password in the data].")
@click.option("--seal-key-file", type=_FILE, help="Opens sealed build secrets [made once, in the data folder].")
@click.option("--docker-host", help="The Docker Engine that builds images [DOCKER_HOST, unix:///var/run/docker.sock].")
@click.option(
    "--plain-registry", multiple=True, metavar="HOST[:PORT]", help="A registry without TLS that is not on loopback."
)
@broker_options
@run_options
@forge_options
@image_options
@click.pass_obj
def pipeline(
    surroundings: Surroundings,
    /,
    data_dir: Path | None,
    listen: tuple[str, int],
    gateway: str,
    public_url: str,
    function_namespace: str,
    deploy_deadline: str,
    password_file: Path | None,
    seal_key_file: Path | None,
    docker_host: str | None,
    **others: Any,
) -> int:
    from stoker_cli.server.pipeline_alone import AloneOptions, run_pipeline
    from stoker_cli.server.queue import read_broker
    from stoker_sdk.gateway_address import normalize_gateway
    from stoker_sdk.ids import ID_COUNT, first_id_of
    from stoker_sdk.names import check_function_namespace
    from stoker_sdk.probes import check_deploy_deadline

    data = DataDir(data_dir.absolute()) if data_dir else surroundings.data_dir
    try:
        broker = read_broker(others)
        gateway = normalize_gateway(gateway)
        public_url = normalize_gateway(public_url) if public_url else gateway
        deadline = check_deploy_deadline(deploy_deadline)
        if function_namespace:
            check_function_namespace(function_namespace)
    except BadInput as error:
        raise BadUsage(str(error)) from error
    if broker is None:
        raise BadUsage("--nats is missing: runs are kept in the NATS of the gateways")
    images = read_image_options(others, surroundings.docker_host(docker_host), surroundings.environment)
    first_id = first_id_of(data.path) if surroundings.is_root else 0
    options = AloneOptions(
        data=data,
        listen=listen,
        gateway=gateway,
        public_url=public_url,
        namespace=function_namespace,
        ready_seconds=deadline + _MARGIN_SECONDS,
        password_file=password_file.absolute() if password_file else data.password,
        seal_key=seal_key_file.absolute() if seal_key_file else data.seal_key,
        broker=broker,
        pipeline=read_run_options(others, images),
        first_id=first_id,
        id_count=ID_COUNT,
    )
    return run_pipeline(options, surroundings.environment)
