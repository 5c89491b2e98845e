"""A Kubernetes for the tests: the one that KUBECONFIG names, or one of our own here (tests/cluster/README.md).

cluster.kubectl("get", "pods", "-n", "openfaas-fn")
image = cluster.function("greet", "def handle(req):\\n    return 'hello'\\n")
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent / "cluster"
ASKED = os.environ.get("STOKER_TEST_CLUSTER") == "1"
GIVEN = os.environ.get("KUBECONFIG", "")
_PORT = os.environ.get("STOKER_CLUSTER_REGISTRY_PORT", "5000")
OWN_REGISTRY, OWN_REGISTRY_OF_PODS = f"localhost:{_PORT}", f"172.31.255.1:{_PORT}"
_RUN = Path(os.environ.get("STOKER_CLUSTER_RUN", "/tmp/stoker-cluster"))
LEFT_OUT = "no cluster: set STOKER_TEST_CLUSTER=1 to start one (as root), or KUBECONFIG and STOKER_TEST_REGISTRY"

_RUNTIME = ("stoker_watchdog", "stoker_wire", "httptools", "uvloop")
_DOCKERFILE = """FROM {base}
WORKDIR /home/app
COPY site site
COPY function function
ENV PYTHONPATH=/home/app:/home/app/function:/home/app/site PYTHONUNBUFFERED=1 mode=python handler=function.handler
CMD ["python", "-m", "stoker_watchdog"]
"""


def is_there() -> bool:
    """Whether tests that need a cluster can run, or are to be made to."""
    return ASKED or bool(GIVEN and os.environ.get("STOKER_TEST_REGISTRY"))


class Cluster:
    """A running cluster, a registry that it fetches images from, and Docker to build them with. `pod_registry` is the
    same registry by a name that pods reach, too.
    """

    def __init__(self) -> None:
        self._own = not GIVEN
        self._was_up = True
        self.kubeconfig = Path(GIVEN)
        self.registry = os.environ.get("STOKER_TEST_REGISTRY", OWN_REGISTRY)
        self.pod_registry = os.environ.get(
            "STOKER_TEST_POD_REGISTRY", (GIVEN and self.registry) or OWN_REGISTRY_OF_PODS
        )
        self.base_image = os.environ.get("STOKER_TEST_BASE_IMAGE", f"{self.registry}/library/python:3.11-slim")
        self.environment = dict(os.environ)
        self._docker = "docker"

    @property
    def docker_socket(self) -> Path:
        """Where the Engine listens on the cluster's node; the test is skipped where that is another machine."""
        host = self.environment.get("DOCKER_HOST", "")
        if not self._own or not host.startswith("unix://"):
            pytest.skip("the Engine of a cluster that is not ours is not on its node")
        return Path(host.removeprefix("unix://"))

    @property
    def host(self) -> str:
        """An address of this machine that pods reach."""
        return self.pod_registry.rpartition(":")[0]

    def start(self) -> Cluster:
        """Start what is not there yet. The very first time on a machine this takes minutes."""
        if self._own:
            self._was_up = self._is_up()
            self.kubeconfig = Path(_last_line(_run([str(SCRIPTS / "up")])))
            _run([str(SCRIPTS / "base-images")])
            self.environment["DOCKER_HOST"] = _last_line(_run([str(SCRIPTS / "docker")]))
            self._docker = "/usr/bin/docker"
        return self

    def stop(self) -> None:
        """Stop what `start` started; a cluster that ran before goes on."""
        if self._own and not self._was_up:
            _run([str(SCRIPTS / "down")])

    def _is_up(self) -> bool:
        return (_RUN / "kubeconfig").exists()

    @contextmanager
    def without_api(self) -> Iterator[None]:
        """The API server is killed, and started again at the end; the test is skipped for a cluster of the user's."""
        if not self._own:
            pytest.skip("the API server of a cluster that is not ours is left alone")
        noted = _RUN / "pid" / "kube-apiserver"
        pid = int(noted.read_text())
        os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}/exe").exists():
            time.sleep(0.01)
        try:
            yield
        finally:
            with (_RUN / "log" / "kube-apiserver").open("ab") as log:
                server = subprocess.Popen(
                    [str(_RUN / "start-api")],
                    cwd=_RUN,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            noted.write_text(f"{server.pid}\n")
            self._await_api()

    def _await_api(self) -> None:
        deadline = time.monotonic() + 60
        ready = ["kubectl", "--kubeconfig", str(self.kubeconfig), "get", "--raw", "/readyz"]
        while subprocess.run(ready, capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, "the API server did not come back"
            time.sleep(0.1)

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        """What kubectl prints; fails with its error."""
        return _run(["kubectl", "--kubeconfig", str(self.kubeconfig), *arguments], input=input)

    def ensure_namespace(self, name: str) -> None:
        document = f"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n"
        self.kubectl("apply", "-f", "-", input=document)

    def account(self, namespace: str, name: str) -> str:
        """Make a service account, and return its token: old releases make one by themselves, newer ones are asked."""
        self.kubectl("create", "serviceaccount", name, "-n", namespace)
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/service-account-token",
            "metadata": {"name": f"{name}-token", "annotations": {"kubernetes.io/service-account.name": name}},
        }
        self.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(secret))
        path = ("get", "secret", f"{name}-token", "-n", namespace, "-o", "jsonpath={.data.token}")
        deadline = time.monotonic() + 20
        while not (token := self.kubectl(*path)):
            assert time.monotonic() < deadline, f"account {name} got no token"
        return base64.b64decode(token).decode()

    def function(self, name: str, handler: str) -> str:
        """An image with our watchdog and this handler.py, in the registry; the same source is built once."""
        tag = hashlib.sha256(_runtime_digest() + handler.encode()).hexdigest()[:12]
        image = f"{self.registry}/{name}:{tag}"
        if self._is_pushed(image):
            return image
        with tempfile.TemporaryDirectory() as folder:
            context = Path(folder)
            _copy_runtime(context / "site")
            _write(context, {"function/__init__.py": "", "function/handler.py": handler})
            self.build(image, context, _DOCKERFILE.format(base=self.base_image))
        return image

    def for_pods(self, image: str) -> str:
        """The image under the registry's name for pods."""
        return self.pod_registry + image.removeprefix(self.registry)

    def build(self, image: str, context: Path, dockerfile: str) -> None:
        """Build with BuildKit, and push."""
        (context / "Dockerfile").write_text(dockerfile)
        self.docker("build", "-q", "-t", image, str(context))
        self.docker("push", "-q", image)

    def tag(self, image: str, name: str) -> str:
        """Let NAME:TAG of the registry mean this image from now on."""
        other = f"{self.registry}/{name}"
        self.docker("tag", image, other)
        self.docker("push", "-q", other)
        return other

    def push_as(self, image: str, other: str, user: str, password: str) -> None:
        """Push an image under another name, to a registry that wants a password."""
        with tempfile.TemporaryDirectory() as folder:
            self.docker("--config", folder, "login", "-u", user, "--password-stdin", other, input=password)
            self.docker("tag", image, other)
            self.docker("--config", folder, "push", "-q", other)

    def _is_pushed(self, image: str) -> bool:
        path, _, tag = image.removeprefix(f"{self.registry}/").partition(":")
        question = urllib.request.Request(f"http://{self.registry}/v2/{path}/manifests/{tag}", method="HEAD")
        try:
            with urllib.request.urlopen(question, timeout=5):
                return True
        except OSError:
            return False

    def digest(self, image: str) -> str:
        """What the registry has a tag under."""
        path, _, tag = image.removeprefix(f"{self.registry}/").partition(":")
        question = urllib.request.Request(f"http://{self.registry}/v2/{path}/manifests/{tag}", method="HEAD")
        question.add_header("Accept", "application/vnd.docker.distribution.manifest.v2+json")
        with urllib.request.urlopen(question, timeout=10) as answer:
            return str(answer.headers["Docker-Content-Digest"])

    def containers(self, label: str, *, all: bool = False) -> list[str]:
        """The ids of the Engine's containers that have this label, those that have ended too if `all`."""
        more = ["--all"] if all else []
        return self.docker("ps", "--quiet", "--no-trunc", "--filter", f"label={label}", *more).split()

    def container_address(self, replica: str) -> str:
        """Where the container of a replica on one machine is."""
        (id,) = self.containers(f"stoker.dev/replica={replica}")
        return self.docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", id).strip()

    def docker(self, *arguments: str, input: str | None = None) -> str:
        """What docker prints; fails with its error."""
        environment = self.environment | {"DOCKER_BUILDKIT": "1"}
        return _run([self._docker, *arguments], input=input, environment=environment)


def _copy_runtime(site: Path) -> None:
    """Ours and the two packages that it needs, as they are installed here: the image has the same Python."""
    for package in _RUNTIME:
        found = find_spec(package)
        assert found is not None and found.submodule_search_locations
        source = Path(found.submodule_search_locations[0])
        shutil.copytree(source, site / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyx", "*.c"))


@functools.cache
def _runtime_digest() -> bytes:
    """Another watchdog makes other images."""
    found = [find_spec(package) for package in _RUNTIME[:2]]
    folders = [Path(spec.submodule_search_locations[0]) for spec in found if spec and spec.submodule_search_locations]
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _run(command: list[str], *, input: str | None = None, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, input=input, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    sys.stderr.write(done.stderr)
    return done.stdout


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1]
