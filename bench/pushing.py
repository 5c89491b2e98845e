"""Repositories that push to a platform's own git remote, each as its owner does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bench.processes import BenchError
from bench.serving import Serving
from stoker_sdk.origin import check_origin
from stoker_sdk.runs import Run

STACK = "provider:\n  name: openfaas\nfunctions:\n  {0}:\n    lang: python3\n    handler: ./{0}\n    image: {0}\n"
_GIT = ("git", "-c", "user.name=bench", "-c", "user.email=bench@example.org")


class WorkingCopy:
    """A fresh repository in `folder`, with one function of its own name."""

    def __init__(self, platform: Serving, folder: Path, owner: str, name: str) -> None:
        self.folder = folder
        self._platform = platform
        self._owner, self._name = owner, name
        self._url = f"{platform.url}/git/{owner}/{name}"
        folder.mkdir(parents=True)
        self._git("init", "--quiet", "--initial-branch=main")

    @property
    def function_url(self) -> str:
        return self._platform.function_url(check_origin(self._owner, self._name, self._name).name)

    def commit(self, files: Mapping[str, str]) -> None:
        """Write files of the function's folder, and commit them with the stack."""
        handler = self.folder / self._name
        handler.mkdir(exist_ok=True)
        for name, text in files.items():
            (handler / name).write_text(text)
        (self.folder / "stack.yml").write_text(STACK.format(self._name))
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", "change")

    def push(self, *options: str) -> subprocess.Popen[str]:
        """git, running; what it prints is on its standard output."""
        secret = self._platform.authorization
        environment = os.environ | {
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: {secret}",
        }
        return subprocess.Popen(
            ["git", "push", *options, self._url, "main"],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def last_run(self) -> Run:
        return self._platform.client().runs.list_runs(owner=self._owner, repository=self._name, limit=1)[0]

    def _git(self, *arguments: str) -> None:
        subprocess.run([*_GIT, *arguments], cwd=self.folder, check=True, capture_output=True, timeout=60)


def end_of(push: subprocess.Popen[str]) -> None:
    """Wait for git's end. Raises `BenchError` when the push was refused."""
    said, _ = push.communicate(timeout=120)
    if push.returncode:
        raise BenchError(f"git push failed: {said.strip()[-500:]}")
