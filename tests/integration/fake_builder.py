"""A stand-in for the builder: reads the upload as an order, and does what it says.

Run as a program, with a folder for traces. The order is the first line of the upload; the rest is counted.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

TRACES = Path(sys.argv[1])


def say(**line: object) -> None:
    print(json.dumps(line), flush=True)


def done(**more: object) -> None:
    say(image="stoker.local/x@sha256:" + "0" * 64, cached=False, **more)


def count_rest() -> int:
    size = 0
    while chunk := sys.stdin.buffer.read(65536):
        size += len(chunk)
    return size


def wait_for(name: str) -> None:
    while not (TRACES / name).exists():
        time.sleep(0.01)


def main() -> None:
    (TRACES / f"started-{os.getpid()}").touch()
    order = sys.stdin.buffer.readline().split()
    match order[0].decode():
        case "count":
            say(log="reading")
            say(log=f"read {count_rest()} bytes")
            done()
        case "refuse":
            say(error="the handler has no handle()", code="bad-input")
            sys.exit(1)
        case "crash":
            say(log="before")
            print("Traceback: a bug", file=sys.stderr)
            os.kill(os.getpid(), signal.SIGKILL)
        case "silent":
            count_rest()
        case "chatter":
            print("not json")
            print("[1, 2]")
            print("x" * 3 * 1024 * 1024)
            sys.stdout.flush()
            done()
        case "gate":
            say(log="at the gate")
            wait_for("open")
            done()
        case "hang":
            # A child, deaf to TERM like its parent, as a test of a user's might be.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            child = subprocess.Popen(["sleep", "600"])
            (TRACES / "child").write_text(str(child.pid))
            say(log="hanging")
            time.sleep(600)
        case "leave":
            child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
            (TRACES / "child").write_text(str(child.pid))
            done()


main()
