"""Every template keeps the same contract: one suite, run over a small handler of each language.

The handlers are in `languages/TEMPLATE/`; they answer the same routes. A template whose handlers get text alone
(`python3`, `python3-flask`) takes the route from the first line of the body. What a template cannot do by its
nature is listed in `LANGUAGES`, and nothing else is left out.
"""

from __future__ import annotations

import http.client
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from loads import calls_going_on, elapsed_under, wrk
from running_platform import Answer, Platform, wait_for

from stoker_builder.templates import built_in_folder, list_templates
from stoker_gateway.providers.local.artefacts import MODES
from stoker_sdk.function import Resources
from stoker_sdk.messages import Secret

HERE = Path(__file__).parent / "languages"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Language:
    """`program` must be on the machine. `lacks` is what the template's shape has no way for."""

    template: str
    program: str = "sh"
    text: bool = False
    lacks: frozenset[str] = frozenset()

    def name(self, what: str) -> str:
        return f"{what}-{self.template}"


_TEXT = frozenset({"request", "context", "secret", "answer"})
_FORKED = frozenset({"answer", "fail", "hooks", "state", "most", "timeout status", "call ids"})

LANGUAGES = [
    Language("python3", text=True, lacks=_TEXT),
    Language("python3-http"),
    Language("python3-flask", text=True, lacks=_TEXT - {"answer"}),
    Language("node", "node"),
    Language("go", "go", lacks=frozenset({"call ids"})),
    Language("ruby", "ruby"),
    Language("bash", "bash", lacks=_FORKED),
]
NOT_RUN = {"csharp": "the .NET SDK is in no package of Debian", "dockerfile": "it needs containers"}


def languages_with(*parts: str) -> Any:
    """The test is run for each language that has all these parts."""
    fitting = [language for language in LANGUAGES if language.lacks.isdisjoint(parts)]
    return pytest.mark.parametrize("language", fitting, ids=lambda language: language.template)


