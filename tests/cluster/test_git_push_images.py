"""Pushes that become images: built by a real BuildKit, pushed to the real registry, run as containers.

With `buildkit` the client is the machine's own buildctl where BUILDKIT_HOST names a daemon, else a stand-in that hands
the work to the Engine's BuildKit (`tests/programs/buildctl`).
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from registry import PASSWORD, USER, RunningRegistry
from running_cluster import Cluster
from running_platform import Platform, command_line, is_alive, wait_for
from working_copy import WorkingCopy, handler, passing

from stoker_sdk.errors import NotFound
from stoker_sdk.sealing import purpose_of, seal

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PROGRAMS = Path(__file__).parents[1] / "programs"
PATH = "pushed"
PATIENCE = 400.0
"""Seconds for a push: its first one installs packages."""
TOKEN = "s3cr3t-t0ken-of-the-build"


def stack(cluster: Cluster, *names: str, lang: str = "python3", more: str = "") -> str:
    """Whatever `image` says there, the platform names images itself."""
    text = "provider:\n  name: openfaas\nfunctions:\n"
    for name in names:
        text += f"  {name}:\n    lang: {lang}\n    handler: ./{name}\n    image: elsewhere.example.org/{name}:1\n"
        text += f'    build_args: {{PYTHON_IMAGE: "{cluster.base_image}"}}\n{more}'
    return text


def flags_of(cluster: Cluster, builder: str, prefix: str = "") -> tuple[str, ...]:
    engine = cluster.environment["DOCKER_HOST"]
    more = ("--buildkit", os.environ.get("BUILDKIT_HOST", engine)) if builder == "buildkit" else ()
    where = prefix or f"{cluster.registry}/{PATH}"
    return ("--docker-host", engine, "--image-builder", builder, "--image-prefix", where, *more)


def path_with_buildctl() -> str:
    has_own = "BUILDKIT_HOST" in os.environ and shutil.which("buildctl")
    return os.environ["PATH"] if has_own else f"{PROGRAMS}:{os.environ['PATH']}"


@pytest.fixture(scope="module")
def shared(cluster: Cluster, platform: Platform) -> Iterator[Platform]:
    one = Platform(like=platform, flags=flags_of(cluster, "docker"))
    try:
        yield one.start()
    finally:
        print(one.log)
        one.delete()


@pytest.fixture
def make(cluster: Cluster, platform: Platform) -> Iterator[Callable[..., Platform]]:
    """Starts a platform of a test's own."""
    made: list[Platform] = []

    def start(*flags: str, **variables: str) -> Platform:
        made.append(Platform(like=platform, flags=flags, **variables))
        return made[-1].start()

    yield start
    for one in made:
        print(one.log)
        one.delete()


@pytest.fixture
def copy(shared: Platform, tmp_path: Path, request: pytest.FixtureRequest) -> WorkingCopy:
    """An empty repository of an owner of this test's own."""
    owner = request.node.name.partition("[")[0].replace("_", "-").removeprefix("test-")[:24].strip("-")
    return WorkingCopy(shared, tmp_path / "greet", f"{owner}-{uuid.uuid4().hex[:8]}/greet", PATIENCE)


def nothing_is_left(platform: Platform) -> None:
    assert not list((platform.data.git / "checkouts").glob("run-*"))


