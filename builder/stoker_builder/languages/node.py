"""Node: packages with npm for all that want the same, `npm test` as the test step.

The packages lie in an environment, and the artefact links to them (`node_modules` beside the handler's folder), where
both `require` and `import` look.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stoker_builder.child import TimedOut
from stoker_builder.environment import Environment, ensure_environment
from stoker_builder.errors import FailedInstall
from stoker_builder.languages.base import Inputs, Language, TestStep
from stoker_builder.languages.tools import cache_folder, give, need, run_as_builder, version
from stoker_builder.templates import Template
from stoker_builder.tree import digest_of
from stoker_sdk.errors import BadInput

if TYPE_CHECKING:
    from stoker_builder.plan import Plan
    from stoker_builder.workshop import Workshop

_MODULES = "node_modules"
_LOCKS = ("npm-shrinkwrap.json", "package-lock.json")
_ENTRIES = ("handler.js", "handler.mjs", "handler.cjs")
_KINDS = ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies")
_KEPT = (*_KINDS, "name", "version", "overrides", "engines")
"""Of package.json, what an install needs; its scripts belong to the handler's folder, which is not there."""

_MAX_BYTES = 8 << 20
_LOCAL = re.compile(r"(file|link|portal|workspace):|[.~/]|[A-Za-z]:[\\/]")
_NO_TEST = re.compile(r'echo\s+\\?"Error: no test specified')
_MOST_CHECKED = 30
_HOST = re.compile(r"^\s*(?:[^#;=]*registry\s*=\s*\w+:)?//(?:[^/@]*@)?([^/\s:]+(?::\d+)?)", re.MULTILINE)


class Node(Language):
    """Handlers for Node, served by the template's own runtime."""

    tests_named = ("*.test.js", "*.test.mjs", "*.test.cjs", "*_test.js", "*_test.mjs", "*_test.cjs")

    def inspect(self, handler: Path, template: Template) -> Inputs:
        need(template.name, node="nodejs")
        if not any((handler / name).is_file() for name in _ENTRIES):
            raise BadInput("handler.js is missing in the handler folder: it must export a function (event, context)")
        tag = f"node {version('node')} {platform.machine()}"
        packages = _packages(handler)
        if packages:
            need(template.name, npm="npm")
        environment = digest_of(["node environment 1", tag, packages]) if packages else ""
        return Inputs(tag, packages, environment)

    def check(self, plan: Plan, workshop: Workshop) -> None:
        handler = plan.request.handler
        files = sorted(path for path in handler.iterdir() if path.suffix in (".js", ".mjs", ".cjs"))
        checked = workshop.staging / "check"
        checked.mkdir(mode=0o700)
        for path in [*files[:_MOST_CHECKED], handler / "package.json"]:
            if path.is_file():
                (checked / path.name).write_bytes(path.read_bytes())
        give(checked, workshop)
        for path in files[:_MOST_CHECKED]:
            outcome = run_as_builder(["node", "--check", path.name], checked, {}, workshop, quiet=True)
            if outcome.code:
                raise BadInput(_syntax_error(path.name, outcome.lines))

    def install(self, plan: Plan, workshop: Workshop) -> Environment:
        return ensure_environment(plan.environment, lambda _final: _install(plan.packages, workshop), workshop)

    def assemble(self, plan: Plan, folder: Path, environment: Environment, workshop: Workshop) -> None:
        super().assemble(plan, folder, environment, workshop)
        (folder / plan.template.handler_folder / ".npmrc").unlink(missing_ok=True)  # it may hold a token

    def test_step(self, plan: Plan, folder: Path) -> TestStep:
        scripts = _read_object(folder / plan.template.handler_folder / "package.json").get("scripts")
        script = scripts.get("test") if isinstance(scripts, Mapping) else None
        if not isinstance(script, str) or not script.strip() or _NO_TEST.search(script):
            return TestStep(reason="package.json has no script `test`")
        need(plan.template.name, npm="npm")
        return TestStep(("npm", "test", "--silent"))

    def prepare_tests(self, plan: Plan, scratch: Path, environment: Environment, workshop: Workshop) -> dict[str, str]:
        if environment.path is not None:
            (scratch / "function" / _MODULES).symlink_to(environment.path / _MODULES)
        return {"npm_config_update_notifier": "false", "NO_COLOR": "1", "CI": "1"}

    def finish(self, plan: Plan, folder: Path, final: Path) -> None:
        super().finish(plan, folder, final)
        if plan.environment:
            # Relative, so that a data folder can be moved.
            packages = final.parent.parent / "environments" / plan.environment / _MODULES
            (folder / _MODULES).symlink_to(os.path.relpath(packages, final))


