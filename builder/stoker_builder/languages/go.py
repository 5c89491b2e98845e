"""Go: a static program from the template's runtime and the handler's package; gofmt, `go vet`, `go test` are the gate.

Everything is compiled by the id that installs, whose cache all builds share; the tests are compiled there too, and run
as the test step's own id, so that no test can write into that cache. The artefact holds the program and the handler's
data files, no source.

Modules are fetched in a step of their own, the only one that has build secrets: `go.env` in the handler's folder says
from where, as `GOPROXY=https://build:${INDEX_TOKEN}@proxy.example.org`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from stoker_builder.child import TimedOut
from stoker_builder.environment import NO_ENVIRONMENT, Environment
from stoker_builder.errors import FailedInstall
from stoker_builder.languages.base import Inputs, Language, TestStep, copy_template
from stoker_builder.languages.tools import Outcome, cache_folder, give, need, own_folder, run_as_builder, version
from stoker_builder.staging import sealed
from stoker_builder.templates import Template
from stoker_builder.tree import copy_tree, files_below
from stoker_sdk.errors import BadInput

if TYPE_CHECKING:
    from stoker_builder.plan import Plan
    from stoker_builder.workshop import Workshop

_PROGRAM = "handler"
_TESTS = "tests"
_RUN_TESTS = "go-test"
_HANDLE = re.compile(r"^func\s+Handle\s*\(", re.MULTILINE)
_PACKAGE = re.compile(r"^package\s+(\w+)", re.MULTILINE)
_MODULE = re.compile(r"^module\s+(\S+).*$", re.MULTILINE)
_WITH_TESTS = "{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}}{{end}}"
_REQUIRE = re.compile(r"^\s*require\b", re.MULTILINE)
_SETTINGS = "go.env"
_HONOURED = ("GOPROXY", "GOPRIVATE", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "GOINSECURE")
_SECRET = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
_SOURCE = {".go", ".mod", ".sum", ".work"}
_MOST = 1 << 20


class Go(Language):
    """Handlers `func Handle(w http.ResponseWriter, r *http.Request)` in a package `function`."""

    tests_named = ("*_test.go",)

    def inspect(self, handler: Path, template: Template) -> Inputs:
        need(template.name, go="golang-go", gofmt="golang-go")
        sources = [path for path in handler.glob("*.go") if not path.name.endswith("_test.go")]
        texts = [path.read_text(errors="replace") for path in sources if path.stat().st_size <= _MOST]
        if not any(_HANDLE.search(text) for text in texts):
            raise BadInput(
                "handler.go must define func Handle(w http.ResponseWriter, r *http.Request) in package function"
            )
        packages = {found[1] for text in texts if (found := _PACKAGE.search(text))}
        if packages - {"function"}:
            raise BadInput(f"the handler's package is {', '.join(sorted(packages))}: call it `function`")
        _check_module(handler)
        return Inputs(version("go", "version"))

    def check(self, plan: Plan, workshop: Workshop) -> None:
        folder = workshop.staging / "go" / plan.template.handler_folder
        _lay_out(plan, workshop)
        outcome = _go(["gofmt", "-l", "-e", "."], folder, workshop, quiet=True)
        if outcome.code:
            raise BadInput(_first_error(outcome) or "the handler is not Go that can be read")
        listed = [name for name in outcome.lines if not name.startswith("vendor/")]
        if listed:
            raise BadInput(f"gofmt: {', '.join(listed)}: not formatted; run `gofmt -w .` in the handler folder")

    def install(self, plan: Plan, workshop: Workshop) -> Environment:
        source = workshop.staging / "go"
        if _fetches(plan):
            settings = _settings(plan.request.handler, workshop.secrets)
            outcome = _go(["go", "mod", "download"], source, workshop, settings=settings)
            if outcome.code:
                raise FailedInstall(f"go.mod: its modules cannot be fetched: {_first_error(outcome)}")
        return NO_ENVIRONMENT

    def assemble(self, plan: Plan, folder: Path, environment: Environment, workshop: Workshop) -> None:
        source = workshop.staging / "go"
        for command in (
            ["go", "generate", "."],
            ["go", "vet", f"./{plan.template.handler_folder}/..."],
            ["go", "build", "-ldflags=-s -w", "-o", _PROGRAM, "."],
        ):
            outcome = _go(command, source, workshop)
            if outcome.code:
                raise BadInput(f"`{' '.join(command[:2])}` failed: {_first_error(outcome)}")
        folder.mkdir(mode=0o700)
        (folder / _PROGRAM).write_bytes(sealed(source / _PROGRAM, workshop.staging).read_bytes())
        (folder / _PROGRAM).chmod(0o755)
        _copy_data(plan.request.handler, folder / plan.template.handler_folder)

    def test_step(self, plan: Plan, folder: Path) -> TestStep:
        if not any(self.is_test(path) for path in files_below(plan.request.handler)):
            return TestStep(reason="there are none (*_test.go)")
        return TestStep(("/bin/sh", f"../../{_RUN_TESTS}"))

    def prepare_tests(self, plan: Plan, scratch: Path, environment: Environment, workshop: Workshop) -> dict[str, str]:
        """The sources as they were compiled, for tests that read files beside them, and the compiled tests."""
        source, name = workshop.staging / "go", plan.template.handler_folder
        script = ["#!/bin/sh", "set -e"]
        for number, package in enumerate(_packages_with_tests(source, name, workshop)):
            program = scratch / _TESTS / str(number)
            _compile_tests(package, source, program, workshop)
            place = scratch / "function" / package
            script.append(f"cd {shlex.quote(str(place))} && {shlex.quote(str(program))} -test.timeout=0")
        copy_tree(sealed(source, workshop.staging), scratch / "function")
        (scratch / _RUN_TESTS).write_text("\n".join(script) + "\n")
        (scratch / _RUN_TESTS).chmod(0o755)
        return {"CGO_ENABLED": "0", "GOFLAGS": "-trimpath", "GOTOOLCHAIN": "local"}


def _lay_out(plan: Plan, workshop: Workshop) -> None:
    """The template's module with the handler as its package `function`.

    The handler's own go.mod, where it has one, becomes the module's: its requirements count, with its vendor folder.
    """
    source = workshop.staging / "go"
    source.mkdir(mode=0o700)
    copy_template(plan, source)
    package = source / plan.template.handler_folder
    copy_tree(plan.request.handler, package)
    if (package / "go.mod").is_file():
        text = (package / "go.mod").read_text(errors="replace")
        (source / "go.mod").write_text(_MODULE.sub("module handler", text, count=1))
        for name in ("go.sum", "vendor"):
            if (package / name).exists():
                (package / name).rename(source / name)
        (package / "go.mod").unlink()
    give(source, workshop)


def _fetches(plan: Plan) -> bool:
    """Whether there are modules that nobody has put into a vendor folder."""
    handler = plan.request.handler
    module = handler if (handler / "go.mod").is_file() else plan.template.path
    text = (module / "go.mod").read_text(errors="replace")
    return bool(_REQUIRE.search(text)) and not (module / "vendor").exists()


def _check_module(handler: Path) -> None:
    path = handler / "go.mod"
    if not path.is_file():
        return
    if path.stat().st_size > _MOST:
        raise BadInput("go.mod is larger than 1 MiB, which no list of modules is")
    text = path.read_text(errors="replace")
    found = _MODULE.search(text)
    if found is None or found[1].strip('"') != "handler/function":
        raise BadInput("go.mod: the handler's module must be called handler/function")
    if re.search(r"=>\s*[./~]", text):
        raise BadInput("go.mod: `replace` with a local path leads out of the handler folder: use vendor/ instead")


def _settings(handler: Path, secrets: Mapping[str, str]) -> dict[str, str]:
    """Of `go.env`: where modules come from, with build secrets in place of `${NAME}`. Raises `BadInput`."""
    path = handler / _SETTINGS
    text = path.read_text(errors="replace") if path.is_file() and path.stat().st_size <= _MOST else ""
    settings = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = line.strip().partition("=")
        if not name or name.startswith("#"):
            continue
        if name not in _HONOURED or not equals:
            raise BadInput(f"{_SETTINGS}:{number}: write NAME=VALUE, where NAME is one of {', '.join(_HONOURED)}")
        settings[name] = _SECRET.sub(lambda found: secrets.get(found[1], found[0]), value)
    return settings


def _go(
    command: list[str],
    folder: Path,
    workshop: Workshop,
    *,
    quiet: bool = False,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Outcome:
    variables = {
        **settings,
        "CGO_ENABLED": "0",
        "GOCACHE": str(cache_folder("go-build", workshop)),
        "GOPATH": str(cache_folder("go", workshop)),
        "GOTOOLCHAIN": "local",
        "GO111MODULE": "on",
        "GOFLAGS": "-trimpath",  # each build has a folder of its own, which no cache key may depend on
    }
    try:
        return run_as_builder(command, folder, variables, workshop, quiet=quiet)
    except TimedOut as error:
        raise BadInput(
            f"`{' '.join(command[:2])}` {error}: vendor the modules, or raise STOKER_INSTALL_TIMEOUT"
        ) from None


def _packages_with_tests(source: Path, name: str, workshop: Workshop) -> list[str]:
    """Their folders below the source."""
    outcome = _go(["go", "list", "-f", _WITH_TESTS, f"./{name}/..."], source, workshop, quiet=True)
    if outcome.code:
        raise BadInput(f"`go list` failed: {_first_error(outcome)}")
    return [str(Path(line).relative_to(source.resolve())) for line in outcome.lines if line.strip()]


def _compile_tests(package: str, source: Path, program: Path, workshop: Workshop) -> None:
    compiled = own_folder(workshop.staging / "compiled-tests", workshop) / program.name
    outcome = _go(["go", "test", "-c", "-o", str(compiled), f"./{package}"], source, workshop)
    if outcome.code:
        raise BadInput(f"`go test` failed: {_first_error(outcome)}")
    program.parent.mkdir(exist_ok=True)
    program.write_bytes(sealed(compiled, workshop.staging).read_bytes())
    program.chmod(0o755)


def _first_error(outcome: Outcome) -> str:
    """The lines that say what is wrong, the first of them being most."""
    if outcome.code < 0:
        return f"it was killed by signal {-outcome.code}"
    lines = [line.strip() for line in outcome.lines if line.strip() and not line.startswith(("#", "exit status"))]
    return "; ".join(lines[:3])[:1000]


def _copy_data(handler: Path, folder: Path) -> None:
    """What a program may read while it runs: every file that is not source."""
    copy_tree(handler, folder)
    for path in list(files_below(folder)):
        if path.suffix in _SOURCE or path.name == _SETTINGS or "vendor" in path.relative_to(folder).parts:
            path.unlink()
    folder.mkdir(exist_ok=True)
