"""The fork server: one warm interpreter that makes every replica of this machine by forking itself.

    python -m stoker_watchdog.forkserver --socket PATH --lifeline FD

It is trusted and single-threaded, loads no function's code, and never reads a replica's settings: it only opens what a
replica needs (settings, listening socket, log) and forks. It outlives control, which connects again and asks for the
list; when the supervisor ends (the lifeline closes), it ends every replica and itself.

Each line from control is a command: {"op": "start", "id", "settings", "socket", "log", "key"}, {"op": "stop", "id",
"signal"}, {"op": "forget", "key"}, {"op": "list"}. Each line to control is an event: started, ready, exited,
health, replicas. Everything that a replica or a zygote says is bounded, and not trusted beyond its own function.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stoker_watchdog.children import end_group, exit_text, parent_of
from stoker_watchdog.library import use_library
from stoker_watchdog.orphans import (
    StillThere,
    become_reaper,
    has_ended,
    own_children,
    sweep,
    user_of,
    variable_of,
)
from stoker_watchdog.rehearsal import rehearse
from stoker_watchdog.replica import run_replica
from stoker_watchdog.zygote import run_zygote

log = logging.getLogger("stoker.forkserver")

WORTH_PRELOADING = 0.010
"""Seconds of importing from which on a zygote pays: about what the rest of a start takes."""
MAX_ZYGOTES = 32
_MAX_STATUS = 64 * 1024
MAX_LINES = 20.0
"""So many lines a replica may say of itself at once, and then one a second, which is more than a health check needs."""
_MAX_REASON = 200
_CONTROL_SECONDS = 2.0
_END_SECONDS = 5.0
_KILL_SECONDS = 1.0
_RETIRE = b"!"
_FATAL = (signal.SIGTERM, signal.SIGINT)
RUN = "STOKER_RUN"
"""The environment variable that everything below a fork server carries; its value is the run folder."""
_REPLICA = b"STOKER_REPLICA"


@dataclass
class Replica:
    """One replica that runs. `pid` is 0 until its zygote has told it; `user` is its function's."""

    id: str
    key: str
    path: str
    settings: str
    log: str
    status: socket.socket
    user: int
    pid: int = 0
    ready: bool = False
    heard: bytes = b""
    stop: int = 0
    failure: str = ""
    code: str = ""
    health: str = ""
    lines: float = MAX_LINES
    line_at: float = 0.0


@dataclass
class Zygote:
    key: str
    link: socket.socket
    pid: int
    warm: bool = False
    replicas: dict[int, str] = field(default_factory=dict)


