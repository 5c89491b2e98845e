"""The builder as control runs it: a process that is given a tar and answers with lines of JSON."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from stoker_builder.artefact import Artefact
from stoker_sdk.data_dir import DataDir
from stoker_sdk.ids import first_id_of

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("wire", "sdk", "builder")
COMMAND: tuple[str, ...] = ()
"""What starts the builder, such as in namespaces of its own."""


@dataclass(frozen=True)
class Outcome:
    """How a build ended: its log lines, its last line, its exit code, what came on standard error."""

    log: list[str]
    result: dict[str, object]
    code: int
    errors: str

    @property
    def image(self) -> str:
        assert "image" in self.result, (self.result, self.log, self.errors)
        return str(self.result["image"])

    @property
    def error(self) -> str:
        assert "error" in self.result, self.result
        return str(self.result["error"])


def request_tar(
    files: Mapping[str, str | bytes],
    *,
    name: str = "greet",
    lang: str = "python3",
    args: Mapping[str, str] | None = None,
    template: Mapping[str, str] | None = None,
    offline: bool = False,
    secrets: Mapping[str, str] | None = None,
) -> bytes:
    """A build request with these handler files."""
    about = {
        "name": name,
        "lang": lang,
        "buildArgs": dict(args or {}),
        "offline": offline,
        "secrets": dict(secrets or {}),
    }
    settings = json.dumps(about)
    own = {f"template/{path}": content for path, content in (template or {}).items()}
    members = {"stoker.json": settings, **{f"handler/{path}": content for path, content in files.items()}, **own}
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for path, content in members.items():
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


def handler_files(folder: Path) -> dict[str, bytes]:
    """The files of a handler folder, as `request_tar` takes them."""
    paths = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def start(
    data_dir: Path, variables: Mapping[str, str] | None = None, flags: tuple[str, ...] = ()
) -> subprocess.Popen[bytes]:
    """The builder, waiting for its request; from a checkout, or as installed."""
    # User ids of its own: a build ends what its tests' id still runs, also that of another data folder.
    ids = ("--first-id", str(first_id_of(data_dir)))
    path = os.pathsep.join(str(REPOSITORY / package) for package in PACKAGES)
    return subprocess.Popen(
        [*COMMAND, sys.executable, "-m", "stoker_builder", "--data-dir", str(data_dir), *ids, *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path, **(variables or {})},
        start_new_session=True,
    )


def build(
    data_dir: Path,
    request: bytes,
    variables: Mapping[str, str] | None = None,
    flags: tuple[str, ...] = (),
    seconds: float = 100,
) -> Outcome:
    """One build from start to end."""
    process = start(data_dir, variables, flags)
    output, errors = process.communicate(request, timeout=seconds)
    *log, last = [json.loads(line) for line in output.splitlines()]
    return Outcome([line["log"] for line in log], last, process.returncode, errors.decode())


def feed(process: subprocess.Popen[bytes], request: bytes) -> None:
    """Send the request and close the upload."""
    assert process.stdin is not None
    process.stdin.write(request)
    process.stdin.close()


def lines(process: subprocess.Popen[bytes]) -> Iterator[dict[str, object]]:
    """The builder's lines as they come; ends it if nothing comes for a long time."""
    assert process.stdout is not None
    guard = threading.Timer(60, process.send_signal, [signal.SIGKILL])
    guard.start()
    try:
        for line in process.stdout:
            yield json.loads(line)
    finally:
        guard.cancel()


def artefact_of(outcome: Outcome, data_dir: Path) -> tuple[Path, Artefact]:
    """The folder and the manifest of what was built."""
    folder = DataDir(data_dir).artefact(outcome.image.rpartition("sha256:")[2])
    return folder, msgspec.json.decode((folder / "artefact.json").read_bytes(), type=Artefact)


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
