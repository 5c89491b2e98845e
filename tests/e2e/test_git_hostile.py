"""What a stranger may try by a push: each is refused with a reason, runs nothing, and leaves nothing behind."""

from __future__ import annotations

import http.client
import os
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from running_platform import Platform, wait_for
from working_copy import WorkingCopy, handler, passing, stack

from stoker_sdk.errors import NotFound

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(platform: Platform, tmp_path: Path, request: pytest.FixtureRequest) -> WorkingCopy:
    name = request.node.name.partition("[")[0].replace("_", "-").removeprefix("test-")[:30].strip("-")
    number = zlib.crc32(request.node.name.encode()) % 10_000  # the parameters of one test have owners of their own
    return WorkingCopy(platform, tmp_path / "greet", f"{name}{number}/greet")


def refused(copy: WorkingCopy) -> str:
    """Push; what the person reads. The run has failed, and no function is there."""
    pushed = copy.push("-o", "wait")
    assert pushed.code == 1, pushed.said
    assert copy.runs()[0].state == "failed"
    with pytest.raises(NotFound):
        copy.platform.client.function(copy.service("greet"))
    assert not list((copy.platform.data.git / "checkouts").glob("run-*"))
    return copy.runs()[0].reason


@pytest.mark.parametrize(
    "path",
    [
        "/git/../../etc/info/refs?service=git-upload-pack",
        "/git/me/..%2f..%2fetc/info/refs?service=git-upload-pack",
        "/git/-x/y/info/refs?service=git-receive-pack",
        "/git/x/-y/info/refs?service=git-receive-pack",
        "/git/x/.git/info/refs?service=git-receive-pack",
        "/git/x/y;id/info/refs?service=git-receive-pack",
        "/git/x/y%00z/info/refs?service=git-receive-pack",
        "/git/" + "x" * 40 + "/y/info/refs?service=git-receive-pack",
        "/git/x/y/info/refs",
        "/git/x/y/info/refs?service=git-daemon",
        "/git/x/y/HEAD",
        "/git/x/y/objects/info/packs",
        "/git/x/y/config",
    ],
)
def test_a_path_that_is_no_repository_of_ours_makes_nothing(platform: Platform, path: str) -> None:
    before = sorted((platform.data.git / "repositories").rglob("*.git"))
    answer = platform.request("GET", path, b"", platform.authorization)
    assert answer.status in (301, 400, 404), answer
    assert sorted((platform.data.git / "repositories").rglob("*.git")) == before


@pytest.mark.parametrize("target", ["/etc", "..", "../../../../../../root"])
def test_a_handler_that_is_a_link_out_of_the_repository(copy: WorkingCopy, target: str) -> None:
    (copy.folder / "greet").symlink_to(target)
    copy.commit(stackDOTyml=stack("greet"))
    assert "leaves the stack's folder" in refused(copy)


def test_a_link_in_the_handler_folder_to_the_platforms_password(copy: WorkingCopy) -> None:
    copy.commit(**passing("greet", "x "), stackDOTyml=stack("greet"))
    (copy.folder / "greet" / "password").symlink_to(copy.platform.data.password)
    copy.commit()
    assert "'password' is a symbolic link that leaves the folder" in refused(copy)


def test_a_copied_folder_that_leads_out(copy: WorkingCopy) -> None:
    (copy.folder / "shared").symlink_to("/etc")
    copy.commit(**passing("greet", "x "), stackDOTyml=stack("greet", more="configuration:\n  copy: [shared]\n"))
    assert "leaves the stack's folder" in refused(copy)


def test_a_template_that_does_not_exist(copy: WorkingCopy) -> None:
    copy.commit(**passing("greet", "x "), stackDOTyml=stack("greet", lang="cobol"))
    assert "template 'cobol' does not exist" in refused(copy)


def test_a_template_of_its_own_that_wants_more(copy: WorkingCopy) -> None:
    files = passing("greet", "x ")
    files["template__mine__templateDOTyml"] = "language: mine\nfprocess: cat /etc/shadow\nstoker: {mode: streaming}\n"
    copy.commit(**files, stackDOTyml=stack("greet", lang="mine"))
    assert "template" in refused(copy)


