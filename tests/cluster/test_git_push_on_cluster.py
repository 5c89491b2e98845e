"""`git push`, and a webhook of GitHub's, to a platform in the cluster: BuildKit builds, a registry keeps, pods answer.

The builder's pod uses the Docker Engine of its node.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from git_repository import make_repository
from github_server import APP_ID, SECRET, GitHubServer
from running_cluster import Cluster
from running_platform import wait_for
from steady_load import HANDLER, SteadyLoad
from working_copy import WorkingCopy

from stoker_sdk.credentials import basic_authorization
from stoker_sdk.errors import NotFound, StokerError
from stoker_sdk.runs import Run

if TYPE_CHECKING:
    from installed_chart import Installed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

NAMESPACE, DOMAIN = "stoker-push", "push.example.org"
BUILDER = "stoker-builder-0"
TEST = "from . import handler\n\n\ndef test_version():\n    assert handler.VERSION == {!r}\n"


@pytest.fixture(scope="module")
def github(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitHubServer]:
    server = GitHubServer(tmp_path_factory.mktemp("github"), cluster.host)
    yield server
    server.close()


@pytest.fixture(scope="module")
def pushed_to(cluster: Cluster, github: GitHubServer) -> Iterator[Installed]:
    from installed_chart import installed_chart

    socket = cluster.docker_socket
    values: dict[str, Any] = {
        "gateway": {"replicas": 2},
        "endpoints": {"domain": DOMAIN},
        "builder": {
            "enabled": True,
            "images": {"builder": "docker", "prefix": f"{cluster.pod_registry}/{NAMESPACE}"},
            "docker": {"socket": str(socket), "group": socket.stat().st_gid},
            "github": {"secret": "github", "appId": str(APP_ID), "apiUrl": github.api_url},
        },
    }
    keys = {"webhook-secret": SECRET, "private-key": github.key_file.read_text()}
    with installed_chart(cluster, NAMESPACE, values, {"github": keys}) as one:
        yield one
    built = cluster.docker("images", "--quiet", "--filter", f"reference={cluster.pod_registry}/{NAMESPACE}/*").split()
    cluster.docker("rmi", "--force", *set(built))


class Copy(WorkingCopy):
    """A repository whose functions are called by their owner's host."""

    def __init__(self, installed: Installed, cluster: Cluster, folder: Path, repository: str) -> None:
        self.installed = installed
        self._patience = 400.0
        self.folder = make_repository(folder)
        self.owner, self.name = repository.split("/")
        self.url = f"{installed.url}/git/{repository}"
        self.base = cluster.base_image

    @property
    def password(self) -> str:
        return self.installed.password()

    def write(self, **versions: str) -> str:
        """Functions by name, each with its version and a test of it; what is not named is gone."""
        for known in self.folder.glob("*/handler.py"):
            if known.parent.name not in versions:
                self.git("rm", "-r", "--quiet", known.parent.name)
        files = {f"{name}__handlerDOTpy": HANDLER.format(version) for name, version in versions.items()}
        files |= {f"{name}__handler_testDOTpy": TEST.format(version) for name, version in versions.items()}
        return self.commit(**files, stackDOTyml=stack(self.base, *versions))

    def answer(self, function: str, body: bytes = b"you") -> str:
        return self.visit(function).text

    def await_answer(self, function: str, version: str) -> None:
        """The other gateway may hear of it a moment later than the one that the run has asked."""
        wait_for(lambda: self.answer(function) == version, f"version {version} of {function}", 5)

    def visit(self, function: str) -> Any:
        host = {"Host": f"{self.owner}.{DOMAIN}"}
        return self.installed.request("GET", f"/{function}/version", b"", host)

    def runs(self) -> list[Run]:
        return self.installed.client.runs.list_runs(owner=self.owner, repository=self.name)

    def ended(self, count: int) -> Run:
        """The newest run, when there are so many and none is open."""

        def found() -> Run | None:
            try:
                runs = self.runs()
            except StokerError:  # the builder is away
                return None
            return runs[0] if len(runs) >= count and not any(run.is_open for run in runs) else None

        return wait_for(found, f"the end of run {count}", self._patience)


