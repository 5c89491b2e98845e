"""As much of the Debug Adapter Protocol as an editor needs to stop at a breakpoint."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

Message = dict[str, Any]


class DebugClient:
    """One connection to a debugger."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._reader = self._socket.makefile("rb")
        self._numbers = itertools.count(1)
        self._seen: list[Message] = []

    def attach(self, breakpoints: tuple[Path, int], folder: Path) -> None:
        """Attach as editors do on the same machine: the folder here is the folder there."""
        file, line = breakpoints
        self._ask("initialize", adapterID="test", pathFormat="path", linesStartAt1=True, columnsStartAt1=True)
        attaching = self._send("attach", pathMappings=[{"localRoot": str(folder), "remoteRoot": str(folder)}])
        self._until(lambda message: message.get("event") == "initialized")
        answer = self._ask("setBreakpoints", source={"path": str(file)}, breakpoints=[{"line": line}])
        assert [one["verified"] for one in answer["breakpoints"]] == [True], answer
        self._ask("configurationDone")
        self._answer_to(attaching)

    def wait_until_stopped(self) -> tuple[str, int, int]:
        """File and line where a thread stands, and the thread."""
        thread = self._until(lambda message: message.get("event") == "stopped")["body"]["threadId"]
        frame = self._ask("stackTrace", threadId=thread)["stackFrames"][0]
        return frame["source"]["path"], frame["line"], thread

    def go_on(self, thread: int) -> None:
        self._ask("continue", threadId=thread)

    def close(self) -> None:
        self._socket.close()

    def _send(self, command: str, **arguments: Any) -> int:
        number = next(self._numbers)
        body = json.dumps({"seq": number, "type": "request", "command": command, "arguments": arguments}).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return number

    def _ask(self, command: str, **arguments: Any) -> Message:
        return self._answer_to(self._send(command, **arguments))

    def _answer_to(self, number: int) -> Message:
        answer = self._until(lambda m: m["type"] == "response" and m["request_seq"] == number)
        assert answer["success"], answer
        body: Message = answer.get("body", {})
        return body

    def _until(self, wanted: Callable[[Message], bool]) -> Message:
        for message in self._seen:
            if wanted(message):
                self._seen.remove(message)
                return message
        while not wanted(message := self._read()):
            self._seen.append(message)
        return message

    def _read(self) -> Message:
        length = 0
        while header := self._reader.readline().strip():
            length = int(header.partition(b":")[2])
        message: Message = json.loads(self._reader.read(length))
        return message
