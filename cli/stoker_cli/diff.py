"""`stoker diff`: what is deployed, beside what the stack says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from stoker_cli.build_flags import tag_option
from stoker_cli.command import Command
from stoker_cli.connection import connected, required_stack
from stoker_cli.options import Selection, Target, json_option, selection_options, target_options
from stoker_cli.output import print_json
from stoker_cli.surroundings import Surroundings

if TYPE_CHECKING:
    from stoker_sdk.function import FunctionSpec, FunctionStatus, Resources

_ADDED = {
    "labels": ("faas_function", "uid", "com.openfaas.uid"),
    "annotations": ("prometheus.io.scrape",),
    "env": ("fprocess",),
}
"""What other platforms put there themselves (contract section 2.3): no difference when it stands there alone."""

Difference = tuple[str, str, str]
"""Key, what is deployed, what the stack says; an empty text where there is nothing."""


@click.command("diff", cls=Command)
@target_options
@selection_options
@tag_option
@json_option
@click.pass_obj
def diff(surroundings: Surroundings, target: Target, selection: Selection, tag: str, as_json: bool) -> int:
    """Compare the functions of a stack with what is deployed: image, process, environment, labels, annotations,
    secrets, constraints, limits and requests. Nothing is changed. Exit code 1 means that there is a difference.

    Of functions that the gateway builds, the image is not compared: only a build says which it would be.

    \b
    stoker diff
    stoker diff -f stack.yml -n staging || stoker up -f stack.yml -n staging
    """
    from stoker_cli.images import image_name
    from stoker_cli.pipeline import checked_spec, named
    from stoker_sdk.deployment import Overrides
    from stoker_sdk.errors import NotFound
    from stoker_sdk.stack import select

    stack = required_stack(target, surroundings, selection)
    found: dict[str, list[Difference]] = {}
    with connected(target, surroundings, stack) as client:
        for function in select(stack.functions, selection.filter, selection.regex):
            with named(function.name):
                image = image_name(stack, function, tag, surroundings.environment) if function.image else "unnamed"
                spec = checked_spec(stack, function, Overrides(image=image, namespace=target.namespace))
            try:
                status = client.function(function.name, spec.namespace)
            except NotFound:
                found[function.name] = [("function", "", "is not deployed")]
                continue
            found[function.name] = differences(spec, status, compares_image=not function.is_built_here)
    if as_json:
        print_json({name: [list(each) for each in each_] for name, each_ in found.items()})
    else:
        _print(found)
    return 1 if any(found.values()) else 0


def differences(spec: FunctionSpec, status: FunctionStatus, *, compares_image: bool) -> list[Difference]:
    """Every key in which the deployed function is not as the stack says."""
    from stoker_sdk.function import LOCAL_REGISTRY

    found: list[Difference] = []
    if (compares_image or not status.image.startswith(f"{LOCAL_REGISTRY}/")) and spec.image != status.image:
        found.append(("image", status.image, spec.image))
    if spec.env_process != status.env_process:
        found.append(("fprocess", status.env_process, spec.env_process))
    if spec.read_only_root_filesystem != status.read_only_root_filesystem:
        values = str(status.read_only_root_filesystem).lower(), str(spec.read_only_root_filesystem).lower()
        found.append(("readonly_root_filesystem", *values))
    found += _maps("env", status.env_vars, spec.env_vars)
    found += _maps("labels", status.labels, spec.labels)
    found += _maps("annotations", status.annotations, spec.annotations)
    found += _lists("secrets", status.secrets, spec.secrets)
    found += _lists("constraints", status.constraints, spec.constraints)
    found += _maps("limits", _quantities(status.limits), _quantities(spec.limits))
    found += _maps("requests", _quantities(status.requests), _quantities(spec.requests))
    return found


def _maps(what: str, deployed: Mapping[str, str] | None, wanted: Mapping[str, str] | None) -> list[Difference]:
    have, want = dict(deployed or {}), dict(wanted or {})
    for name in _ADDED.get(what, ()):
        if name not in want:
            have.pop(name, None)
    changed = [key for key in sorted(have.keys() | want.keys()) if have.get(key) != want.get(key)]
    return [(f"{what}.{key}", _shown(have.get(key)), _shown(want.get(key))) for key in changed]


def _shown(value: str | None) -> str:
    return "" if value is None else repr(value)


def _lists(what: str, deployed: list[str] | None, wanted: list[str] | None) -> list[Difference]:
    have, want = set(deployed or ()), set(wanted or ())
    return [(what, each if each in have else "", each if each in want else "") for each in sorted(have ^ want)]


def _quantities(resources: Resources | None) -> dict[str, str]:
    """Without zeros: another platform prints a half that was not asked for as "0"."""
    import msgspec

    texts = dict(msgspec.to_builtins(resources)) if resources else {}
    return {key: text for key, text in texts.items() if text not in ("", "0")}


def _print(found: Mapping[str, list[Difference]]) -> None:
    for name, each in found.items():
        click.echo(f"{name}: {'no difference' if not each else ''}".rstrip())
        for key, deployed, wanted in each:
            if key == "function":
                click.echo(f"  {wanted}")
                continue
            if deployed:
                click.echo(click.style(f"  - {key}: {deployed}", fg="red"))
            if wanted:
                click.echo(click.style(f"  + {key}: {wanted}", fg="green"))
