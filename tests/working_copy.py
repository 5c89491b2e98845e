"""A git working copy that pushes to a running platform, as its owner does.

copy = WorkingCopy(platform, tmp_path / "greet", "me/greet")
copy.commit(greet__handlerDOTpy=HANDLER, stackDOTyml=stack("greet"))
pushed = copy.push()                # real git over HTTP; `pushed.said` is what the person sees
assert platform.call(copy.service("greet"), b"you").text == "hello you"
"""

from __future__ import annotations

import base64
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from git_repository import commit, git, make_repository
from running_platform import Platform

from stoker_sdk.origin import check_origin
from stoker_sdk.runs import Run

TEST = "from .handler import handle\n\n\ndef test_it_answers():\n    assert handle('x') == {answer!r} + 'x'\n"


def handler(answer: str) -> str:
    return f"def handle(req):\n    return {answer!r} + req\n"


def passing(name: str, answer: str) -> dict[str, str]:
    """A function's files that pass their test: `answer` before what it is sent."""
    return {f"{name}__handlerDOTpy": handler(answer), f"{name}__handler_testDOTpy": TEST.format(answer=answer)}


def stack(*names: str, lang: str = "python3", more: str = "") -> str:
    functions = "".join(f"  {name}:\n    lang: {lang}\n    handler: ./{name}\n    image: {name}\n" for name in names)
    return f"provider:\n  name: openfaas\nfunctions:\n{functions}{more}"


@dataclass(frozen=True)
class Pushed:
    """What a push ended with. `said` is all that git printed, for people."""

    code: int
    said: str

    @property
    def lines(self) -> list[str]:
        """What the platform said, without git's `remote: `."""
        marked = [line for line in self.said.splitlines() if line.startswith("remote: ")]
        return [line.removeprefix("remote: ").rstrip() for line in marked]


class WorkingCopy:
    def __init__(self, platform: Platform, folder: Path, repository: str, patience: float = 100) -> None:
        """Commands may take `patience` seconds."""
        self.platform = platform
        self._patience = patience
        self.folder = make_repository(folder)
        self.owner, self.name = repository.split("/")
        self.url = f"{platform.http_url}/git/{repository}"

    @property
    def password(self) -> str:
        return self.platform.data.password.read_text().strip()

    def commit(self, message: str = "change", **files: str) -> str:
        return commit(self.folder, message, **files)

    def git(self, *arguments: str) -> str:
        return git(self.folder, *arguments)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """git with the platform's password, running."""
        token = base64.b64encode(f"admin:{self.password}".encode()).decode()
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {token}",
        }
        return subprocess.Popen(
            ["git", *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, seconds: float = 0) -> Pushed:
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=max(seconds, self._patience))
        print(said)
        return Pushed(process.returncode, said)

    def push(self, *arguments: str, refs: tuple[str, ...] = ("main",)) -> Pushed:
        return self.run("push", *arguments, self.url, *refs)

    def service(self, function: str) -> str:
        """Its name on the platform."""
        return check_origin(self.owner, self.name, function).name

    def answer(self, function: str, body: bytes = b"you") -> str:
        return self.platform.call(self.service(function), body).text

    def runs(self) -> list[Run]:
        """The newest first."""
        return self.platform.client.runs.list_runs(owner=self.owner, repository=self.name)
