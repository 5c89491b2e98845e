"""Real builds by the real process; those here need no package index."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builder_process import (
    REPOSITORY,
    artefact_of,
    build,
    feed,
    handler_files,
    is_running,
    lines,
    request_tar,
    start,
)

from stoker_sdk.data_dir import DataDir

HANDLER = "def handle(req):\n    return req\n"
PASSES = "from .handler import handle\n\ndef test_it():\n    assert handle('a') == 'a'\n"
FAILS = "def test_it():\n    assert 'what it is' == 'what it should be'\n"

ROOT = os.geteuid() == 0


def needs_root(test: Callable[[Path], None]) -> Callable[[Path], None]:
    return pytest.mark.root(pytest.mark.skipif(not ROOT, reason="changes user ids")(test))


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder that every user may enter, which `tmp_path` is not."""
    folder = Path(tempfile.mkdtemp(prefix="stoker-builds-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.01)


def nothing_is_left(data_dir: Path) -> bool:
    """No artefact, and no folder or lock of a build."""
    artefacts = data_dir / "artefacts"
    locks = data_dir / "builds" / "locks"
    leftovers = [path for path in (data_dir / "builds").glob("*") if path.name not in ("cache", "locks")]
    return not (
        (artefacts.is_dir() and any(artefacts.iterdir())) or leftovers or (locks.is_dir() and any(locks.iterdir()))
    )


def test_a_function_becomes_an_artefact_and_the_same_inputs_build_nothing(data_dir: Path) -> None:
    request = request_tar({"handler.py": HANDLER, "handler_test.py": PASSES, "data/x.txt": "x"})
    first = build(data_dir, request)
    assert (first.code, first.result["cached"], first.errors) == (0, False, "")
    assert any("1 passed" in line for line in first.log)
    folder, manifest = artefact_of(first, data_dir)
    assert (manifest.name, manifest.template, manifest.mode) == ("greet", "python3", "python")
    assert (manifest.handler, manifest.environment) == ("function.handler", "")
    assert manifest.digest == "sha256:" + folder.name
    assert (folder / "function" / "data" / "x.txt").read_text() == "x"
    assert (folder / "function" / "__init__.py").is_file()
    compiled = list((folder / "function" / "__pycache__").iterdir())
    assert {path.name.partition(".")[0] for path in compiled} == {"__init__", "handler"}
    second = build(data_dir, request)
    assert (second.image, second.result["cached"], second.log) == (first.image, True, [])


def test_files_of_an_artefact_are_closed_and_hold_no_tests(data_dir: Path) -> None:
    files = {"handler.py": HANDLER, "handler_test.py": PASSES, "deep/test_x.py": "", "conftest.py": ""}
    folder, _ = artefact_of(build(data_dir, request_tar(files)), data_dir)
    names = {path.name for path in folder.rglob("*") if path.is_file() and path.suffix == ".py"}
    assert names == {"__init__.py", "handler.py"}
    modes = {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert modes == ({0o640} if ROOT else {0o444})


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"handler.py": HANDLER + "# changed\n"}},
        {"files": {"handler.py": HANDLER, "more.txt": ""}},
        {"name": "other"},
        {"lang": "python3-http"},
        {"args": {"ANY": "thing"}},
    ],
    ids=["content", "file", "name", "template", "argument"],
)
def test_another_input_is_another_artefact(data_dir: Path, change: dict[str, object]) -> None:
    before = build(data_dir, request_tar({"handler.py": HANDLER}))
    arguments: dict[str, object] = {"files": {"handler.py": HANDLER}, **change}
    after = build(data_dir, request_tar(**arguments))  # type: ignore[arg-type]
    assert after.image.partition("@")[2] != before.image.partition("@")[2]


@pytest.mark.parametrize(
    ("lang", "folder"),
    [
        ("python", "stack-examples/kubecon/kubecon"),
        ("python3-http", "stack-examples/stream/stream"),
        ("python3-http", "stack-examples/schedule/schedule"),
        ("python3", "templates/python3/function"),
        ("python3-http", "templates/python3-http/function"),
    ],
)
def test_examples_and_starters_pass_their_own_tests(data_dir: Path, lang: str, folder: str) -> None:
    outcome = build(data_dir, request_tar(handler_files(REPOSITORY / folder), lang=lang))
    assert outcome.code == 0, outcome
    assert any(" passed in " in line for line in outcome.log)


