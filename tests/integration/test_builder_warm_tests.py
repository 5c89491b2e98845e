"""Tests run in an interpreter that a waiting builder has started ahead, where they get the same from it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from builder_process import Outcome, build, feed, lines, request_tar, start
from running_platform import wait_for

from stoker_builder.tree import remove_tree
from stoker_builder.warm_tests import KEPT_SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

ROOT = os.geteuid() == 0
HANDLER = "import humanize\n\ndef handle(req):\n    return humanize.naturalsize(int(req))\n"
HOW = "import sys\nHOW = open('/proc/self/cmdline').read().split(chr(0))[2]\n"
WARM = HOW + "def test_it():\n    assert HOW == '-c'\n"
COLD = HOW + "def test_it():\n    assert HOW == '-m'\n"
SAME = """
import os, resource, socket, sys
from pathlib import Path

import pytest


def test_it_is_confined_like_any_other():
    assert sys.argv[0].endswith("pytest/__main__.py") and Path.cwd().name == "function"
    assert os.environ["HOME"] == os.environ["TMPDIR"] and Path(os.environ["HOME"]).stat().st_uid == os.getuid()
    assert {name for name in os.environ if not name.startswith(("PYTEST_", "LC_", "LD_"))} == NAMES
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == 2 << 30
    if ROOT:
        assert os.getuid() == os.getgid() != 0 and 0 not in os.getgroups()
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", PORT), 2)
"""


def files(test: str, **more: str) -> dict[str, str]:
    named = {name.replace("DOT", "."): text for name, text in more.items()}
    return {"handler.py": HANDLER, "handler_test.py": test, "requirements.txt": "humanize==4.12.3\n"} | named


@pytest.fixture(scope="module")
def prepared() -> Iterator[Path]:
    """A data folder whose last build was one of a function with packages, and offline."""
    folder = Path(tempfile.mkdtemp(prefix="stoker-warm-"))
    folder.chmod(0o711)
    outcome = build(folder, request_tar(files(COLD), offline=True))
    assert outcome.code == 0, outcome
    yield folder
    remove_tree(folder)


@pytest.fixture
def data_dir(prepared: Path) -> Path:
    (prepared / "builds" / "last-tests.json").write_text(
        json.dumps(
            {
                "environment": next((prepared / "environments").iterdir()).name,
                "modules": ["humanize"],
                "offline": True,
            }
        )
    )
    return prepared


def build_later(data_dir: Path, request: bytes, *, disturb: int = 0) -> Outcome:
    """By a builder that has waited; its interpreter gets the signal `disturb` before."""
    process = start(data_dir)
    child = wait_for(lambda: waiting(process.pid), "an interpreter that waits")
    if disturb:
        os.kill(child, disturb)
        wait_for(lambda: not waiting(process.pid), "its end")
    feed(process, request)
    *log, last = list(lines(process))
    assert process.stderr is not None
    outcome = Outcome([str(line["log"]) for line in log], last, process.wait(), process.stderr.read().decode())
    assert not list((data_dir / "builds").glob("run-*"))
    assert not Path(f"/proc/{child}").exists()
    return outcome


def waiting(pid: int) -> int:
    """The child that has imported all and waits for its tests; 0 for none."""
    for child in children(pid):
        try:
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state == "S":
            return child
    return 0


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_what_the_last_tests_wanted_is_there_already(data_dir: Path) -> None:
    outcome = build_later(data_dir, request_tar(files(WARM), name="again", offline=True))
    assert outcome.code == 0, outcome
    assert "tests: python -m pytest -q -p no:cacheprovider --tb=short" in outcome.log
    noted = json.loads((data_dir / "builds" / "last-tests.json").read_text())
    assert (noted["modules"], noted["offline"]) == (["humanize"], True)


def test_its_tests_have_all_limits_and_nothing_more(data_dir: Path) -> None:
    names = {"PATH", "HOME", "TMPDIR", "LANG", "PWD", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONNOUSERSITE"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        known = f"NAMES, ROOT, PORT = {names | {'PYTHONUNBUFFERED'}!r}, {ROOT}, {server.getsockname()[1]}\n"
        test = SAME.replace("import pytest\n", f"import pytest\n\n{known}", 1)
        for way in (build_later, build):
            outcome = way(data_dir, request_tar(files(test), name=way.__name__.replace("_", "-"), offline=True))
            assert outcome.code == 0, outcome.error


@pytest.mark.parametrize(
    ("more", "args", "offline"),
    [
        ({"humanizeDOTpy": "def naturalsize(number):\n    return 'own'\n"}, {}, True),
        ({"jsonDOTpy": "OWN = True\n"}, {}, True),
        ({"requirementsDOTtxt": "humanize==4.12.2\n"}, {}, True),
        ({"requirementsDOTtxt": ""}, {}, True),
        ({}, {}, False),
        ({}, {"TEST_MEMORY": "1Gi"}, True),
        ({"confDOTpy": "import os\nos.environ['STYLE'] = 'plain'\nimport humanize\n"}, {}, True),
        ({"handlerDOTpy": "def handle(req):\n    import humanize\n"}, {}, True),
    ],
    ids=[
        *("own-package", "own-standard-module", "other-version", "none", "with-network", "other-memory"),
        *("sets-what-a-package-may-read", "imports-in-a-call"),
    ],
)
def test_who_wants_something_else_gets_an_interpreter_of_its_own(
    data_dir: Path, more: Mapping[str, str], args: Mapping[str, str], offline: bool
) -> None:
    test = COLD
    if "humanizeDOTpy" in more:
        test += "import humanize\ndef test_own():\n    assert humanize.naturalsize(5) == 'own'\n"
    if "jsonDOTpy" in more:
        test += "import json\ndef test_own():\n    assert json.OWN\n"
    handler = {"handlerDOTpy": "def handle(req): pass\n"} if more.get("requirementsDOTtxt") == "" else {}
    outcome = build_later(
        data_dir, request_tar(files(test, **more, **handler), name="other", args=args, offline=offline)
    )
    assert outcome.code == 0, outcome


def test_one_that_has_ended_is_not_missed(data_dir: Path) -> None:
    outcome = build_later(data_dir, request_tar(files(COLD), name="alone", offline=True), disturb=signal.SIGKILL)
    assert outcome.code == 0, outcome


def test_a_failing_test_fails_there_too(data_dir: Path) -> None:
    test = WARM + "def test_wrong():\n    assert False, 'wrong on purpose'\n"
    outcome = build_later(data_dir, request_tar(files(test), name="red", offline=True))
    assert (
        outcome.code == 1
        and "wrong on purpose" in outcome.error
        and "FAILED handler_test.py::test_wrong" in outcome.error
    )


def test_a_builder_that_is_killed_while_it_waits_leaves_nothing_for_long(data_dir: Path) -> None:
    process = start(data_dir)
    child = wait_for(lambda: waiting(process.pid), "an interpreter that waits")
    process.kill()
    process.communicate()
    wait_for(lambda: not Path(f"/proc/{child}").exists(), "the end of its interpreter")
    assert list((data_dir / "builds").glob("run-*"))
    assert build(data_dir, request_tar(files(COLD), name="next", offline=True)).code == 0
    assert not list((data_dir / "builds").glob("run-*"))


@pytest.fixture
def wild(data_dir: Path) -> Iterator[Path]:
    """A module that the next interpreter imports while it waits, in an environment that no build wants."""
    digest = "f" * 64
    note = {"environment": digest, "modules": ["wild"], "offline": True}
    (data_dir / "builds" / "last-tests.json").write_text(json.dumps(note))
    folder = data_dir / "environments" / digest
    folder.mkdir()
    yield folder / "wild.py"
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "code",
    [
        "import time\nwith open('big', 'wb') as file:\n    file.write(bytes(64 << 20))\ntime.sleep(600)\n",
        "raise ImportError('not here')\n",
        "import os\nos._exit(0)\n",
    ],
    ids=["writes", "fails", "ends"],
)
def test_one_that_breaks_its_bounds_or_ends_is_gone_before_a_build_comes(data_dir: Path, wild: Path, code: str) -> None:
    wild.write_text(code)
    process = start(data_dir, flags=("--disk", str(32 << 20)))
    wait_for(lambda: list((data_dir / "builds").glob("run-*")), "its folder")
    wait_for(lambda: not list((data_dir / "builds").glob("run-*")), "its end")
    assert not children(process.pid)
    feed(process, request_tar(files(COLD), name="after", offline=True))
    assert "image" in list(lines(process))[-1]
    assert process.wait() == 0


def test_what_a_package_leaves_running_ends_with_the_one_that_waits(data_dir: Path, wild: Path) -> None:
    marked = f"left-by-{os.getpid()}"
    leave = f"import subprocess\nsubprocess.Popen(['sh', '-c', 'sleep 600 # {marked}'], start_new_session=True)\n"
    wild.write_text(
        "import os\nif os.fork() == 0:\n    os.setsid()\n" + textwrap.indent(leave, "    ") + "    os._exit(0)\n"
    )
    process = start(data_dir)
    left = wait_for(lambda: running(marked), "what it leaves")
    feed(process, request_tar(files(COLD), name="clean", offline=True))
    assert "image" in list(lines(process))[-1]
    assert process.wait() == 0
    assert not Path(f"/proc/{left}").exists()


def running(mark: str) -> int:
    """Its pid; 0 for none."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"sh\0") and mark.encode() in path.read_bytes():
                return int(path.parent.name)
        except OSError:
            continue
    return 0


