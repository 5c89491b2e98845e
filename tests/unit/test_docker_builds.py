"""What is asked of docker's clients, read in Dockerfiles and in BuildKit's lines, and put into a build's context."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from stoker_builder.errors import FailedTests
from stoker_builder.images.docker_client import Client, find_client, has_built_in
from stoker_builder.images.docker_log import BuildLog
from stoker_builder.images.dockerfile import leaves_out_tests, read_stages
from stoker_builder.images.runtime_wheel import write_runtime_wheel
from stoker_builder.templates import find_template
from stoker_cli.build_flags import one_platform
from stoker_sdk.errors import BadUsage, NotFound, StokerError

CLIENT = """#!/bin/sh
[ "$1" = --version ] && echo "Docker version {version}, build 1" && exit 0
[ "$1 $2" = "buildx version" ] && exit {buildx_code}
exit 9
"""


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("Docker version 20.10.24+dfsg1, build 297e128", True),
        ("Docker version 18.06.3-ce, build d7080c1", False),
        ("Docker version 23.0.1, build a5ee5b1", False),
        ("podman version 4.3.1", False),
        ("", False),
    ],
)
def test_which_clients_have_buildkit_in_themselves(version: str, expected: bool) -> None:
    assert has_built_in(version) == expected


def put_client(folder: Path, version: str, *, buildx: bool = False) -> str:
    folder.mkdir()
    program = folder / "docker"
    text = CLIENT.format(version=version, buildx_code=0 if buildx else 1)
    program.write_text(text.replace("exit 0\nexit 9", "echo v0.12 && exit 0\nexit 9") if buildx else text)
    program.chmod(0o755)
    return str(folder)


def test_a_client_that_builds_with_buildkit_is_found_behind_one_that_does_not(tmp_path: Path) -> None:
    plain = put_client(tmp_path / "plain", "28.2.2")
    built_in = put_client(tmp_path / "built-in", "20.10.24")
    buildx = put_client(tmp_path / "buildx", "28.2.2", buildx=True)
    assert find_client({"PATH": f"{plain}:{built_in}"}) == Client(f"{built_in}/docker", has_buildx=False)
    assert find_client({"PATH": f"{built_in}:{buildx}"}) == Client(f"{buildx}/docker", has_buildx=True)
    with pytest.raises(StokerError, match=r"cannot build with BuildKit: install docker's buildx plug-in"):
        find_client({"PATH": plain})
    with pytest.raises(NotFound, match=r"the program 'docker' is not installed here"):
        find_client({"PATH": str(tmp_path)})


def test_the_command_fits_the_client() -> None:
    buildx, built_in = Client("/b/docker", has_buildx=True), Client("/d/docker", has_buildx=False)
    assert buildx.build() == ["/b/docker", "buildx", "build", "--load", "--progress=plain"]
    assert built_in.build() == ["/d/docker", "build", "--progress=plain"]
    given = {"A": "1", "BUILDX_GIT_INFO": "true"}
    assert buildx.environment(given).items() >= {"A": "1", "BUILDX_GIT_INFO": "false"}.items()
    assert "DOCKER_BUILDKIT" not in buildx.environment(given)
    assert built_in.environment(given) == {**buildx.environment(given), "DOCKER_BUILDKIT": "1"}


EVIL_CONFIG = """[core]
repositoryformatversion = 1
bare = false
worktree = .
[extensions]
partialClone = origin
[remote "origin"]
url = ext::./evil
promisor = true
[protocol "ext"]
allow = always
"""


@pytest.mark.parametrize("place", [".", ".git"])
def test_a_context_that_is_a_repository_runs_nothing_where_a_client_asks_git_about_it(
    tmp_path: Path, place: str
) -> None:
    """buildx runs these commands in the context."""
    repository = tmp_path / place
    for folder in ("objects/info", "objects/pack", "refs/heads"):
        (repository / folder).mkdir(parents=True)
    (repository / "HEAD").write_text("1" * 40 + "\n")
    (repository / "config").write_text(EVIL_CONFIG.replace("worktree = .", f"worktree = {tmp_path}"))
    evil, ran = tmp_path / "evil", tmp_path / "ran"
    evil.write_text(f"#!/bin/sh\ntouch {ran}\n")
    evil.chmod(0o755)

    def ask(environment: dict[str, str]) -> bool:
        for command in ("rev-parse --is-inside-work-tree", "show --format=%H HEAD --quiet --"):
            subprocess.run(["git", *command.split()], cwd=tmp_path, env=environment, capture_output=True)
        return ran.exists()

    plain = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    assert not ask(Client("docker", has_buildx=True).environment(plain))
    assert ask(plain), "this git would not have run it anyway"


@pytest.mark.parametrize("text", ["linux/amd64,linux/arm64", "--load", "linux", "linux/arm/v7/x"])
def test_only_one_platform_is_taken_for_an_image_that_stays_here(text: str) -> None:
    assert one_platform("linux/arm/v7") == "linux/arm/v7" and one_platform("") == ""
    with pytest.raises(BadUsage, match="is no platform"):
        one_platform(text)


STAGES = """
# FROM commented AS out
ARG BASE=python
from --platform=$BUILDPLATFORM ${BASE} as Base
FROM base AS test
RUN cd function \\
    # COPY --from=nothing
    && make test
