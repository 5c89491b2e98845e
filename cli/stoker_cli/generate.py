"""`stoker generate`: the functions of a stack as Kubernetes resources."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stoker_cli.build_flags import tag_option
from stoker_cli.command import Command
from stoker_cli.connection import required_stack
from stoker_cli.options import ARCHITECTURES, Selection, Target, selection_options, stack_options
from stoker_cli.surroundings import Surroundings
from stoker_sdk.errors import BadInput

if TYPE_CHECKING:
    from stoker_sdk.function import FunctionSpec

KNATIVE = "serving.knative.dev/v1"
GROUP = "openfaas.com"
APIS = (f"{GROUP}/v1", f"{GROUP}/v1alpha2", KNATIVE)


@click.command("generate", cls=Command)
@stack_options
@selection_options
@tag_option
@click.option("--api", type=click.Choice(APIS), default=APIS[0], help="The kind of resource.")
@click.option(
    "--crd-group", default=GROUP, metavar="NAME", help=f"The cluster's group of Functions. [default: {GROUP}]"
)
@click.option("-n", "--namespace", default="", metavar="NAME", help="The namespace. [default: openfaas-fn]")
@click.option("--from-store", default="", metavar="NAME", help="A function of the store, in place of a stack.")
@click.option("--arch", type=click.Choice(ARCHITECTURES), default="x86_64", help="For --from-store. [default: x86_64]")
@click.option("-u", "--url", default="", metavar="URL|FILE", help="The store. [default: $OPENFAAS_STORE, else public]")
@click.pass_obj
def generate(
    surroundings: Surroundings,
    target: Target,
    selection: Selection,
    tag: str,
    api: str,
    crd_group: str,
    namespace: str,
    from_store: str,
    arch: str,
    url: str,
) -> None:
    """Print the functions of a stack as Function resources of Kubernetes, or as Knative services. Nothing is built
    and nobody is asked: the images are those that the stack names.

    \b
    stoker generate > functions.yaml
    stoker generate -n staging --tag sha | kubectl apply -f -
    stoker generate --from-store figlet --arch arm64
    """
    import yaml

    specs = (
        [_store_spec(surroundings, from_store, arch, url, namespace)]
        if from_store
        else _stack_specs(surroundings, target, selection, tag, namespace)
    )
    for spec in specs:
        made = knative_service(spec) if api == KNATIVE else function_resource(spec, crd_group, api.rpartition("/")[2])
        click.echo("---\n" + yaml.safe_dump(made, sort_keys=False, allow_unicode=True), nl=False)


def function_resource(spec: FunctionSpec, group: str, version: str) -> dict[str, object]:
    """The `Function` without what is empty, with the process (`handler`), which faas-cli loses (quirk 17)."""
    import msgspec

    from stoker_sdk.function_resource import resource_of

    empty = {name: None for name in ("env_vars", "labels", "annotations") if not getattr(spec, name)}
    return resource_of(msgspec.structs.replace(spec, **empty), group, version)


def knative_service(spec: FunctionSpec) -> dict[str, object]:
    """The Knative service: one container, with the secrets where the contract puts them."""
    environment = {**({"fprocess": spec.env_process} if spec.env_process else {}), **(spec.env_vars or {})}
    mounts = [
        {"name": f"secret-{index}", "mountPath": f"/var/openfaas/secrets/{name}", "subPath": name, "readOnly": True}
        for index, name in enumerate(spec.secrets or ())
    ]
    resources = _present(limits=_resources(spec, "limits"), requests=_resources(spec, "requests"))
    container: dict[str, object] = {"name": "user-container", "image": spec.image}
    container |= _present(
        env=[{"name": key, "value": text} for key, text in environment.items()],
        resources=resources,
        volumeMounts=mounts,
        securityContext={"readOnlyRootFilesystem": True} if spec.read_only_root_filesystem else None,
    )
    volumes = [
        {"name": f"secret-{index}", "secret": {"secretName": name}} for index, name in enumerate(spec.secrets or ())
    ]
    pod = {"containers": [container], **_present(volumes=volumes)}
    template = {"metadata": _present(labels=spec.labels, annotations=spec.annotations), "spec": pod}
    template = template if template["metadata"] else {"spec": pod}
    return {"apiVersion": KNATIVE, "kind": "Service", "metadata": _metadata(spec), "spec": {"template": template}}


def _stack_specs(
    surroundings: Surroundings, target: Target, selection: Selection, tag: str, namespace: str
) -> list[FunctionSpec]:
    from stoker_cli.images import image_name
    from stoker_cli.pipeline import checked_spec, named
    from stoker_sdk.deployment import Overrides
    from stoker_sdk.stack import select

    stack = required_stack(target, surroundings, selection)
    specs = []
    for function in select(stack.functions, selection.filter, selection.regex):
        with named(function.name):
            if not function.image:
                raise BadInput("has no image, which a cluster needs: write one into the stack file")
            image = image_name(stack, function, tag, surroundings.environment)
            specs.append(checked_spec(stack, function, Overrides(image=image, namespace=namespace)))
    return specs


def _store_spec(surroundings: Surroundings, name: str, arch: str, url: str, namespace: str) -> FunctionSpec:
    from stoker_cli.stores import find_function, store_functions
    from stoker_sdk.deployment import Overrides, function_spec

    entry = find_function(store_functions(url, surroundings.environment), name)
    spec = function_spec(entry.function("", arch), Overrides(namespace=namespace))
    spec.check()
    return spec


def _metadata(spec: FunctionSpec) -> dict[str, str]:
    return {"name": spec.service, "namespace": spec.key.namespace}


def _resources(spec: FunctionSpec, which: str) -> dict[str, str]:
    import msgspec

    resources = spec.limits if which == "limits" else spec.requests
    return dict(msgspec.to_builtins(resources)) if resources else {}


def _present(**values: object) -> dict[str, object]:
    return {key: value for key, value in values.items() if value}