class ForkServer:
    """The loop and its state."""

    def __init__(self, path: str, lifeline: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._replicas: dict[str, Replica] = {}
        self._zygotes: OrderedDict[str, Zygote] = OrderedDict()
        self._zygote_pids: set[int] = set()
        self._unfit: set[str] = set()
        self._controls: dict[socket.socket, bytes] = {}
        self._running = True
        self._pid = os.getpid()
        self._listener = _listen(path, 16)
        self._watch(self._listener, self._accept)
        if lifeline >= 0:
            self._watch(lifeline, self._end)
        wakeup, signalled = socket.socketpair()
        signalled.setblocking(False)
        signal.set_wakeup_fd(signalled.fileno())
        self._wakeup = (wakeup, signalled)
        self._watch(wakeup, self._hear_signal)

    def run(self) -> None:
        while self._running:
            self._turn(None)
        self._end_replicas()

    def _turn(self, seconds: float | None) -> None:
        for ready, _ in self._selector.select(seconds):
            callback: Callable[[Any], None] = ready.data
            callback(ready.fileobj)

    def _end_replicas(self) -> None:
        """Ask every replica to end, give them a moment for their `close` hooks, then end what is left."""
        for id in list(self._replicas):
            self._stop(id, signal.SIGTERM)
        deadline = time.monotonic() + _END_SECONDS
        while self._replicas and time.monotonic() < deadline:
            self._turn(0.05)
        for id in list(self._replicas):
            self._stop(id, signal.SIGKILL)
        deadline = time.monotonic() + _KILL_SECONDS
        while self._replicas and time.monotonic() < deadline:
            self._turn(0.05)

    def _watch(self, source: Any, callback: Callable[[Any], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, callback)

    def _forget_source(self, source: Any) -> None:
        try:
            self._selector.unregister(source)
        except KeyError:
            pass  # it was quiet already

    def _end(self, source: Any) -> None:
        self._forget_source(source)
        self._running = False

    def _hear_signal(self, wakeup: socket.socket) -> None:
        if set(wakeup.recv(4096)).isdisjoint(_FATAL):
            self._tend_orphans()
        else:
            self._running = False

    # Control

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.settimeout(_CONTROL_SECONDS)
        self._controls[connection] = b""
        self._watch(connection, self._hear_control)

    def _hear_control(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            self._forget_source(connection)
            del self._controls[connection]
            connection.close()
            return
        *lines, self._controls[connection] = (self._controls[connection] + data).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))

    def _obey(self, command: dict[str, Any]) -> None:
        operation = command["op"]
        if operation == "start":
            self._start(command)
        elif operation == "stop":
            self._stop(command["id"], command["signal"])
        elif operation == "forget":
            self._unfit.discard(command["key"])
            self._retire(command["key"])
        elif operation == "list":
            replicas = [
                {"id": replica.id, "pid": replica.pid, "ready": replica.ready, "stopping": bool(replica.stop)}
                | {"health": replica.health}
                for replica in self._replicas.values()
            ]
            self._tell({"event": "replicas", "replicas": replicas})

    def _tell(self, event: dict[str, Any]) -> None:
        line = json.dumps(event).encode() + b"\n"
        for connection in list(self._controls):
            try:
                connection.sendall(line)
            except OSError:
                connection.shutdown(socket.SHUT_RDWR)  # its end is noticed when it is read

    # Replicas

    def _start(self, command: dict[str, Any]) -> None:
        ours, theirs = socket.socketpair()
        replica = Replica(
            command["id"],
            command["key"],
            command["socket"],
            command["settings"],
            command["log"],
            ours,
            _owner_of_folder(command["log"]),
        )
        descriptors: list[int] = []
        try:
            descriptors.append(os.open(replica.settings, os.O_RDONLY | os.O_CLOEXEC))
            listener = _listen(replica.path, 1024)
            descriptors.append(listener.detach())
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptors.append(os.open(replica.log, flags, 0o600))
            _give_to_owner_of_folder(descriptors[-1], replica.log)
            descriptors.append(theirs.fileno())
            self._replicas[replica.id] = replica
            self._watch(ours, lambda _: self._hear_replica(replica))
            self._fork(replica, descriptors)
        except OSError as error:
            self._replicas.pop(replica.id, None)
            self._forget_source(ours)
            ours.close()
            self._tell({"event": "exited", "id": replica.id, "exit": str(error), "failure": f"cannot start: {error}"})
        finally:
            for descriptor in descriptors[:3]:
                os.close(descriptor)
            theirs.close()

    def _fork(self, replica: Replica, descriptors: list[int]) -> None:
        zygote = self._zygotes.get(replica.key)
        if zygote is not None and zygote.warm:
            self._zygotes.move_to_end(replica.key)
            try:
                socket.send_fds(zygote.link, [replica.id.encode()], descriptors)
            except OSError:
                self._retire(replica.key)
            else:
                return
        pid = _fork()
        if pid == 0:
            settings, listener, log_file, status = descriptors
            run_replica(settings, listener, log_file, status, self._pid)
        self._follow(replica, pid)
        pidfd = os.pidfd_open(pid)
        self._watch(pidfd, lambda fd: self._reap(fd, replica, pid))

    def _follow(self, replica: Replica, pid: int) -> None:
        replica.pid = pid
        self._tell({"event": "started", "id": replica.id, "pid": pid})
        if replica.stop:
            self._stop(replica.id, replica.stop)

    def _stop(self, id: str, number: int) -> None:
        replica = self._replicas.get(id)
        if replica is None:
            return
        replica.stop = number
        if replica.pid and number == signal.SIGKILL:
            end_group(replica.pid)
            _kill(replica.pid, number)  # it may not lead its group yet
        elif replica.pid:
            _kill(replica.pid, number)
        elif number == signal.SIGKILL and replica.key in self._zygotes:
            _kill(self._zygotes[replica.key].pid, number)  # it was asked to fork and has not answered

    def _reap(self, pidfd: int, replica: Replica, pid: int) -> None:
        self._forget_source(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        self._gone(replica, exit_text(status))

    def _gone(self, replica: Replica, how: str) -> None:
        if self._replicas.pop(replica.id, None) is None:
            return
        self._hear_rest(replica)
        self._forget_source(replica.status)
        replica.status.close()
        if replica.pid:
            end_group(replica.pid)  # what the function started and left behind
        for path in (replica.path, replica.settings):
            _unlink(path)
        self._tend_orphans()
        failure = {"failure": replica.failure, "code": replica.code}
        self._tell({"event": "exited", "id": replica.id, "exit": how} | failure)

    # What functions leave behind

    def _tend_orphans(self) -> None:
        """Processes that lost their parent are our children now: end those whose replica has ended."""
        known = self._zygote_pids.union(replica.pid for replica in self._replicas.values())
        for pid in own_children():
            if pid not in known and not has_ended(pid) and self._is_left_behind(pid):
                _kill(pid, signal.SIGKILL)

    def _is_left_behind(self, pid: int) -> bool:
        user = user_of(pid)
        id = variable_of(pid, _REPLICA)
        if id is None:  # a plain fork has our environment, and a careful one none: as root its user tells
            return all(replica.user != user for replica in self._replicas.values())
        replica = self._replicas.get(id.decode(errors="replace"))
        return replica is None or replica.user != user

    def _hear_rest(self, replica: Replica) -> None:
        replica.status.setblocking(False)
        while self._read_status(replica):
            pass

    def _hear_replica(self, replica: Replica) -> None:
        self._read_status(replica)

    def _read_status(self, replica: Replica) -> bool:
        """Take what the replica says of itself; False when there is nothing more."""
        try:
            data = replica.status.recv(_MAX_STATUS)
        except OSError:
            return False
        if not data:
            self._forget_source(replica.status)  # its end is closed, and select would call for ever
            return False
        *lines, replica.heard = (replica.heard + data).split(b"\n")
        for line in lines:
            if not _may_speak(replica):
                return self._hear_no_more(replica)
            self._take_status(replica, line)
        return len(replica.heard) <= _MAX_STATUS or self._hear_no_more(replica)

    def _hear_no_more(self, replica: Replica) -> bool:
        """It says too much: what it said last stays."""
        self._forget_source(replica.status)
        return False

    def _take_status(self, replica: Replica, line: bytes) -> None:
        try:
            status = json.loads(line)
            if "ready" in status and not replica.ready:
                replica.ready = True
                told = dict(status["ready"])
                seconds, modules = float(told.get("seconds", 0)), [str(m) for m in told.get("imports", ())]
                self._tell({"event": "ready", "id": replica.id, "seconds": seconds, "health": replica.health})
                self._consider_zygote(replica, seconds, modules)
            elif "failed" in status:
                replica.failure = str(status["failed"])[:2000]
                replica.code = str(status.get("code", ""))[:40]
            elif "health" in status:
                self._take_health(replica, " ".join(str(status["health"])[:2000].split())[:_MAX_REASON])
        except (ValueError, KeyError, TypeError, RecursionError):
            return  # a function's code wrote there; what it says has no weight

    def _take_health(self, replica: Replica, reason: str) -> None:
        """What it says before it is ready is told with that."""
        if reason != replica.health:
            replica.health = reason
            if replica.ready:
                self._tell({"event": "health", "id": replica.id, "health": reason})

    # Zygotes

    def _consider_zygote(self, replica: Replica, seconds: float, modules: list[str]) -> None:
        key = replica.key
        if seconds < WORTH_PRELOADING or key in self._zygotes or key in self._unfit:
            return
        modules = [name for name in modules if name.partition(".")[0] not in ("function", "handler")]
        if not modules:
            return
        while len(self._zygotes) >= MAX_ZYGOTES:
            self._retire(next(iter(self._zygotes)))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        settings = os.open(replica.settings, os.O_RDONLY | os.O_CLOEXEC)
        sink = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        pid = _fork()
        if pid == 0:
            run_zygote(settings, sink, theirs.fileno(), modules, self._pid)
        os.close(settings)
        os.close(sink)
        theirs.close()
        ours.setblocking(False)  # a zygote that does not read must not stop us
        self._zygote_pids.add(pid)
        zygote = self._zygotes[key] = Zygote(key, ours, pid)
        self._watch(ours, lambda _: self._hear_zygote(zygote))

    def _hear_zygote(self, zygote: Zygote) -> None:
        try:
            message = json.loads(zygote.link.recv(_MAX_STATUS) or b"null")
        except (OSError, ValueError):
            message = None
        if not isinstance(message, dict):
            self._bury(zygote)
        elif "warm" in message:
            zygote.warm = True
        elif "unfit" in message:
            self._unfit.add(zygote.key)
        elif "id" in message:
            self._adopt(zygote, message)
        elif "exit" in message:
            replica = self._replicas.get(zygote.replicas.pop(_pid_in(message), ""))
            if replica is not None:
                self._gone(replica, str(message["exit"])[:200])

    def _adopt(self, zygote: Zygote, message: dict[str, Any]) -> None:
        replica = self._replicas.get(str(message["id"]))
        pid = _pid_in(message)
        if replica is None or replica.key != zygote.key or replica.pid or parent_of(pid) != zygote.pid:
            return  # the zygote runs a function's code: it may only speak of its own children
        zygote.replicas[pid] = replica.id
        self._follow(replica, pid)

    def _bury(self, zygote: Zygote) -> None:
        """The zygote has ended; its replicas ended with it (parent-death signal)."""
        self._forget_source(zygote.link)
        zygote.link.close()
        _kill(zygote.pid, signal.SIGKILL)  # it may only have closed its link, and waiting for it would stop us all
        os.waitpid(zygote.pid, 0)
        self._zygote_pids.discard(zygote.pid)
        if self._zygotes.get(zygote.key) is zygote:
            del self._zygotes[zygote.key]
        for replica in list(self._replicas.values()):
            if replica.id in zygote.replicas.values() or (replica.key == zygote.key and not replica.pid):
                self._gone(replica, "its zygote ended")

    def _retire(self, key: str) -> None:
        """Fork from this zygote no more. It ends by itself when the replicas that it made have ended."""
        zygote = self._zygotes.pop(key, None)
        if zygote is not None:
            try:
                zygote.link.send(_RETIRE)
            except OSError:
                pass  # it has ended, and its link's end is noticed when it is read


def _listen(path: str, backlog: int) -> socket.socket:
    """A unix socket that only this user can connect to."""
    _unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(old_mask)
    listener.listen(backlog)
    return listener


def _owner_of_folder(path: str) -> int:
    try:
        return os.stat(os.path.dirname(path)).st_uid
    except OSError:
        return -1


def _give_to_owner_of_folder(descriptor: int, path: str) -> None:
    """The log belongs to whom its folder belongs to, who must be able to put it aside when it is full."""
    folder = os.stat(os.path.dirname(path))
    if os.geteuid() == 0:
        os.fchown(descriptor, folder.st_uid, folder.st_gid)


def _may_speak(replica: Replica) -> bool:
    now = time.monotonic()
    replica.lines = min(MAX_LINES, replica.lines + now - replica.line_at)
    replica.line_at = now
    replica.lines -= 1
    return replica.lines >= 0


def _pid_in(message: dict[str, Any]) -> int:
    pid = message.get("pid")
    return pid if isinstance(pid, int) else 0


def _fork() -> int:
    """Fork with our signals held back, so that one sent to the child meets the child's handlers and not ours."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _FATAL)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FATAL)
    return pid


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(prog="stoker_watchdog.forkserver")
    parser.add_argument("--socket", required=True)
    parser.add_argument("--executable", default="", help="the Python that functions see")
    parser.add_argument("--library", action="append", default=[], help="an entry of their sys.path, in order")
    parser.add_argument("--lifeline", type=int, default=-1)
    parser.add_argument("--ready-fd", type=int, default=-1)
    arguments = parser.parse_args()
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s forkserver %(levelname)s %(message)s"
    )
    run = os.environ.get(RUN, "")
    os.environ.clear()  # what a replica is to see, it is given; and it need not undo ours
    use_library(arguments.executable, arguments.library)
    rehearse()
    for number in (*_FATAL, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)  # the wake-up descriptor tells the loop
    _sweep(run)
    become_reaper()
    server = ForkServer(arguments.socket, arguments.lifeline)
    gc.collect()
    gc.freeze()
    if arguments.ready_fd >= 0:
        try:
            os.write(arguments.ready_fd, b"ready\n")
        except BrokenPipeError:
            pass  # started again: nobody waits
        os.close(arguments.ready_fd)
    server.run()
    _sweep(run)


def _sweep(run: str) -> None:
    """End what an earlier fork server of this run folder left, or what our own replicas do."""
    if run:
        try:
            sweep(RUN, run)
        except StillThere as error:
            log.error("%s", error)
            sys.exit(1)


if __name__ == "__main__":
    main()
