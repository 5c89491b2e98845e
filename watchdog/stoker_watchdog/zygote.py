"""A warm parent for one revision of one function: its packages are imported before the fork.

It is confined like a replica of that function, since importing packages runs their code. The fork server sends it a
replica's descriptors; it forks, and answers with the pid. A package that starts threads when it is imported cannot be
forked from, so such a zygote gives up and the fork server goes on without it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import socket
import sys
from typing import NoReturn

from stoker_watchdog import logs
from stoker_watchdog.children import exit_text
from stoker_watchdog.confine import STATUS, confine, keep_descriptors, use_paths
from stoker_watchdog.replica import run_replica
from stoker_watchdog.settings import read_settings

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
        use_paths(settings.paths)
        for name, value in _SINGLE_THREAD.items():
            os.environ.setdefault(name, value)
        _preload(modules)
        link = socket.socket(fileno=STATUS)
        if len(os.listdir("/proc/self/task")) > 1:
            link.send(json.dumps({"unfit": "a package starts threads when it is imported"}).encode())
        else:
            gc.collect()
            gc.freeze()
            link.send(b'{"warm": true}')
            _serve(link)
        code = 0
    finally:
        os._exit(code)


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
