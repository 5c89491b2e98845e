"""Asks replicas that start whether they are ready, so that calls need not wait for the cluster to find out.

The kubelet looks every second or two, and its word takes another while to arrive; a call from zero would wait for both.
What is asked is the readiness probe's own page, and once the kubelet has spoken, its word is what counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from urllib.parse import urlsplit

from aiohttp import ClientConnectorError, ClientError, ClientSession, ClientTimeout

from stoker_gateway.providers.container import PORT, ready_path
from stoker_gateway.providers.kubernetes.pods import Replica, State
from stoker_gateway.providers.text import one_line
from stoker_sdk.function import FunctionSpec
from stoker_sdk.names import FunctionKey

_TIMEOUT = ClientTimeout(total=1)
_OFTEN, _SELDOM = 0.03, 0.5
_SOON = 5.0
"""Seconds after which a start is a long one, and asked about less often."""

_MAX_ANSWER = 2000
_UNHEALTHY = "unhealthy: "

Told = Callable[[FunctionKey], None]


class Readiness:
    """One task for each replica that starts. `seen` are a function's replicas with what is known here taken in."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._asking: dict[FunctionKey, dict[str, asyncio.Task[None]]] = {}
        self._states: dict[str, State] = {}
        self._notes: dict[str, str] = {}
        self._last_notes: dict[FunctionKey, dict[str, str]] = {}
        """By the replica's id, also when the container that it was about has ended."""

    def look_after(self, key: FunctionKey, spec: FunctionSpec | None, replicas: Iterable[Replica]) -> None:
        """These are a function's replicas now; `told` is called when one has become ready."""
        replicas = list(replicas)
        there = {one.id for one in replicas if one.state != "ready"}
        kept = {id: note for id, note in self._last_notes.pop(key, {}).items() if id in there}
        if kept:
            self._last_notes[key] = kept
        starting = {one.life: one for one in replicas if _starts(one)} if spec and _may_ask(spec) else {}
        asking = self._asking.pop(key, {})
        for life in asking.keys() - starting.keys():
            asking.pop(life).cancel()
            self._states.pop(life, None)
            self._notes.pop(life, None)
        for life in starting.keys() - asking.keys():
            assert spec is not None
            work = self._ask(starting[life], ready_path(spec))
            asking[life] = asyncio.get_running_loop().create_task(work, name=f"ask whether {life} is ready")
        if asking:
            self._asking[key] = asking

    def seen(self, replicas: Iterable[Replica]) -> list[Replica]:
        return [self._seen(one) if _starts(one) else self._noted(one) for one in replicas]

    def _noted(self, replica: Replica) -> Replica:
        note = self._last_notes.get(replica.key, {}).get(replica.id, "")
        return replace(replica, note=note) if note and replica.state != "ready" else replica

    def _seen(self, replica: Replica) -> Replica:
        state, note = self._states.get(replica.life, replica.state), self._notes.get(replica.life, "")
        return replace(replica, state=state, note=note)

    async def close(self) -> None:
        tasks = [task for asking in self._asking.values() for task in asking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, replica: Replica, path: str) -> None:
        url = f"http://{replica.target.address.removeprefix('tcp:')}{path}"
        loop = asyncio.get_running_loop()
        begun = loop.time()
        async with ClientSession(timeout=_TIMEOUT) as session:
            while True:  # also after a good answer: until the kubelet has spoken, nobody else would notice a bad one
                ready, note = await _look(session, url)
                known = self._states.get(replica.life, "starting")
                if ready != (known == "ready"):
                    self._states[replica.life] = "ready" if ready else "unhealthy"
                if ready != (known == "ready") or note != self._notes.get(replica.life, ""):
                    self._notes[replica.life] = note
                    self._last_notes.setdefault(replica.key, {})[replica.id] = note
                    self._told(replica.key)
                soon = not ready and loop.time() - begun < _SOON
                await asyncio.sleep(_OFTEN if soon else _SELDOM)


async def _look(session: ClientSession, url: str) -> tuple[bool, str]:
    """Whether it is ready; if not, why, where that can be said."""
    try:
        async with session.get(url, allow_redirects=False) as answer:
            if 200 <= answer.status < 400:
                return True, ""
            text = (await answer.content.read(_MAX_ANSWER)).decode(errors="replace")
    except ClientConnectorError:
        return False, f"nothing listens on port {PORT}"
    except (ClientError, OSError):
        return False, f"what listens on port {PORT} gives no answer to {urlsplit(url).path}"
    if text.startswith(_UNHEALTHY):
        return False, one_line(text.removeprefix(_UNHEALTHY))
    return False, "" if answer.status == 503 else f"{urlsplit(url).path} is answered {answer.status}"


def _starts(replica: Replica) -> bool:
    return replica.state == "starting" and bool(replica.life and replica.ip)


def _may_ask(spec: FunctionSpec) -> bool:
    """Not where the first good answer is not to count."""
    return not spec.probes.delay and spec.probes.successes == 1
