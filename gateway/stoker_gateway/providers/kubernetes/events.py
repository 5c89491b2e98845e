"""What happens to functions, as events of the cluster: `kubectl describe` shows them beside the object.

The same occasion makes one event, whoever tells it and how often: its name is made of it. They are for people to
read, so one that cannot be told is no error.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
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
    """Tells each happening once; the cluster forgets it after a while, an hour by default."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._told: set[str] = set()
        self._complaint = ""

    async def tell(self, key: FunctionKey, subject: Owner, what: Happening) -> None:
        body = event(key, subject, what, now_rfc3339())
        name = body["metadata"]["name"]
        if name in self._told:
            return
        try:
            await self._api.create(paths.events(key.namespace), body, Ignored, f"event of function {key.name!r}")
        except Conflict:
            pass  # another has told it
        except StokerError as error:
            if str(error) != self._complaint:
                log.warning("%s", error)
            self._complaint = str(error)
            return
        if len(self._told) >= _MOST_REMEMBERED:
            self._told.clear()
        self._told.add(name)


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