def test_a_repository_lives_as_containers(cluster: Cluster, copy: WorkingCopy) -> None:
    copy.commit(
        **passing("greet", f"{uuid.uuid4()} "), **passing("wave", "bye "), stackDOTyml=stack(cluster, "greet", "wave")
    )
    pushed = copy.push("-o", "wait")
    assert pushed.code == 0, pushed.said
    assert "1 passed" in pushed.said and "[test " in pushed.said, "the log comes line by line"
    name = copy.service("greet")
    image = copy.platform.status(name).image
    tagged, _, digest = image.partition("@")
    assert tagged.startswith(f"{cluster.registry}/{PATH}/{name}:") and digest == cluster.digest(tagged)
    (container,) = cluster.containers(f"stoker.dev/function={name}")
    assert json.loads(cluster.docker("inspect", container))[0]["Config"]["Image"].endswith(digest)

    began = time.monotonic()
    copy.commit(**passing("greet", "edited "))
    pushed = copy.push("-o", "wait")
    seconds = copy.runs()[0].functions[0].seconds
    print(f"a one-line change is live after {time.monotonic() - began:.1f} s, of these {seconds}")
    assert pushed.code == 0 and copy.answer("greet") == "edited you"
    assert {each.name: each.state for each in copy.runs()[0].functions} == {"greet": "deployed", "wave": "unchanged"}
    assert copy.platform.condition(copy.service("wave")).revision == 1

    copy.commit(greet__handlerDOTpy=handler("broken "))
    refused = copy.push("-o", "wait")
    assert refused.code == 1 and "test failed: handler_test.py::test_it_answers" in refused.said
    assert copy.runs()[0].functions[0].test == "handler_test.py::test_it_answers"
    assert copy.answer("greet") == "edited you"

    copy.git("rm", "-r", "--quiet", "wave")
    copy.commit(**passing("greet", "alone "), stackDOTyml=stack(cluster, "greet"))
    assert copy.push("-o", "wait").code == 0 and copy.answer("greet") == "alone you"
    with pytest.raises(NotFound):
        copy.platform.client.function(copy.service("wave"))
    wait_for(lambda: not cluster.containers(f"stoker.dev/function={copy.service('wave')}", all=True), "its end")
    nothing_is_left(copy.platform)


def test_a_template_and_a_dockerfile_of_the_repository_are_built(cluster: Cluster, copy: WorkingCopy) -> None:
    base = f"FROM {cluster.base_image}\nEXPOSE 8080\nCOPY . /w\nWORKDIR /w\n"
    serve = 'CMD ["python", "-m", "http.server", "8080"]\n'
    template = f"{base}{serve}"
    text = stack(cluster, "greet", lang="own") + stack(cluster, "plain", lang="dockerfile").partition("functions:\n")[2]
    copy.commit(
        template__own__templateDOTyml="language: own\nfprocess: unused\n",
        template__own__Dockerfile=template,
        greet__page="of a template",
        plain__Dockerfile=template,
        plain__page="of a Dockerfile",
        stackDOTyml=text.replace("handler", "annotations: {com.openfaas.ready.http.path: /}\n    handler"),
    )
    pushed = copy.push("-o", "wait")
    assert pushed.code == 0, pushed.said
    found = [copy.platform.request("GET", f"/function/{copy.service('greet')}/function/page", b"")]
    found.append(copy.platform.request("GET", f"/function/{copy.service('plain')}/page", b""))
    assert [answer.body for answer in found] == [b"of a template", b"of a Dockerfile"]


@pytest.mark.parametrize(
    ("dockerfile", "words"),
    [
        ("# syntax=docker.io/evil/frontend\nFROM {base}\n", "the platform has its own reader"),
        ("FROM {base}\nRUN --security=insecure id\n", "--security=insecure is not allowed in a push"),
        ("FROM {base}\nRUN --network=host id\n", "--network=host is not allowed in a push"),
        ("FROM 127.0.0.1:5000/pushed/greet--greet--other\n", "an image of this platform's owners"),
    ],
)
def test_what_a_dockerfile_may_not_say_is_refused_and_nothing_runs(
    cluster: Cluster, copy: WorkingCopy, dockerfile: str, words: str
) -> None:
    copy.commit(greet__Dockerfile=dockerfile.format(base=cluster.base_image), stackDOTyml=_dockerfile(cluster))
    refused = copy.push("-o", "wait")
    assert refused.code == 1 and words in copy.runs()[0].reason
    assert "[1/" not in refused.said
    nothing_is_left(copy.platform)


def _dockerfile(cluster: Cluster, more: str = "") -> str:
    return stack(cluster, "greet", lang="dockerfile", more=more)


def test_a_build_reaches_nothing_on_the_platform_s_loopback(cluster: Cluster, copy: WorkingCopy) -> None:
    asked = f"import urllib.request as u; print(u.urlopen('{copy.platform.http_url}/healthz').status)"
    copy.commit(
        greet__Dockerfile=f'FROM {cluster.base_image}\nRUN python -c "{asked}"\n', stackDOTyml=_dockerfile(cluster)
    )
    refused = copy.push("-o", "wait")
    assert refused.code == 1 and "Connection refused" in refused.said