def stack(base: str, *names: str) -> str:
    functions = "".join(
        f"  {name}: {{lang: python3-http, handler: ./{name}, image: {name}, build_args: {{PYTHON_IMAGE: {base!r}}}}}\n"
        for name in names
    )
    return f"provider: {{name: openfaas}}\nfunctions:\n{functions}"


def slow_test() -> str:
    """Another text each time, or BuildKit would know how it ends."""
    return f"import time\n\n\ndef test_it_takes_its_time():\n    time.sleep(15)\n# {uuid.uuid4()}\n"


@pytest.fixture
def copy(pushed_to: Installed, cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> Copy:
    """An empty repository of an owner of this test's own."""
    owner = f"owner-{zlib.crc32(request.node.name.encode()):x}"
    return Copy(pushed_to, cluster, tmp_path / "shop", f"{owner}/shop")


def test_a_push_is_live_and_stays_so_until_the_next_good_one(copy: Copy, cluster: Cluster) -> None:
    installed = copy.installed
    copy.write(greet="one", wave="one")
    first = copy.push()
    assert first.code == 0
    assert f"greet: live at https://{copy.owner}.{DOMAIN}/greet" in first.lines
    for function in ("greet", "wave"):
        copy.await_answer(function, "one")
    name = copy.service("greet")
    image = installed.client.function(name, installed.functions).image
    assert image.startswith(f"{cluster.pod_registry}/{NAMESPACE}/{name}") and "@sha256:" in image
    assert installed.pods(name)

    with SteadyLoad(installed.address, f"{name}.{installed.functions}") as load:
        wait_for(lambda: load.done["short"] > 20, "calls")
        load.enter("a new version")
        copy.write(greet="two", wave="one")
        assert copy.push().code == 0
        copy.await_answer("greet", "two")
        load.enter("a broken test")
        copy.commit(greet__handlerDOTpy=HANDLER.format("three"))
        broken = copy.push("-o", "wait")
        assert broken.code == 1 and "handler_test.py::test_version" in broken.said
        assert copy.answer("greet") == "two"
    assert load.lost == []
    states = [{one.name: (one.state, one.test) for one in run.functions} for run in copy.runs()]
    assert states == [
        {"greet": ("failed", "handler_test.py::test_version"), "wave": ("unchanged", "")},
        {"greet": ("deployed", ""), "wave": ("unchanged", "")},
        {"greet": ("deployed", ""), "wave": ("deployed", "")},
    ]

    copy.write(greet="four")
    assert "wave: removed" in copy.push().said
    wait_for(lambda: copy.visit("wave").status == 404, "the end of wave", 5)
    with pytest.raises(NotFound):
        installed.client.function(copy.service("wave"), installed.functions)
    wait_for(lambda: not installed.pods(copy.service("wave"), ending=True), "the end of its pods", 120)
    copy.await_answer("greet", "four")


@pytest.mark.parametrize("how", [(), ("--grace-period=0", "--force")], ids=["drained", "killed"])
def test_the_end_of_the_builder_ends_no_run(copy: Copy, how: tuple[str, ...]) -> None:
    copy.write(greet="old")
    assert copy.push().code == 0
    copy.write(greet="new")
    copy.commit(greet__slow_testDOTpy=slow_test())
    assert copy.push("-o", "detach").code == 0
    wait_for(lambda: any(each.state == "building" for each in copy.runs()[0].functions), "the build", 60)
    before = _builder(copy.installed)
    copy.installed.kubectl("delete", "pod", BUILDER, "--wait=false", *how)
    wait_for(lambda: _builder(copy.installed) not in ("", before), "the next builder", 60)
    assert copy.answer("greet") == "old"
    run = copy.ended(2)
    assert (run.state, len(copy.runs())) == ("succeeded", 2)
    copy.await_answer("greet", "new")
    wait_for(lambda: len(copy.installed.pods(copy.service("greet"))) == 1, "the end of the old version", 60)


KILL = """
import os, pathlib, signal
for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    if b"stoker_builder.pipeline.run\\0" in path.read_bytes():
        os.kill(int(path.parent.name), signal.SIGKILL)
        print("killed")
"""
DEAD = """
import pathlib
print(sum(b") Z " in path.read_bytes() for path in pathlib.Path("/proc").glob("[0-9]*/stat")))
"""


def test_a_run_that_is_killed_begins_again_and_leaves_no_dead_process(copy: Copy) -> None:
    copy.write(greet="new")
    copy.commit(greet__slow_testDOTpy=slow_test())
    assert copy.push("-o", "detach").code == 0
    wait_for(lambda: any(each.state == "building" for each in copy.runs()[0].functions), "the build", 60)
    inside = ("exec", BUILDER, "--", "python", "-c")
    assert "killed" in copy.installed.kubectl(*inside, KILL)
    run = copy.ended(1)
    assert (run.state, run.attempt) == ("succeeded", 2)
    copy.await_answer("greet", "new")
    wait_for(lambda: copy.installed.kubectl(*inside, DEAD).strip() == "0", "the burial", 20)


def _builder(installed: Installed) -> str:
    """The id of its pod; empty while there is none."""
    return installed.kubectl("get", "pod", BUILDER, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}")


def test_while_the_builder_is_away_calls_go_on_and_pushes_are_told_to_come_again(copy: Copy) -> None:
    copy.write(greet="one")
    assert copy.push().code == 0
    copy.installed.kubectl("scale", "statefulset", "stoker-builder", "--replicas=0")
    try:
        wait_for(lambda: not _builder(copy.installed), "the end of the builder", 60)
        authorization = {"Authorization": basic_authorization("admin", copy.password)}
        refused = copy.installed.request("GET", "/system/runs", b"", authorization)
        assert refused.status == 503 and refused.headers["retry-after"]
        assert refused.text.startswith("the git pipeline cannot be reached now")
        assert copy.answer("greet") == "one"
        copy.write(greet="two")
        assert copy.push().code != 0
    finally:
        copy.installed.kubectl("scale", "statefulset", "stoker-builder", "--replicas=1")
        copy.installed.kubectl("rollout", "status", "statefulset/stoker-builder", "--timeout=60s")
    assert copy.push().code == 0
    copy.await_answer("greet", "two")


def test_a_webhook_of_github_s_is_a_run_and_checks_below_the_commit(
    pushed_to: Installed, cluster: Cluster, github: GitHubServer
) -> None:
    repository = github.create("Ada/Shop")
    files = {"greet__handlerDOTpy": HANDLER.format("one"), "greet__handler_testDOTpy": TEST.format("one")}
    sha = repository.commit("Say hello", **files, stackDOTyml=stack(cluster.base_image, "greet"))
    assert github.deliver(pushed_to, "push", github.push_payload(repository), signature="sha256=00").status == 401
    assert github.push(pushed_to, repository).status == 202

    def shown(context: str) -> dict[str, Any] | None:
        check = github.statuses(repository.full_name, sha).get(context)
        return check if check and check["status"] == "completed" else None

    greet = wait_for(lambda: shown("stoker/greet"), "the function's check", 300)
    whole = wait_for(lambda: shown("stoker"), "the whole's check", 60)
    assert (greet["conclusion"], whole["conclusion"]) == ("success", "success")
    assert greet["details_url"] == f"https://ada.{DOMAIN}/greet"
    host = {"Host": f"ADA.{DOMAIN}"}
    wait_for(lambda: pushed_to.request("GET", "/greet/version", b"", host).text == "one", "its answer", 5)
