"""Shows what functions print, as it comes: a thread for each function."""

from __future__ import annotations

import threading

from stoker_cli.development.terminal import Terminal
from stoker_sdk.client import ControlClient, LogRequest
from stoker_sdk.errors import NotFound, StokerError
from stoker_sdk.http_client import HttpClient
from stoker_sdk.names import FunctionKey

_PAUSE = 0.5


class Followers:
    """Follows the logs of functions until they are removed, or the platform ends."""

    def __init__(self, gateway: str, authorization: str, terminal: Terminal) -> None:
        self._gateway = gateway
        self._authorization = authorization
        self._terminal = terminal
        self._stop = threading.Event()
        self._followed: dict[FunctionKey, threading.Thread] = {}

    def follow(self, key: FunctionKey) -> None:
        """Show the log of a function that is deployed, from its beginning; nothing new if it is shown already."""
        thread = self._followed.get(key)
        if thread is None or not thread.is_alive():
            thread = threading.Thread(target=self._run, args=(key,), name=f"logs {key}", daemon=True)
            self._followed[key] = thread
            thread.start()

    def close(self) -> None:
        self._stop.set()

    def _run(self, key: FunctionKey) -> None:
        client = ControlClient(HttpClient(self._gateway, self._authorization))
        last = ""
        while not self._stop.is_set():
            shown = last  # after a break, lines of the last moment come again
            try:
                for message in client.logs(LogRequest(key.name, key.namespace, since=last, follow=True)):
                    if message.timestamp > shown and not self._stop.is_set():
                        self._terminal.note(key.name, message.text.rstrip())
                        last = message.timestamp
            except NotFound:
                return
            except StokerError:
                pass  # control was restarted, or everything ends
            self._stop.wait(_PAUSE)
