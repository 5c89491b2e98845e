"""Programs that a build runs: the package installer and the function's tests.

Both run code that strangers wrote, so each gets a user id (as root), limits, an environment of its own and
nothing else; and whatever it started ends with it, also what tried to hide in another session.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from stoker_builder.control_group import ControlGroup
from stoker_builder.descendants import tasks_below
from stoker_builder.network import enter_network
from stoker_builder.own_files import OwnFiles
from stoker_sdk.errors import StokerError
from stoker_sdk.processes import die_with_parent, give_way

MAX_LINES = 10_000
"""Log lines taken from one program; the rest is counted only."""

_LONGEST = 65536
_CHILDREN = Path("/proc/thread-self/children")
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_WATCH_EVERY = 200
"""Milliseconds."""
_REAP_EVERY = 0.01
"""Seconds."""


class TimedOut(StokerError):
    """A program ran longer than its limit and was killed."""


@dataclass(frozen=True)
class Account:
    """Who a program runs as: user id (and group of the same number), and more groups."""

    user: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class Limits:
    """`seconds` for the whole run; `memory` in bytes for each process, `processes` in number, `file_size` in bytes for
    each file that it writes; 0 meaning none.
    """

    seconds: float
    memory: int = 0
    processes: int = 0
    file_size: int = 0


@dataclass(frozen=True)
class Program:
    """What to run: everything that it gets is here. Without an account it runs as the builder's own user. `temporary`
    is a folder of its own, which stands for `/tmp` where it has files of its own. `network` is that of `own_network`.
    """

    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    limits: Limits
    account: Account | None = None
    temporary: Path | None = None
    network: int | None = None


@dataclass(frozen=True)
class Confinement:
    """What all programs of a build have in common, where the platform is root and the kernel lets it."""

    group: ControlGroup | None = None
    files: OwnFiles | None = None


class Children:
    """Runs programs one after the other, and leaves nothing of them behind.

    Only for a process that has no other children: it makes itself the reaper of all orphans below it.
    """

    def __init__(self, check: Callable[[bool], None], confinement: Confinement = Confinement()) -> None:
        """`check` is called several times a second while a program runs, and once with True when it has ended. It
        raises to end the program, or to say what the program's own end does not.
        """
        self._check = check
        self._confinement = confinement
        self.kept: set[int] = set()
        """Pids of our own that serve the programs, and go on when one has ended."""
        adopt_orphans()

    def run(
        self, program: Program, on_line: Callable[[str], None], process: subprocess.Popen[bytes] | None = None
    ) -> int:
        """The exit code of the program, whose output goes to `on_line` line by line. A `process` runs it already.

        Negative for a signal, as in `subprocess`. Raises `TimedOut`, and whatever `check` raises.
        """
        lines = _Lines(on_line)
        try:
            process = process or start(program, self._confinement)
            self._relay(process, program, lines)
        finally:
            end(process, self.kept)
            if process is not None and process.stdout is not None:
                with process.stdout:
                    lines.read_rest(process.stdout.fileno())
        self._check(True)
        assert process.returncode is not None
        return process.returncode

    def wait_for(self, descriptor: int, seconds: float) -> bool:
        """Whether there is something to read within that time, be it the end. Raises whatever `check` raises."""
        deadline = time.monotonic() + seconds
        while not select.select([descriptor], [], [], _WATCH_EVERY / 1000)[0]:
            self._check(False)
            if time.monotonic() > deadline:
                return False
        return True

    def _relay(self, process: subprocess.Popen[bytes], program: Program, lines: _Lines) -> None:
        """Pass the output on until the program itself has ended; its descendants are not waited for."""
        assert process.stdout is not None
        output, ended = process.stdout.fileno(), os.pidfd_open(process.pid)
        deadline = time.monotonic() + program.limits.seconds
        poll = select.poll()
        poll.register(output, select.POLLIN)
        poll.register(ended, select.POLLIN)
        try:
            while True:
                ready = dict(poll.poll(_WATCH_EVERY))
                _reap({process.pid, *self.kept})
                self._check(False)
                if output in ready and not lines.read(output):
                    poll.unregister(output)
                if ended in ready:
                    break
                if time.monotonic() > deadline:
                    raise TimedOut(f"took longer than {program.limits.seconds:g} seconds")
        finally:
            os.close(ended)


class _Lines:
    """Cuts what is read into lines, and passes on the first `MAX_LINES` of them."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""
        self._count = 0

    def read(self, descriptor: int) -> bool:
        """Read once. False at the end of the stream."""
        try:
            data = os.read(descriptor, _LONGEST)
        except BlockingIOError:
            return True
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST:
            whole, self._rest = [*whole, self._rest], b""
        for line in whole:
            self._pass(line)
        return bool(data)

    def read_rest(self, pipe: int) -> None:
        """What the pipe holds at most, so that nobody who still writes goes on with it for ever."""
        for _ in range(fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) // _LONGEST + 1):
            if not self.read(pipe):
                break
        if self._rest:
            self._pass(self._rest)
        if self._count > MAX_LINES:
            self._on_line(f"({self._count - MAX_LINES} more lines are left out)")

    def _pass(self, line: bytes) -> None:
        self._count += 1
        if self._count <= MAX_LINES:
            self._on_line(line.decode(errors="replace").rstrip("\r"))


