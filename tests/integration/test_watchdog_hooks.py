"""The hooks of a Python handler in a container: its probes are told what `health` says, and it has its secrets."""

from __future__ import annotations

from pathlib import Path

from running_platform import PYTHONPATH, wait_for
from watchdog_process import watchdog

HANDLER = """
import os

def init(context):
    return context.secret("word"), context.connections

def health():
    if os.path.exists("sick"):
        raise OSError("no database")

def close(context):
    print("closed with", context.state)

def handle(event, context):
    return str(context.state)
"""


def test_hooks_in_a_container(tmp_path: Path) -> None:
    (tmp_path / "hooked.py").write_text(HANDLER)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "word").write_text("told\n")
    options = {
        "handler": "hooked",
        "PYTHONPATH": f"{PYTHONPATH}:{tmp_path}",
        "STOKER_SECRETS": str(tmp_path / "secrets"),
        "STOKER_CONNECTIONS": "3",
        "STOKER_HEALTH_PERIOD": "100ms",
        "STOKER_HEALTH_FAILURES": "1",
    }
    with watchdog(tmp_path, "python", **options) as one:
        assert one.call().text == "('told', 3)"
        (tmp_path / "sick").touch()
        wait_for(lambda: one.call("/_/ready", method="GET").status == 503, "unreadiness")
        assert one.call("/_/ready", method="GET").text == "unhealthy: `health` raised OSError: no database\n"
        assert one.call("/_/health", method="GET").status == 200  # liveness has a longer threshold
        assert one.call().status == 200  # whoever still sends a call is served
        (tmp_path / "sick").unlink()
        wait_for(lambda: one.call("/_/ready", method="GET").status == 200, "readiness")
        assert one.stop() == 0
        assert "closed with ('told', 3)" in one.log
        assert "unhealthy: `health` raised OSError: no database" in one.log and "healthy again" in one.log
