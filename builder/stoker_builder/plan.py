"""Stage 2: everything about a build that can be decided by looking, and the digest that names its result."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stoker_builder.build_secrets import environment_of
from stoker_builder.languages import language_of
from stoker_builder.languages.base import Inputs, Language
from stoker_builder.receive import Request
from stoker_builder.templates import Template, find_template, load_template, with_local_steps
from stoker_builder.tree import digest_of, digest_tree
from stoker_sdk.errors import BadInput

_FORMAT = "artefact 2"
"""Part of every digest: raise the number when the same inputs must give another artefact."""


@dataclass(frozen=True)
class Plan:
    """A checked request: its template and language, what to install, and the digests of what will be made.

    `packages` is the language's text of what to install, in one form for all that mean the same.
    """

    request: Request
    template: Template
    language: Language
    packages: str
    environment: str
    digest: str


def make_plan(request: Request) -> Plan:
    """Check the request. Raises `BadInput`, `MissingTool`, and `NotFound` for the template."""
    template = _template(request)
    language = language_of(template)
    found = language.inspect(request.handler, template)
    inputs = replace(found, environment=environment_of(found.environment, request.secrets))
    digest = _digest(request, template, inputs)
    return Plan(request, template, language, inputs.packages, inputs.environment, digest)


def _template(request: Request) -> Template:
    if request.template:
        template = with_local_steps(load_template(request.template, request.template_name))
    else:
        template = find_template(request.template_name)
    if not template.mode:
        raise BadInput(_needs_containers(request.name, template.name))
    return template


def _needs_containers(function: str, template: str) -> str:
    if template == "dockerfile":
        return (
            f"{function}: `lang: dockerfile` is built as an image, which this machine does not run: publish the image "
            "(`stoker publish`) for Kubernetes, or choose a template of `stoker template list`"
        )
    return (
        f"template {template!r} cannot be built without containers: its template.yml has no `stoker:` key with a `mode`"
    )


def _digest(request: Request, template: Template, inputs: Inputs) -> str:
    arguments = [text for pair in sorted(request.build_args.items()) for text in pair]
    parts = [
        _FORMAT,
        inputs.tag,
        request.name,
        template.name,
        *template.steps,
        digest_tree(template.path),
        digest_tree(request.handler),
    ]
    # What secrets have given is nobody else's, wherever it ends up.
    packages = environment_of(inputs.environment or "none", request.secrets) if request.secrets else inputs.environment
    return digest_of([*parts, packages, *arguments])
