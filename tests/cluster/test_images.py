"""Images by a real Docker Engine: built with `stoker build`, pushed to a real registry, and run as containers."""

from __future__ import annotations

import http.client
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running_cluster import Cluster
from running_platform import PYTHONPATH, REPOSITORY, Platform, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

Stoker = Callable[..., subprocess.CompletedProcess[str]]

FUNCTION = """
  {name}:
    lang: {lang}
    handler: ./{name}
    image: {registry}/images-{name}
    build_args: {{PYTHON_IMAGE: "{base}"}}
"""


@pytest.fixture
def stoker(cluster: Cluster, tmp_path: Path) -> Stoker:
    """Runs `stoker` in `tmp_path`, as somebody who has this docker and no platform."""
    environment = cluster.environment | {"PYTHONPATH": PYTHONPATH, "STOKER_DATA_DIR": str(tmp_path / "data")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stoker_cli", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def project(cluster: Cluster, stoker: Stoker, tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes a stack with one function, as `stoker new` makes it; gives its folder."""

    def make(name: str, lang: str) -> Path:
        done = stoker("new", name, "--lang", lang)
        assert done.returncode == 0, done.stderr
        function = FUNCTION.format(name=name, lang=lang, registry=cluster.registry, base=cluster.base_image)
        (tmp_path / "stack.yml").write_text(f"provider: {{name: openfaas}}\nfunctions:{function}")
        return tmp_path / name

    return make


@contextmanager
def container(cluster: Cluster, image: str, *flags: str) -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs the image; gives a function that calls it by POST, or with `get` by GET."""
    name = cluster.docker("run", "--detach", "--publish=127.0.0.1::8080", *flags, image).strip()
    try:
        address = cluster.docker("port", name, "8080").splitlines()[0]

        def call(path: str, body: str | None = None) -> tuple[int, str]:
            connection = http.client.HTTPConnection(address, timeout=10)
            try:
                connection.request("GET" if body is None else "POST", path, body)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            except (OSError, http.client.HTTPException) as error:
                return 0, str(error)
            finally:
                connection.close()

        wait_for(lambda: call("/_/ready")[0] == 200, f"{image} to be ready", 60)
        yield call
    finally:
        print(cluster.docker("logs", name))
        cluster.docker("rm", "--force", "--volumes", name)


def test_a_function_is_built_pushed_and_answers_from_its_image(
    cluster: Cluster, stoker: Stoker, project: Callable[[str, str], Path]
) -> None:
    folder = project("http", "python3-http")
    with (folder / "handler_test.py").open("a") as tests:
        tests.write(f"# {uuid.uuid4()}: no earlier run has left these in the cache\n")
    built = stoker("build", "--builder", "docker")
    image = f"{cluster.registry}/images-http:latest"
    assert (built.returncode, built.stdout) == (0, f"{image}\n"), built.stderr
    assert "1 passed" in built.stderr and "[test " in built.stderr, "the log comes line by line"
    pushed = stoker("push", "--builder", "docker")
    assert pushed.stdout == f"{image}@{cluster.digest(image)}\n", pushed.stderr
    with container(cluster, pushed.stdout.strip(), "--read-only", "--tmpfs=/tmp", "--user=12000") as call:
        assert call("/hello?a=1", "world") == (200, "POST /hello: world")
        assert call("/_/health")[0] == 200
    user = json.loads(cluster.docker("image", "inspect", image))[0]["Config"]["User"]
    assert user == "app"
    again = stoker("build", "--builder", "docker")
    assert "unchanged" in again.stderr and "1 passed" not in again.stderr


@pytest.mark.parametrize("lang", ["python3", "python3-flask", "bash"])
def test_templates_make_images_that_answer(
    cluster: Cluster, stoker: Stoker, project: Callable[[str, str], Path], lang: str
) -> None:
    project(f"of-{lang}", lang)
    built = stoker("build", "--builder", "docker")
    assert built.returncode == 0, built.stderr
    with container(cluster, built.stdout.strip(), "--user=12000") as call:
        status, text = call("/", "hi")
        assert (status, text.strip()) == (200, "You sent: hi")


def test_a_failing_test_leaves_no_image(cluster: Cluster, stoker: Stoker, project: Callable[[str, str], Path]) -> None:
    folder = project("failing", "python3")
    (folder / "handler_test.py").write_text("def test_it():\n    assert 'mine' == 'yours'\n")
    done = stoker("build", "--builder", "docker")
    assert done.returncode == 1 and done.stdout == ""
    assert "function 'failing': its tests failed, so there is no image" in done.stderr
    assert "AssertionError" in done.stderr or "assert 'mine' == 'yours'" in done.stderr
    assert cluster.docker("image", "ls", "--quiet", f"{cluster.registry}/images-failing").strip() == ""
    off = stoker("build", "--builder", "docker", "--build-arg", "TEST_ENABLED=false")
    assert off.returncode == 0, off.stderr
    cluster.docker("image", "rm", off.stdout.strip())


def test_tests_gate_an_image_also_where_no_stage_needs_them(
    cluster: Cluster, stoker: Stoker, project: Callable[[str, str], Path]
) -> None:
    folder = project("gated", "dockerfile")
    base = cluster.base_image
    (folder / "Dockerfile").write_text(f"FROM {base} AS test\nRUN echo looked && false\nFROM {base}\nCOPY . .\n")
    done = stoker("build")
    assert done.returncode == 1 and "its tests failed, so there is no image. The last lines:\nlooked" in done.stderr


def test_secrets_of_a_build_are_in_no_layer_and_arguments_arrive(
    cluster: Cluster, stoker: Stoker, project: Callable[[str, str], Path], tmp_path: Path
) -> None:
    secret = "s3cret-of-the-build"
    folder = project("secretive", "dockerfile")
    (tmp_path / "token.txt").write_text(secret)
    stack = tmp_path / "stack.yml"
    stack.write_text(stack.read_text() + "    build_secrets: {token: ./token.txt}\n")
    (folder / "Dockerfile").write_text(
        f"FROM {cluster.base_image}\nARG LEVEL\n"
        "RUN --mount=type=secret,id=token wc -c < /run/secrets/token > /size && echo $LEVEL > /level\n"
    )
    built = stoker("build", "--build-arg", "LEVEL=7")
    assert built.returncode == 0, built.stderr
    image = built.stdout.strip()
    assert secret not in built.stderr
    assert cluster.docker("run", "--rm", image, "cat", "/size", "/level").split() == [str(len(secret)), "7"]
    assert not list(find_in_layers(cluster, image, secret.encode(), tmp_path))
    assert list(find_in_layers(cluster, image, b"level", tmp_path)), "what is there would be found"


def find_in_layers(cluster: Cluster, image: str, words: bytes, folder: Path) -> Iterator[str]:
    """Files of the newest layer, and the configuration, that hold the words."""
    cluster.docker("save", "--output", str(folder / "image.tar"), image)
    with tarfile.open(folder / "image.tar") as saved:
        manifest = json.load(saved.extractfile("manifest.json") or io.BytesIO())[0]
        for name in (manifest["Config"], manifest["Layers"][-1]):
            content = (saved.extractfile(name) or io.BytesIO()).read()
            if words in content:
                yield name


def test_an_image_is_for_the_platform_that_is_asked_for(
    cluster: Cluster, stoker: Stoker, project: Callable[[str, str], Path]
) -> None:
    folder = project("foreign", "dockerfile")
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    built = stoker("build", "--platform", "linux/arm64")
    assert built.returncode == 0, built.stderr
    found = json.loads(cluster.docker("image", "inspect", built.stdout.strip()))[0]
    assert (found["Os"], found["Architecture"]) == ("linux", "arm64")


def test_what_cannot_be_built_or_pushed_has_its_reason(
    stoker: Stoker, project: Callable[[str, str], Path], tmp_path: Path
) -> None:
    folder = project("broken", "dockerfile")
    (folder / "Dockerfile").write_text("FROM nobody.invalid/nothing:1\n")
    done = stoker("build")
    assert done.returncode == 1 and "nobody.invalid/nothing:1" in done.stderr.splitlines()[-1]
    assert stoker("push").returncode == 1


def test_up_builds_pushes_and_deploys_by_itself_where_functions_are_pods(
    cluster: Cluster, stoker: Stoker, project: Callable[[str, str], Path], tmp_path: Path
) -> None:
    cluster.ensure_namespace("openfaas-fn")
    flags = ("--provider", "kubernetes", "--no-async")
    platform = Platform(proxies=1, flags=flags, KUBECONFIG=str(cluster.kubeconfig))
    try:
        platform.start()
        shutil.copytree(platform.data.path, tmp_path / "data")  # with the password
        project("images-up", "python3-http")
        done = stoker("up", "--gateway", platform.http_url)
        assert done.returncode == 0, done.stderr
        assert platform.call("images-up", b"pod").text == "POST /: pod"
        platform.client.remove("images-up")
    finally:
        print(platform.log)
        platform.delete()


def test_the_same_stack_is_processes_or_containers_of_one_machine(
    cluster: Cluster, stoker: Stoker, project: Callable[[str, str], Path], tmp_path: Path
) -> None:
    platform = Platform(proxies=1, flags=("--no-async",), DOCKER_HOST=cluster.environment["DOCKER_HOST"])
    try:
        platform.start()
        shutil.copytree(platform.data.path, tmp_path / "data")  # with the password
        project("images-both", "python3-http")
        for builder, image in (("local", "stoker.local/"), ("docker", cluster.registry)):
            done = stoker("up", "--builder", builder, "--gateway", platform.http_url)
            assert done.returncode == 0, done.stderr
            assert platform.call("images-both", b"here").text == "POST /: here"
            assert platform.status("images-both").image.startswith(image)
    finally:
        print(platform.log)
        platform.delete()


@pytest.fixture(scope="module")
def platform_image(cluster: Cluster) -> str:
    image = f"{cluster.registry}/images-stoker:test"
    cluster.docker("build", "-q", "--build-arg", f"PYTHON_IMAGE={cluster.base_image}", "-t", image, str(REPOSITORY))
    return image


def test_the_platform_s_image_is_small_and_of_an_ordinary_user(cluster: Cluster, platform_image: str) -> None:
    found = json.loads(cluster.docker("image", "inspect", platform_image))[0]
    base = json.loads(cluster.docker("image", "inspect", cluster.base_image))[0]
    own = found["Size"] - base["Size"]
    print(f"{found['Size'] / 1e6:.0f} MB, {own / 1e6:.0f} MB of it beside the base image")
    assert own < 150e6
    assert found["Config"]["User"] == "10001"


def test_the_platform_s_image_serves_a_cluster_as_any_user_on_a_read_only_root(
    cluster: Cluster, platform_image: str, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(cluster.kubectl("config", "view", "--raw", "--flatten"))
    flags = ("--network=host", "--read-only", "--user=12345", "--tmpfs=/tmp", "--env=STOKER_DATA_DIR=/tmp/data")
    serve = "stoker serve --provider=kubernetes --kubeconfig=/kubeconfig --http=127.0.0.1:0 --https=127.0.0.1:0"
    command = [*serve.split(), "--metrics=127.0.0.1:0", "--proxies=1", "--ready-file=/tmp/ready.json"]
    mount = f"--volume={kubeconfig}:/kubeconfig:ro"
    name = cluster.docker("run", "--detach", *flags, mount, platform_image, *command).strip()

    def address() -> str:
        assert cluster.docker("inspect", "--format={{.State.Running}}", name).strip() == "true"
        found = re.search(r"serving on (http://\S+)", cluster.docker("logs", name))
        return found[1] if found else ""

    try:
        with urllib.request.urlopen(f"{wait_for(address, 'the platform', 60)}/healthz", timeout=10) as answer:
            assert answer.status == 200
        assert "async calls are kept" in cluster.docker("logs", name), "its nats-server runs, too"
        cluster.docker("stop", name)
        assert cluster.docker("inspect", "--format={{.State.ExitCode}}", name).strip() == "0"
    finally:
        print(cluster.docker("logs", name))
        cluster.docker("rm", "--force", name)