def test_a_submodule_and_a_filter_fetch_and_run_nothing(copy: WorkingCopy, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    files = passing("greet", "hello ")
    files["DOTgitmodules"] = f'[submodule "x"]\n path = x\n url = ext::sh -c "touch {ran}"\n'
    files["DOTgitattributes"] = "* filter=evil\n"
    files["DOTlfsconfig"] = "[lfs]\n url = http://169.254.169.254/\n"
    copy.commit(**files, stackDOTyml=stack("greet"))
    copy.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},x")
    copy.git("commit", "--quiet", "-m", "a submodule")
    pushed = copy.push("-o", "wait")
    assert pushed.code == 0, pushed.said
    assert copy.answer("greet") == "hello you"
    assert not ran.exists()


def test_refs_outside_of_branches_and_tags(copy: WorkingCopy) -> None:
    copy.commit(**passing("greet", "x "), stackDOTyml=stack("greet"))
    for ref in ("refs/stoker/accepted", "refs/replace/" + "1" * 40, "refs/notes/x", "HEAD"):
        pushed = copy.push(refs=(f"main:{ref}",))
        assert pushed.code == 1, pushed.said
    assert copy.runs() == []
    assert "refs/" not in copy.run("ls-remote", copy.url).said


@pytest.mark.parametrize("branch", ["--upload-pack=touch", "-x", "a;touch${IFS}b", "$(id)", "a'b", "ö"])
def test_branches_with_odd_names_are_names(copy: WorkingCopy, branch: str) -> None:
    copy.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    assert copy.push("-o", "wait").code == 0
    pushed = copy.push(refs=(f"main:refs/heads/{branch}",))
    if branch.startswith("-"):
        assert pushed.code == 1 and "is not a name that git takes" in pushed.said
    else:
        assert pushed.code == 0 and "is stored; live is what is on main" in pushed.said
    assert len(copy.runs()) == 1


def test_a_log_shows_no_control_characters_and_is_bounded(copy: WorkingCopy) -> None:
    files = passing("greet", "x ")
    files["greet__handler_testDOTpy"] = (
        "import os\n\n\ndef test_it():\n    os.write(1, b'\\x1b]0;owned\\x07\\n' + b'y\\n' * 30000)\n    assert False\n"
    )
    copy.commit(**files, stackDOTyml=stack("greet"))
    pushed = copy.push("-o", "wait")
    assert pushed.code == 1
    assert "\x1b]0" not in pushed.said and "\x07" not in pushed.said
    lines = list(copy.platform.client.runs.log(copy.runs()[0].id))
    assert len(lines) < 25_000 and not any("\x1b" in line.text for line in lines)
    assert any("more lines are left out" in line.text for line in lines)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs user ids")
def test_a_test_finds_nothing_of_the_platforms(copy: WorkingCopy) -> None:
    data = copy.platform.data
    probe = f"""
import os, pathlib, subprocess


def test_it():
    found = []
    for path in ({str(data.password)!r}, {str(data.key)!r}, {str(data.git / "repositories")!r}, "/etc/shadow"):
        try:
            os.listdir(path) if os.path.isdir(path) else open(path).read()
            found.append(path)
        except OSError:
            pass
    for entry in pathlib.Path("/proc").glob("[0-9]*/environ"):
        try:
            if b"STOKER_TEST_PLATFORM" in entry.read_bytes() and entry.parent.name != str(os.getpid()):
                found.append(str(entry))
        except OSError:
            pass
    assert not found
    assert os.getuid() != 0
    assert not any("password" in key.lower() or "token" in key.lower() for key in os.environ)
"""
    copy.commit(greet__handlerDOTpy=handler("x "), greet__handler_testDOTpy=probe, stackDOTyml=stack("greet"))
    assert copy.push("-o", "wait").code == 0


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs network namespaces")
def test_a_test_reaches_no_address_but_its_own(copy: WorkingCopy) -> None:
    host, port = copy.platform.http
    probe = f"""
import socket
import threading

import pytest


def test_the_control_api_is_out_of_reach():
    for address in (({host!r}, {port}), ("1.1.1.1", 53)):
        with pytest.raises(OSError):
            socket.create_connection(address, 2)


def test_a_server_of_its_own_is_not():
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: listener.accept()[0].sendall(b"hi")).start()
    assert socket.create_connection(listener.getsockname(), 2).recv(2) == b"hi"
"""
    copy.commit(greet__handlerDOTpy=handler("x "), greet__handler_testDOTpy=probe, stackDOTyml=stack("greet"))
    pushed = copy.push("-o", "wait")
    assert pushed.code == 0 and "greet: 2 passed" in pushed.said


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs user ids")
def test_what_a_test_starts_ends_with_it(copy: WorkingCopy) -> None:
    bomb = """
import os
import signal


def test_it():
    for _ in range(300):
        if os.fork() == 0:
            os.setsid()
            signal.pause()  # not a loop: hundreds of those hold up the machine, not only the platform
"""
    copy.commit(greet__handlerDOTpy=handler("x "), greet__handler_testDOTpy=bomb, stackDOTyml=stack("greet"))
    before = len(copy.platform.processes())
    assert copy.push("-o", "wait").code == 0
    wait_for(lambda: len(copy.platform.processes()) < before + 20, "the end of the forks")


