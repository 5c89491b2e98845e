"""One replica alone of a Node and of a Go function against the plain HTTP server of its language, on one core.

The replica is the real process body in mode `native`, which becomes the function's program; it listens on TCP, because
wrk speaks no unix sockets. The peer reads the body and sends the same answer.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.load import Subject, duel, rate_figure
from bench.processes import TEST_CORE, BenchError, Started, answers, free_port, running
from bench.replica import started_replica
from bench.report import Figure

_BENCH = Path(__file__).parent
_TEMPLATES = _BENCH.parent / "templates"
_CONNECTIONS = 32


def node_figures(folder: Path) -> list[Figure]:
    """`node_vs_http`."""
    code = _copy("node", folder / "code", _BENCH / "functions" / "hello_node")
    peer = ["node", str(_BENCH / "peers" / "node_http.js")]
    return [_figure("node_vs_http", folder, code, ["node", "index.js"], peer)]


def go_figures(folder: Path) -> list[Figure]:
    """`go_vs_http`."""
    code = _copy("go", folder / "code", _BENCH / "functions" / "hello_go")
    _go_build(code, code / "handler")
    _go_build(_BENCH / "peers" / "go_http" / "main.go", folder / "peer")
    return [_figure("go_vs_http", folder, code, ["./handler"], [str(folder / "peer")])]


def _copy(template: str, code: Path, handler: Path) -> Path:
    """The folder of an artefact, as the builder lays it out."""
    shutil.copytree(_TEMPLATES / template, code, ignore=shutil.ignore_patterns("function"))
    shutil.copytree(handler, code / "function")
    return code


def _go_build(source: Path, target: Path) -> None:
    folder, what = (source, ".") if source.is_dir() else (source.parent, source.name)
    for command in (["generate", what], ["build", "-trimpath", "-o", str(target), what]):
        done = subprocess.run(["go", *command], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"go {command[0]} failed: {done.stderr.strip()}")


def _figure(key: str, folder: Path, code: Path, command: Sequence[str], peer: Sequence[str]) -> Figure:
    with ExitStack() as stack:
        ours = stack.enter_context(started_replica(folder, mode="native", command=list(command), code=str(code)))
        plain = stack.enter_context(_plain(folder, peer))
        subjects = [_subject("replica", ours), _subject("plain", plain)]
        result = duel(subjects, connections=_CONNECTIONS, seconds=3, rounds=6)
    return rate_figure(key, result, "replica", "plain")


def _subject(name: str, started: Started) -> Subject:
    return Subject(name, started.url, (started.pid,))


@contextmanager
def _plain(folder: Path, command: Sequence[str]) -> Iterator[Started]:
    port = free_port()
    with running([*command, str(port)], core=TEST_CORE, log=folder / "plain.log") as process:
        url = f"http://127.0.0.1:{port}/"
        answers(url, process)
        yield Started(process.pid, url, port)
