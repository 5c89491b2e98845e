"""The interface of a language: the steps of a build that it does in its own way.

A build goes through them in this order: `inspect` (looks only, writes nothing, decides the digest), `check` (may run
the language's own checker), `install` (the packages, once for all that ask for the same), `assemble` (fills the folder
that will run), `prepare_tests` and the test step, `finish`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stoker_builder.environment import NO_ENVIRONMENT, Environment
from stoker_builder.templates import Template
from stoker_builder.tree import copy_tree, files_below

if TYPE_CHECKING:
    from stoker_builder.plan import Plan
    from stoker_builder.workshop import Workshop

_NOT_OF_THE_FUNCTION = {"Dockerfile", "README.md", "template.yml", "meta.json", ".dockerignore"}


@dataclass(frozen=True)
class Inputs:
    """What looking at a handler folder has told.

    `tag` is what the result depends on beside the files: the tools with their versions. `packages` is the text that
    says what to install, in one form for all that mean the same; `environment` the digest of what it gives, or empty.
    """

    tag: str
    packages: str = ""
    environment: str = ""


@dataclass(frozen=True)
class TestStep:
    """What the test step runs, in the handler's folder; where there is no `command`, `reason` says why."""

    __test__ = False  # pytest takes the name for a test's

    command: tuple[str, ...] = ()
    reason: str = ""


class Language(ABC):
    """One language. Everything that runs strangers' code goes through `workshop.children`."""

    tests_named: tuple[str, ...] = ()
    """Patterns of the names of test files, which are not part of what is deployed."""

    @abstractmethod
    def inspect(self, handler: Path, template: Template) -> Inputs:
        """Look at the handler folder. Raises `BadInput` for what cannot be built, `MissingTool`."""

    def check(self, plan: Plan, workshop: Workshop) -> None:
        """Run the language's own checker over the handler. Raises `BadInput` with file and line."""
        del plan, workshop

    def install(self, plan: Plan, workshop: Workshop) -> Environment:
        """The packages, installed now if they are not there yet. Raises `FailedInstall`."""
        del plan, workshop
        return NO_ENVIRONMENT

    def assemble(self, plan: Plan, folder: Path, environment: Environment, workshop: Workshop) -> None:
        """Fill the new `folder`, that nobody else may enter yet, with the function as it will run, tests included."""
        del environment, workshop
        folder.mkdir(mode=0o700)
        copy_template(plan, folder)
        copy_tree(plan.request.handler, folder / plan.template.handler_folder)

    def test_step(self, plan: Plan, folder: Path) -> TestStep:
        """What tests the assembled function; by default the template's command, if there are test files."""
        if not plan.template.test:
            return TestStep(reason=f"template {plan.template.name} has no test step")
        if not any(self.is_test(path) for path in files_below(folder / plan.template.handler_folder)):
            return TestStep(reason=f"there are none ({', '.join(self.tests_named)})")
        return TestStep(plan.template.test)

    def prepare_tests(self, plan: Plan, scratch: Path, environment: Environment, workshop: Workshop) -> dict[str, str]:
        """Put what the tests need beside `scratch/function`, a copy of the assembled folder; the variables they get."""
        del plan, scratch, environment, workshop
        return {}

    def none_found(self, code: int) -> bool:
        """Whether the exit code of the test step says that there were no tests."""
        del code
        return False

    def finish(self, plan: Plan, folder: Path, final: Path) -> None:
        """The tests have passed: take out what does not run. `final` is the place where the folder will lie."""
        del final
        for path in list(files_below(folder / plan.template.handler_folder)):
            if self.is_test(path):
                path.unlink()

    def python(self) -> str:
        """The version of Python that the function needs; empty for other languages."""
        return ""

    def is_test(self, path: Path) -> bool:
        return any(path.match(pattern) for pattern in self.tests_named)


def copy_template(plan: Plan, folder: Path) -> None:
    """What a template brings beside its starter: the runtime, modules that its functions share."""
    for path in plan.template.path.iterdir():
        if path.name in _NOT_OF_THE_FUNCTION or path.name in ("function", plan.template.handler_folder):
            continue
        if path.is_dir() and not path.is_symlink():
            copy_tree(path, folder / path.name)
        elif path.is_file() and not path.is_symlink():
            (folder / path.name).write_bytes(path.read_bytes())
