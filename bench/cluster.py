"""Functions in a cluster: what going straight to pods is worth, and how long a deploy takes beside kubectl.

The cluster is that of the tests (tests/cluster/README.md). It has no core of its own: ratios are what counts.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter

from bench.load import Subject, duel, rate_figure
from bench.processes import BenchError, python, wait_until
from bench.proxy import stoker_proxy
from bench.report import Figure
from bench.serving import Serving, serving
from stoker_sdk.function import FunctionSpec
from tests.running_cluster import LEFT_OUT as LEFT_OUT
from tests.running_cluster import Cluster
from tests.running_cluster import is_there as is_there

_NAMESPACE = "stoker-bench"
_CONNECTIONS = 32
_DEPLOYS = 3
_HANDLER = "async def handle(event, context):\n    return {!r}\n"


def service_figures(folder: Path) -> list[Figure]:
    """`pod_vs_service`."""
    with _cluster() as cluster, _platform(folder, cluster) as platform:
        platform.client().create(FunctionSpec("hello", cluster.function("bench", _HANDLER.format("hello")), _NAMESPACE))
        _wait_for_answer(platform, "hello", "hello")
        pod = _field(cluster, "pods", "{.items[0].status.podIP}", "-l", "faas_function=hello")
        service = _field(cluster, "service", "{.spec.clusterIP}", "hello")
        wait_until(
            lambda: bool(_field(cluster, "endpoints", "{.subsets[*].addresses[*].ip}", "hello")), "no endpoint", 60
        )
        with ExitStack() as stack:
            subjects = []
            for name, address in (("pod", pod), ("service", service)):
                (folder / name).mkdir()
                proxy = stack.enter_context(stoker_proxy(folder / name, f"tcp:{address}:8080"))
                subjects.append(Subject(name, proxy.url, (proxy.pid,)))
            result = duel(subjects, connections=_CONNECTIONS, seconds=3, rounds=5)
    return [rate_figure("pod_vs_service", result, "pod", "service")]


def deploy_figures(folder: Path) -> list[Figure]:
    """`deploy_vs_kubectl`. Both images lie on the node already, so that no download is measured."""
    ours, theirs = [], []
    with _cluster() as cluster, _platform(folder, cluster) as platform:
        images = {text: cluster.function("bench", _HANDLER.format(text)) for text in ("one", "two")}
        for text, image in images.items():
            _deploy(platform, image, text)
        _make_peer(cluster)
        for number in range(_DEPLOYS * 2):
            text = ("one", "two")[number % 2]
            ours.append(_timed(lambda text=text: _deploy(platform, images[text], text)))
            theirs.append(_timed(lambda text=text: _set_image(cluster, images[text])))
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    note = f"{len(ratios)} deploys: ratios {min(ratios):.2f} to {max(ratios):.2f}"
    peer = f"kubectl {median(theirs):.2f} s"
    return [Figure("deploy_vs_kubectl", median(ratios), f"{median(ours):.2f} s", peer, note)]


@contextmanager
def _cluster() -> Iterator[Cluster]:
    cluster = Cluster().start()
    try:
        cluster.ensure_namespace(_NAMESPACE)
        yield cluster
        cluster.kubectl("delete", "namespace", _NAMESPACE)
    finally:
        cluster.stop()


@contextmanager
def _platform(folder: Path, cluster: Cluster) -> Iterator[Serving]:
    flags = ("--provider", "kubernetes", "--kubeconfig", str(cluster.kubeconfig), "--function-namespace", _NAMESPACE)
    with serving(folder, "--proxies", "1", "--no-async", *flags) as platform:
        yield platform


def _deploy(platform: Serving, image: str, text: str) -> None:
    """By the command, until the first answer of the new version."""
    environment = os.environ | {"STOKER_DATA_DIR": str(platform.data)}
    command = ["deploy", "--name", "deployed", "--image", image, "-g", platform.url, "-n", _NAMESPACE]
    _run(python("-m", "stoker_cli", *command), environment)
    _wait_for_answer(platform, "deployed", text)


def _wait_for_answer(platform: Serving, name: str, text: str) -> None:
    where = f"/function/{name}.{_NAMESPACE}"

    def answers() -> bool:
        done = subprocess.run(["curl", "-s", f"{platform.url}{where}"], capture_output=True, text=True, check=False)
        return done.stdout == text

    wait_until(answers, f"{name} does not answer {text}", 60)


def _make_peer(cluster: Cluster) -> None:
    """A Deployment of the same pods, which nobody of ours looks after."""
    name = "peer"
    found = json.loads(cluster.kubectl("get", "deployment", "deployed", "-n", _NAMESPACE, "-o", "json"))
    spec = found["spec"]
    spec["selector"]["matchLabels"] = {"app": name}
    spec["template"]["metadata"] = {"labels": {"app": name}}
    document = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
    cluster.kubectl("create", "-n", _NAMESPACE, "-f", "-", input=json.dumps(document))
    cluster.kubectl("rollout", "status", "-n", _NAMESPACE, f"deployment/{name}")


def _set_image(cluster: Cluster, image: str) -> None:
    cluster.kubectl("set", "image", "-n", _NAMESPACE, "deployment/peer", f"deployed={image}")
    cluster.kubectl("rollout", "status", "-n", _NAMESPACE, "deployment/peer")


def _field(cluster: Cluster, kind: str, path: str, *which: str) -> str:
    return cluster.kubectl("get", kind, *which, "-n", _NAMESPACE, "-o", f"jsonpath={path}")


def _timed(work: Callable[[], None]) -> float:
    begun = perf_counter()
    work()
    return perf_counter() - begun


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: {done.stderr.strip()}")
