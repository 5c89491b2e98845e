"""Writing stack files: the first one of a project, and one more function in it.

A function is added as text, because reading and dumping YAML would lose the user's comments and layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from stoker_sdk.document import compose
from stoker_sdk.errors import BadInput, Conflict
from stoker_sdk.gateway_address import DEFAULT_GATEWAY


@dataclass(frozen=True)
class NewFunction:
    """What is written for a function that is started. `handler` is its folder; resources may be empty."""

    name: str
    lang: str
    image: str
    handler: str = ""
    limits: Mapping[str, str] = field(default_factory=dict)
    requests: Mapping[str, str] = field(default_factory=dict)


def function_lines(function: NewFunction, indent: str = "  ") -> list[str]:
    """The lines of one entry under `functions`, its key indented by `indent`."""
    lines = [
        f"{function.name}:",
        f"  lang: {function.lang}",
        f"  handler: ./{function.handler or function.name}",
        f"  image: {function.image}",
    ]
    for key, quantities in (("limits", function.limits), ("requests", function.requests)):
        present = {name: text for name, text in quantities.items() if text}
        lines += [f"  {key}:"] if present else []
        lines += [f"    {name}: {text}" for name, text in present.items()]
    return [indent + line for line in lines]


def new_stack_text(function: NewFunction, gateway: str = "") -> str:
    """A stack file with one function."""
    head = [
        "version: 1.0",
        "provider:",
        "  name: openfaas",
        f"  gateway: {gateway or DEFAULT_GATEWAY}",
        "functions:",
    ]
    return "\n".join([*head, *function_lines(function)]) + "\n"


def appended_stack_text(text: str, file: str, function: NewFunction) -> str:
    """The text with one more function at the end of `functions`; nothing else in it changes.

    Raises `Conflict` when the function is there already, `BadInput` when the file cannot be added to.
    """
    root = compose(text, file)
    functions = root.entries().get("functions") if root else None
    if functions is None:
        raise BadInput(f"{file}: has no `functions` to add to")
    if function.name in functions.entries():
        raise Conflict(f"{file}: has a function {function.name!r} already: choose another name")
    lines = text.splitlines()
    if functions.is_empty:
        at, indent = functions.place.line + 1, "  "
    elif isinstance(functions.node, yaml.MappingNode) and not functions.node.flow_style:
        at, indent = _last_line(functions.node) + 1, " " * functions.node.value[0][0].start_mark.column
    else:
        raise functions.error("is written in braces: add the function by hand, or write it as a block")
    return "\n".join([*lines[:at], *function_lines(function, indent), *lines[at:]]) + "\n"


def _last_line(node: yaml.Node) -> int:
    """The last line with content of a node: a block's own end mark lies behind the comments after it."""
    if isinstance(node, yaml.MappingNode) and node.value and not node.flow_style:
        return _last_line(node.value[-1][1])
    if isinstance(node, yaml.SequenceNode) and node.value and not node.flow_style:
        return _last_line(node.value[-1])
    mark = node.end_mark
    # A block scalar (`|`) ends at the beginning of the line after it, everything else within its line.
    return int(mark.line - 1 if mark.column == 0 and mark.line > node.start_mark.line else mark.line)