def test_a_secret_of_the_build_is_in_no_layer_and_no_log(cluster: Cluster, copy: WorkingCopy, tmp_path: Path) -> None:
    key = copy.platform.client.runs.seal_key()
    sealed = seal(key, TOKEN.encode(), purpose_of(copy.owner, copy.name, "INDEX_TOKEN"))
    mount = "--mount=type=secret,id=INDEX_TOKEN --mount=type=secret,id=build-environment"
    shown = "cat /run/secrets/INDEX_TOKEN && . /run/secrets/build-environment && echo ${#INDEX_TOKEN} > /size && false"
    dockerfile = f"FROM {cluster.base_image}\nRUN {mount} {shown}\n"
    more = "    build_secrets: {INDEX_TOKEN: ./token}\n"
    copy.commit(greet__Dockerfile=dockerfile, token=sealed, stackDOTyml=_dockerfile(cluster, more))
    assert copy.push("-o", "wait").code == 1
    run = copy.runs()[0]
    log = [line.text for line in copy.platform.client.runs.log(run.id)]
    assert "(secret)" in log and TOKEN not in f"{log}{run}{copy.platform.log}"
    good = dockerfile.replace("&& false", "&& sleep 0") + 'WORKDIR /\nCMD ["python", "-m", "http.server", "8080"]\n'
    health = "    annotations: {com.openfaas.ready.http.path: /}\n"
    copy.commit(greet__Dockerfile=good, stackDOTyml=_dockerfile(cluster, more + health))
    pushed = copy.push("-o", "wait")
    assert pushed.code == 0, pushed.said
    size = copy.platform.request("GET", f"/function/{copy.service('greet')}/size", b"")
    assert size.body.strip() == str(len(TOKEN)).encode()
    image = copy.platform.status(copy.service("greet")).image.partition("@")[0]
    cluster.docker("save", "--output", str(tmp_path / "image.tar"), image)
    with tarfile.open(tmp_path / "image.tar") as saved:
        manifest = json.load(saved.extractfile("manifest.json") or io.BytesIO())[0]
        for name in (manifest["Config"], manifest["Layers"][-1]):
            assert TOKEN.encode() not in (saved.extractfile(name) or io.BytesIO()).read()
    nothing_is_left(copy.platform)


def test_what_installs_packages_gets_the_secrets_as_variables(cluster: Cluster, copy: WorkingCopy) -> None:
    key = copy.platform.client.runs.seal_key()
    sealed = seal(key, TOKEN.encode(), purpose_of(copy.owner, copy.name, "INDEX_TOKEN"))
    copy.commit(
        **passing("greet", "secretly "),
        greet__requirementsDOTtxt="--find-links http://127.0.0.1:9/${INDEX_TOKEN}/\n",
        token=sealed,
        stackDOTyml=stack(cluster, "greet", more="    build_secrets: {INDEX_TOKEN: ./token}\n"),
    )
    pushed = copy.push("-o", "wait")
    assert pushed.code == 0 and copy.answer("greet") == "secretly you"
    assert "http://127.0.0.1:9/(secret)/" in pushed.said and TOKEN not in pushed.said


def test_a_registry_that_asks_for_a_login_gets_the_operator_s_and_nobody_reads_it(
    cluster: Cluster, make: Callable[..., Platform], tmp_path: Path
) -> None:
    registry = RunningRegistry(tmp_path, password=True)
    logins = tmp_path / "logins.json"
    try:
        _log_in(logins, registry, "wrong")
        where = flags_of(cluster, "docker", f"{registry.address}/{PATH}")
        platform = make(*where, "--registry-config", str(logins))
        copy = WorkingCopy(platform, tmp_path / "greet", "me/greet", PATIENCE)
        copy.commit(**passing("greet", "private "), stackDOTyml=stack(cluster, "greet"))
        refused = copy.push("-o", "wait")
        assert refused.code == 1 and registry.address in refused.said and "wrong" not in refused.said
        _log_in(logins, registry, PASSWORD)
        copy.commit(**passing("greet", "mine "))
        pushed = copy.push("-o", "wait")
        assert pushed.code == 0 and PASSWORD not in pushed.said and copy.answer("greet") == "mine you"
        assert f"built {registry.address}/{PATH}/greet--greet--me:" in pushed.said
        assert PASSWORD not in platform.log
    finally:
        registry.stop()


