"""Ruby: the handler is served by the template's own runtime; tests are those of Minitest or test-unit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from stoker_builder.languages.base import Inputs, Language
from stoker_builder.languages.tools import give, need, run_as_builder, version
from stoker_builder.templates import Template
from stoker_builder.tree import copy_tree
from stoker_sdk.errors import BadInput

if TYPE_CHECKING:
    from stoker_builder.plan import Plan
    from stoker_builder.workshop import Workshop

_HANDLER = re.compile(r"^\s*class\s+Handler\b|^\s*def\s+handle\b", re.MULTILINE)
_GEM = re.compile(r"^\s*gem\b", re.MULTILINE)
_MOST = 1 << 20


class Ruby(Language):
    """Handlers `class Handler` with `call(event, context)`, or `def handle(event, context)`."""

    tests_named = ("*_test.rb", "test_*.rb")

    def inspect(self, handler: Path, template: Template) -> Inputs:
        need(template.name, ruby="ruby ruby-webrick")
        path = handler / "handler.rb"
        if not path.is_file():
            raise BadInput("handler.rb is missing in the handler folder: it must define class Handler")
        if path.stat().st_size <= _MOST and not _HANDLER.search(path.read_text(errors="replace")):
            raise BadInput("handler.rb must define `class Handler` with `call(event, context)`, or `handle`")
        gemfile = handler / "Gemfile"
        if gemfile.is_file() and _GEM.search(gemfile.read_text(errors="replace")):
            raise BadInput(
                "Gemfile: a local build installs no gems: use those of the machine without a Gemfile "
                "(Debian: apt install ruby-NAME), or build an image"
            )
        return Inputs(version("ruby"))

    def check(self, plan: Plan, workshop: Workshop) -> None:
        checked = workshop.staging / "check"
        checked.mkdir(mode=0o700)
        copy_tree(plan.request.handler, checked)
        give(checked, workshop)
        for path in sorted(checked.glob("*.rb")):
            outcome = run_as_builder(["ruby", "-c", path.name], checked, {}, workshop, quiet=True)
            if outcome.code:
                raise BadInput(next((line for line in outcome.lines if path.name in line), f"{path.name}: no Ruby"))
