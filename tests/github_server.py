"""A server that is GitHub for a platform under test: REST API, git over HTTP, webhooks with real signatures.

server = GitHubServer(tmp_path)                       # http://127.0.0.1:PORT, API at /api/v3
repository = server.create("Ada/Greet")
repository.commit(greet__handlerDOTpy=..., stackDOTyml=...)     # in a working copy
server.push(platform, repository)                     # git push, and the webhook that follows it
server.statuses("Ada/Greet", sha)["stoker"]           # what a commit shows, by context: the last of each

Tokens are checked as GitHub does: an App proves itself by a JWT, and gets tokens for single repositories with few
rights; whoever has one for another repository gets a 404. `fault` decides what happens to requests of the API.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import secrets
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from git_repository import commit, git, make_repository
from running_platform import Answer

APP_ID = 4711
SECRET = "It's a secret of the tests"
PREFIX = "/api/v3"
ZEROS = "0" * 40

Fault = Callable[[web.Request], web.Response | None]


class Webhooks(Protocol):
    """A platform, as GitHub knows it."""

    def request(self, method: str, target: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """Any request."""


@dataclass
class Repository:
    """One repository of the server: a bare one that is served, and somebody's working copy of it."""

    id: int
    owner: str
    name: str
    bare: Path
    copy: Path
    private: bool = True
    default: str = "main"
    installed: bool = True
    owner_id: int = 1
    statuses: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    comments: list[dict[str, Any]] = field(default_factory=list)
    pulls: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"

    def commit(self, message: str = "change", **files: str) -> str:
        return commit(self.copy, message, **files)

    def git(self, *arguments: str) -> str:
        return git(self.copy, *arguments)

    def upload(self, *refs: str) -> None:
        """git push, of which nobody is told."""
        self.git("push", "--quiet", "--force", str(self.bare), *(refs or (self.default,)))

    def head(self, ref: str = "main") -> str:
        try:
            return git(self.bare, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
        except subprocess.CalledProcessError:
            return ""

    def json(self) -> dict[str, Any]:
        """As in webhooks; where it says to clone from is a lie."""
        return {
            "id": self.id,
            "name": self.name,
            "full_name": self.full_name,
            "private": self.private,
            "default_branch": self.default,
            "owner": {"login": self.owner, "id": self.owner_id},
            "clone_url": "ext::sh -c touch% /tmp/taken",
            "url": "http://169.254.169.254/latest/meta-data",
            "html_url": "javascript:alert(1)",
        }


@dataclass
class Delivery:
    id: int
    guid: str
    event: str
    body: bytes
    status: int


@dataclass
class Token:
    repositories: frozenset[str] | None
    """Full names in lower case; None for all."""
    permissions: Mapping[str, str]


class GitHubServer:
    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.folder = folder
        self.host = host
        folder.mkdir(parents=True, exist_ok=True)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.key_file = folder / "app.pem"
        self.key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self._public_key = key.public_key()
        self.secret_file = folder / "webhook-secret"
        self.secret_file.write_text(SECRET + "\n")
        self.token = "ghp_" + secrets.token_hex(18)
        self.token_file = folder / "token"
        self.token_file.write_text(self.token + "\n")
        self.repositories: dict[str, Repository] = {}
        self.renamed: dict[str, str] = {}
        self.tokens: dict[str, Token] = {self.token: Token(None, {})}
        self.deliveries: list[Delivery] = []
        self.manifests: dict[str, Any] = {}
        self.made: list[Any] = []
        self._installations: dict[str, int] = {}
        self.requests: list[tuple[str, str, int]] = []
        self.fault: Fault | None = None
        self.granted = {"contents", "metadata", "checks", "statuses", "pull_requests"}
        self._next_id = 100
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(0), self._loop).result(10)

    # Its life

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def api_url(self) -> str:
        return self.url + PREFIX

    @property
    def app_flags(self) -> tuple[str, ...]:
        """For a platform that is connected as an App."""
        return ("--github-app-id", str(APP_ID), "--github-key-file", str(self.key_file), *self._flags)

    @property
    def token_flags(self) -> tuple[str, ...]:
        return ("--github-token-file", str(self.token_file), *self._flags)

    @property
    def _flags(self) -> tuple[str, ...]:
        return ("--github-webhook-secret-file", str(self.secret_file), "--github-api-url", self.api_url)

    def stop(self) -> None:
        """Nobody answers any more, until `start`."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)

    def start(self) -> None:
        asyncio.run_coroutine_threadsafe(self._start(self.port), self._loop).result(10)

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _start(self, port: int) -> int:
        app = web.Application(middlewares=[self._guard], client_max_size=64 << 20)
        app.add_routes(self._routes())
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, port, reuse_address=True).start()
        return int(self._runner.addresses[0][1])

    async def _stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # What people do there

    def create(self, full_name: str, **fields: Any) -> Repository:
        owner, name = full_name.split("/")
        bare = self.folder / "bare" / owner.lower() / f"{name.lower()}.git"
        bare.mkdir(parents=True)
        git(bare, "init", "--quiet", "--bare", "--initial-branch=main")
        git(bare, "config", "uploadpack.allowAnySHA1InWant", "true")
        copy = make_repository(self.folder / "copies" / full_name)
        repository = Repository(self._id(), owner, name, bare, copy, **fields)
        self.repositories[full_name.lower()] = repository
        return repository

    def rename(self, repository: Repository, full_name: str) -> None:
        """The old name leads to the new one, as on GitHub."""
        old = repository.full_name.lower()
        del self.repositories[old]
        self.renamed[old] = full_name.lower()
        repository.owner, repository.name = full_name.split("/")
        bare = self.folder / "bare" / repository.owner.lower() / f"{repository.name.lower()}.git"
        bare.parent.mkdir(parents=True, exist_ok=True)
        repository.bare = repository.bare.rename(bare)
        self.repositories[full_name.lower()] = repository

    def delete(self, repository: Repository) -> None:
        del self.repositories[repository.full_name.lower()]

    def push(self, platform: Webhooks, repository: Repository, **changes: Any) -> Answer:
        before = repository.head(repository.default) or ZEROS
        repository.upload()
        return self.deliver(platform, "push", self.push_payload(repository, before=before, **changes))

    def push_payload(self, repository: Repository, **changes: Any) -> dict[str, Any]:
        sha = repository.head(repository.default)
        subject = repository.git("log", "-1", "--format=%B", sha) if sha else ""
        return {
            "ref": f"refs/heads/{repository.default}",
            "before": ZEROS,
            "after": sha,
            "created": False,
            "deleted": False,
            "forced": False,
            "head_commit": {"id": sha, "message": subject, "timestamp": datetime.now(UTC).isoformat()},
            "repository": repository.json(),
            "pusher": {"name": "ada", "email": "ada@example.org"},
            "sender": {"login": "ada", "id": 1},
            "installation": {"id": 1},
            **changes,
        }

    def pull_payload(self, repository: Repository, number: int, action: str, **changes: Any) -> dict[str, Any]:
        return {
            "action": action,
            "number": number,
            "pull_request": repository.pulls[number],
            "repository": repository.json(),
            "sender": {"login": "ada"},
            **changes,
        }

    def open_pull(self, repository: Repository, branch: str, *, fork: bool = False) -> int:
        """From a branch of the working copy, which is uploaded as GitHub keeps it: under `refs/pull/N/head`."""
        number = len(repository.pulls) + 1
        repository.git("push", "--quiet", "--force", str(repository.bare), f"{branch}:refs/pull/{number}/head")
        head_repository = {**repository.json(), "id": 999, "full_name": f"stranger/{repository.name}"} if fork else None
        repository.pulls[number] = {
            "number": number,
            "state": "open",
            "title": "A change",
            "user": {"login": "bob"},
            "head": {
                "ref": branch,
                "sha": repository.head(f"refs/pull/{number}/head"),
                "repo": {**head_repository, "owner": {"login": "stranger"}} if head_repository else repository.json(),
            },
        }
        return number

    # Webhooks

    def deliver(
        self, platform: Webhooks, event: str, payload: Any, *, guid: str = "", signature: str | None = None
    ) -> Answer:
        """Send a webhook as GitHub does, and remember how that went. No platform that listens: nothing arrives."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        guid = guid or str(uuid.uuid4())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "GitHub-Hookshot/test",
            "X-GitHub-Event": event,
            "X-GitHub-Delivery": guid,
            "X-Hub-Signature": "sha1=" + hmac.new(SECRET.encode(), body, hashlib.sha1).hexdigest(),
            "X-Hub-Signature-256": signature if signature is not None else sign(body),
        }
        if signature == "":
            del headers["X-Hub-Signature-256"]
        answer = platform.request("POST", "/github/webhook", body, headers)
        self.deliveries.append(Delivery(self._id(), guid, event, body, answer.status))
        return answer

    def lose(self, event: str, payload: Any) -> None:
        """A webhook that could not be delivered."""
        self.deliveries.append(Delivery(self._id(), str(uuid.uuid4()), event, json.dumps(payload).encode(), 502))

    # What a commit shows

    def statuses(self, full_name: str, sha: str) -> dict[str, dict[str, Any]]:
        """By context; of check runs, the newest of each name."""
        repository = self.repositories[full_name.lower()]
        shown = {each["context"]: each for each in repository.statuses if each["sha"] == sha}
        return shown | {each["name"]: each for each in repository.checks if each["head_sha"] == sha}

    # The server

    def _id(self) -> int:
        self._next_id += 1
        return self._next_id

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        fault = self.fault(request) if self.fault is not None and request.path.startswith(PREFIX) else None
        response = fault if fault is not None else await handler(request)
        self.requests.append((request.method, request.path_qs, response.status))
        return response

    def _routes(self) -> list[web.RouteDef]:
        repository = PREFIX + "/repos/{owner}/{name}"
        return [
            web.get(PREFIX + "/repos/{owner}/{name}/installation", self._installation),
            web.post(PREFIX + "/app/installations/{id}/access_tokens", self._make_token),
            web.get(PREFIX + "/app/hook/deliveries", self._list_deliveries),
            web.get(PREFIX + "/app/hook/deliveries/{id}", self._show_delivery),
            web.get(repository, self._show_repository),
            web.get(repository + "/commits/{sha}/check-runs", self._list_checks),
            web.get(repository + "/commits/{sha}/statuses", self._list_statuses),
            web.get(repository + "/commits/{ref:.*}", self._show_commit),
            web.post(repository + "/statuses/{sha}", self._make_status),
            web.post(repository + "/check-runs", self._make_check),
            web.patch(repository + "/check-runs/{id}", self._change_check),
            web.get(repository + "/pulls/{number}", self._show_pull),
            web.get(repository + "/issues/{number}/comments", self._list_comments),
            web.post(repository + "/issues/{number}/comments", self._make_comment),
            web.patch(repository + "/issues/comments/{id}", self._change_comment),
            web.post("/settings/apps/new", self._make_app),
            web.post(PREFIX + "/app-manifests/{code}/conversions", self._tell_app),
            web.get("/{owner}/{name}.git/info/refs", self._git),
            web.post("/{owner}/{name}.git/git-upload-pack", self._git),
        ]

    def _app(self, request: web.Request) -> None:
        """Raises unless the App itself asks."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            claims = jwt.decode(token, self._public_key, algorithms=["RS256"], options={"verify_iat": False})
        except jwt.InvalidTokenError as error:
            raise _refused(401, f"A JSON web token could not be decoded: {error}") from None
        now = time.time()
        if str(claims["iss"]) != str(APP_ID) or claims["exp"] - now > 600 or claims["iat"] > now:
            raise _refused(401, "'Expiration time' claim ('exp') is too far in the future")

    def _open(self, request: web.Request, *rights: str) -> Repository:
        """The repository, if the token may do all of this there. Raises 401, 403 and 404 as GitHub does."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            given = base64.b64decode(given).decode().partition(":")[2]
        token = self.tokens.get(given)
        if token is None:
            raise _refused(401, "Bad credentials")
        full_name = f"{request.match_info['owner']}/{request.match_info['name']}".lower()
        if full_name in self.renamed:
            rest = request.path.split("/", 6)[6:]
            new = "/".join((f"{PREFIX}/repos/{self.renamed[full_name]}", *rest))
            moved = web.HTTPMovedPermanently if request.method == "GET" else web.HTTPTemporaryRedirect
            raise moved(str(request.url.with_path(new).with_query(request.query)))
        repository = self.repositories.get(full_name)
        if repository is None or (token.repositories is not None and full_name not in token.repositories):
            raise _refused(404, "Not Found")
        for right in rights:
            what, level = right.split(":")
            granted = token.permissions.get(what, "") if token.repositories is not None else "write"
            if granted != "write" and granted != level:
                raise _refused(403, "Resource not accessible by integration")
        return repository

    async def _make_app(self, request: web.Request) -> web.Response:
        """Somebody has pressed the button."""
        manifest = json.loads((await request.post())["manifest"])
        code = secrets.token_hex(20)
        self.manifests[code] = manifest
        raise web.HTTPFound(f"{manifest['redirect_url']}?code={code}&state={request.query['state']}")

    async def _tell_app(self, request: web.Request) -> web.Response:
        """Once only."""
        manifest = self.manifests.pop(request.match_info["code"], None)
        if manifest is None:
            raise _refused(404, "Not Found")
        app = {"id": APP_ID, "slug": "stoker-test", "pem": self.key_file.read_text(), "webhook_secret": SECRET}
        more = {"html_url": f"{self.url}/apps/stoker-test", "client_id": "Iv1.x", "client_secret": "hush", "name": "n"}
        self.made.append(manifest)
        return web.json_response(app | more, status=201)

    async def _installation(self, request: web.Request) -> web.Response:
        self._app(request)
        full_name = f"{request.match_info['owner']}/{request.match_info['name']}".lower()
        repository = self.repositories.get(full_name)
        if repository is None or not repository.installed:
            raise _refused(404, "Not Found")
        id = self._installations.setdefault(repository.owner.lower(), len(self._installations) + 1)
        return web.json_response({"id": id, "account": {"login": repository.owner}})

    async def _make_token(self, request: web.Request) -> web.Response:
        self._app(request)
        asked = await request.json()
        text = "ghs_" + secrets.token_hex(18)
        names = asked.get("repositories")
        owner = {id: owner for owner, id in self._installations.items()}[int(request.match_info["id"])]
        installed = [each for each in self.repositories.values() if each.installed and each.owner.lower() == owner]
        known = {each.name.lower() for each in installed}
        if not set(asked["permissions"]) <= self.granted:
            raise _refused(422, "The permissions requested are not granted to this installation.")
        if not names or not {name.lower() for name in names} <= known:
            raise _refused(422, "There is at least one repository that does not exist or is not accessible")
        allowed = {f"{owner}/{name.lower()}" for name in names}
        self.tokens[text] = Token(frozenset(allowed), {"metadata": "read", **asked["permissions"]})
        return web.json_response({"token": text, "expires_at": "2099-01-01T00:00:00Z"}, status=201)

    async def _list_deliveries(self, request: web.Request) -> web.Response:
        self._app(request)
        cursor = int(request.query.get("cursor", "0")) or 10**12
        found = [each for each in reversed(self.deliveries) if each.id < cursor][: int(request.query["per_page"])]
        return web.json_response(
            [{"id": each.id, "guid": each.guid, "event": each.event, "status_code": each.status} for each in found]
        )

    async def _show_delivery(self, request: web.Request) -> web.Response:
        self._app(request)
        each = next(each for each in self.deliveries if each.id == int(request.match_info["id"]))
        payload = json.loads(each.body)
        return web.json_response({"id": each.id, "event": each.event, "request": {"payload": payload}})

    async def _show_repository(self, request: web.Request) -> web.Response:
        return web.json_response(self._open(request).json())

    async def _show_commit(self, request: web.Request) -> web.Response:
        repository = self._open(request, "contents:read")
        ref = request.match_info["ref"]
        sha = repository.head(f"refs/{ref}" if "/" in ref else ref)
        if not sha:
            raise _refused(422, f"No commit found for SHA: {ref}")
        if request.headers.get("Accept") != "application/vnd.github.sha":
            return web.json_response({"sha": sha})
        if request.headers.get("If-None-Match") == f'"{sha}"':
            return web.Response(status=304)
        return web.Response(text=sha, headers={"ETag": f'"{sha}"'})

    async def _make_status(self, request: web.Request) -> web.Response:
        repository = self._open(request, "statuses:write")
        body = {**await request.json(), "sha": request.match_info["sha"], "id": self._id()}
        if body["state"] not in ("error", "failure", "pending", "success") or len(body["description"]) > 140:
            raise _refused(422, "Validation Failed")
        if not repository.head(body["sha"]):
            raise _refused(422, f"No commit found for SHA: {body['sha']}")
        repository.statuses.append(body)
        return web.json_response(body, status=201)

    async def _list_statuses(self, request: web.Request) -> web.Response:
        repository = self._open(request, "statuses:read")
        found = [each for each in repository.statuses if each["sha"] == request.match_info["sha"]]
        return web.json_response(found[::-1])

    async def _list_checks(self, request: web.Request) -> web.Response:
        repository = self._open(request, "checks:read")
        found = [each for each in repository.checks if each["head_sha"] == request.match_info["sha"]]
        return web.json_response({"total_count": len(found), "check_runs": found})

    async def _make_check(self, request: web.Request) -> web.Response:
        repository = self._open(request, "checks:write")
        if request.headers["Authorization"].endswith(self.token):
            raise _refused(403, "You must authenticate via a GitHub App.")
        body = {**await request.json(), "id": self._id()}
        _check_check(body)
        body["history"] = [(body["status"], body.get("conclusion"))]
        repository.checks.append(body)
        return web.json_response(body, status=201)

    async def _change_check(self, request: web.Request) -> web.Response:
        repository = self._open(request, "checks:write")
        known = next(each for each in repository.checks if each["id"] == int(request.match_info["id"]))
        known |= await request.json()
        _check_check(known)
        known["history"].append((known["status"], known.get("conclusion")))
        return web.json_response(known)

    async def _show_pull(self, request: web.Request) -> web.Response:
        repository = self._open(request, "pull_requests:read")
        return web.json_response(repository.pulls[int(request.match_info["number"])])

    async def _list_comments(self, request: web.Request) -> web.Response:
        repository = self._open(request, "pull_requests:read")
        number = int(request.match_info["number"])
        return web.json_response([each for each in repository.comments if each["number"] == number])

    async def _make_comment(self, request: web.Request) -> web.Response:
        repository = self._open(request, "pull_requests:write")
        number = int(request.match_info["number"])
        body = {**await request.json(), "id": self._id(), "number": number, "user": {"login": "stoker[bot]"}}
        repository.comments.append(body)
        return web.json_response(body, status=201)

    async def _change_comment(self, request: web.Request) -> web.Response:
        repository = self._open(request, "pull_requests:write")
        known = next(each for each in repository.comments if each["id"] == int(request.match_info["id"]))
        known |= await request.json()
        return web.json_response(known)

    async def _git(self, request: web.Request) -> web.Response:
        """git's smart HTTP, for whoever has a token for the repository."""
        repository = self._open(request, "contents:read")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(repository.bare),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": "/" + request.path.partition(".git/")[2],
            "QUERY_STRING": request.query_string,
            "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        process = await asyncio.create_subprocess_exec(
            *("git", "-c", f"safe.directory={repository.bare}", "http-backend"),
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate(await request.read())
        head, _, body = out.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(headers.pop("Status", "200").split()[0])
        return web.Response(status=status, headers=headers, body=body)


def sign(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _check_check(body: Mapping[str, Any]) -> None:
    """What GitHub refuses of a check run."""
    if body["status"] == "completed" and not body.get("conclusion"):
        raise _refused(422, "Missing conclusion")
    output = body.get("output") or {}
    if len(output.get("text", "")) > 65_535 or (output and not (output["title"] and output["summary"])):
        raise _refused(422, "Invalid output")


def _refused(status: int, message: str) -> web.HTTPException:
    kinds = {401: web.HTTPUnauthorized, 403: web.HTTPForbidden, 404: web.HTTPNotFound, 422: web.HTTPUnprocessableEntity}
    return kinds[status](text=json.dumps({"message": message}), content_type="application/json")
