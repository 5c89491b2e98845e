"""Anything that is started by a command: the files are copied as they are; shell scripts are checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stoker_builder.languages.base import Inputs, Language
from stoker_builder.languages.tools import give, need, run_as_builder
from stoker_builder.templates import Template
from stoker_sdk.errors import BadInput

if TYPE_CHECKING:
    from stoker_builder.plan import Plan
    from stoker_builder.workshop import Workshop

_MOST_CHECKED = 50


class Script(Language):
    """A program of the machine, or of the handler's folder, which `fprocess` names."""

    tests_named = ("*_test.sh",)

    def inspect(self, handler: Path, template: Template) -> Inputs:
        program, *arguments = template.fprocess.split()
        if "/" not in program:
            need(template.name, **{program: program})
        for word in (program, *arguments):
            name = word.removeprefix("./")
            if name.startswith(f"{template.handler_folder}/"):
                inside = name.partition("/")[2]
                if not (handler / inside).is_file():
                    raise BadInput(f"{inside} is missing in the handler folder: fprocess is {template.fprocess!r}")
        return Inputs("program 1")

    def check(self, plan: Plan, workshop: Workshop) -> None:
        scripts = sorted(plan.request.handler.glob("*.sh"))[:_MOST_CHECKED]
        checked = workshop.staging / "check"
        checked.mkdir(mode=0o700)
        for path in scripts:
            (checked / path.name).write_bytes(path.read_bytes())
        give(checked, workshop)
        for path in scripts:
            outcome = run_as_builder(["bash", "-n", path.name], checked, {}, workshop, quiet=True)
            if outcome.code:
                raise BadInput(" ".join(outcome.lines[:1]) or f"{path.name} is no script that bash can read")
