"""A server that is GitLab for a platform under test: the projects of `github_server`, by GitLab's API and hooks."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web
from github_server import SECRET, ZEROS, GitHubServer, Repository
from running_platform import Answer, Platform


class GitLabServer(GitHubServer):
    """`posted` are statuses as they came: project, commit, fields."""

    def __init__(self, *arguments: Any) -> None:
        self.posted: list[tuple[int, str, dict[str, str]]] = []
        super().__init__(*arguments)

    @property
    def flags(self) -> tuple[str, ...]:
        secret = ("--gitlab-webhook-secret-file", str(self.secret_file))
        return ("--gitlab-url", self.url, "--gitlab-token-file", str(self.token_file), *secret)

    def hook(self, repository: Repository, **changes: Any) -> dict[str, Any]:
        sha = repository.head(repository.default)
        project = {"id": repository.id, "path_with_namespace": repository.full_name, "default_branch": "main"}
        commits = [{"id": sha, "message": "Say hello\n"}]
        hook = {"object_kind": "push", "ref": "refs/heads/main", "before": ZEROS, "after": sha, "project": project}
        return {**hook, "user_username": "ada", "commits": commits, **changes}

    def send(self, platform: Platform, hook: Any, *, token: str = SECRET, event: str = "Push Hook") -> Answer:
        headers = {"X-Gitlab-Token": token, "X-Gitlab-Event": event, "Content-Type": "application/json"}
        return platform.request("POST", "/gitlab/webhook", json.dumps(hook).encode(), headers)

    def states(self, sha: str, name: str = "stoker") -> list[str]:
        return [fields["state"] for _, commit, fields in self.posted if (commit, fields["name"]) == (sha, name)]

    def _routes(self) -> list[web.RouteDef]:
        project = "/api/v4/projects/{id}"
        return [
            web.get(project, self._show_project),
            web.get(project + "/repository/branches/{branch}", self._show_branch),
            web.post(project + "/statuses/{sha}", self._post_status),
            web.get(project + "/repository/commits/{sha}/statuses", self._show_statuses),
            *super()._routes(),
        ]

    def _project(self, request: web.Request) -> Repository:
        if request.headers.get("PRIVATE-TOKEN") != self.token:
            raise web.HTTPUnauthorized(text='{"message": "401 Unauthorized"}')
        id = int(request.match_info["id"])
        found = next((each for each in self.repositories.values() if each.id == id), None)
        if found is None:
            raise web.HTTPNotFound(text='{"message": "404 Project Not Found"}')
        return found

    async def _show_project(self, request: web.Request) -> web.Response:
        project = self._project(request)
        fields = {"id": project.id, "path_with_namespace": project.full_name, "default_branch": project.default}
        fields["namespace"] = {"id": project.owner_id, "kind": "group", "full_path": project.owner}
        return web.json_response(fields)

    async def _show_branch(self, request: web.Request) -> web.Response:
        sha = self._project(request).head(f"refs/heads/{request.match_info['branch']}")
        if not sha:
            raise web.HTTPNotFound(text='{"message": "404 Branch Not Found"}')
        return web.json_response({"name": request.match_info["branch"], "commit": {"id": sha}})

    async def _show_statuses(self, request: web.Request) -> web.Response:
        """The last of each name."""
        self._project(request)
        last = {fields["name"]: fields for _, sha, fields in self.posted if sha == request.match_info["sha"]}
        return web.json_response([{"name": name, "status": fields["state"]} for name, fields in last.items()])

    async def _post_status(self, request: web.Request) -> web.Response:
        project, fields = self._project(request), await request.json()
        self.posted.append((project.id, request.match_info["sha"], fields))
        return web.json_response(fields, status=201)
