"""`python -m stoker_builder --data-dir DIR`: one local build, as a process of its own.

Standard input is the request's tar (`stoker_sdk.archive`). Standard output is lines of JSON: `{"log": TEXT}` any number
of times, then exactly one of `{"image": REFERENCE, "cached": BOOL, "seconds": {PART: NUMBER}}` (exit code 0) and
`{"error": MESSAGE, "code": CODE}` (exit code 1). Standard error is for bugs only. SIGTERM, or a reader that goes away,
ends it and all that it started.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import NoReturn

from stoker_builder.bounds import Bounds
from stoker_builder.build import build
from stoker_builder.config import read_config
from stoker_builder.errors import Cancelled, FullDisk, is_full_disk
from stoker_builder.report import Report
from stoker_builder.warm_tests import getting_ready
from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import StokerError
from stoker_sdk.ids import FIRST_ID, ID_COUNT, UserIds
from stoker_sdk.processes import give_way


def main() -> int:
    """Returns the exit code."""
    os.umask(0o022)
    give_way()
    report = Report(_own_standard_output())
    signal.signal(signal.SIGTERM, _cancel)
    signal.signal(signal.SIGINT, _cancel)
    try:
        arguments = _parser().parse_args()
        data = DataDir(Path(arguments.data_dir).absolute())
        data.path.mkdir(mode=0o711, parents=True, exist_ok=True)
        ids = UserIds(data.ids, arguments.first_id, arguments.id_count) if os.geteuid() == 0 else None
        bounds = Bounds(arguments.disk, arguments.files, arguments.memory, arguments.processes, arguments.cache)
        config = read_config(data, ids, os.environ, bounds, tuple(arguments.reach))
        # One that was started ahead is not asked at once.
        with nullcontext() if _is_asked(0) else getting_ready(config, sys.stdin.fileno()) as ready:
            _is_asked(None)
            built = build(sys.stdin.buffer, config, report, ready)
        report.result(built.image, built.cached, built.seconds)
    except StokerError as error:
        return _fail(report, str(error), error.code)
    except Cancelled:
        return _fail(report, "the build was cancelled", "cancelled")
    except Exception as error:
        if is_full_disk(error):
            return _fail(report, "the platform's disk is full: make room, and build again", FullDisk.code)
        logging.exception("the build broke")
        return _fail(report, "the build broke by a fault of the platform: its log says more", "internal")
    return 0


def _is_asked(seconds: float | None) -> bool:
    """Whether there is a request within that time; None waits for ever."""
    return bool(select.select([sys.stdin.buffer], [], [], seconds)[0])


def _fail(report: Report, message: str, code: str) -> int:
    try:
        report.failure(message, code)
    except Cancelled:
        pass
    return 1


def _own_standard_output() -> int:
    """A descriptor for the report alone: nothing else that is printed, here or in a child, can get
    between.
    """
    report = os.dup(1)
    os.dup2(2, 1)
    return report


def _cancel(_number: int, _frame: FrameType | None) -> NoReturn:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # once is enough, and cleaning up must not be cut short
    raise Cancelled


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stoker_builder", description="Build one function from a tar on stdin.")
    parser.add_argument("--data-dir", required=True, help="the platform's data folder")
    parser.add_argument("--first-id", type=int, default=FIRST_ID, help="first user id that may be given (root)")
    parser.add_argument("--id-count", type=int, default=ID_COUNT, help="how many user ids from there on")
    default = Bounds()
    parser.add_argument("--disk", type=int, default=default.disk, help="bytes that the build may write")
    parser.add_argument("--files", type=int, default=default.files, help="files that it may make")
    parser.add_argument("--memory", type=int, default=default.memory, help="bytes of memory of all its processes")
    parser.add_argument("--processes", type=int, default=default.processes, help="processes and threads at once")
    parser.add_argument("--cache", type=int, default=default.cache, help="bytes that the shared caches may keep")
    parser.add_argument("--reach", action="append", default=[], help="HOST:PORT here that installers may reach")
    return parser


if __name__ == "__main__":
    sys.exit(main())
