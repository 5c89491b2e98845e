"""Asks a container whether it can serve, and counts good and bad answers as the function's probes say."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import ClientError, ClientSession, ClientTimeout

from stoker_gateway.providers.container import PORT, ready_path
from stoker_gateway.providers.local.runner import Owner
from stoker_gateway.providers.text import one_line
from stoker_sdk.function import FunctionSpec

_OFTEN, _SELDOM = 0.03, 0.5
_SOON: Final = 5.0
"""Seconds after which a start is a long one, and asked about less often."""
_MAX_ANSWER: Final = 2000
_UNHEALTHY: Final = "unhealthy: "
_FULL: Final = 429
"""At its `max_inflight`: well, and busy."""


class Probe:
    """One container at `host`, which is replica `id` of `owner`."""

    def __init__(self, session: ClientSession, host: str, spec: FunctionSpec, id: str, owner: Owner) -> None:
        self._session = session
        self._url = f"http://{host}:{PORT}{ready_path(spec)}"
        self._probes = spec.probes
        self._id = id
        self._owner = owner
        self.opened = False

    async def run(self, *, opened: bool) -> None:
        """Until cancelled. `opened`: it was found ready already."""
        self.opened = opened
        if not opened:
            await asyncio.sleep(self._probes.delay)
            await self._until_open()
        await self._watch()

    async def is_ready(self) -> bool:
        return await self._ask() == ""

    async def _until_open(self) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        while True:
            answer = await self._ask()
            if not answer or answer.startswith(_UNHEALTHY):
                self.opened = True
                self._owner.ready(self._id, answer.removeprefix(_UNHEALTHY))
                return
            await asyncio.sleep(_OFTEN if clock() < began + _SOON else _SELDOM)

    async def _watch(self) -> None:
        good = bad = 0
        while True:
            await asyncio.sleep(self._probes.period)
            answer = await self._ask()
            good, bad = (0, bad + 1) if answer else (good + 1, 0)
            if bad == self._probes.failures:
                self._owner.health(self._id, answer.removeprefix(_UNHEALTHY))
            elif good == self._probes.successes:
                self._owner.health(self._id, "")

    async def _ask(self) -> str:
        """Why it cannot serve; empty when it can."""
        try:
            timeout = ClientTimeout(total=self._probes.timeout)
            async with self._session.get(self._url, timeout=timeout, allow_redirects=False) as answer:
                if answer.status < 400 or answer.status == _FULL:
                    return ""
                text = one_line((await answer.content.read(_MAX_ANSWER)).decode(errors="replace"))
                return text or f"{self._url} answers {answer.status}"
        except TimeoutError:
            return "it does not answer in time"
        except (ClientError, OSError) as error:
            return f"it does not answer: {one_line(str(error)) or type(error).__name__}"
