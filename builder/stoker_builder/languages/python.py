"""Python: packages with uv for all that want the same, pytest as the test step, byte code at the end."""

from __future__ import annotations

import py_compile
import shlex
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from stoker_builder.child import TimedOut
from stoker_builder.environment import Environment, ensure_environment, environment_digest
from stoker_builder.errors import FailedInstall
from stoker_builder.interpreter import VERSION, Interpreter, interpreter_tag, variables_of_tests
from stoker_builder.languages.base import Inputs, Language
from stoker_builder.languages.tools import as_builder, cache_folder, own_folder
from stoker_builder.requirements import normalise
from stoker_builder.source import TESTS, check_entry, check_syntax
from stoker_builder.templates import Template
from stoker_builder.tree import files_below
from stoker_sdk.errors import BadInput

if TYPE_CHECKING:
    from stoker_builder.child import Program
    from stoker_builder.plan import Plan
    from stoker_builder.workshop import Workshop

_KEPT_LINES = 6
_NOTHING_COLLECTED = 5
"""pytest's exit code for files without a test in them."""

# Copies, not links: a link would share owner and mode with the cache, and with other environments.
_INSTALL = ["pip", "install", "--no-progress", "--color", "never", "--link-mode", "copy"]


class Python(Language):
    """Handlers that the watchdog imports."""

    tests_named = TESTS

    def inspect(self, handler: Path, template: Template) -> Inputs:
        check_syntax(handler)
        check_entry(handler, _module_in_handler(template))
        requirements = normalise(_requirements_text(handler))
        tag = interpreter_tag()
        return Inputs(tag, requirements, environment_digest(requirements, tag))

    def install(self, plan: Plan, workshop: Workshop) -> Environment:
        return ensure_environment(plan.environment, lambda final: _install(plan.packages, final, workshop), workshop)

    def assemble(self, plan: Plan, folder: Path, environment: Environment, workshop: Workshop) -> None:
        super().assemble(plan, folder, environment, workshop)
        (folder / plan.template.handler_folder / "__init__.py").touch()

    def prepare_tests(self, plan: Plan, scratch: Path, environment: Environment, workshop: Workshop) -> dict[str, str]:
        _write_programs(scratch / "bin", workshop.interpreter)
        return _variables(scratch, plan, environment, workshop.interpreter)

    def none_found(self, code: int) -> bool:
        return code == _NOTHING_COLLECTED

    def finish(self, plan: Plan, folder: Path, final: Path) -> None:
        super().finish(plan, folder, final)
        for path in [path for path in files_below(folder) if path.suffix == ".py"]:
            _compile(path, final / path.relative_to(folder))

    def is_test(self, path: Path) -> bool:
        return super().is_test(path) or path.name == "conftest.py"

    def python(self) -> str:
        return VERSION


def _module_in_handler(template: Template) -> str:
    """The handler's module as seen from the handler folder: `handler` for `function.handler`.

    A template may bring the module that the watchdog imports, which then calls `handler`.
    """
    if (template.path / f"{template.handler}.py").is_file():
        return "handler"
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


def _install(requirements: str, final: Path, workshop: Workshop) -> Path:
    listed = workshop.staging / "requirements.txt"
    listed.write_text(requirements)
    listed.chmod(0o644)
    target = own_folder(workshop.staging / "environment", workshop)
    command = [*_INSTALL, "--target", str(target), "-r", str(listed)]
    last: deque[str] = deque(maxlen=_KEPT_LINES)

    def on_line(line: str) -> None:
        last.append(line.strip())
        workshop.log(line)

    try:
        code = workshop.children.run(_uv(command, workshop), on_line)
    except TimedOut as error:
        raise FailedInstall(f"requirements.txt: the install {error}: try again, or pin the versions") from None
    if code:
        raise FailedInstall(f"requirements.txt cannot be installed: {' '.join(filter(None, last))}")
    _compile_all(target, final, workshop)
    return target


def _compile_all(new: Path, final: Path, workshop: Workshop) -> None:
    """Byte-compile for good: nobody can write there later. Files that are no Python of this version are
    left.
    """
    command = [str(workshop.interpreter.python), "-S", "-m", "compileall", "-qq", "-j", "0"]
    command += ["--invalidation-mode", "unchecked-hash", "-s", str(new), "-p", str(final), str(new)]
    workshop.children.run(_program(command, workshop), lambda _line: None)


def _uv(command: list[str], workshop: Workshop) -> Program:
    interpreter = workshop.interpreter
    command = [str(interpreter.uv), *command, "--python", str(interpreter.python)]
    return _program(command, workshop, workshop.secrets)


def _program(command: list[str], workshop: Workshop, secrets: Mapping[str, str] = MappingProxyType({})) -> Program:
    library_path = workshop.interpreter.library_path
    variables = {
        **secrets,
        "UV_CACHE_DIR": str(cache_folder("uv", workshop)),
        "UV_PYTHON_DOWNLOADS": "never",
        **({"LD_LIBRARY_PATH": library_path} if library_path else {}),
    }
    return as_builder(command, workshop.config.data.builds, variables, workshop)


def _write_programs(folder: Path, interpreter: Interpreter) -> None:
    """`python` and `pytest` as a test command names them; -S keeps the interpreter's own site-packages
    out.
    """
    folder.mkdir()
    start = f'#!/bin/sh\nexec {shlex.quote(str(interpreter.python))} -S {{}}"$@"\n'
    for name, arguments in (("python", ""), ("python3", ""), ("pytest", "-m pytest ")):
        program = folder / name
        program.write_text(start.format(arguments))
        program.chmod(0o755)


def _variables(scratch: Path, plan: Plan, environment: Environment, interpreter: Interpreter) -> dict[str, str]:
    function = scratch / "function"
    path = [function, function / plan.template.handler_folder, environment.path, interpreter.test_tools]
    return variables_of_tests([entry for entry in path if entry], interpreter)


def _compile(path: Path, final: Path) -> None:
    py_compile.compile(
        str(path),
        dfile=str(final),
        doraise=True,
        quiet=2,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
