"""What is asked of Docker, and with which build context. Docker's place takes a program that writes down what it is
asked, because an engine is not there on every machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from git_repository import commit, git
from running_control import PASSWORD, RunningControl, Shell, running_control, shell

from stoker_sdk.names import FunctionKey

STACK = """
provider: {name: openfaas}
configuration:
  copy: [shared, LICENSE]
functions:
  web:
    lang: dockerfile
    handler: ./web
    image: registry.example.org/web
    build_args: {B: "2"}
    build_secrets: {token: ./token.txt}
    environment: {LEVEL: debug}
    secrets: [api-key]
    limits: {memory: 1Mi, cpu: 500m}
    readonly_root_filesystem: true
  old:
    lang: own
    handler: ./old
    image: me/old:0.1
    build_options: [dev]
  greet: {lang: python3, handler: ./greet, image: greet}
  done: {lang: dockerfile, handler: ./web, image: me/done:1, skip_build: true}
"""

DOCKER = """#!{python}
import json, os, sys
if sys.argv[1:] == ["--version"]:
    sys.exit(print("Docker version 20.10.24, build 1"))
if sys.argv[1:] == ["buildx", "version"]:
    sys.exit({no_buildx} or print("buildx v0.12"))
with open({trace!r}, "a") as file:
    file.write(json.dumps([sys.argv[1:], os.getcwd(), os.environ.get("DOCKER_BUILDKIT", "")]) + "\\n")
print("docker says", sys.argv[1], flush=True)
if sys.argv[1] == "push":
    print("1: digest: sha256:" + "d" * 64 + " size: 528")
if "fail" in " ".join(sys.argv):
    print("no space left on device", file=sys.stderr)
    sys.exit(7)
"""
DIGEST = "sha256:" + "d" * 64


class Docker:
    """A folder for PATH with the stand-in, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        """Like Debian's client: BuildKit is in itself, and buildx is not there."""
        self.folder = folder / "bin"
        self.folder.mkdir()
        self._trace = folder / "trace"
        self.install()

    def install(self, *, no_buildx: bool = True) -> None:
        program = self.folder / "docker"
        program.write_text(DOCKER.format(python=sys.executable, trace=str(self._trace), no_buildx=no_buildx))
        program.chmod(0o755)

    def calls(self) -> list[list[str]]:
        return [json.loads(line)[0] for line in self._lines()]

    def call(self, *start: str) -> tuple[list[str], str, str]:
        (found,) = [each for each in map(json.loads, self._lines()) if each[0][: len(start)] == list(start)]
        return found

    def call_in(self, folder: str) -> tuple[list[str], str, str]:
        (found,) = [each for each in map(json.loads, self._lines()) if Path(each[1]).name == folder]
        return found

    def _lines(self) -> list[str]:
        return self._trace.read_text().splitlines() if self._trace.exists() else []


@pytest.fixture
def docker(tmp_path: Path) -> Docker:
    return Docker(tmp_path)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[RunningControl]:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "password").write_text(PASSWORD)
    with running_control(tmp_path) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, docker: Docker, control: RunningControl) -> Shell:
    stoker = shell(tmp_path, OPENFAAS_URL=control.url)
    stoker.environment["PATH"] = f"{docker.folder}:{stoker.environment['PATH']}"  # type: ignore[index]
    files = {"stack.yml": STACK, "web/Dockerfile": "FROM scratch\n", "web/build/x": "no", "web/app.js": "1"}
    files |= {"old/main.own": "mine", "greet/handler.py": "def handle(req):\n    return req\n"}
    files |= {"shared/lib.txt": "shared", "LICENSE": "free", "token.txt": "t", ".secrets/api-key": "k"}
    files |= {
        "template/own/template.yml": "language: own\nfprocess: run-own\n"
        "build_options:\n- {name: dev, packages: [make, gcc]}\n"
    }
    files |= {"template/own/Dockerfile": "FROM scratch\n", "template/own/function/main.own": "starter"}
    for name, text in files.items():
        stoker.file(name, text)
    return stoker


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_shrinkwrap_writes_the_context_of_every_function(project: Shell, docker: Docker) -> None:
    project.file("build/web/stale", "x")
    done = project("build", "--shrinkwrap")
    assert done.code == 0, done.err
    assert tree(project.folder / "build/web") == ["Dockerfile", "LICENSE", "app.js", "shared/lib.txt"]
    assert tree(project.folder / "build/old") == [
        *("Dockerfile", "function/LICENSE", "function/main.own", "function/shared/lib.txt", "template.yml")
    ]
    assert (project.folder / "build/old/function/main.own").read_text() == "mine"
    assert docker.calls() == []


