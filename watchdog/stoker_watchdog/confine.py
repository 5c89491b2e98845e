"""Turns a fresh fork into a process that may do what its function may, and nothing else.

The order matters: what needs root comes first, and the parent-death signal comes after the change of user, which clears
it. Only the descriptors named are kept; the environment is exactly what was given.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import sys

from stoker_watchdog.settings import Settings

LISTENER = 3
STATUS = 4

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_MAX_FILES = 65536

_prctl = ctypes.CDLL(None, use_errno=True).prctl


def keep_descriptors(listener: int | None, log: int, status: int) -> None:
    """Put the descriptors where a replica expects them: 0 null, 1 and 2 log, 3 listener, 4 status. Close all others."""
    null = os.open(os.devnull, os.O_RDWR)
    wanted = {0: null, 1: log, 2: log, LISTENER: null if listener is None else listener, STATUS: status}
    # Out of the way first, so that no move overwrites one that is still to be moved.
    high = {goal: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, 64) for goal, source in wanted.items()}
    for goal, source in high.items():
        os.dup2(source, goal, inheritable=goal <= 2)
    os.closerange(STATUS + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def confine(settings: Settings, parent: int) -> None:
    """Own session, limits, user, environment, folder; killed when the parent, a pid, ends."""
    if os.getpid() != os.getsid(0):
        os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o077)
    _limit(settings)
    if settings.user >= 0 and os.geteuid() == 0:  # a zygote's fork has its user already
        os.setgroups(settings.groups)
        os.setresgid(settings.user, settings.user, settings.user)
        os.setresuid(settings.user, settings.user, settings.user)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # A change of user makes /proc/self root's, which common libraries stumble over; it is our own user's again.
    _prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it has ended before we could ask for the signal
    os.environ.clear()
    os.environ.update(settings.environment)
    os.chdir(settings.code or "/")


def _limit(settings: Settings) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if settings.memory:
        # Private data beyond what the warm interpreter has: RLIMIT_AS would count shared libraries and stacks too.
        most = resource.getrlimit(resource.RLIMIT_DATA)[1]
        bound = settings.memory + _data_size()
        if most != resource.RLIM_INFINITY:
            bound = min(bound, most)  # a zygote's fork has its zygote's limit already
        resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
    if settings.cores:
        allowed = sorted(os.sched_getaffinity(0))
        wanted = max(1, -int(-settings.cores // 1))
        if wanted < len(allowed):
            start = hash(settings.id) % len(allowed)
            os.sched_setaffinity(0, {allowed[(start + n) % len(allowed)] for n in range(wanted)})


def _data_size() -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return 0


def use_paths(paths: list[str]) -> None:
    """The function's folders before the standard library."""
    sys.path[:0] = paths
    # A function that brings these itself imports its own; the engine keeps the objects that it holds.
    for name in ("httptools", "uvloop"):
        if any(os.path.isdir(f"{path}/{name}") for path in paths):
            for loaded in [module for module in sys.modules if module.partition(".")[0] == name]:
                del sys.modules[loaded]
