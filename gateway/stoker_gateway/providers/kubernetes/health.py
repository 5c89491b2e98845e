"""Why a replica is unhealthy, in its own words: the cluster knows only that the probe failed, the watchdog says why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from aiohttp import ClientError, ClientSession, ClientTimeout

from stoker_gateway.providers.kubernetes.pods import Replica
from stoker_gateway.providers.text import one_line
from stoker_sdk.names import FunctionKey

_TIMEOUT = ClientTimeout(total=2)
_MAX_ANSWER = 2000


class HealthReasons:
    """Asks each replica that becomes unhealthy once; `reasons` has the answers by its id, until it is well or gone."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self._sick: dict[FunctionKey, set[str]] = {}
        self._asking: set[asyncio.Task[None]] = set()

    def look_after(self, replicas: Iterable[Replica], key: FunctionKey, told: Callable[[FunctionKey], None]) -> None:
        """These are a function's replicas now; `told` is called when one has said its reason."""
        sick = {one.id: one for one in replicas if one.state == "unhealthy"}
        before = self._sick.pop(key, set())
        for id in before - sick.keys():
            self.reasons.pop(id, None)
        if sick:
            self._sick[key] = set(sick)
        for id in sick.keys() - before:
            task = asyncio.get_running_loop().create_task(self._ask(sick[id], told), name=f"ask {id} for its health")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def close(self) -> None:
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    async def _ask(self, replica: Replica, told: Callable[[FunctionKey], None]) -> None:
        address = replica.target.address.removeprefix("tcp:")
        try:
            async with ClientSession(timeout=_TIMEOUT) as session, session.get(f"http://{address}/_/ready") as answer:
                text = (await answer.content.read(_MAX_ANSWER)).decode(errors="replace")
        except (ClientError, OSError) as error:
            text = f"it does not answer: {error or 'no answer in time'}"
        if replica.id in self._sick.get(replica.key, ()):
            self.reasons[replica.id] = one_line(text.removeprefix("unhealthy: "))
            told(replica.key)
