"""The flags of `stoker serve` about running functions on a Kubernetes cluster."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stoker_sdk.errors import BadInput, BadUsage, StokerError

if TYPE_CHECKING:
    from stoker_gateway.providers.kubernetes.settings import ClusterSettings

_IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")

_NAMES = (
    "provider",
    "kubeconfig",
    "kube_context",
    "function_namespace",
    "plain_registry",
    "registry_ca",
    "function_user",
    "deploy_deadline",
    "operator",
    "crd_group",
)
_OPTIONS = (
    click.option(
        "--provider",
        type=click.Choice(["local", "kubernetes"]),
        default="local",
        show_default=True,
        help="Where functions run: as processes of this machine, or as pods of a cluster.",
    ),
    click.option(
        "--kubeconfig",
        type=click.Path(exists=True, dir_okay=False),
        default=None,
        help="Which cluster [KUBECONFIG, the cluster that this runs in, ~/.kube/config].",
    ),
    click.option("--kube-context", default="", help="Which entry of the kubeconfig [its current one]."),
    click.option(
        "--function-namespace", multiple=True, metavar="NAME", help="A namespace for functions [openfaas-fn]."
    ),
    click.option(
        "--plain-registry", multiple=True, metavar="HOST[:PORT]", help="A registry without TLS that is not on loopback."
    ),
    click.option("--registry-ca", type=click.Path(exists=True, dir_okay=False), default=None, help="For registries."),
    click.option(
        "--function-user", type=click.IntRange(0), default=12000, show_default=True, help="0: the cluster's choice."
    ),
    click.option(
        "--deploy-deadline",
        default="2m",
        show_default=True,
        metavar="DURATION",
        help="A version that is not ready by then is rolled back.",
    ),
    click.option("--operator", is_flag=True, help="Keep functions as Function resources, for kubectl and Git."),
    click.option("--crd-group", default="openfaas.com", show_default=True, help="The group of these resources."),
)


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds all of them, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_cluster_options(flags: dict[str, Any], environment: Mapping[str, str]) -> ClusterSettings | None:
    """Takes the flags out of `flags`; None where functions run on this machine. Raises `StokerError`."""
    taken = {name: flags.pop(name) for name in _NAMES}
    if taken["provider"] == "local":
        return None
    if find_spec("kubernetes") is None:
        raise StokerError("--provider kubernetes needs the cluster's client: pip install 'stoker[kubernetes]'")
    from stoker_gateway.providers.kubernetes.settings import ClusterSettings
    from stoker_sdk.names import DEFAULT_NAMESPACE, LABEL_PATTERN, check_function_namespace
    from stoker_sdk.probes import check_deploy_deadline

    group = taken["crd_group"]
    if taken["operator"] and not re.fullmatch(rf"{LABEL_PATTERN}(\.{LABEL_PATTERN})+", group):
        raise BadUsage(f"--crd-group {group[:80]!r} is no group of resources: write it as openfaas.com is")
    try:
        namespaces = tuple(check_function_namespace(name) for name in taken["function_namespace"])
    except BadInput as error:
        raise BadUsage(f"--function-namespace: {error}") from error
    try:
        deadline = check_deploy_deadline(taken["deploy_deadline"] or "0s")
    except BadInput as error:
        raise BadUsage(f"--deploy-deadline: {error}") from error
    return ClusterSettings(
        kubeconfig=_kubeconfig(taken["kubeconfig"], environment),
        context=taken["kube_context"],
        namespaces=namespaces or (DEFAULT_NAMESPACE,),
        plain_registries=taken["plain_registry"],
        registry_ca=str(Path(taken["registry_ca"]).absolute()) if taken["registry_ca"] else "",
        run_as_user=taken["function_user"] or None,
        deploy_deadline=deadline,
        function_group=group if taken["operator"] else "",
    )


def _kubeconfig(flag: str | None, environment: Mapping[str, str]) -> str:
    chosen = flag or environment.get("KUBECONFIG", "")
    if not chosen and not _IN_CLUSTER.exists():
        chosen = str(Path(environment.get("HOME", "/")) / ".kube" / "config")
    return str(Path(chosen).absolute()) if chosen else ""
