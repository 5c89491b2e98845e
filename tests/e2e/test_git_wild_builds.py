"""Pushes whose builds run wild: the run says which limit ended it, the old version serves, nothing is left, and the
next push goes live. And a disk that is really full.
"""

from __future__ import annotations

import json
import os
import shlex
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from package_server import npm_package, package_server, sdist
from running_platform import Platform, wait_for
from small_disk import fill, small_disk
from working_copy import WorkingCopy, handler, passing, stack

from stoker_builder.control_group import parent_of_groups
from stoker_sdk.ids import UserIds, first_id_of
from stoker_sdk.sealing import purpose_of, seal

pytestmark = pytest.mark.slow

MIB = 1 << 20
FLAGS = (
    *("--build-disk", "200Mi", "--build-files", "3000", "--build-memory", "300Mi"),
    *("--build-processes", "100", "--build-time", "25s"),
)


@pytest.fixture(scope="module")
def bounded(platform: Platform) -> Iterator[Platform]:
    """A platform with small limits, shared by these tests."""
    one = Platform(like=platform, flags=FLAGS)
    try:
        yield one.start()
    finally:
        print(one.log)
        one.delete()


@pytest.fixture
def copy(bounded: Platform, tmp_path: Path, request: pytest.FixtureRequest) -> WorkingCopy:
    """A repository whose function is live."""
    owner = f"wild-{zlib.crc32(request.node.name.encode())}"
    one = WorkingCopy(bounded, tmp_path / "greet", f"{owner}/greet")
    one.commit(**passing("greet", "old "), stackDOTyml=stack("greet"))
    assert one.push("-o", "wait").code == 0
    return one


DISK = """
def test_it():
    with open({path!r}, "wb") as file:
        while True:
            file.write(b"x" * (1 << 20))
            file.flush()
"""
FILES = """
import itertools
import pathlib


def test_it():
    for number in itertools.count():
        pathlib.Path(f"small-{number}").touch()
"""
FORKS = """
import os
import signal


def test_it():
    while True:
        try:
            if os.fork() == 0:
                os.setsid()
                signal.pause()  # not a loop: hundreds of those hold up the machine, not only the platform
        except OSError:
            pass
"""
MEMORY = """
import os
import signal


def test_it():
    for _ in range(6):
        if os.fork() == 0:
            held = os.urandom(1 << 20) * 60
            signal.pause()
    signal.pause()
"""
TIME = """
import signal


def test_it():
    signal.pause()
"""


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        (DISK.format(path="big"), "the build wrote more than 200 MiB: let it write less, or raise --build-disk"),
        (DISK.format(path="/tmp/big"), "the build wrote more than 200 MiB"),
        (FILES, "the build made more than 3000 files: let it make fewer, or raise --build-files"),
        (
            FORKS,
            "the build started more than 100 processes and threads: let it start fewer, or raise --build-processes",
        ),
        (MEMORY, "the build used more than 300 MiB of memory: let it use less, or raise --build-memory"),
        (TIME, "the build did not end within 25 seconds and was stopped: let it take less, or raise --build-time"),
    ],
    ids=["disk", "tmp", "files", "forks", "memory", "time"],
)
def test_a_build_that_runs_wild(copy: WorkingCopy, test: str, reason: str) -> None:
    if "/tmp/big" in test and os.geteuid() != 0:
        pytest.skip("as an ordinary user a build has the machine's /tmp")
    copy.commit(greet__handlerDOTpy=handler("wild "), greet__handler_testDOTpy=test)
    # The builder that waits for the build after it starts no interpreter then, which would be there still.
    (copy.platform.data.builds / "last-tests.json").unlink(missing_ok=True)
    pushed = copy.push("-o", "wait")
    assert pushed.code == 1 and reason in pushed.said, pushed.said
    run = copy.runs()[0]
    assert run.state == "failed" and reason in run.reason
    assert copy.answer("greet") == "old you"
    assert_nothing_is_left(copy.platform)
    copy.commit(**passing("greet", "next "))
    assert copy.push("-o", "wait").code == 0
    assert copy.answer("greet") == "next you"


