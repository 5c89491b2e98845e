"""What the operator asks of the cluster and writes to it: with one, with several at once, and with the API beside it.

The server is one of the tests', which can make requests late; what a real one makes of it all is in tests/cluster.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from object_server import Object, ObjectServer

from stoker_gateway.providers.kubernetes.api import open_api
from stoker_gateway.providers.kubernetes.operator.provider import OperatorProvider
from stoker_gateway.providers.kubernetes.provider import KubernetesProvider
from stoker_gateway.providers.kubernetes.registry import Registries
from stoker_gateway.routes import Route
from stoker_sdk.errors import Conflict, NotFound, StokerError
from stoker_sdk.function import FunctionSpec
from stoker_sdk.function_resource import GROUP, resource_of
from stoker_sdk.names import FunctionKey

IMAGE = "localhost:1/greet@sha256:" + "a" * 64
DEPLOYMENTS, SERVICES = "/apis/apps/v1/namespaces/fn/deployments", "/api/v1/namespaces/fn/services"
FUNCTIONS = f"/apis/{GROUP}/v1/namespaces/fn/functions"
PODS, EVENTS = "/api/v1/namespaces/fn/pods", "/api/v1/namespaces/fn/events"
GREET = FunctionKey("fn", "greet")


def spec(name: str = "greet", **fields: Any) -> FunctionSpec:
    return FunctionSpec(**({"service": name, "image": IMAGE, "namespace": "fn"} | fields))


async def nobody(key: FunctionKey, route: Route | None) -> None:
    pass


@pytest.fixture
async def server() -> AsyncIterator[ObjectServer]:
    one = await ObjectServer().start()
    yield one
    await one.stop()


@asynccontextmanager
async def operated(server: ObjectServer, folder: Path, count: int = 1) -> AsyncIterator[list[OperatorProvider]]:
    """So many platforms of the same cluster, all of which think that they lead."""
    made, running = [], []
    for _ in range(count):
        api = await open_api(server.kubeconfig(folder))
        made.append(OperatorProvider(api, ("fn",), Registries(), GROUP))
        await made[-1].start(nobody)
        running.append(asyncio.ensure_future(made[-1].operator.run()))
    try:
        yield made
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for one in made:
            await one.close()


def ask(server: ObjectServer, name: str = "greet", **fields: Any) -> Object:
    """What kubectl apply does."""
    path = f"{FUNCTIONS}/{name}"
    body = resource_of(spec(name, **fields))
    old = server.objects.get(path, {"metadata": {}})
    kept = {key: old["metadata"][key] for key in ("annotations",) if key in old["metadata"]}
    return server.put(path, body | {"metadata": kept} | ({"status": old["status"]} if "status" in old else {}))


async def until(condition: Callable[[], object], what: str = "it") -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def ready(server: ObjectServer, name: str = "greet") -> Object:
    status = server.objects[f"{FUNCTIONS}/{name}"].get("status")
    conditions = status.get("conditions") if isinstance(status, dict) else None
    found: Object = conditions[0] if conditions else {}
    return found


def revision(server: ObjectServer, name: str = "greet") -> int:
    made = server.objects.get(f"{DEPLOYMENTS}/{name}")
    return int(made["metadata"]["annotations"]["internal.stoker.dev/revision"]) if made else 0


def is_told(server: ObjectServer, name: str = "greet") -> bool:
    function = server.objects[f"{FUNCTIONS}/{name}"]
    return bool(function.get("status", {}).get("observedGeneration") == function["metadata"]["generation"])


async def test_a_resource_becomes_a_deployment_and_a_service_by_three_writes(
    server: ObjectServer, tmp_path: Path
) -> None:
    async with operated(server, tmp_path):
        function = ask(server)
        await until(lambda: is_told(server))
        mine = {"apiVersion": f"{GROUP}/v1", "kind": "Function", "name": "greet", "controller": True}
        for folder in (DEPLOYMENTS, SERVICES):
            owners = server.objects[f"{folder}/greet"]["metadata"]["ownerReferences"]
            assert owners == [mine | {"uid": function["metadata"]["uid"]}]
        assert server.writes == [("POST", DEPLOYMENTS), ("POST", SERVICES), ("PATCH", f"{FUNCTIONS}/greet/status")]
        assert (ready(server)["status"], ready(server)["reason"]) == ("False", "Deploying")


async def test_where_nothing_differs_a_resync_asks_for_the_services_and_writes_nothing(
    server: ObjectServer, tmp_path: Path
) -> None:
    async with operated(server, tmp_path) as (provider,):
        for number in range(20):
            ask(server, f"f{number}")
        await until(lambda: all(is_told(server, f"f{number}") for number in range(20)))
        server.requests.clear()
        await provider.operator.resync()
        assert ("GET", SERVICES) in server.requests and server.writes == []
    server.requests.clear()
    async with operated(server, tmp_path):
        await until(lambda: ("GET", SERVICES) in server.requests)
        await asyncio.sleep(0.2)
        asked = Counter(server.requests)
        lists = {("GET", path): 2 for path in (FUNCTIONS, DEPLOYMENTS, PODS)}  # and a watch of each
        assert asked == lists | {("GET", f"/apis/{GROUP}/v1"): 1, ("GET", SERVICES): 1}


async def test_both_ways_make_the_same_objects_but_for_their_owner(server: ObjectServer, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"env_vars": {"B": "2", "A": "1"}, "labels": {"x": "y"}, "annotations": {"n": "z"}}
    plain = KubernetesProvider(await open_api(server.kubeconfig(tmp_path)), ("fn",), Registries())
    await plain.start(nobody)
    await plain.deploy(spec(**fields), create=True)
    by_api = essence(server)
    await plain.remove(GREET)
    await plain.close()
    async with operated(server, tmp_path) as (provider,):
        ask(server, **fields)
        await until(lambda: is_told(server))
        assert essence(server) == by_api
        await provider.remove(GREET)
        await provider.deploy(spec(**fields), create=True)
        assert essence(server) == by_api


def essence(server: ObjectServer) -> list[Object]:
    """Without what no two objects have in common."""
    found = []
    for folder in (DEPLOYMENTS, SERVICES):
        one = server.objects[f"{folder}/greet"]
        annotations = one["metadata"]["annotations"]
        annotations = {
            key: value for key, value in annotations.items() if not key.endswith(("/id", "/history", "/record"))
        }
        template = one["spec"].get("template", {}).get("metadata", {}).get("annotations", {})
        template.pop("internal.stoker.dev/id", None)
        found.append({"labels": one["metadata"]["labels"], "annotations": annotations, "spec": one["spec"]})
    return found


async def test_a_service_that_was_deleted_by_hand_comes_back_with_the_next_resync(
    server: ObjectServer, tmp_path: Path
) -> None:
    async with operated(server, tmp_path) as (provider,):
        ask(server)
        await until(lambda: is_told(server))
        server.remove(f"{SERVICES}/greet")
        await provider.operator.resync()
        assert server.objects[f"{SERVICES}/greet"]["metadata"]["ownerReferences"][0]["kind"] == "Function"


async def test_one_service_that_cannot_be_repaired_hinders_no_other(server: ObjectServer, tmp_path: Path) -> None:
    async with operated(server, tmp_path) as (provider,):
        for name in "abc":
            ask(server, name)
        await until(lambda: all(is_told(server, name) for name in "abc"))
        for name in "abc":
            server.put(f"{SERVICES}/{name}", server.objects[f"{SERVICES}/{name}"] | {"spec": {"type": "NodePort"}})
        server.refused.add(("PATCH", f"{SERVICES}/a"))
        await provider.operator.resync()
        assert [server.objects[f"{SERVICES}/{name}"]["spec"]["type"] for name in "bc"] == ["ClusterIP"] * 2


def by_hand(server: ObjectServer, image: str) -> None:
    """What kubectl edit does to a Deployment."""
    body = deepcopy(server.objects[f"{DEPLOYMENTS}/greet"])
    body["spec"]["template"]["spec"]["containers"][0]["image"] = image
    server.put(f"{DEPLOYMENTS}/greet", body)


def image(server: ObjectServer) -> str:
    found: str = server.objects[f"{DEPLOYMENTS}/greet"]["spec"]["template"]["spec"]["containers"][0]["image"]
    return found


def told_events(server: ObjectServer) -> list[tuple[str, str, str]]:
    """Kind of the object, reason and message."""
    found = [one for path, one in server.objects.items() if path.startswith(EVENTS)]
    return [(one["involvedObject"]["kind"], one["reason"], one["message"]) for one in found]


async def test_what_is_changed_in_a_deployment_by_hand_is_set_back_by_one_write_and_told(
    server: ObjectServer, tmp_path: Path
) -> None:
    async with operated(server, tmp_path):
        ask(server)
        await until(lambda: is_told(server))
        asked = deepcopy(server.objects[f"{DEPLOYMENTS}/greet"]["spec"])
        server.requests.clear()
        by_hand(server, "evil")
        await until(lambda: told_events(server))
        assert server.objects[f"{DEPLOYMENTS}/greet"]["spec"] == asked and revision(server) == 1
        field = "spec.template.spec.containers.0.image"
        assert told_events(server) == [("Function", "SetBack", f"set back what was changed in the Deployment: {field}")]
        assert server.objects[f"{FUNCTIONS}/greet"]["status"]["setBack"] == 1
        change = ("PATCH", f"{DEPLOYMENTS}/greet")  # tried by a dry run, then done
        assert server.writes == [change, change, ("PATCH", f"{FUNCTIONS}/greet/status"), ("POST", EVENTS)]
        await asyncio.sleep(0.7)  # it is looked at once more
        assert len(server.writes) == 4


@pytest.mark.parametrize("label", ["app.kubernetes.io/managed-by", "faas_function"])
async def test_a_label_that_is_lost_does_not_lose_the_function(
    server: ObjectServer, tmp_path: Path, label: str
) -> None:
    async with operated(server, tmp_path) as (provider,):
        ask(server)
        await until(lambda: is_told(server))
        body = deepcopy(server.objects[f"{DEPLOYMENTS}/greet"])
        del body["metadata"]["labels"][label]
        server.put(f"{DEPLOYMENTS}/greet", body)
        await until(lambda: told_events(server))
        assert label in server.objects[f"{DEPLOYMENTS}/greet"]["metadata"]["labels"]
        assert [status.name for status in provider.list("fn")] == ["greet"]
        assert told_events(server)[0][1:] == (
            "SetBack",
            f"set back what was changed in the Deployment: metadata.labels.{label}",
        )


async def test_replicas_and_restarts_are_whose_they_were_last(server: ObjectServer, tmp_path: Path) -> None:
    async with operated(server, tmp_path) as (provider,):
        ask(server)
        await until(lambda: is_told(server))
        await provider.restart(GREET)
        body = deepcopy(server.objects[f"{DEPLOYMENTS}/greet"])
        body["spec"]["replicas"] = 3
        body["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = "now"
        server.put(f"{DEPLOYMENTS}/greet", body)
        await until(lambda: provider.list("fn")[0].replicas == 3)
        await asyncio.sleep(0.2)
        assert server.objects[f"{DEPLOYMENTS}/greet"]["spec"] == body["spec"] and not told_events(server)


@pytest.mark.parametrize("pause", [0.01, 0.8])
async def test_who_changes_it_again_and_again_is_answered_later_each_time(
    server: ObjectServer, tmp_path: Path, pause: float
) -> None:
    async with operated(server, tmp_path):
        ask(server)
        await until(lambda: is_told(server))
        rounds, end = 0, asyncio.get_running_loop().time() + 6
        while asyncio.get_running_loop().time() < end:
            if image(server) != "evil":
                by_hand(server, "evil")
                rounds += 1
            await asyncio.sleep(pause)
        assert 2 <= rounds <= 5  # at once, and after 0.5, 1, 2, 4 s


@pytest.mark.parametrize("times", [2, 7])
async def test_that_others_write_meanwhile_is_nothing_to_tell(server: ObjectServer, tmp_path: Path, times: int) -> None:
    async with operated(server, tmp_path):
        ask(server)
        await until(lambda: is_told(server))
        others = iter(range(times))

        async def come_between(method: str, path: str) -> None:
            if (method, path) == ("PATCH", f"{DEPLOYMENTS}/greet") and next(others, None) is not None:
                server.put(path, server.objects[path])

        server.answer_late = come_between
        by_hand(server, "evil")
        await until(lambda: image(server) == IMAGE and told_events(server))
        assert [reason for _, reason, _ in told_events(server)] == ["SetBack"]
        assert ready(server)["reason"] == "Deploying"
        assert server.objects[f"{FUNCTIONS}/greet"]["status"]["conditions"][1]["status"] == "False"


async def test_what_the_cluster_insists_on_is_left_to_it(server: ObjectServer, tmp_path: Path) -> None:
    async with operated(server, tmp_path) as (provider,):
        ask(server)
        await until(lambda: is_told(server))
        server.mutate = lambda kept: _with_image(kept, "mirror")
        by_hand(server, "mirror")
        await until(lambda: ("PATCH", f"{DEPLOYMENTS}/greet") in server.requests)
        await asyncio.sleep(0.1)
        version = server.objects[f"{DEPLOYMENTS}/greet"]["metadata"]["resourceVersion"]
        server.requests.clear()
        await provider.operator.resync()
        await asyncio.sleep(0.1)
        assert server.writes == [] and not told_events(server)
        assert server.objects[f"{DEPLOYMENTS}/greet"]["metadata"]["resourceVersion"] == version
        server.requests.clear()
        await provider.scale(GREET, 3)
        await asyncio.sleep(0.2)
        assert server.writes.count(("PATCH", f"{DEPLOYMENTS}/greet")) == 1  # and none of the operator's
        server.mutate = lambda kept: kept
        by_hand(server, "other")
        await until(lambda: image(server) == IMAGE)


async def test_what_the_cluster_insists_on_hides_no_change_beside_it(server: ObjectServer, tmp_path: Path) -> None:
    async with operated(server, tmp_path):
        ask(server, env_vars={"A": "1"})
        await until(lambda: is_told(server))
        server.mutate = _with_a_variable
        edited = _with_a_variable(deepcopy(server.objects[f"{DEPLOYMENTS}/greet"]))
        server.put(f"{DEPLOYMENTS}/greet", edited)
        await until(lambda: ("PATCH", f"{DEPLOYMENTS}/greet") in server.requests)
        await asyncio.sleep(0.1)
        assert variables(server) == {"A": "1", "INSISTED": "yes"} and not told_events(server)
        changed = deepcopy(server.objects[f"{DEPLOYMENTS}/greet"])
        for variable in changed["spec"]["template"]["spec"]["containers"][0]["env"]:
            if variable["name"] == "A":
                variable["value"] = "evil"
        server.put(f"{DEPLOYMENTS}/greet", changed)
        await until(lambda: variables(server)["A"] == "1")
        assert variables(server) == {"A": "1", "INSISTED": "yes"}
        await until(lambda: len(told_events(server)) == 1)


def variables(server: ObjectServer) -> dict[str, str]:
    """Those of A and INSISTED that the Deployment has."""
    container = server.objects[f"{DEPLOYMENTS}/greet"]["spec"]["template"]["spec"]["containers"][0]
    return {one["name"]: one["value"] for one in container["env"] if one["name"] in ("A", "INSISTED")}


def _with_a_variable(kept: Object) -> Object:
    if kept.get("kind") == "Deployment":
        env = kept["spec"]["template"]["spec"]["containers"][0]["env"]
        if not any(one["name"] == "INSISTED" for one in env):
            env.append({"name": "INSISTED", "value": "yes"})
    return kept


def _with_image(kept: Object, image: str) -> Object:
    """What a webhook does to all Deployments."""
    if kept.get("kind") == "Deployment":
        kept["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return kept


async def test_a_deploy_without_the_operator_sets_it_back_too(server: ObjectServer, tmp_path: Path) -> None:
    plain = KubernetesProvider(await open_api(server.kubeconfig(tmp_path)), ("fn",), Registries())
    await plain.start(nobody)
    try:
        await plain.deploy(spec(), create=True)
        by_hand(server, "evil")
        await asyncio.sleep(0.1)
        assert image(server) == "evil"
        assert await plain.deploy(spec(), create=False) == 1
        assert image(server) == IMAGE
    finally:
        await plain.close()


@pytest.mark.parametrize("change", [{"selector": {"a": "b"}}, {"ports": []}, {"type": "NodePort"}])
async def test_what_is_changed_in_a_service_is_set_back_with_the_next_resync(
    server: ObjectServer, tmp_path: Path, change: Object
) -> None:
    async with operated(server, tmp_path) as (provider,):
        ask(server)
        await until(lambda: is_told(server))
        asked = deepcopy(server.objects[f"{SERVICES}/greet"])
        server.put(f"{SERVICES}/greet", deepcopy(asked) | {"spec": asked["spec"] | {"clusterIP": "10.0.0.1"} | change})
        server.requests.clear()
        await provider.operator.resync()
        assert server.objects[f"{SERVICES}/greet"]["spec"] == asked["spec"] | {"clusterIP": "10.0.0.1"}
        await provider.operator.resync()
        assert server.writes == [("PATCH", f"{SERVICES}/greet")] * 2  # tried by a dry run, then done


async def test_what_the_cluster_insists_on_in_a_service_is_left_to_it(
    server: ObjectServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with operated(server, tmp_path) as (provider,):
        ask(server)
        await until(lambda: is_told(server))
        server.mutate = _as_node_port
        service = server.put(f"{SERVICES}/greet", _as_node_port(deepcopy(server.objects[f"{SERVICES}/greet"])))
        version = service["metadata"]["resourceVersion"]
        server.requests.clear()
        for _ in range(3):
            await provider.operator.resync()
        assert server.writes == [("PATCH", f"{SERVICES}/greet")]  # a dry run
        assert server.objects[f"{SERVICES}/greet"]["metadata"]["resourceVersion"] == version
        assert "set back" not in caplog.text and "insists on another value of spec.type" in caplog.text
        server.put(f"{SERVICES}/greet", service | {"spec": service["spec"] | {"selector": {"a": "b"}}})
        await provider.operator.resync()
        assert server.objects[f"{SERVICES}/greet"]["spec"] == service["spec"]


def _as_node_port(kept: Object) -> Object:
    """What a webhook does to all Services."""
    if kept.get("kind") == "Service":
        kept["spec"]["type"] = "NodePort"
    return kept


async def test_what_is_in_the_way_is_an_event_of_the_resource_and_one_only(
    server: ObjectServer, tmp_path: Path
) -> None:
    async with operated(server, tmp_path, 3) as providers:
        ask(server, secrets=["nothing"])
        await until(lambda: is_told(server))
        for provider in providers:
            await provider.operator.resync()
        await asyncio.sleep(1.5)  # it is tried again
        ((kind, reason, message),) = told_events(server)
        assert (kind, reason) == ("Function", "Invalid") and "secret 'nothing' does not exist" in message
        ask(server, secrets=["other"])
        await until(lambda: len(told_events(server)) == 2)


async def test_who_may_not_tell_events_does_all_else(server: ObjectServer, tmp_path: Path) -> None:
    server.refused.add(("POST", EVENTS))
    async with operated(server, tmp_path):
        ask(server)
        await until(lambda: is_told(server))
        by_hand(server, "evil")
        await until(lambda: image(server) == IMAGE)
        await until(lambda: ("POST", EVENTS) in server.requests)
        ask(server, env_vars={"A": "1"})
        await until(lambda: revision(server) == 2)


async def test_nothing_waits_for_an_event_to_be_told(server: ObjectServer, tmp_path: Path) -> None:
    async def never_tell(method: str, path: str) -> None:
        if path == EVENTS:
            await asyncio.Event().wait()

    server.answer_late = never_tell
    async with operated(server, tmp_path) as (provider,):
        ask(server)
        await until(lambda: is_told(server))
        by_hand(server, "evil")
        await until(lambda: ("POST", EVENTS) in server.requests)
        async with asyncio.timeout(5):
            assert await provider.deploy(spec(env_vars={"A": "1"}), create=False) == 2


async def test_an_event_that_is_refused_is_not_tried_again_at_once(server: ObjectServer, tmp_path: Path) -> None:
    server.refused.add(("POST", EVENTS))
    async with operated(server, tmp_path):
        ask(server, secrets=["nothing"])
        await until(lambda: ("POST", EVENTS) in server.requests)
        server.objects[f"{FUNCTIONS}/greet"].pop("status")  # so that it is told once more
        server.put(f"{FUNCTIONS}/greet", server.objects[f"{FUNCTIONS}/greet"])
        await until(lambda: server.writes.count(("PATCH", f"{FUNCTIONS}/greet/status")) >= 2)
        await asyncio.sleep(0.2)
        assert server.writes.count(("POST", EVENTS)) == 1


async def test_several_at_once_make_one_deployment_and_one_revision_for_each_change(
    server: ObjectServer, tmp_path: Path
) -> None:
    async def late(method: str, path: str) -> None:
        await asyncio.sleep(random.uniform(0, 0.02))

    server.answer_late = late
    names = [f"f{number}" for number in range(10)]
    async with operated(server, tmp_path, 3):
        for change in range(1, 5):
            for name in names:
                ask(server, name, env_vars={"CHANGE": f"{change}"})
            await until(lambda: all(revision(server, name) >= change for name in names))  # noqa: B023
            await until(lambda: all(is_told(server, name) for name in names))
        await asyncio.sleep(0.3)
        assert [revision(server, name) for name in names] == [4] * len(names)
        assert all(ready(server, name)["reason"] == "Deploying" for name in names)


async def test_deploys_by_several_apis_and_kubectl_at_once_end_as_the_resource_says(
    server: ObjectServer, tmp_path: Path
) -> None:
    async def late(method: str, path: str) -> None:
        await asyncio.sleep(random.uniform(0, 0.01))

    server.answer_late = late
    async with operated(server, tmp_path, 3) as providers:
        await providers[0].deploy(spec(), create=True)
        await until(lambda: all(one.list("fn") for one in providers))

        async def deploy(number: int) -> None:
            try:
                await providers[number % 3].deploy(spec(env_vars={"N": f"{number}"}), create=False)
            except Conflict as error:
                assert "all the time" in str(error)

        for number in range(5):
            waiting = [asyncio.ensure_future(deploy(number * 4 + each)) for each in range(4)]
            ask(server, env_vars={"KUBECTL": f"{number}"})
            await asyncio.gather(*waiting)
        await until(lambda: is_told(server))
        await asyncio.sleep(0.3)
        asked = server.objects[f"{FUNCTIONS}/greet"]["spec"]["environment"]
        container = server.objects[f"{DEPLOYMENTS}/greet"]["spec"]["template"]["spec"]["containers"][0]
        ((name, value),) = asked.items()
        assert {"name": name, "value": value} in container["env"]


async def test_what_the_api_removes_is_not_brought_back(server: ObjectServer, tmp_path: Path) -> None:
    async with operated(server, tmp_path, 2) as (one, other):
        for _ in range(10):
            await one.deploy(spec(), create=True)
            await until(lambda: bool(other.list("fn")))
            await one.remove(GREET)
            await until(lambda: not other.list("fn"))
        await asyncio.sleep(0.2)
        assert server.objects == {}


@asynccontextmanager
async def deployed_without_the_operator(server: ObjectServer, folder: Path) -> AsyncIterator[Object]:
    plain = KubernetesProvider(await open_api(server.kubeconfig(folder)), ("fn",), Registries())
    await plain.start(nobody)
    await plain.deploy(spec(env_vars={"A": "0"}), create=True)
    await plain.deploy(spec(), create=False)
    await plain.close()
    yield server.objects[f"{DEPLOYMENTS}/greet"]


async def test_a_function_that_was_deployed_without_a_resource_is_left_alone_by_one_of_its_name(
    server: ObjectServer, tmp_path: Path
) -> None:
    async with deployed_without_the_operator(server, tmp_path) as before, operated(server, tmp_path) as (provider,):
        assert [status.name for status in provider.list("fn")] == ["greet"]
        ask(server)
        await until(lambda: is_told(server))
        assert ready(server)["reason"] == "NameTaken" and "deployed without this resource" in ready(server)["message"]
        assert server.objects[f"{DEPLOYMENTS}/greet"] == before
        server.remove(f"{FUNCTIONS}/greet")
        await asyncio.sleep(0.1)
        await provider.remove(GREET)
        assert f"{DEPLOYMENTS}/greet" not in server.objects
        with pytest.raises(NotFound):
            await provider.remove(GREET)


async def test_a_deploy_gives_it_a_resource_and_touches_no_pod(server: ObjectServer, tmp_path: Path) -> None:
    async with deployed_without_the_operator(server, tmp_path) as before, operated(server, tmp_path, 3) as providers:
        assert await providers[0].deploy(spec(), create=False) == 2
        await until(lambda: is_told(server))
        uid = server.objects[f"{FUNCTIONS}/greet"]["metadata"]["uid"]
        for folder in (DEPLOYMENTS, SERVICES):
            (owner,) = server.objects[f"{folder}/greet"]["metadata"]["ownerReferences"]
            assert (owner["kind"], owner["uid"]) == ("Function", uid)
        assert server.objects[f"{DEPLOYMENTS}/greet"]["spec"] == before["spec"] and not told_events(server)
        assert [one.number for one in providers[0].revisions(GREET)] == [1, 2]
        assert await providers[1].deploy(spec(env_vars={"A": "1"}), create=False) == 3
        await until(lambda: is_told(server))
        assert await providers[2].rollback(GREET, 2) == 4
        ask(server, env_vars={"B": "1"})
        await until(lambda: revision(server) == 5)


@pytest.mark.parametrize("same", [False, True])
async def test_a_deploy_gives_it_to_the_resource_that_somebody_has_made_meanwhile(
    server: ObjectServer, tmp_path: Path, same: bool
) -> None:
    async with deployed_without_the_operator(server, tmp_path), operated(server, tmp_path) as (provider,):
        ask(server)
        await until(lambda: is_told(server))
        assert ready(server)["reason"] == "NameTaken"
        asked = spec() if same else spec(env_vars={"A": "1"})
        assert await provider.deploy(asked, create=False) == (2 if same else 3)
        await until(lambda: ready(server)["reason"] == "Deploying")
        (owner,) = server.objects[f"{DEPLOYMENTS}/greet"]["metadata"]["ownerReferences"]
        assert owner["uid"] == server.objects[f"{FUNCTIONS}/greet"]["metadata"]["uid"]


async def test_what_breaks_off_is_finished_by_another_deploy_too(server: ObjectServer, tmp_path: Path) -> None:
    async with deployed_without_the_operator(server, tmp_path), operated(server, tmp_path) as (provider,):
        server.refused.add(("PATCH", f"{DEPLOYMENTS}/greet"))
        for number in range(2):
            with pytest.raises(StokerError, match="not allowed"):
                await provider.deploy(spec(env_vars={"A": f"{number}"}), create=False)
        server.refused.clear()
        assert await provider.deploy(spec(env_vars={"A": "2"}), create=False) in (3, 4)  # the operator tries it too
        await until(lambda: ready(server)["reason"] == "Deploying")


async def test_a_rollback_does_so_too_and_what_breaks_off_is_finished_by_the_operator(
    server: ObjectServer, tmp_path: Path
) -> None:
    async with deployed_without_the_operator(server, tmp_path), operated(server, tmp_path, 2) as providers:
        server.refused.add(("PATCH", f"{DEPLOYMENTS}/greet"))
        with pytest.raises(StokerError, match="not allowed"):
            await providers[0].rollback(GREET, 1)
        server.refused.clear()
        await until(lambda: "ownerReferences" in server.objects[f"{DEPLOYMENTS}/greet"]["metadata"])
        assert revision(server) == 2
        assert await providers[1].rollback(GREET, 1) == 3


async def test_a_resource_that_nobody_can_read_disturbs_no_other(server: ObjectServer, tmp_path: Path) -> None:
    async with operated(server, tmp_path) as (provider,):
        for number, forged in enumerate((None, 5, [], {"name": []}, {"name": "x" * 70000})):
            server.put(f"{FUNCTIONS}/broken-{number}", {"spec": forged, "status": forged})
        ask(server)
        await until(lambda: is_told(server))
        for number in range(5):
            await until(lambda: ready(server, f"broken-{number}").get("reason") == "Invalid")  # noqa: B023
        assert len(ready(server, "broken-4")["message"]) < 1000
        with pytest.raises(
            NotFound, match="'broken-1' has a resource, and is not deployed yet: spec: Expected `object`"
        ):
            provider.get(FunctionKey("fn", "broken-1"))