def test_a_failing_test_means_no_artefact_and_its_last_lines_are_in_the_message(data_dir: Path) -> None:
    outcome = build(data_dir, request_tar({"handler.py": HANDLER, "handler_test.py": FAILS}))
    assert (outcome.code, outcome.result["code"]) == (1, "failed-tests")
    assert outcome.error.startswith("greet: its tests failed with exit code 1, so nothing is published")
    assert "what it should be" in outcome.error
    assert nothing_is_left(data_dir)


@pytest.mark.parametrize("statement", ["from handler import handle", "from function.handler import handle"])
def test_tests_may_import_the_handler_as_the_runtime_does(data_dir: Path, statement: str) -> None:
    files = {
        "handler.py": HANDLER,
        "test_handler.py": f"{statement}\ndef test_it(): assert handle('a') == 'a'\n",
    }
    assert build(data_dir, request_tar(files)).code == 0


def test_tests_see_neither_the_platforms_packages_nor_its_environment(data_dir: Path) -> None:
    test = """
import os, sys
from importlib import util

def test_it():
    assert [name for name in ("msgspec", "uv", "stoker_sdk", "pytest_asyncio") if util.find_spec(name)] == []
    assert not [key for key in os.environ if "SECRET" in key or key.startswith("PIP")]
    assert not [entry for entry in sys.path if "site-packages" in entry or "dist-packages" in entry]
"""
    variables = {"MY_SECRET": "x", "PIP_INDEX_URL": "https://user:SECRET@host"}
    outcome = build(data_dir, request_tar({"handler.py": HANDLER, "handler_test.py": test}), variables)
    assert outcome.code == 0, outcome


def test_tests_inherit_no_descriptor(data_dir: Path) -> None:
    command = "for fd in /proc/self/fd/*; do echo descriptor $(readlink $fd); done"
    outcome = build(data_dir, request_tar({"handler.py": HANDLER}, args={"TEST_COMMAND": command}))
    targets = [line.split()[1] for line in outcome.log if line.startswith("descriptor /")]
    assert set(targets) <= {"/dev/null"}


def test_tests_are_switched_off_or_replaced_by_build_arguments(data_dir: Path) -> None:
    files = {"handler.py": HANDLER, "handler_test.py": FAILS}
    off = build(data_dir, request_tar(files, args={"TEST_ENABLED": "false"}))
    assert off.code == 0 and "tests: switched off by TEST_ENABLED" in off.log
    command = "python -c 'import handler; print(handler.handle(5))' && pytest --version"
    own = build(data_dir, request_tar(files, args={"TEST_COMMAND": command}))
    assert own.code == 0 and "5" in own.log
    bad = build(data_dir, request_tar(files, args={"TEST_COMMAND": "exit 3"}))
    assert "failed with exit code 3" in bad.error


def test_test_files_without_a_test_are_no_failure(data_dir: Path) -> None:
    outcome = build(data_dir, request_tar({"handler.py": HANDLER, "handler_test.py": "x = 1\n"}))
    assert outcome.code == 0 and "tests: none were found in the test files" in outcome.log


def test_tests_that_take_too_long_are_stopped_with_all_that_they_started(data_dir: Path) -> None:
    command = "setsid sleep 300 & echo pid $!; sleep 300"
    files = {"handler.py": HANDLER}
    outcome = build(data_dir, request_tar(files, args={"TEST_COMMAND": command, "TEST_TIMEOUT": "500ms"}))
    assert outcome.result["code"] == "failed-tests"
    assert "took longer than 0.5 seconds" in outcome.error
    (pid,) = [int(line.split()[1]) for line in outcome.log if line.startswith("pid ")]
    assert not is_running(pid)
    assert nothing_is_left(data_dir)


def test_a_test_that_leaves_a_process_behind_does_not_hold_up_the_build(data_dir: Path) -> None:
    command = "setsid sleep 300 & echo pid $!"
    outcome = build(data_dir, request_tar({"handler.py": HANDLER}, args={"TEST_COMMAND": command}))
    assert outcome.code == 0
    (pid,) = [int(line.split()[1]) for line in outcome.log if line.startswith("pid ")]
    assert not is_running(pid)


def test_tests_that_want_too_much_memory_fail(data_dir: Path) -> None:
    test = "def test_it():\n    assert len(bytearray(300 << 20))\n"
    files = {"handler.py": HANDLER, "handler_test.py": test}
    outcome = build(data_dir, request_tar(files, args={"TEST_MEMORY": "200Mi"}))
    assert "MemoryError" in outcome.error


