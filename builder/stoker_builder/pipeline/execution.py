"""The middle of a run: its process gets the job, its reports become log lines and results, its question an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stoker_builder.images.settings import ImageSettings
from stoker_builder.pipeline.forge import Remote
from stoker_builder.pipeline.job import Answer, Job, RemoteSettings, Report
from stoker_builder.pipeline.run_log import RunLog
from stoker_builder.pipeline.run_process import RunProcess
from stoker_sdk.runs import FAILED, QUEUED, SUPERSEDED, Run


@dataclass(frozen=True)
class Ended:
    """How a run ended, or that it must begin again (`QUEUED`), because its process was killed."""

    state: str
    reason: str = ""


@dataclass(frozen=True)
class ExecutionSettings:
    """`folder` is where runs have their own folders; the gateway is reached with the password in the file. `namespace`
    is where functions go, empty for the default one.
    """

    folder: Path
    gateway: str
    password_file: Path
    seal_key: Path
    public_url: str
    images: ImageSettings = field(default_factory=ImageSettings)
    namespace: str = ""
    ready_seconds: float = 120.0
    run_timeout: float = 3600.0


Note = Callable[..., None]
"""Takes changed fields of the run."""

MayDeploy = Callable[[], Awaitable[str]]
"""Gives the reason why the run must not go live, or an empty text."""

_AHEAD_SECONDS: Final = 300.0
"""So long a process that was started ahead waits for a run: who has pushed may push again."""


class Executor:
    """Starts a process for each run, and before it is needed, which saves a third of a second: `prepare` does, and each
    run's end.
    """

    def __init__(self, settings: ExecutionSettings) -> None:
        self._settings = settings
        self._ahead: asyncio.Task[RunProcess] | None = None
        self._forgetting: asyncio.TimerHandle | None = None
        self._closed = False

    def prepare(self) -> None:
        """A run is likely: a push has begun, or a run has just ended."""
        if self._ahead is None and not self._closed:
            self._ahead = asyncio.create_task(RunProcess.start(), name="start a run's process ahead")
            loop = asyncio.get_running_loop()
            self._forgetting = loop.call_later(_AHEAD_SECONDS, lambda: loop.create_task(self._forget()))

    async def close(self) -> None:
        """Start none ahead any more."""
        self._closed = True
        await self._forget()

    async def _forget(self) -> None:
        """End the one that waits."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            await (await ahead).end()

    async def execute(self, run: Run, remote: Remote, log: RunLog, note: Note, may_deploy: MayDeploy) -> Ended:
        process = await self._take()
        try:
            async with asyncio.timeout(self._settings.run_timeout):
                await process.begin(self._job(run, remote))
                async for report in process.reports():
                    if ended := await self._heed(report, process, log, note, may_deploy):
                        return ended
        except TimeoutError:
            return Ended(FAILED, f"it took longer than {self._settings.run_timeout:g} seconds and was stopped")
        finally:
            await process.end()
            self.prepare()
        return Ended(QUEUED)

    async def _heed(
        self, report: Report, process: RunProcess, log: RunLog, note: Note, may_deploy: MayDeploy
    ) -> Ended | None:
        if report.line:
            log.say(report.line, report.function)
        if report.functions is not None:
            note(functions=report.functions)
        if report.seconds:
            note(seconds=report.seconds)
        if report.may_deploy:
            stop = await may_deploy()
            if stop:
                return Ended(SUPERSEDED, stop)
            await process.answer(Answer())
        return Ended(report.state, report.reason) if report.state else None

    async def _take(self) -> RunProcess:
        ahead, self._ahead = self._ahead, None
        if self._forgetting is not None:
            self._forgetting.cancel()
        if ahead is not None and (process := await ahead).is_running:
            return process
        return await RunProcess.start()

    def _job(self, run: Run, remote: Remote) -> Job:
        settings = self._settings
        where = RemoteSettings(remote.url, remote.protocol, remote.authorization, remote.user or 0)
        return Job(
            run,
            where,
            folder=str(settings.folder),
            gateway=settings.gateway,
            password_file=str(settings.password_file),
            seal_key=str(settings.seal_key),
            public_url=settings.public_url,
            images=settings.images,
            namespace=settings.namespace,
            ready_seconds=settings.ready_seconds,
        )
