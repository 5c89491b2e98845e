"""The Python that functions and builds run on, where every user id can read it.

As root each function has a user id of its own, while the platform's interpreter often lies in a home folder
that nobody else may enter. It is then staged below the data folder, by hard links where possible, once per
version. The same goes for uv, and for pytest: the functions' tests must not see the rest of the platform's
packages.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import uv as uv_package

from stoker_sdk.errors import StokerError

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

_LEFT_OUT = {
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "site-packages",
    "dist-packages",
}
_REQUIRED_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]*")


@dataclass(frozen=True)
class Interpreter:
    """A Python and its tools, readable by every user id if the platform is root.

    `stdlib` holds the standard library's entries of `sys.path`; `library_path` is the value of
    `LD_LIBRARY_PATH` that `python` needs, mostly empty; `test_tools` is a `sys.path` entry with pytest and
    what it imports, nothing else.
    """

    python: Path
    stdlib: tuple[str, ...]
    uv: Path
    library_path: str
    test_tools: Path


def interpreter_tag() -> str:
    """What an installed package depends on: implementation, exact version, platform."""
    return f"{sys.implementation.cache_tag} {platform.python_version()} {sysconfig.get_platform()}"


def prepare_interpreter(data_dir: Path) -> Interpreter:
    """Stage what other users could not read, and answer where everything is; a few ms if nothing changed.

    Raises `StokerError` if other users cannot enter the data folder itself.
    """
    root = os.geteuid() == 0
    if root:
        _check_enterable(data_dir.resolve())
    store = data_dir / "interpreter"
    store.mkdir(parents=True, exist_ok=True)
    store.chmod(0o755)
    python, stdlib, library_path = _base_python()
    if root and not _readable_by_all(python, stdlib):
        python, stdlib, library_path = _stage_python(store, python, stdlib)
    return Interpreter(
        python=python,
        stdlib=(str(stdlib), str(stdlib / "lib-dynload")),
        uv=_prepare_uv(store, root),
        library_path=library_path,
        test_tools=_stage_test_tools(store),
    )


def variables_of_tests(path: Sequence[Path], interpreter: Interpreter) -> dict[str, str]:
    """For an interpreter that runs tests, with `path` first on its `sys.path`."""
    variables = {
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if interpreter.library_path:
        variables["LD_LIBRARY_PATH"] = interpreter.library_path
    return variables


def _base_python() -> tuple[Path, Path, str]:
    """Executable, standard library, library path of the interpreter under this virtual environment."""
    executable = getattr(sys, "_base_executable", None) or sys.executable
    return Path(executable).resolve(), Path(os.__file__).resolve().parent, ""


def _check_enterable(data_dir: Path) -> None:
    for folder in [*reversed(data_dir.parents), data_dir]:
        if folder.exists() and not folder.stat().st_mode & stat.S_IXOTH:
            raise StokerError(
                f"data folder {data_dir}: other users cannot enter {folder}, but functions run under "
                f"user ids of their own: choose another with --data-dir, or `chmod o+x {folder}`"
            )


def _readable_by_all(python: Path, stdlib: Path) -> bool:
    return _reachable(python, 0o005) and _reachable(stdlib, 0o005) and _reachable(stdlib / "os.py", 0o004)


def _reachable(path: Path, bits: int) -> bool:
    """Whether every user can go to `path` and has the permission `bits` there."""
    resolved = path.resolve()
    enterable = all(parent.stat().st_mode & 0o001 for parent in resolved.parents)
    return enterable and resolved.stat().st_mode & bits == bits


def _prepare_uv(store: Path, root: bool) -> Path:
    uv = Path(uv_package.find_uv_bin()).resolve()
    if not root or _reachable(uv, 0o005):
        return uv
    target = store / f"uv-{_fingerprint(uv)}"
    _stage(target, lambda folder: _place(uv, folder / "uv"))
    return target / "uv"


def _stage_python(store: Path, python: Path, stdlib: Path) -> tuple[Path, Path, str]:
    target = store / f"{platform.python_version()}-{_fingerprint(python, stdlib, stdlib / 'lib-dynload')}"
    prefix = Path(sys.base_prefix).resolve()
    name = f"python{VERSION}"
    _stage(target, lambda folder: _fill_python(folder, prefix, python, stdlib))
    shared = next((target / "lib").glob("*.so*"), None)
    return target / "bin" / name, target / "lib" / name, str(target / "lib") if shared else ""


def _fill_python(folder: Path, prefix: Path, python: Path, stdlib: Path) -> None:
    _place(python, folder / "bin" / f"python{VERSION}")
    _place_tree(stdlib, folder / "lib" / f"python{VERSION}")
    headers = Path("include") / f"python{VERSION}"
    if (prefix / headers).is_dir():
        _place_tree(prefix / headers, folder / headers)
    for library in sorted((prefix / "lib").glob("*.so*")):
        _place(library, folder / "lib" / library.name)


def _stage_test_tools(store: Path) -> Path:
    tools = sorted(_closure("pytest"), key=lambda tool: tool.name)
    versions = " ".join(f"{tool.name}=={tool.version}" for tool in tools)
    target = store / f"test-tools-{hashlib.sha256(f'{interpreter_tag()} {versions}'.encode()).hexdigest()[:16]}"
    _stage(target, lambda folder: _fill_test_tools(folder, tools))
    return target


def _closure(name: str) -> list[metadata.Distribution]:
    """The installed distribution `name` and all installed ones that it requires, extras left out."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [name]
    while waiting:
        wanted = waiting.pop()
        if wanted in found:
            continue
        try:
            found[wanted] = metadata.distribution(wanted)
        except metadata.PackageNotFoundError:
            continue  # required on another platform or Python only
        waiting += [_required_name(line) for line in found[wanted].requires or [] if "extra ==" not in line]
    return list(found.values())


