"""The templates that a stack names under `configuration.templates`: pulled before a build when they are not here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from stoker_cli.git_templates import Source, parse_source, pull
from stoker_cli.stores import find_store_template, store_templates
from stoker_sdk.errors import BadInput
from stoker_sdk.stack import Stack, TemplateSource

_NAME = re.compile(r"[a-z0-9]([-a-z0-9_.]*[a-z0-9])?(@[A-Za-z0-9][-A-Za-z0-9_.]*)?")


def pull_templates(
    stack: Stack, environment: Mapping[str, str], log: Callable[[str], None], *, overwrite: bool = False
) -> None:
    """Fetch what is missing (with `overwrite`, everything) into `template` beside each stack file."""
    for part in stack.parts or (stack,):
        for template in part.templates:
            if not _NAME.fullmatch(template.name):
                raise BadInput(f"{part.file}: configuration.templates: {template.name[:80]!r} is no template's name")
            folder = part.folder / "template"
            if overwrite or not (folder / template.name).exists():
                source = _source(template, environment)
                written, kept = pull(source, folder, environment, overwrite=overwrite, only=template.name)
                for line in pulled_lines(written, kept, source):
                    log(line)


def pulled_lines(written: list[str], kept: list[str], source: Source) -> Iterator[str]:
    """What a pull did, for the person."""
    if written:
        yield f"template {', '.join(written)}: pulled from {source.shown}"
    if kept:
        yield f"template {', '.join(kept)}: is here already; --overwrite replaces it"


def _source(template: TemplateSource, environment: Mapping[str, str]) -> Source:
    """Its own address, else the store's; the name's `@REF` counts where the address names none."""
    base, _, ref = template.name.partition("@")
    address = template.source or find_store_template(store_templates("", environment), base).repo
    source = parse_source(address)
    return Source(source.url, ref) if ref and not source.ref else source