def test_a_push_that_is_too_large(make_platform: object, tmp_path: Path) -> None:
    platform = make_platform(flags=("--max-push", "1Mi"))  # type: ignore[operator]
    copy = WorkingCopy(platform, tmp_path / "greet", "me/greet")
    copy.commit(**passing("greet", "x "), stackDOTyml=stack("greet"))
    (copy.folder / "data").write_bytes(os.urandom(3 << 20))
    copy.commit()
    pushed = copy.push()
    assert pushed.code == 1 and "pack exceeds maximum allowed size" in pushed.said
    assert copy.runs() == []


def test_the_repositories_of_an_owner_are_bounded_together(make_platform: object, tmp_path: Path) -> None:
    platform = make_platform(flags=("--max-repositories", "3Mi"))  # type: ignore[operator]
    copy = WorkingCopy(platform, tmp_path / "greet", "me/greet")
    copy.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    (copy.folder / "data").write_bytes(os.urandom(4 << 20))
    copy.commit()
    assert copy.push("-o", "wait").code == 0
    copy.commit(more="x")
    again = copy.push()
    assert again.code != 0 and "the repositories of me have more than 3 MiB together" in again.said, again.said
    other = WorkingCopy(platform, tmp_path / "other", "me/other")
    other.commit(**passing("greet", "x "), stackDOTyml=stack("greet"))
    assert other.push().code != 0
    theirs = WorkingCopy(platform, tmp_path / "theirs", "you/greet")
    theirs.commit(**passing("greet", "x "), stackDOTyml=stack("greet"))
    assert theirs.push("-o", "wait").code == 0
    platform.client.runs.remove_repository("me", "greet")
    wait_for(lambda: other.push("-o", "wait").code == 0, "room again")


def test_what_nothing_leads_to_any_more_makes_room(make_platform: object, tmp_path: Path) -> None:
    platform = make_platform(flags=("--max-repositories", "6Mi"))  # type: ignore[operator]
    copy = WorkingCopy(platform, tmp_path / "greet", "me/greet")
    copy.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    for _ in range(2):
        (copy.folder / "data").write_bytes(os.urandom(4 << 20))
        copy.commit()
        assert copy.push("--force", "-o", "wait").code == 0
        copy.git("reset", "--quiet", "--hard", "HEAD~1")
    copy.commit(more="x")
    assert copy.push("--force").code != 0  # both are too young to be sure that no other push has just brought them
    for path in (platform.data.git / "repositories").rglob("objects/*/*"):
        os.utime(path, (0, 0))
    assert copy.push("--force", "-o", "wait").code == 0
    assert copy.answer("greet") == "hello you"


def test_bodies_that_are_no_push(platform: Platform) -> None:
    parts = urlsplit(platform.http_url)
    assert (
        platform.request(
            "GET", "/git/bad/bodies/info/refs?service=git-receive-pack", b"", platform.authorization
        ).status
        == 200
    )
    for body in (
        b"",
        b"0000",
        b"zzzz",
        b"00",
        b"\xff" * 100_000,
        b"0094" + b"0" * 40 + b" " + b"1" * 40 + b" refs/heads/m\0",
    ):
        connection = http.client.HTTPConnection(parts.netloc, timeout=30)
        headers = platform.authorization | {"Content-Type": "application/x-git-receive-pack-request"}
        connection.request("POST", "/git/bad/bodies/git-receive-pack", body, headers)
        assert connection.getresponse().status in (200, 400, 500)
        connection.close()
    assert platform.client.runs.list_runs(owner="bad") == []
