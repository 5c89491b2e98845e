"""The chart: what its values make, what it refuses, and that its parts and the platform agree with each other."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stoker_cli.pages_flags import read_pages_options
from stoker_cli.serve import serve
from stoker_cli.server.queue import read_queue_options
from stoker_gateway.control.exposition import expose
from stoker_gateway.control.traffic import Traffic
from stoker_gateway.providers.kubernetes.manifests import Mounts, Release, deployment
from stoker_gateway.queue.broker import find_program
from stoker_gateway.queue.stored import MAX_INLINE
from stoker_gateway.tls import ensure_certificates
from stoker_sdk.function import FunctionSpec, Resources
from stoker_sdk.function_resource import resource_of

helm_python = pytest.importorskip("helm_python", reason="helm-python-sdk has no wheel for this machine")

from rendered_chart import BUILDER, CHART, CURRENT, NAMESPACE, NEEDED, OLDEST, Document, Documents, pods, render  # noqa: E402

ROLES = CHART.parent.parent / "tests" / "cluster"
GATEWAY, NATS = "Deployment/stoker-gateway", "StatefulSet/stoker-nats"
ALWAYS = {
    "ServiceAccount/stoker-gateway",
    "Role/openfaas-fn/stoker-gateway",
    "RoleBinding/openfaas-fn/stoker-gateway",
    GATEWAY,
    "Service/gateway",
    "Service/stoker-metrics",
}
BROKER = {"Secret/stoker-nats", "ConfigMap/stoker-nats", "Service/stoker-nats", NATS, "NetworkPolicy/stoker-nats"}
BY_DEFAULT = (
    ALWAYS
    | BROKER
    | {
        "Namespace/openfaas-fn",
        "Secret/basic-auth",
        "NetworkPolicy/openfaas-fn/stoker-functions",
        "PodDisruptionBudget/stoker-gateway",
        "PriorityClass/openfaas-stoker",
    }
)
LEAST = {
    "auth": {"existingSecret": "mine"},
    "async": {"enabled": False},
    "functions": {"createNamespaces": False},
    "networkPolicy": {"enabled": False},
    "priorityClass": {"create": False},
    "gateway": {"podDisruptionBudget": {"enabled": False}},
}
MOST: dict[str, Any] = {
    "imagePullSecrets": ["pull"],
    "functions": {
        "namespaces": ["openfaas-fn", "true"],
        "quota": {"pods": "100"},
        "limitRange": [{"type": "Container", "default": {"memory": "1Gi"}}],
        "user": 0,
    },
    "registries": {"plain": ["registry.lan:5000"], "caSecret": "registry-ca"},
    "gateway": {"service": {"type": "NodePort", "nodePort": 31112, "annotations": {"a": "1"}}},
    "async": {
        "durability": "relaxed",
        "workers": 2,
        "callbacks": {
            "allow": ["hooks.example.org", "10.0.0.0/8"],
            "deny": ["fd00::/8"],
            "allowPrivate": True,
            "signingSecret": "signing",
        },
    },
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "host": "functions.example.org",
        "annotations": {"a": "1"},
        "tls": {"enabled": True, "clusterIssuer": "letsencrypt"},
    },
    "endpoints": {
        "domain": "example.org",
        "port": 8443,
        "routeHosts": ["*.customers.net", "alice=shop.example.net"],
        "inside": ["10.1.0.0/16"],
        "ownerRate": "100/s",
        "ownerRates": {"alice": "500/s", "bob": "none"},
    },
    "pages": {
        "host": "pages.example.org",
        "publicBadges": True,
        "github": {"clientId": "Iv1.a", "secret": "github-oauth", "apiUrl": "https://git.example.org/api/v3"},
    },
    "networkPolicy": {"extraFrom": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]},
    "builder": BUILDER,
    "metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "p"}}, "dashboards": {"enabled": True}},
}
OPERATOR = {"operator": {"enabled": True}}
CRD = "CustomResourceDefinition/functions.openfaas.com"
OWN_NATS = {"nats": {"enabled": False, "url": "tls://nats.example.org:4222", "caSecret": "nats-ca"}}


def own_nats(**auth: str) -> dict[str, Any]:
    return {"nats": OWN_NATS["nats"] | {"auth": auth}}


SETS = [{}, LEAST, MOST, OPERATOR, own_nats(secret="s", kind="password", user="u"), own_nats(secret="s", kind="token")]


def arguments(documents: Documents) -> list[str]:
    found: list[str] = pods(documents)[GATEWAY]["spec"]["containers"][0]["args"]
    return found


def at(document: Any, path: str) -> Any:
    """What stands at `a/b/0/c` of a document; `~` stands for a slash."""
    for part in path.split("/"):
        document = document[int(part)] if isinstance(document, list) else document[part.replace("~", "/")]
    return document


@pytest.mark.parametrize("version", [OLDEST, CURRENT])
@pytest.mark.parametrize("values", SETS)
def test_lint_has_nothing_to_say(values: dict[str, Any], version: str) -> None:
    report = helm_python.lint(CHART, NEEDED | values, strict=True, namespace=NAMESPACE, kube_version=version)
    said = [one["error"] for one in report["messages"]]
    assert (report["errors"], said) == ([], ["icon is recommended"])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, BY_DEFAULT),
        (LEAST, ALWAYS),
        (OWN_NATS, BY_DEFAULT - BROKER),
        ({"async": {"enabled": False}}, BY_DEFAULT - BROKER),
        ({"networkPolicy": {"enabled": False}}, {key for key in BY_DEFAULT if not key.startswith("NetworkPolicy")}),
        ({"ingress": {"enabled": True, "host": "f.example.org"}}, BY_DEFAULT | {"Ingress/stoker"}),
        ({"endpoints": {"ownerRates": {"a": "1/s"}}}, BY_DEFAULT | {"ConfigMap/stoker-rates"}),
        ({"metrics": {"serviceMonitor": {"enabled": True}}}, BY_DEFAULT | {"ServiceMonitor/stoker"}),
        ({"metrics": {"dashboards": {"enabled": True}}}, BY_DEFAULT | {"ConfigMap/stoker-dashboards"}),
        (OPERATOR, BY_DEFAULT | {CRD}),
        ({"operator": {"enabled": True, "createCRD": False}}, BY_DEFAULT),
        ({"functions": {"quota": {"pods": "9"}}}, BY_DEFAULT | {"ResourceQuota/openfaas-fn/stoker"}),
        ({"functions": {"limitRange": [{"type": "Pod"}]}}, BY_DEFAULT | {"LimitRange/openfaas-fn/stoker"}),
        (
            {"functions": {"namespaces": [NAMESPACE]}},
            {key.replace("openfaas-fn/", "") for key in BY_DEFAULT} - {"Namespace/openfaas-fn"},
        ),
    ],
)
def test_values_decide_which_objects_there_are(values: dict[str, Any], expected: set[str]) -> None:
    assert set(render(values)) == expected


HOSTS = ["functions.example.org", "*.example.org", "pages.example.org", "*.customers.net", "shop.example.net"]
POD = "spec/template/spec/"
ANYWHERE = [{"operator": "Exists"}]


@pytest.mark.parametrize(
    ("values", "key", "path", "expected"),
    [
        ({}, GATEWAY, POD + "containers/0/image", "registry.example.org/stoker:0.1.0"),
        ({}, NATS, POD + "containers/0/image", "registry.example.org/stoker:0.1.0"),
        ({"image": {"repository": "r/s", "tag": "2"}}, GATEWAY, POD + "containers/0/image", "r/s:2"),
        ({"nats": {"image": {"repository": "nats", "tag": "2.15-alpine"}}}, NATS, POD + "containers/0/image",
         "nats:2.15-alpine"),
        ({"gateway": {"replicas": 3}}, GATEWAY, "spec/replicas", 3),
        ({"gateway": {"drainSeconds": 600}}, GATEWAY, POD + "terminationGracePeriodSeconds", 1230),
        ({"gateway": {"nodeSelector": {"pool": "x"}}}, GATEWAY, POD + "nodeSelector", {"pool": "x"}),
        ({"gateway": {"tolerations": ANYWHERE}}, GATEWAY, POD + "tolerations", ANYWHERE),
        ({"nats": {"tolerations": ANYWHERE}}, NATS, POD + "tolerations", ANYWHERE),
        ({"gateway": {"affinity": {"nodeAffinity": {}}}}, GATEWAY, POD + "affinity", {"nodeAffinity": {}}),
        ({"gateway": {"podAnnotations": {"a": "1"}}}, GATEWAY, "spec/template/metadata/annotations/a", "1"),
        ({"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}, GATEWAY,
         POD + "securityContext", {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}),
        ({"imagePullSecrets": ["pull"]}, NATS, POD + "imagePullSecrets", [{"name": "pull"}]),
        ({}, GATEWAY, POD + "priorityClassName", "openfaas-stoker"),
        ({"priorityClass": {"create": False, "name": "high"}}, GATEWAY, POD + "priorityClassName", "high"),
        ({"auth": {"existingSecret": "mine"}}, GATEWAY, POD + "volumes/2/secret/secretName", "mine"),
        (MOST, "Service/gateway", "spec/ports/0/nodePort", 31112),
        ({"gateway": {"service": {"clusterIP": "10.96.0.8"}}}, "Service/gateway", "spec/clusterIP", "10.96.0.8"),
        (MOST, "Ingress/stoker", "metadata/annotations", {"a": "1", "cert-manager.io/cluster-issuer": "letsencrypt"}),
        (MOST, "Ingress/stoker", "spec/tls", [{"hosts": HOSTS, "secretName": "stoker-tls"}]),
        (MOST, "ConfigMap/stoker-rates", "data/owners", "alice 500/s\nbob none\n"),
        (MOST, "Namespace/true", "metadata/annotations/helm.sh~resource-policy", "keep"),
        (MOST, "ResourceQuota/true/stoker", "spec/hard/pods", "100"),
        ({"nats": {"storage": {"size": "50Gi"}}}, NATS,
         "spec/volumeClaimTemplates/0/spec/resources/requests/storage", "50Gi"),
        ({"nats": {"storage": {"className": "fast"}}}, NATS,
         "spec/volumeClaimTemplates/0/spec/storageClassName", "fast"),
        ({"nats": {"storage": {"enabled": False}}}, NATS, POD + "volumes/1", {"name": "data", "emptyDir": {}}),
        ({"nats": {"clusterIP": "10.96.0.9"}}, "Service/stoker-nats", "spec/clusterIP", "10.96.0.9"),
    ],
)  # fmt: skip
def test_a_value_stands_where_it_belongs(values: dict[str, Any], key: str, path: str, expected: Any) -> None:
    assert at(render(values)[key], path) == expected


@pytest.mark.parametrize(
    ("values", "flags"),
    [
        ({}, {"--provider=kubernetes", "--nats=nats://stoker-nats.openfaas:4222", "--function-namespace=openfaas-fn"}),
        ({"nats": {"clusterIP": "10.96.0.9"}}, {"--nats=nats://10.96.0.9:4222"}),
        ({"async": {"enabled": False}}, {"--no-async"}),
        ({"gateway": {"proxies": 4, "maxWaiting": 20_000_000}}, {"--proxies=4", "--max-waiting=20000000"}),
        (MOST, {"--function-user=0", "--function-namespace=true", "--callback-allow=10.0.0.0/8", "--workers=2"}),
        (MOST, {"--plain-registry=registry.lan:5000", "--registry-ca=/etc/stoker/registry/ca.crt"}),
        ({}, {"--name=gateway.openfaas", "--owner-rate=none", "--gateways=1"}),
        (MOST, {"--domain=example.org:8443", "--name=functions.example.org", "--route-host=alice=shop.example.net"}),
        (MOST, {"--inside=10.1.0.0/16", "--owner-rate=100/s", "--owner-rates=/etc/stoker/rates/owners"}),
        (MOST, {"--pages-host=pages.example.org", "--public-badges", "--github-oauth-client-id=Iv1.a"}),
        ({"pages": {"enabled": False}}, {"--no-pages"}),
        (OWN_NATS, {"--nats=tls://nats.example.org:4222", "--nats-ca=/etc/stoker/nats-ca/ca.crt"}),
        (own_nats(secret="s", kind="token"), {"--nats-token-file=/etc/stoker/nats/token"}),
        (own_nats(secret="s", kind="creds"), {"--nats-creds=/etc/stoker/nats/creds"}),
        (
            own_nats(secret="s", kind="password", user="a:"),
            {"--nats-user=a:", "--nats-password-file=/etc/stoker/nats/password"},
        ),
    ],
)
def test_values_become_flags(values: dict[str, Any], flags: set[str]) -> None:
    assert flags <= set(arguments(render(values)))


@pytest.mark.parametrize("values", SETS)
def test_the_command_takes_every_flag(values: dict[str, Any], tmp_path: Path) -> None:
    """The files that flags name are mounted in the pod; here a certificate stands for each."""
    documents = render(values)
    container = pods(documents)[GATEWAY]["spec"]["containers"][0]
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    stand_in = ensure_certificates(tmp_path, ()).ca
    given = []
    for argument in container["args"]:
        flag, _, value = argument.partition("=")
        if value.startswith("/"):
            assert str(Path(value).parent) in mounted
            argument = f"{flag}={stand_in}"
        given.append(argument)
    context = serve.make_context("serve", given)
    assert read_queue_options(context.params).enabled is (values is not LEAST)
    assert read_pages_options(context.params).enabled


def test_the_rights_are_those_that_are_proved_on_a_cluster() -> None:
    always, operator = (
        yaml.safe_load((ROLES / name).read_text())["rules"] for name in ("roles.yml", "roles-operator.yml")
    )
    documents = render()
    assert documents["Role/openfaas-fn/stoker-gateway"]["rules"] == always
    assert render(OPERATOR)["Role/openfaas-fn/stoker-gateway"]["rules"] == always + operator
    binding = documents["RoleBinding/openfaas-fn/stoker-gateway"]
    assert binding["roleRef"]["name"] == "stoker-gateway"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "stoker-gateway", "namespace": NAMESPACE}]
    assert not [key for key in render(MOST | OPERATOR) if key.startswith("Cluster")]


def test_the_operator_is_asked_for_by_one_value() -> None:
    assert not any("operator" in one or "crd" in one for one in arguments(render()))
    assert {"--operator", "--crd-group=openfaas.com"} <= set(arguments(render(OPERATOR)))


def test_the_definition_of_functions_serves_two_versions_of_one_schema() -> None:
    group = {"operator": {"enabled": True, "group": "functions.example.org"}}
    documents = render(group)
    definition = documents["CustomResourceDefinition/functions.functions.example.org"]
    assert definition["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "--crd-group=functions.example.org" in arguments(documents)
    assert "functions.example.org" in str(documents["Role/openfaas-fn/stoker-gateway"]["rules"])
    one, two = definition["spec"]["versions"]
    assert [(each["name"], each["served"], each["storage"]) for each in (one, two)] == [
        ("v1", True, True),
        ("v1alpha2", True, False),
    ]
    assert (one["schema"], one["additionalPrinterColumns"]) == (two["schema"], two["additionalPrinterColumns"])
    columns = [each["name"] for each in one["additionalPrinterColumns"] if not each.get("priority")]
    assert columns == ["Image", "Ready", "Reason", "Replicas", "Age"]


def test_the_schema_knows_every_field_that_a_function_and_its_status_may_have() -> None:
    schema = render(OPERATOR)[CRD]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    spec = schema["properties"]["spec"]
    full = FunctionSpec(
        service="greet",
        image="a/b:1",
        env_process="cat",
        env_vars={"A": "1"},
        constraints=["a=b"],
        secrets=["s"],
        labels={"a": "b"},
        annotations={"a": "b"},
        limits=Resources("1Gi", "1", "1", "1", "1"),
        requests=Resources("1Gi", "1", "1", "1", "1"),
        read_only_root_filesystem=True,
    )
    asked = resource_of(full)["spec"]
    assert set(asked) == set(spec["properties"])
    assert set(asked["limits"]) == set(spec["properties"]["limits"]["properties"])
    assert spec["required"] == ["name", "image"]


def matching(selector: dict[str, str], documents: Documents) -> list[str]:
    """The workloads whose pods a selector selects."""
    labels = {key: pod["metadata"]["labels"] for key, pod in pods(documents).items()}
    return [key for key, have in labels.items() if selector.items() <= have.items()]


@pytest.mark.parametrize("release", ["stoker", "other", "x" * 53, "123"])
def test_selectors_select_what_they_mean(release: str) -> None:
    documents = render(MOST, release=release)
    kinds = {key: one for key, one in documents.items() if one["kind"] in ("Service", "PodDisruptionBudget")}
    for key, one in kinds.items():
        selector = one["spec"]["selector"]
        found = matching(selector.get("matchLabels", selector), documents)
        assert len(found) == 1
        part = key.rpartition("-")[2]
        assert found[0].endswith(f"-{part if part in ('nats', 'builder') else 'gateway'}")
    for key in pods(documents):
        assert matching(documents[key]["spec"]["selector"]["matchLabels"], documents) == [key]
    for one in documents.values():
        assert len(one["metadata"]["name"]) <= 63
        assert all(isinstance(value, str) for value in one["metadata"]["labels"].values())
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == release


def test_ports_are_those_of_the_pods() -> None:
    documents = render(MOST)
    for service in (one for one in documents.values() if one["kind"] == "Service"):
        (workload,) = matching(service["spec"]["selector"], documents)
        ports = {port["name"] for port in pods(documents)[workload]["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    backend = documents["Ingress/stoker"]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend["port"]["name"] in [port["name"] for port in documents["Service/gateway"]["spec"]["ports"]]
    monitor = documents["ServiceMonitor/stoker"]["spec"]
    watched = [
        key
        for key, one in documents.items()
        if one["kind"] == "Service" and monitor["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
    ]
    assert watched == ["Service/stoker-metrics"]


def test_two_releases_select_nothing_of_each_other() -> None:
    one, other = render(), render(release="second")
    assert not matching(one["Service/gateway"]["spec"]["selector"], other)


@pytest.mark.parametrize(
    ("given", "label"), [({}, "restricted"), ({"podSecurity": "baseline"}, "baseline"), ({"podSecurity": ""}, None)]
)
def test_namespaces_of_functions_admit_only_such_pods_as_functions_are(given: dict[str, str], label: str) -> None:
    namespace = render({"functions": given})["Namespace/openfaas-fn"]
    assert namespace["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") == label
    spec, mounts = FunctionSpec("f", "x", read_only_root_filesystem=True), Mounts((), ("secret",))
    pod = deployment(Release(spec, "x@sha256:y", True, mounts, "i", 1, 1))["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {kind for volume in pod["volumes"] for kind in volume} == {"name", "emptyDir", "projected"}


@pytest.mark.parametrize(
    ("version", "values", "namespaces"),
    [
        (CURRENT, {}, {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}),
        (OLDEST, {}, {}),
        (OLDEST, {"networkPolicy": {"gatewayNamespaceLabels": {"a": "b"}}}, {"matchLabels": {"a": "b"}}),
    ],
)
def test_functions_admit_the_gateway_alone(version: str, values: dict[str, Any], namespaces: Document) -> None:
    documents = render(values, kube_version=version)
    spec = documents["NetworkPolicy/openfaas-fn/stoker-functions"]["spec"]
    function = deployment(Release(FunctionSpec("greet", "greet:1"), "greet:1", True, Mounts(), "id", 1, 1))
    labels = function["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()
    assert [one["key"] for one in spec["podSelector"]["matchExpressions"]] == ["faas_function"]
    (peer,) = spec["ingress"][0]["from"]
    assert matching(peer["podSelector"]["matchLabels"], documents) == [GATEWAY]
    assert peer["namespaceSelector"] == namespaces


@pytest.mark.parametrize(
    ("version", "api"), [(OLDEST, "policy/v1beta1"), ("v1.21.0", "policy/v1"), (CURRENT, "policy/v1")]
)
def test_api_versions_are_the_clusters(version: str, api: str) -> None:
    assert render(kube_version=version)["PodDisruptionBudget/stoker-gateway"]["apiVersion"] == api


def test_pods_have_no_right_that_they_do_not_need() -> None:
    for key, pod in pods(render(MOST)).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec.get("automountServiceAccountToken", True) is (key == GATEWAY)
        assert spec.get("serviceAccountName") in (None, key.partition("/")[2])
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume]


def test_secrets_are_made_and_stand_nowhere_else() -> None:
    documents = render(MOST)
    made = {
        base64.b64decode(value).decode()
        for one in documents.values()
        if one["kind"] == "Secret"
        for key, value in one["data"].items()
        if key != "basic-auth-user"
    }
    assert sorted(len(one) for one in made) == [32, 41]
    others = json.dumps([one for one in documents.values() if one["kind"] != "Secret"])
    assert not [one for one in made if one in others]
    assert base64.b64decode(documents["Secret/basic-auth"]["data"]["basic-auth-user"]) == b"admin"


@pytest.mark.parametrize(
    "values", [{}, {"async": {"durability": "relaxed"}, "nats": {"storage": {"maxFileStore": "2TB"}}}]
)
def test_the_brokers_configuration_is_one_that_it_takes(values: dict[str, Any], tmp_path: Path) -> None:
    documents = render(values)
    text = documents["ConfigMap/stoker-nats"]["data"]["nats.conf"]
    assert f"max_payload: {MAX_INLINE + 2 * 1024 * 1024}\n" in text
    path = tmp_path / "nats.conf"
    path.write_text(text.replace("/data", str(tmp_path / "data")))
    token = base64.b64decode(documents["Secret/stoker-nats"]["data"]["token"]).decode()
    done = subprocess.run(
        [find_program(), "--config", str(path), "-t"],
        env=os.environ | {"NATS_TOKEN": token},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "is valid" in done.stderr) == (0, True), done.stderr


def test_dashboards_ask_for_metrics_that_there_are() -> None:
    page = expose([], [], Traffic()).decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.M))
    told = set(kinds) | {f"{name}_bucket" for name, kind in kinds.items() if kind == "histogram"}
    data = render(MOST)["ConfigMap/stoker-dashboards"]["data"]["stoker-functions.json"]
    asked = [target["expr"] for panel in json.loads(data)["panels"] for target in panel["targets"]]
    names = {name for query in asked for name in re.findall(r"(?:gateway|http)_\w+", query)}
    assert len(names) >= 5
    assert names <= told


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gatway": {}}, "gatway"),
        ({"gateway": {"replica": 2}}, "replica"),
        ({"gateway": {"replicas": "two"}}, "/gateway/replicas"),
        ({"gateway": {"replicas": 0}}, "/gateway/replicas"),
        ({"gateway": {"proxies": 65}}, "/gateway/proxies"),
        ({"gateway": {"service": {"type": "Public"}}}, "/gateway/service/type"),
        ({"async": {"durability": "never"}}, "/async/durability"),
        ({"async": {"workerLostAfter": "soon"}}, "/async/workerLostAfter"),
        ({"async": {"maxBody": "16 MB"}}, "/async/maxBody"),
        ({"functions": {"namespaces": []}}, "/functions/namespaces"),
        ({"functions": {"namespaces": ["Upper"]}}, "/functions/namespaces/0"),
        ({"image": {"repository": "r/s; rm"}}, "/image/repository"),
        ({"nats": {"url": "nats://user:secret@host"}}, "/nats/url"),
        ({"nats": {"storage": {"maxFileStore": "8Gi"}}}, "/nats/storage/maxFileStore"),
        ({"ingress": {"host": "https://x"}}, "/ingress/host"),
        ({"endpoints": {"domain": "localhost"}}, "/endpoints/domain"),
        ({"pages": {"host": "https://x"}}, "/pages/host"),
        ({"endpoints": {"ownerRate": "100"}}, "/endpoints/ownerRate"),
        ({"registries": {"plain": ["http://r"]}}, "/registries/plain/0"),
        ({"podSecurityContext": {"runAsUser": 0}}, "/podSecurityContext/runAsUser"),
        ({"operator": {"create": True}}, "operator"),
    ],
)
def test_the_schema_refuses_what_is_not_meant(values: dict[str, Any], message: str) -> None:
    with helm_python.Chart.load(CHART) as chart, pytest.raises(helm_python.HelmValuesError) as refusal:
        chart.validate_schema(NEEDED | values)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image": {"repository": ""}}, "image.repository is empty: name the platform's image"),
        ({"nats": {"enabled": False}}, "nats.url is empty: name your NATS"),
        (own_nats(secret="s", kind="password"), "nats.auth.user is empty"),
        ({"nats": {"image": {"repository": "nats"}}}, "nats.image.tag is empty"),
        ({"ingress": {"enabled": True}}, "ingress.host is empty"),
    ],
)
def test_what_is_missing_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(helm_python.HelmRenderError, match=message):
        render(values)


def test_every_default_is_described_by_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(part: Document, values: Document, path: str) -> None:
        known = set(part["properties"]) - {"global"}
        assert known == set(values), f"{path} of values.yaml and of the schema differ"
        assert part["additionalProperties"] is False
        for name in known:
            if "properties" in part["properties"][name]:
                compare(part["properties"][name], values[name], f"{path}/{name}")

    compare(schema, defaults, "")
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    for name in defaults:
        assert f".Values.{name}" in templates