def test_a_flood_of_output_is_cut_and_ends(data_dir: Path) -> None:
    command = "python -c \"print('x' * 10_000_000); print('line\\n' * 50_000)\""
    outcome = build(data_dir, request_tar({"handler.py": HANDLER}, args={"TEST_COMMAND": command}))
    assert outcome.code == 0
    assert len(outcome.log) < 11_000 and max(map(len, outcome.log)) < 9_000
    assert outcome.log[-1].endswith("more lines are left out)")


@pytest.mark.parametrize(
    ("files", "settings", "code", "message"),
    [
        ({"handler.py": "def handle(:\n"}, {}, "bad-input", "handler.py:1: invalid syntax"),
        ({"handler.py": "x = 1\n"}, {}, "bad-input", "handler.py does not define handle"),
        ({"other.py": HANDLER}, {}, "bad-input", "handler.py is missing"),
        (
            {"handler.py": HANDLER, "requirements.txt": "-e ."},
            {},
            "bad-input",
            "requirements.txt:1: '-e .' leads",
        ),
        ({"handler.py": HANDLER, "requirements.txt": b"\xff"}, {}, "bad-input", "is not UTF-8 text"),
        ({"handler.py": HANDLER}, {"lang": "cobol"}, "not-found", "template 'cobol' does not exist"),
        ({"handler.py": HANDLER}, {"lang": "../x"}, "bad-input", "template name '../x' is not allowed"),
        ({"handler.py": HANDLER}, {"lang": "dockerfile"}, "bad-input", "is built as an image"),
        ({"handler.py": HANDLER}, {"name": "Big"}, "bad-input", "function name 'Big' is not allowed"),
        ({"handler.py": HANDLER, "../out.py": ""}, {}, "bad-input", "leads out of its folder"),
        (
            {"handler.py": HANDLER},
            {"args": {"TEST_TIMEOUT": "x"}},
            "bad-input",
            "build argument TEST_TIMEOUT",
        ),
    ],
)
def test_bad_input_is_a_clear_error_and_leaves_nothing(
    data_dir: Path, files: dict[str, str | bytes], settings: dict[str, object], code: str, message: str
) -> None:
    outcome = build(data_dir, request_tar(files, **settings))  # type: ignore[arg-type]
    assert (outcome.code, outcome.result["code"], outcome.errors) == (1, code, "")
    assert message in outcome.error
    assert nothing_is_left(data_dir)


def test_an_upload_that_breaks_off_is_a_clear_error(data_dir: Path) -> None:
    outcome = build(data_dir, request_tar({"handler.py": HANDLER})[:1800])
    assert (outcome.code, outcome.result["code"]) == (1, "bad-input")
    assert nothing_is_left(data_dir)


def test_an_own_template_travels_with_the_handler(data_dir: Path) -> None:
    template = {
        "template.yml": (
            "handler_folder: code\nstoker: {mode: python, handler: code.handler, test: [python, check.py]}\n"
        ),
        "shared/__init__.py": "ANSWER = 'from the template'\n",
        "Dockerfile": "FROM scratch\n",
    }
    files = {
        "handler.py": "from shared import ANSWER\ndef handle(req): return ANSWER\n",
        "x_test.py": "",
        "check.py": "import handler; print(handler.handle(''))",
    }
    outcome = build(data_dir, request_tar(files, lang="mine", template=template))
    assert outcome.code == 0 and "from the template" in outcome.log
    folder, manifest = artefact_of(outcome, data_dir)
    assert (manifest.template, manifest.handler) == ("mine", "code.handler")
    assert {path.name for path in folder.iterdir()} == {"artefact.json", "code", "shared"}


def test_an_own_template_without_local_mode_is_refused(data_dir: Path) -> None:
    request = request_tar({"handler.py": HANDLER}, lang="mine", template={"template.yml": "language: mine\n"})
    assert "template 'mine' cannot be built without containers" in build(data_dir, request).error


def test_two_builds_of_the_same_inputs_at_once_make_one_artefact(data_dir: Path) -> None:
    test = "import time\ndef test_it(): time.sleep(0.5)\n"
    request = request_tar({"handler.py": HANDLER, "handler_test.py": test})
    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(lambda _: build(data_dir, request), range(3)))
    assert len({outcome.image for outcome in outcomes}) == 1
    assert sorted(bool(outcome.result["cached"]) for outcome in outcomes) == [False, True, True]
    assert len(list((data_dir / "artefacts").iterdir())) == 1