FROM scratch
COPY --chown=1 --from=test /a /b
RUN --mount=type=cache,target=/c --mount=type=bind,from=tools,target=/t make
"""


def test_stages_are_read_with_what_they_are_made_from() -> None:
    stages = read_stages(STAGES)
    assert [stage.name for stage in stages] == ["base", "test", "2"]
    assert stages[1].sources == {"base"} and stages[2].sources == {"scratch", "test", "tools"}
    assert read_stages("no Dockerfile\nRUN x") == []


@pytest.mark.parametrize(
    ("dockerfile", "expected"),
    [
        (STAGES, False),
        ("FROM a AS test\nRUN make test\nFROM a\nCOPY . .\n", True),
        ("FROM a AS base\nFROM base AS test\nFROM base AS other\nCOPY --from=test / /\nFROM base\n", True),
        ("FROM a AS test\nFROM test AS mid\nFROM b\nADD --from=mid /x /y\n", False),
        ("FROM a AS test\nRUN make test\n", False),
        ("FROM a\nRUN make\n", False),
        ("", False),
    ],
)
def test_a_stage_of_tests_that_nothing_needs_is_noticed(dockerfile: str, expected: bool) -> None:
    assert leaves_out_tests(dockerfile) == expected


LOG = """#1 [internal] load build definition from Dockerfile
#1 sha256:0fc
#1 transferring dockerfile: 38B done
#1 DONE 0.0s

#4 [base 1/2] FROM docker.io/library/python:3.13-slim
#4 CACHED

#5 [test 2/3] RUN cd function && python -m pytest
#6 [packages 1/1] RUN pip install
#5 0.312 collected 1 item
#6 0.400 Collecting humanize
#5 0.501
#5 0.512 E   assert 1 == 2
#6 CANCELED
#5 ERROR: executor failed running [/bin/sh -c cd function]: exit code: 1
------
 > [test 2/3] RUN cd function:
------
executor failed running [/bin/sh -c cd function]: exit code: 1
"""


def read(text: str) -> tuple[BuildLog, list[str]]:
    log = BuildLog()
    return log, [shown for line in text.splitlines() for shown in log.lines(line)]


def test_lines_of_buildkit_become_titles_and_what_programs_print() -> None:
    log, shown = read(LOG)
    assert shown == [
        "[base 1/2] FROM docker.io/library/python:3.13-slim",
        "unchanged",
        "[test 2/3] RUN cd function && python -m pytest",
        "[packages 1/1] RUN pip install",
        "collected 1 item",
        "Collecting humanize",
        "",
        "E   assert 1 == 2",
    ]
    failure = log.failure()
    assert isinstance(failure, FailedTests)
    assert str(failure).startswith("its tests failed, so there is no image. The last lines:\ncollected 1 item\n")
    assert "humanize" not in str(failure), "another step's line"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "#2 [linux/arm64 base 2/2] RUN x\n#2 ERROR: exit code: 1\n",
            "[linux/arm64 base 2/2] RUN x failed: exit code: 1",
        ),
        (
            "#3 [internal] load metadata for no/such:1\n#3 ERROR: not found\n",
            "load metadata for no/such:1 failed: not found",
        ),
        (
            "#3 [2/2] RUN x   && y\n#3 ERROR: executor failed running [/bin/sh -c x   && y]: exit code: 7\n",
            "[2/2] RUN x && y failed: exit code: 7",
        ),
        (
            '#3 [2/2] RUN x\n#3 ERROR: process "/bin/sh -c x" did not complete successfully: exit code: 7\n',
            "[2/2] RUN x failed: exit code: 7",
        ),
        ("#3 [2/2] RUN x\n#3 ERROR: first\n#4 [1/2] COPY y\n#4 ERROR: second\n", "[2/2] RUN x failed: first"),
    ],
)
def test_a_step_that_fails_is_the_reason(text: str, words: str) -> None:
    failure = read(text)[0].failure()
    assert failure is not None and not isinstance(failure, FailedTests) and words in str(failure)


def test_tests_are_known_by_their_stage_for_any_platform() -> None:
    assert isinstance(read("#2 [linux/arm64 test 2/2] RUN x\n#2 ERROR: exit code: 1\n")[0].failure(), FailedTests)
    assert read("ERROR: Cannot connect to the Docker daemon\n")[0].failure() is None


def test_the_runtime_is_a_wheel_that_pip_installs_and_that_runs_alone(tmp_path: Path) -> None:
    wheel = write_runtime_wheel(tmp_path)
    first = wheel.read_bytes()
    assert write_runtime_wheel(tmp_path).read_bytes() == first
    assert {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()} == {
        *("stoker_watchdog", "stoker_wire", wheel.name.replace("-py3-none-any.whl", ".dist-info")),
    }
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    code = f"import sys; sys.path.insert(0, {str(site)!r}); import stoker_watchdog.container as c; print(c.__file__)"
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.startswith(str(site))


@pytest.mark.parametrize("name", ["python3", "python3-http", "python3-flask", "node", "ruby", "bash", "go"])
def test_the_dockerfile_of_a_template_runs_its_tests_and_ends_as_an_ordinary_user(name: str) -> None:
    text = (find_template(name).path / "Dockerfile").read_text()
    assert not leaves_out_tests(text) and "TEST_ENABLED" in text
    last = text.rpartition("\nFROM ")[2]
    assert "\nUSER app\n" in last and "\nHEALTHCHECK " in last and "\nCMD [" in last
