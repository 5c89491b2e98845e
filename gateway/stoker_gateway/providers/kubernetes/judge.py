"""Ends rollouts that have failed: what served before is asked for again. Only the leader judges.

Nothing is measured here: the cluster itself says when a rollout's time is over, and pods say how often they have ended.
So a judge that takes over from another decides the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from stoker_gateway.providers.kubernetes.events import Events, Happening, subject_of
from stoker_gateway.providers.kubernetes.pods import Trouble
from stoker_gateway.providers.kubernetes.standing import Standing
from stoker_gateway.providers.kubernetes.view import View
from stoker_sdk.errors import NotFound, StokerError
from stoker_sdk.names import FunctionKey

log = logging.getLogger("stoker.kubernetes")

_AGAIN_SECONDS = 10.0


@dataclass(frozen=True)
class Verdict:
    """This revision does not get ready, and why; these pods served before, and still do."""

    revision: int
    pods: tuple[int, str]
    trouble: Trouble


def judge(standing: Standing) -> Verdict | None:
    """None while the rollout may succeed, and where there is nothing to go back to."""
    fallback, trouble = standing.fallback, standing.trouble
    if fallback is None or trouble is None or not standing.is_lost:
        return None
    return Verdict(standing.stored.revision, fallback, trouble)


def failure(standing: Standing) -> Happening | None:
    """What there is to tell of a version that does not get ready."""
    trouble, revision = standing.trouble, standing.stored.revision
    if standing.state != "failed" or trouble is None:
        return None
    message = f"revision {revision} does not get ready: {trouble.message}"
    return Happening("RolloutFailed", message, f"{revision} {trouble.code}")


class Judge:
    """`put_back` carries a verdict out. What could not be carried out is judged again later."""

    def __init__(self, view: View, put_back: Callable[[FunctionKey, Verdict], Awaitable[None]], events: Events) -> None:
        self._view = view
        self._put_back = put_back
        self._events = events
        self._changed: dict[FunctionKey, None] = {}
        self._news = asyncio.Event()

    def heard(self, key: FunctionKey) -> None:
        """This function has changed."""
        self._changed[key] = None
        self._news.set()

    async def run(self) -> None:
        """Judge all functions, and then whatever changes, until it is cancelled."""
        for key in self._view.all_keys():
            self.heard(key)
        while True:
            await self._news.wait()
            self._news.clear()
            while self._changed:
                key = next(iter(self._changed))
                del self._changed[key]
                await self._look(key)

    async def _look(self, key: FunctionKey) -> None:
        try:
            standing = self._view.standing(key)
            verdict, failed = judge(standing), failure(standing)
            if verdict is not None:
                await self._put_back(key, verdict)
            if failed is not None:
                self._events.tell(key, subject_of(standing.stored), failed)
        except NotFound:
            pass  # it was removed
        except StokerError as error:
            log.warning("%s cannot be rolled back now: %s", key, error)
            asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self.heard, key)
        except Exception:
            log.exception("%s could not be judged", key)
