"""Keeps the private platform in line with the project: builds, deploys and removes as files change."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from stoker_builder.images.builder import Order
from stoker_builder.images.local import LocalBuilder
from stoker_builder.request import build_request
from stoker_cli.development.debugging import Debugger
from stoker_cli.development.following import Followers
from stoker_cli.development.project import Project, load_project, stack_files
from stoker_cli.development.secrets import LocalSecrets
from stoker_cli.development.terminal import Quiet, Terminal
from stoker_cli.development.watching import Watching
from stoker_sdk.client import ControlClient
from stoker_sdk.deployment import Overrides, function_spec
from stoker_sdk.errors import BadInput, NotFound, StokerError
from stoker_sdk.function import FunctionSpec
from stoker_sdk.gateway_address import function_url
from stoker_sdk.names import FunctionKey
from stoker_sdk.rollout import Mode, deploy, wait_until_ready
from stoker_sdk.stack import StackFunction

_PATIENCE = 90.0
_NO_TESTS = {"TEST_ENABLED": "false"}
_ONE_REPLICA = ("com.openfaas.scale.min", "com.openfaas.scale.max")


@dataclass(frozen=True)
class Settings:
    """How functions are run while developing. Without followers, a failed start's output is shown once, at its end."""

    names: tuple[str, ...]
    tests: bool
    environment: Mapping[str, str]
    debugger: Debugger | None = None


class Session:
    """One stack file and the functions of it that run. Nothing it meets in the project ends it."""

    def __init__(
        self,
        project: Project,
        client: ControlClient,
        settings: Settings,
        terminal: Terminal,
        watching: Watching,
        followers: Followers | None,
    ) -> None:
        self._project = project
        self._client = client
        self._settings = settings
        self._terminal = terminal
        self._watching = watching
        self._followers = followers
        self._secrets = LocalSecrets(client, project.folder)
        self._deployed: dict[str, FunctionKey] = {}
        self._serving: dict[str, int] = {}
        """The revision that got ready last."""
        self._broken: set[str] = set()

    def begin(self) -> None:
        """Watch, and bring every function up."""
        self._warn()
        self._watching.use(self._project.places())
        for function in self._project.functions.values():
            self._bring_up(function)

    def take_over(self, changed: set[Path]) -> None:
        """Do what these changed paths ask for."""
        project = self._project
        if project.concerns_stack(changed):
            self._reload()
        if project.was_replaced(changed):
            self._watching.use(self._project.places(), anew=True)
        for function in self._project.concerned(changed):
            self._bring_up(function)

    def _reload(self) -> None:
        """The stack file, or one that it names, has changed."""
        before, settings = self._project, self._settings
        try:
            self._project = load_project(before.file, settings.names, settings.environment)
        except StokerError as error:
            self._terminal.bad(before.file.name, f"{error}\nthe stack before it stays in force")
            # An environment file that it names now, and that is not there yet, is worth waiting for.
            files = before.files | stack_files(before.file, settings.environment)
            self._project = replace(before, files=files)
            self._watching.use(self._project.places())
            return
        self._warn()
        self._watching.use(self._project.places())
        for name in set(before.functions) - set(self._project.functions):
            self._remove(name)
        for name, function in self._project.functions.items():
            same = function == before.functions.get(name) and self._project.stack.copy == before.stack.copy
            if not same or name in self._broken:
                self._bring_up(function)

    def _warn(self) -> None:
        for warning in self._project.stack.warnings:
            self._terminal.say(f"warning: {warning}")

    def _bring_up(self, function: StackFunction) -> None:
        """Build, deploy, wait. What goes wrong is told, and the code before it goes on serving."""
        name, began = function.name, time.monotonic()
        self._terminal.folders[name] = str(Path(function.handler))
        progress = Quiet(lambda line: self._terminal.note(name, line))
        try:
            spec = self._spec(function, progress)
            self._leave_namespace(name, spec.key)
            revision = deploy(self._client, spec, Mode.UPDATE)
            self._deployed[name] = spec.key
            if self._followers:
                self._followers.follow(spec.key)
                progress = Quiet(lambda _line: None)  # what a failed start printed is in the log, which is shown
            wait_until_ready(self._client, spec, revision, _PATIENCE, progress)
        except StokerError as error:
            progress.show()
            self._failed(function, str(error))
            return
        self._succeeded(name, spec, revision, (time.monotonic() - began) * 1000)

    def _spec(self, function: StackFunction, progress: Quiet) -> FunctionSpec:
        if not function.is_built_here:
            raise BadInput(
                "left out: `dev` runs what it can build, and this has no `lang` and `handler` (or skip_build)"
            )
        self._make_namespace(function.namespace)
        self._secrets.give(function)
        arguments = {} if self._settings.tests else _NO_TESTS
        progress.step("building")
        order = Order(build_request(self._project.stack, function, arguments))
        image = LocalBuilder(self._client.build).build(order, progress).image
        labels = {key: value for key, value in function.labels.items() if key not in _ONE_REPLICA}
        spec = function_spec(replace(function, labels=labels), self._overrides(function, image))
        spec.check()
        return spec

    def _overrides(self, function: StackFunction, image: str) -> Overrides:
        debugger = self._settings.debugger
        if debugger is None:
            return Overrides(image=image)
        source = self._project.stack.handler_folder(function).resolve()
        return Overrides(image=image, environment=debugger.variables(source), annotations=debugger.annotations)

    def _succeeded(self, name: str, spec: FunctionSpec, revision: int, milliseconds: float) -> None:
        before, self._serving[name] = self._serving.get(name), revision
        was_broken = name in self._broken
        self._broken.discard(name)
        if before is None:
            url = function_url(self._client.gateway, spec.service, spec.namespace)
            self._terminal.good(name, f"ready: {url}")
        elif before != revision or was_broken:
            self._terminal.good(name, f"reloaded in {milliseconds:.0f} ms")
        else:
            self._terminal.note(name, "unchanged")

    def _failed(self, function: StackFunction, message: str) -> None:
        self._broken.add(function.name)
        self._terminal.bad(function.name, self._in_project(function, message))
        if function.name in self._serving:
            self._terminal.note(function.name, "the code before it goes on serving")

    def _in_project(self, function: StackFunction, message: str) -> str:
        """`handler.py:3: …` as `greet/handler.py:3: …`, which a terminal or an editor can open."""
        file, colon, _ = message.partition(":")
        folder = Path(function.handler)
        return (
            f"{folder / file}{message[len(file) :]}"
            if colon and (self._project.folder / folder / file).is_file()
            else message
        )

    def _make_namespace(self, name: str) -> None:
        """A namespace of the stack that the private platform does not have yet."""
        if name and name not in self._client.namespaces():
            self._client.create_namespace(name)

    def _leave_namespace(self, name: str, key: FunctionKey) -> None:
        """A function whose namespace was changed in the stack is another one: the old one goes."""
        if self._deployed.get(name, key) != key:
            self._remove(name)

    def _remove(self, name: str) -> None:
        self._broken.discard(name)
        self._serving.pop(name, None)
        key = self._deployed.pop(name, None)
        if key is None:
            return
        try:
            self._client.remove(key.name, key.namespace)
        except NotFound:
            pass
        except StokerError as error:
            self._terminal.bad(name, f"it cannot be removed: {error}")
            return
        self._terminal.note(name, "removed")
