"""Reading stack files: what they mean, and where an error says it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_sdk.deployment import Overrides, function_spec, has_digest, prefixed, tagged, with_prefix
from stoker_sdk.errors import BadInput, BadUsage, NotFound, StokerError
from stoker_sdk.function import Resources
from stoker_sdk.stack import Stack, StackFunction, load_stack, parse_stack, select

HEAD = "provider: {name: openfaas}\n"

FULL = """
version: 1.0
provider:
  name: openfaas
  gateway: ${GATEWAY:-http://127.0.0.1:8080}
functions:
  greet:
    lang: Python3
    handler: ./greet
    image: example/greet:0.1
    fprocess: python3 index.py
    namespace: dev
    environment: {RATIO: 1.0, DEBUG: on, EMPTY: , NUMBER: 0x1F}
    secrets: [api-key]
    labels: {team: blue, com.openfaas.scale.min: 2}
    annotations: {topic: orders}
    constraints: ["disk=ssd"]
    limits: {memory: 128Mi, cpu: 500m}
    requests: {memory: 64Mi}
    readonly_root_filesystem: true
    skip_build: false
    build_args: {A: b}
    build_options: [dev]
    build_secrets: {pip: ./pip.conf}
    platforms: linux/amd64
    timeout: 1m30s
    concurrency: 4
    connections: 20
    start_timeout: 2m
    scale: {min: 2, max: 5, zero: True, zero-duration: 5m, target: 50, down-window: 1m}
    schedule: "*/5 * * * *"
    routes: [/hello, "Example.org/hi", {host: "*.example.org", path: /api, methods: [get, POST]}]
    retries: 3
configuration:
  templates: [{name: own, source: "https://example.org/t.git#v1"}]
  copy: [shared]
"""


def parse(text: str, **environment: str) -> Stack:
    return parse_stack(text, environment)


def one(body: str) -> StackFunction:
    return parse(f"{HEAD}functions:\n  greet:\n    {body}\n").functions[0]


def test_every_key_of_a_function_is_read_and_scalars_keep_their_text() -> None:
    stack = parse(FULL)
    assert stack.gateway == "http://127.0.0.1:8080" and stack.copy == ("shared",) and stack.warnings == ()
    assert [(each.name, each.source) for each in stack.templates] == [("own", "https://example.org/t.git#v1")]
    (function,) = stack.functions
    assert function == StackFunction(
        name="greet",
        lang="python3",
        handler="./greet",
        image="example/greet:0.1",
        fprocess="python3 index.py",
        namespace="dev",
        environment={"RATIO": "1.0", "DEBUG": "on", "EMPTY": "", "NUMBER": "0x1F"},
        secrets=("api-key",),
        labels={
            "team": "blue",
            "com.openfaas.scale.min": "2",
            "com.openfaas.scale.max": "5",
            "com.openfaas.scale.zero": "true",
            "com.openfaas.scale.zero-duration": "5m",
            "com.openfaas.scale.target": "50",
            "com.openfaas.scale.down.window": "1m",
        },
        annotations={"topic": "orders"},
        constraints=("disk=ssd",),
        limits=Resources(memory="128Mi", cpu="500m"),
        requests=Resources(memory="64Mi"),
        readonly_root_filesystem=True,
        skip_build=False,
        build_args={"A": "b"},
        build_options=("dev",),
        build_secrets={"pip": "./pip.conf"},
        platforms="linux/amd64",
        settings={
            "timeout": "1m30s",
            "concurrency": "4",
            "connections": "20",
            "start_timeout": "2m",
            "schedule": '[{"cron":"*/5 * * * *"}]',
            "routes": '[{"path":"/hello"},{"host":"example.org","path":"/hi"},'
            '{"host":"*.example.org","path":"/api","methods":["GET","POST"]}]',
            "retries": '{"max":3}',
        },
    )


@pytest.mark.parametrize("name", ["openfaas", "faas"])
def test_both_provider_names_are_accepted(name: str) -> None:
    assert parse(f"provider: {{name: {name}, gateway: http://localhost:8080}}").functions == ()


def test_the_variables_of_the_environment_are_substituted_before_yaml() -> None:
    text = f"{HEAD}functions:\n  greet: {{image: '${{REGISTRY:-local}}/greet', fprocess: $HOME}}\n"
    assert parse(text).functions[0].image == "local/greet"
    assert parse(text, REGISTRY="far", HOME="/root").functions[0] == StackFunction(
        "greet", image="far/greet", fprocess="$HOME"
    )
    assert parse_stack(text, None).functions[0].image == "${REGISTRY:-local}/greet"


def test_anchors_and_merges_are_resolved() -> None:
    function = parse(
        f"{HEAD}functions:\n"
        "  a: &a {image: a, labels: &l {x: '1', y: '2'}}\n"
        "  b: {<<: *a, labels: {<<: *l, y: '3'}}\n"
    ).functions[1]
    assert (function.image, function.labels) == ("a", {"x": "1", "y": "3"})


@pytest.mark.parametrize("empty", ["", "~", "null", "{}"])
def test_an_empty_value_is_the_same_as_none(empty: str) -> None:
    assert one(f"labels: {empty}") == StackFunction("greet")
    assert one(f"limits: {empty}").limits in (None, Resources())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "stack.yml: is empty"),
        ("a: [", "stack.yml:1:5: is not YAML"),
        ("a: b: c", "stack.yml:1:5: is not YAML: mapping values are not allowed here"),
        ("\tfoo: bar", "stack.yml:1:1: is not YAML"),
        ("a: *nothing", "stack.yml:1:4: is not YAML: found undefined alias 'nothing'"),
        ("a\x00b", "stack.yml: is not YAML"),
        ("---\na: b\n---\nc: d", "stack.yml:3:1: is not YAML"),
        ("- a", "stack.yml:1:1: must be a mapping, and is a list"),
        ("functions: {}", "stack.yml:1:1: `provider` is missing"),
        ("provider: {}", "stack.yml:1:1: provider: the provider's name must be openfaas"),
        ("provider: {name: aws}", "stack.yml:1:12: provider.name: the provider's name must be openfaas"),
        (HEAD + "version: 2", "stack.yml:2:1: version: only version 1.0 can be read"),
        (HEAD + "functions: [a]", "stack.yml:2:1: functions: must be a mapping, and is a list"),
        (HEAD + "functions: {Bad_Name: {}}", "stack.yml:2:13: functions.Bad_Name: function name 'Bad_Name'"),
        (HEAD + "functions: {a: b}", "stack.yml:2:13: functions.a: must be a mapping, and is a single value"),
        (
            HEAD + "functions: {a: {}, a: {}}",
            "stack.yml:2:20: functions.a: is written twice, first in line 2",
        ),
        (HEAD + "functions: {[a]: {}}", "stack.yml:2:13: functions: must be a single value, and is a list"),
        (HEAD + "version: ${V-x}", "stack.yml:2:10: '${V-x}' cannot be substituted"),
        (HEAD + "configuration: {templates: [{}]}", "configuration.templates[0]: a template needs a `name`"),
    ],
)
def test_a_broken_stack_names_file_line_column_and_key(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        parse(text)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("image: [a]", "4:5: functions.greet.image: must be a single value, and is a list"),
        ("labels: [a]", "4:5: functions.greet.labels: must be a mapping, and is a list"),
        ("labels: {a: [b]}", "4:14: functions.greet.labels.a: must be a single value"),
        ("labels: {team: not allowed}", "4:14: functions.greet.labels.team: label 'team' has the value"),
        ("labels: {bad key: a}", "functions.greet.labels.bad key: label key 'bad key' is not allowed"),
        ("annotations: {bad key: a}", "annotation key 'bad key' is not allowed"),
        ("environment: {1A: b}", "functions.greet.environment.1A: environment variable '1A' is not allowed"),
        ("secrets: {a: b}", "functions.greet.secrets: must be a list, and is a mapping"),
        ("secrets: [Bad_Name]", "4:15: functions.greet.secrets[0]: secret name 'Bad_Name' is not allowed"),
        ("limits: {memory: lots}", "4:14: functions.greet.limits.memory: quantity 'lots' is not a quantity"),
        ("requests: {cpu: 1x}", "functions.greet.requests.cpu: quantity '1x'"),
        ("readonly_root_filesystem: perhaps", "must be true or false, and is 'perhaps'"),
        ("namespace: Bad", "functions.greet.namespace: namespace 'Bad' is not allowed"),
        ("timeout: soon", "4:5: functions.greet.timeout: duration 'soon' is not a duration"),
        ("concurrency: many", "functions.greet.concurrency: concurrency must be a whole number"),
        (
            "environment_file: [a.yml]",
            "functions.greet.environment_file[0]: environment files cannot be read",
        ),
    ],
)
def test_a_bad_value_of_a_function_is_named_with_its_place(body: str, message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        one(body)


def test_an_unknown_key_is_a_warning_that_names_the_nearest_known_one() -> None:
    stack = parse(f"{HEAD}functions:\n  greet:\n    imge: a\n    limits: {{memroy: 1Gi}}\n")
    assert stack.warnings == (
        "stack.yml:4:5: functions.greet.imge: is not a known key and is ignored; the nearest known key is 'image'",
        "stack.yml:5:14: functions.greet.limits.memroy: is not a known key and is ignored; "
        "the nearest known key is 'memory'",
    )


def test_aliases_that_stand_for_very_many_values_are_refused() -> None:
    lines = ["a0: &a0 {A: x, B: y}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 10)]
    text = HEAD + "\n".join(lines) + "\nfunctions: {greet: {environment: *a9}}\n"
    with pytest.raises(BadInput, match="stands for more than 20000 values"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "functions: {greet: {scale: &a [*a]}}",
        "functions: {greet: &a {<<: *a}}",
        "functions: &a {<<: [*a, *a]}",
        "a: " + "[" * 5000,
        "functions: {greet: {scale: " + "[" * 100 + "]" * 100 + "}}",
    ],
)
def test_documents_without_a_bottom_are_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse(HEAD + text)


def test_a_file_that_is_too_large_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(BadInput, match="larger than 1 MiB"):
        parse("#" * (1 << 20) + "\n")


@given(st.text())
def test_text_of_any_kind_is_read_or_refused_as_bad_input(text: str) -> None:
    for whole in (text, HEAD + text, f"{HEAD}functions:\n  greet:\n    {text}", f"{HEAD}functions: {{a: {text}}}"):
        try:
            parse(whole)
        except BadInput:
            pass


@pytest.mark.parametrize("key", ["timeout", "connections", "scale", "schedule", "routes", "retries", "limits"])
@given(value=st.recursive(st.text(max_size=8) | st.integers(), lambda some: st.lists(some, max_size=3)))
def test_a_setting_of_any_value_is_read_or_refused_as_bad_input(key: str, value: object) -> None:
    try:
        one(f"{key}: {json.dumps(value)}")
        one(f"{key}: {json.dumps({'max': value, 'cron': value, 'host': value})}")
    except BadInput:
        pass


@given(st.text(alphabet="abf:{}[]-&*<>'\"|# \n$1~!%@`,?"))
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    try:
        parse(text)
        parse(HEAD + "functions:\n  greet:\n    scale: " + text)
    except StokerError:
        pass


def test_environment_files_win_over_the_stack_and_later_ones_over_earlier(tmp_path: Path) -> None:
    (tmp_path / "one.yml").write_text("environment: {A: one, B: one}\n")
    (tmp_path / "two.yml").write_text("environment:\n  B: 2.0\n")
    (tmp_path / "stack.yml").write_text(
        HEAD + "functions: {greet: {environment: {A: stack, C: stack}, environment_file: [one.yml, two.yml]}}"
    )
    (function,) = load_stack(tmp_path / "stack.yml", {}).functions
    assert function.environment == {"A": "one", "B": "2.0", "C": "stack"}


def test_a_stack_that_is_missing_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=re.escape(f"there is no file {tmp_path / 'stack.yml'}")):
        load_stack(tmp_path / "stack.yml", {})
    (tmp_path / "stack.yml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="is not UTF-8 text"):
        load_stack(tmp_path / "stack.yml", {})


def test_filters_choose_by_the_whole_name_and_expressions_by_any_part() -> None:
    functions = tuple(StackFunction(name) for name in ("web-a", "web-b", "api"))

    def names(**chosen: str) -> list[str]:
        return [function.name for function in select(functions, **chosen)]

    assert names() == ["web-a", "web-b", "api"]
    assert names(filter_="web-*") == ["web-a", "web-b"]
    assert names(filter_="*-a") == ["web-a"]
    assert names(regex="^w.*a$") == ["web-a"]
    assert names(regex="eb") == ["web-a", "web-b"]
    for nothing in ("web", "we?-a", "[a]pi"):
        with pytest.raises(NotFound, match="no function of the stack matches"):
            select(functions, nothing)
    with pytest.raises(BadUsage, match="exclude each other"):
        select(functions, "a", "b")
    with pytest.raises(BadUsage, match="is not a regular expression"):
        select(functions, regex="(")


def test_a_deploy_request_holds_what_the_stack_says_and_ours_as_annotations() -> None:
    spec = function_spec(parse(FULL).functions[0])
    assert (spec.service, spec.image, spec.namespace) == ("greet", "example/greet:0.1", "dev")
    assert spec.annotations and spec.annotations["stoker.dev/timeout"] == "1m30s"
    assert (spec.timeout, spec.concurrency, spec.read_only_root_filesystem) == (90.0, 4, True)
    spec.check()


def test_flags_are_laid_over_the_stack() -> None:
    function = StackFunction(
        "greet",
        image="greet",
        environment={"A": "stack", "B": "stack"},
        secrets=("one",),
        constraints=("stack=1",),
        limits=Resources(memory="1Gi", cpu="1"),
        settings={"timeout": "10"},
    )
    flags = Overrides(
        image="other:2",
        environment={"A": "flag"},
        secrets=("two", "one"),
        constraints=("flag=1",),
        limits=Resources(memory="2Gi"),
        annotations={"stoker.dev/timeout": "20"},
    )
    spec = function_spec(function, flags)
    assert spec.image == "other:2" and spec.env_vars == {"A": "flag", "B": "stack"}
    assert spec.secrets == ["one", "two"] and spec.constraints == ["stack=1"]
    assert spec.limits == Resources(memory="2Gi", cpu="1") and spec.requests is None
    assert spec.timeout == 20.0


def test_an_image_without_a_tag_gets_latest() -> None:
    assert tagged("greet") == "greet:latest"
    assert tagged("registry:5000/greet") == "registry:5000/greet:latest"
    assert tagged("registry:5000/greet:1") == "registry:5000/greet:1"
    digest = "stoker.local/greet@sha256:" + "0" * 64
    assert tagged(digest) == digest and has_digest(digest) and not has_digest("greet:1")
    assert tagged("") == ""


@pytest.mark.parametrize(
    ("image", "moved"),
    [
        ("alexellis/kubecon", "localhost:5000/me/kubecon"),
        ("ghcr.io/a/b/greet:1.4", "localhost:5000/me/greet:1.4"),
        ("greet", "localhost:5000/me/greet"),
        ("", "localhost:5000/me/fn"),
    ],
)
def test_a_prefix_takes_the_place_of_registry_and_owner(image: str, moved: str) -> None:
    stack = Stack("stack.yml", Path(), functions=(StackFunction("fn", lang="python3", handler="./fn", image=image),))
    assert with_prefix(stack, "localhost:5000/me/").functions[0].image == moved


def test_a_prefix_is_for_what_is_built_and_must_begin_an_image() -> None:
    made = StackFunction("fn", image="ghcr.io/others/made:1")
    assert with_prefix(Stack("stack.yml", Path(), functions=(made,)), "me").functions == (made,)
    for prefix in ("-x", "a b", "ghcr.io/me\n", "/"):
        with pytest.raises(BadInput, match="is not allowed"):
            prefixed("greet", prefix)