def _packages(handler: Path) -> str:
    """What is to be installed, as JSON: the part of package.json that counts, the lock file, .npmrc; empty for none."""
    package = _read_object(handler / "package.json")
    wanted = {key: package[key] for key in _KEPT if package.get(key)}
    if not any(wanted.get(kind) for kind in _KINDS):
        return ""
    for kind in _KINDS:
        _check_dependencies(kind, wanted.get(kind, {}))
    lock = next((_read_object(handler / name) for name in _LOCKS if (handler / name).is_file()), None)
    if lock is not None:
        _check_lock(lock)
    npmrc = handler / ".npmrc"
    text = npmrc.read_text(errors="replace") if npmrc.is_file() and npmrc.stat().st_size < 65536 else ""
    return json.dumps({"package": wanted, "lock": lock, "npmrc": text}, sort_keys=True)


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the handler; an empty one where there is no file."""
    if not path.is_file():
        return {}
    if path.stat().st_size > _MAX_BYTES:
        raise BadInput(f"{path.name} is larger than {_MAX_BYTES >> 20} MiB, which no list of packages is")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path.name} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path.name} must be a JSON object")
    return content


def _check_dependencies(kind: str, packages: object) -> None:
    if not isinstance(packages, dict):
        raise BadInput(f"package.json: {kind} must be an object of names and versions")
    for name, wanted in packages.items():
        if not isinstance(wanted, str):
            raise BadInput(f"package.json: the version of {name[:80]!r} in {kind} must be text")
        if _LOCAL.match(wanted.strip()):
            raise BadInput(
                f"package.json: {name[:80]!r} is a local path ({wanted[:80]!r}), which a build cannot reach: "
                "name a version, or put the code into the handler folder"
            )


def _check_lock(lock: Mapping[str, Any]) -> None:
    packages = lock.get("packages")
    if not isinstance(packages, dict):
        raise BadInput("package-lock.json is of an old kind, without `packages`: write it anew with `npm install`")
    for path, package in packages.items():
        local = isinstance(package, dict) and (package.get("link") or _is_local(package.get("resolved")))
        if local or not isinstance(package, dict) or ".." in Path(path).parts or path.startswith("/"):
            raise BadInput(f"package-lock.json: {path[:100]!r} leads out of the packages: write the file anew")


def _is_local(resolved: object) -> bool:
    return isinstance(resolved, str) and bool(_LOCAL.match(resolved))


def _install(packages: str, workshop: Workshop) -> Path:
    wanted = json.loads(packages)
    target = workshop.staging / "environment"
    target.mkdir(mode=0o700)
    (target / "package.json").write_text(json.dumps({"private": True, **wanted["package"]}))
    if wanted["npmrc"]:
        (target / ".npmrc").write_text(wanted["npmrc"])
    command = ["npm", "install", "--no-package-lock"]
    if wanted["lock"] is not None:
        (target / "package-lock.json").write_text(json.dumps(wanted["lock"]))
        command = ["npm", "ci"]
    give(target, workshop)
    _run_npm([*command, "--no-audit", "--no-fund", "--include=dev"], target, _registries(wanted["npmrc"]), workshop)
    (target / ".npmrc").unlink(missing_ok=True)
    (target / _MODULES).mkdir(exist_ok=True)
    return target


def _registries(npmrc: str) -> str:
    """The hosts that .npmrc names, which npm does not tell with a refusal."""
    return ", ".join(dict.fromkeys(_HOST.findall(npmrc))) or "the registry of npm"


def _run_npm(command: list[str], target: Path, registries: str, workshop: Workshop) -> None:
    variables = {
        **workshop.secrets,
        "npm_config_cache": str(cache_folder("npm", workshop)),
        "npm_config_update_notifier": "false",
        "npm_config_progress": "false",
        "NO_COLOR": "1",
    }
    try:
        outcome = run_as_builder(command, target, variables, workshop)
    except TimedOut as error:
        raise FailedInstall(f"package.json: the install {error}: try again, or add a package-lock.json") from None
    if outcome.code:
        raise FailedInstall(_install_error(outcome.lines, registries))


def _install_error(lines: tuple[str, ...], registries: str) -> str:
    told = [line.removeprefix("npm error ").removeprefix("npm ERR! ").strip() for line in lines]
    if any("are in sync" in line for line in told):
        return "package-lock.json does not fit package.json: run `npm install` in the handler folder, and build again"
    if any(line in ("code E401", "code E403") for line in told):
        return f"package.json cannot be installed: {registries} does not take the credentials: look at .npmrc"
    kept = [line for line in told if line and "complete log" not in line and "_logs" not in line]
    return f"package.json cannot be installed: {' '.join(kept)[:1000]}"


def _syntax_error(name: str, lines: tuple[str, ...]) -> str:
    """`handler.js:3: SyntaxError: Unexpected token` from what `node --check` printed."""
    place = next((line for line in lines if re.search(rf"{re.escape(name)}:\d+$", line)), name)
    reason = next((line for line in lines if re.match(r"\w*Error\b", line)), "it cannot be read")
    hint = '; name it handler.mjs, or write `"type": "module"` in package.json' if "import statement" in reason else ""
    return f"{name}{place[place.rfind(':') :] if ':' in place else ''}: {reason}{hint}"