def test_build_asks_docker_for_what_the_gateway_cannot_build(project: Shell, docker: Docker) -> None:
    done = project(
        "build",
        "--no-cache",
        "--build-arg",
        "A=1",
        "--build-label",
        "l=v",
        "--pull",
        "--squash",
        http_proxy="http://p:1",
    )
    assert done.code == 0, done.err
    images = done.out.splitlines()
    assert images[:2] == ["registry.example.org/web:latest", "me/old:0.1"]
    assert images[2].startswith("stoker.local/greet@sha256:")
    arguments, folder, buildkit = docker.call_in("web")
    assert folder == str(project.folder / "build/web") and buildkit == "1"
    assert arguments == [
        *("build", "--progress=plain", "--squash", "--no-cache", "--pull", "--label", "l=v"),
        *("--build-arg", "A=1", "--build-arg", "ADDITIONAL_PACKAGE=", "--build-arg", "B=2"),
        *("--build-arg", "http_proxy=http://p:1"),
        *("--secret", f"id=token,src={project.folder / 'token.txt'}"),
        *("--tag", "registry.example.org/web:latest", "."),
    ]
    old, _, buildkit = docker.call_in("old")
    assert "ADDITIONAL_PACKAGE=gcc make" in old and buildkit == "1"


def test_what_configuration_copy_names_is_part_of_what_the_gateway_builds(project: Shell) -> None:
    first = project("build", "--filter", "greet").out
    project.file("shared/lib.txt", "changed")
    assert project("build", "--filter", "greet").out != first


def test_a_pulled_template_that_only_makes_images_gives_way_to_the_one_of_the_gateway(
    project: Shell, docker: Docker
) -> None:
    project.file("template/python3/template.yml", "language: python3\nfprocess: python3 index.py\n")
    done = project("build", "--filter", "greet")
    assert done.code == 0 and docker.calls()[-1][0] == "build", "an own template is not replaced"
    project.file("template/python3/meta.json", "{}")
    done = project("build", "--filter", "greet")
    assert done.out.startswith("stoker.local/greet@") and "python3 takes the place of the pulled one" in done.err
    assert project("build", "--filter", "greet", "--builder", "docker").out == "greet:latest\n"


@pytest.mark.parametrize(
    ("copy", "words"),
    [
        ("../outside", "leaves the stack's folder"),
        ("/etc", "is an absolute path"),
        (".", "is the whole project"),
        ("missing", "there is no 'missing' beside the stack file"),
        ("linked", "leaves the stack's folder"),
        ("links", "is a symbolic link that leaves the folder"),
    ],
)
def test_only_what_lies_in_the_project_is_copied(project: Shell, copy: str, words: str) -> None:
    (project.folder / "linked").symlink_to("/etc/passwd")
    project.file("links/a", "a")
    (project.folder / "links/b").symlink_to("/etc/passwd")
    project.file("stack.yml", STACK.replace("[shared, LICENSE]", f"['{copy}']"))
    for command in (("build", "--filter", "greet"), ("build", "--shrinkwrap", "--filter", "web")):
        done = project(*command)
        assert done.code == 1 and words in done.err and "Traceback" not in done.err


