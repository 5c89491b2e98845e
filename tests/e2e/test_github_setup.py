"""`stoker github setup`: one command and one click, and a push to GitHub is live."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from github_runs import answer, ended
from github_server import SECRET, GitHubServer
from running_platform import PYTHONPATH, Platform
from working_copy import passing, stack

pytestmark = pytest.mark.slow

URL = "https://functions.example.org"


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHubServer]:
    server = GitHubServer(tmp_path / "github")
    yield server
    server.close()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def visit(url: str, fields: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Status, text and where it leads on."""
    data = urlencode(fields).encode() if fields is not None else None
    try:
        with urllib.request.build_opener(_NoRedirects).open(url, data, timeout=30) as response:
            return response.status, response.read().decode(), ""
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers.get("Location", "")


def stoker(platform: Platform, *arguments: str) -> subprocess.Popen[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": PYTHONPATH, "HOME": str(platform.folder)}
    return subprocess.Popen(
        [sys.executable, "-m", "stoker_cli", "github", *arguments, "--data-dir", str(platform.data.path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_one_click_connects_a_running_platform(github: GitHubServer, own_platform: Platform) -> None:
    assert own_platform.request("POST", "/github/webhook", b"{}").status == 404
    more = ("--pages-host", "pages.example.org", "--no-browser")
    command = stoker(own_platform, "setup", "--url", URL, "--github-url", github.url, *more)
    assert command.stdout is not None
    page = command.stdout.readline().split()[1]
    _, text, _ = visit(page)
    found = re.search(r'action="([^"]+)".*name="manifest" value="([^"]+)"', text, re.DOTALL)
    assert found
    action, manifest = (html.unescape(group) for group in found.groups())
    assert visit(f"{page}created?code=abc&state=forged")[0] == 400

    _, _, back = visit(action, {"manifest": manifest})  # the button on GitHub
    status, _, installations = visit(back)
    assert (status, installations) == (303, f"{github.url}/apps/stoker-test/installations/new")
    said, _ = command.communicate(timeout=30)
    assert command.returncode == 0 and "The App stoker-test is set up." in said
    assert github.made[0]["hook_attributes"]["url"] == f"{URL}/github/webhook"
    assert github.made[0]["callback_urls"] == ["https://pages.example.org/ui/github/back"]
    assert github.made[0]["default_permissions"]["members"] == "read"
    assert github.made[0]["public"] is False
    assert "administration" not in json.dumps(github.made[0])

    stored = own_platform.data.github_app
    assert stored.stat().st_mode & 0o777 == 0o600
    assert not any(secret in stored.read_bytes() for secret in (SECRET.encode(), b"PRIVATE KEY", b"hush"))
    again = stoker(own_platform, "setup", "--url", URL, "--no-browser")
    assert "is set up already" in again.communicate(timeout=30)[1]
    shown, _ = stoker(own_platform, "show").communicate(timeout=30)
    assert shown.startswith("stoker-test (App 4711)")

    repository = github.create("ada/greet")
    repository.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    assert github.push(own_platform, repository).status == 202
    assert ended(own_platform, repository).state == "succeeded"
    assert answer(own_platform, repository) == "hello you"
