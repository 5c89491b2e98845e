"""What happens to functions, as events of the cluster: `kubectl describe` shows them beside the object.

The same occasion makes one event, whoever tells it and how often: its name is made of it. They are for people to
read, so one that cannot be told is no error.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from dataclasses import dataclass
from time import monotonic
from typing import Final

from stoker_gateway.providers.kubernetes import paths
from stoker_gateway.providers.kubernetes.api import Api
from stoker_gateway.providers.kubernetes.manifests import Owner
from stoker_gateway.providers.kubernetes.objects import Ignored, Manifest
from stoker_gateway.providers.kubernetes.standing import Stored
from stoker_sdk.errors import Conflict, StokerError
from stoker_sdk.names import FunctionKey
from stoker_sdk.units import now_rfc3339

log = logging.getLogger("stoker.kubernetes")

_MOST_TEXT: Final = 1024
"""Characters of a message: the cluster's limit."""
_MOST_REMEMBERED: Final = 10_000
_MOST_WAITING: Final = 1000
_AGAIN_SECONDS: Final = 60.0
"""After how long one that could not be told may be tried again."""
_SOURCE: Final = "stoker"


@dataclass(frozen=True)
class Happening:
    """What is told of a function. `occasion` tells it from others of the same kind, such as the revision's number."""

    reason: str
    message: str
    occasion: str
    warns: bool = True


def subject_of(stored: Stored) -> Owner:
    """The object that people look at: the resource, or where there is none the Deployment."""
    return stored.owner or Owner("apps/v1", "Deployment", stored.uid)


class Events:
    """Tells each happening once, while `run` runs; the cluster forgets it after a while, an hour by default."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._waiting: dict[str, Manifest] = {}
        self._not_before: dict[str, float] = {}
        """When what has been told, or could not be, may be told again: by the clock of `monotonic`."""
        self._news = asyncio.Event()
        self._complaint = ""

    def tell(self, key: FunctionKey, subject: Owner, what: Happening) -> None:
        """Soon: nobody waits for it. Where too much waits already, it is not told."""
        body = event(key, subject, what, now_rfc3339())
        name = body["metadata"]["name"]
        if len(self._waiting) < _MOST_WAITING and monotonic() >= self._not_before.get(name, 0.0):
            self._waiting.setdefault(name, body)
            self._news.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                name, body = next(iter(self._waiting.items()))
                if len(self._not_before) >= _MOST_REMEMBERED:
                    self._not_before.clear()
                self._not_before[name] = await self._tell(body)
                del self._waiting[name]

    async def _tell(self, body: Manifest) -> float:
        """When it may be told again."""
        function, namespace = body["involvedObject"]["name"], body["involvedObject"]["namespace"]
        try:
            await self._api.create(paths.events(namespace), body, Ignored, f"event of function {function!r}")
        except Conflict:
            pass  # another has told it
        except StokerError as error:
            if str(error) != self._complaint:
                log.warning("%s", error)
            self._complaint = str(error)
            return monotonic() + _AGAIN_SECONDS
        except Exception:
            log.exception("an event of function %r could not be told", function)
            return monotonic() + _AGAIN_SECONDS
        return math.inf


def event(key: FunctionKey, subject: Owner, what: Happening, now: str) -> Manifest:
    """The object that tells it."""
    occasion = "\0".join((subject.uid, what.reason, what.occasion))
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{key.name}.{hashlib.sha256(occasion.encode()).hexdigest()[:16]}",
            "namespace": key.namespace,
        },
        "involvedObject": {
            "apiVersion": subject.api,
            "kind": subject.kind,
            "name": key.name,
            "namespace": key.namespace,
            "uid": subject.uid,
        },
        "type": "Warning" if what.warns else "Normal",
        "reason": what.reason,
        "message": what.message[:_MOST_TEXT],
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": _SOURCE},
    }