def _required_name(requirement: str) -> str:
    match = _REQUIRED_NAME.match(requirement)
    return match.group().lower().replace("_", "-") if match else ""


def _fill_test_tools(folder: Path, tools: list[metadata.Distribution]) -> None:
    for tool in tools:
        if not tool.files:
            raise StokerError(
                f"{tool.name} is installed without a list of its files: install Stoker again with pip or uv"
            )
        for file in tool.files:
            source = Path(str(tool.locate_file(file)))
            if ".." not in file.parts and source.is_file():
                _place(source, folder / file)


def _fingerprint(*paths: Path) -> str:
    states = [(str(path), path.stat().st_ino, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(repr((sys.version, states)).encode()).hexdigest()[:16]


def _stage(target: Path, fill: Callable[[Path], None]) -> None:
    """Make the folder `target` with what `fill` puts into it, at once and once for all processes."""
    if target.is_dir():
        return
    with _locked(target.parent):
        if target.is_dir():
            return
        for leftover in target.parent.glob(".staging-*"):
            shutil.rmtree(leftover)
        folder = Path(tempfile.mkdtemp(prefix=".staging-", dir=target.parent))
        fill(folder)
        for inner in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
            inner.chmod(0o755)
        folder.rename(target)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _place_tree(source: Path, target: Path) -> None:
    for folder, folders, files in os.walk(source):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        for name in files:
            path = Path(folder, name)
            if path.suffix != ".a" and path.is_file():
                _place(path, target / path.relative_to(source))


def _place(source: Path, target: Path) -> None:
    """Link `source` to `target`, or copy it if it cannot be linked or the link would not be readable by
    others.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    real = source.resolve()
    mode = real.stat().st_mode
    needed = 0o555 if mode & 0o100 else 0o444
    if mode & needed == needed:
        try:
            os.link(real, target)
            return
        except OSError:
            pass  # another file system, or one without links
    shutil.copy2(real, target)
    target.chmod(0o755 if mode & 0o100 else 0o644)