def assert_nothing_is_left(platform: Platform) -> None:
    wait_for(lambda: not list(platform.data.builds.glob("run-*")), "the end of the build's files")
    assert not list((platform.data.git / "checkouts").glob("run-*"))
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{parent_of_groups(platform.data.builds)}"))
    if os.geteuid() == 0:
        ids = UserIds(platform.data.ids, first_id_of(platform.data.path))
        users = {ids.id_for("builder"), ids.id_for("tests:0")}
        wait_for(
            lambda: not [pid for pid in Path("/proc").glob("[0-9]*") if owner(pid) in users], "their processes' end"
        )


def owner(process: Path) -> int:
    try:
        return process.stat().st_uid
    except OSError:
        return -1


TOKEN = "s3cr3t-t0ken-of-the-index"
TELLS = """
import base64, os, sys

token = os.environ["INDEX_TOKEN"]
sys.exit(f"TOLD {token} {base64.b64encode(token.encode()).decode()} {token.encode().hex()}")
"""


@pytest.mark.parametrize("lang", ["python3", "node"])
def test_an_install_script_that_prints_a_secret(make_platform: object, tmp_path: Path, lang: str) -> None:
    packages = [sdist("telling", TELLS), npm_package("telling", f"python3 -c {shlex.quote(TELLS)}")]
    with package_server(packages, TOKEN) as server:
        platform = make_platform(flags=("--build-reach", server.address))  # type: ignore[operator]
        copy = WorkingCopy(platform, tmp_path / "greet", "me/greet")
        sealed = seal(platform.client.runs.seal_key(), TOKEN.encode(), purpose_of("me", "greet", "INDEX_TOKEN"))
        copy.commit(
            greet__handlerDOTpy=handler("x "),
            greet__requirementsDOTtxt=f"--index-url http://build:${{INDEX_TOKEN}}@{server.address}/simple/\ntelling\n",
            greet__handlerDOTjs="module.exports = async () => '';\n",
            greet__packageDOTjson=json.dumps({"dependencies": {"telling": "1.0.0"}}),
            greet__DOTnpmrc=f"registry={server.npm}\n//{server.address}/npm/:_authToken=${{INDEX_TOKEN}}\n",
            tokenDOTsealed=sealed + "\n",
            stackDOTyml=stack("greet", lang=lang, more="    build_secrets: {INDEX_TOKEN: token.sealed}\n"),
        )
        pushed = copy.push("-o", "wait")
    run = copy.runs()[0]
    log = "".join(line.text for line in platform.client.runs.log(run.id))
    told = pushed.said + log + run.reason + platform.log
    assert pushed.code == 1 and "TOLD (secret) (secret) (secret)" in pushed.said, pushed.said
    assert TOKEN not in told and TOKEN.encode().hex() not in told
    for path in platform.data.path.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert TOKEN.encode() not in path.read_bytes(), path


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("full", ["path", "git"], ids=["data", "git"])
def test_a_full_disk_ends_a_push_with_the_reason_and_all_goes_on_when_there_is_room(
    platform: Platform, tmp_path: Path, full: str
) -> None:
    """Of the repositories alone, and of all that the platform has."""
    one = Platform(like=platform if full == "git" else None)
    folder = getattr(one.data, full)
    try:
        with small_disk(folder, 1000 * MIB):
            folder.chmod(0o711)
            copy = WorkingCopy(one.start(), tmp_path / "greet", "me/greet")
            copy.commit(**passing("greet", "old "), stackDOTyml=stack("greet"))
            assert copy.push("-o", "wait").code == 0
            fill(folder, 0)
            copy.commit(**passing("greet", "new "))
            (copy.folder / "data").write_bytes(os.urandom(MIB))
            copy.commit()
            pushed = copy.push("-o", "wait")
            assert pushed.code == 1, pushed.said
            assert "full" in pushed.said or "No space left" in pushed.said, pushed.said
            assert copy.answer("greet") == "old you"
            (folder / "filler").unlink()
            wait_for(lambda: not list(one.data.builds.glob("run-*/upload")), "the end of the build's files")
            if copy.runs()[0].state == "failed":  # the branch has moved: the same commit is tried again
                copy.git("commit", "--quiet", "--allow-empty", "-m", "again")
            assert copy.push("-o", "wait").code == 0
            assert copy.answer("greet") == "new you"
            one.stop()
    finally:
        print(one.log)
        one.delete()
