"""The chart's builder: off unless asked for, without rights, and never without limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stoker_cli.serve import serve
from stoker_cli.serve_pipeline import pipeline
from stoker_gateway.tls import ensure_certificates

helm_python = pytest.importorskip("helm_python", reason="helm-python-sdk has no wheel for this machine")

from rendered_chart import BUILDER, CHART, CURRENT, NAMESPACE, NEEDED, OLDEST, Documents, pods, render  # noqa: E402

KEY, GATEWAY = "StatefulSet/stoker-builder", "Deployment/stoker-gateway"
DOCKER = {"images": BUILDER["images"] | {"builder": "docker"}, "buildkit": {"address": ""}}


def builder(**values: Any) -> dict[str, Any]:
    return {"builder": BUILDER | values}


SOCKET = builder(**DOCKER, docker={"socket": "/var/run/docker.sock", "group": 998})
ENGINE = builder(**DOCKER, docker={"host": "tcp://engine.builds:2376", "tlsSecret": "engine-tls"})
FULL = {
    "registries": {"plain": ["registry.lan:5000"]},
    "ingress": {"enabled": True, "host": "f.example.org", "tls": {"enabled": True}},
    **builder(
        image={"repository": "r/b", "tag": "7"},
        namespace="pushed",
        runs=4,
        runsPerOwner=2,
        images={"builder": "buildkit", "prefix": "r.example.org/p", "registrySecret": "pusher"},
        buildkit={"address": "tcp://b:1234", "tlsSecret": "buildkit-tls"},
        github={"secret": "gh", "appId": "12", "owners": ["ada", "bob"], "forkPreviews": True},
        gitlab={"secret": "gl", "url": "https://git.example.org"},
        sealKeySecret="seal",
        clusterIP="10.96.0.7",
        egress=[{"ipBlock": {"cidr": "10.0.0.0/8"}}],
    ),
}
TOKEN = builder(github={"secret": "gh"})
SETS = [builder(), SOCKET, ENGINE, FULL, TOKEN]


def container(documents: Documents, key: str = KEY) -> Any:
    (found,) = pods(documents)[key]["spec"]["containers"]
    return found


def flags(values: dict[str, Any], key: str = KEY) -> set[str]:
    return set(container(render(values), key)["args"])


def test_it_is_off_by_default() -> None:
    assert not [key for key in render() if "builder" in key]
    assert not [flag for flag in flags({}, GATEWAY) if "pipeline" in flag]
    objects = {KEY, "Service/stoker-builder", "NetworkPolicy/stoker-builder", "ServiceAccount/stoker-builder"}
    objects |= {"PriorityClass/openfaas-stoker-builder"}
    assert set(render(builder())) - set(render()) == objects
    assert set(render(FULL)) - set(render(builder())) == {"ConfigMap/stoker-builder", "Ingress/stoker"}


@pytest.mark.parametrize("version", [OLDEST, CURRENT])
@pytest.mark.parametrize("values", SETS)
def test_lint_has_nothing_to_say(values: dict[str, Any], version: str) -> None:
    report = helm_python.lint(CHART, NEEDED | values, strict=True, namespace=NAMESPACE, kube_version=version)
    said = [one["error"] for one in report["messages"]]
    assert (report["errors"], said) == ([], ["icon is recommended"])


@pytest.mark.parametrize("values", SETS)
def test_the_command_takes_every_flag(values: dict[str, Any], tmp_path: Path) -> None:
    """The files that flags name are mounted in the pod; here a certificate or its folder stands for each."""
    one = container(render(values))
    mounted = {mount["mountPath"] for mount in one["volumeMounts"]}
    stand_in = ensure_certificates(tmp_path, ()).ca
    given = []
    for argument in one["args"]:
        flag, _, value = argument.partition("=")
        if value.startswith("/"):
            assert mounted & {value, str(Path(value).parent)}
            argument = f"{flag}={stand_in.parent if value in mounted else stand_in}"
        given.append(argument)
    assert pipeline.make_context("pipeline", given).params["listen"] == ("0.0.0.0", 8084)
    volumes = {volume["name"] for volume in pods(render(values))[KEY]["spec"]["volumes"]} | {"data"}
    assert {mount["name"] for mount in one["volumeMounts"]} == volumes


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (builder(), {"--gateway=http://gateway.openfaas:8080", "--public-url=http://gateway.openfaas:8080"}),
        (builder(), {"--function-namespace=openfaas-fn", "--nats=nats://stoker-nats.openfaas:4222"}),
        (builder(), {"--image-builder=buildkit", "--buildkit=tcp://buildkitd.builds:1234"}),
        ({"gateway": {"service": {"clusterIP": "10.96.0.8"}}} | builder(), {"--gateway=http://10.96.0.8:8080"}),
        ({"functions": {"deployDeadline": "5m"}} | builder(), {"--deploy-deadline=5m"}),
        (builder(maxPush="1Gi", maxRepositories="9Gi"), {"--max-push=1Gi", "--max-repositories=9Gi"}),
        (FULL, {"--public-url=https://f.example.org", "--function-namespace=pushed", "--runs=4", "--runs-per-owner=2"}),
        (FULL, {"--buildkit-tls=/etc/stoker/builder-tls", "--registry-config=/etc/stoker/registry/.dockerconfigjson"}),
        (FULL, {"--github-app-id=12", "--github-key-file=/etc/stoker/github/private-key", "--github-fork-previews"}),
        (FULL, {"--github-owners-file=/etc/stoker/owners/github-owners", "--seal-key-file=/etc/stoker/seal/seal.key"}),
        (FULL, {"--gitlab-token-file=/etc/stoker/gitlab/token", "--gitlab-url=https://git.example.org"}),
        (FULL, {"--plain-registry=registry.lan:5000"}),
        (TOKEN, {"--github-token-file=/etc/stoker/github/token"}),
        (SOCKET, {"--image-builder=docker", "--docker-host=unix:///run/docker/docker.sock"}),
        (ENGINE, {"--docker-host=tcp://engine.builds:2376"}),
        (builder(publicUrl="https://x.example.org"), {"--public-url=https://x.example.org"}),
    ],
)
def test_values_become_flags(values: dict[str, Any], expected: set[str]) -> None:
    assert expected <= flags(values)


@pytest.mark.parametrize(
    ("values", "url"),
    [(builder(), "http://stoker-builder.openfaas:8084"), (FULL, "http://10.96.0.7:8084")],
)
def test_gateways_are_told_where_it_is(values: dict[str, Any], url: str) -> None:
    documents = render(values)
    (port,) = documents["Service/stoker-builder"]["spec"]["ports"]
    assert url.endswith(f":{port['port']}")
    assert f"--pipeline={url}" in container(documents, GATEWAY)["args"]
    assert serve.make_context("serve", [f"--pipeline={url}"]).params["pipeline"] == url
    assert documents["Service/stoker-builder"]["spec"]["selector"].items() <= labels(documents, KEY).items()


@pytest.mark.parametrize("values", SETS)
def test_it_has_no_rights_and_one_folder_to_write(values: dict[str, Any]) -> None:
    documents = render(values)
    spec = pods(documents)[KEY]["spec"]
    assert spec["automountServiceAccountToken"] is False
    bound = [one["subjects"] for one in documents.values() if one["kind"].endswith("RoleBinding")]
    assert spec["serviceAccountName"] not in [subject["name"] for subjects in bound for subject in subjects]
    assert spec["securityContext"]["runAsNonRoot"] is True
    one = container(documents)
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    writable = {mount["name"] for mount in one["volumeMounts"] if not mount.get("readOnly")}
    assert writable - {"docker"} == {"data", "temp"}
    assert ("docker" in writable) is (values is SOCKET), "a node's socket is mounted for whoever asks for it alone"


@pytest.mark.parametrize("where", [{}, {"nodeSelector": {"docker": "yes"}, "tolerations": [{"operator": "Exists"}]}])
def test_the_nodes_socket_is_opened_by_its_group(where: dict[str, Any]) -> None:
    spec = pods(render({"builder": SOCKET["builder"] | where}))[KEY]["spec"]
    assert spec["securityContext"]["supplementalGroups"] == [998]
    assert {name: spec[name] for name in where} == where
    (volume,) = [volume for volume in spec["volumes"] if "hostPath" in volume]
    assert volume["hostPath"] == {"path": "/var/run/docker.sock", "type": "Socket"}


def test_an_engines_certificates_are_docker_s_variables() -> None:
    variables = {one["name"]: one["value"] for one in container(render(ENGINE))["env"]}
    assert (variables["DOCKER_TLS_VERIFY"], variables["DOCKER_CERT_PATH"]) == ("1", "/etc/stoker/builder-tls")


def labels(documents: Documents, key: str) -> dict[str, str]:
    found: dict[str, str] = pods(documents)[key]["metadata"]["labels"]
    return found


def test_only_the_gateway_connects_to_it_and_it_is_let_to_nats() -> None:
    documents = render(builder())
    spec = documents["NetworkPolicy/stoker-builder"]["spec"]
    assert spec["podSelector"]["matchLabels"].items() <= labels(documents, KEY).items()
    ((peer,),) = [one["from"] for one in spec["ingress"]]
    assert peer["podSelector"]["matchLabels"].items() <= labels(documents, GATEWAY).items()
    admitted = documents["NetworkPolicy/stoker-nats"]["spec"]["ingress"][0]["from"]
    components = [one["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for one in admitted]
    assert components == ["gateway", "builder"]


def test_it_reaches_no_metadata_of_nodes_and_with_egress_nothing_else() -> None:
    anywhere = render(builder())["NetworkPolicy/stoker-builder"]["spec"]["egress"][-1]["to"]
    assert anywhere[0]["ipBlock"] == {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}
    narrowed = render(FULL)["NetworkPolicy/stoker-builder"]["spec"]["egress"]
    assert narrowed[-1]["to"] == [{"ipBlock": {"cidr": "10.0.0.0/8"}}]
    assert [sorted(port["port"] for port in one.get("ports", [])) for one in narrowed] == [[8080], [4222], [53, 53], []]


def test_it_makes_room_for_functions() -> None:
    documents = render(builder())
    name = pods(documents)[KEY]["spec"]["priorityClassName"]
    assert documents[f"PriorityClass/{name}"]["value"] < 0 < documents["PriorityClass/openfaas-stoker"]["value"]
    given = render({"priorityClass": {"create": False, "builderName": "low"}} | builder())
    assert pods(given)[KEY]["spec"]["priorityClassName"] == "low"
    assert "priorityClassName" not in pods(given)[GATEWAY]["spec"]


def test_repositories_and_keys_stay() -> None:
    (claim,) = render(builder())[KEY]["spec"]["volumeClaimTemplates"]
    assert (claim["metadata"]["name"], claim["spec"]["resources"]["requests"]["storage"]) == ("data", "10Gi")
    fleeting = render(builder(storage={"enabled": False}))[KEY]["spec"]
    assert "volumeClaimTemplates" not in fleeting
    assert {"name": "data", "emptyDir": {}} in fleeting["template"]["spec"]["volumes"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"async": {"enabled": False}} | builder(), "builder.enabled needs async.enabled"),
        (builder(resources={"limits": {"memory": None}}), "builder.resources.limits needs cpu and memory"),
        (builder(resources={"requests": None}), "requests"),
        (builder(image={}), "builder.image.repository is empty"),
        (builder(images={}), "builder.images.prefix is empty"),
        (builder(buildkit={}), "builder.buildkit.address is empty"),
        (builder(**DOCKER), "set builder.docker.host or builder.docker.socket"),
        (builder(**DOCKER, docker={"host": "tcp://e:2375", "socket": "/s"}), "one of them"),
    ],
)
def test_what_is_missing_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(helm_python.HelmError, match=message):
        render(values)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"limits": {}}, "limits"),
        ({"images": {"builder": "kaniko"}}, "/builder/images/builder"),
        ({"images": {"prefix": "https://r/x"}}, "/builder/images/prefix"),
        ({"docker": {"host": "unix:///x"}}, "/builder/docker/host"),
        ({"docker": {"group": 0}}, "/builder/docker/group"),
        ({"github": {"owners": ["-a"]}}, "/builder/github/owners/0"),
        ({"github": {"token": "ghp_secret"}}, "token"),
    ],
)
def test_the_schema_refuses_what_is_not_meant(given: dict[str, Any], message: str) -> None:
    with helm_python.Chart.load(CHART) as chart, pytest.raises(helm_python.HelmValuesError) as refusal:
        chart.validate_schema(NEEDED | builder(**given))
    assert message in str(refusal.value)