class Functions:
    """Builds a language's handler once, and deploys it under as many names as tests want."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self._images: dict[str, str] = {}

    def image(self, language: Language) -> str:
        if language.template not in self._images:
            files = {path.name: path.read_text() for path in (HERE / language.template).iterdir() if path.is_file()}
            self._images[language.template] = self.platform.build(language.name("any"), files, language.template)
        return self._images[language.template]

    def deploy(self, language: Language, what: str, **fields: Any) -> str:
        """The name of a function that is ready."""
        if shutil.which(language.program) is None:
            pytest.skip(f"{language.program} is not on this machine; tests/needs.sh installs it")
        if _mode(language) not in MODES:
            pytest.skip(f"mode {_mode(language)} cannot run here yet")
        name = language.name(what)
        self.platform.deploy_image(name, self.image(language), **fields)
        return name

    def common(self, language: Language) -> str:
        """The function that most tests share."""
        return self.deploy(language, "common", secrets=["api-key"])


def _mode(language: Language) -> str:
    return next(template.mode for template in list_templates() if template.name == language.template)


@pytest.fixture(scope="module")
def functions(platform: Platform) -> Iterator[Functions]:
    platform.client.create_secret(Secret("api-key", value="very secret\n"))
    made = Functions(platform)
    yield made
    for status in platform.client.functions():
        if any(status.name.endswith(f"-{language.template}") for language in LANGUAGES):
            platform.client.remove(status.name)


@pytest.fixture
def common(functions: Functions, language: Language) -> Callable[..., Answer]:
    """Calls a route of the shared function of the language."""
    name = functions.common(language)
    return lambda route, body=b"", **options: call(functions.platform, language, name, route, body, **options)


def call(platform: Platform, language: Language, name: str, route: str, body: bytes = b"", **options: Any) -> Answer:
    sent = route.encode() + b"\n" + body if language.text else body
    return platform.call(name, sent, path=route, **options)


def test_every_template_is_in_this_suite() -> None:
    assert {language.template for language in LANGUAGES} | NOT_RUN.keys() == {one.name for one in list_templates()}


@languages_with()
def test_the_starter_of_new_is_built_tested_and_answers(functions: Functions, language: Language) -> None:
    functions.common(language)  # skips what cannot run here
    starter = built_in_folder() / language.template / "function"
    files = {path.name: path.read_text() for path in starter.iterdir() if path.is_file()}
    name = language.name("starter")
    functions.platform.deploy(name, files, lang=language.template)
    assert "hello" in functions.platform.call(name, b"hello").text


@languages_with()
@pytest.mark.parametrize("chunked", [False, True], ids=["with length", "chunked"])
def test_a_body_of_5_mb_comes_back_byte_for_byte(functions: Functions, language: Language, chunked: bool) -> None:
    name = functions.common(language)
    body = os.urandom(2_500_000).hex().encode() if language.text else os.urandom(5_000_000)
    sent = b"/echo\n" + body if language.text else body
    pieces = iter([sent[:10], sent[10:4_000_000], sent[4_000_000:]]) if chunked else sent
    connection = http.client.HTTPConnection(*functions.platform.http, timeout=30)
    connection.request("POST", f"/function/{name}/echo", pieces)
    response = connection.getresponse()
    assert (response.status, response.read() == body) == (200, True)
    connection.close()


@languages_with()
def test_no_body_is_an_empty_one(common: Callable[..., Answer], language: Language) -> None:
    answer = common("/echo")
    assert (answer.status, answer.body) == (200, b"")


@languages_with("answer")
def test_status_headers_and_body_are_the_handlers(common: Callable[..., Answer], language: Language) -> None:
    answer = common("/answer")
    assert (answer.status, answer.text) == (201, "made")
    assert (answer.headers["x-one"], answer.headers["content-type"]) == ("1", "text/x-test")
    assert "x-stoker-error" not in answer.headers


@languages_with("request")
def test_the_request_reaches_the_handler_as_it_was_sent(common: Callable[..., Answer], language: Language) -> None:
    answer = common("/request?x=%20&y=+", method="PATCH", headers={"X-Test": "yes"})
    assert answer.json() == ["PATCH", "/request", "x=%20&y=+", "yes"]


@languages_with("context")
def test_the_handler_knows_who_it_is_and_which_call_it_answers(functions: Functions, language: Language) -> None:
    name = functions.common(language)
    answer = call(functions.platform, language, name, "/context", headers={"X-Call-Id": "who-1"}).json()
    expected = {"function": name, "namespace": "openfaas-fn", "call": "who-1", "state": "opened"}
    assert answer == {key: value for key, value in expected.items() if "state" not in language.lacks or key != "state"}


@languages_with("secret")
def test_a_secret_can_be_read_by_its_name(common: Callable[..., Answer], language: Language) -> None:
    assert common("/secret").text.strip() == "very secret"


@languages_with("fail")
def test_an_error_of_the_handler_is_a_500_that_leads_to_the_log(functions: Functions, language: Language) -> None:
    platform, name = functions.platform, functions.common(language)
    before = platform.replicas(name)
    answer = call(platform, language, name, "/fail", headers={"X-Call-Id": "fails-1"})
    assert (answer.status, answer.headers["x-stoker-error"]) == (500, "function; exception")
    assert answer.text.count("\n") == 1 and answer.text.endswith("is in the log under call id fails-1\n")
    assert "the cause" not in answer.text
    wait_for(lambda: "about to fail\n" in _printed(platform, name), "the print")
    lines = [line.text for line in platform.logs(name) if line.call == "fails-1"]
    assert any("the cause" in line for line in lines), lines
    assert not any("/runtime/" in line for line in lines), lines
    assert call(platform, language, name, "/echo", b"x").status == 200
    assert platform.replicas(name) == before


@languages_with()
def test_a_piece_of_a_stream_is_there_before_the_last_is_made(functions: Functions, language: Language) -> None:
    name = functions.common(language)
    connection = http.client.HTTPConnection(*functions.platform.http, timeout=20)
    connection.request("POST", f"/function/{name}/stream", b"/stream\n" if language.text else b"")
    response = connection.getresponse()
    assert response.readline() == b"one\n"
    begun = time.monotonic()
    assert response.read() == b"two\n"
    assert time.monotonic() - begun > 0.3
    connection.close()


@languages_with("timeout status")
def test_a_call_beyond_the_timeout_is_a_504_and_others_go_on(functions: Functions, language: Language) -> None:
    name = functions.deploy(language, "short", annotations={"stoker.dev/timeout": "1s"})
    with elapsed_under(2.5), ThreadPoolExecutor(1) as pool:
        slow = pool.submit(call, functions.platform, language, name, "/sleep", b"4")
        assert call(functions.platform, language, name, "/echo", b"x").status == 200
        answer = slow.result()
    assert (answer.status, answer.headers["x-stoker-error"]) == (504, "function; timeout")
    assert "timeout" in answer.text and "1 s" in answer.text
    assert call(functions.platform, language, name, "/echo", b"x").status == 200


@languages_with()
def test_health_readiness_and_metrics_have_pages(functions: Functions, language: Language) -> None:
    name = functions.common(language)
    call(functions.platform, language, name, "/echo", b"x")
    for page in ("/_/health", "/_/ready"):
        assert (functions.platform.call(name, path=page, method="GET").status, page) == (200, page)
        assert functions.platform.call(name, path=page, method="POST").status == 405
    metrics = functions.platform.call(name, path="/_/metrics", method="GET").text
    assert 'http_requests_total{code="200",method="post"}' in metrics
    assert "http_requests_in_flight 0" in metrics


@languages_with()
def test_max_inflight_refuses_what_is_over_it(functions: Functions, language: Language) -> None:
    name = functions.deploy(language, "limited", env_vars={"max_inflight": "2"})
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: call(functions.platform, language, name, "/sleep", b"0.5"), range(8)))
    assert Counter(answer.status for answer in answers) == {200: 2, 429: 6}
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.text == "Concurrent request limit exceeded. Max concurrent requests: 2\n"
    assert refused.headers["x-openfaas-internal"] == "faas-middleware"
    assert refused.headers["content-type"] == "text/plain"
    assert call(functions.platform, language, name, "/echo").status == 200


@languages_with("most")
def test_concurrency_1_lets_a_handler_never_see_two_calls_at_once(functions: Functions, language: Language) -> None:
    name = functions.deploy(language, "single", annotations={"stoker.dev/concurrency": "1"})
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: call(functions.platform, language, name, "/most"), range(20)))
    assert Counter((answer.status, answer.text) for answer in answers) == {(200, "1"): 20}


@languages_with()
def test_what_a_handler_prints_is_in_the_log(functions: Functions, language: Language) -> None:
    name = functions.common(language)
    call(functions.platform, language, name, "/print", b"a line", headers={"X-Call-Id": "prints-1"})
    wait_for(lambda: "a line\n" in _printed(functions.platform, name), "the line")
    line = next(line for line in functions.platform.logs(name) if line.text == "a line\n")
    if "call ids" not in language.lacks:
        assert line.call == "prints-1"


@languages_with("hooks")
def test_init_runs_before_the_first_call_and_close_after_the_last(functions: Functions, language: Language) -> None:
    platform = functions.platform
    name = functions.deploy(language, "hooked")
    assert call(platform, language, name, "/print", b"called").status == 200
    with ThreadPoolExecutor(1) as pool:
        last = pool.submit(call, platform, language, name, "/sleep", b"0.7")
        wait_for(lambda: "in_flight 1" in platform.call(name, path="/_/metrics", method="GET").text, "the call")
        platform.scale(name, 0)
        assert last.result().text == "slept"
    wait_for(lambda: _printed(platform, name)[-1:] == ["closed\n"], "the hook close")
    assert _printed(platform, name)[:2] == ["opened\n", "called\n"]


@languages_with("hooks")
def test_an_init_that_fails_is_told_with_its_reason(functions: Functions, language: Language) -> None:
    platform = functions.platform
    functions.common(language)
    name = language.name("broken")
    platform.deploy_image(name, functions.image(language), wait=False, env_vars={"FAIL_INIT": "1"})
    condition = platform.wait_failed(name)
    assert "no way to begin" in condition.message


@languages_with()
def test_a_redeploy_under_load_fails_no_call(functions: Functions, language: Language) -> None:
    platform = functions.platform
    name = functions.deploy(language, "moving", env_vars={"GENERATION": "1"})
    outcomes: list[tuple[int, str]] = []
    stop = threading.Event()

    def caller() -> None:
        while not stop.is_set():
            answer = call(platform, language, name, "/sleep", b"0.02")
            outcomes.append((answer.status, answer.text))

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(caller) for _ in range(4)]
        try:
            for generation in ("2", "3"):
                count = len(outcomes)
                wait_for(lambda count=count: len(outcomes) > count + 20, "calls before the change")
                platform.deploy_image(name, functions.image(language), env_vars={"GENERATION": generation})
        finally:
            stop.set()
        for one in waiting:
            one.result()
    assert Counter(outcomes) == {(200, "slept"): len(outcomes)}


@languages_with("request")
def test_thousands_of_calls_over_kept_connections_all_succeed(functions: Functions, language: Language) -> None:
    platform, name = functions.platform, functions.common(language)
    if language.template == "bash":
        pytest.skip("a process for each call: other tests load that mode")
    with wrk(platform, name, path="/echo") as load:
        with calls_going_on(platform, name, 2000):
            pass
        report = load.report()
    assert (report.socket, report.timeout, report.bad) == (0, 0, 0)


def _printed(platform: Platform, name: str) -> list[str]:
    return [line.text for line in platform.logs(name)]


@languages_with()
def test_a_memory_limit_of_128_mib_leaves_room_for_the_runtime(functions: Functions, language: Language) -> None:
    name = functions.deploy(language, "small", limits=Resources(memory="128Mi"))
    assert call(functions.platform, language, name, "/echo", b"x").text == "x"


@languages_with("hooks")
def test_a_sick_replica_is_shown_with_its_reason_and_serves_again_when_it_is_well(
    functions: Functions, language: Language
) -> None:
    platform = functions.platform
    sick = platform.folder / f"sick-{language.template}"
    annotations = {"com.openfaas.ready.http.periodSeconds": "1", "com.openfaas.ready.http.failureThreshold": "1"}
    name = functions.deploy(language, "sick", env_vars={"SICK": str(sick)}, annotations=annotations)
    sick.touch()
    wait_for(lambda: "broken on purpose" in str(platform.condition(name)), "the reason")
    sick.unlink()
    wait_for(lambda: "broken on purpose" not in str(platform.condition(name).instances), "its recovery")
    assert call(platform, language, name, "/echo", b"x").status == 200
