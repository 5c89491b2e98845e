"""What becomes of one push to our own remote: refs are moved, the run is stored, its progress goes back to the client.

A ref moves before its run is stored, because the repository is the truth; a kill in between is found by `look`, since
the run's commit is noted beside the branch only after that. Who pushed may leave: the run goes on.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from stoker_builder.pipeline.git import check_branch, check_sha
from stoker_builder.pipeline.own import repositories
from stoker_builder.pipeline.own.repositories import Repository
from stoker_builder.pipeline.runs import Runs
from stoker_sdk.errors import BadInput, StokerError, Unavailable
from stoker_sdk.runs import QUEUED, SUCCEEDED, Push, Run

log = logging.getLogger("stoker.pipeline")

FORGE: Final = "stoker"
_ZEROS: Final = frozenset("0")
_HEADS: Final = "refs/heads/"
_TAGS: Final = "refs/tags/"
_STORE_SECONDS: Final = 60.0


class HookRequest(msgspec.Struct, frozen=True):
    """What the hook sends: `commands` are old commit, new commit, ref."""

    commands: list[tuple[str, str, str]]
    options: list[str]


@dataclass(frozen=True)
class Command:
    """One ref that the client wants to move. `new` is empty for a deletion."""

    old: str
    new: str
    ref: str

    @property
    def branch(self) -> str:
        return self.ref.removeprefix(_HEADS) if self.ref.startswith(_HEADS) else ""


def read_command(old: str, new: str, ref: str) -> Command:
    """Raises `BadInput`."""
    for sha in (old, new):
        check_sha(sha)
    if not ref.startswith((_HEADS, _TAGS)):
        raise BadInput("only branches and tags can be pushed here")
    check_branch(ref.partition("/")[2].partition("/")[2])
    return Command(old, "" if set(new) <= _ZEROS else new, ref)


def refusal(command: Command, default: str) -> str:
    """Why the command is not carried out; empty if it is. `default` is the live branch."""
    if not command.new and command.branch == default:
        return "this branch is live: to remove its functions, remove the repository (`stoker remote remove`)"
    return ""


def live_branch(named: str, has_commits: bool, pushed: Sequence[str]) -> str:
    """The branch that is live: the one that the repository names, where it is there. The first push chooses it: the one
    that the repository names if it comes along, else `master`, else the first.
    """
    if has_commits or not pushed or named in pushed:
        return named
    return "master" if "master" in pushed else pushed[0]


class Receiving:
    """One push. `say` shows a line to the client, and raises `ConnectionError` when nobody listens any more."""

    def __init__(self, repository: Repository, runs: Runs, by: str, say: Callable[[str], None]) -> None:
        self._repository = repository
        self._runs = runs
        self._by = by
        self._say = say

    async def receive(self, request: HookRequest) -> list[str]:
        """One verdict for each command, as git wants them: `ok REF`, or `ng REF REASON`."""
        verdicts: dict[str, str] = {}
        commands: list[Command] = []
        for old, new, ref in request.commands:
            try:
                commands.append(read_command(old, new, ref))
            except BadInput as error:
                verdicts[ref] = _one_line(str(error))
        default = await self._choose_default([each.branch for each in commands if each.branch and each.new])
        live: Run | None = None
        for command in commands:
            try:
                live = await self._carry_out(command, default) or live
                verdicts[command.ref] = ""
            except StokerError as error:
                verdicts[command.ref] = _one_line(str(error))
        if live is not None and "detach" not in request.options:
            ended = await self._follow(live)
            if "wait" in request.options and ended.state != SUCCEEDED:
                ref = _HEADS + live.push.branch
                verdicts[ref] = _one_line(f"run {ended.id} {ended.state}: {ended.reason}")
        return [f"ng {ref} {reason}" if reason else f"ok {ref}" for ref, reason in verdicts.items()]

    async def _choose_default(self, pushed: list[str]) -> str:
        named = await repositories.default_branch(self._repository)
        default = live_branch(named, bool(await repositories.head_of(self._repository, named)), pushed)
        if default != named:
            await repositories.set_default_branch(self._repository, default)
        return default

    async def _carry_out(self, command: Command, default: str) -> Run | None:
        """Move the ref. The run, if it is the live branch's. Raises `StokerError` when nothing was moved."""
        repository = self._repository
        if why := refusal(command, default):
            raise BadInput(why)
        is_live = command.branch == default
        if is_live:
            await self._runs.check()
        await repositories.move(repository, command.ref, command.old, command.new or "0" * len(command.old))
        if not is_live:
            kind = f"branch {command.branch}" if command.branch else "the tag"
            self._tell(f"{kind} is stored; live is what is on {default}")
            return None
        return await accept_head(self._runs, repository, default, self._by)

    async def _follow(self, run: Run) -> Run:
        """Show the run's log until it has ended."""
        try:
            if run.state == QUEUED:
                self._say(f"stoker: run {run.id} waits for its turn")
            async for item in self._runs.follow(run.id):
                if isinstance(item, Run):
                    run = item
                else:
                    self._say(f"{item.function}: {item.text}" if item.function else f"stoker: {item.text}")
        except ConnectionError:
            pass
        return self._runs.get(run.id)

    def _tell(self, text: str) -> None:
        try:
            self._say(f"stoker: {text}")
        except ConnectionError:
            pass


async def accept_head(runs: Runs, repository: Repository, branch: str, by: str) -> Run | None:
    """The run of the commit that the branch is at, stored and noted; None when there is no such branch.

    Raises `Unavailable` when the broker does not come back within a minute; `look` finds it then.
    """
    head = await repositories.head_of(repository, branch)
    if not head:
        return None
    subject = await repositories.subject_of(repository, head)
    push = Push(FORGE, repository.owner, repository.name, branch, head, by=by, subject=subject)
    run = await _stored(runs, push)
    await repositories.note_accepted(repository, head)
    return run


async def _stored(runs: Runs, push: Push) -> Run:
    deadline = asyncio.get_running_loop().time() + _STORE_SECONDS
    while True:
        try:
            return await runs.accept(push, at_head=True)
        except Unavailable:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.5)


async def talk_to_hook(
    repository: Repository, runs: Runs, by: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """The pipeline's end of the hook's descriptor. Returns when the hook has its verdicts, or never asked."""
    line = await reader.readline()
    if not line:
        return

    def say(text: str) -> None:
        if writer.is_closing():
            raise ConnectionResetError
        writer.write(json.dumps({"progress": text}).encode() + b"\n")

    request = msgspec.json.decode(line, type=HookRequest)
    try:
        verdicts = await Receiving(repository, runs, by, say).receive(request)
    except Exception:
        log.exception("a push to %s broke", repository)
        verdicts = [f"ng {ref} a fault of the platform: its log says more" for _, _, ref in request.commands]
    writer.write(json.dumps({"verdicts": verdicts}).encode() + b"\n")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
