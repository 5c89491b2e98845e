"""One run of `stoker dev`, from its start to Ctrl-C."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from stoker_cli.development.debugging import Debugger, install_debugger
from stoker_cli.development.following import Followers
from stoker_cli.development.platform import PrivatePlatform, data_folder, private_platform, stop_on_signals
from stoker_cli.development.project import Project, load_project
from stoker_cli.development.session import Session, Settings
from stoker_cli.development.terminal import Terminal
from stoker_cli.development.watching import Watching
from stoker_cli.surroundings import Surroundings
from stoker_sdk.client import ControlClient
from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import BadUsage, StokerError
from stoker_sdk.files import write_whole
from stoker_sdk.http_client import HttpClient

_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Options:
    """The flags. `debug_port` 0 does not debug."""

    stack_file: Path
    names: tuple[str, ...]
    port: int
    tests: bool
    logs: bool
    debug_port: int
    data_dir: Path | None
    ready_file: Path | None


def run(options: Options, surroundings: Surroundings) -> int:
    """Until Ctrl-C. Returns the exit code. Raises `StokerError` when it cannot begin, or the platform ends."""
    stop_on_signals()
    try:
        project = load_project(options.stack_file, options.names, surroundings.environment)
        _check(project, options)
        data = DataDir(options.data_dir.absolute()) if options.data_dir else data_folder(project.file, surroundings)
        terminal = Terminal(data.artefacts)
        with private_platform(data, options.port, surroundings.environment) as platform:
            debugger = _debugger(data, options, surroundings)
            with _session(project, platform, options, surroundings, debugger, terminal) as (session, watching):
                session.begin()
                _announce(project, platform, options, terminal)
                _watch(session, watching, platform, terminal)
    except KeyboardInterrupt:
        return 0
    return 0


def _check(project: Project, options: Options) -> None:
    if options.debug_port and len(project.functions) != 1:
        names = ", ".join(project.functions) or "none"
        raise BadUsage(
            f"--debug is for one function, and the stack has: {names}; name the one, as in `stoker dev NAME`"
        )


def _debugger(data: DataDir, options: Options, surroundings: Surroundings) -> Debugger | None:
    return install_debugger(data, options.debug_port, surroundings.environment) if options.debug_port else None


@contextmanager
def _session(
    project: Project,
    platform: PrivatePlatform,
    options: Options,
    surroundings: Surroundings,
    debugger: Debugger | None,
    terminal: Terminal,
) -> Iterator[tuple[Session, Watching]]:
    settings = Settings(options.names, options.tests, surroundings.environment, debugger)
    with ExitStack() as held:
        client = held.enter_context(closing(ControlClient(HttpClient(platform.url, platform.authorization))))
        watching = held.enter_context(closing(Watching()))
        followers = Followers(platform.url, platform.authorization, terminal) if options.logs else None
        if followers:
            held.enter_context(closing(followers))
        yield Session(project, client, settings, terminal, watching, followers), watching


def _watch(session: Session, watching: Watching, platform: PrivatePlatform, terminal: Terminal) -> None:
    while True:
        changed = watching.wait(_LOOK_SECONDS)
        platform.check()
        if changed:
            try:
                session.take_over(changed)
            except StokerError as error:
                terminal.say(str(error))


def _announce(project: Project, platform: PrivatePlatform, options: Options, terminal: Terminal) -> None:
    terminal.say(f"watching {project.file}; Ctrl-C ends it")
    terminal.say(f"for other commands: export OPENFAAS_URL={platform.url} STOKER_DATA_DIR={platform.data.path}")
    if options.ready_file is not None:
        ready = platform.addresses | {"pid": os.getpid(), "functions": list(project.functions)}
        write_whole(options.ready_file, json.dumps(ready, indent=1).encode() + b"\n", 0o644)
