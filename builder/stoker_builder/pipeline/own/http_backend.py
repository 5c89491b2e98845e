"""git's own `http-backend` behind our authentication: a CGI program for each request, streamed both ways."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from aiohttp import web

from stoker_builder.pipeline.git import git_environment
from stoker_builder.pipeline.own.repositories import Repository
from stoker_sdk.errors import StokerError, Unavailable
from stoker_sdk.processes import give_way

SERVICES: Final = ("git-upload-pack", "git-receive-pack")
RECEIVE: Final = "git-receive-pack"
_CHUNK: Final = 64 * 1024
_MAX_HEAD: Final = 64 * 1024
_GRACE: Final = 5.0
_HOOK_VARIABLE: Final = "STOKER_HOOK_FD"
_CONFIG: Final = {
    "http.getanyfile": "false",
    "http.receivepack": "true",
    "http.uploadpack": "true",
    "receive.advertisePushOptions": "true",
    "receive.procReceiveRefs": "refs",
    "receive.fsckObjects": "true",
    "transfer.hideRefs": "refs/stoker",
    "gc.auto": "2000",
    "gc.autoDetach": "false",
}


class HttpBackend:
    """`program` is git's; `hooks` is the folder with our hook alone; `max_push` is in bytes of a push's pack."""

    def __init__(self, program: Path, hooks: Path, max_push: int, variables: Mapping[str, str]) -> None:
        self._program = program
        self._config = _CONFIG | {"core.hooksPath": str(hooks), "receive.maxInputSize": str(max_push)}
        self._variables = variables

    async def serve(
        self, request: web.Request, repository: Repository, rest: str, user: str, hook: socket.socket | None
    ) -> web.StreamResponse:
        """Answer with what git says. `hook` is the descriptor that its hook talks on; it is closed here."""
        try:
            process = await self._start(request, repository, rest, user, hook)
        finally:
            if hook is not None:
                hook.close()
        give_way(process.pid)
        feeding = asyncio.create_task(_feed(request, process), name="feed git")
        try:
            return await _relay(request, process)
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            await _end(process)

    async def _start(
        self, request: web.Request, repository: Repository, rest: str, user: str, hook: socket.socket | None
    ) -> Process:
        path = repository.path
        variables = git_environment(str(path), config=self._config) | {
            "GIT_PROJECT_ROOT": str(path.parent),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": f"/{path.name}/{rest}",
            "QUERY_STRING": request.query_string,
            "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "REMOTE_USER": user,
            "REMOTE_ADDR": "",
            **self._variables,
        }
        if protocol := request.headers.get("Git-Protocol", ""):
            variables["GIT_PROTOCOL"] = protocol
        if hook is not None:
            variables[_HOOK_VARIABLE] = str(hook.fileno())
        try:
            return await asyncio.create_subprocess_exec(
                str(self._program),
                cwd=path,
                env=variables,
                stdin=PIPE,
                stdout=PIPE,
                pass_fds=(hook.fileno(),) if hook is not None else (),
                user=repository.user,
                group=repository.user,
                extra_groups=[] if repository.user is not None else None,
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"git's http-backend cannot be started: {error.strerror}") from error


def find_http_backend(exec_path: str) -> Path:
    """In what `git --exec-path` prints. Raises `Unavailable`."""
    program = Path(exec_path) / "git-http-backend"
    if not exec_path or not os.access(program, os.X_OK):
        raise Unavailable("git is missing on the platform's machine: install it (Debian: apt install git)")
    return program


async def _feed(request: web.Request, process: Process) -> None:
    stdin = process.stdin
    assert stdin is not None
    try:
        async for chunk in request.content.iter_chunked(_CHUNK):
            stdin.write(chunk)
            await stdin.drain()
        stdin.close()
    except (BrokenPipeError, ConnectionResetError):
        pass  # git has heard enough, and says why


async def _relay(request: web.Request, process: Process) -> web.StreamResponse:
    stdout = process.stdout
    assert stdout is not None
    try:
        head = await stdout.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise StokerError("git's http-backend gave no answer: the platform's log says why") from None
    status, headers = _parsed(head[:_MAX_HEAD])
    response = web.StreamResponse(status=status, headers=headers)
    await response.prepare(request)
    while chunk := await stdout.read(_CHUNK):
        await response.write(chunk)
    await response.write_eof()
    return response


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of a CGI answer (RFC 3875, section 6)."""
    status, headers = 200, {}
    for line in head.decode("latin-1").split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon:
            continue
        if name.lower() == "status":
            status = int(value.split()[0])
        else:
            headers[name] = value.strip()
    return status, headers


async def _end(process: Process) -> None:
    """git ends by itself when its input and output are closed; what does not is killed."""
    try:
        async with asyncio.timeout(_GRACE):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
