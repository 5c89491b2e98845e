"""`stoker describe`: everything about one function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected
from stoker_cli.options import Target, json_option, target_options
from stoker_cli.output import print_json
from stoker_cli.surroundings import Surroundings
from stoker_sdk.gateway_address import function_url

if TYPE_CHECKING:
    from stoker_sdk.faults import Fault
    from stoker_sdk.function import Condition, FunctionStatus, Resources

Line = tuple[str, str]
"""A label and its text, which may have several lines."""


@click.command("describe", cls=Command)
@click.argument("name")
@target_options
@json_option
@click.option("-v", "--verbose", is_flag=True, help="Show also what is not set.")
@click.pass_obj
def describe(surroundings: Surroundings, target: Target, name: str, as_json: bool, verbose: bool) -> None:
    """Show one function: its state, its settings and its replicas.

    \b
    stoker describe greet
    stoker describe greet --json
    """
    import msgspec

    with connected(target, surroundings) as client:
        status = client.function(name, target.namespace, usage=True)
        listed = client.functions(target.namespace)
        url = function_url(client.gateway, name, target.namespace)
    count = next((each.invocation_count for each in listed if each.name == status.name), 0.0)
    status = msgspec.structs.replace(status, invocation_count=count)
    if as_json:
        print_json(status)
        return
    for label, text in description(status, url):
        if text in ("", "<none>") and not verbose:
            continue
        first, *rest = text.split("\n") or [""]
        click.echo(f"{label + ':':<21}{first}".rstrip())
        for line in rest:
            click.echo(" " * 21 + line)


def description(status: FunctionStatus, url: str) -> list[Line]:
    """The lines to show, in order; those of ours (`stoker`) last, and only from a gateway that sends them."""
    return [
        ("Name", status.name),
        ("Namespace", status.namespace),
        ("Status", "Ready" if status.available_replicas else "Not Ready"),
        ("Replicas", str(status.replicas)),
        ("Available replicas", str(status.available_replicas)),
        ("Invocations", f"{status.invocation_count:.0f}"),
        ("Image", status.image),
        ("Function process", status.env_process or "<default>"),
        ("URL", url),
        ("Public URL", _list(status.stoker.urls if status.stoker else None)),
        ("Refused URL", _list(status.stoker.refused_urls if status.stoker else None)),
        ("Created at", status.created_at),
        ("Environment", _map(status.env_vars)),
        ("Labels", _map(status.labels)),
        ("Annotations", _map(status.annotations)),
        ("Constraints", _list(status.constraints)),
        ("Secrets", _list(status.secrets)),
        ("Read-only root", "true" if status.read_only_root_filesystem else "<none>"),
        ("Requests", _resources(status.requests)),
        ("Limits", _resources(status.limits)),
        ("Usage", _usage(status)),
        *(_condition(status.stoker) if status.stoker else ()),
    ]


def _condition(condition: Condition) -> list[Line]:
    instances = [
        f"{instance.id}  {instance.state}"
        + (f"  pid {instance.pid}" if instance.pid else "")
        + (f"  {instance.message}" if instance.message else "")
        for instance in condition.instances
    ]
    lines = [
        ("State", condition.state),
        ("Revision", _revision(condition)),
        ("Timeout", condition.timeout),
        ("Limits held by", condition.limits),
        ("Restarts", str(condition.restarts)),
        ("Instances", _list(instances)),
    ]
    if condition.message:
        lines.append(("Message", condition.message))
    if condition.code:
        lines.append(("Error", f"function; {condition.code}"))
    if condition.faults:
        lines.append(("Latest faults", "\n".join(map(_fault, condition.faults))))
    if condition.rollback_to:
        lines.append(("Rolls back to", f"revision {condition.rollback_to}, unless this one gets ready in time"))
    if undone := condition.rolled_back:
        lines.append(("Rolled back", f"revision {undone.revision} failed, {undone.to} was put back: {undone.message}"))
    if condition.output:
        lines.append(("Last output", "\n".join(condition.output)))
    return lines


def _fault(fault: Fault) -> str:
    call = f", call {fault.call}" if fault.call else ""
    return f"{fault.at}  {fault.status} {fault.side}; {fault.code}{call}\n  {fault.message}"


def _revision(condition: Condition) -> str:
    if condition.serving in (0, condition.revision):
        return str(condition.revision)
    return f"{condition.revision} (serving {condition.serving})"


def _map(values: Mapping[str, str] | None) -> str:
    return "\n".join(f"{key}: {value}" for key, value in (values or {}).items()) or "<none>"


def _list(values: list[str] | None) -> str:
    return "\n".join(values or ()) or "<none>"


def _resources(resources: Resources | None) -> str:
    import msgspec

    return _map(msgspec.to_builtins(resources) if resources else None)


def _usage(status: FunctionStatus) -> str:
    if status.usage is None:
        return "<none>"
    return f"memory: {status.usage.total_memory_bytes / 1e6:.1f} MB\ncpu: {status.usage.cpu:.0f}m"
