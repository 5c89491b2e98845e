"""Every fault says whose it is, which it is and what to do: in the answer, and the same in `describe`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from running_platform import Answer, Platform, wait_for

from stoker_sdk.errors import BadInput
from stoker_sdk.faults import FIXES, Fault, fault_code
from stoker_sdk.function import Resources
from stoker_sdk.messages import Secret

HANDLER = """
import os, time

def handle(event, context):
    what = event.path[1:]
    if what == 'raise':
        raise ValueError('no luck')
    if what == 'exit':
        os._exit(7)
    if what == 'kill':
        os.kill(os.getpid(), 9)
    if what == 'sleep':
        time.sleep(30)
    if what == 'eat':
        kept = [bytearray(os.urandom(1 << 20)) for _ in range(200)]
        return str(len(kept))
    return 'fine'
"""


def test_a_call_that_raises_names_the_exception_and_where_its_traceback_is(platform: Platform) -> None:
    _deploy(platform, "raises")
    answer = _faulty(platform, "raises", "/raise", 500, "function", "exception")
    assert "ValueError" in answer.text and answer.headers["x-call-id"] in answer.text


@pytest.mark.parametrize(("path", "how"), [("/exit", "exit code 7"), ("/kill", "killed by SIGKILL")])
def test_a_call_whose_process_ends_is_told_how_it_ended(platform: Platform, path: str, how: str) -> None:
    name = f"ends-{path[1:]}"
    _deploy(platform, name)
    answer = _faulty(platform, name, path, 502, "function", "crashed")
    assert how in answer.text and "stoker logs" in answer.text
    assert wait_for(lambda: platform.call(name).text == "fine", "a new replica")


@pytest.mark.root
def test_a_call_that_takes_too_much_memory_is_told_so(platform: Platform) -> None:
    _deploy(platform, "eats", limits=Resources(memory="64Mi"))
    answer = platform.call("eats", path="/eat")
    assert answer.status in (500, 502)  # as the kernel ends it, or the interpreter notices
    assert answer.headers["x-stoker-error"] == "function; out-of-memory"
    assert "limits.memory" in answer.text and answer.text.count("\n") == 1
    assert _described(platform, "eats", "out-of-memory").status == answer.status
    assert wait_for(lambda: platform.call("eats").text == "fine", "a new replica")


def test_a_start_that_takes_too_much_memory_is_told_so(platform: Platform) -> None:
    code = "import os\nkept = [bytearray(os.urandom(1 << 20)) for _ in range(200)]\ndef handle(req): ...\n"
    platform.deploy("eats-early", code, wait=False, limits=Resources(memory="64Mi"))
    condition = platform.wait_failed("eats-early")
    assert condition.code == "out-of-memory" and "limits.memory" in condition.message
    _faulty(platform, "eats-early", "", 503, "function", "out-of-memory")


def test_a_call_beyond_the_timeout_names_the_limit(platform: Platform) -> None:
    _deploy(platform, "slow", annotations={"stoker.dev/timeout": "300ms"})
    answer = _faulty(platform, "slow", "/sleep", 504, "function", "timeout")
    assert "0.3 s" in answer.text


def test_calls_beyond_max_inflight_are_told_the_limit(platform: Platform) -> None:
    _deploy(platform, "narrow", env_vars={"max_inflight": "1"}, annotations={"stoker.dev/timeout": "3s"})
    answers = _all_at_once(platform, "narrow", 2)
    assert [answer.status for answer in answers] == [429, 504]
    answer = answers[0]
    assert answer.text == "Concurrent request limit exceeded. Max concurrent requests: 1\n"
    assert answer.headers["x-stoker-error"] == "function; max-inflight"
    assert _described(platform, "narrow", "max-inflight").message == FIXES["max-inflight"]


def test_too_many_waiting_calls_are_refused_with_a_time_to_come_again(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(flags=("--max-waiting", "1"))
    _deploy(platform, "queue", annotations={"stoker.dev/concurrency": "1", "stoker.dev/timeout": "2s"})
    answers = _all_at_once(platform, "queue", 4)
    assert [answer.status for answer in answers] == [429, 429, 504, 504]  # one runs, one waits
    answer = answers[0]
    assert answer.headers["x-stoker-error"] == "platform; too-many-calls" and answer.headers["retry-after"]
    assert "scale it up" in _described(platform, "queue", "too-many-calls").message


IMPORTS = {
    "import-error": "import nowhere_to_be_found\ndef handle(req): ...\n",
    "bad-handler": "def handle(a, b, c): ...\n",
    "init-failed": "def init():\n    raise OSError('no database')\ndef handle(req): ...\n",
    "cannot-start": "raise ValueError('no luck')\ndef handle(req): ...\n",
}


@pytest.mark.parametrize("code", IMPORTS)
def test_a_function_that_cannot_start_says_why(platform: Platform, code: str) -> None:
    name = f"start-{code}"
    platform.deploy(name, IMPORTS[code], wait=False)
    assert platform.wait_failed(name).code == code
    answer = _faulty(platform, name, "", 503, "function", code)
    assert platform.condition(name).message in answer.text


def test_a_secret_that_does_not_exist_is_refused_at_the_deploy_and_named(platform: Platform) -> None:
    image = platform.build("wants", HANDLER)
    with pytest.raises(BadInput, match="secret 'nobody-made-me' does not exist"):
        platform.deploy_image("wants", image, secrets=["nobody-made-me"])


def test_a_secret_that_is_removed_later_is_named_when_a_replica_is_to_start(platform: Platform) -> None:
    platform.client.create_secret(Secret("fleeting", value="here"))
    _deploy(platform, "forgetful", secrets=["fleeting"])
    platform.client.remove_secret("fleeting")
    platform.scale("forgetful", 0)
    answer = wait_for(lambda: _if_status(platform.call("forgetful"), 503), "a refusal")
    assert answer.headers["x-stoker-error"] == "function; secret-missing"
    assert "'fleeting'" in answer.text and "create it" in answer.text
    assert _described(platform, "forgetful", "secret-missing").status == 503
    platform.client.create_secret(Secret("fleeting", value="again"))
    assert wait_for(lambda: platform.call("forgetful").text == "fine", "a replica with the new secret")


def test_a_call_without_fault_leaves_none(platform: Platform) -> None:
    _deploy(platform, "good")
    assert platform.call("good").text == "fine"
    assert platform.condition("good").faults == []


def _deploy(platform: Platform, name: str, **fields: object) -> None:
    platform.deploy(name, HANDLER, lang="python3-http", **fields)


def _faulty(platform: Platform, name: str, path: str, status: int, side: str, code: str) -> Answer:
    """A call that must fail so, with one line in its body, and the same in `describe`."""
    answer = platform.call(name, path=path)
    assert (answer.status, answer.headers["x-stoker-error"]) == (status, f"{side}; {code}"), answer
    assert answer.text.strip() and answer.text.count("\n") == 1
    fault = _described(platform, name, code)
    assert (fault.side, fault.status, fault.call) == (side, status, answer.headers["x-call-id"])
    return answer


def _described(platform: Platform, name: str, code: str) -> Fault:
    faults = {fault.code: fault for fault in platform.condition(name).faults}
    assert code in faults, faults
    assert faults[code].message and faults[code].at.endswith("Z")
    return faults[code]


def _if_status(answer: Answer, status: int) -> Answer | None:
    return answer if answer.status == status else None


def _all_at_once(platform: Platform, name: str, number: int) -> list[Answer]:
    """Calls that sleep until their timeout, by status."""
    with ThreadPoolExecutor(number) as pool:
        answers = pool.map(lambda _: platform.call(name, path="/sleep"), range(number))
    return sorted(answers, key=lambda answer: answer.status)


def test_only_codes_are_taken_from_a_header_that_a_function_may_have_written() -> None:
    assert fault_code("function; timeout") == "timeout"
    for text in ("timeout", "function;", "function; <b>", "function; " + "a" * 41, "function; Timeout"):
        assert fault_code(text) == ""
