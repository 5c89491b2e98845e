"""PyGithub against a server that checks as GitHub does: tokens for one repository, limits, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from github_server import APP_ID, SECRET, GitHubServer

from stoker_builder.pipeline.forge import NotNow
from stoker_builder.pipeline.github.api import GitHubApi, Refused
from stoker_builder.pipeline.github.connection import Connection
from stoker_sdk.errors import Unavailable


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHubServer]:
    server = GitHubServer(tmp_path / "github")
    server.create("Ada/Greet")
    yield server
    server.close()


@pytest.fixture
def api(github: GitHubServer) -> GitHubApi:
    key = github.key_file.read_text()
    connection = Connection(github.api_url, github.url, (SECRET.encode(),), str(APP_ID), key)
    return GitHubApi(lambda: connection)


async def test_a_token_is_for_one_repository_and_one_kind_of_work(github: GitHubServer, api: GitHubApi) -> None:
    github.create("Ada/Other")
    assert (await api.repository("Ada", "Greet", "GET", ""))["full_name"] == "Ada/Greet"
    await api.authorization("Ada", "Greet")
    made = {token.repositories: dict(token.permissions) for token in github.tokens.values() if token.repositories}
    assert set(made) == {frozenset({"ada/greet"})}
    assert made[frozenset({"ada/greet"})] == {"contents": "read", "metadata": "read"}  # the last one, for git
    assert all(secret in api.secrets() for secret in (SECRET, *list(github.tokens)[1:]))


async def test_a_revoked_token_is_replaced_once(github: GitHubServer, api: GitHubApi) -> None:
    await api.repository("Ada", "Greet", "GET", "")
    github.tokens.clear()
    assert (await api.repository("Ada", "Greet", "GET", ""))["id"]
    assert len(github.tokens) == 1


async def test_permissions_that_are_missing_are_named(github: GitHubServer, api: GitHubApi) -> None:
    github.granted -= {"checks"}
    with pytest.raises(Refused, match="lacks permissions there: give it checks: write") as refused:
        await api.repository("Ada", "Greet", "GET", "")
    assert refused.value.github_status == 403
    github.granted |= {"checks"}
    assert (await api.repository("Ada", "Greet", "GET", ""))["id"]


async def test_a_repository_that_is_not_installed_is_not_there(github: GitHubServer, api: GitHubApi) -> None:
    github.repositories["ada/greet"].installed = False
    with pytest.raises(Refused) as refused:
        await api.repository("Ada", "Greet", "GET", "")
    assert refused.value.github_status == 404


async def test_a_limit_is_kept_without_asking(github: GitHubServer, api: GitHubApi) -> None:
    await api.repository("Ada", "Greet", "GET", "")
    limits = {"Retry-After": "120"}
    github.fault = lambda _: web.Response(status=429, headers=limits, text='{"message": "slow down"}')
    for _ in range(3):
        with pytest.raises(NotNow) as refused:
            await api.repository("Ada", "Greet", "GET", "")
        assert 100 < refused.value.seconds <= 120
    assert [status for _, _, status in github.requests].count(429) == 1


async def test_an_answer_that_is_none_is_an_outage(github: GitHubServer, api: GitHubApi) -> None:
    await api.repository("Ada", "Greet", "GET", "")
    for response in (web.Response(status=502), web.Response(text="{ no JSON")):
        github.fault = lambda _, response=response: web.Response(status=response.status, body=response.body)  # type: ignore[misc]
        with pytest.raises(Unavailable):
            await api.repository("Ada", "Greet", "GET", "")
    github.stop()
    with pytest.raises(Unavailable):
        await api.repository("Ada", "Greet", "GET", "")


async def test_a_private_key_that_is_none_is_told_without_it(github: GitHubServer) -> None:
    connection = Connection(github.api_url, github.url, (b"x",), str(APP_ID), "not a key")
    with pytest.raises(Unavailable) as refused:
        await GitHubApi(lambda: connection).repository("Ada", "Greet", "GET", "")
    assert "not a key" not in str(refused.value)
