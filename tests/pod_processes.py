"""The processes of a pod, seen from its node, which is this machine: to kill them, and to count connections."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def processes_of(pod: str) -> list[int]:
    """The pids of the container that has this pod's name as its host name; needs root."""
    first = next((pid for pid in _all_pids() if f"HOSTNAME={pod}".encode() in _environment(pid)), 0)
    space = _space(first)
    return [pid for pid in _all_pids() if space and _space(pid) == space]


def kill_pod(pod: str) -> int:
    """SIGKILL to every process of the pod's container at once; how many there were."""
    pids = processes_of(pod)
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return len(pids)


def connections(pod: str, port: int) -> set[str]:
    """The pod's IPv4 connections to this port of anybody, those that ended within the last minute included.

    Each is `LOCAL REMOTE` as the kernel writes them; one that the other side has closed may be missing.
    """
    lines = Path(f"/proc/{processes_of(pod)[0]}/net/tcp").read_text().splitlines()[1:]
    ends = (line.split()[1:3] for line in lines)
    return {f"{local} {remote}" for local, remote in ends if remote.endswith(f":{port:04X}")}


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _environment(pid: int) -> set[bytes]:
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return set()


def _space(pid: int) -> str:
    """Its process namespace, which its container has for itself; empty for what has ended."""
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""