def build_that_hangs(data_dir: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A build within its test step, and the pid of a process of its own session there."""
    process = start(data_dir)
    args = {"TEST_COMMAND": "setsid sleep 300 & echo pid $!; sleep 300"}
    feed(process, request_tar({"handler.py": HANDLER}, args=args))
    pid = next(str(line["log"]) for line in lines(process) if str(line.get("log", "")).startswith("pid "))
    return process, int(pid.split()[1])


def test_a_cancelled_build_ends_with_all_that_it_started(data_dir: Path) -> None:
    process, pid = build_that_hangs(data_dir)
    process.send_signal(signal.SIGTERM)
    (last,) = list(lines(process))
    assert (process.wait(20), last["code"]) == (1, "cancelled")
    assert not is_running(pid)
    assert nothing_is_left(data_dir)


def test_a_build_that_nobody_listens_to_ends(data_dir: Path) -> None:
    process, pid = build_that_hangs(data_dir)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(20) == 1
    assert not is_running(pid)
    assert nothing_is_left(data_dir)


def test_what_a_killed_build_left_is_swept_up_by_the_next(data_dir: Path) -> None:
    process, pid = build_that_hangs(data_dir)
    process.kill()
    process.wait()
    assert not nothing_is_left(data_dir)
    build(data_dir, request_tar({"handler.py": "x"}))
    assert not list((data_dir / "builds").glob("*run-*"))
    if ROOT:
        assert build(data_dir, request_tar({"handler.py": HANDLER, "handler_test.py": PASSES})).code == 0
        eventually(lambda: not is_running(pid), "the leftover process is gone")
    elif is_running(pid):
        os.kill(pid, signal.SIGKILL)


@needs_root
def test_tests_run_under_an_id_that_can_read_nothing_of_the_platform(data_dir: Path) -> None:
    secret = data_dir / "password"
    secret.write_text("secret")
    secret.chmod(0o600)
    other, _ = artefact_of(build(data_dir, request_tar({"handler.py": HANDLER}, name="other")), data_dir)
    test = f"""
import os, pytest

def test_it():
    assert os.getuid() != 0 and os.getgid() != 0 and 0 not in os.getgroups()
    for path in ({str(secret)!r}, {str(other / "artefact.json")!r}):
        with pytest.raises((PermissionError, FileNotFoundError)):
            open(path)
    with pytest.raises((PermissionError, FileNotFoundError)):
        os.listdir({str(data_dir / "artefacts")!r})
    with pytest.raises(PermissionError):
        os.listdir({str(data_dir / "builds")!r})
    with pytest.raises(PermissionError):
        os.kill(os.getppid(), 0)
"""
    outcome = build(data_dir, request_tar({"handler.py": HANDLER, "handler_test.py": test}))
    assert outcome.code == 0, outcome


@needs_root
def test_an_artefact_belongs_to_root_and_to_a_group_of_its_own(data_dir: Path) -> None:
    folders = [
        artefact_of(build(data_dir, request_tar({"handler.py": HANDLER}, name=name)), data_dir)[0]
        for name in ("one", "two")
    ]
    groups = {folder.stat().st_gid for folder in folders}
    assert len(groups) == 2 and 0 not in groups
    for folder in folders:
        for path in [folder, *folder.rglob("*")]:
            status = path.stat()
            assert (status.st_uid, status.st_gid) == (0, folder.stat().st_gid)
            assert stat.S_IMODE(status.st_mode) == (0o750 if path.is_dir() else 0o640)


@needs_root
def test_as_root_a_data_folder_that_others_cannot_enter_is_refused(data_dir: Path) -> None:
    closed = data_dir / "closed"
    closed.mkdir(mode=0o700)
    outcome = build(closed / "data", request_tar({"handler.py": HANDLER}))
    assert f"other users cannot enter {closed}" in outcome.error


def test_python_that_built_is_named_in_the_manifest(data_dir: Path) -> None:
    _, manifest = artefact_of(build(data_dir, request_tar({"handler.py": HANDLER})), data_dir)
    assert manifest.python == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert DataDir(data_dir).interpreter.is_dir()


WAY = """
import os
from pathlib import Path

def test_it():
    assert os.nice(0) == 10
    group = Path("/proc/self/autogroup")
    assert not group.exists() or group.read_text().endswith("nice 10\\n")
"""


@needs_root
def test_a_functions_tests_give_way_to_functions_that_serve(data_dir: Path) -> None:
    """As root, since the kernel takes a new niceness of a session from others ten times a second only."""
    outcome = build(data_dir, request_tar({"handler.py": HANDLER, "handler_test.py": WAY}))
    assert outcome.code == 0, outcome