def end_all_of(user: int) -> None:
    """Kill every process of a user id, as a build that died left them (root only)."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            os.kill(-1, signal.SIGKILL)  # everybody but this process itself
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def adopt_orphans() -> None:
    """What our children leave behind becomes our child, and is ended by `end`."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start(program: Program, confinement: Confinement, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Raises OSError. `Children` runs it to its end, or `end` ends it."""
    process = subprocess.Popen(
        list(program.command),
        cwd=program.folder,
        env=dict(program.environment),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        umask=0o022,
        preexec_fn=lambda: _confine(program, confinement),  # safe: this process has one thread
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    give_way(process.pid)
    return process


def _confine(program: Program, confinement: Confinement) -> None:
    """In the new process, before its program: what needs root's rights, then without them what a change of the user id
    would undo.
    """
    if confinement.group is not None:
        confinement.group.join()
    if program.network is not None:
        enter_network(program.network)
    if confinement.files is not None and program.temporary is not None:
        confinement.files.enter(program.temporary)
        os.chdir(program.folder)  # the one that we were started in is the machine's, read-only now
    if program.account is not None:
        os.setgroups(program.account.groups)
        os.setresgid(*[program.account.user] * 3)
        os.setresuid(*[program.account.user] * 3)
    _set_limits(program.limits)


def _set_limits(limits: Limits) -> None:
    die_with_parent()
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.memory:
        # Not RLIMIT_AS: address space that is only reserved (threads, numerical libraries) is not memory.
        _lower(resource.RLIMIT_DATA, limits.memory)
    if limits.processes:
        _lower(resource.RLIMIT_NPROC, limits.processes)
    if limits.file_size:
        _lower(resource.RLIMIT_FSIZE, limits.file_size)


def _lower(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (bound, bound))


def end(process: subprocess.Popen[bytes] | None, kept: Set[int] = frozenset()) -> None:
    """Leave nothing of the program, if it is there, and of what it started; children that are `kept` go on."""
    try:
        _end_all(process, kept)
    finally:
        _end_all(process, kept)  # what cancels a build may have cut the first one short


def _end_all(process: subprocess.Popen[bytes] | None, kept: Set[int]) -> None:
    """Kill the program if it is there, and what left its group: as orphans they have become our children, generation
    by generation.

    All are stopped before the first is killed, since each one's end gives those a place that fork without end; and all
    are killed, again and again, before anybody is waited for: one that another traces is ours to reap only when its
    tracer has ended.
    """
    stopped: set[int] = set()
    while _are_left(process, kept) and (running := _all_below(kept) - stopped):
        for pid in running:
            _signal(pid, signal.SIGSTOP)
        stopped |= running
    while _are_left(process, kept):
        for pid in _all_below(kept):
            _signal(pid, signal.SIGKILL)
        time.sleep(_REAP_EVERY)


def _are_left(process: subprocess.Popen[bytes] | None, kept: Set[int]) -> bool:
    """Whether we have children when those that have ended are reaped."""
    if process is not None and process.poll() is None:
        return True
    _reap(kept)
    return bool(_children(kept))


def _all_below(kept: Set[int]) -> set[int]:
    return set(tasks_below(os.getpid()).pids) - kept


def _reap(besides: Set[int]) -> None:
    """Those that have ended. While their program goes on they would count as processes of it."""
    for child in _children(besides):
        os.waitpid(child, os.WNOHANG)


def _children(besides: Set[int]) -> set[int]:
    return set(map(int, _CHILDREN.read_text().split())) - besides


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass
