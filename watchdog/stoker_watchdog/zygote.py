"""A warm parent for one revision of one function: its packages are imported before the fork.

It is confined like a replica of that function, since importing packages runs their code. The fork server sends it a
replica's descriptors; it forks, and answers with the pid. A package that starts threads or opens connections when it is
imported cannot be forked from, so such a zygote gives up and the fork server goes on without it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import socket
import stat
import sys
from typing import NoReturn

from stoker_watchdog import logs
from stoker_watchdog.children import exit_text
from stoker_watchdog.confine import STATUS, confine, keep_descriptors, use_paths
from stoker_watchdog.replica import run_replica
from stoker_watchdog.settings import Settings, read_settings

# Numeric libraries start a thread for each core when they load; one thread needs none.
_SINGLE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_MAX_MESSAGE = 256


def run_zygote(settings_descriptor: int, log: int, link_descriptor: int, modules: list[str], parent: int) -> NoReturn:
    """The main function of a zygote, a fresh fork of the fork server, to which `link_descriptor` leads."""
    code = 1
    try:
        settings = read_settings(settings_descriptor)
        keep_descriptors(None, log, link_descriptor)
        confine(settings, parent)
        logs.install("")
        use_paths(_paths(settings))
        for name, value in _SINGLE_THREAD.items():
            os.environ.setdefault(name, value)
        _preload(modules)
        link = socket.socket(fileno=STATUS)
        if reason := _unfit():
            link.send(json.dumps({"unfit": reason}).encode())
        else:
            gc.collect()
            gc.freeze()
            link.send(b'{"warm": true}')
            _serve(link)
        code = 0
    finally:
        os._exit(code)


def _paths(settings: Settings) -> list[str]:
    """With a budget packages only: what the function's own modules open when they load would be one share too many."""
    if not settings.connections or not settings.code:
        return settings.paths
    return [path for path in settings.paths if not path.startswith(settings.code)]


def _unfit() -> str:
    """Why no replica can be forked from this process; empty when it can."""
    if len(os.listdir("/proc/self/task")) > 1:
        return "a package starts threads when it is imported"
    for number in os.listdir("/proc/self/fd"):
        if int(number) > STATUS and _is_socket(int(number)):
            return "a package opens a connection when it is imported"
    return ""


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False  # the one that listed them


def _preload(modules: list[str]) -> None:
    for name in modules:
        if name not in sys.modules:
            try:
                importlib.import_module(name)
            except BaseException:  # what cannot be imported alone is left to the replica
                continue


def _serve(link: socket.socket) -> None:
    children: dict[int, int] = {}
    retired = False
    poll = select.poll()
    poll.register(link, select.POLLIN)
    while children or not retired:
        for descriptor, _ in poll.poll():
            if descriptor == link.fileno():
                retired = not _fork_one(link, children, poll)
            else:
                _reap(descriptor, link, children, poll)


def _fork_one(link: socket.socket, children: dict[int, int], poll: select.poll) -> bool:
    """False when told to retire. Without its fork server it ends at once (parent-death signal)."""
    message, descriptors, _, _ = socket.recv_fds(link, _MAX_MESSAGE, 4)
    if not descriptors:
        return False
    settings, listener, log, status = descriptors
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        run_replica(settings, listener, log, status, parent)
    for descriptor in descriptors:
        os.close(descriptor)
    pidfd = os.pidfd_open(pid)
    children[pidfd] = pid
    poll.register(pidfd, select.POLLIN)
    link.send(json.dumps({"id": message.decode(), "pid": pid}).encode())
    return True


def _reap(pidfd: int, link: socket.socket, children: dict[int, int], poll: select.poll) -> None:
    poll.unregister(pidfd)
    os.close(pidfd)
    pid = children.pop(pidfd)
    _, status = os.waitpid(pid, 0)
    link.send(json.dumps({"pid": pid, "exit": exit_text(status)}).encode())
