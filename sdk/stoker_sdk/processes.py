"""What a child process of the platform does about its parent's death, and about its neighbours (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_NICENESS = 10

PARENT_IS_INIT = "STOKER_PARENT_IS_INIT"
"""A supervisor that is process 1, as in a container, sets this variable: then 1 is an honest parent, with which the
kernel ends all other processes."""


def die_with_parent() -> None:
    """Be killed when the parent process ends, however it ends, so that no orphan is left behind.

    The parent must have started us from its main thread, because the kernel watches the thread. A parent that was
    already gone is noticed by its pid having become 1's or a subreaper's, which the caller cannot tell from an honest
    parent; so the window of a few microseconds before this call stays open, and the next start sweeps it up.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1 and PARENT_IS_INIT not in os.environ:
        os._exit(1)


def give_way(pid: int = 0) -> None:
    """Let functions that serve come first: where all want the processor, this process, or that of the pid, and what it
    starts from now on gets a tenth of what they do.

    Most kernels look at niceness only within a session, and share the processor out evenly among sessions (autogroup,
    sched(7)). So its session gives way as a whole, if it is of its own.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, pid, max(_NICENESS, os.getpriority(os.PRIO_PROCESS, pid)))
        if os.getsid(pid) == (pid or os.getpid()):
            Path(f"/proc/{pid or 'self'}/autogroup").write_text(str(_NICENESS))
    except OSError:
        pass  # it has ended, or the kernel has no such groups


def say_ready(descriptor: int, line: bytes) -> None:
    """Tell the supervisor that we answer. One that has started us again does not listen."""
    try:
        os.write(descriptor, line + b"\n")
    except BrokenPipeError:
        pass
    os.close(descriptor)
