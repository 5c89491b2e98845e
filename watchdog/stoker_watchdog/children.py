"""What can be said and done about child processes and their groups."""

from __future__ import annotations

import os
import signal


def end_group(leader: int, number: int = signal.SIGKILL) -> None:
    """Signal every process of a session's group, its leader dead or alive."""
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        pass


def exit_text(status: int) -> str:
    """How a process ended, by its wait status: `exit code 1`, `killed by SIGKILL`."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"killed by {signal.Signals(number).name}"
        except ValueError:
            return f"killed by signal {number}"
    return f"exit code {os.WEXITSTATUS(status)}"


def parent_of(pid: object) -> int:
    """The parent's pid, 0 when there is no such process."""
    try:
        with open(f"/proc/{int(pid)}/stat", "rb") as stat:  # type: ignore[call-overload]
            return int(stat.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, TypeError, IndexError):
        return 0
