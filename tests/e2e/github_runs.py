"""A platform that is connected to the GitHub of `github_server`, and what tests ask both."""

from __future__ import annotations

from typing import Any

from github_server import GitHubServer, Repository
from running_platform import Platform, wait_for

from stoker_sdk.origin import check_origin
from stoker_sdk.runs import Run


def service(repository: Repository, function: str, pull: int = 0) -> str:
    return check_origin(repository.owner, repository.name, function, pull=pull).name


def answer(platform: Platform, repository: Repository, function: str = "greet", pull: int = 0) -> str:
    return platform.call(service(repository, function, pull), b"you").text


def runs_of(platform: Platform, repository: Repository) -> list[Run]:
    """The newest first."""
    return platform.client.runs.list_runs(owner=repository.owner, repository=repository.name)


def ended(platform: Platform, repository: Repository, count: int = 1) -> Run:
    """The newest run, when there are so many and all have ended."""

    def all_ended() -> Run | None:
        runs = runs_of(platform, repository)
        return runs[0] if len(runs) >= count and not any(run.is_open for run in runs) else None

    return wait_for(all_ended, f"the end of run {count}", 60)


def shown(github: GitHubServer, repository: Repository, sha: str, context: str = "stoker") -> dict[str, Any]:
    """The check when it has an end."""

    def completed() -> dict[str, Any] | None:
        check = github.statuses(repository.full_name, sha).get(context)
        return check if check and check["status"] == "completed" else None

    return wait_for(completed, f"the verdict on {sha[:7]}")
