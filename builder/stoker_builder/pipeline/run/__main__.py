"""`python -m stoker_builder.pipeline.run`: one run. Its job comes on standard input, its reports go to standard output
(`pipeline/job.py`). It ends with the pipeline, and leaves nothing behind.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec

from stoker_builder.errors import Cancelled, is_full_disk
from stoker_builder.images.kinds import LOCAL
from stoker_builder.pipeline.job import Job
from stoker_builder.pipeline.run.checkout import check_out
from stoker_builder.pipeline.run.functions import Superseded, deploy_all, remove_all
from stoker_builder.pipeline.run.gateway import Gateway
from stoker_builder.pipeline.run.images import Images
from stoker_builder.pipeline.run.manifest import read_manifest
from stoker_builder.pipeline.run.teller import Teller
from stoker_builder.staging import staging_folder
from stoker_sdk.errors import StokerError
from stoker_sdk.processes import die_with_parent, give_way
from stoker_sdk.runs import FAILED, GONE, SUCCEEDED, SUPERSEDED


def main() -> int:
    """Returns the exit code."""
    die_with_parent()
    give_way()
    os.umask(0o022)
    teller = Teller(_own_standard_output())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _cancel)
    try:
        line = sys.stdin.buffer.readline()
        if line:
            _end(teller, *_run(msgspec.json.decode(line, type=Job), teller))
    except StokerError as error:
        _end(teller, FAILED, str(error))
    except (Cancelled, BrokenPipeError):
        return 1
    except Exception as error:
        if is_full_disk(error):
            _end(teller, FAILED, "the platform's disk is full: make room, and `stoker runs retry` this run")
            return 0
        logging.exception("the run broke")
        _end(teller, FAILED, "the run broke by a fault of the platform: its log says more")
    return 0


def _end(teller: Teller, state: str, reason: str) -> None:
    """The last word. The pipeline ends us then, and there is nothing left to tidy up."""
    _ignore_signals()
    teller.end(state, reason)


def _run(job: Job, teller: Teller) -> tuple[str, str]:
    gateway = Gateway(job.gateway, Path(job.password_file), job.namespace)
    push = job.run.push
    if push.sha == GONE:
        if stop := teller.may_deploy():
            return SUPERSEDED, stop
        remove_all(job.run, gateway, teller)
        return SUCCEEDED, ""
    with staging_folder(Path(job.folder)) as staging:
        folder = staging / "source"
        folder.mkdir(mode=0o700)
        with teller.timed("checkout"):
            check_out(job.remote, push.sha, folder, teller.log)
        with teller.timed("stack"):
            as_images = job.images.builder != LOCAL
            manifest = read_manifest(folder, job.run, Path(job.seal_key), as_images=as_images)
        for note in manifest.notes:
            teller.log(note)
        try:
            images = Images(job.images, staging / "images", gateway)
            deploy_all(manifest, job.run, gateway, images, teller, url=job.public_url, seconds=job.ready_seconds)
        except Superseded as stop:
            return SUPERSEDED, str(stop)
    failed = teller.has_failed()
    return (FAILED, "; ".join(f"{each.name}: {each.reason}" for each in failed)) if failed else (SUCCEEDED, "")


def _own_standard_output() -> int:
    """A descriptor for the reports alone."""
    reports = os.dup(1)
    os.dup2(2, 1)
    return reports


def _cancel(_number: int, _frame: FrameType | None) -> NoReturn:
    _ignore_signals()  # once is enough, and cleaning up must not be cut short
    raise Cancelled


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
