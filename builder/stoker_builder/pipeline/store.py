"""Runs and their logs in JetStream: what was stored outlives every process of ours.

| stream | subject | one message is |
|---|---|---|
| `stoker-runs` | `stoker.run.ID` | the run as it is; the newest replaces |
| `stoker-run-logs` | `stoker.run-log.ID` | some lines of its log |

There is one writer, the pipeline, so nothing is compared before it is set. Ids count up, and go on from the stream's
sequence when all runs are forgotten, so that none is given twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from stoker_sdk.broker.connection import check_server, connect, server_info
from stoker_sdk.broker.lookup import page_of
from stoker_sdk.broker.requests import SECOND, ensure, last_sequence
from stoker_sdk.broker.settings import read_settings
from stoker_sdk.errors import Unavailable
from stoker_sdk.runs import Run, RunLine

if TYPE_CHECKING:
    from nats.aio.client import Client

RUNS: Final = "stoker-runs"
LOGS: Final = "stoker-run-logs"
_KEPT: Final = 30 * 86400 * SECOND
_KEPT_RUNS: Final = 5000
_PAGE: Final = 500
_SECONDS: Final = 10.0
_STREAMS: Final[tuple[dict[str, Any], ...]] = (
    {
        "name": RUNS,
        "subjects": ["stoker.run.*"],
        "max_age": _KEPT,
        "max_msgs": _KEPT_RUNS,
        "max_msgs_per_subject": 1,
    },
    {"name": LOGS, "subjects": ["stoker.run-log.*"], "max_age": _KEPT, "max_bytes": 512 * 1024 * 1024},
)


class RunStore:
    """Every method raises `Unavailable` when the broker does not answer."""

    def __init__(self, broker_file: Path) -> None:
        self._broker_file = broker_file
        self._client: Client | None = None

    async def open(self) -> list[Run]:
        """Connect, make the streams, and give all runs that are remembered, the oldest first."""
        settings = read_settings(self._broker_file)
        self._client = await connect(settings, "pipeline")
        check_server(server_info(self._client), settings)
        await ensure(self._client, _STREAMS)
        runs = [_run(data) async for data in self._messages(RUNS, "stoker.run.*")]
        return sorted((run for run in runs if run is not None), key=lambda run: run.id)

    async def next_id(self, newest: int) -> int:
        """The id after `newest`, the largest that is remembered; if that is 0, one above all that ever were."""
        last = await last_sequence(self.client, RUNS)
        return newest + 1 if newest else last + 1

    async def put(self, run: Run) -> None:
        """On disk when it returns."""
        await self.publish(f"stoker.run.{run.id}", msgspec.json.encode(run))

    async def add_lines(self, id: int, lines: list[RunLine]) -> None:
        await self.publish(f"stoker.run-log.{id}", msgspec.json.encode(lines))

    async def lines(self, id: int) -> list[RunLine]:
        """The whole log of a run."""
        found: list[RunLine] = []
        async for data in self._messages(LOGS, f"stoker.run-log.{id}"):
            found += msgspec.json.decode(data, type=list[RunLine])
        return found

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    @property
    def client(self) -> Client:
        if self._client is None:
            raise Unavailable("the broker is not connected yet: try again")
        return self._client

    async def _messages(self, stream: str, filter: str) -> AsyncIterator[bytes]:
        sequence = 1
        while page := await page_of(self.client, stream, filter, sequence, _PAGE):
            for message in page:
                yield message.data
            sequence = page[-1].sequence + 1

    async def publish(self, subject: str, data: bytes) -> None:
        from nats.errors import Error

        try:
            answer = await self.client.request(subject, data, timeout=_SECONDS)
        except (Error, TimeoutError) as error:
            raise Unavailable(f"the broker does not answer, and runs are kept there: {error or 'timeout'}") from error
        ack = msgspec.json.decode(answer.data, type=_Ack)
        if ack.error:
            raise Unavailable(f"the broker does not store a run: {ack.error.get('description', '')}")


class _Ack(msgspec.Struct, frozen=True):
    seq: int = 0
    error: dict[str, Any] = {}


def _run(data: bytes) -> Run | None:
    """None for what another version wrote and we cannot read."""
    try:
        return msgspec.json.decode(data, type=Run)
    except msgspec.MsgspecError:
        return None
