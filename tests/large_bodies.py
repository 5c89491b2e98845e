"""Bodies of many megabytes for tests: made while they are sent, known by their SHA-256, and looked for in the store.

`store(platform)` gives the names of all objects there, half-written ones included.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from running_platform import Answer, Platform

from stoker_gateway.queue.bodies import name_in
from stoker_gateway.queue.subjects import BODIES
from stoker_sdk.broker.connection import connect
from stoker_sdk.broker.settings import read_settings

MIB = 1 << 20
T = TypeVar("T")

HANDLER = """
import hashlib, os, time

def handle(event, context):
    print("begun", flush=True)
    digest, file = hashlib.sha256(), event.file
    while piece := file.read(1 << 20):
        digest.update(piece)
    print(digest.hexdigest(), flush=True)
    time.sleep(float(os.environ.get("sleep", "0")))
    return {"statusCode": int(os.environ.get("status", "200"))}
"""


class Body:
    """`mib` MiB in pieces of one, the same whenever it is sent; `digest` is of what was given out the last time.

    `between` is called after each piece with its number.
    """

    def __init__(self, mib: int, between: Callable[[int], None] = lambda number: None) -> None:
        self.mib = mib
        self._between = between
        self._noise = os.urandom(MIB)
        self._digest = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        self._digest = hashlib.sha256()
        for number in range(self.mib):
            piece = number.to_bytes(8, "big") + self._noise[8:]
            self._digest.update(piece)
            yield piece
            self._between(number)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()


def send_later(platform: Platform, name: str, body: Body, *, chunked: bool = False, key: str = "") -> Answer:
    """An async call with this body, and perhaps an `Idempotency-Key`."""
    connection = http.client.HTTPConnection(*platform.http, timeout=60)
    headers = {} if chunked else {"Content-Length": str(body.mib * MIB)}
    if key:
        headers["Idempotency-Key"] = key
    try:
        connection.request("POST", f"/async-function/{name}", iter(body), headers, encode_chunked=chunked)
        response = connection.getresponse()
        fields = {key.lower(): value for key, value in response.getheaders()}
        return Answer(response.status, fields, response.read())
    finally:
        connection.close()


def with_broker(platform: Platform, ask: Callable[[Any], Any]) -> Any:
    """What this coroutine function answers, which is given a client of the platform's broker."""

    async def run() -> Any:
        client = await connect(read_settings(Path(platform.run_folder) / "broker.json"), "test")
        try:
            return await ask(client)
        finally:
            await client.close()

    return asyncio.run(run())


def store(platform: Platform) -> set[str]:
    async def names(client: Any) -> set[str]:
        request = json.dumps({"subjects_filter": ">"}).encode()
        answer = await client.request(f"$JS.API.STREAM.INFO.{BODIES}", request, timeout=5)
        return {name_in(subject) for subject in json.loads(answer.data)["state"].get("subjects") or {}}

    return set(with_broker(platform, names))
