"""Other programs that ours run: git, docker, buildctl. Never through a shell, and never without a reason
that a person can read when one is missing or fails.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from stoker_sdk.errors import NotFound, StokerError

_KEPT = 20
"""Last lines of a program's output that its failure is explained with."""
_GRACE = 5.0


def find_program(name: str, reason: str, environment: Mapping[str, str]) -> str:
    """The program's path. Raises `NotFound`, with what it would be needed for."""
    path = shutil.which(name, path=environment.get("PATH"))
    if path is None:
        raise NotFound(f"the program {name!r} is not installed here, and {reason}: install it and try again")
    return path


def follow(
    command: Sequence[str],
    log: Callable[[str], None],
    environment: Mapping[str, str],
    folder: Path | None = None,
    prepare: Callable[[], None] | None = None,
    seconds: float = 0.0,
) -> None:
    """Run a program to its end and pass its lines on. Raises `StokerError` with the last ones when it fails.

    `prepare` runs in the child before the program does, to set limits. After so many `seconds` it is stopped; 0: never.
    """
    last: deque[str] = deque(maxlen=_KEPT)
    shown = " ".join([Path(command[0]).name, *command[1:3]])
    with _started(command, environment, folder, prepare) as process, _stopped_after(seconds, process) as is_late:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                last.append(line.rstrip())
                log(line.rstrip())
        except BaseException:
            process.terminate()
            raise
    if is_late.is_set():
        raise StokerError(f"`{shown}` took longer than {seconds:g} seconds and was stopped")
    if process.returncode:
        reason = next((line for line in reversed(last) if line.strip()), "it printed no reason")
        raise StokerError(f"`{shown}` failed with exit code {process.returncode}: {reason[:300]}")


@contextmanager
def _stopped_after(seconds: float, process: subprocess.Popen[str]) -> Iterator[threading.Event]:
    """Gives what is set when the time is over. The program may end what it started before it is killed."""
    is_late = threading.Event()

    def stop() -> None:
        is_late.set()
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()

    if not seconds:
        yield is_late
        return
    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        yield is_late
        process.wait()
    finally:
        timer.cancel()
        timer.join()  # so that the next program is forked by a process of one thread


def output_of(command: Sequence[str], environment: Mapping[str, str], folder: Path | None = None) -> str:
    """What a quick program prints, without white space around it. Raises `StokerError` when it fails."""
    lines: list[str] = []
    follow(command, lines.append, environment, folder)
    return "\n".join(lines).strip()


def _started(
    command: Sequence[str], environment: Mapping[str, str], folder: Path | None, prepare: Callable[[], None] | None
) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(environment),
            text=True,
            errors="replace",
            preexec_fn=prepare,
        )
    except OSError as error:
        raise StokerError(f"{command[0]} cannot be run: {error.strerror}") from None
