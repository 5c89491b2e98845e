"""A real PostgreSQL for tests: its own cluster in a temporary folder, on a free port, gone afterwards.

    def test_it(postgres):
        postgres.dsn("app")                 # for the user `app`, by password, over TCP
        postgres.rows("app")                # its sessions now, as pg_stat_activity shows them
        postgres.opened("app")              # how many sessions it has ever opened

The fixture is `postgres` in `tests/conftest.py`. As root, the server runs as the system's user `postgres`, since it
refuses to run as root.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
_SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
max_connections = 200
fsync = off
log_connections = on
log_line_prefix = ''
"""
_ACCESS = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


class Postgres:
    """One server. `stop` and `start` keep what is stored; `delete` removes it."""

    def __init__(self) -> None:
        assert _BINARIES, "PostgreSQL is missing: run tests/needs.sh"
        self._programs = _BINARIES[-1].parent
        self.folder = Path(tempfile.mkdtemp(prefix="stoker-pg-", dir="/tmp"))
        self.port = _free_port()
        self._owner: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._owner = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._run("initdb", "-A", "trust", "-U", "postgres", "--no-sync", "-D", str(self._cluster))
        with (self._cluster / "postgresql.conf").open("a") as file:
            file.write(_SETTINGS.format(port=self.port, folder=self.folder))
        (self._cluster / "pg_hba.conf").write_text(_ACCESS)

    def __repr__(self) -> str:
        return f"<Postgres {self.folder} port {self.port}>"

    @property
    def _cluster(self) -> Path:
        return self.folder / "cluster"

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=(self.folder / "out").open("ab"),
            stderr=subprocess.STDOUT,
            **self._owner,
        )
        assert done.returncode == 0, (self.folder / "out").read_text()

    # Its life

    def start(self) -> Postgres:
        self._control("start", "-w", "-l", str(self._log))
        return self

    def stop(self) -> None:
        """Ends every session at once, as an operator's restart does."""
        self._control("stop", "-m", "fast")

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self._cluster), "-s", *arguments)

    def delete(self) -> None:
        try:
            if (self._cluster / "postmaster.pid").exists():
                self._control("stop", "-m", "immediate")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    # Its users

    def make_user(self, name: str, password: str = "first") -> str:
        """Make a user, or give it another password; returns its DSN."""
        with self.connect() as connection:
            known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone()
            verb = sql.SQL("ALTER" if known else "CREATE")
            query = sql.SQL("{} ROLE {} LOGIN PASSWORD {}")
            connection.execute(query.format(verb, sql.Identifier(name), sql.Literal(password)))
        return self.dsn(name, password)

    def dsn(self, name: str, password: str = "first") -> str:
        return f"postgresql://{name}:{password}@127.0.0.1:{self.port}/postgres"

    def connect(self) -> psycopg.Connection[Any]:
        """As the superuser, over the socket in its folder."""
        return psycopg.connect(
            host=str(self.folder), port=self.port, user="postgres", dbname="postgres", autocommit=True
        )

    # What it sees

    def rows(self, user: str) -> list[int]:
        """The pids of the user's sessions."""
        with self.connect() as connection:
            return _rows(connection, user)

    def opened(self, user: str) -> int:
        return self._log.read_text(errors="replace").count(f"connection authorized: user={user} ")

    @contextmanager
    def watching(self, user: str) -> Iterator[list[int]]:
        """Counts the user's sessions, over and over; the list holds every number that was seen."""
        seen: list[int] = []
        done = threading.Event()

        def watch() -> None:
            with self.connect() as connection:
                while not done.is_set():
                    seen.append(len(_rows(connection, user)))
                    time.sleep(0.002)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield seen
        finally:
            done.set()
            thread.join()


def _rows(connection: psycopg.Connection[Any], user: str) -> list[int]:
    return [row[0] for row in connection.execute("SELECT pid FROM pg_stat_activity WHERE usename = %s", [user])]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