def _log_in(file: Path, registry: RunningRegistry, password: str) -> None:
    file.write_text(json.dumps({"auths": {registry.address: {"username": USER, "password": password}}}))


def test_a_killed_run_takes_its_build_along_and_begins_again(
    cluster: Cluster, make: Callable[..., Platform], tmp_path: Path
) -> None:
    platform = make(*flags_of(cluster, "docker"))
    copy = WorkingCopy(platform, tmp_path / "greet", f"kills-{uuid.uuid4().hex[:8]}/greet", PATIENCE)
    pause = f"{8 + uuid.uuid4().int % 1000 / 1000:.3f}"
    copy.commit(
        greet__Dockerfile=f"FROM {cluster.base_image}\nRUN sleep {pause}\nWORKDIR /usr\n"
        'CMD ["python", "-m", "http.server", "8080"]\n',
        stackDOTyml=_dockerfile(cluster, "    annotations: {com.openfaas.ready.http.path: /}\n"),
    )
    pushing = copy.start("push", "-o", "wait", copy.url, "main")
    (sleeping,) = wait_for(lambda: _processes("sleep", pause), "the build", 60)
    (client,) = _docker_clients(platform)
    run = next(pid for pid in platform.processes() if "stoker_builder.pipeline.run" in command_line(pid))
    os.kill(run, signal.SIGKILL)
    wait_for(lambda: not is_alive(client), "the end of docker's client")
    wait_for(lambda: not is_alive(sleeping), "the end of the step")
    said, _ = pushing.communicate(timeout=PATIENCE)
    print(said)
    ended = copy.runs()[0]
    assert (ended.state, ended.attempt) == ("succeeded", 2)
    assert copy.platform.request("GET", f"/function/{copy.service('greet')}/", b"").status == 200
    nothing_is_left(platform)
    assert not _docker_clients(platform) and not _processes("sleep", pause)


def test_a_cancelled_run_takes_its_build_along(cluster: Cluster, copy: WorkingCopy) -> None:
    pause = f"{300 + uuid.uuid4().int % 1000 / 1000:.3f}"
    copy.commit(greet__Dockerfile=f"FROM {cluster.base_image}\nRUN sleep {pause}\n", stackDOTyml=_dockerfile(cluster))
    assert copy.push("-o", "detach").code == 0
    (sleeping,) = wait_for(lambda: _processes("sleep", pause), "the build", 100)
    run = copy.runs()[0].id
    copy.platform.client.runs.cancel(run)
    wait_for(lambda: not is_alive(sleeping), "the end of the step", 60)
    wait_for(lambda: copy.platform.client.runs.show(run).state == "cancelled", "the run's end", 60)
    assert not _docker_clients(copy.platform)
    nothing_is_left(copy.platform)


def _processes(program: str, argument: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        line = command_line(int(folder.name))
        if line and Path(line[0]).name == program and any(argument in part for part in line[1:]):
            found.append(int(folder.name))
    return found


def _docker_clients(platform: Platform) -> list[int]:
    """Those that builds of this platform have started, by their logins' folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes()
        except OSError:
            continue
        if f"DOCKER_CONFIG={platform.data.path}".encode() in variables:
            found.append(int(folder.name))
    return found


def test_a_buildkitd_builds_what_is_pushed(cluster: Cluster, make: Callable[..., Platform], tmp_path: Path) -> None:
    platform = make(*flags_of(cluster, "buildkit"), PATH=path_with_buildctl())
    copy = WorkingCopy(platform, tmp_path / "greet", f"buildkit-{uuid.uuid4().hex[:8]}/greet", PATIENCE)
    copy.commit(**passing("greet", "first "), stackDOTyml=stack(cluster, "greet"))
    pushed = copy.push("-o", "wait")
    assert pushed.code == 0, pushed.said
    assert "1 passed" in pushed.said and "[test " in pushed.said
    tagged, _, digest = platform.status(copy.service("greet")).image.partition("@")
    assert digest == cluster.digest(tagged) and copy.answer("greet") == "first you"
    copy.commit(greet__handlerDOTpy=handler("broken "))
    refused = copy.push("-o", "wait")
    assert refused.code == 1 and "test failed: handler_test.py::test_it_answers" in refused.said
    assert copy.answer("greet") == "first you"
    nothing_is_left(platform)
