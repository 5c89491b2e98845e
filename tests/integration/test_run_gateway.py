"""What a run makes of the gateway's answers: when a version is live, and in which namespace functions are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest

from stoker_builder.pipeline.run.gateway import Gateway
from stoker_sdk.function import Condition, FunctionSpec, FunctionStatus


class Api:
    """Gives one status after the other, the last one for ever."""

    def __init__(self) -> None:
        self.statuses: list[FunctionStatus] = []
        self.asked: list[str] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.asked.append(self.path)
                status = api.statuses.pop(0) if len(api.statuses) > 1 else api.statuses[0]
                self.send_response(200)
                self.end_headers()
                self.wfile.write(msgspec.json.encode(status))

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def api() -> Iterator[Api]:
    one = Api()
    yield one
    one.server.shutdown()
    one.server.server_close()


def status(state: str, serving: int) -> FunctionStatus:
    return FunctionStatus.of(
        FunctionSpec("greet", "greet:2", "pushed"), stoker=Condition(state=state, revision=2, serving=serving)
    )


@pytest.mark.parametrize("last", [status("ready", 2), status("zero", 0)])
def test_a_version_is_live_when_the_one_before_gets_no_calls(api: Api, last: FunctionStatus, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    api.statuses = [status("deploying", 1), status("ready", 1), status("ready", 1), last]
    gateway = Gateway(api.url, password, "pushed")
    found = gateway.wait_until_live(FunctionSpec("greet", "greet:2"), 2, 20, print)
    assert found is not None and found.stoker == last.stoker
    assert len(api.asked) >= 4
    assert {path.partition("?")[2] for path in api.asked} == {"namespace=pushed"}