def test_a_context_is_never_written_through_a_link(project: Shell, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/web").mkdir()
    (tmp_path / "precious/web/file").write_text("kept")
    (project.folder / "build").symlink_to(tmp_path / "precious")
    done = project("build", "--shrinkwrap", "--filter", "web")
    assert done.code == 1 and "is a symbolic link" in done.err
    assert (tmp_path / "precious/web/file").read_text() == "kept"


def test_a_build_option_that_the_template_lacks_is_refused(project: Shell) -> None:
    done = project("build", "--filter", "old", "--build-option", "nope")
    assert done.code == 1 and "build option 'nope' is unknown to the template 'own', which has: dev" in done.err


def test_push_pushes_images_and_says_what_needs_none(project: Shell, docker: Docker) -> None:
    done = project("push", "--parallel", "2")
    assert done.code == 0, done.err
    assert done.out.splitlines() == [f"registry.example.org/web:latest@{DIGEST}", f"me/old:0.1@{DIGEST}"]
    assert sorted(docker.calls()) == [["push", "me/old:0.1"], ["push", "registry.example.org/web:latest"]]
    assert "greet: nothing to push: the gateway builds it and keeps it" in done.err


def test_an_image_without_an_owner_is_not_pushed(project: Shell, docker: Docker) -> None:
    project.file("stack.yml", STACK.replace("registry.example.org/web", "web"))
    done = project("push", "--filter", "web")
    assert done.code == 1 and "image 'web:latest' cannot be pushed" in done.err and docker.calls() == []


def test_publish_builds_with_buildx_for_every_platform_and_tag(project: Shell, docker: Docker) -> None:
    docker.install(no_buildx=False)
    done = project("publish", "--filter", "old", "--platforms", "linux/amd64,linux/arm64", "--extra-tag", "stable")
    assert done.code == 0, done.err
    assert done.out == "me/old:0.1\n"
    arguments, folder, _ = docker.call("buildx", "build")
    assert folder == str(project.folder / "build/old")
    assert arguments[:5] == [
        *("buildx", "build", "--builder=multiarch", "--progress=plain", "--platform=linux/amd64,linux/arm64"),
    ]
    assert arguments[-4:] == ["--output=type=registry,push=true", "--tag=me/old:0.1", "--tag=me/old:stable", "."]


@pytest.mark.parametrize("flags", [("--platforms", "a b"), ("--extra-tag", "a/b"), ("--platforms", "--load")])
def test_publish_refuses_what_is_no_platform_or_tag(project: Shell, docker: Docker, flags: tuple[str, str]) -> None:
    assert project("publish", *flags).code == 2 and docker.calls() == []


def test_a_missing_docker_or_buildx_is_named(project: Shell, docker: Docker) -> None:
    done = project("publish", "--filter", "old")
    assert done.code == 1 and "docker has no buildx plug-in here" in done.err
    for command in (("push", "--filter", "web"), ("build", "--filter", "web"), ("publish",), ("local-run", "web")):
        done = project(*command, PATH="/nowhere")
        assert done.code == 1 and "the program 'docker' is not installed here" in done.err, command


def test_a_failing_docker_is_shown_with_its_reason(project: Shell) -> None:
    project.file("stack.yml", STACK.replace("registry.example.org/web", "example.org/fail"))
    done = project("build", "--filter", "web")
    assert done.code == 1
    assert "function 'web': `docker build" in done.err and "exit code 7: no space left on device" in done.err
    assert "docker says build" in done.err


def test_up_builds_pushes_and_deploys_images_with_the_process_of_their_template(
    project: Shell, docker: Docker, control: RunningControl
) -> None:
    done = project("up", "--filter", "old")
    assert done.code == 0, done.err
    assert [call[0] for call in docker.calls()] == ["build", "push"]
    status = control.provider.get(FunctionKey("openfaas-fn", "old"))
    assert (status.image, status.env_process) == ("me/old:0.1", "run-own")


def test_up_leaves_out_the_steps_that_it_is_told_to(project: Shell, docker: Docker, control: RunningControl) -> None:
    done = project("up", "--skip-push", "--skip-deploy", "--filter", "old", "--quiet", "--parallel", "2")
    assert (done.code, done.out, done.err) == (0, "me/old:0.1\n", "")
    assert [call[0] for call in docker.calls()] == ["build"] and control.provider.list("openfaas-fn") == []
    docker.install(no_buildx=False)
    assert project("up", "--publish", "--filter", "old").code == 0
    assert docker.calls()[-1][:2] == ["buildx", "build"]
    assert project("up", "--platforms", "linux/arm64,linux/amd64").code == 2


def test_the_builder_and_the_platform_are_chosen_by_flags(project: Shell, docker: Docker) -> None:
    assert project("build", "--filter", "greet", "--builder", "docker", "--platform", "linux/arm64").code == 0
    arguments, folder, _ = docker.call("build")
    assert arguments[:3] == ["build", "--progress=plain", "--platform=linux/arm64"]
    assert [name for name in tree(Path(folder)) if name.endswith(".whl")], "python3 gets our watchdog from here"
    done = project("push", "--filter", "greet", "--builder", "docker")
    assert done.code == 1 and "image 'greet:latest' cannot be pushed" in done.err
    assert "nothing to push" in project("push", "--filter", "greet", "--builder", "local").err
    assert project("build", "--platform", "linux/arm64,linux/amd64").code == 2


def test_a_gateway_on_a_cluster_gets_images(project: Shell, docker: Docker, control: RunningControl) -> None:
    control.provider.name = "kubernetes"
    assert project("build", "--filter", "greet").out == "greet:latest\n"
    assert project("build", "--filter", "greet", "--builder", "local").out.startswith("stoker.local/greet@")
    assert [call[0] for call in docker.calls()] == ["build"]
    done = project("deploy", "--filter", "greet")
    assert done.code == 0, done.err
    assert control.provider.get(FunctionKey("openfaas-fn", "greet")).image == "greet:latest"


def test_tests_that_nothing_needs_are_run_before_the_image_is_made(project: Shell, docker: Docker) -> None:
    project.file("web/Dockerfile", "FROM a AS test\nRUN make test\nFROM a\n")
    assert project("build", "--filter", "web", "--quiet").code == 0
    tests, image = docker.calls()
    assert tests[-2:] == ["--target=test", "."] and "--tag" not in tests
    assert image[-3:] == ["--tag", "registry.example.org/web:latest", "."]


def test_a_push_that_names_no_digest_is_no_push(project: Shell, docker: Docker) -> None:
    program = docker.folder / "docker"
    program.write_text(program.read_text().replace("digest:", "summary:"))
    done = project("push", "--filter", "web")
    assert done.code == 1 and "named no digest" in done.err


def test_deploy_builds_no_images(project: Shell, docker: Docker, control: RunningControl) -> None:
    done = project("deploy", "--filter", "old")
    assert done.code == 0, done.err
    assert docker.calls() == []
    assert control.provider.get(FunctionKey("openfaas-fn", "old")).image == "me/old:0.1"


def test_tags_come_from_git_or_from_the_handler(project: Shell, docker: Docker) -> None:
    done = project("build", "--filter", "old", "--tag", "sha")
    assert done.code == 1 and "--tag sha cannot be made" in done.err
    git(project.folder, "init", "--quiet", "--initial-branch=feature/x")
    sha = commit(project.folder)[:7]
    assert project("build", "--filter", "old", "--tag", "sha").out == f"me/old:0.1-{sha}\n"
    assert project("build", "--filter", "old", "--tag", "branch").out == f"me/old:0.1-feature-x-{sha}\n"
    git(project.folder, "tag", "v2")
    assert project("build", "--filter", "old", "--tag", "describe").out == "me/old:0.1-v2\n"
    digest = project("build", "--filter", "old", "--tag", "digest").out
    assert digest.startswith("me/old:") and len(digest.strip()) == len("me/old:") + 32
    project.file("old/main.own", "other")
    assert project("build", "--filter", "old", "--tag", "digest").out != digest


def test_local_run_starts_a_container_as_the_contract_says(project: Shell, docker: Docker) -> None:
    done = project("local-run", "web", "--port", "3001", "--env", "A=1")
    assert done.code == 0, done.err
    arguments, _, _ = docker.call("run")
    assert arguments == [
        *("run", "--name=web", "--rm", "-i", "--publish=3001:8080", "--env=OPENFAAS_NAME=web"),
        *("--env=OPENFAAS_NAMESPACE=openfaas-fn", "--env=jwt_auth_local=true", "--env=LEVEL=debug", "--env=A=1"),
        f"--volume={project.folder / '.secrets'}:/var/openfaas/secrets:ro",
        *("--read-only", "--memory-reservation=6291456b", "--cpus=0.5", "registry.example.org/web:latest"),
    ]
    printed = project("local-run", "web", "--print", "--network", "host").out
    assert printed.startswith("docker run --name=web --rm -i --network=host ")


def test_local_run_says_what_it_cannot_run(project: Shell) -> None:
    assert "run it with `stoker dev greet`" in project("local-run", "greet").err
    assert project("local-run").code == 2
    (project.folder / ".secrets/api-key").unlink()
    assert "secret 'api-key' is missing: put its value into .secrets/api-key" in project("local-run", "web").err
