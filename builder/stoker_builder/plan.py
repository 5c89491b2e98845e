"""Stage 2: everything about a build that can be decided by looking, and the digest that names its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stoker_builder.environment import environment_digest
from stoker_builder.interpreter import VERSION
from stoker_builder.receive import Request
from stoker_builder.requirements import normalise
from stoker_builder.source import check_entry, check_syntax
from stoker_builder.templates import Template, find_template, load_template
from stoker_builder.tree import digest_of, digest_tree
from stoker_sdk.errors import BadInput

_FORMAT = "artefact 1"
"""Part of every digest: raise the number when the same inputs must give another artefact."""


@dataclass(frozen=True)
class Plan:
    """A checked request: its template, its normalised requirements, and the digests of what will be made."""

    request: Request
    template: Template
    requirements: str
    environment: str
    digest: str
    python: str


def make_plan(request: Request, tag: str) -> Plan:
    """Check the request; `tag` says what the interpreter is. Raises `BadInput`, `NotFound` for the
    template.
    """
    template = _template(request)
    check_syntax(request.handler)
    check_entry(request.handler, _module_in_handler(template))
    requirements = normalise(_requirements_text(request.handler))
    environment = environment_digest(requirements, tag)
    return Plan(request, template, requirements, environment, _digest(request, template, environment, tag), VERSION)


def _template(request: Request) -> Template:
    if request.lang.lower() == "dockerfile":
        raise BadInput(f"{request.name}: `lang: dockerfile` builds an image: local builds need a Python template")
    if request.template:
        template = load_template(request.template, request.template_name)
    else:
        template = find_template(request.template_name)
    if template.mode != "python":
        raise BadInput(
            f"template {template.name!r} cannot be built without containers: "
            "its template.yml has no `stoker:` key with `mode: python`"
        )
    return template


def _module_in_handler(template: Template) -> str:
    """The handler's module as seen from the handler folder: `handler` for `function.handler`."""
    package, _, module = template.handler.partition(".")
    if package != template.handler_folder or not module:
        raise BadInput(
            f"template {template.name!r}: stoker.handler is {template.handler!r}, "
            f"and must begin with the handler folder: {template.handler_folder}.handler"
        )
    return module


def _requirements_text(handler: Path) -> str:
    path = handler / "requirements.txt"
    try:
        return path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    except UnicodeDecodeError:
        raise BadInput("requirements.txt is not UTF-8 text: save it as such") from None


def _digest(request: Request, template: Template, environment: str, tag: str) -> str:
    arguments = [text for pair in sorted(request.build_args.items()) for text in pair]
    parts = [
        _FORMAT,
        tag,
        request.name,
        template.name,
        digest_tree(template.path),
        digest_tree(request.handler),
    ]
    return digest_of([*parts, environment, *arguments])