def test_some_minutes_after_a_build_nothing_waits(data_dir: Path) -> None:
    note = data_dir / "builds" / "last-tests.json"
    nearly = time.time() - KEPT_SECONDS + 3
    os.utime(note, (nearly, nearly))
    process = start(data_dir)
    wait_for(lambda: waiting(process.pid), "an interpreter that waits")
    wait_for(lambda: not children(process.pid), "its end")
    assert process.poll() is None
    process.terminate()
    process.communicate()


def test_other_tests_leave_no_note(data_dir: Path) -> None:
    for request in (
        request_tar(files(COLD), name="own", args={"TEST_COMMAND": "true"}, offline=True),
        request_tar({"handler.py": "def handle(req): pass\n"}, name="untested", offline=True),
    ):
        (data_dir / "builds" / "last-tests.json").touch()
        assert build(data_dir, request).code == 0
        assert not (data_dir / "builds" / "last-tests.json").exists()


def test_without_a_note_or_its_environment_nothing_is_started(data_dir: Path) -> None:
    for note in ("", "{", json.dumps({"environment": "0" * 64, "modules": [], "offline": True})):
        (data_dir / "builds" / "last-tests.json").write_text(note)
        process = start(data_dir)
        feed(process, request_tar(files(COLD), name="plain", offline=True))
        assert "image" in list(lines(process))[-1]
        assert process.wait() == 0
        shutil.rmtree(data_dir / "artefacts")
